"""`bas cache split`: parts of a match hold its rows, time stamps and labels, and train as any others."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bas.cache.split import TimeSplit, split_store
from bas.cache.store import FeatureStore
from bas.errors import InputError

Cli = Callable[..., int]


def test_parts_hold_the_rows_stamps_and_labels_of_their_time(pulse_store: Callable[..., Path], tmp_path: Path) -> None:
    whole = FeatureStore.open(pulse_store(tmp_path / "whole.zarr", num_rows=1000, splits=("train",)))
    match_id = whole.matches()[0]
    by_time = TimeSplit.parse("0.5/0.25/0.25", gap_seconds=2)
    summary = split_store(whole.path, tmp_path / "parts.zarr", by_time)
    assert summary.complete
    parts = FeatureStore.open(tmp_path / "parts.zarr")
    spans = {"train": (0, 500), "valid": (550, 750), "test": (800, 1000)}  # 25 rows a second
    wanted = whole.match(match_id).meta
    found = 0
    for split, (first, stop) in spans.items():
        part_id = f"{match_id}-{split}"
        info = parts.match(part_id)
        assert (info.num_rows, info.meta.split) == (stop - first, split)
        np.testing.assert_array_equal(parts.rows(part_id)[:], whole.rows(match_id)[first:stop])
        np.testing.assert_array_equal(parts.pts(part_id), whole.pts(match_id)[first:stop])
        assert info.meta.origin_ticks - wanted.origin_ticks == first * Fraction(1, 25) / wanted.time_base
        inside = [event for event in wanted.events() or [] if first <= wanted.grid.frame(event.position_ms) < stop]
        assert [(each.position_ms + 40 * first, each.label) for each in info.meta.events() or []] == [
            (each.position_ms, each.label) for each in inside
        ]
        found += len(inside)
    assert found > 3
    again = split_store(whole.path, tmp_path / "parts.zarr", by_time)
    assert {result.status for result in again.results} == {"already there"}


def test_one_labelled_match_trains_predicts_and_is_judged(
    bas: Cli, pulse_store: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts, run = (
        pulse_store(tmp_path / "whole.zarr", num_rows=2000, splits=("train",)),
        tmp_path / "parts.zarr",
        tmp_path / "run",
    )
    options = ("--head", "tcn", "--clip-len", 16, "--epochs", 1, "--frames-per-epoch", 128)
    assert bas("train-head", whole, "--out", run, *options) == 2
    assert "bas cache split" in capsys.readouterr().err
    assert bas("cache", "split", whole, "--out", parts, "--gap", 1) == 0
    assert bas("train-head", parts, "--out", run, *options) == 0
    assert bas("predict", parts, "--split", "test", "--run", run, "--out", tmp_path / "predictions") == 0
    assert bas("eval", parts, tmp_path / "predictions", "--split", "test") == 0


@pytest.mark.parametrize("text", ["0.7", "0.7/0.2", "0.7/0.3/0", "a/b", "1/0/0", "0.25/0.25/0.25/0.25", ""])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="shares of time are not usable"):
        TimeSplit.parse(text, gap_seconds=10)


def test_a_short_match_is_said_and_the_others_go_on(pulse_store: Callable[..., Path], tmp_path: Path) -> None:
    whole = pulse_store(tmp_path / "whole.zarr", num_rows=300)
    summary = split_store(whole, tmp_path / "parts.zarr", TimeSplit.parse("0.7/0.15/0.15", gap_seconds=10))
    assert not summary.complete
    assert "too short to be split" in summary.results[0].message
