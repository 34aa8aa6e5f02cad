"""What lies in a file: several streams, sizes that change, stills, missing time stamps, empty AVI chunks."""

import struct
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from bas.data.check import check_data_set
from bas.errors import InputError
from bas.extract.video.picture import PictureFormat, Pixels
from bas.extract.video.reader import Video, open_video, probe_video

SIZE = PictureFormat(width=160, height=96)
PLAIN = {"x264-params": "bframes=0:log-level=none"}
REORDERED = {"x264-params": "bframes=3:b-pyramid=normal:log-level=none"}
TS_TICKS = Fraction(1, 90000)
GAP = [3600 * (number + (50 if number >= 100 else 0)) for number in range(200)]
ReadNumber = Callable[[Pixels], int]
Maker = Callable[..., Path]


def read(path: Path, *, threads: int = 2) -> Video:
    return open_video(path, fps=Fraction(25), picture=SIZE, threads=threads)


def shown(video: Video, read_number: ReadNumber) -> list[int]:
    frames = list(video.frames())
    assert all(frame.valid for frame in frames)
    return [read_number(frame.image) for frame in frames]


def held(times: Sequence[int], num_steps: int) -> list[int]:
    """The frame on screen at each step, of frames that start at these steps."""
    return [sum(time <= step for time in times) - 1 for step in range(num_steps)]


def picture(number: int, width: int, height: int) -> av.VideoFrame:
    """The frame of `conftest.numbered_picture`, without its texture."""
    bits = np.array([(number >> bit) & 1 for bit in range(10)]).reshape(2, 5)
    grey = 40 + 140 * bits[np.arange(height) * 2 // height][:, np.arange(width) * 5 // width]
    pixels = np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)
    return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p", dst_colorspace="itu601")


def encoder(size: tuple[int, int], options: dict[str, str], *, fps: int = 25) -> VideoCodecContext:
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.gop_size = *size, "yuv420p", 12
    codec.framerate, codec.time_base, codec.options = Fraction(fps), TS_TICKS, options
    return codec


def write_two_streams(path: Path, *, default: int | None) -> Path:
    """A preview of 64x36 at 5 fps, then the numbered match of 160x96."""
    with av.open(str(path), "w") as container:
        streams = []
        for index, (size, fps) in enumerate([((64, 36), 5), ((160, 96), 25)]):
            stream = container.add_stream("libx264", rate=fps, options=PLAIN)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.time_base = Fraction(1, fps)
            if default is not None:
                stream.disposition = av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            streams.append((stream, size, fps))
        for stream, size, fps in streams:
            for number in range(2 * fps):
                frame = picture(number, *size)
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "default"), [("a.mkv", None), ("a.ts", None), ("a.mkv", 1), ("a.mp4", 1)])
def test_the_stream_that_a_player_takes(
    tmp_path: Path, read_number: ReadNumber, name: str, default: int | None
) -> None:
    path = write_two_streams(tmp_path / name, default=default)
    assert shown(read(path), read_number) == list(range(50))
    info = probe_video(path)
    assert (info.display_width, info.rate, info.num_frames) == (160, Fraction(25), 50)
    assert (info.stream, info.other_streams) == ("stream 1 (h264, 160x96)", ("stream 0 (h264, 64x36)",))


def test_the_default_stream_before_the_largest(tmp_path: Path) -> None:
    path = write_two_streams(tmp_path / "a.mkv", default=0)
    assert probe_video(path).display_width == 64
    notes = [finding.message for finding in check_data_set(tmp_path).findings if finding.severity == "note"]
    assert "several video streams: stream 0 (h264, 64x36) is read, not stream 1 (h264, 160x96)" in notes


@pytest.mark.parametrize("options", [PLAIN, REORDERED])
@pytest.mark.parametrize("sizes", [((320, 180), (160, 90)), ((160, 90), (320, 180))])
def test_a_size_that_changes(
    tmp_path: Path, read_number: ReadNumber, options: dict[str, str], sizes: tuple[tuple[int, int], ...]
) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for part, size in enumerate(sizes):
            codec = encoder(size, options)
            for number in [*range(60 * part, 60 * part + 60), None]:
                frame = None if number is None else picture(number, *size)
                if frame is not None and number is not None:
                    frame.pts, frame.time_base = 3600 * (number + 10), TS_TICKS
                for packet in codec.encode(frame):
                    packet.stream, packet.time_base = stream, TS_TICKS
                    container.mux(packet)
    for threads in (1, 3):
        video = read(path, threads=threads)
        assert shown(video, read_number) == list(range(120))
        assert {frame.image.shape for frame in video.frames()} == {(96, 160, 3)}


def test_recordings_that_are_joined_byte_by_byte(tmp_path: Path, read_number: ReadNumber) -> None:
    """The last packet of the first is torn and one time comes twice: once on a key frame, which counts. What follows
    it is sound, though nothing else is a key frame up to the end."""
    path = tmp_path / "joined.ts"
    for part, size in enumerate([(320, 180), (160, 90)]):
        with av.open(str(tmp_path / "part.ts"), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25, options={"g": "250", "b": "4M"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for number in range(60 * part, 60 * part + 60):
                frame = picture(number, *size)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with path.open("ab") as file:
            file.write((tmp_path / "part.ts").read_bytes())
    frames = list(read(path).frames())
    assert sum(not frame.valid for frame in frames) <= 2
    sound = [read_number(frame.image) for frame in frames if frame.valid]
    assert sound[-60:] == list(range(60, 120))
    assert sound[:57] == list(range(57))


@pytest.mark.parametrize(("name", "codec", "pixels"), [("c.jpg", "mjpeg", "yuvj420p"), ("c.png", "png", "rgb24")])
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_a_still_picture_is_no_video(tmp_path: Path, name: str, codec: str, pixels: str, suffix: str) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=25))
        stream.width, stream.height, stream.pix_fmt = 160, 96, pixels
        container.mux(stream.encode(picture(1, 160, 96).reformat(format=pixels)))
        container.mux(stream.encode(None))
    path = (tmp_path / name).rename(tmp_path / f"{name}{suffix}")
    for use in (probe_video, read):
        with pytest.raises(InputError, match="is not a video") as error:
            use(path)
        assert "still picture" in str(error.value)


def without_stamps(clip: Path, places: Collection[int]) -> Path:
    """A transport stream or matroska file whose packets at these places in the file lack their times."""
    content = bytearray(clip.read_bytes())
    if clip.suffix == ".mkv":
        with av.open(str(clip)) as container:
            starts = [packet.pos for packet in container.demux(video=0) if packet.size]
        for place in places:
            start = cast(int, starts[place]) + 1  # behind the track number: 16 bits, relative to the cluster's time
            content[start : start + 2] = struct.pack(">h", -(2**15))
    heads = [
        start + 4 + (1 + content[start + 4] if content[start + 3] & 0x20 else 0)
        for start in range(0, len(content), 188)
        if content[start + 1] & 0x40 and (content[start + 1] & 31) << 8 | content[start + 2] == 256
    ]
    for place in places if clip.suffix == ".ts" else ():
        head = heads[place]
        assert content[head : head + 3] == b"\0\0\1"
        content[head + 7] &= 0x3F
        content[head + 9 : head + 9 + content[head + 8]] = b"\xff" * content[head + 8]
    clip.write_bytes(content)
    return clip


@pytest.mark.parametrize("options", [PLAIN, REORDERED])
@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_missing_stamp_is_filled_in_alone(
    make_clip: Maker, read_number: ReadNumber, options: dict[str, str], suffix: str
) -> None:
    places = [30, 31, 32, 60, 90, 150, 180, 199]
    ticks = {"ts": TS_TICKS, "mkv": Fraction(1, 1000)}[suffix]
    pts = [round(time * TS_TICKS / ticks) for time in GAP]
    clip = make_clip(f"a.{suffix}", num_frames=200, pts=pts, time_base=ticks, options=options)
    whole = read(clip).table.pts_ticks.tolist()
    with av.open(str(without_stamps(clip, places if suffix == "ts" else places[:3]))) as container:
        assert sum(packet.pts is None for packet in container.demux(video=0) if packet.size)
    wanted = held([time // 3600 for time in GAP], 250)
    for threads in (1, 3):
        video = read(clip, threads=threads)
        assert video.table.pts_ticks.tolist() == whole
        assert shown(video, read_number) == wanted
        assert not video.is_laid_out_by_rate


@pytest.mark.parametrize("options", [PLAIN, REORDERED])
def test_without_any_stamp_frames_are_laid_out_by_rate(
    make_clip: Maker, read_number: ReadNumber, tmp_path: Path, options: dict[str, str]
) -> None:
    clip = make_clip("a.ts", num_frames=100, time_base=TS_TICKS, options=options)
    assert probe_video(clip).has_times
    video = read(without_stamps(clip, range(100)))
    assert shown(video, read_number) == list(range(100))
    assert video.is_laid_out_by_rate
    assert not video.info.has_times
    notes = [finding.message for finding in check_data_set(tmp_path).findings]
    assert "its packets carry no time stamp: frames are laid out at its rate, 25 per second" in notes


def test_a_program_stream_after_a_seek(make_clip: Maker, read_number: ReadNumber) -> None:
    clip = make_clip("a.mpg", num_frames=120, codec="mpeg2video", time_base=Fraction(1, 25), options={"bf": "2"})
    for threads in (1, 3):
        assert shown(read(clip, threads=threads), read_number) == list(range(120))


def with_empty_chunks(clip: Path, num_after: dict[int, int], *, in_index: bool) -> Path:
    """An AVI file with so many empty chunks after some of its pictures."""
    data = clip.read_bytes()
    start, index = data.index(b"movi"), data.rindex(b"idx1")
    entries = [data[place : place + 16] for place in range(index + 8, len(data), 16)]
    body, table, num_chunks = b"movi", b"", 0
    for number, entry in enumerate(entries):
        name, flags, offset, size = struct.unpack("<4sIII", entry)
        pictures = [(data[start + offset + 8 :][:size], flags), *[(b"", 0)] * num_after.get(number, 0)]
        for content, flag in pictures:
            if content or in_index:
                table += struct.pack("<4sIII", name, flag, len(body), len(content))
            body += name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
            num_chunks += 1
    head = bytearray(data[: start - 8])
    struct.pack_into("<I", head, head.index(b"avih") + 24, num_chunks)
    struct.pack_into("<I", head, head.index(b"strh") + 40, num_chunks)
    lists = [b"LIST" + struct.pack("<I", len(body)) + body, b"idx1" + struct.pack("<I", len(table)) + table]
    result = bytes(head) + b"".join(lists)
    clip.write_bytes(result[:4] + struct.pack("<I", len(result) - 8) + result[8:])
    return clip


@pytest.mark.parametrize("in_index", [True, False])
@pytest.mark.parametrize(
    ("codec", "settings"),
    [
        ("mjpeg", {"pixel_format": "yuvj420p"}),
        ("mpeg4", {}),
        ("libx264", {"options": PLAIN}),
    ],
)
def test_an_empty_chunk_takes_its_place_in_time(
    make_clip: Maker, read_number: ReadNumber, codec: str, settings: dict[str, Any], in_index: bool
) -> None:
    clip = make_clip("a.avi", num_frames=80, codec=codec, time_base=Fraction(1, 25), **settings)
    num_after = {3: 1, 10: 3, 40: 2, 70: 1, 77: 2, 79: 3}
    with_empty_chunks(clip, num_after, in_index=in_index)
    times = [number + sum(num for after, num in num_after.items() if after < number) for number in range(80)]
    for threads in (1, 3):
        video = read(clip, threads=threads)
        assert video.num_steps == 92
        assert shown(video, read_number) == held(times, 92)


def test_a_gap_in_avi_with_reordered_frames(make_clip: Maker, read_number: ReadNumber) -> None:
    times = [*range(30), *range(50, 90)]
    settings: dict[str, Any] = {"codec": "mpeg4", "options": {"bf": "2"}}
    clip = make_clip("a.avi", num_frames=70, pts=times, time_base=Fraction(1, 25), **settings)
    assert shown(read(clip), read_number) == held(times, 90)


def test_an_avi_that_is_cut_short(make_clip: Maker) -> None:
    clip = make_clip("a.avi", num_frames=80, codec="mjpeg", pixel_format="yuvj420p", time_base=Fraction(1, 25))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert not read(clip).grid.is_covered.all()
