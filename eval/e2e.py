"""Mean average precision within a few frames, as E2E-Spot defines it.

Source: Hong et al., "Spotting Temporally Precise, Fine-Grained Events in Video", ECCV 2022. Predictions in order of
score each take the closest free event within delta frames (a half width, inclusive); all-point average precision with
the precision envelope; mean over the classes that have events. Of equal scores the earlier game and frame goes first,
of equal distances the earlier event.

Legend: D deltas, B blocks of time, C classes, R resamples, P predictions of one class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .spots import FloatArray, Game, IntArray, check_same_classes

DELTAS_FRAMES = (0, 1, 2, 4)
"""The tolerances that E2E-Spot reports."""


@dataclass(frozen=True)
class RankedClass:
    """Predictions of one class over all games, best first."""

    is_hit: NDArray[np.bool_]
    """(D, P)"""
    blocks: IntArray
    """(D, P) block of the matched event, or of the prediction itself."""
    events: FloatArray
    """(B,)"""


@dataclass(frozen=True)
class Ranked:
    """Matched predictions of every class."""

    classes: tuple[RankedClass, ...]
    """(C,)"""
    game_of_block: IntArray
    """(B,)"""

    def average_precision(self, weights: FloatArray | None = None) -> FloatArray:
        """(R, D, C), each block counted `weights` (R, B) times; NaN for a class without events."""
        times = np.ones((1, len(self.game_of_block))) if weights is None else weights
        return np.stack([[_all_point(ranked, row) for ranked in self.classes] for row in times]).swapaxes(1, 2)


def rank(games: Sequence[Game], deltas_frames: Sequence[int], *, block_frames: int | None = None) -> Ranked:
    """Match every class of every game.

    Args:
        games: with the same classes.
        deltas_frames: half widths, >= 0.
        block_frames: length of a block; None: each game is one block.

    Raises:
        InputError: no game, games with different numbers of classes, or a negative delta.
    """
    if not deltas_frames or min(deltas_frames) < 0:
        raise InputError("tolerances are not usable", got=list(deltas_frames), wanted="whole frames >= 0")
    num_classes = check_same_classes(games)
    lengths = [block_frames or max(game.num_frames, 1) for game in games]
    num_blocks = [max(1, -(-game.num_frames // length)) for game, length in zip(games, lengths, strict=True)]
    firsts = np.cumsum([0, *num_blocks[:-1]])
    classes = [
        _rank_class(games, class_index, deltas_frames, lengths, firsts, sum(num_blocks))
        for class_index in range(num_classes)
    ]
    return Ranked(tuple(classes), np.repeat(np.arange(len(games)), num_blocks))


def _rank_class(
    games: Sequence[Game],
    class_index: int,
    deltas_frames: Sequence[int],
    lengths: Sequence[int],
    first_blocks: IntArray,
    num_blocks: int,
) -> RankedClass:
    hits, blocks, scores, events = [], [], [], np.zeros(num_blocks)
    for game, length, first_block in zip(games, lengths, first_blocks, strict=True):
        event_frames, _ = game.events.of_class(class_index)
        frames, score = game.predictions.of_class(class_index)
        matched = np.stack([match_by_score(event_frames, frames, score, delta) for delta in deltas_frames])
        block = np.broadcast_to(frames // length, matched.shape).copy()
        block[matched >= 0] = event_frames[matched[matched >= 0]] // length
        hits.append(matched >= 0)
        blocks.append(first_block + block)
        scores.append(score)
        events += np.bincount(first_block + event_frames // length, minlength=num_blocks)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return RankedClass(np.concatenate(hits, axis=1)[:, order], np.concatenate(blocks, axis=1)[:, order], events)


def match_by_score(event_frames: IntArray, frames: IntArray, scores: FloatArray, delta_frames: int) -> IntArray:
    """Each prediction, best first, takes the closest free event.

    Args:
        event_frames: (E,) ascending.
        frames: (P,) ascending.
        scores: (P,).
        delta_frames: largest distance, inclusive.

    Returns:
        (P,) index of the event, or -1.
    """
    first = np.searchsorted(event_frames, frames - delta_frames, side="left")
    stop = np.searchsorted(event_frames, frames + delta_frames, side="right")
    matched = np.full(len(frames), -1, dtype=np.int64)
    # Best score first, unlike the official metric, where events choose in order of time; stable: of equals the earlier.
    near = np.nonzero(first < stop)[0]
    near = near[np.argsort(-scores[near], kind="stable")]
    is_free = [True] * len(event_frames)
    at = event_frames.tolist()
    for index, frame, low, high in zip(
        near.tolist(), frames[near].tolist(), first[near].tolist(), stop[near].tolist(), strict=True
    ):
        free = [event for event in range(low, high) if is_free[event]]
        if free:
            event = min(free, key=lambda event: abs(at[event] - frame))
            matched[index] = event
            is_free[event] = False
    return matched


def _all_point(ranked: RankedClass, weights: FloatArray) -> FloatArray:
    """(D,) area under the precision envelope, each block counted `weights` (B,) times."""
    total = float(weights @ ranked.events)
    if not total:
        return np.full(len(ranked.is_hit), np.nan)
    times = weights[ranked.blocks]
    hits = times * ranked.is_hit
    kept = times.cumsum(axis=1)
    precision = np.divide(hits.cumsum(axis=1), kept, out=np.zeros_like(kept), where=kept > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area: FloatArray = (envelope * hits).sum(axis=1) / total
    return area
