"""Which windows an epoch sees: every row that a window can reach, within its match, without replacement."""

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bas.heads.training.data import Chosen, LabelledMatch, Windows, epoch_order, epoch_views, window_starts
from bas.heads.training.settings import TrainSettings

sizes = st.integers(1, 400)
small = st.integers(1, 40)


@given(num_rows=sizes, clip_len=small, stride=st.integers(1, 4), hop=small)
def test_windows_stay_inside_and_cover_what_they_can(num_rows: int, clip_len: int, stride: int, hop: int) -> None:
    starts = window_starts(num_rows, clip_len=clip_len, stride=stride, hop_rows=hop)
    span = (clip_len - 1) * stride + 1
    assert (np.diff(starts) > 0).all()
    if num_rows <= span:
        assert starts.tolist() == [0]
        return
    assert starts[0] == 0
    assert starts[-1] == num_rows - span  # the last ends with the match
    assert np.diff(starts).max() <= hop
    rows = (starts[:, None] + stride * np.arange(clip_len)).ravel()
    assert rows.max() == num_rows - 1
    hop_covers_its_phase = hop % stride == 0 and hop <= clip_len * stride
    if hop_covers_its_phase:
        assert set(range(0, starts[-1] + 1, stride)) <= set(rows.tolist())
    if stride == 1 and hop <= clip_len:
        assert set(rows.tolist()) == set(range(num_rows))


def test_the_seeds_overlap_of_90_percent_is_a_hop_of_10_rows() -> None:
    starts = window_starts(100_000, clip_len=50, stride=2, hop_rows=10)
    assert (np.diff(starts[:-1]) == 10).all()
    assert starts[-1] == 100_000 - 99
    exact = window_starts(1099, clip_len=50, stride=2, hop_rows=10)
    assert exact.tolist() == list(range(0, 1001, 10))  # the end is on the grid: no window twice


@given(lengths=st.lists(sizes, min_size=1, max_size=5), clip_len=small, stride=st.integers(1, 3), hop=small)
def test_no_window_leaves_its_match(lengths: list[int], clip_len: int, stride: int, hop: int) -> None:
    firsts = np.cumsum([0, *lengths])[:-1]
    matches = list(zip(firsts.tolist(), lengths, strict=True))
    train = tuple(LabelledMatch("a", length, Fraction(25), (), 0, ()) for length in lengths)
    settings = TrainSettings(clip_len=clip_len, stride=stride, hop_rows=hop)
    windows = Windows.of(Chosen(train, (), ("PASS",), Fraction(25)), settings, device=torch.device("cpu"))
    assert windows.first_row_m.tolist() == firsts.tolist()
    assert set(windows.last_row_w.tolist()) == {start + length - 1 for start, length in matches}
    for window, end in zip(windows.first_row_w.tolist(), windows.last_row_w.tolist(), strict=True):
        start, length = next(match for match in matches if match[0] + match[1] - 1 == end)
        assert start <= window
        assert window + (clip_len - 1) * stride <= end or (window == start and length <= (clip_len - 1) * stride + 1)


@given(num_windows=st.integers(1, 50), num_clips=st.integers(1, 120), seed=st.integers(0, 2**40))
def test_epochs_walk_through_shuffled_passes_without_replacement(num_windows: int, num_clips: int, seed: int) -> None:
    epochs = [epoch_order(num_windows, num_clips=num_clips, seed=seed, epoch=epoch) for epoch in range(5)]
    assert all(epoch.shape == (num_clips,) for epoch in epochs)
    row = np.concatenate(epochs)
    for start in range(0, len(row) - num_windows + 1, num_windows):  # passes cross the borders of epochs
        assert sorted(row[start : start + num_windows]) == list(range(num_windows))
    rest = row[len(row) // num_windows * num_windows :]
    assert len(set(rest.tolist())) == len(rest)


def test_order_and_views_are_functions_of_seed_and_epoch() -> None:
    order = {
        (seed, epoch): epoch_order(500, num_clips=300, seed=seed, epoch=epoch).tolist()
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len({tuple(each) for each in order.values()}) == 6
    assert epoch_order(500, num_clips=300, seed=1, epoch=2).tolist() == order[1, 2]
    views = {
        (seed, epoch): epoch_views(3, num_batches=300, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({tuple(each.tolist()) for each in views.values()}) == 4
    assert epoch_views(3, num_batches=300, seed=1, epoch=0).tolist() == views[1, 0].tolist()
    for each in views.values():
        assert np.bincount(each, minlength=3).min() > 60
