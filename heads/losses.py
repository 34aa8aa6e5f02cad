"""Losses over steps, padded ones left out, and mixup.

Shapes: B clips, T steps, K classes, N = K + 1 with background 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .targets import Targets

CLASS_WEIGHT = 5.0
"""Weight of each class in `ce`; background has 1 (the seed's default)."""
PRIOR_LOGIT = -4.6
"""First bias of a presence output: 1 %, so that the many negatives do not drown the first epochs (Lin et al., 2017)."""
MIXUP_ALPHA = 0.2
"""Of mixup's Beta(alpha, alpha), unless another is asked for."""
GAMMA = 2.0
"""Exponent of the focal losses."""


def cross_entropy(logits_btn: Tensor, label_btn: Tensor, mask_bt: Tensor) -> Tensor:
    """Weighted cross-entropy, weight 1 for background and 5 for each class; the weighted mean over real steps.

    Args:
        logits_btn: (B, T, N), any real numbers.
        label_btn: (B, T, N) >= 0, sums to 1; soft labels weigh by their parts.
        mask_bt: (B, T) bool.
    """
    weight_btn = label_btn * mask_bt.unsqueeze(-1)
    weight_btn = torch.cat([weight_btn[..., :1], CLASS_WEIGHT * weight_btn[..., 1:]], dim=-1)
    surprise_btn = -functional.log_softmax(_real(logits_btn, mask_bt), dim=-1)
    return (weight_btn * surprise_btn).sum() / weight_btn.sum().clamp(min=1e-6)


def softmax_focal(logits_btn: Tensor, label_btn: Tensor, mask_bt: Tensor) -> Tensor:
    """Focal loss over softmax, gamma 2, no class weight; mean over real steps. Arguments as `cross_entropy`.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    log_p_btn = functional.log_softmax(_real(logits_btn, mask_bt), dim=-1)
    focus_btn = (1 - log_p_btn.exp()) ** GAMMA
    loss_bt = -(label_btn * focus_btn * log_p_btn).sum(-1)
    return (loss_bt * mask_bt).sum() / mask_bt.sum().clamp(min=1)


SOFTMAX_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "focal": softmax_focal,
}


def sigmoid_focal(
    logits: Tensor, presence: Tensor, mask: Tensor, *, alpha: float | None = None, gamma: float = GAMMA
) -> Tensor:
    """Focal loss over independent sigmoids; the sum over real places.

    For soft presence the focus is the distance from it: |presence - p| ** gamma (Li et al., Generalized Focal Loss,
    NeurIPS 2020), which is the plain form where presence is 0 or 1.

    Args:
        logits: (..., K), any real numbers.
        presence: (..., K) in [0, 1].
        mask: (...) bool.
        alpha: weight of what is present; 1 - alpha is that of what is not. By default both count as they are.
    """
    logits = _real(logits, mask)
    surprise = functional.binary_cross_entropy_with_logits(logits, presence, reduction="none")
    loss = (logits.sigmoid() - presence).abs() ** gamma * surprise * mask.unsqueeze(-1)
    if alpha is not None:
        loss = loss * (alpha * presence + (1 - alpha) * (1 - presence))
    return loss.sum()


def num_present(presence: Tensor, mask: Tensor) -> Tensor:
    """Presence at real places, summed: what presence losses are divided by. Arguments as `sigmoid_focal`."""
    return (presence * mask.unsqueeze(-1)).sum().clamp(min=1)


def binary_cross_entropy(logits: Tensor, presence: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of independent sigmoids, no class weight; the sum over real places by the presence in all.

    Soft presence (Gaussian labels) is learned as it is. Arguments as `sigmoid_focal`.
    """
    surprise = functional.binary_cross_entropy_with_logits(_real(logits, mask), presence, reduction="none")
    return (surprise * mask.unsqueeze(-1)).sum() / num_present(presence, mask)


def focal_cross_entropy(logits: Tensor, presence: Tensor, mask: Tensor) -> Tensor:
    """Sigmoid focal loss with gamma 1.2; the mean over real places and classes. Arguments as `sigmoid_focal`.

    Source: the winner of Ball Action Spotting 2023 (lRomul/ball-action-spotting).
    """
    return sigmoid_focal(logits, presence, mask, gamma=1.2) / (mask.sum() * presence.shape[-1]).clamp(min=1)


PRESENCE_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    "bce_focal": focal_cross_entropy,
}


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of `values` where `chosen` (bool, same shape); 0 where nothing is, and whatever else is there is ignored."""
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)


def mixup(
    clips: Tensor, targets: Targets, *, seed: int, alpha: float = MIXUP_ALPHA
) -> tuple[Tensor, list[tuple[float, Targets]]]:
    """Blend each clip with another of the batch, one share for the batch from Beta(alpha, alpha).

    Every loss here is blended as a whole, which is the same as blended labels for cross-entropy, and also right for
    displacements, where an average of two would point at neither event:

        features, parts = mixup(features, targets, seed=seed)
        outputs = head(features)
        loss = sum(share * head.loss(outputs, part) for share, part in parts)

    Args:
        clips: (B, ...) rows or pictures; or the share (B / P, ...) of one of P processes, which blends its own.
        targets: of the batch, of all processes.
        seed: the only source of randomness.
        alpha: small ones blend little, and 0 not at all.

    Returns:
        What is blended, and targets with their shares, which sum to 1.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    """
    if not alpha:
        return clips, [(1.0, targets)]
    generator = torch.Generator().manual_seed(seed)
    # Beta(a, a) as a ratio of two Gammas: the only sampler of torch that takes a generator
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    share = float(gammas[0] / gammas.sum().clamp(min=1e-300)) if float(gammas.sum()) > 0 else 1.0
    order = torch.randperm(len(clips), generator=generator).to(clips.device)
    mixed = share * clips + (1 - share) * clips[order]
    firsts = range(0, len(targets.mask_bt), len(clips))  # of every process
    other = targets.select(torch.cat([first + order for first in firsts]))
    return mixed, [(share, targets), (1 - share, other)]


def _real(logits: Tensor, mask: Tensor) -> Tensor:
    """Float32 logits with zeros where padded, so that nothing there reaches the gradient."""
    return logits.float().masked_fill(~mask.unsqueeze(-1), 0.0)
