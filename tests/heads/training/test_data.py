"""Matches, labels and targets of a run: the right row in every phase, and every store that cannot be trained on."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.events import SOCCERNET_BALL_CLASSES, Event, TimeGrid
from bas.heads.targets import NO_EVENT_STEPS
from bas.heads.training.data import (
    LabelledMatch,
    Matches,
    MatchLabels,
    choose_matches,
    concatenate,
    labelled_matches,
    row_targets,
    window_index,
)
from bas.heads.training.settings import TargetSettings

Make = Callable[..., FeatureStore]
PLAIN = TargetSettings()


def match(num_rows: int, *events: tuple[int, int]) -> LabelledMatch:
    return LabelledMatch("a", num_rows, Fraction(25), events, 0, events)


def targets_of(num_rows: int, *events: tuple[int, int], stride: int, **changes: Any) -> Any:
    given: dict[str, Any] = {"num_classes": 2, "settings": PLAIN, "class_counts": [5, 3]}
    return row_targets(match(num_rows, *events), stride=stride, **(given | changes))


@given(
    num_rows=st.integers(1, 60),
    stride=st.integers(1, 3),
    events=st.dictionaries(st.integers(0, 59), st.integers(1, 2), max_size=5),
)
def test_an_event_is_at_the_last_step_at_or_before_it_in_every_phase(
    num_rows: int, stride: int, events: dict[int, int]
) -> None:
    inside = {row: class_id for row, class_id in events.items() if row < num_rows}
    targets, _ = targets_of(num_rows, *sorted(inside.items()), stride=stride)
    wanted = np.zeros((num_rows, 2))
    for row, class_id in inside.items():
        for step_row in range(max(0, row - stride + 1), row + 1):  # one row of each phase
            wanted[step_row, class_id - 1] = 1
    np.testing.assert_array_equal(targets.presence_btk.numpy(), wanted)
    labels = targets.class_bt.numpy()
    np.testing.assert_array_equal(labels > 0, wanted.any(1))
    assert targets.mask_bt.all()


def test_displacements_count_steps_of_the_rows_own_phase() -> None:
    targets, _ = targets_of(12, (5, 1), stride=2)
    even = [row // 2 for row in range(0, 12, 2)]  # the event is at step 2 of both phases: rows 4 and 5
    assert targets.displacement_bt[0::2].tolist() == [2 - step for step in even]
    assert targets.displacement_bt[1::2].tolist() == [2 - step for step in even]
    assert targets.offset_btk[:, 0].tolist() == targets.displacement_bt.tolist()
    assert set(targets.offset_btk[:, 1].tolist()) == {NO_EVENT_STEPS}


def test_the_rarer_class_has_the_step_and_what_is_lost_is_counted() -> None:
    pair = ((10, 1), (11, 2))
    targets, num_lost = targets_of(30, *pair, stride=1)
    assert (targets.class_bt[10:12].tolist(), num_lost) == ([1, 2], 0)
    targets, num_lost = targets_of(30, *pair, stride=2)  # they share a step of phase 0, not of phase 1
    assert (targets.class_bt[9:12].tolist(), num_lost) == ([1, 2, 2], 0)
    same = ((10, 1), (10, 2))
    for counts, wins in (([5, 3], 2), ([3, 5], 1)):
        targets, num_lost = targets_of(30, *same, stride=2, class_counts=counts)
        assert (targets.class_bt[9:11].tolist(), num_lost) == ([wins, wins], 1)
        assert targets.presence_btk[10].tolist() == [1, 1]


def test_labels_widen_in_steps_of_each_phase() -> None:
    dilated, _ = targets_of(20, (8, 1), stride=2, settings=TargetSettings(dilation_steps=1))
    assert dilated.presence_btk[:, 0].nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 10]
    first, _ = targets_of(20, (0, 1), stride=2, settings=TargetSettings(dilation_steps=1))
    # phase 1 begins after the event, whose dilated label reaches its first step
    assert first.presence_btk[:, 0].nonzero().flatten().tolist() == [0, 1, 2]
    soft, _ = targets_of(20, (8, 1), stride=2, settings=TargetSettings(sigma_steps=1.0))
    for row, steps in ((8, 0), (7, 0), (6, 1), (5, 1), (10, 1), (12, 2)):
        assert soft.presence_btk[row, 0].item() == pytest.approx(np.exp(-0.5 * steps**2), abs=1e-6)


def test_a_match_shorter_than_the_stride_has_targets_too() -> None:
    targets, num_lost = targets_of(2, (1, 2), stride=3)
    assert targets.class_bt.tolist() == [2, 2]
    assert num_lost == 0


def test_matches_follow_each_other() -> None:
    parts = [targets_of(5, (1, 1), stride=1)[0], targets_of(4, (2, 2), stride=1)[0]]
    assert concatenate(parts).class_bt.tolist() == [0, 1, 0, 0, 0, 0, 0, 2, 0]


def test_windows_repeat_the_last_row_of_a_short_match() -> None:
    index_bt, mask_bt = window_index(np.array([0, 7]), np.array([3, 30]), clip_len=4, stride=2)
    assert index_bt.tolist() == [[0, 2, 3, 3], [7, 9, 11, 13]]
    assert mask_bt.tolist() == [[True, True, False, False], [True] * 4]


def test_labels_are_placed_on_the_grid(store: FeatureStore, plans: Any) -> None:
    for found, plan in zip(
        labelled_matches(Matches.of_store(store), store.matches(), store.classes), plans, strict=True
    ):
        ids = {"PASS": 1, "DRIVE": 2}
        assert found.events == tuple((row, ids[label]) for row, label in plan.placed())
        assert (found.id, found.num_rows, found.num_hidden) == (plan.id, plan.num_rows, 0)
        assert found.fps == Fraction(25)
    only = labelled_matches(Matches.of_store(store), ["liga/a"], ["DRIVE"])[0]
    num_drives = sum(label == "DRIVE" for _, label in plans[0].placed())
    assert (len(only.events), only.num_hidden) == (num_drives, len(plans[0].placed()) - num_drives)
    assert {class_id for _, class_id in only.events} == {1}


def test_events_behind_the_last_row_are_left_out(make_store: Make, plan: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [plan("a", num_rows=100, events=((50, "PASS"), (97, "PASS")), shift_rows=3)])
    assert labelled_matches(Matches.of_store(store), ["a"], ["PASS"])[0].events == ((53, 1),)


def test_events_of_rows_far_apart_keep_their_instants_for_the_metric() -> None:
    events = [Event(ms, "PASS") for ms in (0, 480, 960, 1000, 1480, 1499)]
    matches = Matches(
        "x", ("PASS",), {}, lambda _: MatchLabels(3, TimeGrid(Fraction(2)), events), "", may_be_coarse=True
    )
    (match,) = labelled_matches(matches, ["m"], ("PASS",))
    assert [row for row, _ in match.events] == [0, 0, 1, 2, 2, 2]  # at or before
    assert [cell for cell, _ in match.cells] == [0, 12, 24, 25, 37, 37]
    assert match.spots(1).frames.tolist() == [0, 12, 24, 25, 37]


def test_videos_are_not_read_so_coarsely() -> None:
    labels = MatchLabels(10, TimeGrid(Fraction(2)), [Event(0, "PASS")])
    videos = Matches("videos", ("PASS",), {"a": "train", "b": "valid"}, lambda _: labels, "")
    with pytest.raises(InputError, match="too few rows a second") as told:
        choose_matches(videos)
    assert "extract with --fps 25" in str(told.value)
    assert choose_matches(replace(videos, may_be_coarse=True)).fps == 2


def test_the_stores_splits_train_and_validate(store: FeatureStore) -> None:
    chosen = choose_matches(store)
    assert chosen.ids == ["liga/a", "liga/b", "liga/x"]
    assert [match.id for match in chosen.valid] == ["liga/x"]
    assert (chosen.classes, chosen.fps) == (("PASS", "DRIVE"), Fraction(25))
    assert sum(chosen.class_counts) == sum(len(match.events) for match in chosen.train)
    assert min(chosen.class_counts) > 0


def test_named_matches_validate_in_place_of_the_split(store: FeatureStore) -> None:
    chosen = choose_matches(store, valid=["/b", "liga/b"])
    assert [match.id for match in chosen.train] == ["liga/a"]
    assert [match.id for match in chosen.valid] == ["liga/b"]
    assert choose_matches(store, classes=["DRIVE"]).classes == ("DRIVE",)


Refusal = tuple[list[dict[str, Any]], dict[str, Any], str, str]
REFUSALS: dict[str, Refusal] = {
    "no label": (
        [{"id": "a", "is_labelled": False}, {"id": "b", "split": "valid"}],
        {},
        "match 'a' has no labels",
        "put Labels-ball.json beside its video",
    ),
    "unknown class": ([{"id": "a"}], {"classes": ["PASS", "GOAL"]}, "the class list does not match", "GOAL"),
    "no training match": ([{"id": "b", "split": "valid"}], {}, "no match in the split 'train'", "1 valid"),
    "no validation match": (
        [{"id": "a"}, {"id": "b", "split": "test"}, {"id": "d", "split": None}],
        {},
        "no match in the split 'valid'",
        "1 no split, 1 test, 1 train",
    ),
    "all validate": ([{"id": "a"}], {"valid": ["a"]}, "no match in the split 'train'", "1 train"),
    "rates differ": (
        [{"id": "a"}, {"id": "b", "split": "valid", "fps": 30}],
        {},
        "matches of different frame rates",
        "25, 30",
    ),
    "too few steps": (
        [{"id": "a"}, {"id": "b", "split": "valid"}],
        {"stride": 6},
        "made for another stride",
        "of which --stride 6 keeps 4.2",
    ),
    "a stride on few rows": (
        [{"id": "a", "fps": 2}, {"id": "b", "split": "valid", "fps": 2}],
        {"stride": 2},
        "made for another stride",
        "use --stride 1",
    ),
    "too few rows": (
        [{"id": "a", "fps": Fraction(1, 2)}, {"id": "b", "split": "valid", "fps": Fraction(1, 2)}],
        {},
        "too few rows a second",
        "wanted: at least 1",
    ),
    "ambiguous": (
        [{"id": "liga/a1"}, {"id": "liga/a2"}],
        {"valid": ["liga/a"]},
        "--valid 'liga/a' names no single match",
        "liga/a1, liga/a2",
    ),
    "unknown match": ([{"id": "a"}], {"valid": ["z"]}, "--valid 'z' names no single match", "got:    none"),
    "match of another split": (
        [{"id": "a"}, {"id": "t", "split": "test"}],
        {"valid": ["t"]},
        "--valid 't' names no single match",
        "wanted: a",
    ),
    "no event": (
        [{"id": "a"}, {"id": "b", "split": "valid", "events": ((50, "DRIVE"),)}],
        {"classes": ["PASS"]},
        "the split 'valid' has no event of the class list",
        "1 events of other classes",
    ),
}


@pytest.mark.parametrize(("matches", "options", "what", "detail"), REFUSALS.values(), ids=REFUSALS)
def test_stores_that_cannot_be_trained_on_are_refused(
    make_store: Make,
    plan: Any,
    tmp_path: Path,
    matches: list[dict[str, Any]],
    options: dict[str, Any],
    what: str,
    detail: str,
) -> None:
    store = make_store(tmp_path / "s", [plan(**{"num_rows": 100, **each}) for each in matches])
    with pytest.raises(InputError) as error:
        choose_matches(store, **options)
    assert what in error.value.what
    assert str(tmp_path / "s") in error.value.what
    assert detail in str(error.value)


def test_a_store_without_labels_or_matches_is_refused(make_store: Make, plan: Any, tmp_path: Path) -> None:
    bare = make_store(tmp_path / "bare", [plan("a", num_rows=100, is_labelled=False)], classes=())
    with pytest.raises(InputError, match="bare: no labels"):
        choose_matches(bare)
    with pytest.raises(InputError, match="none at all"):
        choose_matches(make_store(tmp_path / "empty", []))


def test_the_other_validation_matches_can_train_too(store: FeatureStore) -> None:
    usual = choose_matches(store)
    left_out = usual.train[0].id
    pooled = choose_matches(store, valid=[left_out], with_valid=True)
    assert [match.id for match in pooled.valid] == [left_out]
    assert sorted(match.id for match in pooled.train) == sorted(set(usual.ids) - {left_out})
    with pytest.raises(InputError, match="--with-valid needs --valid"):
        choose_matches(store, with_valid=True)


def test_an_exact_name_wins_over_the_parts_of_others(make_store: Make, plan: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [plan("a", num_rows=100), plan("ab", num_rows=100)])
    assert choose_matches(store, valid=["a"]).ids == ["ab", "a"]


def test_targets_are_float_and_whole(store: FeatureStore) -> None:
    chosen = choose_matches(store)
    targets, _ = row_targets(chosen.train[0], stride=2, num_classes=2, settings=PLAIN, class_counts=chosen.class_counts)
    assert targets.label_btn.shape == (chosen.train[0].num_rows, 3)
    torch.testing.assert_close(targets.label_btn.sum(1), torch.ones(chosen.train[0].num_rows))


def test_a_data_set_of_ones_own_trains_the_classes_that_it_labels(
    pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = FeatureStore.open(pulse_store(tmp_path / "two.zarr", classes=SOCCERNET_BALL_CLASSES))
    assert choose_matches(store).classes == ("PASS", "DRIVE")
