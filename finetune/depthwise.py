"""Depthwise 3-D convolutions with a fast gradient on CPUs, which PyTorch's own (oneDNN) computes by a plain loop.

That loop takes a third of the time of an X3D's training step in fp32, most of it in bf16. The gradient of the input is
itself a forward convolution (of the gradient, by the mirrored kernel): 8 to 23 times faster. That of the kernel is
computed in fp32, in which the loop is 5 times faster than in bf16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_NO_OUTPUT_PADDING = [0, 0, 0]


class _Depthwise(torch.autograd.Function):
    """(B, C, T, H, W) by (C, 1, kt, kh, kw), padded by half a kernel, stride 1 in time."""

    @staticmethod
    def forward(context: Any, cells: Tensor, kernel: Tensor, stride: tuple[int, ...]) -> Tensor:
        context.save_for_backward(cells, kernel)
        context.stride = stride
        return functional.conv3d(cells, kernel, None, stride, _half(kernel), 1, len(kernel))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        cells, kernel = context.saved_tensors
        of_cells = of_kernel = None
        if context.needs_input_grad[0]:
            spread = _spread(gradient, cells, context.stride)
            of_cells = functional.conv3d(spread, kernel.flip(2, 3, 4), None, 1, _half(kernel), 1, len(kernel))
        if context.needs_input_grad[1]:
            of_kernel = torch.ops.aten.convolution_backward(
                gradient.float(),
                cells.float(),
                kernel.float(),
                None,
                context.stride,
                _half(kernel),
                [1, 1, 1],
                False,
                _NO_OUTPUT_PADDING,
                len(kernel),
                [False, True, False],
            )[1].to(kernel.dtype)
        return of_cells, of_kernel, None


def _half(kernel: Tensor) -> tuple[int, ...]:
    return tuple(size // 2 for size in kernel.shape[2:])


def _spread(gradient: Tensor, cells: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The gradient at the places of the input that its outputs are centred on, zero elsewhere."""
    if max(stride) == 1:
        return gradient
    spread = torch.zeros_like(cells, memory_format=torch.channels_last_3d)
    spread[:, :, :: stride[0], :: stride[1], :: stride[2]] = gradient
    return spread


class FastDepthwise(nn.Conv3d):
    """A depthwise `Conv3d` without bias; same tensors, same result."""

    def forward(self, input: Tensor) -> Tensor:
        kernel = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, kernel = input.to(dtype), kernel.to(dtype)
        found: Tensor = _Depthwise.apply(input, kernel, self.stride)  # type: ignore[no-untyped-call]
        return found


def with_fast_depthwise(backbone: nn.Module) -> nn.Module:
    """Give a backbone's depthwise convolutions the fast gradient, for training on a CPU; returns the backbone."""
    for module in backbone.modules():
        if type(module) is nn.Conv3d and _is_plain_depthwise(module):
            module.__class__ = FastDepthwise
    return backbone


def _is_plain_depthwise(conv: nn.Conv3d) -> bool:
    sizes = zip(conv.kernel_size, conv.padding, strict=True)
    is_centred = all(size % 2 == 1 and padding == size // 2 for size, padding in sizes)
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
    is_plain = conv.bias is None and set(conv.dilation) == {1} and conv.padding_mode == "zeros"
    return is_centred and is_depthwise and is_plain
