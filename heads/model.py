"""A head with its inputs, and the settings that build both: what training makes and prediction loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from .contract import Head, HeadOutputs, HeadSettings, NeckSettings
from .inputs import Inputs
from .losses import LossName
from .ops import Mask
from .registry import HEADS, build_head
from .targets import Targets


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """All that decides what the network is."""

    head: str = "ed"
    """Name in `HEADS`, several joined by `+`; `+disp` at the end adds a displacement output."""
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Settings of the head that differ from its defaults, e.g. {"bigru.hidden": 96, "unet_gru.gru.hidden": 64}."""
    proj: int | None = None
    """Width of a projection before the head; 0 none; None: 256 for more than 256 channels, else none."""
    loss: LossName | None = None
    """`ce` or `focal`; None: the head's own."""
    inputs: str = "raw"
    """Name in `INPUTS`: raw, standard (deviation 1 over the training rows), scores (adds logits, then standard)."""

    def build(self, *, dim: int, num_classes: int) -> "SpottingModel":
        """A model for C = `dim` channels, randomly initialised from torch's global generator.

        Raises:
            InputError: a name or a setting is not usable.
        """
        settings = head_settings(self.options)
        unused = [path for path in self.options if path.split(".")[0] not in self.head.split("+")]
        if unused:
            raise InputError(f"setting of a head that is not in {self.head!r}", got=", ".join(unused))
        inputs = Inputs(self.inputs, dim)
        head = build_head(
            self.head,
            dim=inputs.dim,
            num_classes=num_classes,
            proj=self.proj,
            loss=self.loss,
            settings=settings,
        )
        return SpottingModel(inputs, head)


class SpottingModel(nn.Module):
    """Rows as stored -> outputs, loss, scores. The head is the same object whoever trains it."""

    def __init__(self, inputs: Inputs, head: Head) -> None:
        super().__init__()
        self.inputs = inputs
        self.head = head

    def forward(self, features_btc: Tensor, mask_bt: Mask = None) -> HeadOutputs:
        """(B, T, C) rows and their mask -> the head's outputs."""
        outputs: HeadOutputs = self.head(self.inputs(features_btc), mask_bt)
        return outputs

    def loss(self, outputs: HeadOutputs, targets: Targets) -> Tensor:
        """Scalar."""
        return self.head.loss(outputs, targets)

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """(B, T, K) in [0, 1]."""
        return self.head.scores(outputs)

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.numel() for parameter in self.parameters())


_LARGEST, _MOST_LAYERS = 8192, 256
"""A width or number in a head's settings, and the number of its layers or parts: more is a mistake, or a trap."""


def head_settings(options: Mapping[str, Any]) -> dict[str, NeckSettings | HeadSettings]:
    """Settings by head name, with `options` such as {"bigru.hidden": 96} in place of defaults.

    Raises:
        InputError: no such head or field, or a value of the wrong type.
    """
    changed: dict[str, Any] = {}
    for path, value in options.items():
        name, *fields = path.split(".")
        if name not in HEADS or not fields:
            raise InputError("no such setting of a head", got=path, wanted="HEAD.FIELD, such as bigru.hidden")
        changed[name] = _with(changed.get(name, HEADS[name]), fields, value, path=path)
    return changed


def _with(settings: Any, fields: list[str], value: Any, *, path: str) -> Any:
    known = vars(settings) if is_dataclass(settings) else {}
    if fields[0] not in known:
        raise InputError("no such setting of a head", got=path, wanted=", ".join(known) or "no further part")
    before = known[fields[0]]
    if len(fields) > 1:
        return replace(settings, **{fields[0]: _with(before, fields[1:], value, path=path)})
    if isinstance(before, float) and type(value) is int:
        value = float(value)
    if isinstance(before, tuple):
        value = _numbers(value, type(before[0]) if before else int, path=path)
    if type(value) is not type(before):
        raise InputError(
            f"setting {path} is not usable", got=repr(value), wanted=f"{type(before).__name__}, such as {before!r}"
        )
    numbers = value if isinstance(value, tuple) else (value,)
    most = _MOST_LAYERS if fields[0].startswith("num_") else _LARGEST
    is_large = any(not -most <= number <= most for number in numbers if isinstance(number, int | float))
    if is_large or len(numbers) > _MOST_LAYERS:
        raise InputError(f"setting {path} is not usable", got=repr(value)[:80], wanted=f"at most {most}")
    return replace(settings, **{fields[0]: value})


def _numbers(value: Any, kind: type, *, path: str) -> tuple[Any, ...]:
    """A tuple from `4,8,16`, from `[4, 8, 16]` or from one number."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        return tuple(kind(str(part)) for part in parts)
    except ValueError:
        raise InputError(
            f"setting {path} is not usable", got=repr(value)[:80], wanted="numbers such as 4,8,16"
        ) from None
