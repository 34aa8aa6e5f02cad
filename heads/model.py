"""A head with its inputs: what training makes and prediction loads."""

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..cache.settings import FeatureSettings
from ..errors import InputError
from .contract import Head, HeadOutputs, HeadSettings, NeckSettings
from .inputs import Inputs
from .registry import HEADS, build_head, default_settings, split_option
from .targets import Targets
from .training.settings import ModelSettings


def build_model(
    settings: ModelSettings, *, dim: int, num_classes: int, features: FeatureSettings | None = None
) -> "SpottingModel":
    """A model for C = `dim` channels, randomly initialised from torch's global generator.

    Args:
        settings: what it is.
        dim: channels of the rows.
        num_classes: K, without background.
        features: of the rows, which say where the depth is that the settings ask for.

    Raises:
        InputError: a name or a setting is not usable.
    """
    unused = [path for path in settings.options if split_option(path)[0] not in settings.head.split("+")]
    replaced = head_settings(settings.options)
    if unused:
        raise InputError(f"setting of a head that is not in {settings.head!r}", got=", ".join(unused))
    if settings.depth is not None and features is None:
        raise InputError("where the depth is among the channels is not known", got=settings.depth, wanted="features")
    channels = features.channels_of(settings.depth) if features and settings.depth is not None else None
    inputs = Inputs(settings.inputs, dim, channels=channels)
    head = build_head(
        settings.head,
        dim=inputs.dim,
        num_classes=num_classes,
        proj=settings.proj,
        loss=settings.loss,
        dropout=settings.dropout,
        settings=replaced,
    )
    return SpottingModel(inputs, head)


class SpottingModel(nn.Module):
    """Rows as stored -> outputs, loss, scores. The head is the same object whoever trains it."""

    def __init__(self, inputs: Inputs, head: Head) -> None:
        super().__init__()
        self.inputs = inputs
        self.head = head

    def forward(self, features_btc: Tensor) -> HeadOutputs:
        """(B, T, C) rows -> the head's outputs."""
        outputs: HeadOutputs = self.head(self.inputs(features_btc))
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
        name, fields = split_option(path)
        if not fields or (":" not in name and name not in HEADS):
            raise InputError("no such setting of a head", got=path, wanted="HEAD.FIELD, such as bigru.hidden")
        changed[name] = _with(changed.get(name) or default_settings(name), fields, value, path=path)
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
