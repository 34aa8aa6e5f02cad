import json
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bas import cli
from bas.cli import app
from bas.commands.data import check_view
from bas.data.check import DataReport, check_data_set


def write_video(path: Path, *, num_frames: int = 16, fps: int = 25) -> None:
    """A 64x48 video of grey frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(num_frames):
            pixels = np.full((48, 64, 3), 10 * index % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_audio(path: Path) -> None:
    """An mp4 with a sound track alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_labels(folder: Path, positions_ms: Sequence[int], *, label: str = "PASS", half: int = 1) -> None:
    records = [{"gameTime": f"{half} - 00:00", "label": label, "position": str(ms)} for ms in positions_ms]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Labels-ball.json").write_text(json.dumps({"annotations": records}))


def messages(report: DataReport, severity: str) -> list[str]:
    return [f"{found.where}: {found.message}" for found in report.findings if found.severity == severity]


def shown(report: DataReport, *, width: int = 100) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(check_view(report))
    return capture.get()


@pytest.fixture
def good_root(tmp_path: Path) -> Path:
    for split, name in (("train", "a"), ("train", "b"), ("valid", "c")):
        folder = tmp_path / "good" / split / name
        write_video(folder / "224p.mp4")
        write_labels(folder, [0, 40, 600])
    return tmp_path / "good"


def test_good_data(good_root: Path) -> None:
    done: list[tuple[int, int]] = []
    report = check_data_set(good_root, on_progress=lambda *counts: done.append(counts))
    assert report.findings == ()
    video = report.matches[0].video
    assert video is not None
    assert (video.num_frames, video.rate, video.display_width, video.display_height) == (16, Fraction(25), 64, 48)
    assert video.end_seconds == Fraction(16, 25)
    assert report.counts()["PASS"] == {"train": 6, "valid": 3}
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_json_has_the_same(good_root: Path) -> None:
    document = json.loads(json.dumps(check_data_set(good_root).to_json()))
    assert document["ok"] is True
    assert document["events"]["PASS"] == {"train": 6, "valid": 3, "all": 9}
    match = document["matches"][0]
    assert (match["id"], match["num_frames"], match["fps"], match["duration_seconds"]) == ("a", 16, "25", "16/25")


@pytest.mark.parametrize("position_ms", [639, 640, 10**7])
def test_label_beyond_the_end(good_root: Path, position_ms: int) -> None:
    write_labels(good_root / "train" / "a", [0, position_ms])
    errors = messages(check_data_set(good_root), "error")
    expected = f"a: 1 event(s) beyond the end of the video at 640 ms (first: PASS at {position_ms} ms)"
    assert errors == ([expected] if position_ms >= 640 else [])


def test_half_2_in_a_whole_match_video(good_root: Path) -> None:
    write_labels(good_root / "train" / "a", [0], half=2)
    assert messages(check_data_set(good_root), "error") == [
        "a: 1 event(s) of half 2, but one video for the whole match"
    ]


def test_position_between_frames_is_a_note_at_25_fps_only(good_root: Path) -> None:
    for name in ("a", "b"):
        write_labels(good_root / "train" / name, [41])
    write_video(good_root / "train" / "b" / "224p.mp4", fps=24)
    notes = messages(check_data_set(good_root), "note")
    assert notes == ["a: 1 event(s) between two frames of 40 ms (first: PASS at 41 ms)"]


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "audio"])
def test_unreadable_video_is_an_error_and_the_rest_goes_on(good_root: Path, kind: str) -> None:
    path = good_root / "train" / "a" / "224p.mp4"
    if kind == "audio":
        write_audio(path)
    else:
        path.write_bytes({"empty": b"", "text": b"version https://git-lfs", "truncated": path.read_bytes()[:900]}[kind])
    report = check_data_set(good_root)
    (text,) = messages(report, "error")
    assert text.startswith("a: 224p.mp4: ")
    assert [each.video is None for each in report.matches] == [True, False, False]
    assert "unreadable" in shown(report)


def test_two_halves(tmp_path: Path) -> None:
    folder = tmp_path / "game"
    for half in (1, 2):
        write_video(folder / f"{half}_720p.mkv", num_frames=8 * half)
    records = [{"gameTime": f"{half} - 00:00", "label": "PASS", "position": "600"} for half in (1, 2)]
    (folder / "Labels-ball.json").write_text(json.dumps({"annotations": records}))
    report = check_data_set(tmp_path)
    (text,) = messages(report, "error")
    assert text.startswith("game/1: 1 event(s) beyond the end")
    assert [len(each.events or ()) for each in report.matches] == [1, 1]


def test_view_fits_100_columns_and_shows_names_as_they_are(tmp_path: Path) -> None:
    write_video(tmp_path / "[red]x[/]" / "224p.mp4")
    write_labels(tmp_path / "[red]x[/]", [0], label="[bold]kick")
    text = shown(check_data_set(tmp_path))
    assert "[red]x[/]" in text
    assert "[bold]kick" in text
    write_labels(tmp_path / "[red]x[/]", [0], label="\x1b[2Jkick")
    text = shown(check_data_set(tmp_path))
    assert "control characters" in text
    assert "\x1b" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *arguments], env={"COLUMNS": "100"})
    return result.exit_code, result.output


def test_command_exit_codes_and_output(good_root: Path) -> None:
    code, text = run("check", str(good_root))
    assert (code, text.rstrip().splitlines()[-1]) == (0, "ready: no errors")
    write_labels(good_root / "train" / "a", [10**6])
    code, text = run("check", str(good_root))
    assert (code, text.rstrip().splitlines()[-1]) == (2, "1 error")
    code, text = run("check", str(good_root), "--json")
    assert (code, json.loads(text)["ok"]) == (2, False)


@pytest.mark.parametrize("name", ["a/osl.json", "a/labels.csv", "annotations/all.JSON", "events.xml", None])
def test_annotations_that_are_not_read_are_named_and_no_training_is_promised(good_root: Path, name: str | None) -> None:
    for path in good_root.rglob("Labels-ball.json"):
        path.unlink()
    if name is not None:
        path = good_root / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("player,goals\n7,one\n" if name.endswith("csv") else '{"version": "2.0", "data": []}')
    code, text = run("check", str(good_root))
    said = " ".join(text.split())
    assert (code, "no events in the split train, no events in the split valid" in said) == (0, True)
    assert "ready to extract, not to train" in said
    assert "a: no Labels-ball.json" in messages(check_data_set(good_root), "note")[0]
    assert (f"train/{name}: not read" in said) == (name is not None)
    seen = {"osl.json": "an object with 'version', 'data'", "labels.csv": "begins with 'player,goals'"}
    assert seen.get(Path(name or "").name, "") in said


def test_ls_is_one_line_per_match_for_a_script(good_root: Path) -> None:
    code, text = run("ls", str(good_root))
    assert code == 0
    assert text.splitlines()[0].split("\t") == ["a", "train", str(good_root / "train/a/224p.mp4"), "3"]


def test_missing_root_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bas", "data", "check", str(tmp_path / "gone")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("bas: error: ")


SNBAS_COUNTS = {
    "train": (2679, 2297, 404, 465, 331, 177, 213, 100, 128, 34, 15, 6),
    "valid": (585, 554, 127, 115, 75, 24, 54, 25, 28, 12, 4, 1),
}


@pytest.mark.shared
def test_real_labels_without_videos(shared_data: Path) -> None:
    report = check_data_set(shared_data / "snbas")
    counts = report.counts()
    assert report.splits() == ["train", "valid"]
    for split in ("train", "valid"):
        assert tuple(of_class[split] for of_class in counts.values()) == SNBAS_COUNTS[split]
    assert [text.rsplit(": ", 1)[1] for text in messages(report, "error")] == ["labels, but no video"] * 5
    assert all(text in shown(report) for text in ("6,849", "1,604", "8,453"))


@pytest.mark.shared
def test_real_small_data_set_is_fine(shared_data: Path) -> None:
    report = check_data_set(shared_data / "badminton")
    assert report.errors == ()
    assert len(report.matches) == 33
    assert report.counts()["HIT"].total() == 148
    assert sum(each.video.num_frames or 0 for each in report.matches if each.video) == 6686


@pytest.mark.parametrize(
    ("name", "is_fine"),
    [("c", True), ("pts", False), ("valid", False), ("features", False), ('the "derby"', False), ("o'clock é", True)],
)
def test_a_name_is_ready_where_and_only_where_it_can_be_extracted(
    name: str, is_fine: bool, tmp_path: Path, bas: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "data" / name / "224p.mp4")
    write_video(tmp_path / "data" / "other" / "224p.mp4")
    code = 0 if is_fine else 2
    assert bas("data", "check", tmp_path / "data") == code
    said = " ".join(capsys.readouterr().out.split())
    assert ("match id is not usable" in said) is not is_fine
    arguments = ["--backbone", "regnety_002", "--weights", "none", "--size", "32x32", "--engine", "torch", "--json"]
    assert bas("extract", tmp_path / "data", "--out", tmp_path / "s.zarr", *arguments) == code
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert {match["match"]: match["done"] for match in matches} == {name: is_fine, "other": True}
