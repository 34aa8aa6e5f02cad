"""Heads on reduced rows: from a store, from the store store, and straight from the video."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bas.ablate.runs import RunTask, run_seed
from bas.cache.reduce import FitSettings, reduce_store
from bas.cache.store import FeatureStore
from bas.events import read_events
from bas.extract.extractor import Extractor
from bas.extract.options import ExtractOptions
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
OPTIONS = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=4, stride=2)
RESULTS = "results_spotting.json"


@pytest.fixture(scope="module")
def small(store: Path) -> Path:
    path = store.with_name("small.zarr")
    assert reduce_store(store, path, asked=FitSettings(dim=16, quantize=True)).complete
    return path


def trained(store: Path, folder: Path) -> Path:
    settings = TrainSettings(head="tcn", inputs="standard", clip_len=16, batch=4, epochs=1, frames_per_epoch=640)
    train(FeatureStore.open(store), folder, settings, classes=("PASS", "DRIVE"), device="cpu")
    return folder


@pytest.fixture(scope="module")
def run(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(small, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def predict(bas: Cli) -> Cli:
    return lambda *arguments: bas("predict", *arguments, "--engine", "torch")


def test_reduced_store_full_store_and_video_give_the_same_bytes(
    predict: Cli, games: Path, store: Path, small: Path, run: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)  # the run needs neither store
    video = games / "test" / "game-test" / "224p.mp4"
    sources: dict[str, tuple[object, ...]] = {
        "small": (small, "--split", "test"),
        "full": (store, "--split", "test"),
        "video": (video,),
        "kept": (video, "--store", tmp_path / "keep.zarr"),
    }
    for name, arguments in sources.items():
        assert predict(*arguments, "--run", moved, "--out", tmp_path / name) == 0
    assert read_events(tmp_path / "small" / "game-test" / RESULTS, key="predictions")
    texts = {(tmp_path / name / "game-test" / RESULTS).read_bytes() for name in sources}
    assert len(texts) == 1
    assert FeatureStore.open(tmp_path / "keep.zarr").settings == FeatureStore.open(store).settings


def test_components_keep_their_proportions_and_channels_do_not(store: Path, run: Path, tmp_path: Path) -> None:
    principal = load_file(run / "best.safetensors")["inputs.std_d"]
    assert (principal == principal[0]).all()
    only = store.with_name("levels.zarr")
    assert reduce_store(store, only, asked=FitSettings(quantize=True)).complete
    plain = load_file(trained(only, tmp_path / "plain") / "best.safetensors")["inputs.std_d"]
    assert len(np.unique(plain)) > 10


def test_runs_on_full_and_on_reduced_rows_do_not_go_together(
    predict: Cli, capsys: pytest.CaptureFixture[str], store: Path, small: Path, run: Path, tmp_path: Path
) -> None:
    other = trained(store, tmp_path / "full-run")
    assert not (other / "reduction.safetensors").exists()
    assert predict(store, "--run", other, "--run", run, "--out", tmp_path / "out") == 2
    assert "other dim, dtype, reduction" in capsys.readouterr().err
    assert predict(small, "--run", other, "--out", tmp_path / "out") == 2
    assert "these differ: dim, dtype, reduction" in capsys.readouterr().err


def change_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["mean"][0] += 1
    save_file(tensors, path)


def change_mean(path: Path) -> None:
    """As `change_tensor`, the header kept."""
    games = bytearray(path.read_bytes())
    games[-1] ^= 1
    path.write_bytes(bytes(games))


@pytest.mark.parametrize("harm", [Path.unlink, change_tensor, change_mean, lambda path: path.write_bytes(b"x" * 50)])
def test_a_run_with_damaged_components_is_refused(
    predict: Cli,
    capsys: pytest.CaptureFixture[str],
    small: Path,
    run: Path,
    tmp_path: Path,
    harm: Callable[[Path], object],
) -> None:
    shutil.copytree(run, tmp_path / "run")
    harm(tmp_path / "run" / "reduction.safetensors")
    assert predict(small, "--run", tmp_path / "run", "--out", tmp_path / "out") == 2
    assert "reduction.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rows_are_verified_against_the_videos(
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    games: Path,
    small: Path,
    tmp_path: Path,
) -> None:
    like = Extractor.like  # with the engine that takes no time to build
    monkeypatch.setattr(Extractor, "like", lambda settings, weights: like(settings, weights=weights, kind="torch"))
    shutil.copytree(small, tmp_path / "s.zarr")
    assert bas("cache", "verify", tmp_path / "s.zarr", "--videos", games) == 0
    shard = tmp_path / "s.zarr" / "game-test" / "features" / "identity" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[:1600] = bytes(np.frombuffer(bytes(content[:1600]), np.uint8).reshape(100, 16)[::-1].tobytes())
    shard.write_bytes(bytes(content))
    metadata = shard.parents[2] / "zarr.json"
    document: Any = json.loads(metadata.read_text())
    del document["attributes"]["sha256"]
    metadata.write_text(json.dumps(document))
    assert bas("cache", "verify", tmp_path / "s.zarr", "--videos", games) == 2
    assert "differ from the video's" in capsys.readouterr().out.replace("\n", " ")


def test_extracting_into_it_and_finetuning_from_it_name_the_cure(
    bas: Cli, capsys: pytest.CaptureFixture[str], games: Path, small: Path, run: Path, tmp_path: Path
) -> None:
    assert bas("extract", games, "--out", small) == 2
    assert "bas cache pca FULL --out" in capsys.readouterr().err
    assert bas("finetune", games, "--from", run, "--out", tmp_path / "tuned") == 2
    assert "bas train-head FULL" in capsys.readouterr().err
    assert bas("extract", games, "--weights", run, "--out", tmp_path / "x.zarr") == 2
    assert "no backbone of its own" in capsys.readouterr().err


def test_a_run_of_an_ablation_takes_it(small: Path, run: Path, tmp_path: Path) -> None:
    settings = RunRecord.read(run).settings
    task = RunTask(row="tcn", settings=settings, store=small, out=tmp_path, split="test", device="cpu", cost=1.0)
    judged = run_seed(task)
    assert judged.means
    assert (task.run / "reduction.safetensors").read_bytes() == (run / "reduction.safetensors").read_bytes()
