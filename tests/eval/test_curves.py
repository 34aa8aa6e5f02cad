"""Curves and timing by hand, and equal to the table's average precision."""

from fractions import Fraction

import numpy as np
import pytest

from bas.eval.figures import best_thresholds, curves, lateness
from bas.eval.metric import MetricSettings, average_map
from bas.eval.spots import Game, Spots

AT1 = MetricSettings.named("at1", fps=Fraction(25))


def spots(*found: tuple[int, int, float]) -> Spots:
    """From (frame, class, value)."""
    frames, classes, values = zip(*found, strict=True) if found else ((), (), ())
    return Spots.collect(frames, classes, values, num_classes=2)


GAME = Game(
    spots((100, 0, 1), (200, 0, 1), (300, 0, -1)),
    spots((103, 0, 0.9), (150, 0, 0.8), (195, 0, 0.5), (290, 0, 0.1), (500, 1, 0.7)),
)


def test_counts_at_thresholds_are_those_counted_by_hand() -> None:
    first, second = curves([GAME], AT1)
    at = [round(199 * each) for each in (0.95, 0.85, 0.6, 0.4, 0.0)]
    assert first.hits[at].tolist() == [0, 1, 1, 2, 3]
    assert first.kept[at].tolist() == [0, 1, 2, 3, 4]
    assert first.f1[at].tolist() == pytest.approx([0, 0.5, 0.4, 2 / 3, 6 / 7])
    assert second.num_events == 0
    assert second.kept.max() == 1
    assert second.hits.max() == second.f1.max() == 0


def test_the_best_threshold_is_the_highest_with_the_best_f1() -> None:
    first, second = curves([GAME], AT1)
    assert first.best == int(199 * 0.1)  # the highest of those that keep all four predictions
    assert first.f1[first.best] == first.f1.max()
    assert second.best == 199  # nothing to find: no prediction is sure enough


def test_classes_with_few_events_take_the_threshold_of_all_classes() -> None:
    """Ten events found at 0.5 and none at 0.3; a class with one event, which its best F1 would put at 0.05."""
    events = [(100 * n, 0, 1) for n in range(10)] + [(2000, 1, 1)]
    found = [(100 * n, 0, 0.5) for n in range(10)] + [(50 + 100 * n, 0, 0.3) for n in range(10)] + [(2000, 1, 0.05)]
    by_class = curves([Game(spots(*events), spots(*found))], AT1)
    assert [curve.best for curve in by_class] == [int(199 * 0.5), int(199 * 0.05)]
    assert best_thresholds(by_class) == (int(199 * 0.5), int(199 * 0.5))
    assert best_thresholds(curves([Game(spots(), GAME.predictions)], AT1)) == (0, 0)  # nothing is judged


def test_average_precision_of_the_curves_is_that_of_the_metric() -> None:
    generator = np.random.default_rng(0)
    games = []
    for _ in range(3):
        frames = generator.integers(0, 3000, 80)
        events = Spots.collect(frames, generator.integers(0, 2, 80), np.ones(80), num_classes=2)
        late = frames + generator.integers(-15, 16, 80)
        found = Spots.collect(late, generator.integers(0, 2, 80), generator.random(80), num_classes=2)
        games.append(Game(events, found))
    for curve, wanted in zip(curves(games, AT1), average_map(games, AT1).per_class, strict=True):
        precision, recall = curve.hits / np.maximum(curve.kept, 1), curve.hits / curve.num_events
        best = [precision[recall >= level].max(initial=0.0) for level in np.arange(11) / 10]
        assert np.mean(best) == pytest.approx(wanted, abs=1e-12)


def test_lateness_counts_pairs_by_distance_and_sureness() -> None:
    late = lateness([GAME, GAME], 12, [round(199 * 0.45), 199])
    assert late[0].shape == late[1].shape == (2, 25)
    assert {int(at) - 12: int(late[0][0, at]) for at in np.nonzero(late[0][0])[0]} == {3: 2, -5: 2}
    assert {int(at) - 12: int(late[1][0, at]) for at in np.nonzero(late[1][0])[0]} == {-10: 2}
    assert late[0][1].sum() == late[1][1].sum() == 0
