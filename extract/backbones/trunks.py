"""What every backbone looks like from outside, and the two ways to get there.

Shapes: B clips, T steps, C channels, H x W pixels in, h x w cells out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClipBackbone(nn.Module):
    """A 3-D trunk that keeps time, then the mean over space.

    Forward takes normalised float RGB (B, 3, T, H, W) and returns (B, T, C): one row per step, never pooled over time.

    Args:
        trunk: (B, 3, T, H, W) -> (B, C, T, h, w); its tensor names are those of the public weights.
        ahead_steps: row t of the trunk is centred on step t + `ahead_steps` of the clip, >= 0. The rows are moved so
            that row t is centred on step t; the first ones are repeated.
    """

    def __init__(self, trunk: nn.Module, *, ahead_steps: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        self.ahead_steps = ahead_steps

    def forward(self, clips: Tensor) -> Tensor:
        cells: Tensor = self.trunk(clips)
        rows = cells.mean(dim=(3, 4)).transpose(1, 2)
        if self.ahead_steps:
            rows = rows[:, (torch.arange(rows.shape[1], device=rows.device) - self.ahead_steps).clamp(min=0)]
        return rows


class FrameBackbone(nn.Module):
    """A timm model run on each frame by itself, then the mean over space. Forward as in `ClipBackbone`.

    Args:
        trunk: a timm model; only its `forward_features` is used.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_prefix_tokens = int(getattr(trunk, "num_prefix_tokens", 0))
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"

    def forward(self, clips: Tensor) -> Tensor:
        num_clips, _, num_steps = clips.shape[:3]
        frames = clips.transpose(1, 2).flatten(0, 1)
        rows = self._spatial_mean(self.trunk.forward_features(frames))  # type: ignore[operator]
        return rows.reshape(num_clips, num_steps, rows.shape[-1])

    def _spatial_mean(self, cells: Tensor) -> Tensor:
        """(N, C, h, w), (N, h, w, C) or tokens (N, prefix + h * w, C) -> (N, C)."""
        if cells.ndim == 3:
            return cells[:, self.num_prefix_tokens :].mean(dim=1)
        return cells.mean(dim=(1, 2)) if self.channels_last else cells.mean(dim=(2, 3))


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
