"""`ed_conv` and `tpn`: coarser grids by pooling or strides, brought back to every step.

Shapes: B clips, T steps, S coarser steps, C channels.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv


@dataclass(frozen=True)
class EdConvSettings:
    """Settings of `ed_conv`."""

    pool_steps: int = 8
    """Steps that the max pool takes together, >= 1: finer order than this is lost."""
    widths: tuple[int, ...] = (128, 64, 32)
    """Channels after each transposed convolution (kernel 5, stride 2, padding 2)."""

    def __post_init__(self) -> None:
        require(self.pool_steps >= 1, "pooling is not usable", got=self.pool_steps, wanted=">= 1 step")
        require(len(self.widths) > 0, "widths are not usable", got=self.widths, wanted="at least one")

    def build(self, dim: int) -> "EdConv":
        """(B, T, dim) -> (B, T, dim)."""
        return EdConv(self, dim)


class EdConv(Neck):
    """Max pool over time, then back by transposed convolutions, each with BatchNorm and ReLU; linear to C."""

    classifier_dropout = 0.0

    def __init__(self, settings: EdConvSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.pool_steps = settings.pool_steps
        widths = (dim, *settings.widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(before, after, 5, stride=2, padding=2) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(TimeBatchNorm(width) for width in settings.widths)
        self.out = nn.Linear(widths[-1], dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        num_steps = x_btc.shape[1]
        factor = min(self.pool_steps, num_steps)  # the steps of a part cell at the end are dropped, as in the source
        x_bsc = functional.max_pool1d(x_btc.transpose(1, 2), factor).transpose(1, 2)
        for up, norm in zip(self.ups, self.norms, strict=True):
            x_bsc = functional.relu(norm(up(x_bsc.transpose(1, 2)).transpose(1, 2)))
        return functional.interpolate(self.out(x_bsc).transpose(1, 2), num_steps, mode="linear").transpose(1, 2)


@dataclass(frozen=True)
class TpnSettings:
    """Settings of `tpn`."""

    strides: tuple[int, ...] = (1, 2, 4)
    """Steps between the outputs of each convolution (kernel 3)."""

    def __post_init__(self) -> None:
        ok = len(self.strides) > 0 and min(self.strides) >= 1
        require(ok, "strides are not usable", got=self.strides, wanted="at least one, each >= 1")

    def build(self, dim: int) -> "Tpn":
        """(B, T, dim) -> (B, T, dim)."""
        return Tpn(self, dim)


class Tpn(Neck):
    """Parallel strided convolutions, stretched to every step, concatenated; linear, BatchNorm, ReLU.

    Translation equivariant by multiples of the largest stride, where the strides divide T.
    """

    classifier_dropout = 0.0

    def __init__(self, settings: TpnSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.convs = nn.ModuleList(TimeConv(dim, dim, 3, stride=stride) for stride in settings.strides)
        self.norms = nn.ModuleList(TimeBatchNorm(dim) for _ in settings.strides)
        self.merge = nn.Linear(dim * len(settings.strides), dim)
        self.norm = TimeBatchNorm(dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        levels = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            level_bsc = functional.relu(norm(conv(x_btc)))
            levels.append(functional.interpolate(level_bsc.transpose(1, 2), x_btc.shape[1]).transpose(1, 2))  # nearest
        return functional.relu(self.norm(self.merge(torch.cat(levels, dim=-1))))
