"""What every head is, so that training, finetuning and inference never ask which one they hold.

Shapes: B clips, T steps, C feature channels, D neck channels, K classes, N = K + 1 outputs (0 is background).
A step is one row of features: one frame at 25 rows per second, two at the seed's stride of 2.

Heads know no padding. A match shorter than a window is filled up with its last row, and `Targets.mask_bt` keeps those
steps out of the loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ..errors import InputError
from .targets import Targets


@dataclass(frozen=True)
class HeadOutputs:
    """What `forward` gives to `loss` and `scores`; the shapes in between are the head's own affair."""

    logits: Tensor
    """(B, T, N) of a softmax head, (B, S, K) or (B, T, A, K) of a presence head."""
    offsets: Tensor | None
    """Regressed offsets, in the head's own unit; None where it regresses none."""
    num_steps: int
    """T."""


class Head(nn.Module, ABC):
    """Features to events."""

    @abstractmethod
    def forward(self, features_btc: Tensor) -> HeadOutputs:
        """(B, T, C) features, any T >= 1 -> outputs."""

    @abstractmethod
    def loss(self, outputs: HeadOutputs, targets: Targets) -> Tensor:
        """Scalar, mean over the steps that `targets.mask_bt` marks as real; 0 where there are none."""

    @abstractmethod
    def scores(self, outputs: HeadOutputs) -> Tensor:
        """Confidences (B, T, K) in [0, 1] of class k + 1 at each step, offsets applied."""


class Neck(nn.Module, ABC):
    """(B, T, C) -> (B, T, D)."""

    dim: int
    """D."""
    classifier_dropout: float = 0.5
    """Dropout before the classifier that follows, unless another is asked for."""

    @abstractmethod
    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C), any T >= 1 -> (B, T, D)."""


class Trunk(nn.Module):
    """Input check, projection, then necks one after the other: the common first part of every head."""

    def __init__(self, *, dim: int, proj: int, necks: "Sequence[NeckSettings]") -> None:
        """`dim` is C; `proj` is the width of a linear projection before the first neck, 0 for none."""
        super().__init__()
        self.dim_in = dim
        self.proj: nn.Module = nn.Linear(dim, proj) if proj else nn.Identity()
        self.dim = proj or dim
        self.necks = nn.ModuleList()
        for settings in necks:
            neck = settings.build(self.dim)
            self.necks.append(neck)
            self.dim = neck.dim

    @property
    def classifier_dropout(self) -> float:
        """Dropout before the classifier, by the last neck."""
        last = self.necks[-1] if self.necks else None
        return last.classifier_dropout if isinstance(last, Neck) else Neck.classifier_dropout

    def forward(self, features_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D).

        Raises:
            InputError: features of another shape.
        """
        shape = tuple(features_btc.shape)
        if len(shape) != 3 or shape[1] == 0 or shape[2] != self.dim_in:
            raise InputError(
                "features do not fit the head",
                got=f"shape {shape}",
                wanted=f"(clips, steps >= 1, {self.dim_in} channels)",
                cure=f"build the head with dim={shape[-1]}" if len(shape) == 3 and shape[1] else "",
            )
        x_btc: Tensor = self.proj(features_btc)
        for neck in self.necks:
            x_btc = neck(x_btc)
        return x_btc


class NeckSettings(Protocol):
    """Settings of a neck: a frozen dataclass beside it."""

    def build(self, dim: int) -> Neck:
        """A neck for C = `dim`, randomly initialised."""


@runtime_checkable
class HeadSettings(Protocol):
    """Settings of a head with a classifier of its own: it ends a composition."""

    def build_head(self, trunk: Trunk, num_classes: int) -> Head:
        """A head on `trunk`, randomly initialised."""


def require(ok: bool, what: str, *, got: object, wanted: str) -> None:
    """Check of a setting.

    Raises:
        InputError: `ok` is False.
    """
    if not ok:
        raise InputError(what, got=got, wanted=wanted)
