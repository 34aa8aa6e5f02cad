"""`positions`: a learned encoding of each step's place in the window, to put before a neck that cannot tell it.

Shapes: B clips, T steps, C channels. Source: Xarles et al., T-DEED, CVPRW 2024, which adds one to its features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import Neck, require


@dataclass(frozen=True)
class PositionsSettings:
    """Settings of `positions`."""

    num_steps: int = 50
    """Steps that have an encoding of their own, >= 1: those of a training window. Later ones take the last."""

    def __post_init__(self) -> None:
        require(self.num_steps >= 1, "number of positions is not usable", got=self.num_steps, wanted=">= 1")

    def build(self, dim: int) -> "Positions":
        """(B, T, dim) -> (B, T, dim)."""
        return Positions(self, dim)


class Positions(Neck):
    """Adds the encoding of its place to every step."""

    def __init__(self, settings: PositionsSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.encoding_tc = nn.Parameter(torch.randn(settings.num_steps, dim) / settings.num_steps)

    def forward(self, x_btc: Tensor) -> Tensor:
        place_t = torch.arange(x_btc.shape[1], device=x_btc.device).clamp(max=len(self.encoding_tc) - 1)
        return x_btc + self.encoding_tc[place_t]
