"""When each frame of a video is on screen, and which one a constant grid shows: pure arrays, exact arithmetic."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
import numpy.typing as npt

from ...errors import InputError

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
UNKNOWN_TICKS = -(2**63)
"""In the place of a time that a packet does not carry."""
_FAR_TICKS = 2**62
_MAX_REORDER_FRAMES = 16
_MAX_STEPS, _MAX_STEPS_PER_FRAME = 10_000_000, 100
"""A grid of more steps than both (111 hours at 25 fps) comes from a damaged header, and would fill the memory."""


@dataclass(frozen=True, kw_only=True)
class TimeTable:
    """Presentation times of the N frames of a video, without any picture: about 30 bytes a frame."""

    time_base: Fraction
    """Seconds per tick."""
    rate: Fraction
    """The video's own rate in frames per second, as its header gives it."""
    origin_ticks: int
    """What counts as time 0: 0 for mp4, mov and matroska, the container's start for MPEG-TS and its kin."""
    pts_ticks: Int64s
    """(N,) strictly rising: start of each frame."""
    rank: Int64s
    """(N,) place of each frame's packet in the file, that is in decoding order."""
    is_key: Bools
    """(N,) the packet is flagged as a key frame."""
    end_ticks: int
    """End of the last frame."""
    header_end_ticks: int
    """End of the video as its header promises it; larger than `end_ticks` where the file is cut short."""

    @classmethod
    def from_packets(
        cls,
        *,
        pts_ticks: Int64s,
        is_key: Bools,
        is_shown: Bools,
        duration_ticks: Int64s,
        time_base: Fraction,
        rate: Fraction,
        origin_ticks: int,
        header_end_ticks: int = 0,
    ) -> Self:
        """Sort the P packets of a file, given in file order, by presentation time.

        Args:
            pts_ticks: (P,). Of several packets with one time a key frame counts (recordings that are joined overlap by
                a frame), else the first.
            is_key: (P,).
            is_shown: (P,) False for packets that an edit list hides.
            duration_ticks: (P,), 0 where not known.
            time_base, rate, origin_ticks: see the fields.
            header_end_ticks: what the header promises of a file that is cut short, else 0. The last frames of such a
                file are left out from the first that was torn from its neighbours by reordering.

        Raises:
            InputError: no packet is shown.
        """
        rank = np.flatnonzero(is_shown)
        if not rank.size:
            raise InputError("the video stream holds no frame", got="no packet to show", cure="fetch the file again")
        rank = rank[np.lexsort((~is_key[rank], pts_ticks[rank]))]  # stable: else in file order
        pts, first = np.unique(pts_ticks[rank], return_index=True)
        rank = rank[first]
        last_duration = int(duration_ticks[rank[-1]]) or max(1, round(1 / (rate * time_base)))
        if header_end_ticks > int(pts[-1]) + last_duration:
            whole = _num_before_torn_tail(pts, rank, frame_ticks=1 / (rate * time_base))
            pts, rank = pts[:whole], rank[:whole]
        end_ticks = int(pts[-1]) + last_duration
        return cls(
            time_base=time_base,
            rate=rate,
            origin_ticks=origin_ticks,
            pts_ticks=pts,
            rank=rank.astype(np.int64),
            is_key=is_key[rank],
            end_ticks=end_ticks,
            header_end_ticks=max(end_ticks, header_end_ticks),
        )

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.pts_ticks)


def _num_before_torn_tail(pts_ticks: Int64s, rank: Int64s, *, frame_ticks: Fraction) -> int:
    """Frames before the first hole among the last 16: at a cut, frames that are shown earlier may come later, where
    frames are reordered at all."""
    if (np.diff(rank) > 0).all():
        return len(pts_ticks)
    start = max(0, len(pts_ticks) - _MAX_REORDER_FRAMES)
    holes = np.flatnonzero(np.diff(pts_ticks[start:]) > float(frame_ticks * Fraction(3, 2)))
    return start + int(holes[0]) + 1 if holes.size else len(pts_ticks)


def fill_times(pts_ticks: Int64s, dts_ticks: Int64s, order: Int64s, *, frame_ticks: Fraction) -> Int64s:
    """Give a presentation time to the packets that lack one; the others keep theirs.

    Decoding times rise in file order, and are the presentation times, in order, moved by a constant delay: so the i-th
    frame shown has the (i + d)-th decoding time, with d the number of frames that reordering needs ahead, as far as
    that falls between its neighbours. What is left follows the frame before at the video's rate.

    Args:
        pts_ticks: (P,) presentation times in file order, `UNKNOWN_TICKS` where one is missing.
        dts_ticks: (P,) decoding times, likewise.
        order: (S,) places in the file of the frames that are shown, in the order in which they are.
        frame_ticks: length of a frame.

    Returns:
        (P,) times; still `UNKNOWN_TICKS` for packets that are not in `order`.
    """
    if not order.size:
        return pts_ticks
    times, decoded = pts_ticks[order], np.sort(order)
    num_ahead = max(0, int((np.searchsorted(decoded, order) - np.arange(len(order))).max()))
    dts = np.full(len(order), UNKNOWN_TICKS)
    dts[: len(order) - num_ahead] = dts_ticks[decoded[num_ahead:]]
    measured = np.flatnonzero((times != UNKNOWN_TICKS) & (dts != UNKNOWN_TICKS))
    # without any presentation time the first frame is shown at once
    delay = int(times[measured[0]] - dts[measured[0]]) if measured.size else int(dts_ticks[decoded[0]] - dts[0])
    last = -1
    for known in [*np.flatnonzero(times != UNKNOWN_TICKS).tolist(), len(order)]:
        if last >= 0 and dts[last] != UNKNOWN_TICKS:
            delay = int(times[last] - dts[last])
        if known > last + 1:
            _fill_run(times, dts, last, known, delay_ticks=delay, frame_ticks=frame_ticks)
        last = known
    filled = pts_ticks.copy()
    filled[order] = times
    return filled


def _fill_run(times: Int64s, dts: Int64s, before: int, after: int, *, delay_ticks: int, frame_ticks: Fraction) -> None:
    """Fill the unknown `times` between two known ones (-1 and the number of times: none on that side), in order."""
    end = int(times[after]) if after < len(times) else _FAR_TICKS
    previous = int(times[before]) if before >= 0 else -_FAR_TICKS
    for index in range(before + 1, after):
        num_left = after - index
        if previous > -_FAR_TICKS:
            by_rate = previous + min(frame_ticks, Fraction(end - previous, num_left + 1))
        else:
            by_rate = end - num_left * frame_ticks if end < _FAR_TICKS else Fraction(0)
        guess = int(dts[index]) + delay_ticks
        is_possible = dts[index] != UNKNOWN_TICKS and previous < guess <= end - num_left
        previous = guess if is_possible else max(previous + 1, round(by_rate))
        times[index] = previous


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Which frame is on screen at each of T steps of a constant rate."""

    fps: Fraction
    """Steps per second."""
    frame_of_step: Int64s
    """(T,) index into the time table, never falling; -1 before the first frame."""
    is_covered: Bools
    """(T,) False before the first frame and past the end of a file that was cut short; True in a gap."""
    pts_ticks: Int64s
    """(T,) start of the frame on screen; that of the first frame before it."""
    time_base: Fraction
    """Seconds per tick."""

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.frame_of_step)


def plan_grid(table: TimeTable, fps: Fraction | None) -> FrameGrid:
    """Lay a constant grid over the table: step t shows the last frame with pts <= t / fps.

    Times are compared with a tolerance of half a tick (a quarter of a step at most), so that times that a container has
    rounded, such as matroska's milliseconds at 24000/1001, do not slip by one frame. T covers time 0 to the end of the
    last frame, or to the end that the header promises.

    Args:
        table: the video's frames.
        fps: steps per second; None for the video's own rate.

    Raises:
        InputError: the rate is not positive, the video ends before time 0, or its times are not believable.
    """
    fps = table.rate if fps is None else fps
    if fps <= 0:
        raise InputError("frame rate is not usable", got=fps, wanted="a positive fraction, such as 25 or 30000/1001")
    step_ticks = 1 / (fps * table.time_base)
    slack_ticks = min(Fraction(1, 2), step_ticks / 4)
    num_steps = _steps_before(table.header_end_ticks - table.origin_ticks, step_ticks)
    if num_steps <= 0:
        raise InputError("the video ends before its own time 0", got=f"{num_steps} steps", cure="remux the file")
    if num_steps > max(_MAX_STEPS, _MAX_STEPS_PER_FRAME * table.num_frames):
        raise InputError(
            "the video's header or times are not believable",
            got=f"{table.num_frames:,} frames for {float(num_steps / fps) / 3600:,.0f} hours",
            wanted=f"at most {_MAX_STEPS:,} steps, or {_MAX_STEPS_PER_FRAME} steps per frame",
            cure="remux the file (ffmpeg -i FILE -c copy NEW.mkv), which writes its length anew",
        )
    latest_ticks = _floor_line(num_steps, step_ticks, slack_ticks) + table.origin_ticks
    frame_of_step = np.searchsorted(table.pts_ticks, latest_ticks, side="right").astype(np.int64) - 1
    steps_with_data = _steps_before(table.end_ticks - table.origin_ticks, step_ticks)
    return FrameGrid(
        fps=fps,
        frame_of_step=frame_of_step,
        is_covered=(frame_of_step >= 0) & (np.arange(num_steps) < steps_with_data),
        pts_ticks=table.pts_ticks[np.maximum(frame_of_step, 0)],
        time_base=table.time_base,
    )


def _steps_before(end_ticks: int, step_ticks: Fraction) -> int:
    """Number of steps that start before the end; rounded ends (1.5 ticks, a quarter of a step at most) add none."""
    exact = (end_ticks - min(Fraction(3, 2), step_ticks / 4)) / step_ticks
    return -(-exact.numerator // exact.denominator)


def _floor_line(num_steps: int, slope: Fraction, offset: Fraction) -> Int64s:
    """(num_steps,) floor(t * slope + offset), exact for any size of numbers."""
    denominator = slope.denominator * offset.denominator
    step, start = slope.numerator * offset.denominator, offset.numerator * slope.denominator
    if num_steps * step + start < 2**62:
        return (np.arange(num_steps, dtype=np.int64) * step + start) // denominator
    return np.array([(t * step + start) // denominator for t in range(num_steps)], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """The groups of pictures of a table: where decoding can start, and what depends on what."""

    starts: Int64s
    """(G,) table index of the first frame of each group; 0 first."""
    group_of: Int64s
    """(N,) the group whose packets hold the frame, in decoding order."""
    is_leading: Bools
    """(N,) shown before its group's key frame (open groups), so it needs the group before, too."""
    settled_by: Int64s
    """(N,) the largest table index among the packets up to this one: all that it can be built on has been
    output, or is lost, once the decoder has output that frame."""

    @classmethod
    def of(cls, table: TimeTable) -> Self:
        """Split at each key frame after which nothing is shown that was decoded before it."""
        lowest_rank_from_here = np.minimum.accumulate(table.rank[::-1])[::-1]
        is_start = table.is_key & (lowest_rank_from_here == table.rank)
        is_start[0] = True
        starts = np.flatnonzero(is_start)
        group_of = np.maximum(np.searchsorted(table.rank[starts], table.rank, side="right") - 1, 0)
        order = np.argsort(table.rank)
        settled_by = np.empty_like(table.rank)
        settled_by[order] = np.maximum.accumulate(order)
        return cls(
            starts=starts.astype(np.int64),
            group_of=group_of.astype(np.int64),
            is_leading=np.arange(table.num_frames) < starts[group_of],
            settled_by=settled_by,
        )


def require_few_bad(num_bad: int, num_steps: int, *, max_bad_share: float, what: str) -> None:
    """Refuse a video of which too much is missing or damaged.

    Args:
        num_bad: steps without a picture of their own.
        num_steps: T, >= 1.
        max_bad_share: 0 to 1.
        what: the video's name.

    Raises:
        InputError: more steps are bad than allowed.
    """
    share = num_bad / num_steps
    if share > max_bad_share:
        raise InputError(
            f"{what}: too many frames are missing or damaged",
            got=f"{num_bad} of {num_steps} steps ({share:.2%})",
            wanted=f"at most {max_bad_share:.2%}",
            cure=f"fetch the file again, or allow it with --max-bad-share {min(1.0, -(-share * 1000 // 1) / 1000):g}",
        )
