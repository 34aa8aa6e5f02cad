"""Video to feature rows in one streaming pass: decode -> clips -> backbone -> blend, each stage overlapped.

Memory does not depend on the video's length: a few hundred frames, a few batches of clips, one window of sums.
Letters: S phases, W window steps, H x W_px pixels, C channels, G groups in one call of the engine.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .engines.choose import Engine
from .options import VIEWS, View
from .video.reader import GridFrame, Video
from .windows import Blender, WindowPlan

T = TypeVar("T")
_FRAMES_PER_BLOCK = 16
_BLOCKS_AHEAD = 8


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


class Prefetch(Generic[T]):
    """Runs an iterator in a thread, at most `depth` items ahead. Errors come out where the item would have."""

    def __init__(self, source: Iterable[T], *, depth: int) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # no error: an item

    def _run(self, source: Iterable[T]) -> None:
        try:
            for item in source:
                if not self._put((item, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # handed to the reader
            self._put((None, error))

    def _put(self, entry: tuple[T | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


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
    pending: deque[Future[dict[View, npt.NDArray[np.float32]]]] = deque()

    def finish() -> RowBlock:
        nonlocal next_row
        started = time.perf_counter()
        features = pending.popleft().result()  # view -> (G, S, W, C)
        waits.backbone_seconds += time.perf_counter() - started
        rows: dict[str, npt.NDArray[np.float32]] = {
            view: np.concatenate([blenders[view].add(group) for group in features[view]]) for view in views
        }
        block = RowBlock(next_row, rows, valid_t[next_row : next_row + len(rows[views[0]])])
        next_row += len(block.valid)
        return block

    start_frame = first_group * plan.hop * plan.stride
    with (
        Prefetch(_blocks(video.frames(start_frame)), depth=_BLOCKS_AHEAD) as decoded,
        Prefetch(_clip_batches(decoded, plan, first_group, groups_per_call, valid_t), depth=1) as batches,
        _one_thread() as device,
    ):
        clips = iter(batches)
        while (batch := _timed_next(clips, waits)) is not None:
            pending.append(device.submit(_run_views, engine, batch, views))
            if len(pending) > 1:
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


def _run_views(
    engine: Engine, clips: npt.NDArray[np.uint8], views: Sequence[View]
) -> dict[View, npt.NDArray[np.float32]]:
    """Clips (G, S, W, H, W_px, 3) -> view -> features (G, S, W, C)."""
    groups, phases = clips.shape[:2]
    flat = clips.reshape(groups * phases, *clips.shape[2:])
    return {view: engine(VIEWS[view](flat)).reshape(groups, phases, clips.shape[2], -1) for view in views}


def _blocks(frames: Iterator[GridFrame]) -> Iterator[list[GridFrame]]:
    """Frames in lists, so that threads meet less often."""
    block: list[GridFrame] = []
    for frame in frames:
        block.append(frame)
        if len(block) == _FRAMES_PER_BLOCK:
            yield block
            block = []
    if block:
        yield block


@dataclass
class _Recent:
    """The frames that clips still need: pictures of `base`, `base + 1`, ..."""

    base: int
    images: deque[npt.NDArray[np.uint8]] = field(default_factory=deque)

    def forget_before(self, frame: int) -> None:
        while self.base < frame and self.images:
            self.images.popleft()
            self.base += 1


def _clip_batches(
    decoded: Iterable[list[GridFrame]],
    plan: WindowPlan,
    first_group: int,
    groups_per_call: int,
    valid_t: npt.NDArray[np.bool_],
) -> Iterator[npt.NDArray[np.uint8]]:
    """Clips of up to G groups at a time: (G, S, W, H, W_px, 3) uint8; fills `valid_t` as frames come."""
    recent = _Recent(first_group * plan.hop * plan.stride)
    blocks = iter(decoded)
    for start in range(first_group, plan.num_groups, groups_per_call):
        groups = range(start, min(start + groups_per_call, plan.num_groups))
        needed = plan.group_span(groups[-1])[1]
        while recent.base + len(recent.images) < needed:
            for frame in next(blocks):
                valid_t[frame.step] = frame.valid
                recent.images.append(frame.image)
        recent.forget_before(plan.group_span(groups[0])[0])
        frames_gsw = np.stack([plan.group_frames(group) for group in groups])
        images = list(recent.images)
        clips = np.stack([images[frame - recent.base] for frame in frames_gsw.ravel()])
        yield clips.reshape(*frames_gsw.shape, *clips.shape[1:])
