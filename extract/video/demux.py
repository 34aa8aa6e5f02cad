"""Opens video files and reads their packets: the header, and the time table without decoding a picture."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container.input import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ...errors import InputError, cure_for
from .timetable import UNKNOWN_TICKS, Int64s, TimeTable, fill_times

_ZERO_IS_ZERO = frozenset({"mov", "mp4", "matroska", "webm"})
"""Formats whose own time line starts at 0, whatever the first frame's time."""
_NO_OWN_TIMES = frozenset({"avi"})
"""Formats that store no presentation time: each chunk, also an empty one, is one frame long. What is made up for them
is wrong where frames are reordered."""
_TIMES_SLIP = frozenset({"avi", "mpeg"})
"""Formats in which the times made up after a seek are not those of reading from the start: AVI where the index leaves
empty chunks out, program streams where a packet begins amid a frame."""
_CHUNK_BYTES = 8
"""Bytes of an empty AVI chunk, and of the head of any."""
_STILL_BRANDS = frozenset({"avif", "heic", "heix", "heim", "heis", "mif1"})
"""What mp4-like files of one picture call themselves."""
_STILL_FORMATS = frozenset({"image2", "ico"})
_MAX_READ_ERRORS = 1000
_CLOCK = re.compile(r"([0-9]{1,18}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,18})?)")
"""`HH:MM:SS.fraction`, as Matroska's DURATION tag has it."""


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """The file and the video stream that a player takes. The caller closes the container.

    Raises:
        InputError: no such file, no permission, a folder, empty, not a video, a still picture, index lost, no video
            stream.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder", wanted="a video file", cure="name the video inside it")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: is empty", got="0 bytes", wanted="a video file", cure="fetch it again")
        container = av.open(str(path), mode="r", metadata_errors="replace")
    except (OSError, MemoryError) as error:  # PyAV's own kinds of them too; its other errors are about the content
        reason, cure = getattr(error, "strerror", None) or "no memory left", "check the name and permission"
        cure = (
            cure_for(error, cure) if isinstance(error, OSError) else "use less memory: fewer --jobs, --decode-threads"
        )
        raise InputError(f"{path}: cannot be read", got=reason, cure=cure) from None
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: not a video that can be read, or its index (the mp4 `moov` part, written last) is lost",
            got=error.strerror,
            wanted="a video file such as mp4, mov, mkv, webm, ts or avi",
            cure="fetch the file again; a recording that was cut off needs its index rebuilt (untrunc does it)",
        ) from None
    streams = video_streams(container)
    if streams and not _is_still(container):
        return container, streams[0]
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    container.close()
    if streams:
        got = f"a still picture ({streams[0].codec_context.name})"
        raise InputError(f"{path}: is not a video", got=got, wanted="a video file", cure="name another file")
    raise InputError(f"{path}: holds no video stream", got=kinds, wanted="a video stream", cure="name another file")


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Video streams without cover pictures, that which a player takes first: the default, of several the largest."""
    real = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None
    ]
    return sorted(
        real, key=lambda each: (not each.disposition & av.stream.Disposition.default, -each.width * each.height)
    )


def _is_still(container: InputContainer) -> bool:
    """Whether the file is of a format for one picture, such as JPEG or PNG."""
    name = container.format.name
    return (
        name in _STILL_FORMATS
        or name.endswith("_pipe")
        or container.metadata.get("major_brand", "").strip() in _STILL_BRANDS
    )


def read_packets(container: InputContainer, stream: VideoStream) -> "Iterator[Packet[VideoStream]]":
    """Packets from where the container stands to its end, past read errors; without the empty flush packet."""
    for _ in range(_MAX_READ_ERRORS):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except av.error.EOFError:
            return
        except MemoryError:
            raise
        except av.error.FFmpegError:
            continue
        return


def decoded(codec: VideoCodecContext, packet: "Packet[VideoStream] | None") -> list[VideoFrame] | None:
    """Frames that the decoder puts out for a packet (None: what it holds back); None where the packet is damaged."""
    try:
        return codec.decode(packet)
    except MemoryError:  # one of PyAV's errors, too, and no damage
        raise
    except av.error.FFmpegError:
        return None


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """A file and when each of its frames is on screen."""

    path: Path
    table: TimeTable
    entry_at: Int64s
    """(P,) table index of the frame of each packet, in file order; -1 for a packet without one."""
    place_of: Mapping[tuple[int, int], int] | None = None
    """(byte position, size) -> place of the packet in the file. None: packets are told apart by their own times."""
    by_rate: bool = False
    """No packet carries a time: frames are laid out at a constant rate."""

    def entry(self, pts_ticks: int | None) -> int:
        """Table index of the frame that starts at a time, -1 where there is none."""
        if pts_ticks is None:
            return -1
        times = self.table.pts_ticks.data
        place = bisect_left(times, pts_ticks)
        return place if place < len(times) and times[place] == pts_ticks else -1

    def numbered(
        self, packets: "Iterator[Packet[VideoStream]]", *, from_start: bool
    ) -> "Iterator[tuple[int, int, Packet[VideoStream]]]":
        """(place in the file, table index or -1, packet); the packet's time is that of the table from here on.

        Packets without a time of their own are counted from the one before. After a seek, those in front of the first
        that is known are left out.
        """
        place = -1 if from_start else None
        for packet in packets:
            entry = -1 if self.place_of is not None else self.entry(packet.pts)
            known = (
                self.table.rank.data[entry]
                if entry >= 0
                else (self.place_of or {}).get((packet.pos or -1, packet.size))
            )
            if known is None and place is None:
                continue
            if entry >= 0 and self.table.is_key[entry] and not packet.is_keyframe:
                continue  # at the time of a key frame, which counts, and decoded alone an error
            place = place + 1 if known is None else known  # type: ignore[operator]  # one of them is known
            if packet.pts is None or self.place_of is not None:
                entry = int(self.entry_at[place]) if place < len(self.entry_at) else -1
                packet.pts = self.table.pts_ticks.data[entry] if entry >= 0 else None
            yield place, entry, packet


_PACKET = np.dtype(
    [
        *((name, "i8") for name in ("pts_ticks", "dts_ticks", "duration_ticks", "position", "num_bytes")),
        *((name, "?") for name in ("is_key", "is_shown")),
    ]
)
"""A row of the packet list; machine numbers, since a long video has many."""


def read_index(path: Path) -> VideoIndex:
    """Read all packets of the file into a time table; decodes it only where frames are reordered and lack times.

    Raises:
        InputError: as `open_container`; no frame at all.
    """
    container, stream = open_container(path)
    with container:
        rows = (
            (
                UNKNOWN_TICKS if packet.pts is None else packet.pts,
                UNKNOWN_TICKS if packet.dts is None else packet.dts,
                packet.duration or 0,
                -1 if packet.pos is None else packet.pos,
                packet.size,
                packet.is_keyframe,
                not packet.is_discard,
            )
            for packet in read_packets(container, stream)
        )
        packets = np.fromiter(rows, _PACKET)  # (P,) in file order
        if not packets.size:
            raise InputError(f"{path}: the video stream holds no frame", got="no packet", cure="fetch the file again")
        formats = set(container.format.name.split(","))
        has_own_times = not _NO_OWN_TIMES & formats
        by_rate = False
        place_of: dict[tuple[int, int], int] | None = None
        if not has_own_times or UNKNOWN_TICKS in packets["pts_ticks"]:
            by_rate = _fill(packets, path, stream, has_own_times=has_own_times)
        if _TIMES_SLIP & formats:
            keys = packets[["position", "num_bytes"]].tolist()
            place_of = {key: place for place, key in enumerate(keys) if key[0] >= 0}
        table = _table_of(container, stream, packets, path, by_rate=by_rate)
    entry_at = np.full(len(packets), -1, np.int64)
    entry_at[table.rank] = np.arange(table.num_frames)
    return VideoIndex(path=path, table=table, entry_at=entry_at, place_of=place_of, by_rate=by_rate)


def _fill(packets: npt.NDArray[np.void], path: Path, stream: VideoStream, *, has_own_times: bool) -> bool:
    """Give a time to each packet that lacks one; whether none has any, so that all are laid out by the rate."""
    pts_ticks, dts_ticks = packets["pts_ticks"], packets["dts_ticks"]
    if not has_own_times:
        pts_ticks = np.full_like(pts_ticks, UNKNOWN_TICKS)
    is_plain = not stream.codec_context.has_b_frames and bool((dts_ticks != UNKNOWN_TICKS).all())
    order = np.arange(len(pts_ticks)) if is_plain else _presentation_order(path)
    filled = fill_times(pts_ticks, dts_ticks, order, frame_ticks=1 / (own_rate(stream) * _time_base(stream)))
    by_rate = bool((pts_ticks == UNKNOWN_TICKS).all() and (dts_ticks == UNKNOWN_TICKS).all())
    packets["pts_ticks"] = filled
    packets["is_shown"] &= filled != UNKNOWN_TICKS
    if by_rate:  # nothing tells where in the file a seek has led: one group, decoded from its start
        packets["is_key"] = False
    return by_rate


def _presentation_order(path: Path) -> Int64s:
    """(S,) places in the file of the packets whose frames come out of the decoder, which puts them in order."""
    container, stream = open_container(path)
    order = array("q")
    with container:
        places = count()
        for packet in chain(read_packets(container, stream), [None]):
            if packet is not None:
                packet.pts = next(places)
            frames = decoded(stream.codec_context, packet) or ()
            order.extend(frame.pts for frame in frames if frame.pts is not None)
    return np.frombuffer(order, dtype=np.int64)


def _table_of(
    container: InputContainer, stream: VideoStream, packets: npt.NDArray[np.void], path: Path, *, by_rate: bool
) -> TimeTable:
    time_base = _time_base(stream)
    pts_ticks, duration_ticks = packets["pts_ticks"], packets["duration_ticks"]
    first_ticks = int(pts_ticks.min(where=pts_ticks != UNKNOWN_TICKS, initial=2**62))
    is_whole_avi = container.format.name == "avi" and _is_whole_riff(path)
    if is_whole_avi:  # empty chunks at the end: the last picture stays
        end_ticks = (stream.start_time or 0) + min(stream.duration or 0, path.stat().st_size // _CHUNK_BYTES)
        last = int(pts_ticks.argmax())
        duration_ticks[last] = max(duration_ticks[last], end_ticks - pts_ticks[last])
    return TimeTable.from_packets(
        pts_ticks=pts_ticks,
        is_key=packets["is_key"],
        is_shown=packets["is_shown"],
        duration_ticks=duration_ticks,
        time_base=time_base,
        rate=own_rate(stream),
        origin_ticks=0 if by_rate else min(origin_ticks(container, stream), max(0, first_ticks)),
        header_end_ticks=0 if is_whole_avi else _promised_end(container, stream, num_packets=len(packets)),
    )


def _is_whole_riff(path: Path) -> bool:
    """Whether a file of RIFF parts, such as AVI, is as long as their headers say."""
    num_bytes, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while start < num_bytes:
            file.seek(start)
            head = file.read(_CHUNK_BYTES)
            size = int.from_bytes(head[4:], "little")
            if head[:4] != b"RIFF" or not size:
                return start > 0 and size > 0
            start += _CHUNK_BYTES + size + size % 2
    return start <= num_bytes + 1


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
        raise InputError(f"{path}: cannot be read", got=error.strerror, cure=cure_for(error, cure)) from error


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
