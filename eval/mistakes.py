"""What became of every event and every prediction: found, missed, of the wrong class, badly timed, double, false.

Pairs are those of the official metric. Beyond it, an event that is not found is compared with the predictions that are
left over: of another class within the tolerance, or of its own class within a wider one.

Legend: E events and P predictions of a game in order of time, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .metric import match, threshold_bins
from .spots import FloatArray, Game, IntArray, Spots


class OutcomeKind(IntEnum):
    """What became of an event or a prediction."""

    BELOW = 0
    """A prediction below its class's threshold: as if it were not there."""
    HIT = 1
    """An event and a prediction that belong together."""
    WRONG_CLASS = 2
    """An event that is not found, and the surest prediction of another class within the tolerance."""
    BADLY_TIMED = 3
    """An event that is not found, and the surest prediction of its class within the wide tolerance."""
    MISSED = 4
    """An event with nothing of the kind."""
    DOUBLE = 5
    """A further prediction within the tolerance of an event that is found."""
    FALSE_ALARM = 6
    """A prediction with nothing of the kind."""


_Rank = tuple[float, float, int, int]
MISTAKES = (
    OutcomeKind.MISSED,
    OutcomeKind.WRONG_CLASS,
    OutcomeKind.BADLY_TIMED,
    OutcomeKind.FALSE_ALARM,
    OutcomeKind.DOUBLE,
)


@dataclass(frozen=True)
class TimeOrdered:
    """Spots in order of time, then of class."""

    frames: IntArray
    """(N,)"""
    classes: IntArray
    """(N,)"""
    values: FloatArray
    """(N,) as in `Spots`."""
    order: IntArray
    """(N,) their index in the `Spots`."""

    @classmethod
    def of(cls, spots: Spots) -> "TimeOrdered":
        """All spots of all classes."""
        classes = np.repeat(np.arange(spots.num_classes), spots.counts)
        order = np.lexsort((classes, spots.frames))
        return cls(spots.frames[order], classes[order], spots.values[order], order)

    def keep(self, is_kept: NDArray[np.bool_]) -> "TimeOrdered":
        """Only the spots where `is_kept` (N,)."""
        return TimeOrdered(self.frames[is_kept], self.classes[is_kept], self.values[is_kept], self.order[is_kept])


@dataclass(frozen=True)
class Matched:
    """A game in order of time, with the official pairs."""

    events: TimeOrdered
    predictions: TimeOrdered
    prediction_of: IntArray
    """(E,) index of the prediction that each event takes, whatever its score; -1 where there is none."""

    @property
    def bins(self) -> IntArray:
        """(P,) index of the highest threshold that each prediction reaches."""
        return threshold_bins(self.predictions.values)

    def keep(self, is_kept: NDArray[np.bool_]) -> "Matched":
        """Only the predictions where `is_kept` (P,); those of pairs must be among them."""
        place = np.append(np.where(is_kept, np.cumsum(is_kept) - 1, -1), -1)
        return Matched(self.events, self.predictions.keep(is_kept), place[self.prediction_of])


def match_game(game: Game, half_width_frames: int) -> Matched:
    """The official pairs of every class within `half_width_frames`."""
    events, predictions = TimeOrdered.of(game.events), TimeOrdered.of(game.predictions)
    place = np.empty(len(predictions.order), dtype=np.int64)
    place[predictions.order] = np.arange(len(place))
    taken = [np.zeros(0, dtype=np.int64)]
    for c in range(game.num_classes):
        frames, scores = game.predictions.of_class(c)
        matched = match(game.events.of_class(c)[0], frames, scores, half_width_frames)
        taken.append(np.where(matched >= 0, matched + game.predictions.starts[c], -1))
    of_spots = np.concatenate(taken)[events.order]
    prediction_of = np.full(len(of_spots), -1, dtype=np.int64)
    prediction_of[of_spots >= 0] = place[of_spots[of_spots >= 0]]
    return Matched(events, predictions, prediction_of)


@dataclass(frozen=True)
class Outcomes:
    """What became of a game at given thresholds."""

    event_kinds: IntArray
    """(E,) of `OutcomeKind`: HIT, WRONG_CLASS, BADLY_TIMED or MISSED."""
    event_partners: IntArray
    """(E,) index of its prediction, or -1."""
    prediction_kinds: IntArray
    """(P,) of `OutcomeKind`, all but MISSED."""
    prediction_partners: IntArray
    """(P,) index of its event, or -1."""


def find_outcomes(matched: Matched, thresholds: Sequence[int], *, half_width_frames: int, wide_frames: int) -> Outcomes:
    """What became of every event and prediction.

    Args:
        matched: the game.
        thresholds: (C,) index of the metric's threshold below which predictions of a class do not count.
        half_width_frames: tolerance of hits and wrong classes.
        wide_frames: tolerance of bad timing, larger.
    """
    events, predictions = matched.events, matched.predictions
    is_visible = matched.bins >= np.asarray(thresholds)[predictions.classes]
    event_kinds = np.full(len(events.frames), int(OutcomeKind.MISSED), dtype=np.int64)
    event_partners = np.full(len(events.frames), -1, dtype=np.int64)
    kinds = np.where(is_visible, int(OutcomeKind.FALSE_ALARM), int(OutcomeKind.BELOW)).astype(np.int64)
    partners = np.full(len(kinds), -1, dtype=np.int64)

    def join(event: int, prediction: int, kind: OutcomeKind) -> None:
        event_kinds[event] = kinds[prediction] = kind
        event_partners[event], partners[prediction] = prediction, event

    has_hit = (matched.prediction_of >= 0) & np.append(is_visible, False)[matched.prediction_of]
    for event in np.nonzero(has_hit)[0].tolist():
        join(event, int(matched.prediction_of[event]), OutcomeKind.HIT)
    scores = predictions.values.astype(np.float32)  # what a report page holds: both choose alike
    for kind, reach, own_class in (
        (OutcomeKind.WRONG_CLASS, half_width_frames, False),
        (OutcomeKind.BADLY_TIMED, wide_frames, True),
    ):
        low = np.searchsorted(predictions.frames, events.frames - reach, side="left")
        stop = np.searchsorted(predictions.frames, events.frames + reach, side="right")
        for event in np.nonzero(event_kinds == OutcomeKind.MISSED)[0].tolist():
            near = slice(int(low[event]), int(stop[event]))
            is_own = predictions.classes[near] == events.classes[event]
            is_free = (kinds[near] == OutcomeKind.FALSE_ALARM) & (is_own == own_class)
            if is_free.any():
                join(event, near.start + int(np.where(is_free, scores[near], -1).argmax()), kind)
    _find_doubles(matched, event_kinds, kinds, partners, half_width_frames)
    return Outcomes(event_kinds, event_partners, kinds, partners)


def _find_doubles(
    matched: Matched, event_kinds: IntArray, kinds: IntArray, partners: IntArray, half_width_frames: int
) -> None:
    """Turn false alarms near a found event of their class into doubles of the nearest, of equal ones the earlier."""
    events, predictions = matched.events, matched.predictions
    for c in np.unique(events.classes).tolist():
        found = np.nonzero((events.classes == c) & (event_kinds == OutcomeKind.HIT))[0]
        left = np.nonzero((predictions.classes == c) & (kinds == OutcomeKind.FALSE_ALARM))[0]
        if not len(found):
            continue
        after = np.searchsorted(events.frames[found], predictions.frames[left])
        sides = np.stack([found[np.maximum(after - 1, 0)], found[np.minimum(after, len(found) - 1)]])
        distances = np.abs(events.frames[sides] - predictions.frames[left])
        nearest = sides[distances.argmin(axis=0), np.arange(len(left))]
        is_double = distances.min(axis=0, initial=half_width_frames + 1) <= half_width_frames
        kinds[left[is_double]], partners[left[is_double]] = int(OutcomeKind.DOUBLE), nearest[is_double]


def confusion(matched: Sequence[Matched], outcomes: Sequence[Outcomes], num_classes: int) -> IntArray:
    """(C + 1, C + 1) counts over games: true class by predicted class within the tolerance.

    The last column counts events that nothing was found for within the tolerance, the last row predictions that belong
    to no event; the corner is 0.
    """
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for game, outcome in zip(matched, outcomes, strict=True):
        is_paired = np.isin(outcome.event_kinds, (OutcomeKind.HIT, OutcomeKind.WRONG_CLASS))
        of_prediction = np.append(game.predictions.classes, num_classes)
        columns = np.where(is_paired, of_prediction[outcome.event_partners], num_classes)
        np.add.at(table, (game.events.classes, columns), 1)
        is_left = np.isin(
            outcome.prediction_kinds, (OutcomeKind.BADLY_TIMED, OutcomeKind.DOUBLE, OutcomeKind.FALSE_ALARM)
        )
        table[num_classes] += np.bincount(game.predictions.classes[is_left], minlength=num_classes + 1)
    return table


@dataclass(frozen=True)
class Mistake:
    """One event or prediction that came out wrong."""

    kind: OutcomeKind
    game: int
    """Index."""
    event: int
    """Index in order of time, or -1."""
    prediction: int
    """Index in order of time, or -1."""
    confidence: float
    """Of the prediction; for a missed event of the one it takes below the threshold, 0 where there is none."""


def worst(matched: Sequence[Matched], outcomes: Sequence[Outcomes], *, count: int) -> list[Mistake]:
    """Up to `count` mistakes of each kind, worst first: surest where there is a prediction, blindest where none is.

    Events that are not shown come after those that are.
    """
    found: list[Mistake] = []
    for kind in MISTAKES:
        ranked = [
            (rank, mistake)
            for game, (each, outcome) in enumerate(zip(matched, outcomes, strict=True))
            for rank, mistake in _mistakes(game, each, outcome, kind)
        ]
        found += [mistake for _, mistake in sorted(ranked, key=lambda pair: pair[0])[:count]]
    return found


def _mistakes(game: int, matched: Matched, outcome: Outcomes, kind: OutcomeKind) -> list[tuple[_Rank, Mistake]]:
    """The lowest rank is worst."""
    scores = np.append(matched.predictions.values, 0.0)
    found: list[tuple[_Rank, Mistake]] = []
    if kind == OutcomeKind.MISSED:
        for event in np.nonzero(outcome.event_kinds == kind)[0].tolist():
            confidence = float(scores[matched.prediction_of[event]])
            rank = (float(matched.events.values[event] < 0), confidence, game, event)
            found.append((rank, Mistake(kind, game, event, -1, confidence)))
        return found
    for prediction in np.nonzero(outcome.prediction_kinds == kind)[0].tolist():
        event, confidence = int(outcome.prediction_partners[prediction]), float(scores[prediction])
        is_hidden = event >= 0 and matched.events.values[event] < 0
        rank = (float(is_hidden), -confidence, game, prediction)
        found.append((rank, Mistake(kind, game, event, prediction, confidence)))
    return found
