"""`fc`: the seed's baseline, every step by itself.

Shapes: B clips, T steps, C channels.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from .contract import Neck, require


@dataclass(frozen=True)
class FcSettings:
    """Settings of `fc`."""

    dropout: float = 0.5
    """Probability, in [0, 1)."""

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "Fc":
        """(B, T, dim) -> (B, T, dim)."""
        return Fc(self, dim)


class Fc(Neck):
    """Dropout only; the classifier that follows is the fully connected layer."""

    def __init__(self, settings: FcSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out_btc: Tensor = self.dropout(x_btc)
        return out_btc
