"""`ed`: encoder-decoder of SGP blocks with SGP mixers, the seed's best head.

Shapes: B clips, T steps, S <= T steps of a coarser level, C channels. Source: Xarles et al., T-DEED:
Temporal-Discriminability Enhancer Encoder-Decoder for Precise Event Spotting in Sports Videos, CVPRW 2024; written
from its description. 68 C^2 + 663 C weights: 2.63 M at C = 192, 112 M at C = 1280.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import Mlp, stretch
from .sgp import SgpBlock, SgpBranches


@dataclass(frozen=True)
class EdSettings:
    """Settings of `ed`."""

    num_layers: int = 2
    """Levels of halving, >= 1."""
    kernel_steps: int = 9
    """Kernel of the narrow window, odd."""
    kernel_ratio: float = 4.0
    """The wide kernel is round((kernel_steps + 1) * kernel_ratio), made odd: 41."""

    def __post_init__(self) -> None:
        require(self.num_layers >= 1, "number of layers is not usable", got=self.num_layers, wanted=">= 1")
        require(self.kernel_steps % 2 == 1, "kernel is not usable", got=self.kernel_steps, wanted="an odd number")
        require(self.kernel_ratio > 0, "kernel ratio is not usable", got=self.kernel_ratio, wanted="> 0")

    def build(self, dim: int) -> "EncoderDecoder":
        """(B, T, dim) -> (B, T, dim)."""
        return EncoderDecoder(self, dim)


class SgpMixer(nn.Module):
    """Joins a coarse level with the skip of the finer one."""

    def __init__(self, dim: int, *, kernel_steps: int, kernel_ratio: float) -> None:
        super().__init__()
        self.norm_deep, self.norm_skip = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.deep = SgpBranches(dim, kernel_steps=kernel_steps, kernel_ratio=kernel_ratio)
        self.skip = SgpBranches(dim, kernel_steps=kernel_steps, kernel_ratio=kernel_ratio)
        self.merge = nn.Linear(6 * dim, dim)
        nn.init.normal_(self.merge.weight, std=0.1)  # as T-DEED's
        nn.init.zeros_(self.merge.bias)
        self.mlp = Mlp(dim)

    def forward(self, deep_bsc: Tensor, skip_btc: Tensor) -> Tensor:
        """(B, S, C), (B, T, C) -> (B, T, C)."""
        skip_btc = self.norm_skip(skip_btc)
        deep_btc = stretch(self.norm_deep(deep_bsc), num_steps=skip_btc.shape[1])
        parts = [*self.deep(deep_btc), *self.skip(skip_btc), deep_btc, skip_btc]
        mixed_btc = functional.gelu(self.merge(torch.cat(parts, dim=-1)))
        out_btc: Tensor = mixed_btc + self.mlp(mixed_btc)
        return out_btc


class EncoderDecoder(Neck):
    """SGP block and halving per level, a block at the bottom, mixer and block per level on the way back."""

    def __init__(self, settings: EdSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim

        def block() -> SgpBlock:
            return SgpBlock(dim, kernel_steps=settings.kernel_steps, kernel_ratio=settings.kernel_ratio)

        def mixer() -> SgpMixer:
            return SgpMixer(dim, kernel_steps=settings.kernel_steps, kernel_ratio=settings.kernel_ratio)

        self.encoder = nn.ModuleList(block() for _ in range(settings.num_layers))
        self.bottleneck = block()
        self.mixers = nn.ModuleList(mixer() for _ in range(settings.num_layers))
        self.decoder = nn.ModuleList(block() for _ in range(settings.num_layers))

    def forward(self, x_btc: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.encoder:
            x_btc = block(x_btc)
            skips.append(x_btc)
            x_btc = halve_by_max(x_btc)
        x_btc = self.bottleneck(x_btc)
        for mixer, block, skip_btc in zip(self.mixers, self.decoder, reversed(skips), strict=True):
            x_btc = block(mixer(x_btc, skip_btc))
        return x_btc


def halve_by_max(x_btc: Tensor) -> Tensor:
    """(B, T, C) -> (B, ceil(T / 2), C), adaptive: pairs where T is even, overlapping twos and threes where odd."""
    return functional.adaptive_max_pool1d(x_btc.transpose(1, 2), (x_btc.shape[1] + 1) // 2).transpose(1, 2)
