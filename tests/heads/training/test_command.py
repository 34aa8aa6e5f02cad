"""`bas train-head`: it learns in seconds what is in time with its labels, and says what is wrong with exit code 2."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bas.cache.store import FeatureStore
from bas.commands.train_head import forecast
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.loop import EpochProgress

Cli = Callable[..., int]
TINY = ("--head", "tcn", "--clip-len", 16, "--hop", 4, "--frames-per-epoch", 384, "--epochs", 1, "--device", "cpu")
LEARN = (
    "--head",
    "tcn",
    "--proj",
    16,
    "--hop",
    5,
    "--lr",
    0.01,
    "--frames-per-epoch",
    8000,
    "--epochs",
    4,
    "--device",
    "cpu",
    "--json",
)


def sparse_store(make_store: Any, plan: Any, path: Path, *, shift_rows: int = 0) -> FeatureStore:
    """An event about every 4 seconds, so that one second of tolerance is little."""
    common = {"gap_rows": 100, "views": ("identity",), "shift_rows": shift_rows}
    plans = [plan("a", num_rows=4000, seed=1, **common), plan("v", "valid", num_rows=3000, seed=2, **common)]
    store: FeatureStore = make_store(path, plans)
    return store


def learned(bas: Cli, capsys: pytest.CaptureFixture[str], store: FeatureStore, out: Path) -> dict[str, Any]:
    assert bas("train-head", store.path, "--out", out, *LEARN) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    return record


def test_pulses_are_learned_in_seconds(
    bas: Cli, capsys: pytest.CaptureFixture[str], make_store: Any, plan: Any, tmp_path: Path
) -> None:
    record = learned(bas, capsys, sparse_store(make_store, plan, tmp_path / "s"), tmp_path / "run")
    assert record["history"][-1]["headline"] > 0.9
    assert record["best"]["headline"] > 0.9
    assert record["chosen"]["headline"] > 0.9
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {"format": "bas-run-1", **record}


def test_labels_three_seconds_late_are_not(
    bas: Cli, capsys: pytest.CaptureFixture[str], make_store: Any, plan: Any, tmp_path: Path
) -> None:
    store = sparse_store(make_store, plan, tmp_path / "s", shift_rows=75)
    record = learned(bas, capsys, store, tmp_path / "run")
    assert record["chosen"]["headline"] < 0.3


def test_options_become_settings(bas: Cli, store: FeatureStore, tmp_path: Path) -> None:
    options = (
        "--recipe anchor --set anchor.width=8 --set anchor.lengths_steps=4,6 --proj 3 --inputs standard --stride 1"
    )
    options += " --dilate 1 --mixup 0.2 --event-share 0.25 --views hflip,identity --patience 2"
    options += " --batch 3 --lr 0.001 --weight-decay 0.1"
    options += " --max-grad-norm 2 --ema 0.5 --keep last --score-len 30 --precision bf16 --seed 7 --classes DRIVE,PASS"
    options += " --valid liga/b --bank mapped --tolerance 0.4"
    assert bas("train-head", store.path, "--out", tmp_path / "run", *options.split(), *TINY[2:]) == 0
    record = RunRecord.read(tmp_path / "run")
    assert record.settings.to_json() == {
        "head": "anchor",
        "options": {"anchor.lengths_steps": "4,6", "anchor.event_steps": 8, "anchor.width": 8},
        "proj": 3,
        "loss": None,
        "dropout": None,
        "depth": None,
        "inputs": "standard",
        "clip_len": 16,
        "stride": 1,
        "hop_rows": 4,
        "views": ["hflip", "identity"],
        "dilate": 1,
        "sigma": 0.0,
        "mixup": 0.2,
        "event_share": 0.25,
        "frames_per_epoch": 384,
        "epochs": 1,
        "warmup_epochs": 3.0,
        "schedule": "cosine",
        "tolerance": 0.4,
        "patience": 2,
        "min_improvement": 0.01,
        "batch": 3,
        "lr": 0.001,
        "weight_decay": 0.1,
        "max_grad_norm": 2.0,
        "ema": 0.5,
        "precision": "bf16",
        "score_overlap": 0.5,
        "score_len": 30,
        "keep": "last",
        "seed": 7,
    }
    assert record.classes == ("DRIVE", "PASS")
    assert record.valid_matches == ("liga/b",)
    assert record.train_matches == ("liga/a",)


def test_what_is_seen(bas: Cli, capsys: pytest.CaptureFixture[str], store: FeatureStore, tmp_path: Path) -> None:
    assert bas("train-head", store.path, "--out", tmp_path / "run", *TINY) == 0
    shown = capsys.readouterr()
    assert "2 matches with 44 events train, 1 validate" in " ".join(shown.err.split())
    assert "epoch 1: loss" in shown.err
    for word in ("validation AP at 1 s", "PASS", "DRIVE", "epoch 1 of 1 is kept", "finished. Next: bas predict"):
        assert word in shown.out
    assert bas("train-head", store.path, "--out", tmp_path / "run", *TINY) == 0
    again = capsys.readouterr()
    assert again.out == shown.out
    assert "epoch" not in again.err


def test_a_recipe_for_another_backbone_says_so(
    bas: Cli, capsys: pytest.CaptureFixture[str], store: FeatureStore, tmp_path: Path
) -> None:
    for recipe, is_told in (("x3d_m-ed", True), ("bigru", False)):
        options = ("--recipe", recipe, "--head", "fc", *TINY[2:])
        assert bas("train-head", store.path, "--out", tmp_path / recipe, *options) == 0
        told = "recipe x3d_m-ed is for x3d_m with 5 blocks, the store holds import:pulses"
        assert (told in capsys.readouterr().err) == is_told


def test_recipes_are_listed_without_a_store(bas: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert bas("train-head", "--list") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("ed-focal", "unet_gru", "46.10", "heads: fc, tcn"):
        assert word in shown
    assert bas("train-head", "--list", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["recipes"]["ed"]["published"]["map_10"] == 46.1
    assert record["recipes"]["ed"]["settings"]["head"] == "ed"
    assert "bigru" in record["heads"]


REFUSED = {
    "store": ((), "STORE and --out are needed"),
    "recipe": (("--recipe", "sota"), "no such recipe"),
    "head": (("--head", "edd"), "no such head"),
    "set": (("--set", "tcn"), "--set is not usable"),
    "set name": (("--set", "tcn.size=3"), "no such setting of a head"),
    "set head": (("--set", "bigru.hidden=3"), "setting of a head that is not in 'tcn'"),
    "set value": (("--head", "bigru", "--set", "bigru.hidden=many"), "setting bigru.hidden is not usable"),
    "loss": (("--loss", "mse"), "Invalid value for '--loss'"),
    "inputs": (("--inputs", "cooked"), "Invalid value for '--inputs'"),
    "views": (("--views", "identity,crop"), "no view 'crop'"),
    "precision": (("--precision", "fp16"), "setting 'precision' is not usable"),
    "classes": (("--classes", "PASS,GOAL"), "the class list does not match"),
    "valid": (("--valid", "liga"), "names no single match"),
    "stride": (("--stride", "9"), "made for another stride"),
    "device": (("--device", "tpu"), "Invalid value for '--device'"),
    "bank": (("--bank", "disk"), "Invalid value for '--bank'"),
    "loss is no number": (("--lr", 9, "--weight-decay", 1e30), "the loss is no number in epoch 1"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_ends_with_code_2(
    bas: Cli,
    capsys: pytest.CaptureFixture[str],
    store: FeatureStore,
    tmp_path: Path,
    options: tuple[object, ...],
    message: str,
) -> None:
    place = (store.path, "--out", tmp_path / "run", *TINY) if options else ()
    assert bas("train-head", *place, *options) == 2
    shown = capsys.readouterr()
    assert not (tmp_path / "run" / "run.json").exists() or "no number" in message
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert not shown.out


def test_folders_that_do_not_fit_end_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], store: FeatureStore, make_store: Any, plan: Any, tmp_path: Path
) -> None:
    assert bas("train-head", store.path, "--out", tmp_path / "run", *TINY) == 0
    unlabelled = make_store(tmp_path / "bare", [plan("a", num_rows=100, is_labelled=False)], classes=())
    for where, out, options, message in (
        (store.path, "run", ("--lr", 0.5), "these differ: lr"),
        (store.path, "run", ("--seed", 1), "these differ: seed"),
        (store.path, ".", (), "a folder with other things in it"),
        (tmp_path / "missing", "new", (), "not a feature store"),
        (unlabelled.path, "new", (), "no labels"),
    ):
        assert bas("train-head", where, "--out", tmp_path / out, *TINY, *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_after_a_minute_a_run_says_how_long_it_takes_and_why() -> None:
    looks = EpochProgress(epoch=1, epochs=8, step=40, num_steps=100, loss=1.0, seconds_left=7200)
    assert forecast(looks) == "about 2.0 h of training left, should it not stop early; the limit is the network"
    assert "the limit is the network, 3 % of the time" in forecast(replace(looks, waiting_share=0.03))
    assert "the limit is decoding, 60 % of the time" in forecast(replace(looks, waiting_share=0.6))
