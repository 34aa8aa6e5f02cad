"""Spreads scores over the 200 thresholds of the official metric without changing their order.

`spread_by_rank` looks at the predictions that are evaluated; `fit_calibration` looks at validation games and gives a
map that a run stores and applies to any other game.

Legend: C classes, N spots, J knots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import InputError, reading_record
from .metric import NUM_THRESHOLDS
from .spots import FloatArray, Game, Spots, check_same_classes

_NUM_KNOTS = 20
_Knots = tuple[tuple[float, ...], tuple[float, ...]]
_UNKNOWN: _Knots = ((0.5,), (0.5,))
"""For a class without validation spots: as it is up to 0.5."""


@dataclass(frozen=True)
class FittedCalibration:
    """Per class a strictly increasing map of scores >= 0 to values from 0 to 1.

    Straight from (0, 0) from knot to knot. Above the last knot (s, v) a score x becomes 1 - (1 - v) * s / x, so that it
    keeps its order however high it is. Scores that are all multiplied by one factor give the same values.
    """

    scores: tuple[tuple[float, ...], ...]
    """(C,) of (J,) ascending, > 0, at least one; J differs from class to class."""
    values: tuple[tuple[float, ...], ...]
    """(C,) of (J,) ascending, between 0 and 1, neither of them included."""

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.values) or not self.scores:
            got = f"{len(self.scores)} and {len(self.values)} classes"
            raise InputError("calibration is not usable", got=got, wanted="scores and values of the same classes")
        for scores, values in zip(self.scores, self.values, strict=True):
            is_paired = len(scores) == len(values) > 0
            if not (is_paired and _is_between(scores, np.inf) and _is_between(values, 1.0)):
                wanted = "as many scores as values, both ascending, above 0, values below 1"
                got = f"scores {scores}, values {values}"[:200]
                raise InputError("calibration is not usable", got=got, wanted=wanted)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.scores)

    def apply(self, spots: Spots) -> Spots:
        """The same spots with calibrated scores.

        Raises:
            InputError: another number of classes, or a score that is negative or NaN.
        """
        if spots.num_classes != self.num_classes:
            raise InputError(
                "calibration does not fit the spots",
                got=f"{spots.num_classes} classes",
                wanted=f"{self.num_classes}, as it was fitted",
            )
        if not (spots.values >= 0).all():
            bad = int(np.count_nonzero(~(spots.values >= 0)))
            raise InputError("scores are not usable", got=f"{bad} negative or NaN", wanted=">= 0")
        mapped = [
            _interpolate(spots.of_class(c)[1], np.array(self.scores[c]), np.array(self.values[c]))
            for c in range(self.num_classes)
        ]
        return spots.with_values(np.concatenate(mapped))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"scores": [list(row) for row in self.scores], "values": [list(row) for row in self.values]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "FittedCalibration":
        """Inverse of `to_json`.

        Raises:
            InputError: a field is missing, unknown or not usable.
        """
        if not isinstance(record, Mapping) or set(record) != {"scores", "values"}:
            raise InputError("calibration is not usable", got=repr(record)[:80], wanted="scores, values")
        with reading_record("calibration is not usable"):
            scores, values = (
                tuple(tuple(float(x) for x in row) for row in record[name]) for name in ("scores", "values")
            )
            return cls(scores, values)


def fit_calibration(games: Sequence[Game]) -> FittedCalibration:
    """Fit on validation games: the n-th highest of N scores of a class with E events becomes about 1 / (1 + n / E).

    From one threshold to the next n grows by about the same share at n = E / 4 and n = 4 E, and by least at n = E:
    thresholds are dense where recall grows, and the many low scores still get some. It is stretched so that the lowest
    score gets about the second threshold. Chosen among 23 spreads by fitting on one training game and scoring the three
    others; it is within 0.2 points of mAP at 1 s of what unlimited thresholds would give.

    A class without events counts as having one. A class without scores above 0 is left as it is up to 0.5.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    knots = []
    for c in range(check_same_classes(games)):
        scores = np.concatenate([game.predictions.of_class(c)[1] for game in games])
        knots.append(_fit_class(scores[(scores > 0) & (scores < np.inf)], sum(int(g.events.counts[c]) for g in games)))
    return FittedCalibration(tuple(scores for scores, _ in knots), tuple(values for _, values in knots))


def _fit_class(scores: FloatArray, num_events: int) -> _Knots:
    if not len(scores):
        return _UNKNOWN
    found, times = np.unique(scores, return_counts=True)
    rank = times[::-1].cumsum()[::-1] - times / 2  # from the top; the middle of equal ones
    spread, lowest = (1 / (1 + n / max(num_events, 1)) for n in (rank, np.array(float(len(scores)))))
    least = 1 / NUM_THRESHOLDS
    values = least + (1 - least) * (spread - lowest) / (1 - lowest)
    chosen = np.unique(np.searchsorted(values, np.linspace(values[0], values[-1], _NUM_KNOTS)))
    return tuple(found[chosen].tolist()), tuple(values[chosen].tolist())


def _interpolate(scores: FloatArray, knots: FloatArray, values: FloatArray) -> FloatArray:
    inside = np.interp(scores, np.append(0.0, knots), np.append(0.0, values))
    beyond = 1 - (1 - values[-1]) * (knots[-1] / np.maximum(scores, knots[-1]))
    mapped: FloatArray = np.where(scores > knots[-1], beyond, inside)
    return mapped


def _is_between(numbers: Sequence[float], highest: float) -> bool:
    """Whether 0 < first < ... < last < highest."""
    return all(low < high for low, high in pairwise((0.0, *numbers, highest)))


def spread_by_rank(games: Sequence[Game]) -> list[Game]:
    """Every score becomes 1 - sqrt(share of the class's predictions, over all games, that score higher).

    Equal scores stay equal, and the order within a class stays; the best score becomes 1. The square root gives the
    thresholds to the upper part. It was chosen among three spreads on the five real games of the tests, mAP at 1 s
    after non-maximum suppression and with one prediction a frame: untouched 77.14 and 17.64, this one 77.15 and 20.93,
    an even spread 77.20 and 16.75, a logarithmic one 76.97 and 21.08.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    num_classes = check_same_classes(games)
    pooled = [
        np.sort(np.concatenate([game.predictions.of_class(class_index)[1] for game in games]))
        for class_index in range(num_classes)
    ]
    spread = []
    for game in games:
        values = [
            1 - np.sqrt(1 - np.searchsorted(scores, game.predictions.of_class(class_index)[1], "right") / len(scores))
            for class_index, scores in enumerate(pooled)
            if len(scores)
        ]
        spread.append(Game(game.events, game.predictions.with_values(np.concatenate([*values, np.zeros(0)]))))
    return spread
