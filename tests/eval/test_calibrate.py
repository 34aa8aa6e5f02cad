"""The fitted calibration: order, bounds, its definition, and what it repairs."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.errors import InputError
from bas.eval.calibrate import FittedCalibration, fit_calibration
from bas.eval.metric import MetricSettings, average_map
from bas.eval.peaks import PeakSettings, find_spots
from bas.eval.spots import FloatArray, Game, Spots

AT1 = MetricSettings.named("at1", fps=Fraction(25))
RealGames = dict[str, list[tuple[FloatArray, Spots]]]
SCORES = st.lists(st.floats(2**-13, 1.0, width=32) | st.sampled_from([0.25, 0.5, 1.0]), max_size=60)


def game(scores: list[float], num_events: int) -> Game:
    """One class; the events lie away from the predictions."""
    frames = np.arange(len(scores))
    events = Spots.collect(10_000 + np.arange(num_events), [0] * num_events, [1.0] * num_events, num_classes=1)
    return Game(events, Spots.collect(frames, [0] * len(scores), scores, num_classes=1))


def mapped(calibration: FittedCalibration, scores: list[float]) -> FloatArray:
    return calibration.apply(game(scores, 0).predictions).values


def detector(generator: np.random.Generator, *, num_events: int, num_false: int) -> Game:
    """Three classes of `num_events` events, all found; `num_false` false alarms with lower scores on the whole."""
    frames = np.arange(num_events + num_false) * 60
    is_true = np.zeros(len(frames), dtype=bool)
    is_true[generator.choice(len(frames), num_events, replace=False)] = True
    parts, events = [], []
    for c in range(3):
        scores = np.where(is_true, generator.beta(3, 2, len(frames)), generator.beta(1, 4, len(frames)))
        parts += list(zip(frames.tolist(), [c] * len(frames), scores.tolist(), strict=True))
        events += [(frame, c, 1.0) for frame in frames[is_true].tolist()]
    return Game(*(Spots.collect(*map(list, zip(*each, strict=True)), num_classes=3) for each in (events, parts)))


def distorted(games: list[Game], factor: float, power: float) -> list[Game]:
    return [Game(g.events, g.predictions.with_values(factor * g.predictions.values**power)) for g in games]


def calibrated(games: list[Game], calibration: FittedCalibration) -> list[Game]:
    return [Game(each.events, calibration.apply(each.predictions)) for each in games]


@settings(max_examples=300, deadline=None)
@given(fitted=SCORES, events=st.integers(0, 100), scores=SCORES, factor=st.sampled_from([1e-3, 0.01, 1.0, 3.0]))
def test_order_is_kept_inside_and_beyond_the_fitted_range(
    fitted: list[float], events: int, scores: list[float], factor: float
) -> None:
    calibration = fit_calibration([game([factor * score for score in fitted], events)])
    ordered = [0.0, *sorted({*scores, *fitted, 1e-4, 1.0, 1.5, 7.0})]
    values = mapped(calibration, ordered)
    assert (np.diff(values) > 0).all()
    assert values[0] == 0
    assert values[-1] < 1


@settings(max_examples=200, deadline=None)
@given(fitted=SCORES, events=st.integers(0, 100))
def test_it_round_trips_through_json(fitted: list[float], events: int) -> None:
    calibration = fit_calibration([game(fitted, events), game([0.3], 1)])
    assert FittedCalibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@settings(max_examples=100, deadline=None)
@given(fitted=SCORES.filter(len), events=st.integers(0, 100), exponent=st.integers(-9, 3))
def test_a_common_factor_changes_nothing(fitted: list[float], events: int, exponent: int) -> None:
    scaled = [score * 2.0**exponent for score in fitted]
    plain, other = (fit_calibration([game(scores, events)]) for scores in (fitted, scaled))
    probes = [*fitted, 0.001, 0.4, 2.0]
    wanted = mapped(plain, probes)
    np.testing.assert_allclose(mapped(other, [score * 2.0**exponent for score in probes]), wanted, rtol=1e-12)


@pytest.mark.parametrize("num_events", [1, 2, 50])
def test_few_scores_get_their_values_by_definition(num_events: int) -> None:
    values = mapped(fit_calibration([game([0.2, 0.9], num_events), game([0.4, 0.4], 0)]), [0.9, 0.4, 0.2])
    spread, lowest = 1 / (1 + np.array([0.5, 2.0, 3.5]) / num_events), 1 / (1 + 4 / num_events)
    np.testing.assert_allclose(values, 0.005 + 0.995 * (spread - lowest) / (1 - lowest), rtol=1e-12)


def test_many_scores_are_near_their_values_by_definition_with_few_knots() -> None:
    scores = np.sort(np.random.default_rng(0).beta(1, 20, 5000))[::-1]
    calibration = fit_calibration([game(scores.tolist(), 700)])
    assert len(calibration.scores[0]) <= 20
    lowest = 1 / (1 + 5000 / 700)
    wanted = 0.005 + 0.995 * (1 / (1 + np.arange(0.5, 5000) / 700) - lowest) / (1 - lowest)
    np.testing.assert_allclose(mapped(calibration, scores.tolist()), wanted, atol=0.03)


@pytest.mark.parametrize(("factor", "power"), [(0.01, 1), (0.001, 1), (1.0, 0.05), (1.0, 6)])
def test_a_squeezed_detector_scores_about_as_the_plain_one_on_new_games(factor: float, power: float) -> None:
    generator = np.random.default_rng(1)
    fitted, fresh = ([detector(generator, num_events=300, num_false=2000)] for _ in range(2))
    squeezed = distorted(fresh, factor, power)
    plain, before = average_map(fresh, AT1).mean, average_map(squeezed, AT1).mean
    calibration = fit_calibration(distorted(fitted, factor, power))
    after = average_map(calibrated(squeezed, calibration), AT1).mean
    assert before < plain - 0.01
    assert after == pytest.approx(plain, abs=0.01)


def test_a_class_without_spots_or_events_is_sensible() -> None:
    nothing = fit_calibration([game([], 5)])
    np.testing.assert_allclose(mapped(nothing, [0.1, 0.5]), [0.1, 0.5])
    assert 0.7 < mapped(nothing, [1.0])[0] < 1
    assert fit_calibration([game([0.0, 0.0], 5)]) == nothing
    eventless = mapped(fit_calibration([game([0.1, 0.2, 0.3], 0)]), [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(eventless, mapped(fit_calibration([game([0.1, 0.2, 0.3], 1)]), [0.1, 0.2, 0.3]))
    assert eventless[0] < 0.2 < 0.4 < eventless[2]


def test_classes_are_fitted_apart() -> None:
    events = Spots.collect([1, 2], [0, 1], [1.0, 1.0], num_classes=2)
    scores = Spots.collect([1, 2, 3, 4], [0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], num_classes=2)
    values = fit_calibration([Game(events, scores)]).apply(scores)
    assert values.values[:2].tolist() == values.values[2:].tolist()
    assert (values.frames.tolist(), values.starts.tolist()) == (scores.frames.tolist(), scores.starts.tolist())


def test_an_infinite_score_is_the_highest_and_does_not_enter_the_fit() -> None:
    calibration = fit_calibration([game([0.5, 0.2, np.inf], 1)])
    assert calibration == fit_calibration([game([0.5, 0.2], 1)])
    assert mapped(calibration, [np.inf])[0] == 1


@pytest.mark.parametrize("bad", [-0.1, np.nan])
def test_scores_that_are_not_usable_are_refused(bad: float) -> None:
    spots = Spots.collect([1, 2], [0, 0], [0.5, bad], num_classes=1)
    with pytest.raises(InputError, match="1 negative or NaN"):
        fit_calibration([game([0.5], 1)]).apply(spots)


def test_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        fit_calibration([game([0.5], 1)]).apply(Spots.collect([], [], [], num_classes=2))
    with pytest.raises(InputError, match="numbers of classes"):
        fit_calibration([])


@pytest.mark.parametrize(
    "change",
    [
        {"scores": []},
        {"scores": [], "values": []},
        {"scores": [[]], "values": [[]]},
        {"scores": [[0.1]]},
        {"scores": [[0.2, 0.1]]},
        {"scores": [[0.1, 0.1]]},
        {"scores": [[0.0, 0.1]]},
        {"scores": [[0.1, float("inf")]]},
        {"scores": [[0.1, float("nan")]]},
        {"values": [[0.5, 1.0]]},
        {"values": [[0.5, "a"]]},
        {"values": 3},
        {"classes": 1},
    ],
)
def test_damaged_calibrations_are_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"scores": [[0.1, 0.2]], "values": [[0.3, 0.6]]}
    FittedCalibration.from_json(good)
    with pytest.raises(InputError, match="not usable"):
        FittedCalibration.from_json(good | change)


@pytest.mark.shared
def test_real_scores_squeezed_a_hundred_times_are_repaired_on_a_game_not_fitted_on(real_games: RealGames) -> None:
    chosen = PeakSettings()
    *training, held = [
        [Game(events, find_spots(scores, chosen)) for scores, events in halves] for halves in real_games.values()
    ]
    squeezed = distorted(held, 0.01, 1)
    calibration = fit_calibration(distorted(training[0], 0.01, 1))
    plain, before, after = (average_map(each, AT1).mean for each in (held, squeezed, calibrated(squeezed, calibration)))
    assert before < plain - 0.1
    assert after == pytest.approx(plain, abs=0.004)
