"""The command `bas finetune`: its options reach the run, its errors end with exit code 2, and what it prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bas.cache.store import FeatureStore
from bas.commands.finetune import with_backbone_of
from bas.data.synthetic import write_match
from bas.extract.backbones.tensor_files import used_tensors
from bas.extract.backbones.weights import load_weights
from bas.extract.options import ExtractOptions
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.settings import FinetuneSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
SHORT = ["--batch=4", "--epochs=1", "--frames-per-epoch=64", "--device=cpu", "--engine=torch", "--decode-threads=1"]
QUICK = ["--size=48x32", "--head=fc", "--proj=0", "--clip-len=8", "--hop=4", "--warmup-epochs=0", *SHORT]
FRAMES = ("--backbone", "timm:test_resnet.r160_in1k", "--weights", "none")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A match to train and one to validate, 4 s each."""
    root = tmp_path_factory.mktemp("data")
    for seed, split in enumerate(("train", "valid")):
        write_match(root / split / f"game-{split}", seconds=4, seed=seed)
    return root


@pytest.fixture(scope="module")
def classes(data: Path) -> str:
    """Those that both matches have."""
    labels = [json.loads(path.read_text()) for path in sorted(data.rglob("Labels-ball.json"))]
    both = set.intersection(*({each["label"] for each in document["annotations"]} for document in labels))
    return ",".join(sorted(both))


def test_options_reach_the_run_and_the_next_command_is_named(
    bas: Cli, data: Path, classes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "--unfreeze 2 --norm batch --augment flip --accumulate 2 --backbone-lr 0.1 --lr 1e-3 --ema 0.5 --stride 1 "
    more += "--max-grad-norm 1 --keep last --seed 7 --mixup 0.2 --precision bf16 --checkpointing"
    run = tmp_path / "run"
    assert bas("finetune", data, "--out", run, *FRAMES, *QUICK, *more.split(), "--classes", classes) == 0
    told = capsys.readouterr()
    assert f"{run}: finished. Next: bas extract DATASET --weights {run} --out STORE" in told.out.replace("\n", "")
    said = " ".join(told.err.split())
    assert "2 of 5 blocks of timm:test_resnet.r160_in1k from none learn, clips of 48x32 on cpu" in said, said
    assert "Automatic Mixed Precision" not in said
    settings = RunRecord.read(run).settings
    assert isinstance(settings, FinetuneSettings)
    wanted: dict[str, Any] = {"unfreeze": 2, "norm": "batch", "augment": "flip", "accumulate": 2, "backbone_lr": 0.1}
    wanted |= {"lr": 1e-3, "ema": 0.5, "stride": 1, "max_grad_norm": 1.0, "keep": "last", "seed": 7, "mixup": 0.2}
    wanted |= {"precision": "bf16", "clip_len": 8, "hop_rows": 4, "batch": 4, "epochs": 1, "begun_from": ""}
    assert {name: getattr(settings, name) for name in wanted} == wanted
    assert bas("finetune", data, "--out", run, *FRAMES, *QUICK, *more.split(), "--classes", classes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["best_epoch"] == 1


def test_a_system_trains_by_its_recipe(bas: Cli, data: Path, classes: str, tmp_path: Path) -> None:
    """Small pictures and few steps; all that is not typed is the recipe's."""
    run, short = tmp_path / "run", ["--clip-len=8", "--hop=4", "--warmup-epochs=0", "--size=64x32", *SHORT]
    how = ("--recipe", "lromul", "--weights", "none", "--unfreeze", 7, "--checkpointing", "--classes", classes)
    assert bas("finetune", data, "--out", run, *how, *short) == 0
    record = RunRecord.read(run)
    settings, features = record.settings, record.features
    assert isinstance(settings, FinetuneSettings)
    assert (settings.head, settings.loss, settings.dilate, settings.augment) == ("fc", "bce_focal", 3, "strong")
    assert (features.backbone, features.window, features.stride) == ("stack15_efficientnetv2_b0", 8, 2)
    tuned, _ = load_weights(features.backbone, None, str(run))
    before, after = used_tensors(load_weights(features.backbone, None, "none")[0]), used_tensors(tuned)
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"conv2d_projection", "conv3d_encoder", "conv3d_projection", "global_pool"}


def test_from_follows_the_run(bas: Cli, data: Path, classes: str, tmp_path: Path, capsys: Any) -> None:
    assert bas("finetune", data, "--out", tmp_path / "one", *FRAMES, *QUICK, "--classes", classes) == 0
    begun = RunRecord.read(tmp_path / "one")
    short = ["--from", tmp_path / "one", *SHORT]
    assert bas("finetune", data, "--out", tmp_path / "two", *short, "--classes", classes) == 0
    again = RunRecord.read(tmp_path / "two")
    assert again.began_with == begun.features
    assert isinstance(again.settings, FinetuneSettings)
    assert len(again.settings.begun_from) == 64
    assert (again.settings.head, again.settings.clip_len, again.settings.hop_rows) == ("fc", 8, 4)
    capsys.readouterr()
    for more, message in (
        (["--head", "tcn"], "its head has other settings; these differ: head"),
        (["--classes", "PASS"], "its head knows other classes"),
        (["--backbone", "x3d_xs"], "a checkpoint of another backbone"),
    ):
        given = ["--classes", classes, *more] if "--classes" not in more else more
        assert bas("finetune", data, "--out", tmp_path / "no", *short, *given) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "no" / "run.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--unfreeze abc", "Invalid value for '--unfreeze'"),
        ("--unfreeze -1", "setting 'unfreeze' is not usable"),
        ("--precision fp16", "setting 'precision' is not usable"),
        ("--stride 6", "made for another stride"),
        ("--head edd", "no such head"),
        ("--norm layer", "Invalid value for '--norm'"),
        ("--augment all", "Invalid value for '--augment'"),
        ("--accumulate 3", "setting 'accumulate' is not usable"),
        ("--backbone-lr 0", "setting 'backbone_lr' is not usable"),
        ("--devices 0", "--devices is not usable"),
        ("--device tpu", "Invalid value for '--device'"),
        ("--decode-threads -1", "--decode-threads is not usable"),
        ("--size 48", "--size is not usable"),
        ("--classes UP", "the class list does not match"),
        ("--valid nobody", "--valid 'nobody' names no single match"),
        ("--with-valid", "--with-valid needs --valid"),
        ("--backbone x3d_xs --depth 9", "--depth does not fit the backbone"),
        ("--weights kinetics", "kinetics"),
        ("--from nowhere", "not a run"),
    ],
)
def test_what_cannot_be_used_ends_with_two(
    bas: Cli, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, message: str
) -> None:
    before = set(tmp_path.iterdir())
    assert bas("finetune", data, "--out", tmp_path / "run", *FRAMES, *QUICK, *more.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith(("bas: error: ", "Usage: "))
    assert message in told, told
    assert set(tmp_path.iterdir()) == before


def test_a_recipe_brings_backbone_and_size_where_none_are_asked_for(tmp_path: Path) -> None:
    system = with_backbone_of("t-deed", ExtractOptions(weights="none"))
    assert (system.backbone, system.size, system.weights) == ("regnety_008+gsf", (796, 448), "none")
    system = with_backbone_of("adaspot", ExtractOptions())
    assert (system.backbone, system.size) == ("regnety_002+adaspot", (796, 448))
    stages = with_backbone_of("x3d_m-unet_gru", ExtractOptions(size=(96, 64)))
    assert (stages.backbone, stages.depth, stages.size) == ("x3d_m", (2, 3, 4, 5), (96, 64))
    assert with_backbone_of("t-deed", ExtractOptions(backbone="x3d_s")).backbone == "x3d_s"
    assert with_backbone_of("fc", ExtractOptions(weights=str(tmp_path))).backbone is None  # a run says it itself
    assert with_backbone_of("small", ExtractOptions()) == ExtractOptions()


def test_adaspot_learns_and_its_rows_are_extracted_with_the_run(
    bas: Cli, data: Path, classes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = tmp_path / "run", tmp_path / "rows.zarr"
    more = ["--size=192x128", "--clip-len=8", "--hop=5", "--checkpointing", "--augment=flip"]
    asked = ["--backbone=timm:test_resnet+adaspot", "--weights=none", *more, *SHORT, "--precision=bf16"]
    assert bas("finetune", data, "--out", run, "--recipe=adaspot", *asked, "--classes", classes) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "all blocks of timm:test_resnet+adaspot from none learn, clips of 192x128" in said, said
    finetuned = RunRecord.read(run).settings
    assert isinstance(finetuned, FinetuneSettings)
    assert finetuned.augment == "flip"  # typed, and not the recipe's
    learnt = load_weights("timm:test_resnet+adaspot", None, str(run))[0].get_submodule("trunk").state_dict()
    random, _ = load_weights("timm:test_resnet+adaspot", None, "none")
    for name, tensor in random.get_submodule("trunk").named_parameters():
        assert not torch.equal(tensor, learnt[name]), name
    assert bas("extract", data / "valid", "--out", store, "--weights", run, "--engine=torch", "--device=cpu") == 0
    settings = FeatureStore.open(store).settings
    assert (settings.width, settings.height, settings.window, settings.stride) == (192, 128, 8, 2)
