"""`bas report` from end to end: tiny runs on a store whose features carry the events."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bas.ablate.table import AblationTable, Row, SeedRun
from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.events import Event, write_predictions
from bas.files import write_json_atomic
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings
from bas.report.make import report
from bas.report.sources import ReportOptions

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
CLASSES, NUM_ROWS = ("PASS", "DRIVE"), 400
FEATURES = FeatureSettings.imported(kind="pulses", model="none", dim=4, fps="25")
RECIPE = Row(
    name="fc",
    recipe="fc",
    about="a <baseline>",
    backbone="x3d_s",
    depth=5,
    head="fc",
    weights="none",
    published={"map_10": 42.66, "map_12": 37.31, "source": "seed"},
    frames_per_epoch=1280,
    num_seeds=1,
)
GAMES = {"liga/a": "train", "liga/b": "valid", "liga/c & #c": "test", "liga/d": "test"}


def events_of(seed: int) -> list[Event]:
    generator = np.random.default_rng(seed)
    return [Event(40 * int(row), CLASSES[generator.integers(0, 2)]) for row in range(15, NUM_ROWS - 15, 24)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set: labels, and files that stand for videos."""
    root = tmp_path_factory.mktemp("data")
    for seed, (game, split) in enumerate(GAMES.items()):
        folder = root / split / game
        records = [event.to_json() for event in events_of(seed)]
        write_json_atomic(folder / "Labels-ball.json", {"annotations": records})
        (folder / "224p.mp4").write_bytes(b"")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same matches as features: noise, and a pulse of 5 rows at every event."""
    path = tmp_path_factory.mktemp("store") / "pulses.zarr"
    made = FeatureStore.create_or_open(path, FEATURES, classes=CLASSES, software={})
    for seed, (game, split) in enumerate(GAMES.items()):
        rows = 0.3 * np.random.default_rng(seed).normal(size=(NUM_ROWS, 4)).astype(np.float32)
        for event in events_of(seed):
            row = event.position_ms // 40
            rows[row - 2 : row + 3, CLASSES.index(event.label)] += 2
        meta = MatchMeta(
            fps=Fraction(25),
            time_base=Fraction(1, 12800),
            origin_ticks=0,
            split=split,
            labels=tuple(event.to_json() for event in events_of(seed)),
            video={"bytes": 1},
        )
        pts = np.arange(NUM_ROWS) * 512
        with made.writer(game, num_rows=NUM_ROWS, pts_ticks=pts, match_meta=meta, provenance={}) as writer:
            writer.append({"identity": rows}, np.ones(NUM_ROWS, bool))
            writer.commit()
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "fc"
    settings = TrainSettings(head="fc", clip_len=16, batch=4, epochs=1, frames_per_epoch=1280, lr=1e-2, hop_rows=4)
    train(FeatureStore.open(store), folder, settings, device="cpu")
    return folder


@pytest.fixture
def run(trained: Path, store: Path, tmp_path: Path) -> Path:
    """A copy of it that knows where the store is."""
    return copy_run(trained, tmp_path / "runs" / "fc", store_hint=store.as_posix())


def copy_run(trained: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(trained, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | changes))
    return folder


def page_of(out: Path) -> dict[str, Any]:
    """The JSON in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', (out / "index.html").read_text())
    assert found is not None
    record: dict[str, Any] = json.loads(found[1])
    return record


def means(page: dict[str, Any], run: int = 0) -> float:
    return float(page["runs"][run]["report"]["means"]["mAP"]["value"])


def test_a_run_is_predicted_evaluated_and_shown(
    bas: Cli, capsys: pytest.CaptureFixture[str], run: Path, data: Path, tmp_path: Path
) -> None:
    assert bas("report", run, "--videos", data, "--out", tmp_path / "page", "--title", "Ours & <others>") == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "page" / "index.html") in printed.replace("\n", "")
    assert "2 of 2 matches with video" in " ".join(printed.split())
    page = page_of(tmp_path / "page")
    assert page["title"] == "Ours & <others>"
    assert [match["name"] for match in page["matches"]] == ["liga/c & #c", "liga/d"]
    assert [match["seconds"] for match in page["matches"]] == [16.0, 16.0]
    assert page["matches"][0]["video"].endswith("/test/liga/c%20%26%20%23c/224p.mp4")
    assert not Path(page["matches"][0]["video"]).is_absolute()
    assert page["runs"][0]["name"] == "fc"
    assert {"head", "parameters", "features", "peaks"} <= set(page["runs"][0]["about"])
    assert bas("eval", data, run / "predictions" / "test", "--split", "test", "--json") == 0
    report_json = json.loads(capsys.readouterr().out)
    assert means(page) == report_json["means"]["mAP"]["value"] > 0.3
    assert page["runs"][0]["report"]["classes"] == report_json["classes"]


def test_a_bundle_holds_clips_instead_of_links(
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    data: Path,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    read_number: Callable[..., int],
) -> None:
    out, videos = tmp_path / "page", tmp_path / "videos"
    shutil.copytree(data, videos)
    make_clip("d.mp4", num_frames=NUM_ROWS, size=(160, 96)).replace(videos / "test" / "liga" / "d" / "224p.mp4")
    (out / "clips").mkdir(parents=True)
    (out / "clips" / "099.mp4").write_bytes(b"of a report before")
    (out / "clips" / "mine.mp4").write_bytes(b"of somebody else")
    assert bas("report", run, "--videos", videos, "--out", out, "--bundle") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 matches with video" in said
    assert "liga/c & #c: no clips" in said  # its video is an empty file
    broken, match = page_of(out)["matches"]
    assert (match["video"], broken["video"], broken["clips"]) == (None, None, [])
    assert {path.name for path in (out / "clips").iterdir()} == {"mine.mp4", *(Path(c[2]).name for c in match["clips"])}
    for from_ms, to_ms, address in match["clips"]:
        with av.open(str(out / address)) as container:
            numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
            assert container.streams.video[0].codec_context.name == "h264"
        assert numbers == list(range(round(from_ms / 40), round(to_ms / 40)))
        assert len(numbers) <= 100
    shown = [any(a <= event.position_ms < b for a, b, _ in match["clips"]) for event in events_of(3)]
    assert sum(shown) > 0.8 * len(shown)


def test_predictions_that_are_there_are_used_again(run: Path, tmp_path: Path) -> None:
    report([run], tmp_path / "one")
    record = run / "predictions" / "test" / "prediction.json"
    before = record.stat().st_mtime_ns
    shutil.rmtree(run.parent / "gone", ignore_errors=True)
    report([run], tmp_path / "two")
    assert record.stat().st_mtime_ns == before
    assert (tmp_path / "one" / "index.html").read_bytes() == (tmp_path / "two" / "index.html").read_bytes()
    changed = json.loads(record.read_text())
    changed["made_with"]["weights_sha256"] = ["0" * 64]
    record.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="this run did not make"):
        report([run], tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_where_the_store_is_comes_from_the_run_or_from_the_option(trained: Path, store: Path, tmp_path: Path) -> None:
    assert report([trained], tmp_path / "own").matches  # training noted it
    shutil.rmtree(trained / "predictions")
    old = copy_run(trained, tmp_path / "old")
    record = json.loads((old / "run.json").read_text())
    del record["store_hint"]  # as before there was such a hint
    (old / "run.json").write_text(json.dumps(record))
    moved = copy_run(trained, tmp_path / "moved", store_hint="../nowhere.zarr")
    for folder in (old, moved):
        with pytest.raises(InputError, match="no labels to evaluate by") as error:
            report([folder], tmp_path / "page")
        assert "--store STORE" in error.value.cure
        made = report([folder], tmp_path / "page", ReportOptions(store=store))
        assert made.runs[0].loaded.names == ("liga/c & #c", "liga/d")


@pytest.mark.parametrize("kind", ["of other games", "of unknown origin"])
def test_predictions_without_labels_are_shown_and_not_judged(
    bas: Cli, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, kind: str
) -> None:
    """A video of one's own, by a run whose store has labels of other games; and a file of another program."""
    found = [Event(1000, "PASS", confidence=0.9), Event(4000, "DRIVE", confidence=0.2)]
    report([run], tmp_path / "page")
    folder = run / "predictions" / "test"
    shutil.rmtree(folder / "liga")
    if kind == "of unknown origin":
        (folder / "prediction.json").unlink()
    write_predictions(folder / "MY-MATCH" / "results_spotting.json", found, url_local="MY-MATCH")
    assert bas("report", folder, "--out", tmp_path / "own") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no labels" in said
    assert "warning" not in said
    page = page_of(tmp_path / "own")
    assert [match["name"] for match in page["matches"]] == ["MY-MATCH"]
    assert sorted(page["classes"]) == ["DRIVE", "PASS"]
    assert page["runs"][0]["matches"][0]["predictions"]["count"] == 2
    assert page["runs"][0]["mistake_counts"]["false_alarm"] == 2  # all are listed
    assert (
        bas(
            "report",
            folder,
            "--out",
            tmp_path / "refused",
            "--store",
            run / json.loads((run / "run.json").read_text())["store_hint"],
        )
        == 2
    )  # labels that were asked for


def test_labels_alone_are_not_enough_to_predict_and_enough_to_judge(trained: Path, data: Path, tmp_path: Path) -> None:
    folder = copy_run(trained, tmp_path / "fc", store_hint="")
    with pytest.raises(InputError, match="feature store is not known"):
        report([folder], tmp_path / "page", ReportOptions(labels=data))


def test_splits(run: Path, tmp_path: Path) -> None:
    made = report([run], tmp_path / "page", ReportOptions(split="valid"))
    assert made.runs[0].loaded.names == ("liga/b",)
    assert (run / "predictions" / "valid" / "prediction.json").exists()
    with pytest.raises(InputError, match="no labelled match of the split challenge") as error:
        report([run], tmp_path / "page", ReportOptions(split="challenge"))
    assert "--split" in error.value.cure


def test_predictions_are_evaluated_on_the_games_that_they_hold(
    bas: Cli, run: Path, store: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    assert bas("predict", store, "--run", run, "--match", "liga/b", "--match", "liga/d", "--out", out) == 0
    by_labels = report([out], tmp_path / "page", ReportOptions(labels=data))
    assert by_labels.runs[0].loaded.names == ("liga/b", "liga/d")
    assert by_labels.num_videos == 2  # the data set that holds the labels holds the videos
    by_run = report([out], tmp_path / "page")  # prediction.json names the run, which knows the store
    assert by_run.runs[0].figures.report == by_labels.runs[0].figures.report
    assert by_run.num_videos == 0
    assert any("no video for 2 of 2" in note for note in by_run.notes)
    one = report([out], tmp_path / "page", ReportOptions(split="test"))
    assert [match.name for match in one.matches] == ["liga/c & #c", "liga/d"]
    assert any("NO PREDICTIONS for 1 of 2" in each for each in one.runs[0].figures.report.warnings)


def test_results_of_another_system_are_evaluated_too(data: Path, tmp_path: Path) -> None:
    for seed, game in ((2, "liga/c & #c"), (3, "liga/d")):
        found = [Event(event.position_ms + 120, event.label, confidence=0.7) for event in events_of(seed)]
        write_predictions(tmp_path / "theirs" / game / "results_spotting.json", found, url_local=game)
    made = report([tmp_path / "theirs"], tmp_path / "page", ReportOptions(labels=data))
    assert made.runs[0].figures.report.means["mAP"].value == 1
    assert made.runs[0].figures.report.timing.mean_ms == pytest.approx(120, abs=5)
    page = page_of(tmp_path / "page")
    assert page["runs"][0]["about"] == {"made by": "unknown: no prediction.json"}
    assert page["runs"][0]["mistakes"] == []


def test_runs_side_by_side_have_different_names(trained: Path, store: Path, tmp_path: Path) -> None:
    folders = [copy_run(trained, tmp_path / each / "fc", store_hint=store.as_posix()) for each in "ab"]
    report(folders, tmp_path / "page")
    page = page_of(tmp_path / "page")
    assert [each["name"] for each in page["runs"]] == ["fc", "fc (2)"]
    assert page["title"] == "fc, fc (2)"
    assert means(page, 0) == means(page, 1)


def row_of(*, run: str, store: object, predictions: str) -> Row:
    """A row with one seed."""
    means = {"mAP": {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}}
    places = {"run": run, "store": str(store), "predictions": predictions}
    return RECIPE.with_run(SeedRun(seed=0, seconds=1.5, parameters=10, means=means, **places))


def ablation(*rows: Row, split: str, sources: tuple[str, ...]) -> AblationTable:
    return AblationTable(sources=sources, split=split, settings={}, classes=CLASSES, rows=rows, chance={"mAP": 0.1})


def test_an_ablation_brings_its_table_runs_and_videos(run: Path, store: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ablation"
    shutil.copytree(run, folder / "runs" / "fc-0")
    report([folder / "runs" / "fc-0"], tmp_path / "first")  # so that it is predicted, as bas ablate does
    failed = replace(RECIPE, name="ed", recipe="ed").with_failure("no store of x3d_m")
    row = row_of(run="runs/fc-0", store=store, predictions="runs/fc-0/predictions/test")
    table = ablation(row, failed, split="test", sources=(data.as_posix(), store.as_posix(), "/nowhere"))
    table.write(folder)
    made = report([folder], tmp_path / "page")
    page = page_of(tmp_path / "page")
    assert page["ablation"]["rows"][1]["error"] == "no store of x3d_m"
    assert [each["name"] for each in page["runs"]] == ["fc"]
    assert made.num_videos == 2
    replace(table, rows=(failed,)).write(folder)
    with pytest.raises(InputError, match="no finished run"):
        report([folder], tmp_path / "page")


def test_halves_have_their_own_clocks_and_videos(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "game"
    events = [Event(1000, "HIT"), Event(1000, "HIT", half=2), Event(9000, "HIT", half=2)]
    write_json_atomic(folder / "Labels-ball.json", {"annotations": [event.to_json() for event in events]})
    for half in (1, 2):
        (folder / f"{half}_720p.mkv").write_bytes(b"")
    found = [Event(1040, "HIT", confidence=0.9), Event(9040, "HIT", half=2, confidence=0.8)]
    write_predictions(tmp_path / "found" / "game" / "results_spotting.json", found, url_local="game")
    made = report([tmp_path / "found"], tmp_path / "page", ReportOptions(labels=tmp_path / "data"))
    assert [match.name for match in made.matches] == ["game", "game/2"]
    assert [match.video for match in made.matches] == ["../data/game/1_720p.mkv", "../data/game/2_720p.mkv"]
    assert [len(game.events.frames) for game in made.runs[0].loaded.games] == [1, 2]


def test_instants_on_the_page_are_those_of_the_files(tmp_path: Path) -> None:
    ms = [40 * frame for frame in (7, 14, 29, 1003)]  # official cells of some of these are one frame early
    write_json_atomic(
        tmp_path / "data" / "m" / "Labels-ball.json", {"annotations": [Event(t, "A").to_json() for t in ms]}
    )
    found = [Event(t, "A", confidence=0.5) for t in ms[::-1]]
    write_predictions(tmp_path / "found" / "m" / "results_spotting.json", found, url_local="m")
    made = report([tmp_path / "found"], tmp_path / "page", ReportOptions(labels=tmp_path / "data"))
    [times] = made.runs[0].loaded.times
    assert times.events_ms.tolist() == times.predictions_ms.tolist() == ms


def test_what_cannot_be_reported_on_ends_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "page"
    for arguments, message in (
        ((tmp_path / "empty",), "nothing to report on"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((run, "--split", "exam"), "--split"),
        ((run, "--store", tmp_path / "empty"), "not a feature store"),
        ((run, "--labels", tmp_path / "empty"), "no labels"),
    ):
        assert bas("report", *arguments, "--out", out) == 2
        assert message in capsys.readouterr().err
    out.mkdir()
    (out / "index.html").write_text("<html>mine</html>")
    assert bas("report", run, "--out", out) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert not (run / "predictions").exists()  # nothing was begun
    assert bas("report", run, "--out", tmp_path / "other", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["name"] == "fc"


def test_damaged_folders_are_refused(bas: Cli, run: Path, store: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    assert bas("predict", store, "--run", run, "--split", "test", "--out", out) == 0
    record = json.loads((out / "prediction.json").read_text())
    changes: tuple[dict[str, Any], ...] = (
        *({"games": []}, {"games": {"a": 3}}, {"made_with": 1}, {"made_with": {}}),
        *({"runs": [{}]}, {"fps": "often"}, {"made_with": {"classes": 3}}),
    )
    for change in changes:
        write_json_atomic(out / "prediction.json", record | change)
        with pytest.raises(InputError):
            report([out], tmp_path / "page", ReportOptions(labels=data))
    (run / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors"):
        report([run], tmp_path / "page")
    unfinished = json.loads((run / "run.json").read_text()) | {"peaks": None}
    (run / "run.json").write_text(json.dumps(unfinished))
    with pytest.raises(InputError, match="not finished"):
        report([run], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_one_page_has_one_split(run: Path, tmp_path: Path) -> None:
    row = row_of(run=str(run), store="s", predictions="p")
    ablation(row, split="valid", sources=()).write(tmp_path / "ablation")
    with pytest.raises(InputError, match="different splits") as error:
        report([run, tmp_path / "ablation"], tmp_path / "page")
    assert "--split" in error.value.cure
