"""`bas extract --weights RUN`: the backbone and the settings of a finetuned run, and what is wrong with its folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.extract.backbones import weights as run_folder
from bas.extract.backbones.weights import (
    BACKBONE,
    FinetunedRun,
    finetuned_run,
    load_weights,
    save_backbone_checkpoint,
    tensors_sha256,
)
from bas.extract.extractor import follow_run
from bas.extract.options import ExtractOptions
from bas.files import file_sha256
from bas.heads.training import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread", "known_graphs")
Cli = Callable[..., int]
SETTINGS: dict[str, Any] = {
    "fit": "stretch",
    "scaler": "swscale-area",
    "fps": "12.5",
    "window": 6,
    "hop": 3,
    "blend": "mean",
    "stride": 1,
}
"""None of them a default."""


def write_run(folder: Path, **changes: object) -> Path:
    """What `bas finetune` leaves of a small X3D: random weights, a little changed."""
    module, record = load_weights("x3d_xs", 4, "none")
    next(module.parameters()).data.mul_(1.5)
    plan = {name: SETTINGS[name] for name in ("window", "stride")}
    record = replace(record, **plan, width=64, height=36, mean=(0.5, 0.4, 0.3))
    folder.mkdir(parents=True)
    save_backbone_checkpoint(folder / BACKBONE, module, record)
    features = FeatureSettings(
        **SETTINGS,
        backbone="x3d_xs",
        depth=4,
        weights=BACKBONE,
        weights_sha256=tensors_sha256(module),
        dim=record.dim,
        width=64,
        height=36,
        mean=record.mean,
        std=record.std,
    )
    told = {"format": checkpoint.FORMAT, "features": features.to_json(), "best_epoch": 3, "peaks": {"kind": "hard"}}
    told |= {"train_matches": ["game-b", "game-c"], "valid_matches": ["game-d"]}
    (folder / "run.json").write_text(json.dumps(told | changes))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tuned")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_match(root / "game-a", seconds=3, seed=1)
    return root


@pytest.fixture
def edited(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run whose `run.json` says something else."""

    def edit(**changes: object) -> Path:
        shutil.copytree(run, tmp_path / "edited")
        record = json.loads((run / "run.json").read_text())
        (tmp_path / "edited" / "run.json").write_text(json.dumps(record | changes))
        return tmp_path / "edited"

    return edit


def test_names_and_format_are_those_that_heads_write() -> None:
    assert (run_folder.RUN, run_folder.FORMAT) == (checkpoint.RUN, checkpoint.FORMAT)


def test_a_store_follows_the_run_and_says_so(run: Path, data: Path, tmp_path: Path, bas: Cli) -> None:
    store = tmp_path / "s.zarr"
    assert bas("extract", data, "--out", store, "--weights", run, "--engine", "torch") == 0
    features = FinetunedRun.read(run).features
    made = FeatureStore.open(store)
    assert made.settings == features
    assert made.origin is not None
    assert made.origin.to_json() == {
        "name": "tuned",
        "file_sha256": file_sha256(run / BACKBONE),
        "run_sha256": file_sha256(run / "run.json"),
        "epoch": 3,
        "train_matches": ["game-b", "game-c"],
        "valid_matches": ["game-d"],
    }
    same = ("--backbone", "x3d_xs", "--size", "64x36", "--hop", 3, "--fps", "12.5")
    assert bas("extract", data, "--out", store, "--weights", run, "--engine", "torch", *same) == 0
    assert bas("cache", "verify", store, "--videos", data, "--weights", run) == 0


def test_the_file_alone_binds_less_and_gives_the_same_rows(run: Path, data: Path, tmp_path: Path, bas: Cli) -> None:
    backbone = ("--backbone", "x3d_xs", "--depth", 4, "--engine", "torch")
    plan = ("--fit", "stretch", "--scaler", "swscale-area", "--fps", "12.5", "--hop", 3, "--blend", "mean")
    by_file, by_run = tmp_path / "file.zarr", tmp_path / "run.zarr"
    assert bas("extract", data, "--out", by_file, "--weights", run / BACKBONE, *backbone, *plan) == 0
    assert bas("extract", data, "--out", by_run, "--weights", run, "--engine", "torch") == 0
    one, other = FeatureStore.open(by_file), FeatureStore.open(by_run)
    assert one.settings == other.settings
    assert np.array_equal(one.rows("game-a")[:], other.rows("game-a")[:])
    assert one.origin is not None
    assert (one.origin.name, one.origin.is_run) == (BACKBONE, False)
    assert bas("extract", data, "--out", by_file, "--weights", run, "--engine", "torch") == 0
    named = FeatureStore.open(by_file).origin  # now it is known which run that was
    assert named == other.origin
    loose = ("extract", data, "--out", tmp_path / "loose.zarr", "--weights", run / BACKBONE, *backbone)
    assert bas(*loose, "--hop", 6) == 0
    assert FeatureStore.open(tmp_path / "loose.zarr").settings.hop == 6


@pytest.mark.parametrize(
    ("arguments", "got", "wanted"),
    [
        (("--backbone", "x3d_s"), "backbone=x3d_s", "backbone=x3d_xs"),
        (("--depth", 5), "depth=5", "depth=4"),
        (("--size", "32x32"), "size=32x32", "size=64x36"),
        (("--fit", "pad"), "fit=pad", "fit=stretch"),
        (("--scaler", "swscale-bicubic"), "scaler=swscale-bicubic", "scaler=swscale-area"),
        (("--fps", "25"), "fps=25", "fps=12.5"),
        (("--window", 50), "window=50", "window=6"),
        (("--hop", 1, "--stride", 2), "hop=1, stride=2", "hop=3, stride=1"),
        (("--blend", "hann"), "blend=hann", "blend=mean"),
    ],
)
def test_options_that_contradict_the_run_are_refused_by_name(
    run: Path,
    data: Path,
    tmp_path: Path,
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    got: str,
    wanted: str,
) -> None:
    assert bas("extract", data, "--out", tmp_path / "s.zarr", "--weights", run, *arguments) == 2
    told = capsys.readouterr().err
    assert f"{run}: the run was trained with other settings: {arguments[0]}" in told
    assert f"got:    {got}\n" in told
    assert f"wanted: {wanted}\n" in told
    assert not (tmp_path / "s.zarr").exists()


def test_weights_that_are_no_run_change_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinetics").mkdir()
    for weights in (None, "none", "kinetics", "missing", "file.safetensors"):
        assert finetuned_run(weights) is None
        options = ExtractOptions(weights=weights, hop=3)
        assert follow_run(options) is options
    with pytest.raises(InputError, match="a folder without run"):
        finetuned_run("./kinetics")


def test_a_run_without_a_backbone_says_what_to_name_instead(edited: Callable[..., Path]) -> None:
    features = FinetunedRun.read(folder := edited()).features
    (folder / BACKBONE).unlink()
    record = json.loads((folder / "run.json").read_text())
    record["features"] = replace(features, weights="kinetics").to_json()
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"no backbone of its own(.|\n)*trained on a store(.|\n)*made with: kinetics"):
        FinetunedRun.read(folder)


def test_an_unfinished_run_is_refused_with_its_cure(edited: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"not finished(.|\n)*bas finetune .* --out"):
        FinetunedRun.read(edited(peaks=None))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "bas-run-9"}, "another format"),
        ({"features": 3}, "settings are not an object"),
        ({"features": {}}, "settings are not usable"),
        ({"best_epoch": None}, "damaged"),
        ({"train_matches": None}, "damaged"),
    ],
)
def test_a_damaged_record_is_told(edited: Callable[..., Path], changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        FinetunedRun.read(edited(**changes))


def test_a_backbone_that_the_run_does_not_tell_of_is_refused(
    edited: Callable[..., Path], data: Path, tmp_path: Path, bas: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = edited()
    module, record = load_weights("x3d_xs", 4, str(folder / BACKBONE))
    next(module.parameters()).data.view(-1)[0] += 1
    save_backbone_checkpoint(folder / BACKBONE, module, replace(record, window=7))
    assert bas("extract", data, "--out", tmp_path / "s.zarr", "--weights", folder) == 2
    told = capsys.readouterr().err
    assert "these differ: weights_sha256, window" in told
    assert "fetch the run's folder again" in told
    assert not (tmp_path / "s.zarr").exists()


def test_rows_are_named_as_the_run_names_them(edited: Callable[..., Path], run: Path) -> None:
    features = replace(FinetunedRun.read(run).features, weights="x3d-1").to_json()
    assert load_weights("x3d_xs", 4, str(edited(features=features)))[1].weights == "x3d-1"


def test_another_backbone_is_refused(run: Path) -> None:
    with torch.no_grad(), pytest.raises(InputError, match="another depth"):
        load_weights("x3d_xs", 5, str(run))
