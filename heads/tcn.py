"""`tcn` and `tcn_dilated`: convolutions over time without pooling.

Shapes: B clips, T steps, C channels, H hidden channels. Both see the same at every step (translation equivariant away
from the ends): 2 steps to each side for `tcn`, 7 for `tcn_dilated`.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv


@dataclass(frozen=True)
class TcnSettings:
    """Settings of `tcn`."""

    num_layers: int = 2
    """Convolutions, >= 1."""
    kernel_steps: int = 3
    """Odd."""

    def __post_init__(self) -> None:
        require(self.num_layers >= 1, "number of layers is not usable", got=self.num_layers, wanted=">= 1")
        require(self.kernel_steps % 2 == 1, "kernel is not usable", got=self.kernel_steps, wanted="an odd number")

    def build(self, dim: int) -> "Tcn":
        """(B, T, dim) -> (B, T, dim)."""
        return Tcn(self, dim)


class Tcn(Neck):
    """Convolutions of width C, each followed by ReLU."""

    def __init__(self, settings: TcnSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.convs = nn.ModuleList(TimeConv(dim, dim, settings.kernel_steps) for _ in range(settings.num_layers))

    def forward(self, x_btc: Tensor) -> Tensor:
        for conv in self.convs:
            x_btc = functional.relu(conv(x_btc))
        return x_btc


@dataclass(frozen=True)
class TcnDilatedSettings:
    """Settings of `tcn_dilated`."""

    dilations: tuple[int, ...] = (1, 2, 4)
    """Steps between the taps of each convolution."""
    hidden: int = 256
    """H."""
    dropout: float = 0.1
    """Probability, in [0, 1)."""

    def __post_init__(self) -> None:
        require(len(self.dilations) > 0, "dilations are not usable", got=self.dilations, wanted="at least one")
        require(0 <= self.dropout < 1, "dropout is not usable", got=self.dropout, wanted="a probability below 1")

    def build(self, dim: int) -> "TcnDilated":
        """(B, T, dim) -> (B, T, dim)."""
        return TcnDilated(self, dim)


class TcnDilated(Neck):
    """Convolutions of kernel 3 with growing dilation, each with BatchNorm, ReLU, dropout; linear back to C."""

    def __init__(self, settings: TcnDilatedSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim
        widths = [dim] + [settings.hidden] * len(settings.dilations)
        self.convs = nn.ModuleList(
            TimeConv(before, after, 3, dilation=dilation)
            for before, after, dilation in zip(widths, widths[1:], settings.dilations, strict=False)
        )
        self.norms = nn.ModuleList(TimeBatchNorm(settings.hidden) for _ in settings.dilations)
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(settings.hidden, dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_btc = self.dropout(functional.relu(norm(conv(x_btc))))
        out_btc: Tensor = self.out(x_btc)
        return out_btc
