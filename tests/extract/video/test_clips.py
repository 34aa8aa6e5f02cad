"""Random clips against `Video.frames`: the same bits, whatever the file; errors, waiting and early ends."""

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bas.errors import InputError
from bas.extract.video.clips import ClipPlace, ClipReader
from bas.extract.video.decode import Decoder
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import Video, open_video

SIZE = PictureFormat(width=80, height=48)
Maker = Callable[..., Path]
H264 = "log-level=none"


def read(path: Path, *, fps: Fraction | None = Fraction(25)) -> Video:
    return open_video(path, fps=fps, picture=SIZE, threads=1)


def random_places(videos: list[Video], num_places: int, *, seed: int = 0) -> list[ClipPlace]:
    rng = np.random.default_rng(seed)
    return [
        ClipPlace(
            video=(video := int(rng.integers(len(videos)))),
            first_step=int(rng.integers(videos[video].num_steps)),
            num_steps=int(rng.integers(1, 12)),
            stride=int(rng.choice([1, 2, 3, 40])),
        )
        for _ in range(num_places)
    ]


def assert_same_as_frames(videos: list[Video], places: list[ClipPlace], **settings: int) -> None:
    plain = [np.stack([frame.image for frame in video.frames()]) for video in videos]
    with ClipReader(videos, **settings) as reader:
        clips = list(reader.clips(places))
    for place, clip in zip(places, clips, strict=True):
        steps = np.minimum(
            place.first_step + place.stride * np.arange(place.num_steps), videos[place.video].num_steps - 1
        )
        assert np.array_equal(clip, plain[place.video][steps]), place


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("closed.mp4", {"options": {"x264-params": f"open-gop=0:bframes=3:{H264}"}}),
        ("open.mp4", {"options": {"x264-params": f"open-gop=1:bframes=4:{H264}"}}),
        ("one.mp4", {"gop": 500}),
        ("open.mkv", {"options": {"x264-params": f"open-gop=1:bframes=3:b-pyramid=normal:{H264}"}}),
        ("plain.ts", {"time_base": Fraction(1, 90000)}),
        ("mpeg4.avi", {"codec": "mpeg4", "time_base": Fraction(1, 25)}),
        ("bare.h264", {"options": {"x264-params": H264}}),
        ("hevc.mp4", {"codec": "libx265"}),
        ("intra.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p", "time_base": Fraction(1, 25)}),
    ],
)
def test_same_bits_as_frames(make_clip: Maker, name: str, settings: dict[str, Any]) -> None:
    videos = [read(make_clip(name, num_frames=150, size=(80, 48), **settings))]
    assert_same_as_frames(videos, random_places(videos, 25), threads=2, ahead=3)


@pytest.mark.parametrize("params", ["bframes=3:open-gop=0", "bframes=4:open-gop=1", "bframes=0"])
@pytest.mark.parametrize("num_bytes", [16, None])
def test_same_bits_where_the_file_is_damaged(
    make_clip: Maker, damage_clip: Maker, tmp_path: Path, params: str, num_bytes: int | None
) -> None:
    clip = make_clip("a.mp4", num_frames=150, options={"x264-params": f"{params}:{H264}"})
    broken = damage_clip(clip, tmp_path / "b.mp4", num_spots=12, num_bytes=num_bytes)
    videos = [read(broken), read(broken, fps=Fraction(10))]
    assert not all(frame.valid for frame in videos[0].frames())
    assert_same_as_frames(videos, random_places(videos, 30), threads=2)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(7), None])
def test_same_bits_at_variable_rate_with_a_late_start(make_clip: Maker, fps: Fraction | None) -> None:
    rng = np.random.default_rng(1)
    pts = np.cumsum(np.concatenate([[333], rng.integers(10, 120, 60), [2500], rng.integers(10, 120, 30)])).tolist()
    videos = [read(make_clip("a.mp4", pts=pts, time_base=Fraction(1, 1000), gop=10), fps=fps)]
    assert_same_as_frames(videos, random_places(videos, 40), threads=1)


def test_many_videos_keep_few_files_open(make_clip: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bas.extract.video.clips._MAX_IDLE_DECODERS", 2)
    videos = [read(make_clip(f"{n}.mp4", num_frames=20 + n)) for n in range(5)]
    opened, closed = count_calls(monkeypatch, Video, "open_decoder"), count_calls(monkeypatch, Decoder, "close")
    places = [ClipPlace(video, 3, 4, 1) for video in (0, 1, 0, 1, 2, 3, 4, 4, 4)]
    with ClipReader(videos, threads=1) as reader:
        list(reader.clips(places))
        assert (len(opened), len(closed)) == (5, 3)
    assert len(closed) == 5
    assert_same_as_frames(videos, random_places(videos, 30), threads=3, ahead=4)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[object]:
    """A list that grows with each call of a method."""
    calls: list[object] = []
    real = getattr(owner, name)

    def counted(self: object, *arguments: object) -> object:
        calls.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_only_what_is_wanted_is_decoded_and_made(make_clip: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    video = read(make_clip("a.mp4", num_frames=400, gop=50, options={"x264-params": f"bframes=0:scenecut=0:{H264}"}))
    decoded, made = count_calls(monkeypatch, Decoder, "_feed"), count_calls(monkeypatch, Decoder, "picture")
    with ClipReader([video], threads=1) as reader:
        next(reader.clips([ClipPlace(0, 110, 5, 2)]))
        assert len(made) == 5  # not the 119 from the group's start at 100
        assert 19 <= len(decoded) <= 19 + 3
        decoded.clear()
        next(reader.clips([ClipPlace(0, 10, 3, 150)]))  # frames 10, 160, 310: groups in between are passed over
        assert len(decoded) <= 3 * (11 + 50)


def test_the_error_of_a_file_that_went_away_comes_at_its_clip(make_clip: Maker) -> None:
    videos = [read(make_clip("a.mp4")), read(make_clip("gone.mp4"))]
    (videos[1]._index.path).unlink()
    good, bad = ClipPlace(0, 0, 2, 1), ClipPlace(1, 0, 1, 1)
    with ClipReader(videos, threads=2) as reader:
        clips = reader.clips([good, good, bad, good])
        assert [len(next(clips)), len(next(clips))] == [2, 2]
        with pytest.raises(InputError, match="cannot be read"):
            next(clips)
        assert list(clips) == []
        assert len(list(reader.clips([good]))) == 1  # the reader goes on


def test_nothing_sound_is_a_clear_error(make_clip: Maker) -> None:
    path = make_clip("a.mp4", gop=20)
    video = read(path)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = bytes(packet.size)  # type: ignore[operator]
    path.write_bytes(content)
    with ClipReader([video]) as reader, pytest.raises(InputError, match="no frame can be decoded"):
        list(reader.clips([ClipPlace(0, 5, 40, 1)]))


def test_places_are_taken_as_they_are_needed(make_clip: Maker) -> None:
    videos = [read(make_clip("a.mp4"))]
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(0)
            yield ClipPlace(0, len(taken), 3, 1)

    with ClipReader(videos, threads=2, ahead=3) as reader:
        clips = reader.clips(endless())
        for wanted in range(1, 6):
            next(clips)
            assert len(taken) == wanted + 3


def test_waiting_is_counted(make_clip: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [read(make_clip("a.mp4"))]
    real = Video.pictures_at

    def slow(self: Video, *arguments: Any) -> Any:
        time.sleep(0.1)
        return real(self, *arguments)

    monkeypatch.setattr(Video, "pictures_at", slow)
    with ClipReader(videos, threads=1, ahead=2) as reader:
        clips = reader.clips([ClipPlace(0, 0, 1, 1)] * 2)
        next(clips)
        assert clips.waited_seconds >= 0.09
        time.sleep(0.4)  # the caller is busy, and the second clip gets ready meanwhile
        before = clips.waited_seconds
        next(clips)
        assert clips.waited_seconds - before < 0.09


def test_closing_early_ends_the_threads(make_clip: Maker) -> None:
    video = read(make_clip("a.mp4", num_frames=200))
    with ClipReader([video], threads=3) as reader:
        clips = reader.clips([ClipPlace(0, 0, 190, 1)] * 50)
        next(clips)
        clips.close()
        assert list(clips) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bas-clips")]


@pytest.mark.shared
def test_shared_long_video(shared_data: Path) -> None:
    video = read(shared_data / "long" / "bbb_398x224_25fps.mp4")
    rng = np.random.default_rng(3)
    places = [ClipPlace(0, int(rng.integers(video.num_steps)), 12, 2) for _ in range(6)]
    with ClipReader([video]) as reader:
        for place, clip in zip(places, reader.clips(places), strict=True):
            stop = min(video.num_steps, place.first_step + 24)
            plain = [frame.image for frame in video.frames(place.first_step, stop)][::2]
            assert np.array_equal(clip[: len(plain)], plain)
