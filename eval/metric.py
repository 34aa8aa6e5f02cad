"""SoccerNet's mean average precision over action spots (`average_mAP`), from its definition.

Source: Giancola et al., "SoccerNet: A scalable dataset for action spotting in soccer videos", CVPRW 2018, and the
behaviour of the pip package `SoccerNet` (version 2 of the metric), which the tests hold ours to.

Per class and tolerance delta: events in time order each take the highest-scoring free prediction within half of delta
on either side; precision and recall at 200 thresholds, pooled over games; 11-point interpolation; mean over classes, a
class without events counting as 0.

Legend: D deltas, V variants (all, visible, not shown), B blocks of time, C classes, H thresholds, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import InputError
from .spots import FloatArray, Game, IntArray, check_same_classes

NUM_THRESHOLDS = 200
THRESHOLDS = np.linspace(0.0, 1.0, NUM_THRESHOLDS)
RECALL_LEVELS = np.arange(11) / 10
UNSHOWN_FACTOR = 17 / 13
"""The package multiplies the mean over several deltas for events that are not shown by this (SoccerNet-v2 has them in
13 of its 17 classes). It means nothing for other class lists and is kept for equality; classes are not scaled."""

DELTAS_SECONDS: dict[str, tuple[int, ...]] = {
    **{f"at{seconds}": (seconds,) for seconds in range(1, 6)},
    "tight": tuple(range(1, 6)),
    "loose": tuple(range(5, 61, 5)),
    "team": (1,),
}
"""Official metrics by name; a delta is a full width: "at 1" is half a second either way."""


@dataclass(frozen=True)
class MetricSettings:
    """What the official metric depends on."""

    deltas_seconds: tuple[Fraction, ...]
    """Full widths of the tolerance, > 0; several are averaged by the trapezoid rule over their index."""
    fps: Fraction
    """Cells of the grid per second, > 0. The package's own default is 2."""

    def __post_init__(self) -> None:
        if not self.deltas_seconds or min(self.deltas_seconds) <= 0:
            raise InputError("tolerances are not usable", got=self.deltas_seconds, wanted="one or more, above zero")
        if self.fps <= 0:
            raise InputError("frame rate is not usable", got=self.fps, wanted="above zero, such as 25")

    @classmethod
    def named(cls, metric: str, *, fps: Fraction) -> "MetricSettings":
        """One of `DELTAS_SECONDS` at `fps`.

        Raises:
            InputError: no such metric.
        """
        if metric not in DELTAS_SECONDS:
            raise InputError("no such metric", got=metric, wanted=", ".join(DELTAS_SECONDS))
        return cls(tuple(map(Fraction, DELTAS_SECONDS[metric])), fps)

    @property
    def half_widths_frames(self) -> tuple[int, ...]:
        """(D,) largest distance in frames that still matches: floor(delta * fps / 2)."""
        return tuple(int(delta * self.fps / 2) for delta in self.deltas_seconds)


@dataclass(frozen=True)
class MeanAP:
    """Result of `average_map`; every value is 0 to 1, but for `mean_unshown` (see `UNSHOWN_FACTOR`)."""

    mean: float
    per_class: FloatArray
    """(C,)"""
    mean_visible: float
    per_class_visible: FloatArray
    """(C,)"""
    mean_unshown: float
    per_class_unshown: FloatArray
    """(C,)"""
    per_delta: FloatArray
    """(D, C), all events."""


@dataclass(frozen=True)
class Counts:
    """What precision and recall are made of, per block of time: sums over blocks are pooled counts."""

    true_positives: FloatArray
    """(D, V, B, C, H) matched predictions whose score reaches threshold h and no higher one."""
    predictions: FloatArray
    """(D, V, B, C, H) predictions, likewise. A matched one is counted in the block of its event."""
    events: FloatArray
    """(V, B, C)"""
    game_of_block: IntArray
    """(B,) index of the game that a block belongs to."""

    def average_precision(self, weights: FloatArray | None = None, *, variant: int = 0) -> FloatArray:
        """(R, D, C) average precision, each block counted `weights` (R, B) times; R is 1 without weights."""
        times = np.ones((1, len(self.game_of_block))) if weights is None else weights
        hits = np.einsum("rb,dbch->rdch", times, self.true_positives[:, variant], optimize=True)
        predictions = np.einsum("rb,dbch->rdch", times, self.predictions[:, variant], optimize=True)
        events = np.einsum("rb,bc->rc", times, self.events[variant], optimize=True)
        return interpolated_precision(hits, predictions, events[:, None, :])


def average_map(games: Sequence[Game], settings: MetricSettings) -> MeanAP:
    """The official metric over `games`, pooled.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    counts = count(games, settings)
    per_delta, visible, unshown = (counts.average_precision(variant=variant)[0] for variant in range(3))
    factor = UNSHOWN_FACTOR if len(settings.deltas_seconds) > 1 else 1.0
    return MeanAP(
        mean=float(over_deltas(per_delta).mean()),
        per_class=over_deltas(per_delta),
        mean_visible=float(over_deltas(visible).mean()),
        per_class_visible=over_deltas(visible),
        mean_unshown=float(over_deltas(unshown).mean() * factor),
        per_class_unshown=over_deltas(unshown),
        per_delta=per_delta,
    )


def over_deltas(values: FloatArray) -> FloatArray:
    """Trapezoid mean over the first axis, (D, ...) -> (...); with one delta its value."""
    if len(values) == 1:
        only: FloatArray = values[0]
        return only
    averaged: FloatArray = ((values[:-1] + values[1:]) / 2).sum(axis=0) / (len(values) - 1)
    return averaged


def count(games: Sequence[Game], settings: MetricSettings, *, block_frames: int | None = None) -> Counts:
    """Match every game and count by block.

    Args:
        games: with the same classes.
        settings: tolerances and frame rate.
        block_frames: length of a block; None: each game is one block.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    num_classes = check_same_classes(games)
    hits, predictions, events, game_of_block = [], [], [], []
    for index, game in enumerate(games):
        length = block_frames or max(game.num_frames, 1)
        num_blocks = max(1, -(-game.num_frames // length))
        parts = [
            _count_class(game, class_index, settings.half_widths_frames, length, num_blocks)
            for class_index in range(num_classes)
        ]
        hits.append(np.stack([part[0] for part in parts], axis=3))
        predictions.append(np.stack([part[1] for part in parts], axis=3))
        events.append(np.stack([part[2] for part in parts], axis=2))
        game_of_block += [index] * num_blocks
    return Counts(
        np.concatenate(hits, axis=2),
        np.concatenate(predictions, axis=2),
        np.concatenate(events, axis=1),
        np.array(game_of_block, dtype=np.int64),
    )


def _count_class(
    game: Game, class_index: int, half_widths_frames: Sequence[int], block_frames: int, num_blocks: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """True positives and predictions (D, V, B, H) and events (V, B) of one class of one game."""
    event_frames, shown = game.events.of_class(class_index)
    frames, scores = game.predictions.of_class(class_index)
    bins, nearest = threshold_bins(scores), nearest_shown(event_frames, shown, frames)
    own_block, event_block = frames // block_frames, event_frames // block_frames
    size = num_blocks * NUM_THRESHOLDS
    all_bins = own_block * NUM_THRESHOLDS + bins
    unmatched = [np.bincount(all_bins[chosen], minlength=size) for chosen in (slice(None), nearest > 0, nearest < 0)]
    hits = np.zeros((len(half_widths_frames), 3, size))
    predictions = np.zeros_like(hits)
    for d, half_width in enumerate(half_widths_frames):
        matched = match(event_frames, frames, scores, half_width)
        taken, block = matched[matched >= 0], event_block[matched >= 0]
        for v, chosen in enumerate((np.ones(len(taken), dtype=bool), nearest[taken] > 0, nearest[taken] < 0)):
            inside, where = taken[chosen], block[chosen]
            hits[d, v] = np.bincount(where * NUM_THRESHOLDS + bins[inside], minlength=size)
            # a matched prediction counts in the block of its event, so that both are drawn together by the bootstrap
            moved = np.bincount(all_bins[inside], minlength=size)
            predictions[d, v] = unmatched[v] + hits[d, v] - moved
    shape = (len(half_widths_frames), 3, num_blocks, NUM_THRESHOLDS)
    events = [np.bincount(event_block[chosen], minlength=num_blocks) for chosen in (shown != 0, shown > 0, shown < 0)]
    return hits.reshape(shape), predictions.reshape(shape), np.stack(events).astype(np.float64)


def match(event_frames: IntArray, frames: IntArray, scores: FloatArray, half_width_frames: int) -> IntArray:
    """Each event in turn takes the highest-scoring free prediction near it; of equal scores the earliest.

    Args:
        event_frames: (E,) ascending.
        frames: (P,) of the predictions, strictly ascending.
        scores: (P,) >= 0.
        half_width_frames: largest distance, inclusive.

    Returns:
        (E,) index of the prediction, or -1.
    """
    first = np.searchsorted(frames, event_frames - half_width_frames, side="left")
    stop = np.searchsorted(frames, event_frames + half_width_frames, side="right")
    matched = np.full(len(event_frames), -1, dtype=np.int64)
    free = scores.copy()
    # One event's choice changes the next one's: a loop over the events that have any prediction near them.
    near = np.nonzero(first < stop)[0]
    for event, low, high in zip(near.tolist(), first[near].tolist(), stop[near].tolist(), strict=True):
        best = low + int(free[low:high].argmax())
        if free[best] >= 0:  # -1: all near it are taken. A score of 0 is a prediction, in the package too
            matched[event] = best
            free[best] = -1.0
    return matched


def threshold_bins(scores: FloatArray) -> IntArray:
    """(P,) index of the highest of the 200 thresholds that each score (>= 0) reaches."""
    # A threshold of linspace is not exactly i / 199, so the product may be one off in either direction: compare with
    # the thresholds themselves, as the package does (a score that equals one reaches it).
    guess = (np.minimum(scores, 1.0) * (NUM_THRESHOLDS - 1)).astype(np.int64)
    guess -= THRESHOLDS[guess] > scores
    guess += THRESHOLDS[np.minimum(guess + 1, NUM_THRESHOLDS - 1)] <= scores
    return np.minimum(guess, NUM_THRESHOLDS - 1)


def nearest_shown(event_frames: IntArray, shown: FloatArray, frames: IntArray) -> FloatArray:
    """Whether the event nearest to each prediction is shown: +1 or -1; -1 where the game has no event.

    Half-way between two events the later one is nearest; the border is rounded down, as in the package.

    Args:
        event_frames: (E,) ascending.
        shown: (E,) +1 or -1.
        frames: (P,) ascending.
    """
    # The package marks each cell with the nearest event's visibility, and -1 (as for one that is not shown) where there
    # is no event at all: predictions of a game without events count among those of unshown ones.
    if not len(event_frames):
        return np.full(len(frames), -1.0)
    borders = np.searchsorted(frames, (event_frames[:-1] + event_frames[1:]) // 2)
    return np.repeat(shown, np.diff(borders, prepend=0, append=len(frames)))


def interpolated_precision(hits: FloatArray, predictions: FloatArray, events: FloatArray) -> FloatArray:
    """11-point interpolated average precision.

    Args:
        hits: (..., H) true positives by the highest threshold that they reach.
        predictions: (..., H) all predictions, likewise.
        events: (...) number of events; 0 gives 0.
    """
    # counts by the highest threshold reached -> counts by threshold: whoever reaches h reaches all below it
    reached = hits[..., ::-1].cumsum(axis=-1)[..., ::-1]
    kept = predictions[..., ::-1].cumsum(axis=-1)[..., ::-1]
    precision = np.divide(reached, kept, out=np.zeros_like(reached), where=kept > 0)
    total = np.broadcast_to(events[..., None], reached.shape)
    recall = np.divide(reached, total, out=np.zeros_like(reached), where=total > 0)
    # The best precision at any threshold with at least this recall. One event that is never found keeps recall below 1,
    # so that the eleventh level counts 0: a class with one miss reaches 10 / 11 at most.
    best = [np.where(recall >= level, precision, 0.0).max(axis=-1) for level in RECALL_LEVELS]
    averaged: FloatArray = np.sum(best, axis=0) / len(RECALL_LEVELS)
    return averaged
