"""Proxies: every frame at its time, closed groups, the same picture; the copy is the same data set, and resumes."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bas.data import proxy as proxy_copy
from bas.data.proxy import CopyReport, copy_video, psnr_db_of, write_proxies
from bas.data.settings import ProxySettings
from bas.data.sources import DataSet, find_data_set
from bas.errors import InputError
from bas.extract.video.picture import PictureFormat, Pixels
from bas.extract.video.reader import Video, open_video
from bas.extract.video.timetable import GroupPlan
from bas.workers import Progress, Summary

Maker = Callable[..., Path]
ReadNumber = Callable[[Pixels], int]
SMALL = ProxySettings(size=(160, 96), gop=8)
H264 = {"x264-params": "open-gop=1:bframes=4:log-level=none"}


def read(path: Path, *, fps: Fraction | None = None) -> Video:
    return open_video(path, fps=fps, picture=PictureFormat(width=160, height=96), threads=1)


def seconds(video: Video) -> list[Fraction]:
    """Start of each frame, and the end, after time 0."""
    ticks = [*video.table.pts_ticks.tolist(), video.table.header_end_ticks]
    return [(tick - video.table.origin_ticks) * video.table.time_base for tick in ticks]


def copied(source: Path, target: Path, settings: ProxySettings = SMALL) -> CopyReport:
    return copy_video(source, target, settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("open.mp4", {"options": H264}),
        ("one.mkv", {"gop": 500}),
        ("film.mkv", {"rate": Fraction(24000, 1001), "time_base": Fraction(1001, 24000)}),
        ("ntsc.mp4", {"rate": Fraction(30000, 1001), "time_base": Fraction(1, 30000)}),
        ("plain.ts", {"time_base": Fraction(1, 90000)}),
        ("mpeg4.avi", {"codec": "mpeg4", "time_base": Fraction(1, 25)}),
        ("bare.h264", {"options": {"x264-params": "log-level=none"}}),
        ("ten.mp4", {"pixel_format": "yuv420p10le"}),
        ("full.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p", "time_base": Fraction(1, 25)}),
        ("rgb.mkv", {"codec": "ffv1", "pixel_format": "bgr0", "time_base": Fraction(1, 25)}),
    ],
)
def test_every_frame_at_its_time_in_closed_groups(
    make_clip: Maker, read_number: ReadNumber, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    source, target = make_clip(name, **settings), tmp_path / "out" / "a.mp4"
    report = copied(source, target)
    ours, theirs = read(target), read(source)
    assert seconds(ours) == seconds(theirs)
    assert read(target, fps=Fraction(25)).num_steps == read(source, fps=Fraction(25)).num_steps
    assert [read_number(frame.image) for frame in ours.frames()] == list(range(60))
    assert np.array_equal(ours.table.rank, np.arange(60))  # no B-frames
    plan = GroupPlan.of(ours.table)
    assert np.diff(plan.starts, append=60).max() <= 8
    assert not plan.is_leading.any()
    assert report.num_frames == 60
    assert report.bad_frames == 0
    assert 30 < report.worst_psnr_db <= report.mean_psnr_db <= 99
    assert [path.name for path in target.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("start_ms", [0, 333])
def test_variable_rate_gap_and_late_start(make_clip: Maker, tmp_path: Path, suffix: str, start_ms: int) -> None:
    rng = np.random.default_rng(1)
    gaps = np.concatenate([[start_ms], rng.integers(10, 120, 30), [7500], rng.integers(10, 120, 28)])
    source = make_clip(f"a.{suffix}", pts=np.cumsum(gaps).tolist(), time_base=Fraction(1, 1000), gop=10, options=H264)
    copied(source, tmp_path / "b.mp4")
    ours, theirs = read(tmp_path / "b.mp4", fps=Fraction(25)), read(source, fps=Fraction(25))
    assert seconds(ours) == seconds(theirs)
    assert np.array_equal(ours.grid.frame_of_step, theirs.grid.frame_of_step)
    assert np.array_equal(ours.grid.is_covered, theirs.grid.is_covered)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_turned_videos_stay_upright(make_clip: Maker, tmp_path: Path, rotation: int) -> None:
    source = make_clip("a.mp4", num_frames=20, size=(320, 192), rotation=rotation)
    report = copied(source, tmp_path / "b.mp4", ProxySettings(size=(80, 96)))
    ours, theirs = read(tmp_path / "b.mp4").info, read(source).info
    assert ours.rotation_degrees == theirs.rotation_degrees
    assert (ours.coded_width, ours.coded_height) == ((96, 58) if abs(rotation) == 90 else (80, 48))
    assert report.worst_psnr_db > 30


@pytest.mark.parametrize(
    ("size", "pixel_aspect", "wanted"),
    [
        ((160, 96), None, (160, 96)),
        ((640, 360), None, (398, 224)),
        ((300, 300), None, (224, 224)),
        ((320, 360), Fraction(2), (398, 224)),
    ],
)
def test_size_keeps_the_aspect_and_never_grows(
    make_clip: Maker, tmp_path: Path, size: tuple[int, int], pixel_aspect: Fraction | None, wanted: tuple[int, int]
) -> None:
    source = make_clip("a.mp4", num_frames=5, size=size, pixel_aspect=pixel_aspect)
    copied(source, tmp_path / "b.mp4", ProxySettings())
    info = read(tmp_path / "b.mp4").info
    assert (info.coded_width, info.coded_height) == wanted


def test_colours_of_large_pictures_stay(tmp_path: Path) -> None:
    """720 lines without a stated matrix are BT.709, and the small copy must say so: 224 lines would be BT.601."""
    source = tmp_path / "a.mkv"
    planes = np.concatenate([np.full(1280 * 720, 81), np.full(640 * 360, 90), np.full(640 * 360, 240)])
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8).reshape(1080, 1280), "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert copied(source, tmp_path / "b.mp4").worst_psnr_db > 45
    assert read(tmp_path / "b.mp4").info.colour == read(source).info.colour == "bt709-limited"


def test_damaged_frames_are_stood_in_for_or_too_many(
    make_clip: Maker, damage_clip: Maker, read_number: ReadNumber, tmp_path: Path
) -> None:
    clip = make_clip("a.mp4", num_frames=200, gop=10, options={"x264-params": "bframes=0:log-level=none"})
    broken = damage_clip(clip, tmp_path / "b.mp4", num_spots=1, num_bytes=None)
    lost = [frame.step for frame in read(broken).frames() if not frame.valid]
    report = copied(broken, tmp_path / "c.mp4")
    assert report.bad_frames == len(lost) > 0
    shown = [read_number(frame.image) for frame in read(tmp_path / "c.mp4").frames()]
    assert shown == [step if step not in lost else lost[0] - 1 for step in range(200)]
    with pytest.raises(InputError, match="too many frames are missing or damaged"):
        copied(damage_clip(clip, tmp_path / "d.mp4", num_spots=9, num_bytes=None), tmp_path / "e.mp4")
    assert not [path for path in tmp_path.iterdir() if "e.mp4" in path.name]


def test_a_file_cut_short_keeps_its_steps(make_clip: Maker, tmp_path: Path) -> None:
    clip = make_clip("a.mp4", num_frames=200, container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size * 3 // 4])
    with pytest.raises(InputError, match="missing or damaged"):
        copied(tmp_path / "cut.mp4", tmp_path / "b.mp4")
    copy_video(tmp_path / "cut.mp4", tmp_path / "b.mp4", replace(SMALL, max_bad_share=0.5))
    assert read(tmp_path / "b.mp4").num_steps == read(tmp_path / "cut.mp4").num_steps == 200


def test_a_copy_that_is_not_like_its_source_is_refused(
    make_clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, target = make_clip("a.mp4"), tmp_path / "b.mp4"
    with monkeypatch.context() as patch:
        patch.setattr(proxy_copy, "MIN_PSNR_DB", 45)
        with pytest.raises(InputError, match=r"not like it[\s\S]*--crf"):
            copied(clip, target)
    real = proxy_copy.plan_times

    def late(*arguments: Any) -> Any:
        ticks, durations = real(*arguments)
        return ticks + (np.arange(len(ticks)) >= 30), durations

    with monkeypatch.context() as patch:
        patch.setattr(proxy_copy, "plan_times", late)
        with pytest.raises(InputError, match="does not hold its times"):
            copied(clip, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_bad_settings_are_refused() -> None:
    for bad in ({"size": (8, 8)}, {"gop": 0}, {"crf": 52}):
        with pytest.raises(InputError, match="not usable"):
            replace(SMALL, **bad)


def test_psnr() -> None:
    black = np.zeros((4, 6, 3), np.uint8)
    assert psnr_db_of(black, black) == 99
    assert psnr_db_of(black, black + np.uint8(255)) == pytest.approx(0)
    assert psnr_db_of(black + np.uint8(10), black) == pytest.approx(20 * np.log10(25.5))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["delayed_start", "goldeneye-vfr-drop3", "counter", "issue-134-rotate"])
def test_shared_edge_cases(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = shared_data / "edge" / f"{name}.mp4"
    report = copied(source, tmp_path / "a.mp4", ProxySettings())
    assert report.worst_psnr_db > 30
    ours, theirs = read(tmp_path / "a.mp4", fps=Fraction(25)), read(source, fps=Fraction(25))
    assert np.array_equal(ours.grid.frame_of_step, theirs.grid.frame_of_step)
    assert seconds(ours) == seconds(theirs)


TINY = ProxySettings(size=(80, 48))
GAME = "england_efl/2019-2020/2019-10-01 - Blackburn Rovers - Nottingham Forest"


@pytest.fixture
def make_data_set(make_clip: Maker, tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set of clips: relative path of each video -> number of frames."""

    def make(videos: dict[str, int], *, splits: dict[str, list[str]] | None = None, name: str = "data") -> Path:
        root = tmp_path / name
        for path, num_frames in videos.items():
            clip = make_clip(f"clip{Path(path).suffix}", num_frames=num_frames, size=(80, 48))
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(clip, root / path)
            events = [{"label": "PASS", "position": "400", "gameTime": "1 - 00:00"}]
            (root / path).with_name("Labels-ball.json").write_text(json.dumps({"annotations": events}))
        if splits:
            (root / "splits.json").write_text(json.dumps(splits))
        return root

    return make


def copied_set(root: Path, out: Path, settings: ProxySettings = TINY, **more: Any) -> Summary:
    return write_proxies(root, out, settings, jobs=1, **more)


def statuses(summary: Summary) -> list[str]:
    return [result.status for result in summary.results]


def content(data_set: DataSet) -> list[tuple[Any, ...]]:
    """What a reader learns of the matches."""
    return [(match.id, match.split, match.half, data_set.events(match)) for match in data_set.matches]


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_the_copy_is_the_same_data_set(make_data_set: Callable[..., Path], tmp_path: Path) -> None:
    root = make_data_set(
        {f"train/{GAME}/1_720p.mkv": 30, f"train/{GAME}/2_720p.mkv": 25, "a/224p.mp4": 20, "b/film.mkv": 20},
        splits={"valid": ["a"]},
    )
    (root / "classes.txt").write_text("PASS\n")
    finished: list[str] = []
    progress = Progress(finished=lambda result: finished.append(result.match_id))
    summary = copied_set(root, tmp_path / "out", progress=progress)
    assert summary.complete
    ours, theirs = find_data_set(tmp_path / "out"), find_data_set(root)
    assert content(ours) == content(theirs)
    assert ours.classes == theirs.classes == ("PASS",)
    names = [match.require_video().name for match in ours.matches]
    assert names == ["224p.mp4", "film.mp4", "1_720p.mp4", "2_720p.mp4"]
    assert sorted(finished) == [match.id for match in theirs.matches]
    record = json.loads((tmp_path / "out" / "proxy.json").read_text())
    assert record["settings"] == TINY.to_json()
    assert record["videos"]["b/film.mp4"]["source"] == "film.mkv"
    assert len(record["videos"]["a/224p.mp4"]["source_sha256"]) == 64


def test_goes_on_and_leaves_alone_what_is_there(make_data_set: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_data_set({"a/224p.mp4": 20, "b/224p.mp4": 20, "c/224p.mp4": 20}), tmp_path / "out"
    copied_set(root, out)
    before = tree(out)
    assert statuses(copied_set(root, out)) == ["already there"] * 3
    assert {name: each for name, each in tree(out).items() if before[name] != each}.keys() <= {"proxy.json"}
    assert tree(out)["proxy.json"][1] == before["proxy.json"][1]
    (out / "a" / "224p.mp4").unlink()
    (out / "a" / ".224p.mp4.999999999").write_bytes(b"left by a process that was killed")
    shutil.copy(root / "c" / "224p.mp4", root / "b" / "224p.mp4")  # the same bytes under another date
    with (root / "c" / "224p.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")  # another file, the same pictures
    (root / "b" / "Labels-ball.json").write_text('{"annotations": []}')
    assert statuses(copied_set(root, out)) == ["copied", "already there", "copied"]
    assert tree(out)["a/224p.mp4"][1] == before["a/224p.mp4"][1]
    assert tree(out)["b/224p.mp4"] == before["b/224p.mp4"]
    assert content(find_data_set(out)) == content(find_data_set(root))
    assert set(tree(out)) == set(before)


def test_other_settings_and_foreign_folders_are_refused(make_data_set: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_data_set({"a/224p.mp4": 5}), tmp_path / "out"
    copied_set(root, out)
    before = tree(out)
    with pytest.raises(InputError, match=r"gop, crf\n  got:    gop=25, crf=20\n  wanted: gop=12, crf=18"):
        copied_set(root, out, ProxySettings(size=(80, 48), gop=25, crf=20))
    (out / "proxy.json").write_text("[]")
    with pytest.raises(InputError, match="not usable"):
        copied_set(root, out)
    (out / "proxy.json").unlink()
    with pytest.raises(InputError, match="not empty"):
        copied_set(root, out)
    assert {name for name in before if name != "proxy.json"} == set(tree(out))
    for inside in (root, root / "out", root.parent):
        with pytest.raises(InputError, match="cannot lie in each other"):
            copied_set(root, inside)


@pytest.mark.parametrize(
    ("name", "video"), [("train", "a/224p.mp4"), ("alone", "224p.mp4"), ("england_efl", f"{GAME[12:]}/224p.mp4")]
)
def test_names_that_the_root_gives_are_kept(
    make_data_set: Callable[..., Path], tmp_path: Path, name: str, video: str
) -> None:
    root = make_data_set({video: 5}, name=name)
    with pytest.raises(InputError, match="names of the folders around them count") as caught:
        copied_set(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = Path(caught.value.cure.removeprefix("OUT "))
    copied_set(root, out)
    assert content(find_data_set(out)) == content(find_data_set(root))


def test_a_video_that_fails_does_not_stop_the_others(
    make_data_set: Callable[..., Path], damage_clip: Maker, tmp_path: Path, bas: Callable[..., int], capfd: Any
) -> None:
    root, out = make_data_set({"a/224p.mp4": 60, "b/224p.mp4": 20}), tmp_path / "out"
    damage_clip(root / "a" / "224p.mp4", root / "a" / "224p.mp4", num_spots=20, num_bytes=None)
    arguments = ("data", "proxy", root, out, "--size", "80x48", "--jobs", 2)
    assert bas(*arguments, "--json") == 2
    printed = capfd.readouterr()
    assert "too many frames are missing or damaged" in " ".join(printed.err.split())
    assert [match["status"] for match in json.loads(printed.out)["matches"]] == ["failed", "copied"]
    assert bas(*arguments, "--max-bad-share", 1) == 0
    assert bas(*arguments) == 0
    assert "2 already there" in capfd.readouterr().out
    for bad in (("--size", "80"), ("--gop", 0), ("--jobs", -1)):
        assert bas(*arguments, *bad) == 2
