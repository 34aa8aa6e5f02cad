"""Inception-I3D, the RGB stream of "Quo Vadis, Action Recognition?" (Carreira and Zisserman, 2017), dense in time.

Tensor names follow the widely used PyTorch file `rgb_imagenet.pt`, so that file loads as it is. The published network
has three temporal strides of 2: eight frames give one row. Here those strides are taken out and everything temporal
behind them is dilated instead (a trous), so T frames give T rows: rows 0, 8, 16, ... are the published network's own,
row t is what it would give for the clip that starts t frames later.

Padding is TensorFlow's SAME with zeros: more behind than in front where the total is odd. Row t of the network is
therefore centred on frame t + 5 and sees frames t - 44 to t + 54; the backbone moves it there (`AHEAD_STEPS`).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from .nets import shifted_max

AHEAD_STEPS = 5
"""Row t is centred on step t + 5 of the clip."""

_MIXED = {  # name -> channels in, then out of b0, b1a, b1b, b2a, b2b, b3b
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


class InceptionI3d(nn.Sequential):
    """(B, 3, T, H, W) in [-1, 1] -> (B, 1024, T, ceil(H / 32), ceil(W / 32)), >= 0.

    Args:
        dense: undo the temporal strides (T rows out); False gives the published network (ceil(T / 8) rows).
    """

    def __init__(self, *, dense: bool = True) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        steps = 2 if dense else 1  # dilation of all that follows the first temporal stride
        layers["Conv3d_1a_7x7"] = Unit3d(3, 64, 7, stride=2, dense=dense)
        layers["MaxPool3d_2a_3x3"] = SpatialPool()
        layers["Conv3d_2b_1x1"] = Unit3d(64, 64, 1)
        layers["Conv3d_2c_3x3"] = Unit3d(64, 192, 3, dilation=steps)
        layers["MaxPool3d_3a_3x3"] = SpatialPool()
        for name, (channels_in, channels_out) in _MIXED.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = StridedPool(3, dilation=steps, dense=dense)
                steps = steps * 2 if dense else 1
            if name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = StridedPool(2, dilation=steps, dense=dense)
                steps = steps * 2 if dense else 1
            layers[name] = Mixed(channels_in, channels_out, dilation=steps)
        super().__init__(layers)


class Unit3d(nn.Module):
    """Convolution without bias, batch norm, ReLU, with SAME padding.

    Args:
        channels_in, channels_out, dilation: as in `nn.Conv3d`, the last in time.
        kernel: 1, 3 or 7, cubic.
        stride: in space, and in time too unless `dense`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        dense: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.dense = kernel, stride, dense
        strides = (1 if dense else stride, stride, stride)
        padding = (dilation * (kernel // 2), kernel // 2, kernel // 2) if stride == 1 else (0, 0, 0)
        self.conv3d = nn.Conv3d(
            channels_in, channels_out, kernel, stride=strides, padding=padding, dilation=(dilation, 1, 1), bias=False
        )
        self.bn = nn.BatchNorm3d(channels_out, eps=1e-3)

    def forward(self, cells: Tensor) -> Tensor:
        if self.stride > 1:
            steps, rows, columns = (same_padding(size, self.kernel, self.stride) for size in cells.shape[2:])
            if self.dense:  # where a clip of an even length would begin; the last row's window hangs over the end
                front = (self.kernel - self.stride) // 2
                steps = front, self.kernel - 1 - front
            cells = functional.pad(cells, (*columns, *rows, *steps))
        return functional.relu(self.bn(self.conv3d(cells)))


class Mixed(nn.Module):
    """Inception block: four branches side by side, joined on the channels. Widths as in `_MIXED`; dilation in time."""

    def __init__(self, channels_in: int, channels_out: tuple[int, ...], *, dilation: int) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = channels_out
        self.dilation = dilation
        self.b0 = Unit3d(channels_in, b0, 1)
        self.b1a = Unit3d(channels_in, b1a, 1)
        self.b1b = Unit3d(b1a, b1b, 3, dilation=dilation)
        self.b2a = Unit3d(channels_in, b2a, 1)
        self.b2b = Unit3d(b2a, b2b, 3, dilation=dilation)
        self.b3b = Unit3d(channels_in, b3b, 1)

    def forward(self, cells: Tensor) -> Tensor:
        pooled = same_max_pool(cells, (1, 3, 3), (1, 1, 1))
        pooled = shifted_max(pooled, taps=3, dilation=self.dilation, front=self.dilation)
        branches = [self.b0(cells), self.b1b(self.b1a(cells)), self.b2b(self.b2a(cells)), self.b3b(pooled)]
        return torch.cat(branches, dim=1)


class SpatialPool(nn.Module):
    """3 x 3 max pool of stride 2 in space, SAME padding."""

    def forward(self, cells: Tensor) -> Tensor:
        return same_max_pool(cells, (1, 3, 3), (1, 2, 2))


class StridedPool(nn.Module):
    """Cubic max pool of stride 2, SAME padding; stride 1 in time where `dense`.

    Args:
        kernel: 2 or 3.
        dilation: in time, of the layers before this one.
        dense: keep every step.
    """

    def __init__(self, kernel: int, *, dilation: int, dense: bool) -> None:
        super().__init__()
        self.kernel, self.dilation, self.dense = kernel, dilation, dense

    def forward(self, cells: Tensor) -> Tensor:
        if not self.dense:
            return same_max_pool(cells, (self.kernel,) * 3, (2, 2, 2))
        cells = same_max_pool(cells, (1, self.kernel, self.kernel), (1, 2, 2))
        return shifted_max(cells, taps=self.kernel, dilation=self.dilation, front=0)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros in front and behind, as TensorFlow's SAME: ceil(size / stride) outputs, the odd zero goes behind."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def same_max_pool(cells: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Max pool with SAME padding by zeros, for cells >= 0 (a pool that ignores its padding gives the same then)."""
    pads = [same_padding(*sizes) for sizes in zip(cells.shape[2:], kernel, stride, strict=True)]
    if all(front == back for front, back in pads):
        return functional.max_pool3d(cells, kernel, stride, padding=[front for front, _ in pads])
    if all(front == 0 for front, _ in pads):
        return functional.max_pool3d(cells, kernel, stride, ceil_mode=True)
    padded = functional.pad(cells, [pad for pair in reversed(pads) for pad in pair])
    return functional.max_pool3d(padded, kernel, stride)
