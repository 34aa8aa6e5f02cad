"""A data set copied: the same matches, splits and labels; resumes; never mixes settings or folders."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.data.proxy import ProxyReporter, ProxySettings, ProxySummary, write_proxies
from bas.data.sources import DataSet, find_data_set
from bas.errors import InputError

Maker = Callable[..., Path]
SMALL = ProxySettings(width=80, height=48)
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


def copied(root: Path, out: Path, settings: ProxySettings = SMALL, **more: Any) -> ProxySummary:
    return write_proxies(root, out, settings, jobs=1, **more)


def told(data_set: DataSet) -> list[tuple[Any, ...]]:
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
    heard: list[str] = []
    reporter = ProxyReporter(finished=lambda result: heard.append(result.match_id))
    summary = copied(root, tmp_path / "out", report=reporter)
    assert summary.complete
    ours, theirs = find_data_set(tmp_path / "out"), find_data_set(root)
    assert told(ours) == told(theirs)
    assert ours.classes == theirs.classes == ("PASS",)
    assert [match.require_video().name for match in ours.matches] == [
        "224p.mp4",
        "film.mp4",
        "1_720p.mp4",
        "2_720p.mp4",
    ]
    assert sorted(heard) == [match.id for match in theirs.matches]
    record = json.loads((tmp_path / "out" / "proxy.json").read_text())
    assert record["settings"] == SMALL.to_json()
    assert record["videos"]["b/film.mp4"]["source"] == "film.mkv"
    assert len(record["videos"]["a/224p.mp4"]["source_sha256"]) == 64


def test_goes_on_and_leaves_alone_what_is_there(make_data_set: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_data_set({"a/224p.mp4": 20, "b/224p.mp4": 20, "c/224p.mp4": 20}), tmp_path / "out"
    copied(root, out)
    before = tree(out)
    assert [result.is_new for result in copied(root, out).results] == [False] * 3
    assert {name: each for name, each in tree(out).items() if name != "proxy.json"} == {
        name: each for name, each in before.items() if name != "proxy.json"
    }
    (out / "a" / "224p.mp4").unlink()
    (out / "a" / ".224p.mp4.999999999").write_bytes(b"left by a process that was killed")
    shutil.copy(root / "c" / "224p.mp4", root / "b" / "224p.mp4")  # the same bytes under another date
    with (root / "c" / "224p.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")  # another file, the same pictures
    (root / "b" / "Labels-ball.json").write_text('{"annotations": []}')
    assert [result.is_new for result in copied(root, out).results] == [True, False, True]
    assert tree(out)["a/224p.mp4"][1] == before["a/224p.mp4"][1]
    assert tree(out)["b/224p.mp4"] == before["b/224p.mp4"]
    assert told(find_data_set(out)) == told(find_data_set(root))
    assert set(tree(out)) == set(before)


def test_other_settings_and_foreign_folders_are_refused(make_data_set: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_data_set({"a/224p.mp4": 5}), tmp_path / "out"
    copied(root, out)
    before = tree(out)
    with pytest.raises(InputError, match=r"other settings\n  got:    gop 12, crf 18\n  wanted: gop 25, crf 20"):
        copied(root, out, ProxySettings(width=80, height=48, gop=25, crf=20))
    (out / "proxy.json").write_text("[]")
    with pytest.raises(InputError, match="not usable"):
        copied(root, out)
    (out / "proxy.json").unlink()
    with pytest.raises(InputError, match="not empty"):
        copied(root, out)
    assert {name for name in before if name != "proxy.json"} == set(tree(out))
    for inside in (root, root / "out", root.parent):
        with pytest.raises(InputError, match="cannot lie in each other"):
            copied(root, inside)


@pytest.mark.parametrize(
    ("name", "video"), [("train", "a/224p.mp4"), ("alone", "224p.mp4"), ("england_efl", f"{GAME[12:]}/224p.mp4")]
)
def test_names_that_the_root_gives_are_kept(
    make_data_set: Callable[..., Path], tmp_path: Path, name: str, video: str
) -> None:
    root = make_data_set({video: 5}, name=name)
    with pytest.raises(InputError, match="names of the folders around them count") as caught:
        copied(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = Path(caught.value.cure.removeprefix("OUT "))
    copied(root, out)
    assert told(find_data_set(out)) == told(find_data_set(root))


def test_a_video_that_fails_does_not_stop_the_others(
    make_data_set: Callable[..., Path], damage: Maker, tmp_path: Path, bas: Callable[..., int], capfd: Any
) -> None:
    root, out = make_data_set({"a/224p.mp4": 60, "b/224p.mp4": 20}), tmp_path / "out"
    damage(root / "a" / "224p.mp4", root / "a" / "224p.mp4", num_spots=20, num_bytes=None)
    arguments = ("data", "proxy", root, out, "--size", "80x48", "--jobs", 2)
    assert bas(*arguments, "--json") == 2
    printed = capfd.readouterr()
    assert "too many frames are missing or damaged" in " ".join(printed.err.split())
    assert [video["status"] for video in json.loads(printed.out)["videos"]] == ["failed", "copied"]
    assert bas(*arguments, "--max-bad-share", 1) == 0
    assert bas(*arguments) == 0
    assert capfd.readouterr().out.count("already there") == 3
    for bad in (("--size", "80"), ("--gop", 0), ("--jobs", -1)):
        assert bas(*arguments, *bad) == 2
