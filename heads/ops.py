"""Pieces over time that several heads share: convolutions and norms over (B, T, C), moving of scores.

Shapes: B clips, T steps, C channels, K classes, S sources. torch's own layers want (B, C, T): these turn the axes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class TimeConv(nn.Module):
    """Conv1d over (B, T, C), odd kernel, output centred on its input; beyond the ends are zeros."""

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int = 1, *, dilation: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv1d(dim_in, dim_out, kernel, stride, padding, dilation, groups)
        self._is_depthwise = groups == dim_in == dim_out and dilation == 1

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, ceil(T / stride), D); step i of the output is centred on step i * stride."""
        if self._is_depthwise:
            return depthwise(x_btc, self.conv.weight, self.conv.bias)[:, :: self.conv.stride[0]]
        out_btc: Tensor = self.conv(x_btc.transpose(1, 2)).transpose(1, 2)
        return out_btc


def depthwise(x_btc: Tensor, kernel_c1k: Tensor, bias_c: Tensor | None) -> Tensor:
    """(B, T, C) -> (B, T, C): each channel convolved by a kernel of its own, of odd length; zeros beyond the ends."""
    x_bct = x_btc.transpose(1, 2)
    if x_btc.device.type == "cpu":
        # oneDNN is 2 to 60 times faster on pictures of height 1, channels last, which (B, T, C) is without a copy
        out_bc1t: Tensor = _TimeDepthwise.apply(x_bct.unsqueeze(2), kernel_c1k.unsqueeze(2), bias_c)  # type: ignore[no-untyped-call]
        return out_bc1t.squeeze(2).transpose(1, 2)
    padding, groups = kernel_c1k.shape[2] // 2, len(kernel_c1k)
    return functional.conv1d(x_bct, kernel_c1k, bias_c, padding=padding, groups=groups).transpose(1, 2)


class _TimeDepthwise(torch.autograd.Function):
    """(B, C, 1, T) by (C, 1, 1, k) in fp32: gradients are forward convolutions too, as PyTorch's own are far slower."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(context: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(x, kernel)
        return functional.conv2d(x, kernel, bias, 1, (0, kernel.shape[3] // 2), 1, len(kernel))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, kernel = context.saved_tensors
        (num_clips, num_channels, _, num_steps), size = x.shape, kernel.shape[3]
        padding = [0, size // 2]
        of_x = of_kernel = of_bias = None
        if context.needs_input_grad[0]:
            of_x = functional.conv2d(gradient, kernel.flip(3), None, 1, padding, 1, num_channels)
        if context.needs_input_grad[1] and size < _WIDE:
            sizes, mask = [1, 1], [False, True, False]
            of_kernel = torch.ops.aten.convolution_backward(
                gradient, x, kernel, None, sizes, padding, sizes, False, [0, 0], num_channels, mask
            )[1]
        elif context.needs_input_grad[1]:  # the clip convolved by the gradient: a group for each clip and channel
            clips = x.permute(2, 3, 0, 1).flatten(2).transpose(1, 2).unsqueeze(2)  # (1, B * C, 1, T), channels last
            taps = gradient.reshape(-1, 1, 1, num_steps)
            found = functional.conv2d(clips, taps, None, 1, padding, 1, num_clips * num_channels)
            of_kernel = found.view(num_clips, num_channels, 1, 1, size).sum(0)
        if context.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_kernel, of_bias


_WIDE = 9
"""Taps from which on a kernel's gradient is quicker by a convolution; measured at 3, 9 and 41."""


class TimeGroupNorm(nn.GroupNorm):
    """GroupNorm over (B, T, C). The number of groups is the largest divisor of C up to `groups`, so any C works."""

    def __init__(self, dim: int, *, groups: int = 16) -> None:
        super().__init__(next(count for count in range(min(groups, dim), 0, -1) if dim % count == 0), dim)

    def forward(self, input: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x_bct = input.transpose(1, 2).contiguous()  # `torch.`, as functional's refuses one clip of one step
        return torch.group_norm(x_bct, self.num_groups, self.weight, self.bias, self.eps).transpose(1, 2)


class TimeBatchNorm(nn.BatchNorm1d):
    """BatchNorm over (B, T, C)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x_nc = input.flatten(0, 1)
        if len(x_nc) == 1:  # one clip of one step has no variance, which torch refuses: use the stored statistics
            out_nc = functional.batch_norm(
                x_nc, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        else:
            out_nc = super().forward(x_nc)
        return out_nc.view(input.shape)


class Mlp(nn.Module):
    """MLP(GroupNorm(x)) of the SGP blocks: linear C -> 4C, GELU, linear -> C at every step."""

    def __init__(self, dim: int, *, groups: int = 16) -> None:
        super().__init__()
        self.norm = TimeGroupNorm(dim, groups=groups)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        out_btc: Tensor = self.down(functional.gelu(self.up(self.norm(x_btc))))
        return out_btc


def pool_by_max(x_btc: Tensor, *, factor: int) -> Tensor:
    """(B, T, C) -> (B, ceil(T / factor), C): maximum of `factor` steps at a time, of what is left at the end."""
    return functional.max_pool1d(x_btc.transpose(1, 2), factor, ceil_mode=True).transpose(1, 2)


def stretch(x_bsc: Tensor, *, num_steps: int) -> Tensor:
    """(B, S, C) -> (B, num_steps, C): linear interpolation, first and last steps on each other (align corners)."""
    return functional.interpolate(x_bsc.transpose(1, 2), num_steps, mode="linear", align_corners=True).transpose(1, 2)


def move_scores(confidence_bsk: Tensor, position_bs: Tensor, *, num_steps: int) -> Tensor:
    """Each confidence to the step that it points to; the highest of a step and class stays (scatter-max).

    Args:
        confidence_bsk: (B, S, K) in [0, 1].
        position_bs: (B, S) where the event is, in steps from the clip's start; fractions are rounded.
        num_steps: T.

    Returns:
        (B, T, K), 0 where nothing points. What points more than one step outside the clip is dropped: that event
        belongs to the neighbouring window.
    """
    target = position_bs.round()
    inside = (target >= -1) & (target <= num_steps)
    index = target.nan_to_num().clamp(0, num_steps - 1).long()
    moved = confidence_bsk.new_zeros(confidence_bsk.shape[0], num_steps, confidence_bsk.shape[2])
    source = confidence_bsk * inside.unsqueeze(-1)
    return moved.scatter_reduce(1, index.unsqueeze(-1).expand_as(source), source, "amax")
