"""Settings of network, targets, training and finetuning: saved with every run, and the options of the command line.

Nothing here imports torch, so that `bas --help` stays fast.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import gcd, isfinite
from typing import Any, Literal, Self, get_args

from ...errors import InputError
from ...files import settings_from

LossName = Literal["ce", "focal", "bce", "bce_focal"]
LOSS_NAMES: tuple[LossName, ...] = get_args(LossName)
InputsName = Literal["raw", "standard", "scores"]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
Keep = Literal["best", "last"]
Norm = Literal["auto", "batch", "frozen"]
Augment = Literal["seed", "affine", "strong", "flip", "none"]
MixupOf = Literal["rows", "pictures"]
Schedule = Literal["cosine", "seed"]

DISPLACEMENT = "disp"
_KINDS: Mapping[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}
"""Type of a default -> what may stand in its place."""
_MOST = 1 << 40
_OLD_ACTIONFORMER = {"actionformer.width": 256, "actionformer.layer_scale": 0.0, "actionformer.loss_momentum": 0.0}
"""Defaults of runs made before there was a setting `schedule`, in November 2026."""


@dataclass(frozen=True)
class TargetSettings:
    """How events become labels."""

    dilation_steps: int = 0
    """Steps to each side of an event that carry its label, >= 0."""
    sigma_steps: float = 0.0
    """Width of Gaussian soft labels in steps, 0 for hard ones; published runs found 2 neutral and wider harmful."""

    def __post_init__(self) -> None:
        if self.dilation_steps < 0 or self.sigma_steps < 0:
            raise InputError("width of the labels is not usable", got=self, wanted="numbers of steps >= 0")
        if self.dilation_steps and self.sigma_steps:
            raise InputError(
                "labels are either dilated or soft", got=self, wanted="one of the two at 0", cure="leave one out"
            )


def default_targets(head: str) -> TargetSettings:
    """Label width that a head is made for: dilation by 2 steps with `+disp`, none otherwise."""
    return TargetSettings(dilation_steps=2 if head.endswith(f"+{DISPLACEMENT}") else 0)


@dataclass(frozen=True)
class ScoringPlan:
    """How a whole match is cut into windows to be scored."""

    window_steps: int
    """Steps of a window, >= 1; a shorter match is one window."""
    stride: int
    """Rows per step, >= 1."""
    overlap: float = 0.5
    """Share of a window that the next one sees again, 0 to below 1."""
    half: bool = True
    """fp16 on a CUDA device; elsewhere fp32 in any case."""
    steps_per_call: int = 6_400
    """Steps that go through the network at once: memory only."""

    def __post_init__(self) -> None:
        if min(self.window_steps, self.stride, self.steps_per_call) < 1 or not 0 <= self.overlap < 1:
            raise InputError("windows over a match are not usable", got=self, wanted="steps >= 1, overlap in [0, 1)")

    @property
    def hop_steps(self) -> int:
        """Steps between the starts of neighbouring windows, >= 1."""
        return max(1, round(self.window_steps * (1 - self.overlap)))


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """All that decides what the network is."""

    head: str = "ed"
    """Name of the head (see --list), several joined by `+`; `+disp` at the end adds a displacement output. A head of
    your own is `module:Settings`."""
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Settings of the head that differ from its defaults, such as bigru.hidden=96 or unet_gru.gru.hidden=64."""
    proj: int | None = None
    """Project the features to this width before the head; 0: never. By default 256 for more than 256 channels."""
    loss: LossName | None = None
    """Loss of the classifier; by default the head's own."""
    dropout: float | None = None
    """Dropout before the classifier; by default what the head's source has: 0.5, or none for tpn, transformer and
    ed_conv."""
    depth: int | None = None
    """Use the channels of this depth alone, of a store that holds several; default: that of the recipe, else all."""
    inputs: InputsName = "raw"
    """What is done to the features first: nothing (raw), mean 0 and deviation 1 over the training rows (standard), or
    for confidences their logits beside them (scores)."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ModelSettings):
    """What the network is, and how it learns. The defaults are the seed's recipe for its best head."""

    clip_len: int = 50
    """Steps of a training window."""
    stride: int = 2
    """Rows (frames) per step."""
    hop_rows: int = 9
    """Rows (frames) between the starts of neighbouring training windows: 9 of 100 is an overlap of 91 %. One that
    shares a factor with the stride leaves rows out: 10 at stride 2 never trains half of them."""
    views: tuple[str, ...] = ("identity",)
    """Views of the store that training draws from, each batch from one; validation sees the first."""
    dilate: int | None = None
    """Steps to each side of an event that carry its label; by default 2 with `+disp`, else 0."""
    sigma: float = 0.0
    """Width of Gaussian soft labels in steps; 0: hard labels."""
    mixup: float = 0.0
    """Blend pairs of windows by Beta(alpha, alpha) with this alpha; 0: never."""
    event_share: float = 0.0
    """Share of the windows that are drawn among those with an event, beside those that come in turn; 0: none."""
    frames_per_epoch: int = 500_000
    """Steps that an epoch sees, over all its windows; rounded down to whole batches."""
    epochs: int = 20
    """Maximum number of epochs."""
    warmup_epochs: float = 3.0
    """Epochs over which the learning rate rises linearly from 1 %; it then falls by a cosine to 0."""
    schedule: Schedule = "cosine"
    """Learning-rate schedule: the cosine begins after the warm-up (cosine), or both act from the first step as in the
    seed's code, which reaches 0 a warm-up before the end and rises again (seed)."""
    tolerance: float = 1.0
    """Seconds, half of them to each side of an event, within which validation counts a spot, as it chooses the epoch
    and the peaks: 1 is SoccerNet's metric, 0.36 is 4 frames of 25 a second to each side."""
    patience: int = 5
    """Stop after this many epochs without improvement; 0: never."""
    min_improvement: float = 0.01
    """Fall of the validation loss that counts as an improvement for the patience; any gain in validation mAP does."""
    batch: int = 4
    """Windows per optimizer step, over all devices."""
    lr: float = 8e-4
    """Peak learning rate of AdamW (of the head, where a backbone learns too)."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    max_grad_norm: float = 0.0
    """Clip gradients to this norm; 0: never."""
    ema: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is then validated and kept; 0: none."""
    precision: Precision = "auto"
    """Precision of the forward pass; auto: fp16 on a CUDA device, bf16 on a CPU with instructions for it, else fp32."""
    score_overlap: float = 0.5
    """Overlap of the windows when a whole match is scored, 0 to below 1."""
    score_len: int = 0
    """Steps of the windows when a whole match is scored; 0: as in training."""
    keep: Keep = "best"
    """Weights to keep: of the epoch with the best validation, or of the last, whose validation chose nothing."""
    seed: int = 0
    """Seed of weights, order, augmentation, dropout and mixup."""

    def __post_init__(self) -> None:
        for each in fields(self):
            kinds = _KINDS.get(type(each.default), (object,))
            value = getattr(self, each.name)
            self._require(each.name, isinstance(value, kinds) and type(value) is not bool, kinds[0].__name__)
        for name in ("clip_len", "stride", "hop_rows", "frames_per_epoch", "epochs", "batch"):
            self._require(name, 1 <= getattr(self, name) < _MOST, "a whole number >= 1")
        for name in ("sigma", "mixup", "warmup_epochs", "min_improvement", "weight_decay", "max_grad_norm"):
            self._require(name, getattr(self, name) >= 0 and isfinite(getattr(self, name)), "a number >= 0")
        for name in ("patience", "score_len"):
            self._require(name, 0 <= getattr(self, name) < _MOST, "a whole number >= 0")
        self._require("seed", 0 <= self.seed < 1 << 63, "a whole number from 0 to below 2 ** 63")
        self._require("lr", 0 < self.lr < 10, "a number above 0, such as 8e-4")
        self._require("tolerance", 0 < self.tolerance <= 60, "seconds above 0, up to 60")
        for name in ("ema", "event_share"):
            self._require(name, 0 <= getattr(self, name) < 1, "0 to below 1")
        has_dropout = isinstance(self.dropout, int | float) and type(self.dropout) is not bool
        self._require("dropout", self.dropout is None or (has_dropout and 0 <= self.dropout < 1), "0 to below 1")
        self._require("score_overlap", 0 <= self.score_overlap < 1, "0 to below 1")
        has_names = isinstance(self.views, tuple) and self.views and all(isinstance(view, str) for view in self.views)
        self._require("views", bool(has_names), "one view or more")
        self._require("options", isinstance(self.options, Mapping), "settings by name")
        self._require("dilate", self.dilate is None or _is_whole(self.dilate), "a whole number >= 0")
        self._require("proj", self.proj is None or _is_whole(self.proj), "a whole number >= 0")
        self._require_one_of("keep", Keep)
        self._require_one_of("schedule", Schedule)
        self._require_one_of("precision", Precision)
        self._require_one_of("inputs", InputsName)
        if self.loss is not None:
            self._require_one_of("loss", LossName)
        _ = self.targets

    def _require(self, name: str, ok: bool, wanted: str) -> None:
        if not ok:
            raise InputError(f"setting {name!r} is not usable", got=getattr(self, name), wanted=wanted)

    def _require_one_of(self, name: str, choices: Any) -> None:
        self._require(name, getattr(self, name) in get_args(choices), ", ".join(get_args(choices)))

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
    def share_of_rows(self) -> float:
        """Share of the rows that windows ever hold: below 1 where hop and stride have a common factor."""
        return 1 / gcd(self.hop_rows, self.stride)

    @property
    def clips_per_epoch(self) -> int:
        """Windows of an epoch, whole batches."""
        return self.steps_per_epoch * self.batch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, at least one."""
        return max(1, self.frames_per_epoch // self.clip_len // self.batch)

    @classmethod
    def from_json(cls, record: object, *, where: str) -> Self:
        """Inverse of `to_json`; fields that are missing get their defaults.

        Raises:
            InputError: a field is unknown or not usable.
        """
        if isinstance(record, Mapping):
            renamed = {"frames_per_epoch" if name == "epoch_steps" else name: record[name] for name in record}
            if isinstance(renamed.get("views"), list):
                renamed["views"] = tuple(renamed["views"])
            if "schedule" not in renamed and "actionformer" in str(renamed.get("head")):
                renamed["options"] = {**_OLD_ACTIONFORMER, **dict(renamed.get("options") or {})}
            record = renamed
        return settings_from(cls, record, where=where)

    def differing(self, other: "TrainSettings") -> list[str]:
        """Names of the fields whose values differ."""
        mine, theirs = self.to_json(), other.to_json()
        return [name for name in mine if mine[name] != theirs.get(name)]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainSettings):
    """As `TrainSettings`, with the backbone learning too. Clips come from the videos, so `views` stays at its default,
    and the backbone sees the same `clip_len` steps at `stride` as the head."""

    unfreeze: int | None = None
    """Blocks of the backbone that learn, counted from its end; by default all; 0: only the head learns."""
    backbone_lr: float = 1.0
    """Learning rate of the backbone, as a multiple of that of the head."""
    norm: Norm = "auto"
    """Statistics of BatchNorm in the blocks that learn: those of the batch (of each process by itself on CPUs, of all
    GPUs together), the stored ones (frozen), or auto: batch where all blocks learn, else frozen."""
    augment: Augment = "seed"
    """Augmentation of each clip: colour jitter, blur and flip as in the seed's recipe (seed), these with a quarter of
    the clips turned, shifted, scaled and sheared (affine) or with rotation, crop and a moving camera (strong), flip
    alone, or none."""
    mixup_of: MixupOf = "rows"
    """What mixup blends: the rows of two clips, or their pictures, as E2E-Spot, T-DEED and AdaSpot do."""
    side_weight: float = 0.0
    """Learn also from the rows of each of a backbone's networks (`+adaspot` has two), by a head of its own that is
    dropped afterwards: weight of its loss beside that of the head that stays; 0: none."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after the other: less memory; each part has its own loss and statistics."""
    begun_from: str = ""
    """SHA-256 of the weights of the head that it began with; empty: random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("unfreeze", self.unfreeze is None or _is_whole(self.unfreeze), "all, or a whole number >= 0")
        self._require("backbone_lr", 0 < self.backbone_lr < 1e6, "a number > 0, such as 0.1")
        self._require_one_of("norm", Norm)
        self._require_one_of("augment", Augment)
        self._require_one_of("mixup_of", MixupOf)
        self._require("side_weight", self.side_weight >= 0 and isfinite(self.side_weight), "a number >= 0, such as 1")
        divides = self.accumulate >= 1 and self.batch % self.accumulate == 0
        self._require("accumulate", divides, f"a divisor of the batch, {self.batch}")
        is_alone = self.mixup and self.mixup_of == "pictures" and self.batch == self.accumulate
        self._require("mixup_of", not is_alone, "rows, or 2 clips or more at once (--batch / --accumulate) to blend")

    @classmethod
    def of(cls, settings: TrainSettings, **changes: Any) -> "FinetuneSettings":
        """A recipe with what finetuning adds to it."""
        return cls(**{**{each.name: getattr(settings, each.name) for each in fields(settings)}, **changes})

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether BatchNorm of the blocks that learn uses the batch's statistics."""
        return self.norm == "batch" or (self.norm == "auto" and self.unfreeze is None)


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST
