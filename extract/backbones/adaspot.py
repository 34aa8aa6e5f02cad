"""`+adaspot`: one network sees the whole picture small, a second one a region of each frame at full size.

The small network's own activations say where that region is. Nothing learns the choice, and no gradient passes it.

Shapes: B clips, T steps, N = B * T frames, C channels, H x W pixels of the large picture, h x w cells of the small
network; each cell counts as 8 x 8 places that a region may be centred on, P x Q = 8 h x 8 w in all.
Source: Xarles et al., AdaSpot, CVPR 2026 (arXiv 2602.22073) and its code, with the settings for SoccerNet Ball.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from .temporal_shift import GateShift

NETWORKS = ("lowres_backbone", "highres_backbone")
"""Names in the trunk, as in public checkpoints; weights of one 2-D network are what both begin with."""
HEADS = ("temp_enc", "_temp_fine", "_pred_fine")
"""Beginnings of the names in public checkpoints of what comes after the rows."""
SIZE = (796, 448)
"""Width x height of the large pictures that it is published for."""
REGION_PIXELS = 112
_PLACES_PER_CELL = 8
_SMOOTHING = (7, 9, 9)
"""Kernel over steps and places; its deviation is a quarter of it."""
_NUM_SMOOTHINGS = 2
REACH_STEPS = _NUM_SMOOTHINGS * (_SMOOTHING[0] // 2)
"""Steps to each side that choose a region with its own."""


class AdaSpot(nn.Module):
    """Two networks of one kind, each with its projection; a row is the larger of the two in every channel.

    Forward as in `nets.ClipBackbone`, with the large pictures.

    Args:
        network: a convolutional model of timm with modules of `temporal_shift` in it; the second begins as its copy.
        dim: its channels.
    """

    inner_networks = NETWORKS
    """As of `frame_stacks.StackBackbone`."""
    side_rows = ("lowres_linear", "highres_linear")
    """Parts of the trunk that give rows (N, C) of one network alone, which `--side-weight` learns from as well."""

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        pad_with_edges(network)
        parts = {each: copy.deepcopy(network) for each in NETWORKS}
        parts |= {name: _projection(dim) for name in ("lowres_linear", "highres_linear")}
        self.trunk = nn.ModuleDict(parts)
        self.shifts = [each for each in self.trunk.modules() if isinstance(each, GateShift)]

    def forward(self, clips: Tensor) -> Tensor:
        num_clips, _, num_steps, height, width = clips.shape
        for shift in self.shifts:
            shift.num_steps = int(num_steps)
        low, high = (self.trunk[each].forward_features for each in NETWORKS)
        frames = clips.transpose(1, 2).flatten(0, 1)
        # antialiased as torchvision resizes tensors since 0.17; before, it took the mean of two by two pixels
        small = functional.interpolate(frames, (height // 2, width // 2), mode="bilinear", antialias=True)
        cells = low(small)  # type: ignore[operator]
        top, left = choose_regions(cells.detach(), num_steps=int(num_steps), height=int(height), width=int(width))
        seen = high(cut_regions(frames, top, left))  # type: ignore[operator]
        rows = self.trunk["lowres_linear"](cells.mean((2, 3)))
        rows = torch.maximum(rows, self.trunk["highres_linear"](seen.mean((2, 3))))
        return rows.reshape(num_clips, num_steps, rows.shape[-1])


def pad_with_edges(network: nn.Module) -> None:
    """Repeat the outermost cells around every 2-D convolution: zeros there would light up the border, and draw regions.

    Those that weigh the shares of `gsf`, over steps and channels, are among them, as published; its 3-D gate is not.
    """
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv.padding != (0, 0):
            conv.padding_mode = "replicate"


def _projection(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))


def choose_regions(cells_nchw: Tensor, *, num_steps: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Top and left pixel (N,) of the region of each frame: where the sum of the saliency in it is largest.

    A region never reaches the last row and column, as published. Where no cell is above another it is in the middle
    (the published code gives a black region there).

    Args:
        cells_nchw: activations of the small pictures.
        num_steps, height, width: T, H, W of the clips.
    """
    with torch.autocast(cells_nchw.device.type, enabled=False):  # half precision would make ties, and the first win
        saliency_npq = saliency(cells_nchw.to(torch.promote_types(cells_nchw.dtype, torch.float32)), num_steps)
        num_down, num_across = saliency_npq.shape[1:]
        # sides of the region in places, odd so that it has a middle
        window = [int(region_side(h) / h * num) | 1 for h, num in ((height, num_down), (width, num_across))]
        sums_n1pq = functional.avg_pool2d(
            saliency_npq.unsqueeze(1), window, stride=1, padding=[side // 2 for side in window]
        )
    largest_n, place_n = sums_n1pq.flatten(1).max(dim=1)
    place_n = torch.where(largest_n > 0, place_n, num_down // 2 * num_across + num_across // 2)
    top_n = _first_pixel(place_n // num_across, num_down, height)
    return top_n, _first_pixel(place_n % num_across, num_across, width)


def region_side(pixels: int) -> int:
    """Pixels of a side of the region in a picture of `pixels`: even, and less than all."""
    return min(REGION_PIXELS, (pixels - 1) // 2 * 2)


def _first_pixel(place_n: Tensor, num_places: int, pixels: int) -> Tensor:
    side = region_side(pixels)
    middle_n = (place_n / num_places * pixels).long()
    return middle_n.clamp(side // 2, pixels - side // 2 - 1) - side // 2


def saliency(cells_nchw: Tensor, num_steps: int) -> Tensor:
    """(N, C, h, w) -> (N, P, Q) >= 0: the mean over channels, 0 to 1 in each frame, smoothed over steps and places."""
    mean_nhw = cells_nchw.mean(dim=1)
    least, most = mean_nhw.amin((1, 2), keepdim=True), mean_nhw.amax((1, 2), keepdim=True)
    share_nhw = (mean_nhw - least) / (most - least + 1e-5)
    share_npq = share_nhw.repeat_interleave(_PLACES_PER_CELL, 1).repeat_interleave(_PLACES_PER_CELL, 2)
    share_b1tpq = torch.unflatten(share_npq, 0, (-1, num_steps)).unsqueeze(1)
    kernel = _gaussian(share_nhw)
    for _ in range(_NUM_SMOOTHINGS):
        share_b1tpq = functional.conv3d(_mirrored(share_b1tpq), kernel)
    return share_b1tpq.flatten(0, 2)


def _gaussian(like: Tensor) -> Tensor:
    """The kernel of the smoothing (1, 1, steps, places, places), sum 1, of the type and on the device of a tensor."""
    kernel = torch.ones((), dtype=like.dtype, device=like.device)
    for size in _SMOOTHING:
        offset = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
        kernel = kernel[..., None] * torch.exp(-(offset**2) / (2 * (size / 4) ** 2))
    return (kernel / kernel.sum())[None, None]


def _mirrored(x_b1tpq: Tensor) -> Tensor:
    """With half a kernel more on every side, mirrored without the edge; clips of any length, unlike torch's own."""
    for dim, size in enumerate(_SMOOTHING, start=2):
        num, half = x_b1tpq.shape[dim], size // 2
        period = max(1, 2 * (num - 1))
        place = torch.arange(-half, num + half, device=x_b1tpq.device).abs() % period
        x_b1tpq = x_b1tpq.index_select(dim, torch.minimum(place, period - place))
    return x_b1tpq


def cut_regions(frames_nchw: Tensor, top_n: Tensor, left_n: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, region, region), from the first pixels of each."""
    num_channels, height, width = frames_nchw.shape[1:]
    row_nr, column_nr = (
        first_n[:, None] + torch.arange(region_side(pixels), device=first_n.device)
        for first_n, pixels in ((top_n, height), (left_n, width))
    )
    band = frames_nchw.gather(2, row_nr[:, None, :, None].expand(-1, num_channels, -1, width))
    return band.gather(3, column_nr[:, None, None, :].expand(-1, num_channels, band.shape[2], -1))
