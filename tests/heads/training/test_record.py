"""`run.json`: everything comes back, and what differs between two runs is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.eval.peaks import PeakSettings
from bas.events import SOCCERNET_BALL_CLASSES
from bas.files import write_json_atomic
from bas.heads.recipes import RECIPES
from bas.heads.training.checkpoint import FORMAT, RUN, EpochLine, LoopState, RunRecord
from bas.heads.training.data import choose_matches
from bas.heads.training.evaluator import ValidationResult
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]


def record_of(store: FeatureStore, settings: TrainSettings, **changes: Any) -> RunRecord:
    return RunRecord.new(settings, choose_matches(store, **changes), store.settings, num_parameters=123)


def done(record: RunRecord) -> RunRecord:
    """With one epoch and chosen peaks."""
    result = ValidationResult(1 / 3, 0.25, {"PASS": 0.5, "DRIVE": 0.0})
    state = LoopState(epoch=1, best_epoch=1, best=result, history=[EpochLine(1, 0.1, 1e-3, 1 / 3, 0.25, 2.0, 1.0)])
    peaks = PeakSettings(kind="soft", window_frames=18)
    return replace(record.after(state), peaks=peaks, chosen=ValidationResult(0.5, 0.5, {"PASS": 1.0, "DRIVE": 0.0}))


def test_a_new_record_says_what_is_trained_on_what(store: FeatureStore, tiny: Tiny) -> None:
    record = record_of(store, tiny())
    assert not record.finished
    assert not record.is_soccernet
    assert record.train_matches == ("liga/a", "liga/b")
    assert record.valid_matches == ("liga/x",)
    assert record.features == store.settings
    assert sum(record.num_train_events.values()) == 44
    assert set(record.software) == {"bas", "torch", "python"}
    assert replace(record, classes=SOCCERNET_BALL_CLASSES).is_soccernet


@pytest.mark.parametrize("name", RECIPES)
def test_records_of_every_recipe_survive_the_disk(store: FeatureStore, tmp_path: Path, name: str) -> None:
    for record in (record_of(store, RECIPES[name].settings), done(record_of(store, RECIPES[name].settings))):
        record.write(tmp_path)
        assert RunRecord.read(tmp_path) == record
        json.loads((tmp_path / RUN).read_text(), parse_constant=pytest.fail)  # no NaN: plain JSON
    assert record.finished


@pytest.mark.parametrize(
    ("changes", "options", "names"),
    [
        ({"lr": 1e-3}, {}, ["lr"]),
        ({"seed": 1, "views": ("hflip",)}, {}, ["views", "seed"]),
        ({"options": {"tcn.kernel": 3}}, {}, ["options"]),
        ({}, {"classes": ["PASS"]}, ["classes"]),
        ({}, {"valid": ["liga/b"]}, ["train_matches", "valid_matches"]),
        ({"lr": 1e-3}, {"classes": ["PASS"]}, ["lr", "classes"]),
    ],
)
def test_what_differs_is_named_with_both_values(
    store: FeatureStore, tiny: Tiny, tmp_path: Path, changes: Any, options: Any, names: list[str]
) -> None:
    other, mine = record_of(store, tiny()), record_of(store, tiny(**changes), **options)
    with pytest.raises(InputError) as error:
        mine.require_same(other, out=tmp_path)
    assert error.value.what == f"{tmp_path}: holds a run with other settings; these differ: {', '.join(names)}"
    if "lr" in names:
        assert "lr=0.001" in str(error.value.got)
        assert "lr=0.005" in str(error.value.wanted)
    mine.require_same(done(mine), out=tmp_path)


def test_other_features_and_other_labels_are_noticed(
    store: FeatureStore, tiny: Tiny, make_store: Any, plan: Any, tmp_path: Path
) -> None:
    record = record_of(store, tiny())
    with pytest.raises(InputError, match="these differ: features"):
        record.require_same(replace(record, features=replace(record.features, stride=2)), out=tmp_path)
    few, more = (
        make_store(
            tmp_path / str(number),
            [plan("a", events=tuple((50 + 20 * each, "PASS") for each in range(number))), plan("v", "valid")],
        )
        for number in (4, 5)
    )
    with pytest.raises(InputError, match="these differ: labels"):
        record_of(few, tiny()).require_same(record_of(more, tiny()), out=tmp_path)


@pytest.mark.parametrize(
    "change", [{"best": {"mean": 1}}, {"history": [{}]}, {"settings": None}, {"classes": None}, {"peaks": [1]}]
)
def test_damaged_records_are_refused(store: FeatureStore, tiny: Tiny, tmp_path: Path, change: Any) -> None:
    write_json_atomic(tmp_path / RUN, {"format": FORMAT, **done(record_of(store, tiny())).to_json(), **change})
    with pytest.raises(InputError):
        RunRecord.read(tmp_path)
    record = {name: value for name, value in done(record_of(store, tiny())).to_json().items() if name not in change}
    write_json_atomic(tmp_path / RUN, {"format": FORMAT, **record})
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        RunRecord.read(tmp_path)
