"""A finetuned run at work: `bas predict` on videos and on a store of its own features, and a head on top of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bas.cache.store import FeatureStore
from bas.data.sources import find_sources
from bas.extract.backbones.weights import BACKBONE, load_weights, save_backbone_checkpoint
from bas.extract.options import ExtractOptions
from bas.extract.options import ExtractRunOptions as ExtractRun
from bas.extract.run import extract
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
CLASSES = ("PASS", "DRIVE")
RESULTS = "results_spotting.json"


def finetuned_run(folder: Path, games: Path) -> Path:
    """A folder as `bas finetune` leaves it: a backbone with weights of its own, and a head that fits its features."""
    module, record = load_weights("x3d_xs", 4, "none")
    next(module.parameters()).data.mul_(1.5)
    record = replace(record, stride=2, window=8, width=64, height=48)
    folder.mkdir(parents=True)
    file = folder.parent / BACKBONE
    save_backbone_checkpoint(file, module, record)
    options = ExtractOptions(backbone="x3d_xs", depth=4, weights=str(file), fit="stretch", hop=4)
    store = folder.parent / "rows.zarr"
    assert extract(find_sources([games]), store, options, ExtractRun(engine="torch")).complete
    settings = TrainSettings(head="fc", clip_len=16, batch=4, epochs=1, frames_per_epoch=640)
    train(FeatureStore.open(store), folder, settings, classes=CLASSES, device="cpu")
    shutil.move(file, folder / BACKBONE)
    return folder


@pytest.fixture(scope="module")
def run(games: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetuned_run(tmp_path_factory.mktemp("one") / "tuned", games)


@pytest.fixture(scope="module")
def store(run: Path, games: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its features, by the run's folder."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    assert extract(find_sources([games]), path, ExtractOptions(weights=str(run)), ExtractRun(engine="torch")).complete
    return path


@pytest.fixture
def predict(bas: Cli) -> Cli:
    return lambda *arguments: bas("predict", *arguments, "--engine", "torch")


def test_video_and_store_give_the_same_spots_without_weights_named(
    predict: Cli, run: Path, games: Path, store: Path, tmp_path: Path
) -> None:
    assert predict(store, "--run", run, "--split", "test", "--out", tmp_path / "store") == 0
    assert predict(games / "test" / "game-test" / "224p.mp4", "--run", run, "--out", tmp_path / "video") == 0
    kept = tmp_path / "kept.zarr"
    assert predict(games, "--run", run, "--match", "test", "--store", kept, "--out", tmp_path / "kept") == 0
    texts = {(tmp_path / out / "game-test" / RESULTS).read_bytes() for out in ("store", "video", "kept")}
    assert len(texts) == 1
    assert json.loads(texts.pop())["predictions"]
    assert FeatureStore.open(kept).origin == FeatureStore.open(store).origin
    assert FeatureStore.open(kept).settings == FeatureStore.open(store).settings


def test_the_spots_are_of_the_finetuned_backbone(predict: Cli, run: Path, games: Path, tmp_path: Path) -> None:
    """Other tensors in the folder are noticed, and so is a weights file that is not the run's."""
    module, record = load_weights("x3d_xs", 4, "none")
    other = tmp_path / "other.safetensors"
    save_backbone_checkpoint(other, module, replace(record, stride=2, window=8, width=64, height=48))
    video = games / "test" / "game-test" / "224p.mp4"
    assert predict(video, "--run", run, "--out", tmp_path / "out", "--weights", other) == 2
    shutil.copytree(run, tmp_path / "spoiled")
    shutil.copy(other, tmp_path / "spoiled" / BACKBONE)
    assert predict(video, "--run", tmp_path / "spoiled", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_two_finetuned_runs_have_two_backbones(
    predict: Cli, capsys: pytest.CaptureFixture[str], run: Path, games: Path, tmp_path: Path
) -> None:
    other = tmp_path / "tuned"
    shutil.copytree(run, other)
    record = json.loads((other / "run.json").read_text())
    record["features"]["weights_sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(record))
    assert predict(games, "--run", run, "--run", other, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert f"{other}: does not go together with {run}: other weights_sha256\n" in told
    assert "runs of bas finetune go one by one, each has its own backbone" in told


def test_a_head_on_its_features_is_warned_of_its_matches_and_joins_it(
    bas: Cli,
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    games: Path,
    store: Path,
    tmp_path: Path,
) -> None:
    head = tmp_path / "head"
    how: tuple[Any, ...] = ("--head", "fc", "--clip-len", 16, "--batch", 4, "--epochs", 1, "--frames-per-epoch", 640)
    how += ("--classes", ",".join(CLASSES), "--device", "cpu")
    assert bas("train-head", store, *how, "--out", tmp_path / "fair") == 0
    assert "note" not in capsys.readouterr().err
    assert bas("train-head", store, *how, "--valid", "game-train", "--with-valid", "--out", head) == 0
    told = capsys.readouterr().err
    assert "note: 1 of 1 validation matches trained the backbone of these features (run tuned)" in told
    assert "game-train" in told

    video = games / "test" / "game-test" / "224p.mp4"
    assert predict(video, "--run", head, "--out", tmp_path / "alone") == 2
    assert "or the folder of the finetuned run" in capsys.readouterr().err
    assert predict(video, "--run", head, "--weights", run, "--out", tmp_path / "alone") == 0
    assert predict(video, "--run", head, "--run", run, "--out", tmp_path / "both") == 0
    assert predict(store, "--run", head, "--run", run, "--match", "test", "--out", tmp_path / "stored") == 0
    both, stored = ((tmp_path / out / "game-test" / RESULTS).read_bytes() for out in ("both", "stored"))
    assert both == stored
