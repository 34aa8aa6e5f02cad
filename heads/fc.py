"""`fc`: the seed's baseline, every step by itself.

Shapes: B clips, T steps, C channels.
"""

from dataclasses import dataclass

from torch import Tensor

from .contract import Neck, require


@dataclass(frozen=True)
class FcSettings:
    """Settings of `fc`."""

    dropout: float = 0.5
    """Before the classifier: a probability in [0, 1)."""

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "Fc":
        """(B, T, dim) -> (B, T, dim)."""
        return Fc(self, dim)


class Fc(Neck):
    """The features as they are; the dropout and the classifier that follow are the whole head."""

    def __init__(self, settings: FcSettings, dim: int) -> None:
        super().__init__()
        self.dim, self.classifier_dropout = dim, settings.dropout

    def forward(self, x_btc: Tensor) -> Tensor:
        return x_btc
