"""Settings of a run: derived numbers, JSON, what differs, and what cannot be."""

import json
from typing import Any

import pytest

from bas.errors import InputError
from bas.heads.model import build_model
from bas.heads.training.settings import FinetuneSettings, TargetSettings, TrainSettings


def test_an_epoch_is_whole_batches() -> None:
    settings = TrainSettings(clip_len=50, batch=4, frames_per_epoch=500_000)
    assert (settings.steps_per_epoch, settings.clips_per_epoch) == (2500, 10_000)
    odd = TrainSettings(clip_len=7, batch=3, frames_per_epoch=100)
    assert (odd.steps_per_epoch, odd.clips_per_epoch) == (4, 12)
    assert TrainSettings(clip_len=50, batch=4, frames_per_epoch=1).steps_per_epoch == 1


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
        *({name: 0} for name in ("clip_len", "stride", "hop_rows", "frames_per_epoch", "epochs", "batch", "lr")),
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


def test_missing_fields_get_defaults_and_unknown_ones_are_refused_by_name() -> None:
    record = TrainSettings(lr=1e-3).to_json()
    without = {name: value for name, value in record.items() if name not in ("keep", "score_len")}
    assert TrainSettings.from_json(without, where="run.json") == TrainSettings(lr=1e-3)
    with pytest.raises(InputError, match=r"run\.json: unknown setting teacher"):
        TrainSettings.from_json(record | {"teacher": 0.1}, where="run.json")


def test_runs_from_before_the_schedule_keep_the_actionformer_of_their_time() -> None:
    record = TrainSettings(head="actionformer", options={"actionformer.num_levels": 4}).to_json()
    del record["schedule"]
    settings = TrainSettings.from_json(record, where="run.json")
    shapes = {
        name: tuple(each.shape) for name, each in build_model(settings, dim=8, num_classes=2).state_dict().items()
    }
    assert shapes["head.projections.0.conv.weight"] == (256, 8, 3)
    assert not any("scale_2w" in name or "num_positive" in name for name in shapes)
    assert sum("strided" in name and "merge.weight" in name for name in shapes) == 3
    assert "actionformer.width" not in TrainSettings.from_json(TrainSettings().to_json(), where="run.json").options


def test_the_former_name_of_frames_per_epoch_is_read() -> None:
    record = FinetuneSettings(frames_per_epoch=77, unfreeze=2).to_json()
    record["epoch_steps"] = record.pop("frames_per_epoch")
    assert FinetuneSettings.from_json(record, where="run.json") == FinetuneSettings(frames_per_epoch=77, unfreeze=2)


@pytest.mark.parametrize(
    "change",
    [
        *({"clip_len": "fifty"}, {"clip_len": 2.5}, {"epochs": True}, {"lr": None}, {"lr": -1.0}, {"head": 3}),
        *({"views": 3}, {"views": None}, {"views": [3]}, {"options": 5}, {"proj": "wide"}, {"inputs": "cooked"}),
    ],
)
def test_records_that_are_no_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"setting '{next(iter(change))}' is not usable"):
        TrainSettings.from_json(TrainSettings().to_json() | change, where="run.json")
