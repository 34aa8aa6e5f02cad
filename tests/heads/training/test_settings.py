"""Settings of a run: derived numbers, JSON, what differs, and what cannot be."""

import json
from typing import Any

import pytest

from bas.errors import InputError
from bas.heads.training.settings import TargetSettings, TrainSettings


def test_an_epoch_is_whole_batches() -> None:
    settings = TrainSettings(clip_len=50, batch=4, epoch_steps=500_000)
    assert (settings.batches_per_epoch, settings.clips_per_epoch) == (2500, 10_000)
    odd = TrainSettings(clip_len=7, batch=3, epoch_steps=100)
    assert (odd.batches_per_epoch, odd.clips_per_epoch) == (4, 12)
    assert TrainSettings(clip_len=50, batch=4, epoch_steps=1).batches_per_epoch == 1


@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({}, TargetSettings()),
        ({"head": "ed+disp"}, TargetSettings(dilation_steps=2)),
        ({"head": "ed+disp", "dilate": 0}, TargetSettings()),
        ({"dilate": 3}, TargetSettings(dilation_steps=3)),
        ({"sigma": 1.5}, TargetSettings(sigma_steps=1.5)),
        ({"head": "ed+disp", "sigma": 1.5}, TargetSettings(sigma_steps=1.5)),
    ],
)
def test_labels_are_as_wide_as_asked_or_as_the_head_wants(changes: dict[str, Any], targets: TargetSettings) -> None:
    assert TrainSettings(**changes).targets == targets


def test_matches_are_scored_with_the_windows_of_training() -> None:
    plan = TrainSettings(clip_len=30, stride=3, score_overlap=0.75).scoring_plan
    assert (plan.window_steps, plan.stride, plan.overlap) == (30, 3, 0.75)
    assert TrainSettings(clip_len=30, score_len=100).scoring_plan.window_steps == 100


def test_every_field_survives_json() -> None:
    settings = TrainSettings(
        head="unet_gru+disp",
        options={"unet_gru.gru.hidden": 8, "unet_gru.widths": "8,16"},
        proj=16,
        loss="focal",
        inputs="standard",
        views=("identity", "hflip"),
        dilate=1,
        mixup=0.2,
        ema=0.99,
        precision="bf16",
        seed=2**62,
    )
    again = TrainSettings.from_json(json.loads(json.dumps(settings.to_json())), where="here")
    assert again == settings
    assert again.differing(settings) == []


def test_what_differs_is_named_and_what_is_written_otherwise_does_not() -> None:
    first = TrainSettings(options={"bigru.hidden": 8, "bigru.num_layers": 1}, lr=1)
    assert first.differing(TrainSettings(options={"bigru.num_layers": 1, "bigru.hidden": 8}, lr=1.0)) == []
    changed = TrainSettings(options={"bigru.hidden": 9, "bigru.num_layers": 1}, lr=1.0, seed=1, views=("hflip",))
    assert first.differing(changed) == ["options", "views", "seed"]


@pytest.mark.parametrize(
    "changes",
    [
        *({name: 0} for name in ("clip_len", "stride", "hop_rows", "epoch_steps", "epochs", "batch", "lr")),
        *({name: -1} for name in ("sigma", "mixup", "warmup_epochs", "patience", "min_improvement", "weight_decay")),
        *({name: -1} for name in ("max_grad_norm", "ema", "score_overlap", "seed", "dilate")),
        *({name: float("nan")} for name in ("lr", "sigma", "mixup", "ema", "weight_decay", "max_grad_norm")),
        {"weight_decay": float("inf")},
        {"lr": 10.0},
        {"ema": 1.0},
        {"score_overlap": 1.0},
        {"seed": 1 << 63},
        {"views": ()},
        {"precision": "int8"},
        {"loss": "mse"},
        {"keep": "first"},
        {"score_len": -1},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_values_that_cannot_be_are_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"setting '{next(iter(changes))}' is not usable"):
        TrainSettings(**changes)


def test_labels_are_dilated_or_soft() -> None:
    with pytest.raises(InputError, match="either dilated or soft"):
        TrainSettings(dilate=2, sigma=1.0)


def test_settings_of_another_version_are_refused() -> None:
    record = TrainSettings().to_json()
    for changed in (record | {"dropout": 0.1}, {name: value for name, value in record.items() if name != "lr"}):
        with pytest.raises(InputError, match=r"run\.json: settings do not fit this version of bas") as error:
            TrainSettings.from_json(changed, where="run.json")
        assert error.value.got == f"missing or unknown: {'dropout' if 'dropout' in changed else 'lr'}"
    with pytest.raises(InputError, match=r"run\.json: settings are damaged"):
        TrainSettings.from_json(record | {"clip_len": "fifty"}, where="run.json")
    with pytest.raises(InputError, match="setting 'lr' is not usable"):
        TrainSettings.from_json(record | {"lr": -1.0}, where="run.json")
    for views in (3, None):
        with pytest.raises(InputError, match=r"run\.json: settings are damaged"):
            TrainSettings.from_json(record | {"views": views}, where="run.json")
