"""Opens video files and reads their packets: the header, and the time table without decoding a picture."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container.input import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ...errors import InputError
from .timetable import TimeTable

_ZERO_IS_ZERO = frozenset({"mov", "mp4", "matroska", "webm"})
"""Formats whose own time line starts at 0, whatever the first frame's time."""
_NO_OWN_TIMES = frozenset({"avi"})
"""Formats that store no presentation time: what is made up for them is wrong where frames are reordered."""
_MAX_READ_ERRORS = 1000
_UNKNOWN = -(2**63)
_CLOCK = re.compile(r"([0-9]{1,18}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,18})?)")
"""`HH:MM:SS.fraction`, as Matroska's DURATION tag has it."""


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """The file and its first real video stream (no cover picture). The caller closes the container.

    Raises:
        InputError: no such file, no permission, a folder, empty, not a video, index lost, no video stream.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder", wanted="a video file", cure="name the video inside it")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty", got="0 bytes", wanted="a video file", cure="fetch it again")
        container = av.open(str(path), mode="r", metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: not a video that can be read, or its index (the mp4 `moov` part, written last) is lost",
            got=error.strerror,
            wanted="a video file such as mp4, mov, mkv, webm, ts or avi",
            cure="fetch the file again; a recording that was cut off needs its index rebuilt (untrunc does it)",
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror, cure="check the name and permission") from None
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return container, stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    container.close()
    raise InputError(f"{path}: holds no video stream", got=kinds, wanted="a video stream", cure="name another file")


def read_packets(container: InputContainer, stream: VideoStream) -> "Iterator[Packet[VideoStream]]":
    """Packets from where the container stands to its end, past read errors; without the empty flush packet."""
    for _ in range(_MAX_READ_ERRORS):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            continue
        return


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """A file and when each of its frames is on screen."""

    path: Path
    table: TimeTable
    by_order: bool = False
    """Frames carry no time and are identified by counting them (bare H.264 and the like)."""

    def entry(self, pts_ticks: int | None) -> int:
        """Table index of the frame that starts at a time, -1 where there is none."""
        if pts_ticks is None:
            return -1
        times = self.table.pts_ticks.data
        place = bisect_left(times, pts_ticks)
        return place if place < len(times) and times[place] == pts_ticks else -1


@dataclass
class _Packets:
    """Columns of the packet list, in file order; machine numbers, since a long video has many."""

    pts_ticks: "array[int]" = field(default_factory=lambda: array("q"))
    dts_ticks: "array[int]" = field(default_factory=lambda: array("q"))
    duration_ticks: "array[int]" = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_shown: bytearray = field(default_factory=bytearray)


def read_index(path: Path) -> VideoIndex:
    """Read all packets of the file (no decoding, unless they carry no time) into a time table.

    Raises:
        InputError: as `open_container`; no frame at all.
    """
    container, stream = open_container(path)
    with container:
        packets = _Packets()
        for packet in read_packets(container, stream):
            packets.pts_ticks.append(_UNKNOWN if packet.pts is None else packet.pts)
            packets.dts_ticks.append(_UNKNOWN if packet.dts is None else packet.dts)
            packets.duration_ticks.append(packet.duration or 0)
            packets.is_key.append(packet.is_keyframe)
            packets.is_shown.append(not packet.is_discard)
        by_order = False
        is_untimed = stream.codec_context.has_b_frames and bool(_NO_OWN_TIMES & set(container.format.name.split(",")))
        if is_untimed or _UNKNOWN in packets.pts_ticks:
            if not stream.codec_context.has_b_frames and _UNKNOWN not in packets.dts_ticks:
                packets.pts_ticks = packets.dts_ticks
            else:
                packets, by_order = _decode_times(path), True
        table = _table_of(container, stream, packets, path, by_order=by_order)
    return VideoIndex(path=path, table=table, by_order=by_order)


def _decode_times(path: Path) -> _Packets:
    """One row per frame that decodes, evenly spaced: frame number as time (in units of one frame)."""
    container, stream = open_container(path)
    packets = _Packets()
    with container:
        frame_ticks = max(1, round(1 / (own_rate(stream) * _time_base(stream))))
        for packet in chain(read_packets(container, stream), [None]):
            try:
                num_frames = len(stream.codec_context.decode(packet))
            except av.error.FFmpegError:
                continue
            for _ in range(num_frames):
                packets.is_key.append(not packets.pts_ticks)
                packets.pts_ticks.append(len(packets.pts_ticks) * frame_ticks)
                packets.duration_ticks.append(frame_ticks)
                packets.is_shown.append(True)
    return packets


def _table_of(
    container: InputContainer, stream: VideoStream, packets: _Packets, path: Path, *, by_order: bool
) -> TimeTable:
    if not packets.pts_ticks:
        raise InputError(f"{path}: the video stream holds no frame", got="no packet", cure="fetch the file again")
    time_base = _time_base(stream)
    pts_ticks = np.frombuffer(packets.pts_ticks, dtype=np.int64)
    return TimeTable.from_packets(
        pts_ticks=pts_ticks,
        is_key=np.frombuffer(packets.is_key, dtype=np.bool_),
        is_shown=np.frombuffer(packets.is_shown, dtype=np.bool_),
        duration_ticks=np.frombuffer(packets.duration_ticks, dtype=np.int64),
        time_base=time_base,
        rate=own_rate(stream),
        origin_ticks=0 if by_order else min(origin_ticks(container, stream), max(0, int(pts_ticks.min()))),
        header_end_ticks=_promised_end(container, stream, num_packets=len(packets.pts_ticks)),
    )


def origin_ticks(container: InputContainer, stream: VideoStream) -> int:
    """What counts as time 0: that of the file's own time line, or where the file starts if its format has none."""
    if _ZERO_IS_ZERO & set(container.format.name.split(",")):
        return 0
    return round(Fraction(container.start_time or 0, av.time_base) / _time_base(stream))


def header_end_seconds(container: InputContainer, stream: VideoStream) -> Fraction:
    """End of the video after time 0 as the header gives it; 0 where it does not say."""
    time_base = _time_base(stream)
    start_ticks = (stream.start_time or 0) - origin_ticks(container, stream)
    if stream.duration:
        return (start_ticks + stream.duration) * time_base
    if container.duration:
        start_us = container.start_time or 0
        return Fraction(start_us + container.duration, av.time_base) - origin_ticks(container, stream) * time_base
    return Fraction(0)


def _promised_end(container: InputContainer, stream: VideoStream, *, num_packets: int) -> int:
    """End in ticks that the header gives, where it shows that the file is cut short; else 0.

    mp4 and mov count their frames. Matroska has a length per stream as a tag, or one for the file, which is believed
    only where the video is the only stream; a difference under a second may be rounding.
    """
    time_base = _time_base(stream)
    if stream.frames:
        is_cut = num_packets < stream.frames
        return (stream.start_time or 0) + stream.duration if is_cut and stream.duration else 0
    if "matroska" not in container.format.name:
        return 0
    seconds = _parse_clock(stream.metadata.get("DURATION", ""))
    if seconds is None and len(container.streams) == 1 and container.duration:
        seconds = Fraction(container.duration, av.time_base)
    return 0 if seconds is None else int((seconds - 1) / time_base)


def _parse_clock(text: str) -> Fraction | None:
    """Seconds from `HH:MM:SS.fraction`; None where it is something else."""
    clock = _CLOCK.fullmatch(text.strip("\0 "))
    return 3600 * int(clock[1]) + 60 * int(clock[2]) + Fraction(clock[3]) if clock else None


def own_rate(stream: VideoStream) -> Fraction:
    """The rate that the container or codec names, else the mean rate, else 25."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate and 0 < rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width over height of one pixel; 1 where the file does not say."""
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and aspect > 0 else Fraction(1)


def _time_base(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, av.time_base)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Anything that the system has against reading the file becomes an `InputError`."""
    try:
        yield
    except OSError as error:
        cure = "it was there when the run began: bring it back and run the same command again"
        raise InputError(f"{path}: cannot be read", got=error.strerror, cure=cure) from error


def file_stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file: its number, size and time of writing. InputError where it cannot be read."""
    with reading(path):
        status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def require_unchanged(path: Path, stamp: tuple[int, int, int]) -> None:
    """Refuse a file that is no longer as it was at `file_stamp`.

    Raises:
        InputError: it was written to, replaced or taken away.
    """
    if file_stamp(path) != stamp:
        cure = "run the same command again once nothing writes to it: rows of another video are begun anew"
        raise InputError(f"{path}: the video changed while it was read", cure=cure)
