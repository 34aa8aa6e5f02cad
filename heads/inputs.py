"""What is done to features before the head sees them.

Shapes: B clips, T steps, C channels of the store, D channels of the head.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError


def _with_logits(x_btc: Tensor) -> Tensor:
    """Confidences in [0, 1] and their logits: small scores tell each other apart there."""
    bounded = x_btc.clamp(1e-3, 1 - 1e-3)
    return torch.cat([x_btc, torch.logit(bounded)], dim=-1)


def _same(x_btc: Tensor) -> Tensor:
    return x_btc


INPUTS: Mapping[str, tuple[Callable[[Tensor], Tensor], int, bool]] = {
    "raw": (_same, 1, False),
    "standard": (_same, 1, True),
    "scores": (_with_logits, 2, True),
}
"""Name -> (pointwise function, D / C, whether mean and deviation over the training rows are taken out)."""


class Inputs(nn.Module):
    """Pointwise function of the features, then (x - mean) / std per channel with the training set's own."""

    mean_d: Tensor
    std_d: Tensor

    def __init__(self, name: str, dim: int) -> None:
        """`name` is a key of `INPUTS`; `dim` is C.

        Raises:
            InputError: no such name.
        """
        super().__init__()
        if name not in INPUTS:
            raise InputError("no such treatment of inputs", got=repr(name), wanted=", ".join(INPUTS))
        self._function, factor, self.is_fitted = INPUTS[name]
        self.dim = factor * dim
        """D."""
        self.register_buffer("mean_d", torch.zeros(self.dim))
        self.register_buffer("std_d", torch.ones(self.dim))

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        x_btd = self._function(x_btc)
        return (x_btd - self.mean_d) / self.std_d if self.is_fitted else x_btd

    def fit(self, rows_rc: Tensor) -> None:
        """Take mean and deviation from training rows (R, C); a channel that never changes keeps a deviation of 1."""
        if not self.is_fitted:
            return
        rows_rd = self._function(rows_rc.float()).double()
        std_d = rows_rd.std(0, correction=0)
        self.mean_d.copy_(rows_rd.mean(0))
        self.std_d.copy_(torch.where(std_d > 1e-6, std_d, 1.0))
