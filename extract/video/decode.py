"""Decodes a stretch of a video packet by packet and lets only sound frames through.

What a damaged packet does (measured on H.264, see `Video.frames`): the decoder throws an error, or marks a frame as
corrupt, or leaves one out; and the frames built on it come out smeared without any mark, up to the next key frame.
So the first sign in a group of pictures ends it: every frame decoded after that point up to the next key frame is
dropped, and so are the next group's leading frames. Each decoder has one thread: threads inside the decoder report an
error for a later packet, and lose 2 of 31 marks at random. So what is dropped depends on the packets from the key
frame on, and on nothing else.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Generic, Protocol, Self, TypeVar

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .demux import VideoIndex, decoded, open_container, pixel_aspect, read_packets
from .picture import PictureFormat, PictureMaker, Pixels
from .timetable import GroupPlan, Int64s

Item = TypeVar("Item")
_NEVER = 2**62
_STRICTNESS: dict[str, dict[str, str]] = {"h264": {}}
"""Decoder options by codec. Most mark damage only when asked to stop at it (`explode`); H.264 marks it by itself, and
would stop at sound frames, too, where decoding starts at the key frame of an open group."""


class Sieve(Generic[Item]):
    """Holds frames back until nothing they are built on can still turn out bad; drops those that are (pure).

    Frames come in presentation order, as table indices; at most as many are held as the decoder reorders.
    """

    def __init__(self, plan: GroupPlan, rank: Sequence[int], *, first: int, last: int) -> None:
        self._group_of, self._is_leading = plan.group_of.data, plan.is_leading.data
        self._settled_by = plan.settled_by.data
        self._rank = rank
        self._last = last
        self._pending: deque[tuple[int, Item]] = deque()
        self._bad_from: dict[int, int] = {}
        self._bad_leading_from: dict[int, int] = {}
        self.next_entry = first

    def lose(self, entry: int) -> None:
        """Frame `entry` is damaged or missing: with it go all of its group that were decoded later."""
        group, rank = self._group_of[entry], self._rank[entry]
        if self._is_leading[entry]:
            self._bad_leading_from[group] = min(rank, self._bad_leading_from.get(group, _NEVER))
            return
        self._bad_from[group] = min(rank, self._bad_from.get(group, _NEVER))
        self.start_afresh(group + 1)

    def start_afresh(self, group: int) -> None:
        """The group before `group` is not there, or bad: its leading frames cannot be right."""
        self._bad_leading_from[group] = -1

    def is_lost(self, group: int) -> bool:
        """True once a frame of the group, other than a leading one, is bad."""
        return group in self._bad_from

    def push(self, entry: int, item: Item, *, is_corrupt: bool) -> Iterator[tuple[int, Item]]:
        """The decoder put out frame `entry`; those skipped since the last call are missing. Yields what is now safe."""
        if entry < self.next_entry:
            return
        self._miss_until(entry)
        if is_corrupt:
            self.lose(entry)
        self.next_entry = entry + 1
        self._pending.append((entry, item))
        while self._pending and self._settled_by[self._pending[0][0]] <= entry:
            yield from self._pop()

    def settle(self, entry: int) -> Iterator[tuple[int, Item]]:
        """Nothing before `entry` will come any more. Yields what was held back."""
        self._miss_until(entry)
        self.next_entry = max(entry, self.next_entry)
        while self._pending:
            yield from self._pop()

    def _miss_until(self, entry: int) -> None:
        for missing in range(self.next_entry, min(entry, self._last)):
            self.lose(missing)

    def _pop(self) -> Iterator[tuple[int, Item]]:
        entry, item = self._pending.popleft()
        group, rank = self._group_of[entry], self._rank[entry]
        is_bad = rank >= self._bad_from.get(group, _NEVER)
        if self._is_leading[entry]:
            is_bad = is_bad or rank >= self._bad_leading_from.get(group, _NEVER)
        if not is_bad and entry < self._last:
            yield entry, item


class Decoder:
    """One open file with one decoder thread; decodes any stretch of whole groups. For one thread at a time."""

    def __init__(self, index: VideoIndex, plan: GroupPlan, picture: PictureFormat) -> None:
        self._index, self._plan = index, plan
        self._rank: memoryview = index.table.rank.data
        self._group_of: memoryview = plan.group_of.data  # gives plain integers, faster than an array
        self._open()
        self._make_picture = PictureMaker(picture, pixel_aspect=pixel_aspect(self._stream))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        self._container, self._stream = open_container(self._index.path)
        self._codec = self._stream.codec_context
        self._codec.thread_count = 1
        self._codec.options = _STRICTNESS.get(self._codec.name, {"err_detect": "explode"})

    def pictures(self, first: int, last: int, wanted: Int64s) -> Iterator[tuple[int, Pixels]]:
        """Pictures of the sound frames among `wanted`, in presentation order.

        Args:
            first: table index of a group's start.
            last: table index of a later group's start, or the number of frames.
            wanted: table indices to make pictures of.
        """
        chosen = frozenset(wanted.tolist())
        for entry, frame in self.sound_frames(first, last):
            if entry in chosen:
                yield entry, self.picture(frame)

    def picture(self, frame: VideoFrame) -> Pixels:
        """(height, width, 3) uint8 of a frame that `sound_frames` gave."""
        return self._make_picture(frame)

    def sound_frames(self, first: int, last: int) -> Generator[tuple[int, VideoFrame], None, None]:
        """(table index, frame) of the frames that are not damaged, in presentation order; not yet pictures.

        Close it to stop early; the decoder is good for another stretch after that.

        Args:
            first: table index of a group's start.
            last: table index of a later group's start, or the number of frames.
        """
        plan, sieve = self._plan, Sieve[VideoFrame](self._plan, self._rank, first=first, last=last)
        group, last_rank = int(plan.group_of[first]), max(self._rank[first:last])
        sieve.start_afresh(group)
        for _, entry, packet in self._packets_from(first):
            if entry >= 0 and self._group_of[entry] > group:
                lost, group = sieve.is_lost(group), self._group_of[entry]
                if lost:
                    yield from self._drain(sieve)
                    yield from sieve.settle(min(last, int(plan.starts[group])))
                    sieve.start_afresh(group)
            if entry >= 0 and self._rank[entry] > last_rank:
                break
            if not sieve.is_lost(group) or (entry >= 0 and plan.is_leading[entry]):
                yield from self._feed(packet, entry, sieve)
        yield from self._drain(sieve)
        yield from sieve.settle(last)

    def _feed(
        self, packet: "Packet[VideoStream]", entry: int, sieve: Sieve[VideoFrame]
    ) -> Iterator[tuple[int, VideoFrame]]:
        frames = None if packet.is_corrupt else decoded(self._codec, packet)
        if frames is None:
            sieve.lose(entry if entry >= 0 else min(sieve.next_entry, len(self._rank) - 1))
        for frame in frames or ():
            yield from self._sift(frame, sieve)

    def _drain(self, sieve: Sieve[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        """Take out what the decoder holds back for reordering, and make it ready for the next key frame."""
        for frame in decoded(self._codec, None) or ():
            yield from self._sift(frame, sieve)
        self._codec.flush_buffers()

    def _sift(self, frame: VideoFrame, sieve: Sieve[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        if (entry := self._index.entry(frame.pts)) >= 0:
            yield from sieve.push(entry, frame, is_corrupt=frame.is_corrupt)

    def _packets_from(self, first: int) -> "Iterator[tuple[int, int, Packet[VideoStream]]]":
        """(place, table index or -1, packet) from that of frame `first` on; from the file's beginning for 0."""
        if first == 0:
            yield from self._packets_after_seek(0)
            return
        for start in self._seek_candidates(first):
            packets = self._packets_after_seek(start)
            skipped = next(packets, None)
            if skipped is None or skipped[0] > self._rank[first]:
                continue
            while skipped is not None and skipped[0] < self._rank[first]:
                skipped = next(packets, None)
            if skipped is not None:
                yield skipped
                yield from packets
                return

    def _seek_candidates(self, first: int) -> Iterator[int]:
        """Table indices to aim at, ever earlier: formats without an index land where they like."""
        group, back = int(self._plan.group_of[first]), 0
        while group - back > 0:
            yield int(self._plan.starts[group - back])
            back = 2 * back + 1
        yield 0

    def _packets_after_seek(self, start: int) -> "Iterator[tuple[int, int, Packet[VideoStream]]]":
        if start == 0:
            self._container.close()  # and open it anew: the one way to the first packet that every format has
            self._open()
        else:
            if self._codec.name == "mjpeg" and not self._codec.is_open:
                # FFmpeg takes a first picture of half the header's height for a field of an interlaced one, and weaves
                # it with the next; the file's own first picture tells a decoder what it really is
                for packet in read_packets(self._container, self._stream):
                    decoded(self._codec, packet)
                    break
            try:
                self._container.seek(int(self._index.table.pts_ticks[start]), stream=self._stream, backward=True)
            except av.error.FFmpegError:
                return
        yield from self._index.numbered(read_packets(self._container, self._stream), from_start=start == 0)


_QUEUE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Stretch:
    """A run of whole groups of pictures, and which of its frames are wanted."""

    first: int
    last: int
    wanted: Int64s


class PictureDecoder(Protocol):
    """What decodes stretches: `Decoder`, or `nvdec.NvdecDecoder`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def pictures(self, first: int, last: int, wanted: Int64s) -> Iterator[tuple[int, Pixels]]:
        """See `Decoder.pictures`."""


class Prefetch(Generic[Item]):
    """Runs an iterator in a thread, at most `depth` items ahead. Errors come out where the item would have."""

    def __init__(self, source: Iterable[Item], *, depth: int) -> None:
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), name="bas-decode", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; it is not waited for."""
        self._stop.set()
        with suppress(queue.Empty):
            while True:  # the thread may stand at a full queue; after `_stop` it puts one more item at most
                self._queue.get_nowait()

    def close(self) -> None:
        """End the thread; items not yet read are lost."""
        self.stop()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # no error: an item

    def _run(self, source: Iterable[Item]) -> None:
        end: BaseException = StopIteration()
        try:
            for item in source:
                if self._stop.is_set():
                    return
                self._queue.put((item, None))
        except BaseException as error:  # handed to the reader
            end = error
        if not self._stop.is_set():
            self._queue.put((None, end))


def run_stretches(
    stretches: Sequence[Stretch], make_decoder: Callable[[], PictureDecoder], *, threads: int, picture_bytes: int
) -> Iterator[tuple[int, Pixels]]:
    """(table index, picture) of all stretches, in order.

    At most `threads` stretches are under way, each at most 64 MiB of pictures (8 at least) ahead of the reader.
    """
    with ExitStack() as stack:
        decoders = [stack.enter_context(make_decoder()) for _ in range(min(threads, len(stretches)))]
        if len(decoders) == 1:
            for stretch in stretches:
                yield from decoders[0].pictures(stretch.first, stretch.last, stretch.wanted)
            return
        depth = max(8, _QUEUE_BYTES // picture_bytes)
        under_way: deque[Prefetch[tuple[int, Pixels]]] = deque()
        try:
            # one begins when the oldest has been read to its end, and that has left its decoder to it
            for stretch, decoder in zip(stretches, cycle(decoders), strict=False):
                pictures = decoder.pictures(stretch.first, stretch.last, stretch.wanted)
                under_way.append(Prefetch(pictures, depth=depth))
                if len(under_way) == len(decoders):
                    yield from under_way[0]
                    under_way.popleft()
            while under_way:
                yield from under_way[0]
                under_way.popleft()
        finally:
            for each in under_way:
                each.stop()  # all, before the first is waited for
            for each in under_way:
                each.close()
