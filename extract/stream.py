"""Video to feature rows in one streaming pass: decode -> backbone -> blend, each stage overlapped.

The engine takes each frame once, and beside it tables of which frames make a clip; copies are its own business.
Memory does not depend on the video's length: the frames of a few calls, one window of sums.
Letters: S phases, W window steps, C channels, G groups in one call of the engine.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from .engines.choose import Engine
from .engines.pytorch import PendingRows
from .options import View
from .video.decode import Prefetch
from .video.picture import Pixels
from .video.reader import GridFrame, Video
from .windows import Blender, WindowPlan

T = TypeVar("T")
_FRAMES_PER_BLOCK = 16
_BLOCKS_AHEAD = 8
_CALLS_AHEAD = 2
"""Calls that have begun, or wait for their turn, while the rows of an older one are waited for."""


@dataclass
class Waits:
    """Seconds in which the pipeline stood still, by the stage that it waited for."""

    decode_seconds: float = 0.0
    backbone_seconds: float = 0.0

    @property
    def bottleneck(self) -> Literal["decode", "backbone"]:
        """The stage that was waited for most."""
        return "decode" if self.decode_seconds > self.backbone_seconds else "backbone"


@dataclass(frozen=True)
class RowBlock:
    """Rows that became final together."""

    start: int
    """Index of the first row in the video."""
    rows: Mapping[str, npt.NDArray[np.float32]]
    """View -> (n, C) float32."""
    valid: npt.NDArray[np.bool_]
    """(n,): False where the step's own frame could not be decoded."""


def stream_rows(
    video: Video,
    plan: WindowPlan,
    engine: Engine,
    *,
    views: Sequence[View] = ("identity",),
    first_row: int = 0,
    groups_per_call: int = 1,
    waits: Waits | None = None,
) -> Generator[RowBlock]:
    """Feature rows of a video from `first_row` on, in order.

    Args:
        video: opened with the grid that `plan` is for.
        plan: decides which clips a row is computed in; a row's bits depend on it and the engine alone.
        engine: the backbone.
        views: fixed augmentations; each costs one more pass through the backbone.
        first_row: 0..T-1; decoding starts at the first frame that this row needs.
        groups_per_call: G, groups of clips in one call of the engine, >= 1.
        waits: filled while the rows come, where given.
    """
    waits = waits or Waits()
    blenders = {view: Blender(plan, first_row=first_row) for view in views}
    valid_t = np.zeros(plan.num_frames, bool)
    next_row = first_row
    first_group = plan.first_group(first_row)
    pending: deque[Future[PendingRows]] = deque()

    def finish() -> RowBlock:
        nonlocal next_row
        started = time.perf_counter()
        features = pending.popleft().result()()  # view -> (G * S, W, C)
        waits.backbone_seconds += time.perf_counter() - started
        rows: dict[str, npt.NDArray[np.float32]] = {}
        for view in views:
            groups_gswc = np.split(features[view], len(features[view]) // plan.stride)
            rows[view] = np.concatenate([blenders[view].add(group) for group in groups_gswc])
        block = RowBlock(next_row, rows, valid_t[next_row : next_row + len(rows[views[0]])])
        next_row += len(block.valid)
        return block

    start_frame = first_group * plan.hop * plan.stride
    with (
        closing(video.frames(start_frame)) as frames,
        # frames in lists, so that threads meet less often
        closing(Prefetch(iter(lambda: list(islice(frames, _FRAMES_PER_BLOCK)), []), depth=_BLOCKS_AHEAD)) as decoded,
        _one_thread() as device,
    ):
        feed, calls = engine.feed(), _calls(decoded, plan, first_group, groups_per_call, valid_t)
        while (call := _timed_next(calls, waits)) is not None:
            pending.append(device.submit(feed, *call, views))
            if len(pending) > _CALLS_AHEAD:
                yield finish()
        while pending:
            yield finish()


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that drops, at the end, what it has not begun: an interrupted run waits for one call, not for all."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _timed_next(items: Iterator[T], waits: Waits) -> T | None:
    started = time.perf_counter()
    item = next(items, None)
    waits.decode_seconds += time.perf_counter() - started
    return item


def _calls(
    decoded: Iterable[list[GridFrame]],
    plan: WindowPlan,
    first_group: int,
    groups_per_call: int,
    valid_t: npt.NDArray[np.bool_],
) -> Iterator[tuple[list[Pixels], npt.NDArray[np.int64]]]:
    """For each G groups: the frames that they need and those before did not, and the frames of their clips, counted
    from the first one, (G * S, W); fills `valid_t` as frames come."""
    frames = chain.from_iterable(decoded)
    num_read = first_frame = first_group * plan.hop * plan.stride
    for start in range(first_group, plan.num_groups, groups_per_call):
        groups = range(start, min(start + groups_per_call, plan.num_groups))
        needed = plan.group_span(groups[-1])[1]
        images = []
        for frame in islice(frames, needed - num_read):
            valid_t[frame.step] = frame.valid
            images.append(frame.image)
        num_read = needed
        yield images, np.concatenate([plan.group_frames(group) for group in groups]) - first_frame
