"""`bas ablate` from end to end: tiny trainings on small synthetic matches and stores, in processes as in real use."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bas.ablate import loop
from bas.ablate.loop import ProgressView, ablate, default_jobs
from bas.ablate.options import AblateOptions, recipe_names
from bas.ablate.plan import open_sources
from bas.ablate.runs import RunTask
from bas.ablate.table import SHEET, TABLE, AblationTable
from bas.commands.ablate import table_view
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.files import FileLock
from bas.workers import Failure, Progress

pytestmark = pytest.mark.usefixtures("one_thread", "without_openvino")
Cli = Callable[..., int]
SMALL_VIDEO = ("--size", "64x36", "--window", "8", "--hop", "8")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, pulse_store: Callable[..., Path]) -> Path:
    return pulse_store(tmp_path_factory.mktemp("store") / "x3d.zarr")


def tiny(*names: str, **changes: Any) -> AblateOptions:
    base: dict[str, Any] = {
        "recipes": recipe_names(",".join(names)),
        "num_seeds": 1,
        "epochs": 1,
        "device": "cpu",
        "jobs": 1,
    }
    return AblateOptions(**(base | changes))


def callbacks(**given: Any) -> ProgressView:
    return lambda *_, **__: nullcontext(Progress(**given))


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on interruptions."""
    for row in record["rows"]:
        del row["seconds"]
        for run in row["runs"]:
            assert run.pop("seconds") > 0
    return record


def read(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / TABLE).read_text(), parse_constant=pytest.fail)
    return record


def shown(table: AblationTable, *, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table_view(table, width=width))
    return capture.get()


@pytest.mark.usefixtures("in_this_process")
def test_from_videos_to_the_table_and_again(
    bas: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, games: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call = [games, "--out", out, "--recipes", "tcn,fc,regnety_002-fc", "--seeds", 2, "--epochs", 1, *SMALL_VIDEO]
    call += ["--weights", "none", "--weights", f"regnety_002={tmp_path / 'nowhere.pth'}", "--device", "cpu"]
    call += ["--jobs", 1]
    assert bas("ablate", *call, "--json") == 2
    printed = capsys.readouterr()
    record = read(out)
    assert json.loads(printed.out) == record
    assert [(row["recipe"], row["status"]) for row in record["rows"]] == [
        ("regnety_002-fc", "failed"),
        ("tcn", "done"),
        ("fc", "done"),
    ]
    assert "nowhere.pth" in record["rows"][0]["error"]
    assert "nowhere.pth" in printed.err
    assert "4/4" in printed.err
    assert record["sources"] == [str(games)]
    tcn = record["rows"][1]
    assert (tcn["backbone"], tcn["depth"], tcn["head"], tcn["weights"]) == ("x3d_s", 5, "tcn", "none")
    assert (tcn["published"]["map_10"], tcn["published"]["map_12"]) == (40.65, 34.38)
    assert tcn["published"]["source"] == "mcv-m6-video/mcv-c6-2025-team6, w7/FinalPresentation.pdf"
    assert [run["seed"] for run in tcn["runs"]] == [0, 1]
    for run in tcn["runs"]:  # what the predictions say to `bas eval`, to the last digit
        assert (out / run["run"] / "run.json").is_file()
        assert (out / run["store"]).is_dir()
        classes = ",".join(record["classes"])
        options = ("--split", "test", "--classes", classes, "--json")
        assert bas("eval", games, out / run["predictions"], *options) == 0
        means = json.loads(capsys.readouterr().out)["means"]
        for part in ("value", "low", "high"):
            assert {n: m[part] for n, m in means.items()} == {n: run["means"][n][part] for n in means}
        if "mAP-10" in means:  # and on the grid of the published figures
            assert bas("eval", games, out / run["predictions"], *options, "--fps", "12.5") == 0
            on_grid = json.loads(capsys.readouterr().out)["means"]["mAP-10"]["value"]
            assert run["means"]["mAP-10 at 12.5"]["value"] == on_grid
    with (out / SHEET).open(newline="") as file:
        assert [line["row"] for line in csv.DictReader(file)] == ["regnety_002-fc", "tcn", "fc", "chance"]

    def nothing_left(_work: object, tasks: Sequence[RunTask], **_: object) -> None:
        assert not tasks

    monkeypatch.setattr(loop, "side_by_side", nothing_left)
    monkeypatch.setattr("bas.ablate.runs.predict", pytest.fail)
    assert bas("ablate", *call) == 2
    assert read(out) == record
    assert "regnety_002-fc failed" in " ".join(capsys.readouterr().out.split())
    assert bas("ablate", *call, "--size", "32x32", "--frames-per-epoch", 99) == 2
    assert "these differ: size, frames_per_epoch" in capsys.readouterr().err
    assert read(out) == record

    (out / ".lock").touch()
    (out / TABLE).unlink()  # features of other settings that somebody left in the folder are not used
    assert bas("ablate", *call, "--size", "32x32", "--window", 16) == 2
    errors = {row["recipe"]: row["error"] for row in read(out)["rows"]}
    assert "extracted with other settings: size (64, 36), asked for (32, 32), window 8, asked for 16" in errors["fc"]


def test_killed_midway_the_same_command_ends_with_the_same_table(
    bas: Cli, store: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out, whole = tmp_path / "cut", tmp_path / "whole"
    call = [str(store), "--recipes", "tcn,fc", "--seeds", "2", "--epochs", "2", "--device", "cpu", "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / ".typing")}
    child = subprocess.Popen(
        [sys.executable, "-m", "bas", "ablate", *call, "--out", str(out)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while len(list(out.glob("runs/*/run.json"))) < 2:  # one is finished, one has begun
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert any(run["status"] != "done" for run in read(out)["rows"])
    wait_for_locks(out)
    request.getfixturevalue("in_this_process")
    assert bas("ablate", *call, "--out", out) == 0
    ablate([store], whole, tiny("tcn", "fc", num_seeds=2, epochs=2))
    assert without_times(read(out)) == without_times(read(whole))


def wait_for_locks(out: Path) -> None:
    """Until the workers of a killed parent are gone."""
    import fcntl

    for path in (out / "runs").glob("*/.lock"):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def test_a_killed_worker_fails_its_run_only_and_the_next_call_mends_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """That `side_by_side` tells of deaths so is tested in test_workers.py."""
    request.getfixturevalue("in_this_process")
    notes: list[str] = []
    in_turn = vars(loop)["side_by_side"]

    def first_is_killed(work: Any, tasks: Sequence[RunTask], *, ended: Callable[..., None], **more: Any) -> None:
        ended(tasks[0], Failure("its process was killed by SIGKILL"))
        in_turn(work, tasks[1:], ended=ended, **more)

    options = tiny("fc", num_seeds=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "side_by_side", first_is_killed)
        table = ablate([store], tmp_path / "out", options, callbacks(note=notes.append))
    failed, done = notes[-2:]
    assert failed.startswith("1/2 fc-0: failed: its process was killed by SIGKILL")
    assert done.startswith("2/2 fc-1: mAP ")
    [row] = table.rows
    assert row.status == "failed"
    assert row.error.startswith("seed 0: its process was killed by SIGKILL")
    assert [run.seed for run in row.runs] == [1]
    assert "fc failed: seed 0: its process was killed by SIGKILL" in shown(table)
    assert ablate([store], tmp_path / "out", options).complete


@pytest.mark.usefixtures("in_this_process")
def test_on_any_backbone_each_head_runs_once_on_each_store(
    store: Path, pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    other = pulse_store(tmp_path / "wide.zarr", backbone="i3d", depth=None, gap_rows=40)
    options = tiny("regnety_002-fc", "x3d_m-fc", "fc", "tcn", any_backbone=True)
    notes: list[str] = []
    table = ablate([store, other], tmp_path / "out", options, callbacks(note=notes.append))
    assert [(row.name, row.backbone, row.published is None) for row in table.rows] == [
        ("tcn@x3d", "x3d_s", False),
        ("tcn@wide", "i3d", True),
        ("fc@x3d", "x3d_s", False),
        ("fc@wide", "i3d", True),
    ]
    assert table.complete
    assert {run.store for row in table.rows for run in row.runs} == {str(store), str(other)}
    assert (tmp_path / "out" / "runs" / "fc@wide-0" / "run.json").is_file()
    text = " ".join(notes)
    assert "x3d_m-fc on wide.zarr is fc: they differ by their backbone only" in text
    assert "wide.zarr: evaluated on other matches or labels than the first, so its rows do not compare" in text
    text = shown(table)
    assert "other backbone" in text
    assert "published figures are SoccerNet's: on other data they are no measure" in text


@pytest.mark.usefixtures("in_this_process")
def test_the_table_that_people_see(store: Path, tmp_path: Path) -> None:
    options = tiny("tcn", "x3d_m-ed", num_seeds=2)
    table = ablate([store], tmp_path / "out", options)
    lines = [" ".join(line.split()) for line in shown(table).splitlines()]
    tcn, failed, chance = lines[2:5]
    [row, _] = table.rows
    mean, sd, low = row.over_seeds("value")["mAP"], (row.sd() or {})["mAP"], row.over_seeds("low")["mAP"]
    assert tcn.startswith(f"tcn x3d_s, 5 blocks tcn 2/2 {100 * mean:.1f} ± {100 * sd:.1f} {100 * low:.1f} to ")
    assert "40.65 34.38 team 6, 2025 119 " in tcn  # 2 x (4 x 4 x 3 + 4) + 3 x (4 + 1)
    assert failed.startswith("x3d_m-ed x3d_m, 5 blocks ed 0/2 - - 44.17 39.08 team 6, 2025 - -")
    assert chance == f"chance {100 * table.chance['mAP']:.1f}"
    assert 0 < table.chance["mAP"] < 1
    text = " ".join(lines)
    assert "x3d_m-ed failed: no store of x3d_m with 5 blocks; give the data set, or --any-backbone" in text
    assert "epochs of 1,200 steps, shorter than the recipes': 1 row(s)" in text  # 24 windows of 50 in 300 rows
    narrow = shown(table, width=70)
    assert "a wider terminal shows more; ablation.csv holds all" in narrow
    assert max(len(line) for line in narrow.splitlines()) <= 70
    assert "44.17" in narrow


@pytest.mark.usefixtures("in_this_process")
def test_a_fault_in_one_backbone_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    write_match(tmp_path / "data" / "train" / "a", seconds=4, seed=0)
    for split in ("valid", "test"):
        shutil.copytree(tmp_path / "data" / "train" / "a", tmp_path / "data" / split / split)
    classes = open_sources([tmp_path / "data"], tiny("fc")).classes
    given = pulse_store(tmp_path / "given.zarr", classes=classes)

    def faulty(*_: object, **__: object) -> None:
        raise MemoryError("no room for 9 GB")

    monkeypatch.setattr(loop, "extract", faulty)
    table = ablate([tmp_path / "data", given], tmp_path / "out", tiny("x3d_m-fc", "fc"))
    assert [(row.recipe, row.status) for row in table.rows] == [("x3d_m-fc", "failed"), ("fc", "done")]
    assert table.rows[0].error == "MemoryError: no room for 9 GB"
    assert "in faulty" in (tmp_path / "out" / "stores" / "x3d_m.zarr.traceback.txt").read_text()


@pytest.mark.usefixtures("in_this_process")
def test_other_seeds_and_recipes_may_follow_and_what_is_trained_stays(store: Path, tmp_path: Path) -> None:
    first = ablate([store], tmp_path / "out", tiny("fc"))
    notes: list[str] = []
    second = ablate([store], tmp_path / "out", tiny("fc", "tcn", num_seeds=2), callbacks(note=notes.append))
    ended = [note.split(": mAP")[0].split(" ")[1] for note in notes if ": mAP" in note]
    assert sorted(ended) == ["fc-1", "tcn-0", "tcn-1"]
    assert second.rows[-1].runs[0] == first.rows[0].runs[0]


@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_is_not_ours_fails_and_says_what_differs(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ablate([store], out, tiny("fc"))
    (out / TABLE).unlink()  # so that nothing but the run itself knows its settings
    shutil.copytree(out / "runs" / "fc-0", out / "runs" / "fc-1")
    (out / ".lock").touch()
    table = ablate([store], out, tiny("fc", num_seeds=2))
    assert table.rows[0].error.splitlines()[0].endswith("fc-1: holds a run with other settings; these differ: seed")
    assert len(table.rows[0].runs) == 1


@pytest.mark.usefixtures("in_this_process")
def test_scores_are_computed_again_where_the_labels_changed(
    store: Path, tmp_path: Path, pulse_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    first = ablate([copy], tmp_path / "out", tiny("fc"))
    shutil.rmtree(copy / "m-test")
    other = pulse_store(tmp_path / "other.zarr", gap_rows=40)
    shutil.copytree(other / "m-test", copy / "m-test")
    monkeypatch.setattr("bas.heads.training.loop.HeadTrainer.training_step", pytest.fail)
    second = ablate([copy], tmp_path / "out", tiny("fc"))
    assert second.rows[0].runs[0].means != first.rows[0].runs[0].means
    assert second.chance != first.chance


def test_a_folder_that_is_not_ours_or_in_use_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(InputError, match="not an ablation"):
        ablate([store], tmp_path / "full", tiny("fc"))
    (tmp_path / "used").mkdir()
    lock = FileLock.acquire(tmp_path / "used" / ".lock", wait_seconds=0)
    assert lock is not None
    with lock, pytest.raises(InputError, match="in use"):
        ablate([store], tmp_path / "used", tiny("fc"))


REFUSED = {
    "recipe": (("--recipes", "sota"), "no such recipe"),
    "no recipe": (("--recipes", ","), "--recipes names none"),
    "seeds": (("--seeds", 0), "--seeds or --jobs is not usable"),
    "split": (("--split", "challenge"), "--split is not usable"),
    "set": (("--recipes", "fc", "--set", "bigru.hidden=3"), "--set names a head that no recipe here has"),
    "weights": (("--weights", "x3d=none"), "--weights names no backbone"),
    "twice": (("--weights", "none", "--weights", "kinetics"), "--weights is not usable"),
    "size": (("--size", "64"), "--size is not usable"),
    "device": (("--device", "tpu"), "--device"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_ends_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], store: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    assert bas("ablate", store, "--out", tmp_path / "out", *options) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out
    assert not (tmp_path / "out").exists()


def test_as_many_runs_side_by_side_as_cores_but_no_more_than_runs() -> None:
    assert default_jobs("cpu", 0) == 1
    assert default_jobs("cpu", 1) == 1
    assert default_jobs("cpu", 1000) == len(os.sched_getaffinity(0))
