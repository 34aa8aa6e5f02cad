"""Pieces over time that leave padded steps out: means, norms, convolutions, pooling, resampling, moving of scores.

Shapes: B clips, T steps, C channels, K classes, S sources. Every function takes and gives (B, T, C). With a mask of
None the plain operator of torch runs; with a mask that is True for the first L steps of a clip, the first L steps
come out as for a clip of L steps alone (tested), without waiting for the device.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

Mask = Tensor | None
"""(B, T) bool, True where a step is real; None where all are."""


def zero_padding(x_btc: Tensor, mask_bt: Mask) -> Tensor:
    """The same with zeros at padded steps (whatever was there, NaN included)."""
    return x_btc if mask_bt is None else x_btc.masked_fill(~mask_bt.unsqueeze(-1), 0.0)


def lengths(mask_bt: Tensor) -> Tensor:
    """(B,) int64: one past the last real step, at least 1."""
    positions = torch.arange(1, mask_bt.shape[1] + 1, device=mask_bt.device)
    return (mask_bt * positions).amax(1).clamp(min=1)


def coarse_mask(mask_bt: Mask, *, factor: int) -> Mask:
    """Mask of the grid that keeps every `factor`-th step: (B, ceil(T / factor)); ceil(L / factor) are real."""
    if mask_bt is None:
        return None
    num_coarse = math.ceil(mask_bt.shape[1] / factor)
    last = (lengths(mask_bt) + factor - 1) // factor
    return torch.arange(num_coarse, device=mask_bt.device) < last.unsqueeze(1)


def masked_mean(x_btc: Tensor, mask_bt: Mask) -> Tensor:
    """(B, 1, C): mean over the real steps; 0 where there are none."""
    if mask_bt is None:
        return x_btc.mean(1, keepdim=True)
    count = mask_bt.sum(1).clamp(min=1)[:, None, None]
    return zero_padding(x_btc, mask_bt).sum(1, keepdim=True) / count


class TimeConv(nn.Module):
    """Conv1d over (B, T, C), odd kernel, output centred on its input; padded steps count as zeros, as beyond an end."""

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int = 1, *, dilation: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv1d(dim_in, dim_out, kernel, stride, padding, dilation, groups)

    def forward(self, x_btc: Tensor, mask_bt: Mask) -> Tensor:
        """(B, T, C) -> (B, ceil(T / stride), D); step i of the output is centred on step i * stride."""
        x_bct = zero_padding(x_btc, mask_bt).transpose(1, 2)
        out_btc: Tensor = self.conv(x_bct).transpose(1, 2)
        return out_btc


class TimeGroupNorm(nn.Module):
    """GroupNorm whose statistics run over the real steps of a clip and the channels of a group.

    The number of groups is the largest divisor of C up to `groups`, so that any C works.
    """

    def __init__(self, dim: int, *, groups: int = 16, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.groups = next(count for count in range(min(groups, dim), 0, -1) if dim % count == 0)
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x_btc: Tensor, mask_bt: Mask) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if mask_bt is None:
            x_bct = x_btc.transpose(1, 2).contiguous()
            return torch.group_norm(x_bct, self.groups, self.weight, self.bias, self.epsilon).transpose(1, 2)
        x_btgc = zero_padding(x_btc, mask_bt).float()
        x_btgc = x_btgc.reshape(*x_btc.shape[:2], self.groups, -1)
        real = mask_bt[:, :, None, None]
        count = (mask_bt.sum(1).clamp(min=1) * x_btgc.shape[-1])[:, None, None, None]
        mean = x_btgc.sum((1, 3), keepdim=True) / count
        variance = ((x_btgc - mean) * real).square().sum((1, 3), keepdim=True) / count
        normal_btc = ((x_btgc - mean) * (variance + self.epsilon).rsqrt()).flatten(2)
        out_btc: Tensor = (normal_btc * self.weight + self.bias).to(x_btc.dtype)
        return out_btc


class TimeBatchNorm(nn.Module):
    """BatchNorm over (B, T, C) whose training statistics leave padded steps out; one step in all is no error."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x_btc: Tensor, mask_bt: Mask) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        mean, variance = self._batch_statistics(x_btc, mask_bt) if self.training else (None, None)
        if mean is None or variance is None:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + self.epsilon).rsqrt()
        return ((x_btc.float() - mean) * scale + self.bias).to(x_btc.dtype)

    def _batch_statistics(self, x_btc: Tensor, mask_bt: Mask) -> tuple[Tensor, Tensor]:
        real = torch.ones_like(x_btc[..., :1]) if mask_bt is None else mask_bt.unsqueeze(-1)
        x_btc = zero_padding(x_btc, mask_bt).float()
        count = real.sum().clamp(min=1)
        mean = x_btc.sum((0, 1)) / count
        variance = ((x_btc - mean) * real).square().sum((0, 1)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        return mean, variance


class Mlp(nn.Module):
    """MLP(GroupNorm(x)) of the SGP blocks: linear C -> 4C, GELU, linear -> C at every step."""

    def __init__(self, dim: int, *, groups: int = 16) -> None:
        super().__init__()
        self.norm = TimeGroupNorm(dim, groups=groups)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x_btc: Tensor, mask_bt: Mask) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out_btc: Tensor = self.down(functional.gelu(self.up(self.norm(x_btc, mask_bt))))
        return out_btc


def take_steps(x_btc: Tensor, index_bt: Tensor) -> Tensor:
    """Row index_bt[b, i] of clip b as row i."""
    return x_btc.gather(1, index_bt.unsqueeze(-1).expand(-1, -1, x_btc.shape[2]))


def halve_by_max(x_btc: Tensor, mask_bt: Mask) -> Tensor:
    """Adaptive max pool to ceil(T / 2) steps; of a clip with L real steps to ceil(L / 2) of them.

    The windows are those of `adaptive_max_pool1d`: pairs where L is even, overlapping twos and threes where odd.
    """
    num_steps = x_btc.shape[1]
    num_out = (num_steps + 1) // 2
    if mask_bt is None:
        return functional.adaptive_max_pool1d(x_btc.transpose(1, 2), num_out).transpose(1, 2)
    x_btc = zero_padding(x_btc, mask_bt)
    real = lengths(mask_bt).unsqueeze(1)
    half = (real + 1) // 2
    out = torch.arange(num_out, device=x_btc.device)
    first = (out * real // half).clamp(max=num_steps - 1)
    last = (-(-(out + 1) * real // half) - 1).clamp(max=num_steps - 1)
    pooled = take_steps(x_btc, first)
    for further in (1, 2):
        pooled = pooled.maximum(take_steps(x_btc, (first + further).minimum(last)))
    return pooled


def stretch(x_bsc: Tensor, mask_bs: Mask, *, num_steps: int, mask_bt: Mask) -> Tensor:
    """(B, S, C) -> (B, num_steps, C): linear interpolation, first and last real steps on each other (align corners)."""
    if mask_bt is None or mask_bs is None:
        x_bcs = x_bsc.transpose(1, 2)
        return functional.interpolate(x_bcs, num_steps, mode="linear", align_corners=True).transpose(1, 2)
    last_in = (lengths(mask_bs) - 1).unsqueeze(1)
    last_out = (lengths(mask_bt) - 1).unsqueeze(1)
    out = torch.arange(num_steps, device=x_bsc.device).minimum(last_out)
    scaled = out * last_in  # exact in integers; the position is scaled / last_out
    below = scaled // last_out.clamp(min=1)
    part = ((scaled % last_out.clamp(min=1)) / last_out.clamp(min=1)).to(x_bsc.dtype)
    above = (below + 1).minimum(last_in)
    return torch.lerp(take_steps(x_bsc, below), take_steps(x_bsc, above), part.unsqueeze(-1))


def move_scores(confidence_bsk: Tensor, position_bs: Tensor, *, num_steps: int, mask_bt: Mask) -> Tensor:
    """Each confidence to the step that it points to; the highest of a step and class stays (scatter-max).

    Args:
        confidence_bsk: (B, S, K) in [0, 1].
        position_bs: (B, S) where the event is, in steps from the clip's start; fractions are rounded.
        num_steps: T.
        mask_bt: the clip's mask.

    Returns:
        (B, T, K), 0 where nothing points. What points more than one step outside the real steps is dropped: that
        event belongs to the neighbouring window.
    """
    if mask_bt is None:
        last = torch.full_like(position_bs[:, :1], num_steps - 1)
    else:
        last = (lengths(mask_bt) - 1).unsqueeze(1).to(position_bs.dtype)
    target = position_bs.round()
    inside = (target >= -1) & (target <= last + 1)
    index = target.nan_to_num().clamp(min=0).minimum(last).long()
    moved = confidence_bsk.new_zeros(confidence_bsk.shape[0], num_steps, confidence_bsk.shape[2])
    source = confidence_bsk * inside.unsqueeze(-1)
    return moved.scatter_reduce(1, index.unsqueeze(-1).expand_as(source), source, "amax")
