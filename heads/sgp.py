"""`sgp` (the seed's two branches) and `sgp_block` (as in TriDet); the branches also make the mixer of `ed`.

Shapes: B clips, T steps, C channels. Source: Shi et al., TriDet: Temporal Action Detection with Relative Boundary
Modeling, CVPR 2023 (scalable-granularity perception). The mean over time makes every step see the whole clip.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import Mlp, TimeConv, depthwise


@dataclass(frozen=True)
class SgpSettings:
    """Settings of `sgp`."""

    dilations: tuple[int, ...] = (1, 2, 3)
    """Steps between the taps of each convolution of the window branch."""

    def __post_init__(self) -> None:
        require(len(self.dilations) > 0, "dilations are not usable", got=self.dilations, wanted="at least one")

    def build(self, dim: int) -> "Sgp":
        """(B, T, dim) -> (B, T, dim)."""
        return Sgp(self, dim)


class Sgp(Neck):
    """Instant branch (what differs from the clip's mean) plus window branch (three dilations)."""

    def __init__(self, settings: SgpSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        hidden = max(1, dim // 2)
        self.down, self.up = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.windows = nn.ModuleList(TimeConv(dim, dim, 3, dilation=dilation) for dilation in settings.dilations)
        self.merge = nn.Linear(dim * len(settings.dilations), dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        instant_btc: Tensor = self.up(functional.relu(self.down(x_btc - x_btc.mean(1, keepdim=True))))
        window_btc: Tensor = self.merge(torch.cat([conv(x_btc) for conv in self.windows], dim=-1))
        return instant_btc + window_btc


class ChannelScale(nn.Module):
    """Depthwise convolution of kernel 1: weight and bias per channel. Weight N(0, 0.1), bias 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim).normal_(0, 0.1))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return x_btc * self.weight + self.bias


class SgpBranches(nn.Module):
    """Instant and window branch of normalised features; all five operators are depthwise."""

    def __init__(self, dim: int, *, kernel_steps: int, kernel_ratio: float) -> None:
        super().__init__()
        wide = round((kernel_steps + 1) * kernel_ratio)
        self.fc, self.global_fc = ChannelScale(dim), ChannelScale(dim)
        self.psi, self.conv_w, self.conv_kw = (
            _depthwise(dim, kernel) for kernel in (kernel_steps, kernel_steps, wide + 1 - wide % 2)
        )

    def forward(self, y_btc: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised (B, T, C) -> instant and window (B, T, C) each."""
        instant_btc = self.fc(y_btc) * functional.relu(self.global_fc(y_btc.mean(1, keepdim=True)))
        return instant_btc, self._both_windows(y_btc) * self.psi(y_btc)

    def _both_windows(self, y_btc: Tensor) -> Tensor:
        """Narrow and wide window, `conv_w(y) + conv_kw(y)`, by one convolution: the kernels are added first."""
        narrow, wide = sorted((self.conv_w.conv, self.conv_kw.conv), key=lambda conv: conv.kernel_size[0])
        assert narrow.bias is not None
        assert wide.bias is not None
        around = (wide.kernel_size[0] - narrow.kernel_size[0]) // 2
        kernel_c1k = wide.weight + functional.pad(narrow.weight, (around, around))
        return depthwise(y_btc, kernel_c1k, narrow.bias + wide.bias)


@dataclass(frozen=True)
class SgpBlockSettings:
    """Settings of `sgp_block`."""

    kernel_steps: int = 9
    """Kernel of the narrow window, odd."""
    kernel_ratio: float = 4.0
    """The wide kernel is round((kernel_steps + 1) * kernel_ratio), made odd: 41."""

    def __post_init__(self) -> None:
        require(self.kernel_steps % 2 == 1, "kernel is not usable", got=self.kernel_steps, wanted="an odd number")
        require(self.kernel_ratio > 0, "kernel ratio is not usable", got=self.kernel_ratio, wanted="> 0")

    def build(self, dim: int) -> "SgpBlock":
        """(B, T, dim) -> (B, T, dim)."""
        return SgpBlock(dim, kernel_steps=self.kernel_steps, kernel_ratio=self.kernel_ratio)


class SgpBlock(Neck):
    """y = LayerNorm(x); z = x + instant + window + y; out = z + MLP(GroupNorm(z)). 8 C^2 + 75 C weights by default."""

    def __init__(self, dim: int, *, kernel_steps: int, kernel_ratio: float) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.branches = SgpBranches(dim, kernel_steps=kernel_steps, kernel_ratio=kernel_ratio)
        self.mlp = Mlp(dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        y_btc = self.norm(x_btc)
        instant_btc, window_btc = self.branches(y_btc)
        z_btc: Tensor = x_btc + instant_btc + window_btc + y_btc
        out_btc: Tensor = z_btc + self.mlp(z_btc)
        return out_btc


def _depthwise(dim: int, kernel: int) -> TimeConv:
    conv = TimeConv(dim, dim, kernel, groups=dim)
    nn.init.normal_(conv.conv.weight, 0, 0.1)
    assert conv.conv.bias is not None
    nn.init.zeros_(conv.conv.bias)
    return conv
