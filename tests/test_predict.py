"""`bas predict` from end to end: tiny runs on small synthetic matches, a random X3D in place of a trained one."""

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bas.cache.bank import open_bank
from bas.cache.store import FeatureStore
from bas.eval.peaks import SEED_PEAKS, find_spots
from bas.events import Event, read_events
from bas.extract.backbones.tensor_files import used_tensors
from bas.extract.backbones.weights import load_weights
from bas.extract.options import ExtractOptions
from bas.heads.ensemble import Ensemble
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings
from bas.predict import best_spots

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
OPTIONS = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=4, stride=2)
CLASSES = ("PASS", "DRIVE")
RESULTS, SPOTS, RECORD = "results_spotting.json", "spots.csv", "prediction.json"


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs of different heads."""
    folders = []
    for seed, head in enumerate(("fc", "tcn")):
        folder = tmp_path_factory.mktemp("runs") / head
        settings = TrainSettings(head=head, clip_len=16 + 8 * seed, batch=4, epochs=1, frames_per_epoch=640, seed=seed)
        train(FeatureStore.open(store), folder, settings, classes=CLASSES, device="cpu")
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture
def predict(bas: Cli) -> Cli:
    """`bas predict` with the engine that takes no time to build."""
    return lambda *arguments: bas("predict", *arguments, "--engine", "torch")


@pytest.fixture
def run(runs: tuple[Path, Path]) -> Path:
    return runs[0]


@pytest.fixture
def edited(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run whose `run.json` says something else."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Path:
        copy = tmp_path / "edited"
        shutil.copytree(run, copy)
        record = json.loads((copy / "run.json").read_text())
        change(record)
        (copy / "run.json").write_text(json.dumps(record))
        return copy

    return edit


def found(out: Path, game: str = "game-test") -> list[Event]:
    return read_events(out / game / RESULTS, key="predictions")


def sureness(events: list[Event]) -> list[float]:
    return [event.confidence for event in events if event.confidence is not None]


def expected(
    store: Path, folders: tuple[Path, ...], views: tuple[str, ...] = ("identity",)
) -> list[tuple[int, str, float]]:
    """(frame, class, confidence) straight from the definition: mean of confidences, peaks of the first run."""
    ensemble = Ensemble.load(folders, torch.device("cpu"))
    banks = [open_bank(FeatureStore.open(store), ["game-test"], views=(view,)) for view in views]
    loaded = [Ensemble.load([folder], torch.device("cpu")) for folder in folders]
    scores = np.mean([run.scores(bank) for run in loaded for bank in banks], axis=0)
    assert ensemble.first.peaks is not None
    spots = find_spots(scores, ensemble.first.peaks)
    cells = [(int(f), c, float(v)) for i, c in enumerate(CLASSES) for f, v in zip(*spots.of_class(i), strict=True)]
    return sorted(cells, key=lambda cell: cell[0])


def test_video_and_store_give_the_same_files(predict: Cli, games: Path, store: Path, run: Path, tmp_path: Path) -> None:
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "a") == 0
    assert predict(games, "--run", run, "--match", "game-test", "--out", tmp_path / "b") == 0
    video = games / "test" / "game-test" / "224p.mp4"
    assert predict(video, "--run", run, "--out", tmp_path / "c") == 0
    wanted = expected(store, (run,))
    assert wanted
    for out in ("a", "b", "c"):
        assert {path.name for path in (tmp_path / out).iterdir()} == {"game-test", RECORD}
        events = found(tmp_path / out)
        assert [(e.position_ms, e.label) for e in events] == [(40 * frame, label) for frame, label, _ in wanted]
        assert sureness(events) == pytest.approx([value for *_, value in wanted], abs=1e-6)
    for name in (RESULTS, SPOTS):  # one engine: the same rows to the last bit
        texts = {(tmp_path / out / "game-test" / name).read_bytes() for out in ("a", "b", "c")}
        assert len(texts) == 1, name


@pytest.mark.usefixtures("known_graphs")
def test_fast_is_nearly_the_same_and_never_stored(
    bas: Cli,
    games: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("nncf", reason="NNCF MISSING: 8 bits are not tested")
    monkeypatch.setattr("bas.extract.extractor.CALIBRATION_CLIPS", 2)
    video = games / "test" / "game-test" / "224p.mp4"
    call = ["predict", video, "--run", run, "--threshold", 0]
    for name, more in (("exact", ()), ("fast", ("--fast",))):
        assert bas(*call, "--engine", "openvino", "--out", tmp_path / name, *more) == 0
    assert "engine against plain fp32" in capsys.readouterr().err
    exact, fast = found(tmp_path / "exact"), found(tmp_path / "fast")
    assert sureness(exact) != sureness(fast)
    places = {(event.position_ms, event.label) for event in exact}
    assert len(places & {(event.position_ms, event.label) for event in fast}) > len(places) / 2
    assert bas(*call, "--out", tmp_path / "exact", "--fast") == 2  # made otherwise
    records = [json.loads((tmp_path / name / RECORD).read_text()) for name in ("exact", "fast")]
    assert ["bits" in json.dumps(record) for record in records] == [False, True]
    assert bas(*call, "--out", tmp_path / "kept", "--fast", "--store", tmp_path / "s.zarr") == 2
    assert "its rows are not stored" in capsys.readouterr().err


def test_the_table_file_holds_what_the_results_file_holds(predict: Cli, store: Path, run: Path, tmp_path: Path) -> None:
    assert predict(store, "--run", run, "--out", tmp_path) == 0
    for game in ("game-train", "game-valid", "game-test"):
        with (tmp_path / game / SPOTS).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["match"] for row in rows} == {game}
        told = [(round(1000 * float(r["seconds"])), r["label"], float(r["confidence"])) for r in rows]
        assert told == [(e.position_ms, e.label, e.confidence) for e in found(tmp_path, game)]
        for row in rows:
            minutes, seconds = row["time"].split(":")
            assert 60 * int(minutes) + float(seconds) == pytest.approx(float(row["seconds"]), abs=0.01)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_soccernets_own_reader_and_metric_take_the_file(
    bas: Cli, predict: Cli, capsys: pytest.CaptureFixture[str], games: Path, store: Path, run: Path, tmp_path: Path
) -> None:
    with np.errstate(), warnings.catch_warnings():  # the package switches numpy's warnings off for everybody
        warnings.simplefilter("ignore")
        package = pytest.importorskip(
            "SoccerNet.Evaluation.ActionSpotting",
            reason="OFFICIAL READER NOT TESTED: pip install SoccerNet",
        )
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "out") == 0
    document = json.loads((tmp_path / "out" / "game-test" / RESULTS).read_text())
    assert document["UrlLocal"] == "game-test"
    dictionary = {label: index for index, label in enumerate(CLASSES)}
    grid, second = package.predictions2vector(document, num_classes=2, framerate=25, EVENT_DICTIONARY=dictionary)
    cells = expected(store, (run,))
    assert np.count_nonzero(grid != -1) == len(cells)
    assert (second == -1).all()
    for frame, label, value in cells:
        assert grid[int(25 * (40 * frame / 1000)), dictionary[label]] == pytest.approx(value, abs=1e-6)
    labels = tmp_path / "labels"
    shutil.copytree(games / "test", labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = package.evaluate(
            *(str(labels), str(tmp_path / "out")),
            label_files="Labels-ball.json",
            dataset=None,
            framerate=25,
            metric="at1",
            EVENT_DICTIONARY=dictionary,
        )
    capsys.readouterr()
    assert bas("eval", labels, tmp_path / "out", "--classes", ",".join(CLASSES), "--resamples", 0, "--json") == 0
    assert json.loads(capsys.readouterr().out)["means"]["mAP"]["value"] == pytest.approx(wanted["a_mAP"], abs=1e-12)


def test_several_runs_are_averaged(predict: Cli, store: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    both = ("--run", runs[0], "--run", runs[1])
    assert predict(store, *both, "--split", "test", "--out", tmp_path) == 0
    wanted = expected(store, runs)
    assert wanted != expected(store, runs[:1])
    assert [(e.position_ms // 40, e.label) for e in found(tmp_path)] == [cell[:2] for cell in wanted]
    assert sureness(found(tmp_path)) == pytest.approx([cell[2] for cell in wanted], abs=1e-6)
    record = json.loads((tmp_path / RECORD).read_text())
    assert [each["folder"] for each in record["runs"]] == [str(folder) for folder in runs]
    first = RunRecord.read(runs[0])
    assert first.peaks is not None
    assert record["made_with"]["peaks"] == first.peaks.to_json()


def test_views_are_averaged(predict: Cli, games: Path, run: Path, tmp_path: Path) -> None:
    """From videos in one pass a view, into a store, and from the store."""
    call, views, keep = (
        ("--run", run, "--split", "test", "--out"),
        ("--views", "identity,hflip"),
        tmp_path / "keep.zarr",
    )
    assert predict(games, *call, tmp_path / "streamed", *views) == 0
    assert predict(games, *call, tmp_path / "kept", *views, "--store", keep) == 0
    assert predict(keep, *call, tmp_path / "stored", *views) == 0
    assert found(tmp_path / "streamed") == found(tmp_path / "kept") == found(tmp_path / "stored")
    wanted = expected(keep, (run,), ("identity", "hflip"))
    assert wanted != expected(keep, (run,))
    assert sureness(found(tmp_path / "stored")) == pytest.approx([cell[2] for cell in wanted], abs=1e-6)
    assert predict(keep, *call, tmp_path / "one") == 0
    assert json.loads((tmp_path / "stored" / RECORD).read_text())["made_with"]["views"] == ["identity", "hflip"]
    assert predict(keep, *call, tmp_path / "one", *views) == 2  # never mixed in one folder


def test_runs_that_do_not_fit_together_are_named(
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    store: Path,
    run: Path,
    edited: Callable[..., Path],
    tmp_path: Path,
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["classes"] = ["DRIVE", "PASS"]
        record["features"]["hop"] = 3

    other = edited(change)
    assert predict(store, "--run", run, "--run", other, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "hop, classes" in told
    assert "DRIVE, PASS" in told
    assert str(other) in told
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused_with_its_cure(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, edited: Callable[..., Path], tmp_path: Path
) -> None:
    unfinished = edited(lambda record: record.update(peaks=None))
    assert predict(store, "--run", unfinished, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "the run is not finished" in told
    assert "bas train-head" in told
    assert not (tmp_path / "out").exists()


def test_a_store_of_other_settings_is_refused_by_field(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, edited: Callable[..., Path], tmp_path: Path
) -> None:
    other = edited(lambda record: record["features"].update(hop=2, fit="stretch"))
    assert predict(store, "--run", other, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "these differ: fit, hop" in told
    assert "hop=4" in told
    assert "hop=2" in told


def test_imported_features_cannot_be_made_from_video(
    predict: Cli, capsys: pytest.CaptureFixture[str], games: Path, edited: Callable[..., Path], tmp_path: Path
) -> None:
    other = edited(lambda record: record["features"].update(backbone="import:scores"))
    assert predict(games, "--run", other, "--out", tmp_path / "out") == 2
    assert "imported rows" in capsys.readouterr().err


def test_a_weights_file_is_asked_for_checked_and_known_by_its_tensors(
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    games: Path,
    store: Path,
    run: Path,
    edited: Callable[..., Path],
    tmp_path: Path,
) -> None:
    module, _ = load_weights("x3d_xs", 4, "none")
    tensors = used_tensors(module)
    save_file(tensors, tmp_path / "same.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, tmp_path / "other.safetensors")
    by_file = edited(lambda record: record["features"].update(weights="trained.safetensors"))
    call = (games, "--run", by_file, "--match", "test", "--out", tmp_path / "out")
    assert predict(*call) == 2
    assert "trained.safetensors" in (told := capsys.readouterr().err)
    assert "--weights FILE" in told
    assert predict(*call, "--weights", tmp_path / "other.safetensors") == 2
    assert "other.safetensors" in (told := capsys.readouterr().err)
    assert "trained.safetensors" in told
    assert not (tmp_path / "out").exists()
    assert predict(*call, "--weights", tmp_path / "same.safetensors") == 0
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "plain") == 0
    assert found(tmp_path / "out") == found(tmp_path / "plain")
    assert predict(store, "--run", by_file, "--split", "test", "--out", tmp_path / "named") == 0


@pytest.mark.parametrize("keep", [(), ("--store", "k.zarr")])
def test_a_failing_video_does_not_stop_the_others(
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    games: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 99)
    shutil.copy(games / "test" / "game-test" / "224p.mp4", tmp_path / "whole.mp4")
    both = (tmp_path / "broken.mp4", tmp_path / "whole.mp4")
    assert predict(*both, "--run", run, "--out", tmp_path / "out", "--json", *keep) == 2
    printed = capsys.readouterr()
    results = {each["match"]: each for each in json.loads(printed.out)["matches"]}
    assert results["broken"]["status"] == "failed"
    assert "broken.mp4" in results["broken"]["message"]
    assert "broken.mp4" in printed.err
    assert results["whole"]["status"] == "predicted"
    assert results["whole"]["spots"] == len(found(tmp_path / "out", "whole")) > 0
    assert not (tmp_path / "out" / "broken").exists()


def test_labels_that_cannot_be_used_do_not_matter_but_a_missing_video_does(
    predict: Cli, capsys: pytest.CaptureFixture[str], games: Path, run: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        shutil.copytree(games / "test" / "game-test", tmp_path / "data" / name)
        (tmp_path / "data" / name / "Labels-ball.json").write_text("no JSON")
    (tmp_path / "data" / "two" / "224p.mp4").unlink()
    assert predict(tmp_path / "data", "--run", run, "--out", tmp_path / "out") == 2
    assert "labels, but no video" in capsys.readouterr().err
    assert found(tmp_path / "out", "one")
    assert predict(tmp_path / "data", "--run", run, "--out", tmp_path / "out", "--match", "one") == 0


def test_a_store_keeps_the_rows_and_is_used_again(
    predict: Cli, games: Path, store: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "keep.zarr"
    call = (games, "--run", run, "--split", "test", "--store", keep)
    assert predict(*call, "--out", tmp_path / "a") == 0
    kept, wanted = FeatureStore.open(keep), FeatureStore.open(store)
    assert kept.settings == wanted.settings
    assert kept.matches() == ["game-test"]
    assert kept.match("game-test").meta.events()
    np.testing.assert_array_equal(kept.rows("game-test")[:], wanted.rows("game-test")[:])
    monkeypatch.setattr("bas.extract.extractor.Extractor.rows", None)  # nothing is extracted a second time
    assert predict(*call, "--out", tmp_path / "b") == 0
    assert found(tmp_path / "a") == found(tmp_path / "b")


def test_threshold_peaks_and_calibration(predict: Cli, store: Path, run: Path, tmp_path: Path) -> None:
    call = (store, "--run", run, "--split", "test")
    assert predict(*call, "--out", tmp_path / "all") == 0
    plain = found(tmp_path / "all")
    middle = sorted(sureness(plain))[len(plain) // 2]
    assert predict(*call, "--threshold", middle, "--out", tmp_path / "some") == 0
    assert found(tmp_path / "some") == [event for event in plain if (event.confidence or 0.0) >= middle]
    assert predict(*call, "--nms", "seed", "--out", tmp_path / "seed") == 0
    assert json.loads((tmp_path / "seed" / RECORD).read_text())["made_with"]["peaks"] == SEED_PEAKS.to_json()
    assert all(event.position_ms % 80 == 0 for event in found(tmp_path / "seed"))
    assert predict(*call, "--calibrate", "rank", "--out", tmp_path / "rank") == 0
    calibrated = found(tmp_path / "rank")
    assert [(e.position_ms, e.label) for e in calibrated] == [(e.position_ms, e.label) for e in plain]
    assert sureness(calibrated) != sureness(plain)
    for label in CLASSES:
        before, after = (sureness([e for e in each if e.label == label]) for each in (plain, calibrated))
        np.testing.assert_array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    assert json.loads((tmp_path / "rank" / RECORD).read_text())["made_with"]["calibration"]["kind"] == "rank"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--threshold", 1.5), "--threshold is not usable"),
        (("--views", "vflip"), "--views is not known"),
        (("--nms", "hard"), "Invalid value for '--nms'"),
        (("--calibrate", "platt"), "Invalid value for '--calibrate'"),
        (("--split", "challenge"), "no match to predict"),
        (("--split", "finals"), "--split is not known"),
        (("--match", "nobody"), "names no match"),
        (("--match", "game"), "names several matches"),
        (("--max-bad-share", -1), "--max-bad-share is not usable"),
    ],
)
def test_options_that_cannot_be_used(
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    store: Path,
    run: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    told: str,
) -> None:
    assert predict(store, "--run", run, "--out", tmp_path / "out", *options) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predictions_of_two_kinds_are_never_mixed(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call = (store, "--run", run, "--out", out)
    assert predict(*call, "--match", "test") == 0
    first = (out / "game-test" / RESULTS).read_bytes()
    (out / "notes.txt").write_text("mine")
    assert predict(*call, "--match", "valid") == 0
    assert predict(*call, "--match", "test") == 0, "the same again may be overwritten"
    assert list(json.loads((out / RECORD).read_text())["games"]) == ["game-test", "game-valid"]
    assert predict(*call, "--match", "test", "--nms", "seed") == 2
    assert "these differ: peaks" in capsys.readouterr().err
    assert (out / "game-test" / RESULTS).read_bytes() == first
    assert (out / "notes.txt").read_text() == "mine"


def test_a_results_file_of_unknown_origin_is_left_alone(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "game-test").mkdir()
    (tmp_path / "game-test" / RESULTS).write_text("another model's")
    assert predict(store, "--run", run, "--out", tmp_path) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "game-test" / RESULTS).read_text() == "another model's"
    assert not (tmp_path / "game-train").exists()


def test_a_link_does_not_lead_out_of_the_folder(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "game-test").symlink_to(tmp_path / "elsewhere")
    assert predict(store, "--run", run, "--out", tmp_path / "out") == 2
    assert "leads out of" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_halves_become_one_file(predict: Cli, games: Path, run: Path, tmp_path: Path) -> None:
    game = tmp_path / "data" / "league" / "a game"
    game.mkdir(parents=True)
    for half, split in ((1, "test"), (2, "valid")):
        shutil.copy(games / split / f"game-{split}" / "224p.mp4", game / f"{half}_224p.mp4")
    keep = tmp_path / "keep.zarr"
    assert predict(tmp_path / "data", "--run", run, "--out", tmp_path / "a", "--store", keep) == 0
    assert predict(keep, "--run", run, "--out", tmp_path / "b") == 0
    for split, half in (("test", 1), ("valid", 2)):
        assert predict(games, "--run", run, "--match", split, "--out", tmp_path / "whole") == 0
        whole = [(e.position_ms, e.label, e.confidence) for e in found(tmp_path / "whole", f"game-{split}")]
        for out in ("a", "b"):
            events = [event for event in found(tmp_path / out, "league/a game") if event.half == half]
            assert [(e.position_ms, e.label, e.confidence) for e in events] == whole
    document = json.loads((tmp_path / "a" / "league" / "a game" / RESULTS).read_text())
    assert document["UrlLocal"] == "league/a game"
    with (tmp_path / "a" / "league" / "a game" / SPOTS).open(newline="") as file:
        assert {row["match"] for row in csv.DictReader(file)} == {"league/a game/1", "league/a game/2"}


def test_one_game_in_a_store_and_as_a_video_is_refused(
    predict: Cli, capsys: pytest.CaptureFixture[str], games: Path, store: Path, run: Path, tmp_path: Path
) -> None:
    assert predict(store, games, "--run", run, "--out", tmp_path / "out") == 2
    assert "the same match in two sources" in capsys.readouterr().err


def test_the_tables_say_how_much_they_leave_out(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, run: Path, tmp_path: Path
) -> None:
    assert predict(store, "--run", run, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    num_spots = sum(len(found(tmp_path, f"game-{split}")) for split in ("train", "valid", "test"))
    assert num_spots > 30
    assert f"30 of {num_spots:,} spots" in printed
    assert printed.count("0.") >= 30
    for game in ("game-train", "game-valid", "game-test"):
        assert game in printed


def test_the_surest_of_each_class_come_first() -> None:
    spots = [("m", Event(1000 * i, "PASS", confidence=0.9 - i / 100)) for i in range(8)]
    spots += [("m", Event(500, "GOAL", confidence=0.01)), ("m", Event(7500, "GOAL", confidence=0.02))]
    assert [(e.position_ms, e.label) for _, e in best_spots(spots, 3)] == [
        (0, "PASS"),
        (1000, "PASS"),
        (7500, "GOAL"),
    ]
    assert len(best_spots(spots, 99)) == len(spots)


def test_a_video_of_another_rate_is_predicted_on_the_runs_grid(
    predict: Cli, run: Path, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    video = make_video(tmp_path / "clip.mkv", fps=30, num_frames=150)
    assert predict(video, "--run", run, "--out", tmp_path / "out") == 0
    events = found(tmp_path / "out", "clip")
    assert events
    assert all(event.position_ms % 40 == 0 and event.position_ms < 5000 for event in events)
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["games"]["clip"]["parts"][0]["rows"] == 125


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """A moving grey bar in any container and rate."""
    import av

    def make(path: Path, *, fps: int, num_frames: int) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for number in range(num_frames):
                image = np.zeros((64, 96, 3), np.uint8)
                image[:, number % 96 : number % 96 + 9] = 200
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return make


def test_a_stored_match_of_another_user_fails_alone(
    predict: Cli, store: Path, run: Path, tmp_path: Path, lock_away: Callable[[Path], None], capsys: Any
) -> None:
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "before") == 0
    lock_away(store / "game-valid")
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "after") == 2
    assert "Permission denied" in capsys.readouterr().out
    assert found(tmp_path / "after") == found(tmp_path / "before")
