"""Batches: the rows and targets of their windows, the same from wherever one goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bas.cache.bank import Place, open_bank
from bas.cache.store import FeatureStore
from bas.heads.model import build_model
from bas.heads.targets import Targets, clip_targets
from bas.heads.training import data as examples_module
from bas.heads.training.data import Batch, Examples, choose_matches, epoch_order, epoch_views
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]


def examples_of(store: FeatureStore, settings: TrainSettings, place: Place = "ram") -> Examples:
    chosen = choose_matches(store)
    return Examples.of(chosen, open_bank(store, chosen.ids, views=settings.views, place=place), settings)


def assert_same(first: Batch, second: Batch) -> None:
    torch.testing.assert_close(first.features_btc, second.features_btc, rtol=0, atol=0)
    assert_same_targets(first.targets, second.targets)


def assert_same_targets(first: Targets, second: Targets) -> None:
    for name, tensor in vars(first).items():
        torch.testing.assert_close(tensor, getattr(second, name), rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("place", ["ram", "mapped"])
def test_batches_are_what_one_builds_by_hand(store: FeatureStore, tiny: Tiny, stride: int, place: Place) -> None:
    settings = tiny(stride=stride, hop_rows=7, views=("identity", "hflip"), seed=5)
    examples, chosen = examples_of(store, settings, place), choose_matches(store)
    order = epoch_order(examples.windows.num_windows, num_clips=24, seed=5, epoch=1)
    views = epoch_views(2, num_batches=6, seed=5, epoch=1)
    batches = list(examples.epoch(1))
    assert len(batches) == 6
    span, seen_views = (settings.clip_len - 1) * stride, set()
    for number, batch in enumerate(batches):
        assert batch.targets.mask_bt.all()
        for clip, window in enumerate(order.reshape(6, 4)[number]):
            first = int(examples.windows.first_row_w[window])
            match_number = int(first >= chosen.train[0].num_rows)
            match = chosen.train[match_number]
            start = first - match_number * chosen.train[0].num_rows
            assert 0 <= start <= match.num_rows - 1 - span
            view = settings.views[views[number]]
            seen_views.add(view)
            rows = store.rows(match.id, view)[start : start + span + 1 : stride].astype(np.float32)
            np.testing.assert_array_equal(batch.features_btc[clip].numpy(), rows)
            events = [((row - start) // stride, class_id) for row, class_id in match.events]
            wanted = clip_targets(events, num_steps=16, num_classes=2, class_counts=chosen.class_counts)[0]
            assert_same_targets(batch.targets.select(torch.tensor(clip)), wanted)
    assert seen_views == {"identity", "hflip"}


def test_a_share_of_the_windows_is_drawn_among_those_with_an_event(store: FeatureStore, tiny: Tiny) -> None:
    settings = tiny(clip_len=4, stride=2, hop_rows=3, frames_per_epoch=8_000)
    plain, drawn = (examples_of(store, tiny(**{**vars(settings), "event_share": share})) for share in (0.0, 0.5))
    every = plain.windows.index(np.arange(plain.windows.num_windows))
    has_event = plain.windows.targets_of(*every).presence_btk.amax((1, 2)).numpy() > 0
    share = has_event.mean()
    assert 0.05 < share < 0.6
    order = drawn.windows.batches(1).ravel()
    assert abs(has_event[order].mean() - (0.5 + 0.5 * share)) < 0.05
    assert set(order.tolist()) > set(np.flatnonzero(has_event).tolist())
    is_kept = order == plain.windows.batches(1).ravel()  # the others come in turn
    assert abs(is_kept.mean() - 0.5) < 0.05
    assert not has_event[order[is_kept]].all()
    np.testing.assert_array_equal(drawn.windows.batches(1).ravel(), order)
    assert not np.array_equal(drawn.windows.batches(2).ravel(), order)


@pytest.mark.parametrize("first_step", [1, 3, 5, 6])
def test_going_on_gives_the_rest_of_the_epoch(store: FeatureStore, tiny: Tiny, first_step: int) -> None:
    examples = examples_of(store, tiny(views=("identity", "hflip")))
    whole, rest = list(examples.epoch(2)), list(examples.epoch(2, first_step=first_step))
    assert len(rest) == 6 - first_step
    for wanted, found in zip(whole[first_step:], rest, strict=True):
        assert_same(found, wanted)


def test_epochs_and_seeds_differ(store: FeatureStore, tiny: Tiny) -> None:
    first = next(examples_of(store, tiny()).epoch(0)).features_btc
    assert not torch.equal(first, next(examples_of(store, tiny()).epoch(1)).features_btc)
    assert not torch.equal(first, next(examples_of(store, tiny(seed=1)).epoch(0)).features_btc)
    assert torch.equal(first, next(examples_of(store, tiny()).epoch(0)).features_btc)


def test_matches_shorter_than_a_window_repeat_their_last_row(
    make_store: Any, plan: Any, tmp_path: Path, tiny: Tiny
) -> None:
    plans = [
        plan("a", num_rows=20, events=((9, "PASS"), (19, "DRIVE"))),
        plan("b", num_rows=200, seed=2),
        plan("v", "valid", num_rows=100),
    ]
    store = make_store(tmp_path / "s", plans)
    examples = examples_of(store, tiny(hop_rows=60))  # a window spans 31 rows
    seen = {True: 0, False: 0}
    for batch in examples.epoch(0):
        for clip, is_real in enumerate(batch.targets.mask_bt.all(1).tolist()):
            seen[is_real] += 1
            if not is_real:
                assert batch.targets.mask_bt[clip].tolist() == [True] * 10 + [False] * 6
                rows = torch.from_numpy(store.rows("a")[::2].astype(np.float32))
                torch.testing.assert_close(batch.features_btc[clip, :10], rows, rtol=0, atol=0)
                last = torch.from_numpy(store.rows("a")[-1:].astype(np.float32))
                assert torch.equal(batch.features_btc[clip, 10:], last.expand(6, -1))
                assert batch.targets.class_bt[clip, :10].nonzero().flatten().tolist() == [4, 9]
    assert seen[True] > 0
    assert seen[False] > 0


def test_repeated_rows_give_no_loss(make_store: Any, plan: Any, tmp_path: Path, tiny: Tiny) -> None:
    plans = [plan("a", num_rows=20, events=((9, "PASS"), (19, "DRIVE"))), plan("v", "valid", num_rows=100)]
    store = make_store(tmp_path / "s", plans)
    settings = tiny(head="fc", batch=1)
    batch = next(examples_of(store, settings).epoch(0))
    model = build_model(settings, dim=4, num_classes=2).eval()
    wanted = clip_targets([(4, 1), (9, 2)], num_steps=10, num_classes=2)[0].select(torch.arange(10)[None])
    short = model.loss(model(batch.features_btc[:, :10]), wanted)
    torch.testing.assert_close(model.loss(model(batch.features_btc), batch.targets), short)


def test_events_that_softmax_cannot_show_are_counted(make_store: Any, plan: Any, tmp_path: Path, tiny: Tiny) -> None:
    crowded = plan("a", num_rows=90, events=((20, "PASS"), (20, "DRIVE"), (50, "PASS"), (50, "DRIVE"), (70, "PASS")))
    other = plan("b", num_rows=90, events=((20, "PASS"), (20, "DRIVE")))
    store = make_store(tmp_path / "s", [crowded, other, plan("v", "valid", num_rows=90)])
    assert examples_of(store, tiny()).windows.num_lost == 3


def test_inputs_are_fitted_on_training_rows_spread_evenly(
    store: FeatureStore, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(store, tiny(views=("hflip", "identity")))
    rows = [store.rows(match_id, "hflip")[:].astype(np.float32) for match_id in ("liga/a", "liga/b")]
    np.testing.assert_array_equal(examples.sample_rows().numpy(), np.concatenate(rows))
    monkeypatch.setattr(examples_module, "_FIT_ROWS", 200)
    np.testing.assert_array_equal(examples.sample_rows().numpy(), np.concatenate([each[::5] for each in rows]))
    mapped = examples_of(store, tiny(views=("hflip", "identity")), "mapped")
    np.testing.assert_array_equal(mapped.sample_rows().numpy(), examples.sample_rows().numpy())
