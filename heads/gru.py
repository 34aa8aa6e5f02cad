"""`bigru`, and `unet_gru`: a U-Net over time with a bigru at the bottom.

Shapes: B clips, T steps, C channels, H hidden channels of one direction.
Sources: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014; Ronneberger et al., U-Net,
MICCAI 2015.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv, pool_by_max


@dataclass(frozen=True)
class BiGruSettings:
    """Settings of `bigru`."""

    hidden: int = 512
    """H; the output has 2 H channels."""
    num_layers: int = 2
    """>= 1."""
    dropout: float = 0.0
    """Between the layers: a probability in [0, 1)."""

    def __post_init__(self) -> None:
        ok = self.hidden >= 1 and self.num_layers >= 1
        require(ok, "size is not usable", got=self, wanted="hidden >= 1 and num_layers >= 1")
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "BiGru":
        """(B, T, dim) -> (B, T, 2 hidden)."""
        return BiGru(self, dim)


class BiGru(Neck):
    """A GRU in both directions."""

    def __init__(self, settings: BiGruSettings, dim: int) -> None:
        super().__init__()
        self.dim = 2 * settings.hidden
        self.gru = nn.GRU(
            *(dim, settings.hidden, settings.num_layers),
            batch_first=True,
            bidirectional=True,
            dropout=settings.dropout if settings.num_layers > 1 else 0.0,  # there is nothing between one layer
        )

    def forward(self, x_btc: Tensor) -> Tensor:
        out_bth: Tensor = self.gru(x_btc)[0]
        return out_bth


@dataclass(frozen=True)
class UnetGruSettings:
    """Settings of `unet_gru`."""

    widths: tuple[int, ...] = (256, 512)
    """Channels of each level; their number is the depth."""
    gru: BiGruSettings = BiGruSettings()
    """At the bottom."""

    def __post_init__(self) -> None:
        require(len(self.widths) > 0, "widths are not usable", got=self.widths, wanted="at least one")

    def build(self, dim: int) -> "UnetGru":
        """(B, T, dim) -> (B, T, widths[0])."""
        return UnetGru(self, dim)


class DoubleConv(nn.Module):
    """Twice: convolution of kernel 3, BatchNorm, ReLU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([TimeConv(dim_in, dim_out, 3), TimeConv(dim_out, dim_out, 3)])
        self.norms = nn.ModuleList([TimeBatchNorm(dim_out), TimeBatchNorm(dim_out)])

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D), >= 0."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_btc = functional.relu(norm(conv(x_btc)))
        return x_btc


class UnetGru(Neck):
    """Double convolution and max pool 2 per level, bigru, then nearest upsampling with the skip per level."""

    def __init__(self, settings: UnetGruSettings, dim: int) -> None:
        super().__init__()
        widths = settings.widths
        self.dim = widths[0]
        self.encoder = nn.ModuleList(
            DoubleConv(before, after) for before, after in zip((dim, *widths), widths, strict=False)
        )
        self.bottom = settings.gru.build(widths[-1])
        deeper = (*widths[1:], self.bottom.dim)
        self.decoder = nn.ModuleList(
            DoubleConv(deep + width, width) for deep, width in reversed(list(zip(deeper, widths, strict=True)))
        )

    def forward(self, x_btc: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.encoder:
            x_btc = block(x_btc)
            skips.append(x_btc)
            x_btc = pool_by_max(x_btc, factor=2)
        x_btc = self.bottom(x_btc)
        for block, skip_btc in zip(self.decoder, reversed(skips), strict=True):
            x_btc = x_btc.repeat_interleave(2, dim=1)[:, : skip_btc.shape[1]]
            x_btc = block(torch.cat([x_btc, skip_btc], dim=-1))
        return x_btc
