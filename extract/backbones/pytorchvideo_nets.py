"""X3D, I3D-R50 and Slow-R50 from pytorchvideo, with the parameters of its model zoo, cut before the head.

Tensor names are those of the zoo's files (`blocks.0. ...`).
"""

from typing import Literal

from torch import Tensor, nn

from .torchvision_compat import import_with_torchvision
from .trunks import shifted_max

_X3D_INPUT = {"x3d_xs": (4, 160), "x3d_s": (13, 160), "x3d_m": (16, 224), "x3d_l": (16, 312)}  # clip length, crop
_X3D_DEPTH_FACTOR = {"x3d_l": 5.0}


class Blocks(nn.Module):
    """The first blocks of a pytorchvideo network, one after another."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, clips: Tensor) -> Tensor:
        for block in self.blocks:
            clips = block(clips)
        return clips


class DensePairPool(nn.Module):
    """Temporal max pool of two rows and stride 1, in place of the zoo's stride 2."""

    def forward(self, cells: Tensor) -> Tensor:
        return shifted_max(cells, taps=2, dilation=1, front=0)


def build_x3d(name: str, depth: int) -> nn.Module:
    """X3D trunk: (B, 3, T, H, W) -> (B, 192 at depth 5 or 96 at depth 4, T, ceil(H / 32) or ceil(H / 16), ...).

    Args:
        name: `x3d_xs`, `x3d_s`, `x3d_m` or `x3d_l`; xs, s and m are one network, trained on different clips.
        depth: blocks kept, the stem counts as one.
    """
    x3d = import_with_torchvision("pytorchvideo.models.x3d")
    clip_length, crop_size = _X3D_INPUT[name]
    net = x3d.create_x3d(
        input_clip_length=clip_length,
        input_crop_size=crop_size,
        depth_factor=_X3D_DEPTH_FACTOR.get(name, 2.2),
        inner_act=nn.SiLU,  # the library's own Swish has no working backward pass in today's torch
    )
    return Blocks(list(net.blocks[:depth]))


def build_resnet3d(name: Literal["i3d_r50", "slow_r50"]) -> nn.Module:
    """ResNet-50 trunk: (B, 3, T, H, W) -> (B, 2048, T, ceil(H / 32), ceil(W / 32)).

    I3D-R50 halves time behind its first stage; here the pool keeps every row and all that follows is dilated by two.
    """
    resnet = import_with_torchvision("pytorchvideo.models.resnet")
    if name == "slow_r50":
        net = resnet.create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 7, 7))
        return Blocks(list(net.blocks[:-1]))
    net = resnet.create_resnet(
        stem_conv_kernel_size=(5, 7, 7),
        stage1_pool=nn.MaxPool3d,
        stage_conv_a_kernel_size=(
            (3, 1, 1),
            [(3, 1, 1), (1, 1, 1)],
            [(3, 1, 1), (1, 1, 1)],
            [(1, 1, 1), (3, 1, 1)],
        ),
    )
    stem, stage1, _pool, *stages = net.blocks[:-1]
    for stage in stages:
        _dilate_time(stage, 2)
    return Blocks([stem, stage1, DensePairPool(), *stages])


def _dilate_time(module: nn.Module, steps: int) -> None:
    for conv in module.modules():
        if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1:
            conv.dilation = (steps, *conv.dilation[1:])
            conv.padding = (steps * int(conv.padding[0]), *conv.padding[1:])
