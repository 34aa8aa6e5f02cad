"""`unet`: a convolutional U-Net over time, for long windows: deep levels see minutes, the first keeps the instant.

Shapes: B clips, T steps, S = ceil(T / 2) coarser steps, C channels, W channels of a level.
Sources: Ronneberger et al., U-Net, MICCAI 2015; residual blocks with the norm first as in He et al., Identity Mappings
in Deep Residual Networks, ECCV 2016.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv


@dataclass(frozen=True)
class UnetSettings:
    """Settings of `unet`."""

    widths: tuple[int, ...] = (32, 48, 72, 96, 96, 96)
    """Channels of each level, each at half the rate of the one before. With n levels and kernel k a step sees about
    2 (k + 2) 2^(n-1) steps."""
    kernel: int = 5
    """Of the blocks' convolutions, odd."""
    stem_kernel: int = 9
    """Of the first convolution, odd."""
    dropout: float = 0.1
    """Behind every block, 0 to below 1."""

    def __post_init__(self) -> None:
        require(len(self.widths) > 0 and min(self.widths) >= 1, "widths are not usable", got=self.widths, wanted=">= 1")
        odd = self.kernel % 2 == 1 and self.stem_kernel % 2 == 1
        require(odd, "kernel is not usable", got=(self.kernel, self.stem_kernel), wanted="odd numbers")
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="0 to below 1")

    def build(self, dim: int) -> "Unet":
        """(B, T, dim) -> (B, T, widths[0])."""
        return Unet(self, dim)


class ResidualBlock(nn.Module):
    """x + dropout(linear(GELU(convolution(BatchNorm(x)))))."""

    def __init__(self, width: int, *, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = TimeBatchNorm(width)
        self.conv = TimeConv(width, width, kernel)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_btw: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        inside_btw = functional.gelu(self.conv(self.norm(x_btw)))
        out_btw: Tensor = x_btw + self.dropout(self.out(inside_btw))
        return out_btw


class Unet(Neck):
    """A block per level on the way down (by convolutions of stride 2) and on the way up (linear, with the skip)."""

    def __init__(self, settings: UnetSettings, dim: int) -> None:
        super().__init__()
        widths, kernel, dropout = settings.widths, settings.kernel, settings.dropout
        self.dim = widths[0]
        self.stem = TimeConv(dim, widths[0], settings.stem_kernel)
        self.encoder = nn.ModuleList(ResidualBlock(width, kernel=kernel, dropout=dropout) for width in widths)
        self.downs = nn.ModuleList(TimeConv(fine, coarse, 5, stride=2) for fine, coarse in pairwise(widths))
        self.merges = nn.ModuleList(nn.Linear(fine + coarse, fine) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(ResidualBlock(width, kernel=kernel, dropout=dropout) for width in widths[:-1])

    def forward(self, x_btc: Tensor) -> Tensor:
        x_btw: Tensor = self.stem(x_btc)
        skips: list[Tensor] = []
        for block, down in zip(self.encoder[:-1], self.downs, strict=True):
            x_btw = block(x_btw)
            skips.append(x_btw)
            x_btw = down(x_btw)
        x_btw = self.encoder[-1](x_btw)
        for merge, block in zip(reversed(self.merges), reversed(self.decoder), strict=True):
            skip_btw = skips.pop()
            x_btw = block(merge(torch.cat([skip_btw, double(x_btw)[:, : skip_btw.shape[1]]], dim=-1)))
        return x_btw


def double(x_bsw: Tensor) -> Tensor:
    """(B, S, W) -> (B, 2 S, W): step i stays at 2 i, the mean of it and the next one follows.

    The inverse grid of a convolution of stride 2, whose output i is centred on input 2 i; no interpolation of torch has
    this grid.
    """
    after_bsw = torch.cat([x_bsw[:, 1:], x_bsw[:, -1:]], dim=1)
    return torch.stack([x_bsw, (x_bsw + after_bsw) / 2], dim=2).flatten(1, 2)
