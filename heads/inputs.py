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


INPUTS: Mapping[str, tuple[Callable[[Tensor], Tensor], int, bool]] = {
    "raw": (lambda x_btc: x_btc, 1, False),
    "standard": (lambda x_btc: x_btc, 1, True),
    "scores": (_with_logits, 2, True),
}
"""Name -> (pointwise function, D / C, whether mean and deviation over the training rows are taken out)."""

LARGEST = 10.0
"""Deviations from the mean that an input may have; 1 in 10,000 values of the training video has more."""
LEAST_SHARE = 0.1


class Inputs(nn.Module):
    """Pointwise function of the features, then (x - mean) / std per channel with the training set's own.

    What lies beyond `LARGEST` deviations is set to it, and deviations have a floor: many channels of a backbone hardly
    ever fire on one kind of video, and a new kind of video would else blow them up (to 170,000 deviations, and all
    confidences to 0, for EfficientNet-Lite0 from badminton to a juggler).
    """

    mean_d: Tensor
    std_d: Tensor

    def __init__(self, name: str, dim: int, *, channels: tuple[int, int] | None = None) -> None:
        """`name` is a key of `INPUTS`; `dim` is C; of these, `channels` (first, behind the last) are used, or all.

        Raises:
            InputError: no such name.
        """
        super().__init__()
        if name not in INPUTS:
            raise InputError("no such treatment of inputs", got=repr(name), wanted=", ".join(INPUTS))
        self._pointwise, factor, self.is_fitted = INPUTS[name]
        self._first, self._stop = channels or (0, dim)
        self.dim = factor * (self._stop - self._first)
        """D."""
        self.register_buffer("mean_d", torch.zeros(self.dim))
        self.register_buffer("std_d", torch.ones(self.dim))

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        x_btd = self._function(x_btc)
        if not self.is_fitted:
            return x_btd
        return ((x_btd - self.mean_d) / self.std_d).clamp(-LARGEST, LARGEST)

    def _function(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        return self._pointwise(x_btc[..., self._first : self._stop])

    def fit(self, rows_rc: Tensor, *, alike: bool = False) -> None:
        """Take mean and deviation from training rows; a channel that never changes keeps a deviation of 1.

        The floor is `LEAST_SHARE` of the median deviation of the channels that change.

        Args:
            rows_rc: (R, C).
            alike: one deviation for all channels, the root of their mean variance. For principal components: divided
                by their own, the last ones, which are noise, would weigh as much as the first.
        """
        if not self.is_fitted:
            return
        rows_rd = self._function(rows_rc.float()).double()
        std_d = rows_rd.std(0, correction=0)
        self.mean_d.copy_(rows_rd.mean(0))
        if alike:
            std_d = std_d.square().mean().sqrt().expand_as(std_d)
        changes_d = std_d > 1e-6
        floor = LEAST_SHARE * std_d[changes_d].median() if changes_d.any() else 0.0
        self.std_d.copy_(torch.where(changes_d, std_d.clamp(min=floor), 1.0))
