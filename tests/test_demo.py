"""`bas demo` from end to end on seconds of synthetic video."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bas.cache.store import FeatureStore
from bas.commands.demo import HEADS
from bas.heads.training.checkpoint import RunRecord

pytestmark = pytest.mark.usefixtures("one_thread", "known_graphs", "in_this_process")
Cli = Callable[..., int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


def test_from_nothing_to_a_page(bas: Cli, capsys: pytest.CaptureFixture[str], made: Path) -> None:
    assert bas("demo", "--minutes", 0.5, "--out", made) == 0
    table = json.loads((made / "ablation" / "ablation.json").read_text())
    assert [(row["recipe"], row["status"]) for row in table["rows"]] == [(name, "done") for name in HEADS]
    store = FeatureStore.open(made / "ablation" / "stores" / "x3d_s.zarr")
    videos = sorted((made / "matches").rglob("224p.mp4"))
    assert len(store.matches()) == len(videos) == 7
    page = (made / "report" / "index.html").read_text()
    tests = [path.parent.name for path in videos if "/test/" in str(path)]
    assert len(tests) == 2
    assert all(name in page for name in (*HEADS, *tests))
    said = capsys.readouterr().out
    assert "say nothing about real football" in said
    assert "predict MY-MATCH.mp4 --run runs/ed" in said  # not a run of the demo's
    folder = made / "ablation" / "runs" / "demo-0"
    run = RunRecord.read(folder)
    assert ["synthetic matches only" in run.caveats[0], "random weights" in run.caveats[1]] == [True, True]
    assert bas("predict", videos[0], "--run", folder, "--engine", "torch", "--out", made / "p") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "synthetic matches only" in said
    assert "random weights" in said


def test_again_does_nothing_anew(bas: Cli, made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
    before |= {path: path.stat().st_mtime_ns for path in made.rglob("*.mp4")}
    assert len(before) > 7
    assert bas("demo", "--minutes", 0.5, "--out", made) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_in_the_same_folder_are_refused(
    bas: Cli, capsys: pytest.CaptureFixture[str], made: Path
) -> None:
    assert bas("demo", "--minutes", 0.5, "--seed", 1, "--out", made) == 2
    assert "other settings" in capsys.readouterr().err
