"""Everything that a report shows of one run, from its games: table, curves, timing, confusion and mistakes.

Legend: C classes, G games.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .curves import ClassCurve, Lateness, curves, lateness
from .metric import DELTAS_SECONDS
from .mistakes import Matched, Mistake, Sorted, confusion, match_game, sort_out, worst
from .report import EvalSettings, Metric, Report, evaluate
from .spots import Game, IntArray

METRIC: Metric = "at1"
"""The tolerance of hits: half a second either way."""
WIDE_METRIC = "at5"
"""The tolerance within which a prediction counts as badly timed: two and a half seconds either way."""
NUM_WORST = 60
"""Mistakes of each kind that are listed."""


@dataclass(frozen=True)
class Figures:
    """One run."""

    report: Report
    curves: tuple[ClassCurve, ...]
    """(C,)"""
    thresholds: tuple[int, ...]
    """(C,) index of the metric's threshold with the best F1. Below it predictions count for table and curves only."""
    lateness: Lateness
    matched: tuple[Matched, ...]
    """(G,)"""
    outcomes: tuple[Sorted, ...]
    """(G,) at `thresholds`."""
    confusion: IntArray
    """(C + 1, C + 1), see `mistakes.confusion`."""
    mistakes: tuple[Mistake, ...]
    """The worst of each kind."""


@dataclass(frozen=True)
class Tolerances:
    """In cells of the metric's grid, either way."""

    half_width_frames: int
    wide_frames: int

    @classmethod
    def at(cls, fps: Fraction) -> "Tolerances":
        """As the official metric rounds them."""
        hit, wide = (int(Fraction(DELTAS_SECONDS[name][0]) * fps / 2) for name in (METRIC, WIDE_METRIC))
        return cls(hit, wide)


def figures(
    games: Sequence[Game], classes: Sequence[str], settings: EvalSettings, *, warnings: Sequence[str] = ()
) -> Figures:
    """Figures of one run.

    Args:
        games: (G,) with len(classes) classes each.
        classes: (C,) names.
        settings: of the table; its metric is `METRIC`.
        warnings: put into the report.

    Raises:
        InputError: no game, or games with another number of classes.
    """
    report = evaluate(games, classes, settings, warnings=warnings)
    by_class, reach = curves(games, settings.official), Tolerances.at(settings.fps)
    thresholds = tuple(curve.best for curve in by_class)
    matched = [match_game(game, reach.half_width_frames) for game in games]
    outcomes = [
        sort_out(game, thresholds, half_width_frames=reach.half_width_frames, wide_frames=reach.wide_frames)
        for game in matched
    ]
    return Figures(
        report=report,
        curves=by_class,
        thresholds=thresholds,
        lateness=lateness(games, reach.half_width_frames, thresholds),
        matched=tuple(matched),
        outcomes=tuple(outcomes),
        confusion=confusion(matched, outcomes, len(classes)),
        mistakes=tuple(worst(matched, outcomes, count=NUM_WORST)),
    )
