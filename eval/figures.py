"""Hits and predictions of every class at every threshold of the official metric, and how late its hits come.

Legend: C classes, H thresholds, W largest distance in cells that still matches, L = 2 W + 1 distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .metric import NUM_THRESHOLDS, MetricSettings, count, match, threshold_bins
from .mistakes import Matched, Mistake, Outcomes, confusion, find_outcomes, match_game, worst
from .report import EvalSettings, Metric, Report, evaluate
from .spots import FloatArray, Game, IntArray


@dataclass(frozen=True)
class ClassCurve:
    """Counts of one class over all games, as the official metric pools them."""

    hits: IntArray
    """(H,) events found by predictions that reach each threshold."""
    kept: IntArray
    """(H,) predictions that reach it."""
    num_events: int

    @property
    def f1(self) -> FloatArray:
        """(H,) 0 to 1."""
        return 2 * self.hits / np.maximum(self.kept + self.num_events, 1)

    @property
    def best(self) -> int:
        """Index of the threshold with the highest F1, of equal ones the highest threshold."""
        return NUM_THRESHOLDS - 1 - int(np.argmax(self.f1[::-1]))


def curves(games: Sequence[Game], settings: MetricSettings) -> tuple[ClassCurve, ...]:
    """(C,) curves over `games` at the first tolerance of `settings`.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    counts = count(games, settings)
    hits_ch, kept_ch = counts.true_positives[0, 0].sum(axis=0), counts.predictions[0, 0].sum(axis=0)
    return tuple(
        ClassCurve(_reaching(hits), _reaching(kept), int(events))
        for hits, kept, events in zip(hits_ch, kept_ch, counts.events[0].sum(axis=0), strict=True)
    )


def best_thresholds(by_class: Sequence[ClassCurve]) -> tuple[int, ...]:
    """(C,) index of the threshold that each class is shown at: the metric itself has none, it looks at all 200.

    That of its best F1; for a class with fewer than `RARE_EVENTS` events that of all classes together; 0, for all
    predictions, where no class has an event.
    """
    if not any(curve.num_events for curve in by_class):
        return (0,) * len(by_class)
    pooled = ClassCurve(
        np.sum([curve.hits for curve in by_class], axis=0),
        np.sum([curve.kept for curve in by_class], axis=0),
        sum(curve.num_events for curve in by_class),
    )
    return tuple(curve.best if curve.num_events >= RARE_EVENTS else pooled.best for curve in by_class)


def _reaching(by_highest_h: FloatArray) -> IntArray:
    """Counts by the highest threshold reached -> counts by threshold."""
    return by_highest_h[::-1].cumsum()[::-1].astype(np.int64)


def lateness(games: Sequence[Game], half_width_frames: int, thresholds: Sequence[int]) -> IntArray:
    """(2, C, L) matched pairs by how many cells, -W to W, the prediction comes after its event: sure ones, and others.

    Args:
        games: with the same classes.
        half_width_frames: W.
        thresholds: (C,) index of the threshold that makes a prediction sure.
    """
    num_distances = 2 * half_width_frames + 1
    found = np.zeros((2, len(thresholds), num_distances), dtype=np.int64)
    for game in games:
        for c, threshold in enumerate(thresholds):
            event_frames, (frames, scores) = game.events.of_class(c)[0], game.predictions.of_class(c)
            matched = match(event_frames, frames, scores, half_width_frames)
            pairs = matched[matched >= 0]
            late = frames[pairs] - event_frames[matched >= 0] + half_width_frames
            is_sure = threshold_bins(scores[pairs]) >= threshold
            for part, chosen in enumerate((late[is_sure], late[~is_sure])):
                found[part, c] += np.bincount(chosen, minlength=num_distances)
    return found


METRIC: Metric = "at1"
"""The tolerance of hits: half a second either way."""
WIDE_METRIC = "at5"
"""The tolerance within which a prediction counts as badly timed: two and a half seconds either way."""
RARE_EVENTS = 10
"""Classes with fewer events have no best threshold of their own: chance would choose it."""
NUM_WORST = 60
"""Mistakes of each kind that are listed."""


@dataclass(frozen=True)
class Figures:
    """One run."""

    report: Report
    curves: tuple[ClassCurve, ...]
    """(C,)"""
    thresholds: tuple[int, ...]
    """(C,) index of the metric's threshold, see `best_thresholds`.

    Below it predictions count for table and curves only.
    """
    lateness: IntArray
    """(2, C, L), see `lateness`."""
    matched: tuple[Matched, ...]
    """(G,)"""
    outcomes: tuple[Outcomes, ...]
    """(G,) at `thresholds`."""
    confusion: IntArray
    """(C + 1, C + 1), see `mistakes.confusion`."""
    mistakes: tuple[Mistake, ...]
    """The worst of each kind."""


def tolerances_frames(fps: Fraction) -> tuple[int, int]:
    """Cells either way within which a prediction hits, and within which it is badly timed; rounded as in the metric."""
    hit, wide = (MetricSettings.named(name, fps=fps).half_widths_frames[0] for name in (METRIC, WIDE_METRIC))
    return hit, wide


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
    by_class, (hit_frames, wide_frames) = curves(games, settings.official), tolerances_frames(settings.fps)
    thresholds = best_thresholds(by_class)
    matched = [match_game(game, hit_frames) for game in games]
    outcomes = [
        find_outcomes(game, thresholds, half_width_frames=hit_frames, wide_frames=wide_frames) for game in matched
    ]
    return Figures(
        report=report,
        curves=by_class,
        thresholds=thresholds,
        lateness=lateness(games, hit_frames, thresholds),
        matched=tuple(matched),
        outcomes=tuple(outcomes),
        confusion=confusion(matched, outcomes, len(classes)),
        mistakes=tuple(worst(matched, outcomes, count=NUM_WORST)),
    )
