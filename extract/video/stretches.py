"""Runs the decoders of several stretches of a video side by side and puts their pictures back in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from .decode import Decoder
from .picture import Pixels
from .timetable import Int64s

_QUEUE_BYTES = 64 * 2**20
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Stretch:
    """A run of whole groups of pictures, and which of its frames are wanted."""

    first: int
    last: int
    wanted: Int64s


@dataclass
class _Lane:
    """One stretch being decoded: a bounded queue of pictures, None at its end."""

    pictures: "queue.Queue[tuple[int, Pixels] | None]"
    future: "Future[None]" = field(init=False)


def run_stretches(
    stretches: Sequence[Stretch], make_decoder: Callable[[], Decoder], *, threads: int, picture_bytes: int
) -> Iterator[tuple[int, Pixels]]:
    """(table index, picture) of all stretches, in order.

    At most `threads` stretches are under way, each at most 64 MiB of pictures (8 at least) ahead of the reader.
    """
    if threads == 1 or len(stretches) == 1:
        with make_decoder() as decoder:
            for stretch in stretches:
                yield from decoder.pictures(stretch.first, stretch.last, stretch.wanted)
        return
    capacity = max(8, _QUEUE_BYTES // picture_bytes)
    stop = threading.Event()
    with ExitStack() as stack:
        idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for _ in range(min(threads, len(stretches))):
            idle.put(stack.enter_context(make_decoder()))
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="bas-decode"))
        stack.callback(stop.set)
        lanes: deque[_Lane] = deque()
        for stretch in stretches:
            lane = _Lane(queue.Queue(capacity))
            lane.future = pool.submit(_fill, lane.pictures, stretch, idle, stop)
            lanes.append(lane)
            if len(lanes) == threads:
                yield from _read(lanes.popleft())
        while lanes:
            yield from _read(lanes.popleft())


def _read(lane: _Lane) -> Iterator[tuple[int, Pixels]]:
    while (item := lane.pictures.get()) is not None:
        yield item
    lane.future.result()


def _fill(
    pictures: "queue.Queue[tuple[int, Pixels] | None]",
    stretch: Stretch,
    idle: "queue.SimpleQueue[Decoder]",
    stop: threading.Event,
) -> None:
    decoder = idle.get()
    try:
        for picture in decoder.pictures(stretch.first, stretch.last, stretch.wanted):
            if not _put(pictures, picture, stop):
                return
    finally:
        idle.put(decoder)
        _put(pictures, None, stop)


def _put(
    pictures: "queue.Queue[tuple[int, Pixels] | None]", item: tuple[int, Pixels] | None, stop: threading.Event
) -> bool:
    """Wait for room; False once nobody reads any more."""
    while not stop.is_set():
        try:
            pictures.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False
