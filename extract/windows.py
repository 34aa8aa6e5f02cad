"""The window plan: which frames go into which clip, and how clip rows become one row per frame.

Pure index arithmetic and numpy. Letters: T grid frames of the video, S = `stride` phases, W = `window` steps of one
clip, K groups, C channels. Phase p of the stream is the frames p, p + S, p + 2 S, ... A *group* k is the S clips, one
per phase, that start at step k * hop of their phase; together they cover the frames [k * hop * S, (k * hop + W) * S).

The plan is anchored at frame 0 and is a function of (T, settings) alone: neither batch size, nor resume, nor the way
in which matches are shared among workers can change which clip a row is computed in. It matters, because a 3-D
network with squeeze-excitation averages over the whole clip, so that a feature of frame t depends on the clip around t.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..cache.settings import Blend, FeatureSettings
from ..errors import InputError

FRAMES_PER_2D_CLIP = 32
"""Frames that a 2-D backbone gets in one clip."""


@dataclass(frozen=True)
class WindowPlan:
    """Windows over one video. See the module for the letters."""

    num_frames: int
    """T, grid frames of the video, >= 1."""
    window: int
    """W, steps in one clip, >= 1."""
    hop: int
    """Steps between the starts of neighbouring clips, 1..window."""
    stride: int
    """S, grid frames per step, >= 1."""
    blend: Blend
    """`hann`: Hann-weighted average; `mean`: plain average; `centre`: the clip in which the row is most central."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise InputError("the video has no frames", got=self.num_frames, wanted="at least 1")
        if not 1 <= self.hop <= self.window or self.stride < 1:
            raise InputError(
                "window plan is not usable",
                got=f"window {self.window}, hop {self.hop}, stride {self.stride}",
                wanted="1 <= hop <= window, stride >= 1",
            )

    @classmethod
    def of(cls, settings: FeatureSettings, num_frames: int) -> "WindowPlan":
        """The plan that `settings` give for a video of `num_frames` grid frames.

        A 2-D backbone (window 1) is exact per frame; its frames travel in clips of 32 only to fill the device.
        """
        if settings.window == 1:
            return cls(num_frames, FRAMES_PER_2D_CLIP, FRAMES_PER_2D_CLIP, 1, "mean")
        return cls(num_frames, settings.window, settings.hop, settings.stride, settings.blend)

    @property
    def num_groups(self) -> int:
        """K: the fewest groups that cover every frame."""
        steps = -(-self.num_frames // self.stride)
        return 1 + max(0, -(-(steps - self.window) // self.hop))

    def group_frames(self, group: int) -> npt.NDArray[np.int64]:
        """Frame of every clip step of a group: (S, W), in 0..T-1; past the end the last frame is repeated."""
        steps = group * self.hop + np.arange(self.window)
        frames = np.arange(self.stride)[:, None] + steps[None, :] * self.stride
        clamped: npt.NDArray[np.int64] = np.minimum(frames, self.num_frames - 1)
        return clamped

    def group_span(self, group: int) -> tuple[int, int]:
        """Half-open range of rows that a group contributes to, within 0..T."""
        start = group * self.hop * self.stride
        return start, min(start + self.window * self.stride, self.num_frames)

    def first_group(self, row: int) -> int:
        """First group that contributes to `row`: extraction that resumes at `row` begins there."""
        step = row // self.stride
        return max(0, (step - self.window) // self.hop + 1)

    def rows_done_after(self, group: int) -> int:
        """Rows that no group after `group` contributes to: 0..this are final once `group` is in."""
        if group >= self.num_groups - 1:
            return self.num_frames
        return min((group + 1) * self.hop * self.stride, self.num_frames)

    def weights(self, group: int) -> npt.NDArray[np.float32]:
        """Weight of each clip step in the average: (W,) float32, >= 0; a function of the group's place only."""
        if self.blend == "hann":
            return np.sin(np.pi * (np.arange(self.window) + 0.5) / self.window).astype(np.float32) ** 2
        if self.blend == "mean":
            return np.ones(self.window, np.float32)
        left = 0 if group == 0 else (self.window - self.hop) // 2
        right = self.window if group == self.num_groups - 1 else (self.window - self.hop) // 2 + self.hop
        weights = np.zeros(self.window, np.float32)
        weights[left:right] = 1
        return weights


class Blender:
    """Turns the clip rows of groups, fed in order, into final rows, in order. Memory: W * S rows.

    Sums in float32 in the order of the groups, so a row's bits depend only on the plan and the clips.
    """

    def __init__(self, plan: WindowPlan, *, first_row: int = 0) -> None:
        self._plan = plan
        self._next_group = plan.first_group(first_row)
        self._next_row = first_row
        self._base = self._next_group * plan.hop * plan.stride  # row of the accumulators' first entry
        self._sum_rc: npt.NDArray[np.float32] | None = None
        self._weight_r = np.zeros(plan.window * plan.stride, np.float32)

    def add(self, features_swc: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take the next group's clips, give the rows that became final.

        Args:
            features_swc: (S, W, C) float32, the backbone's rows of the group's clips.

        Returns:
            (n, C) float32, n >= 0: the next rows of the video, in order.
        """
        plan, group = self._plan, self._next_group
        rows_rc = features_swc.swapaxes(0, 1).reshape(plan.window * plan.stride, -1)  # step-major = frame order
        weight_r = np.repeat(plan.weights(group), plan.stride)
        if self._sum_rc is None:
            self._sum_rc = np.zeros(rows_rc.shape, np.float32)
        self._sum_rc += rows_rc * weight_r[:, None]
        self._weight_r += weight_r
        self._next_group += 1
        return self._take(plan.rows_done_after(group))

    def _take(self, stop_row: int) -> npt.NDArray[np.float32]:
        """Rows up to `stop_row`, divided by their weights; the accumulators move on to the next group's start."""
        assert self._sum_rc is not None
        first, last = self._next_row - self._base, max(stop_row, self._next_row) - self._base
        done = self._sum_rc[first:last] / self._weight_r[first:last, None]
        shift = self._plan.hop * self._plan.stride
        self._sum_rc = np.concatenate([self._sum_rc[shift:], np.zeros_like(self._sum_rc[:shift])])
        self._weight_r = np.concatenate([self._weight_r[shift:], np.zeros(shift, np.float32)])
        self._base += shift
        self._next_row = max(stop_row, self._next_row)
        return done
