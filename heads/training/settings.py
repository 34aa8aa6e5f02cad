"""Settings of a training run, saved with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ...errors import InputError, reading_record
from ..losses import LOSS_NAMES
from ..model import ModelSettings
from ..registry import default_targets
from ..scoring import ScoringPlan
from ..targets import TargetSettings

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Keep = Literal["best", "last"]
Norm = Literal["auto", "batch", "frozen"]
Augment = Literal["seed", "flip", "none"]


_KINDS: Mapping[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}
"""Type of a default -> what may stand in its place."""
_MOST = 1 << 40


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ModelSettings):
    """What the network is, and how it learns. The defaults are the seed's recipe for its best head."""

    clip_len: int = 50
    """Steps of a training window, >= 1."""
    stride: int = 2
    """Rows (frames) per step, >= 1."""
    hop_rows: int = 10
    """Rows between the starts of neighbouring windows, >= 1: 10 of 100 is an overlap of 90 %."""
    views: tuple[str, ...] = ("identity",)
    """Views of the store that training draws from, each batch from one; validation sees the first."""
    dilate: int | None = None
    """Steps to each side of an event that carry its label; None: the head's own (2 with `+disp`, else 0)."""
    sigma: float = 0.0
    """Width of Gaussian soft labels in steps; 0 for hard ones."""
    mixup: float = 0.0
    """Alpha of mixup's Beta(alpha, alpha); 0: none."""
    epoch_steps: int = 500_000
    """Steps (frames seen) of an epoch, a multiple of nothing in particular, >= clip_len * batch."""
    epochs: int = 20
    """At most so many."""
    warmup_epochs: float = 3.0
    """The learning rate rises linearly from 1 % over so many epochs, then falls by a cosine to 0."""
    patience: int = 5
    """Epochs without improvement before training stops; 0: never."""
    min_improvement: float = 0.01
    """Of validation mAP (0 to 1), to count as an improvement for `patience`."""
    batch: int = 4
    """Windows per update, >= 1."""
    lr: float = 8e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_grad_norm: float = 0.0
    """Gradients are scaled down to this norm; 0: never."""
    ema: float = 0.0
    """Decay per update of the averaged weights that are validated and kept; 0: the weights themselves."""
    precision: Precision = "auto"
    """Of the forward pass; `auto`: fp16 on a CUDA device, else fp32."""
    score_overlap: float = 0.5
    """Overlap of the windows over a whole match, 0 to below 1."""
    score_len: int = 0
    """Steps of these windows; 0: `clip_len`. Longer ones cost nothing more, where the head does well on them."""
    keep: Keep = "best"
    """Weights that a run keeps: of the epoch with the best validation, or of the last, so that validation chooses none
    of them and its figures flatter less."""
    seed: int = 0
    """Of weights, order, dropout and mixup, >= 0."""

    def __post_init__(self) -> None:
        for name in ("clip_len", "stride", "hop_rows", "epoch_steps", "epochs", "batch"):
            self._require(name, 1 <= getattr(self, name) < _MOST, "a whole number >= 1")
        for name in ("sigma", "mixup", "warmup_epochs", "min_improvement", "weight_decay", "max_grad_norm"):
            self._require(name, 0 <= getattr(self, name) < float("inf"), "a number >= 0")
        self._require("patience", 0 <= self.patience < _MOST, "a whole number >= 0")
        self._require("seed", 0 <= self.seed < 1 << 63, "a whole number from 0 to below 2 ** 63")
        self._require("lr", 0 < self.lr < 10, "a number above 0, such as 8e-4")
        self._require("ema", 0 <= self.ema < 1, "0 to below 1")
        self._require("score_overlap", 0 <= self.score_overlap < 1, "0 to below 1")
        self._require("views", len(self.views) > 0, "one view or more")
        self._require("score_len", 0 <= self.score_len < _MOST, "a whole number >= 0")
        self._require("keep", self.keep in get_args(Keep), ", ".join(get_args(Keep)))
        self._require("precision", self.precision in get_args(Precision), ", ".join(get_args(Precision)))
        self._require("loss", self.loss in (None, *LOSS_NAMES), ", ".join(LOSS_NAMES))
        self._require("dilate", self.dilate is None or 0 <= self.dilate < _MOST, "a whole number >= 0")
        _ = self.targets

    def _require(self, name: str, ok: bool, wanted: str) -> None:
        if not ok:
            raise InputError(f"setting {name!r} is not usable", got=getattr(self, name), wanted=wanted)

    @property
    def targets(self) -> TargetSettings:
        """Width of the labels."""
        if self.dilate is None and self.sigma == 0:
            return default_targets(self.head)
        return TargetSettings(dilation_steps=self.dilate or 0, sigma_steps=self.sigma)

    @property
    def scoring_plan(self) -> ScoringPlan:
        """Windows over a whole match."""
        return ScoringPlan(
            window_steps=self.score_len or self.clip_len,
            stride=self.stride,
            overlap=self.score_overlap,
            half=self.precision in ("auto", "fp16"),
        )

    @property
    def clips_per_epoch(self) -> int:
        """Windows of an epoch, whole batches."""
        return self.batches_per_epoch * self.batch

    @property
    def batches_per_epoch(self) -> int:
        """Updates of an epoch, at least one."""
        return max(1, self.epoch_steps // self.clip_len // self.batch)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, where: str) -> "TrainSettings":
        """Inverse of `to_json`.

        Raises:
            InputError: a field is missing, unknown or not usable.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: settings are damaged", got=type(record).__name__)
        names = {each.name for each in fields(cls)}
        if set(record) != names:
            wrong = ", ".join(sorted(names ^ set(record)))[:400]
            raise InputError(
                f"{where}: settings do not fit this version of bas",
                got=f"missing or unknown: {wrong}",
                cure="use the version of bas that trained the run",
            )
        with reading_record(f"{where}: settings are damaged"):
            for each in fields(cls):
                kinds = _KINDS.get(type(each.default), (object,))
                if not isinstance(record[each.name], kinds) or type(record[each.name]) is bool:
                    raise TypeError(f"{each.name} is {record[each.name]!r}"[:80])
            if not all(isinstance(view, str) for view in record["views"]):
                raise TypeError("views are no names")
            return cls(**{**record, "views": tuple(record["views"]), "options": dict(record["options"])})

    def differing(self, other: "TrainSettings") -> list[str]:
        """Names of the fields whose values differ."""
        mine, theirs = self.to_json(), other.to_json()
        return [name for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainSettings):
    """As `TrainSettings`, with the backbone learning too. Clips come from the videos, so `views` and the like of a
    store stay at their defaults, and the backbone sees the same `clip_len` steps at `stride` as the head."""

    unfreeze: int | None = None
    """Blocks of the backbone that learn, counted from its end; None: all; 0: none, only the head learns."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone, as a multiple of `lr`, > 0."""
    norm: Norm = "auto"
    """What BatchNorm of the blocks that learn uses: `batch`: the batch's own statistics (those stored follow them);
    `frozen`: the stored ones, which stay; `auto`: `batch` where all blocks learn, else `frozen`. Blocks that do not
    learn always use the stored ones. Other norms have no statistics."""
    augment: Augment = "seed"
    """Of the pictures, per clip: `seed` (colour, blur, flip), `flip`, or `none`."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after the other: less memory; each part has its own loss and statistics."""
    begun_from: str = ""
    """SHA-256 of the head's weights that it began with; empty: random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("unfreeze", self.unfreeze is None or self.unfreeze >= 0, "all, or a whole number >= 0")
        self._require("backbone_lr", 0 < self.backbone_lr < 1e6, "a number > 0, such as 0.1")
        self._require("norm", self.norm in get_args(Norm), ", ".join(get_args(Norm)))
        self._require("augment", self.augment in get_args(Augment), ", ".join(get_args(Augment)))
        divides = self.accumulate >= 1 and self.batch % self.accumulate == 0
        self._require("accumulate", divides, f"a divisor of the batch, {self.batch}")

    @classmethod
    def of(cls, settings: TrainSettings, **changes: Any) -> "FinetuneSettings":
        """A recipe with what finetuning adds to it."""
        return cls(**{**{each.name: getattr(settings, each.name) for each in fields(settings)}, **changes})

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether BatchNorm of the blocks that learn uses the batch's statistics."""
        return self.norm == "batch" or (self.norm == "auto" and self.unfreeze is None)
