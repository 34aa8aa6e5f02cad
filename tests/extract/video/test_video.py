"""The video reader on clips whose frames carry their number, on damaged copies, and on the real edge cases."""

import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bas.errors import InputError
from bas.extract.video.decode import Prefetch
from bas.extract.video.picture import PictureFormat, Pixels
from bas.extract.video.reader import GridFrame, Video, open_video, probe_video

SIZE = PictureFormat(width=160, height=96)
ReadNumber = Callable[[Pixels], int]
Maker = Callable[..., Path]


def read(path: Path, *, fps: Fraction | None = Fraction(25), picture: PictureFormat = SIZE, threads: int = 2) -> Video:
    return open_video(path, fps=fps, picture=picture, threads=threads)


def same(frame: GridFrame, other: GridFrame) -> bool:
    return frame.step == other.step and frame.valid == other.valid and np.array_equal(frame.image, other.image)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("plain.mp4", {}),
        ("open.mp4", {"options": {"x264-params": "open-gop=1:bframes=4:log-level=none"}}),
        ("one.mp4", {"gop": 500}),
        ("plain.mkv", {}),
        ("plain.ts", {"time_base": Fraction(1, 90000)}),
        ("mpeg4.avi", {"codec": "mpeg4", "time_base": Fraction(1, 25)}),
        ("reordered.avi", {"time_base": Fraction(1, 25)}),
        ("bare.h264", {"options": {"x264-params": "log-level=none"}}),
        ("ten.mp4", {"pixel_format": "yuv420p10le"}),
        ("422.mp4", {"pixel_format": "yuv422p"}),
        ("444.mp4", {"pixel_format": "yuv444p"}),
        ("hevc.mp4", {"codec": "libx265"}),
        ("hevc10.mkv", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
        ("intra.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p", "time_base": Fraction(1, 25)}),
        ("lossless.mkv", {"codec": "ffv1", "pixel_format": "bgr0", "time_base": Fraction(1, 25)}),
    ],
)
def test_each_step_shows_its_frame(
    make_clip: Maker, read_number: ReadNumber, name: str, settings: dict[str, Any]
) -> None:
    frames = list(read(make_clip(name, **settings)).frames())
    assert [read_number(frame.image) for frame in frames] == list(range(60))
    assert all(frame.valid for frame in frames)
    assert [frame.step for frame in frames] == list(range(60))
    assert {(frame.image.shape, frame.image.dtype) for frame in frames} == {((96, 160, 3), np.dtype(np.uint8))}


@pytest.mark.parametrize("params", ["bframes=3:open-gop=0", "bframes=4:open-gop=1", "bframes=0"])
@pytest.mark.parametrize("num_spots", [0, 6])
def test_every_start_gives_the_same_bits(
    make_clip: Maker, damage_clip: Maker, tmp_path: Path, params: str, num_spots: int
) -> None:
    clip = make_clip("a.mp4", num_frames=60, options={"x264-params": params + ":log-level=none"})
    if num_spots:
        clip = damage_clip(clip, tmp_path / "b.mp4", num_spots=num_spots, num_bytes=16)
    full = list(read(clip, threads=1).frames())
    assert (num_spots == 0) == all(frame.valid for frame in full)
    video = read(clip, threads=1)
    for start in range(60):
        part = list(video.frames(start, min(60, start + 2)))
        assert all(same(frame, full[frame.step]) for frame in part)
        assert len(part) == min(2, 60 - start)
    for threads in (2, 5):
        assert all(map(same, read(clip, threads=threads).frames(), full))


def test_stretches_equal_one_plain_decode(make_clip: Maker) -> None:
    clip = make_clip("a.mp4", num_frames=100, options={"x264-params": "open-gop=1:bframes=4:log-level=none"})
    options: dict[str, Any] = {"interpolation": "BICUBIC", "src_color_range": "MPEG", "dst_color_range": "JPEG"}
    with av.open(str(clip)) as container:
        plain = [frame.to_ndarray(format="rgb24", src_colorspace=5, **options) for frame in container.decode(video=0)]
    for frame, wanted in zip(read(clip, threads=3).frames(), plain, strict=True):
        assert np.array_equal(frame.image, wanted)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_gap_and_delayed_start(make_clip: Maker, read_number: ReadNumber, suffix: str) -> None:
    rng = np.random.default_rng(1)
    steps = np.concatenate([[33], rng.integers(10, 120, 40), [2500], rng.integers(10, 120, 18)])
    pts = np.cumsum(steps).tolist()
    clip = make_clip(f"a.{suffix}", pts=pts, time_base=Fraction(1, 1000), gop=10)
    video = read(clip)
    frames = list(video.frames())
    ticks = video.table.time_base * 1000
    assert [int(time * ticks) for time in video.table.pts_ticks] == pts
    for frame in frames:
        begun = sum(time <= frame.step * 40 for time in pts)
        assert read_number(frame.image) == max(0, begun - 1)
        assert frame.valid == (begun > 0)
        assert int(video.grid.pts_ticks[frame.step]) * ticks == pts[max(0, begun - 1)]
    assert len(frames) == -(-round(video.table.end_ticks * ticks) // 40)


@pytest.mark.parametrize(("fps", "numbers"), [(Fraction(50), lambda t: t // 2), (Fraction(25, 2), lambda t: 2 * t)])
def test_other_grid_rates(
    make_clip: Maker, read_number: ReadNumber, fps: Fraction, numbers: Callable[[int], int]
) -> None:
    frames = list(read(make_clip("a.mp4"), fps=fps).frames())
    assert [read_number(frame.image) for frame in frames] == [numbers(t) for t in range(round(60 * fps / 25))]


def test_own_rate_in_milliseconds(make_clip: Maker, read_number: ReadNumber) -> None:
    rate = Fraction(24000, 1001)
    clip = make_clip("a.mkv", num_frames=300, rate=rate, time_base=1 / rate, size=(80, 48), gop=50)
    video = read(clip, fps=None, picture=PictureFormat(width=80, height=48))
    assert video.grid.fps == rate
    assert [read_number(frame.image) for frame in video.frames()] == list(range(300))


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("pixel_aspect", [None, Fraction(2)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_geometry(make_clip: Maker, rotation: int, pixel_aspect: Fraction | None, fit: Any) -> None:
    clip = make_clip("a.mp4", num_frames=32, rotation=rotation, pixel_aspect=pixel_aspect)
    image = list(read(clip, picture=PictureFormat(width=120, height=120, fit=fit)).frames())[31].image
    shown = (160 * (pixel_aspect or 1), 96)
    turned = shown if rotation in (0, 180) else shown[::-1]
    info = probe_video(clip)
    assert (info.display_width, info.display_height) == turned
    lit = image.max(axis=2) > 20
    wide, high = int(lit.any(axis=0).sum()), int(lit.any(axis=1).sum())
    aspect = Fraction(1) if fit == "stretch" else Fraction(turned[0]) / turned[1]
    assert wide == pytest.approx(min(120, 120 * aspect), abs=1)
    assert high == pytest.approx(min(120, 120 / aspect), abs=1)
    # frame 31: the upper row of blocks is light, the lower dark; a counter-clockwise turn brings the top to the left
    top, left = (120 - high) // 2, (120 - wide) // 2
    inner = image[top : top + high, left : left + wide].mean(axis=2)
    halves = {"top": inner[: high // 2], "left": inner[:, : wide // 2], "low": inner[high // 2 :]}
    halves["right"] = inner[:, wide // 2 :]
    light = {0: "top", 90: "left", 180: "low", -90: "right"}[rotation]
    assert max(halves, key=lambda side: float(halves[side].mean())) == light


def test_small_aspect_differences_are_stretched(make_clip: Maker) -> None:
    image = next(read(make_clip("a.mp4"), picture=PictureFormat(width=161, height=96)).frames()).image
    assert (image.max(axis=(1, 2)) > 20).all()
    assert (image.max(axis=(0, 2)) > 20).all()


@pytest.mark.parametrize(("height", "matrix"), [(96, "bt601"), (720, "bt709")])
def test_colour_matrix_and_range(tmp_path: Path, height: int, matrix: str) -> None:
    path = tmp_path / "a.mkv"
    y, u, v = 81, 90, 240  # red in limited BT.601
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        planes = np.concatenate([np.full(64 * height, y), np.full(16 * height, u), np.full(16 * height, v)])
        frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8).reshape(height * 3 // 2, 64), "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = read(path, picture=PictureFormat(width=64, height=height))
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    rgb = np.clip([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], 0, 1) * 255
    assert video.info.colour == f"{matrix}-limited"
    assert np.abs(next(video.frames()).image.reshape(-1, 3) - rgb).max() <= 2.5


def test_lost_packets_never_show_as_valid(make_clip: Maker, damage_clip: Maker, tmp_path: Path) -> None:
    clip = make_clip("a.mp4", num_frames=400, gop=25)
    clean = list(read(clip).frames())
    broken = damage_clip(clip, tmp_path / "b.mp4", num_spots=25, num_bytes=None)
    frames = list(read(broken).frames())
    held = clean[0].image
    for frame, wanted in zip(frames, clean, strict=True):
        if frame.valid:
            assert np.array_equal(frame.image, wanted.image)
            held = frame.image
        elif any(seen.valid for seen in frames[: frame.step]):
            assert np.array_equal(frame.image, held)
    assert 50 < sum(frame.valid for frame in frames) < 350


@pytest.mark.shared
@pytest.mark.parametrize("seed", [1, 2])
def test_shared_forty_spots(shared_data: Path, damage_clip: Maker, tmp_path: Path, seed: int) -> None:
    clip = shared_data / "long" / "bbb_398x224_25fps.mp4"
    picture = PictureFormat(width=100, height=56)
    broken = damage_clip(clip, tmp_path / "b.mp4", num_spots=40, num_bytes=16, seed=seed, num_packets=2500)
    num_valid = num_wrong = 0
    pairs = zip(read(broken, picture=picture).frames(0, 2500), read(clip, picture=picture).frames(0, 2500), strict=True)
    for frame, wanted in pairs:
        num_valid += frame.valid
        num_wrong += frame.valid and not np.array_equal(frame.image, wanted.image)
    assert 1300 < num_valid < 2400
    assert num_wrong <= 40


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_cut_short_with_index(make_clip: Maker, read_number: ReadNumber, tmp_path: Path, suffix: str) -> None:
    clip = make_clip(
        f"a.{suffix}", num_frames=200, container_options={"movflags": "faststart"} if suffix == "mp4" else {}
    )
    cut = tmp_path / f"b.{suffix}"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    video = read(cut)
    frames = list(video.frames())
    # transport streams promise no length; the length of a matroska stream is known to a second
    assert len(frames) == {"mp4": 200, "mkv": 175}.get(suffix, len(frames))
    num_valid = sum(frame.valid for frame in frames)
    assert 60 < num_valid < 140
    assert all(frame.valid for frame in frames[: num_valid - 4])
    assert not any(frame.valid for frame in frames[num_valid + 4 :])
    if suffix != "ts":  # nothing says that a transport stream is cut: what is torn off at its end counts as a gap
        assert all(read_number(frame.image) == frame.step for frame in frames if frame.valid)
    assert all(read_number(frame.image) == frame.step for frame in frames[: num_valid - 4])
    assert video.grid.is_covered.all() == (suffix == "ts")


def test_no_start_is_decodable(make_clip: Maker, read_number: ReadNumber) -> None:
    clip = make_clip("a.mp4", gop=40)
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        first = next(p for p in container.demux(video=0) if p.size)
        content[first.pos : first.pos + first.size] = bytes(first.size)  # type: ignore[operator]
    clip.write_bytes(content)
    frames = list(read(clip).frames())
    assert [frame.valid for frame in frames] == [False] * 40 + [True] * 20
    assert [read_number(frame.image) for frame in frames] == [40] * 40 + list(range(40, 60))
    assert all(map(same, read(clip).frames(20, 45), frames[20:45]))


def test_nothing_decodable(make_clip: Maker) -> None:
    clip = make_clip("a.mp4")
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = bytes(packet.size)  # type: ignore[operator]
    clip.write_bytes(content)
    with pytest.raises(InputError, match=r"no frame can be decoded"):
        read(clip)


def test_bad_files_are_clear_errors(make_clip: Maker, tmp_path: Path) -> None:
    clip = make_clip("a.mp4")
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / "noindex.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    cases = {
        "zero.mp4": "is empty",
        "text.mp4": "not a video",
        "noindex.mp4": "index",
        "sound.mp4": "no video stream",
        "missing.mp4": "cannot be read",
        ".": "is a folder",
    }
    for name, words in cases.items():
        for use in (probe_video, read):
            with pytest.raises(InputError, match=words):
                use(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(make_clip: Maker) -> None:
    clip = make_clip("a.mp4")
    clip.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        read(clip)


def test_closing_early_stops_the_threads(make_clip: Maker) -> None:
    frames = read(make_clip("a.mp4", num_frames=150), threads=3).frames()
    next(frames)
    frames.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bas-decode")]


def test_what_runs_ahead_stops_at_its_depth_and_ends_at_once() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    ahead = Prefetch(endless(), depth=2)
    assert list(islice(ahead, 5)) == [0, 1, 2, 3, 4]
    time.sleep(0.1)  # time to fill the queue, and to stand at it with one more
    assert len(taken) == 5 + 2 + 1
    ahead.close()
    assert not ahead._thread.is_alive()
    assert len(taken) <= 5 + 2 + 2


def test_memory_does_not_grow_with_length(make_clip: Maker) -> None:
    picture = PictureFormat(width=320, height=192)
    clip = make_clip("a.mp4", num_frames=600, gop=600, size=(80, 48))
    tracemalloc.start()
    try:
        for _ in read(clip, picture=picture, threads=1).frames():
            pass
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 * 320 * 192 * 3


@pytest.mark.shared
def test_shared_delayed_start(shared_data: Path) -> None:
    video = read(shared_data / "edge" / "delayed_start.mp4")
    frames = list(video.frames())
    assert [frame.valid for frame in frames] == [False] * 27 + [True] * 24  # starts at 1.075 s, 24 frames to 2.035 s
    assert all(np.array_equal(frame.image, frames[27].image) for frame in frames[:27])


@pytest.mark.shared
def test_shared_counter(shared_data: Path) -> None:
    path = shared_data / "edge" / "counter.mp4"
    picture = PictureFormat(width=1920, height=1080)
    with av.open(str(path)) as container:
        options: dict[str, Any] = {"src_colorspace": 1, "src_color_range": "MPEG", "dst_color_range": "JPEG"}
        plain = [frame.to_ndarray(format="rgb24", **options)[800::3, ::3] for frame in container.decode(video=0)]
    for step, frame in enumerate(read(path, picture=picture).frames()):
        errors = [float(np.abs(frame.image[800::3, ::3].astype(np.int16) - image).mean()) for image in plain]
        assert np.argmin(errors) == step * 10 // 25
        assert frame.valid
    assert step == 74


@pytest.mark.shared
def test_shared_variable_rate(shared_data: Path) -> None:
    path = shared_data / "edge" / "goldeneye-vfr-drop3.mp4"
    video = read(path, fps=None)
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert video.num_steps == 240
    assert video.grid.pts_ticks.tolist() == [
        max(t for t in times if t is not None and t <= 1001 * s) for s in range(240)
    ]


@pytest.mark.shared
def test_shared_rotation_is_upright(shared_data: Path) -> None:
    info = probe_video(shared_data / "edge" / "issue-134-rotate.mp4")
    assert (info.display_width, info.display_height, info.rotation_degrees) == (544, 1280, -90)


def test_mjpeg_whose_height_halves_midway_is_no_interlaced_video(make_clip: Maker, tmp_path: Path) -> None:
    settings = {"codec": "mjpeg", "pixel_format": "yuvj420p", "time_base": Fraction(1, 25), "num_frames": 10}
    parts = [make_clip(f"{height}.avi", size=(320, height), **settings) for height in (192, 96)]
    packets = []
    for part in parts:
        with av.open(str(part)) as container:
            packets += [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with av.open(str(tmp_path / "halved.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuvj420p"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    video = read(tmp_path / "halved.avi", fps=None)
    frames = list(video.frames(0, 20))
    assert all(frame.valid for frame in frames)
    with video.open_decoder() as decoder:  # a decoder that begins behind the change
        for step, image in zip((13, 17), video.pictures_at(np.array([13, 17]), decoder), strict=True):
            np.testing.assert_array_equal(image, frames[step].image)
