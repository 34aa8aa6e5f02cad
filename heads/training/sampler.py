"""Which windows an epoch sees, and in which order: a pure function of (seed, epoch)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def window_starts(num_rows: int, *, clip_len: int, stride: int, hop_rows: int) -> IntArray:
    """First rows of the windows of a match: every `hop_rows` from 0, and one that ends with the match.

    A match shorter than a window has one, which begins at 0 and is padded.

    Args:
        num_rows: rows of the match, >= 1.
        clip_len: steps of a window, >= 1.
        stride: rows per step, >= 1.
        hop_rows: rows between neighbouring starts, >= 1.
    """
    last = num_rows - ((clip_len - 1) * stride + 1)
    if last <= 0:
        return np.zeros(1, np.int64)
    return np.unique(np.append(np.arange(0, last + 1, hop_rows, dtype=np.int64), last))


def all_window_starts(
    matches: Sequence[tuple[int, int]], *, clip_len: int, stride: int, hop_rows: int
) -> tuple[IntArray, IntArray]:
    """Windows of several matches that lie one after the other.

    Args:
        matches: (first row, number of rows) of each.
        clip_len: as `window_starts`.
        stride: as `window_starts`.
        hop_rows: as `window_starts`.

    Returns:
        (W,) first row of each window, and (W,) last row of its match, both among all rows.
    """
    parts = [
        first + window_starts(num_rows, clip_len=clip_len, stride=stride, hop_rows=hop_rows)
        for first, num_rows in matches
    ]
    ends = [np.full(len(part), first + num_rows - 1) for part, (first, num_rows) in zip(parts, matches, strict=True)]
    return np.concatenate(parts), np.concatenate(ends).astype(np.int64)


def epoch_order(num_windows: int, *, num_clips: int, seed: int, epoch: int) -> IntArray:
    """Windows of an epoch, (num_clips,) indices 0..num_windows-1.

    Epochs follow each other through one endless row of shuffled passes: no window comes again before all have come,
    whatever an epoch's length.

    Args:
        num_windows: >= 1.
        num_clips: clips of every epoch, >= 1.
        seed: of the run, >= 0.
        epoch: from 0.
    """
    first, stop = epoch * num_clips, (epoch + 1) * num_clips
    passes = range(first // num_windows, -(-stop // num_windows))
    order = np.concatenate([np.random.default_rng([seed, number]).permutation(num_windows) for number in passes])
    skipped = first - passes[0] * num_windows
    return order[skipped : skipped + num_clips].astype(np.int64)


def epoch_views(num_views: int, *, num_batches: int, seed: int, epoch: int) -> IntArray:
    """(num_batches,) view of each batch of an epoch, 0..num_views-1: every view equally likely."""
    return np.random.default_rng([seed, epoch, 1]).integers(0, num_views, num_batches)
