"""What every backbone looks like from outside, and the two ways to get there.

Shapes: B clips, T steps, C channels, H x W pixels in, h x w cells out.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...cache.settings import Pool, grid_of
from ...errors import InputError
from .torchvision_compat import import_with_torchvision


class ClipBackbone(nn.Module):
    """A 3-D trunk that keeps time, then the mean over space.

    Forward takes normalised float RGB (B, 3, T, H, W) and returns (B, T, C): one row per step, never pooled over time.

    Args:
        trunk: (B, 3, T, H, W) -> (B, C, T, h, w), or a list of these whose channels stand side by side in a row; its
            tensor names are those of the public weights.
        ahead_steps: row t of the trunk is centred on step t + `ahead_steps` of the clip, >= 0. The rows are moved so
            that row t is centred on step t; the first ones are repeated.
    """

    grid: tuple[int, int] | None = None
    """Rows and columns of cells that stand in a row, one after the other, in place of the mean over space."""

    def __init__(self, trunk: nn.Module, *, ahead_steps: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        self.ahead_steps = ahead_steps

    def forward(self, clips: Tensor) -> Tensor:
        cells: Tensor | list[Tensor] = self.trunk(clips)
        levels = cells if isinstance(cells, list) else [cells]
        if self.grid is None:
            rows = torch.cat([level.mean(dim=(3, 4)) for level in levels], dim=1).transpose(1, 2)
        else:
            frames = [level.transpose(1, 2).flatten(0, 1) for level in levels]  # each (B * T, C, h, w)
            rows = torch.cat([gridded(each, self.grid) for each in frames], dim=1)
            rows = rows.reshape(len(clips), -1, rows.shape[1])
        if self.ahead_steps:
            rows = rows[:, (torch.arange(rows.shape[1], device=rows.device) - self.ahead_steps).clamp(min=0)]
        return rows


class FrameBackbone(nn.Module):
    """A timm model run on each frame by itself, then one row of its cells. Forward as in `ClipBackbone`.

    Args:
        trunk: a timm model; only its `forward_features` is used.
        shifts: modules in it that move channels between frames, see `temporal_shift`.
        pool: `mean` over space; of a model that `has_class_token` also `cls`, the class token (C), or `both`: class
            token, then mean (2 C).
    """

    def __init__(self, trunk: nn.Module, shifts: Sequence[nn.Module] = (), *, pool: Pool = "mean") -> None:
        super().__init__()
        self.trunk, self.pool, self.grid = trunk, pool, grid_of(pool)
        self.shifts = list(shifts)  # a plain list: their tensors have their names in the trunk
        self.num_prefix_tokens = int(getattr(trunk, "num_prefix_tokens", 0))
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"

    def forward(self, clips: Tensor) -> Tensor:
        num_clips, _, num_steps = clips.shape[:3]
        for shift in self.shifts:
            shift.num_steps = int(num_steps)  # type: ignore[assignment]  # a plain number of theirs
        frames = clips.transpose(1, 2).flatten(0, 1)
        cells = self.trunk.forward_features(frames)  # type: ignore[operator]
        rows = cells[:, 0] if self.pool == "cls" else self._spatial_mean(cells)
        if self.pool == "both":
            rows = torch.cat([cells[:, 0], rows], dim=1)
        return rows.reshape(num_clips, num_steps, rows.shape[-1])

    def _spatial_mean(self, cells: Tensor) -> Tensor:
        """(N, C, h, w), (N, h, w, C) or tokens (N, prefix + h * w, C) -> (N, C), or all cells of the grid."""
        if cells.ndim == 3:
            return cells[:, self.num_prefix_tokens :].mean(dim=1)
        if self.grid is not None:
            return gridded(cells.permute(0, 3, 1, 2) if self.channels_last else cells, self.grid)
        return cells.mean(dim=(1, 2)) if self.channels_last else cells.mean(dim=(2, 3))


def gridded(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, rows * columns * C): means over a grid, the channels of a cell after those of another."""
    return functional.adaptive_avg_pool2d(cells, grid).permute(0, 2, 3, 1).flatten(1)


def shifted_max(cells: Tensor, *, taps: int, dilation: int, front: int) -> Tensor:
    """Temporal max pool of stride 1 with dilation: row t is the max of rows t - front + i * dilation, i < taps.

    Rows outside the clip count as zero, so the cells must not be negative (they follow a ReLU).

    Args:
        cells: (B, C, T, h, w), >= 0.
        taps: rows that are compared.
        dilation: steps between them.
        front: steps from the first tap to t, >= 0.
    """
    num_steps = cells.shape[2]
    back = (taps - 1) * dilation - front
    padded = functional.pad(cells, (0, 0, 0, 0, front, back))
    best = padded[:, :, :num_steps]
    for tap in range(1, taps):
        best = torch.maximum(best, padded[:, :, tap * dilation : tap * dilation + num_steps])
    return best


_X3D_INPUT = {"x3d_xs": (4, 160), "x3d_s": (13, 160), "x3d_m": (16, 224), "x3d_l": (16, 312)}  # clip length, crop
_X3D_DEPTH_FACTOR = {"x3d_l": 5.0}


class Blocks(nn.Module):
    """The first blocks of a pytorchvideo network, one after another; gives what comes out of some of them.

    Args:
        blocks: the first ones, each fed by the one before.
        depths: numbers of blocks, from 1, whose outputs are wanted; by default all blocks.
    """

    def __init__(self, blocks: list[nn.Module], depths: Sequence[int] = ()) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.depths = frozenset(depths or [len(blocks)])

    def forward(self, clips: Tensor) -> list[Tensor]:
        cells = []
        for depth, block in enumerate(self.blocks, start=1):
            clips = block(clips)
            if depth in self.depths:
                cells.append(clips)
        return cells


class DensePairPool(nn.Module):
    """Temporal max pool of two rows and stride 1, in place of the zoo's stride 2."""

    def forward(self, cells: Tensor) -> Tensor:
        return shifted_max(cells, taps=2, dilation=1, front=0)


def build_x3d(name: str, depths: Sequence[int]) -> nn.Module:
    """X3D trunk: (B, 3, T, H, W) -> per depth (B, C, T, h, w), from 24 channels at half the size for depth 1 (the stem)
    to 192 at ceil(H / 32) for depth 5.

    Args:
        name: `x3d_xs`, `x3d_s`, `x3d_m` or `x3d_l`; xs, s and m are one network, trained on different clips.
        depths: blocks whose outputs are wanted, ascending; the stem counts as one.
    """
    x3d = import_with_torchvision("pytorchvideo.models.x3d")
    clip_length, crop_size = _X3D_INPUT[name]
    net = x3d.create_x3d(
        input_clip_length=clip_length,
        input_crop_size=crop_size,
        depth_factor=_X3D_DEPTH_FACTOR.get(name, 2.2),
        inner_act=nn.SiLU,  # the library's own Swish has no working backward pass in today's torch
    )
    return Blocks(list(net.blocks[: depths[-1]]), depths)


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


def build_timm(name: str, *, pretrained: bool = False) -> nn.Module:
    """A timm model without its classifier; `pretrained` loads through timm's own hub loader.

    Args:
        name: timm's name, with a weights tag where one is meant, e.g. `regnety_008.pycls_in1k`.
        pretrained: fetch the tag's weights (timm's own cache and errors).

    Raises:
        InputError: timm has no such model.
    """
    timm = import_with_torchvision("timm")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:8]
        raise InputError(
            f"timm has no model {name!r}", wanted=f"such as {', '.join(near) or 'resnet18'}", cure="timm.list_models()"
        )
    options = {"pretrained": pretrained, "num_classes": 0, "global_pool": ""}
    try:  # vision transformers otherwise refuse any picture but their own square
        model: nn.Module = timm.create_model(name, **options, dynamic_img_size=True)
    except TypeError:
        try:
            model = timm.create_model(name, **options)
        except AssertionError:  # some keep their pooling, which `forward_features` does without
            del options["global_pool"]
            model = timm.create_model(name, **options)
    return model


def has_class_token(model: nn.Module) -> bool:
    """Whether the first token that a timm model gives is a class token; registers are none."""
    return int(getattr(model, "num_prefix_tokens", 0)) > 0 and getattr(model, "cls_token", None) is not None


def patch_of(model: nn.Module) -> int:
    """Pixels of the patches that a timm model cuts pictures into; 1 where it takes any size."""
    size = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(max(size)) if isinstance(size, tuple | list) else int(size)


def require_rows(backbone: nn.Module, *, name: str, width: int, height: int, dim: int) -> None:
    """Try one picture of a timm model: there are hundreds, and some take one size only or give no feature map.

    Raises:
        InputError: it does not give a row of `dim` channels.
    """
    try:
        with torch.no_grad():
            shape = tuple(backbone(torch.zeros(1, 3, 1, height, width)).shape)
    except Exception as error:  # whatever a model of timm raises about a size
        got = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    else:
        if shape == (1, 1, dim):
            return
        got = f"rows of shape {shape}"
    raise InputError(
        f"{name} gives no feature map of pictures of {width}x{height}",
        got=got,
        wanted=f"a row of {dim} channels",
        cure="another --size (its own square is in `bas weights`), or another backbone",
    )
