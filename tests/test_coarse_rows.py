"""Features of 2 and 1 rows a second, as SoccerNet publishes them: imported, trained on, predicted, judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., int]
CLASSES, NUM_ROWS = ("DRIVE", "PASS"), 300
SUBSETS = {"t": "training", "v": "validation"}
TRAIN = (
    "--head",
    "tcn",
    "--proj",
    0,
    "--hop",
    5,
    "--lr",
    0.01,
    "--frames-per-epoch",
    8000,
    "--epochs",
    3,
    "--device",
    "cpu",
)


def write_features(folder: Path, fps: int) -> Path:
    """Flat files whose rows tell which event lies at or after them, and before the next; the folder of its labels."""
    database, labels = {}, folder.with_name("labels")
    folder.mkdir()
    for seed, (name, subset) in enumerate(SUBSETS.items()):
        generator = np.random.default_rng(seed)
        rows = 0.1 * generator.normal(size=(NUM_ROWS, 3)).astype(np.float32)
        events = []
        for row in range(3, NUM_ROWS - 3, 4):
            ms = -(-1000 * row // fps // 40) * 40 + 40 * int(generator.integers(0, 25 // fps))
            label = int(generator.integers(0, 2))
            events.append((ms, CLASSES[label]))
            rows[ms * fps // 1000, label] += 3
        np.save(folder / f"{name}.npy", rows)
        segments = [{"segment": [ms / 1000, ms / 1000], "label": label} for ms, label in events]
        database[name] = {"subset": subset, "duration": NUM_ROWS / fps, "annotations": segments}
        (labels / name).mkdir(parents=True)
        annotations = [{"label": label, "position": str(ms)} for ms, label in events]
        (labels / name / "Labels-ball.json").write_text(json.dumps({"annotations": annotations}))
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (labels / "splits.json").write_text(json.dumps({"train": ["t"], "valid": ["v"]}))
    (labels / "classes.txt").write_text("\n".join(CLASSES))
    return labels


@pytest.mark.parametrize(("fps", "reach", "half_row_ms"), [(2, "0.25 s", 250), (1, "0.5 s", 500)])
def test_from_the_import_to_the_score(
    bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path, fps: int, reach: str, half_row_ms: int
) -> None:
    labels, store, run = write_features(tmp_path / "flat", fps), tmp_path / "s.zarr", tmp_path / "run"
    assert bas("cache", "import", tmp_path / "flat", "--out", store, "--fps", fps) == 0
    assert bas("train-head", store, "--out", run, *TRAIN) == 2
    assert "made for another stride" in (refused := capsys.readouterr().err)
    assert "use --stride 1" in refused
    assert bas("train-head", store, "--out", run, *TRAIN, "--stride", 1, "--json") == 0
    told = capsys.readouterr()
    assert f"at best within {reach}" in " ".join(told.err.split())
    chosen = json.loads(told.out)["chosen"]["mean"]

    out = tmp_path / "out"
    assert bas("predict", store, "--split", "valid", "--run", run, "--out", out) == 0
    spots = json.loads((out / "v" / "results_spotting.json").read_text())["predictions"]
    assert {int(spot["position"]) % (1000 // fps) for spot in spots} == {half_row_ms}
    capsys.readouterr()
    assert bas("eval", labels, out, "--split", "valid", "--resamples", 0, "--json") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    score = report["means"]["mAP"]["value"]
    assert score > 0.95
    assert chosen == pytest.approx(score, abs=0.01)  # SoccerNet's reader rounds some labels a cell down
    assert bas("predict", store, "--run", run, "--nms", "seed", "--out", tmp_path / "seed") == 2
    assert "leave --nms out" in capsys.readouterr().err


def test_labels_wider_than_the_tolerance_are_told(bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_features(tmp_path / "flat", 1)
    assert bas("cache", "import", tmp_path / "flat", "--out", tmp_path / "s", "--fps", 1) == 0
    options = ("--stride", 1, "--dilate", 1, "--epochs", 1, "--frames-per-epoch", 400)
    assert bas("train-head", tmp_path / "s", "--out", tmp_path / "run", *TRAIN, *options) == 0
    assert "labels reach 1 s to each side of an event: --dilate 0" in " ".join(capsys.readouterr().err.split())
