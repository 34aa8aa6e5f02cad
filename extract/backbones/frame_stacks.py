"""Stacks of grey frames: a 2-D network sees three neighbouring frames as its channels, 3-D blocks join such groups.

The system that won SoccerNet Ball Action Spotting 2023 by lRomul (github.com/lRomul/ball-action-spotting, MIT); tensor
names are those of its checkpoints. There a network looks at one stack of frames and judges its middle; here every step
of a clip has the row of the stack that is centred on it. Neighbouring stacks share their groups, so the 2-D network
runs once per step.

Shapes: B clips, T steps, G groups of a stack, C channels, H x W pixels in, h x w cells out.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .nets import gridded
from .torchvision_compat import import_with_torchvision

FRAMES_PER_GROUP = 3
_LUMA = (0.299, 0.587, 0.114)  # of BT.601, as OpenCV converts to grey
_GROUP_CHANNELS = 256  # of a group in a row
_BLOCK_CHANNELS, _EXPANDED, _SQUEEZED, _NUM_BLOCKS = 192, 576, 24, 4
_DROP_PATH = 0.2


class StackBackbone(nn.Module):
    """A row of the stack of frames centred on each step.

    Forward takes RGB in [0, 1] (B, 3, T, H, W) and returns (B, T, G * 256): any T >= 1, group by group in time. Frames
    outside the clip are its first or last one again: the source never predicts where a stack would leave the video.

    Args:
        trunk: see `StackTrunk`.
        num_groups: G, odd; a stack has 3 * G frames.
    """

    grid: tuple[int, int] | None = None
    """Rows and columns of cells that stand in a row, one after the other, in place of one pool over space."""
    inner_networks = ("conv2d_encoder",)
    """Names in the trunk of networks that a file of such a network alone can begin."""

    def __init__(self, trunk: "StackTrunk", *, num_groups: int) -> None:
        super().__init__()
        self.trunk, self.num_groups = trunk, num_groups

    def forward(self, clips: Tensor) -> Tensor:
        num_clips, _, num_steps = (int(length) for length in clips.shape[:3])
        steps = torch.arange(num_steps, device=clips.device)
        red, green, blue = (share * clips[:, channel] for channel, share in enumerate(_LUMA))
        grey_bthw = red + green + blue

        # groups are centred on the steps -1 to T: beyond, all their frames are the same, as in the outermost two
        centres = torch.arange(-1, num_steps + 1, device=clips.device)
        around = torch.arange(FRAMES_PER_GROUP, device=clips.device) - FRAMES_PER_GROUP // 2
        frames = (centres[:, None] + around).clamp(0, num_steps - 1)  # (T + 2, 3)
        groups = self.trunk.groups(grey_bthw[:, frames].flatten(0, 1))
        groups = torch.unflatten(groups, 0, (num_clips, num_steps + 2))

        offsets = (torch.arange(self.num_groups, device=clips.device) - self.num_groups // 2) * FRAMES_PER_GROUP
        chosen = (steps[:, None] + offsets).clamp(-1, num_steps) + 1  # (T, G), indices of `centres`
        stacks = groups[:, chosen].flatten(0, 1).transpose(1, 2)  # (B * T, C, G, h, w)
        return torch.unflatten(self.trunk(stacks, self.grid or (1, 1)), 0, (num_clips, num_steps))


class StackTrunk(nn.Module):
    """All layers with weights.

    Args:
        name: of a timm model with five stages; its last one feeds the 3-D blocks.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = import_with_torchvision("timm")
        options = {"features_only": True, "out_indices": (4,), "drop_path_rate": _DROP_PATH}
        self.conv2d_encoder = timm.create_model(name, pretrained=False, **options)
        self.conv2d_projection = _projection(self.conv2d_encoder.feature_info.channels()[-1], _BLOCK_CHANNELS)
        self.conv3d_encoder = nn.Sequential(*(InvertedResidual3d() for _ in range(_NUM_BLOCKS)))
        self.conv3d_projection = _projection(_BLOCK_CHANNELS, _GROUP_CHANNELS)
        self.global_pool = GeneralisedMean()

    def groups(self, frames_nchw: Tensor) -> Tensor:
        """Three grey frames (N, 3, H, W) -> (N, C, h, w)."""
        cells: Tensor = self.conv2d_projection(self.conv2d_encoder(frames_nchw)[-1])
        return cells

    def forward(self, stacks_ncghw: Tensor, grid: tuple[int, int]) -> Tensor:
        """Groups of a stack (N, C, G, h, w) -> (N, cells of the grid * G * 256)."""
        cells = self.conv3d_encoder(stacks_ncghw).transpose(1, 2)
        num_stacks, num_groups = cells.shape[:2]
        cells = torch.unflatten(self.conv3d_projection(cells.flatten(0, 1)), 0, (num_stacks, num_groups))
        rows: Tensor = self.global_pool(cells.flatten(1, 2), grid)
        return rows


class InvertedResidual3d(nn.Module):
    """EfficientNet's block with 3 x 3 x 3 in place of 3 x 3; groups before and behind a stack count as zero."""

    def __init__(self) -> None:
        super().__init__()
        layers = import_with_torchvision("timm.layers")
        self.conv_pw = nn.Conv3d(_BLOCK_CHANNELS, _EXPANDED, 1, bias=False)
        self.bn1 = _norm(_EXPANDED, is_activated=True)
        self.conv_dw = nn.Conv3d(_EXPANDED, _EXPANDED, 3, padding=1, groups=_EXPANDED, bias=False)
        self.bn2 = _norm(_EXPANDED, is_activated=True)
        self.se = SqueezeExcite3d()
        self.conv_pwl = nn.Conv3d(_EXPANDED, _BLOCK_CHANNELS, 1, bias=False)
        self.bn3 = _norm(_BLOCK_CHANNELS, is_activated=False)
        self.drop_path = layers.DropPath(_DROP_PATH)

    def forward(self, x_ncghw: Tensor) -> Tensor:
        """(N, C, G, h, w) -> (N, C, G, h, w)."""
        wide = self.bn1(self.conv_pw(x_ncghw))
        wide = self.se(self.bn2(self.conv_dw(wide)))
        found: Tensor = x_ncghw + self.drop_path(self.bn3(self.conv_pwl(wide)))
        return found


class SqueezeExcite3d(nn.Module):
    """Weighs each channel by its mean over a whole stack."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv3d(_EXPANDED, _SQUEEZED, 1)
        self.act1 = nn.SiLU()
        self.conv_expand = nn.Conv3d(_SQUEEZED, _EXPANDED, 1)

    def forward(self, x_ncghw: Tensor) -> Tensor:
        """(N, C, G, h, w) -> (N, C, G, h, w)."""
        means = x_ncghw.mean((2, 3, 4), keepdim=True)
        return x_ncghw * torch.sigmoid(self.conv_expand(self.act1(self.conv_reduce(means))))


class GeneralisedMean(nn.Module):
    """(mean of x ** p) ** (1 / p) over space with a learned p; what is below 1e-6 counts as that.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, cells_nchw: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, C, h, w) -> (N, cells of the grid * C)."""
        exact = cells_nchw.to(torch.promote_types(cells_nchw.dtype, torch.float32))  # 1e-6 ** 3 is zero in fp16
        return gridded(exact.clamp(min=1e-6) ** self.p, grid) ** (1 / self.p)


def _projection(channels: int, wanted: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.SiLU(inplace=True))


def _norm(channels: int, *, is_activated: bool) -> nn.Sequential:
    activation = nn.SiLU(inplace=True) if is_activated else nn.Identity()
    return nn.Sequential(OrderedDict(bn3d=nn.BatchNorm3d(channels), act=activation))


def build_stack(name: str, *, num_frames: int) -> nn.Module:
    """A backbone that sees stacks of `num_frames` grey frames, 3 times an odd number, by a 2-D network of timm."""
    return StackBackbone(StackTrunk(name), num_groups=num_frames // FRAMES_PER_GROUP)
