"""The official metric equals the SoccerNet package on random and adversarial games."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.errors import InputError
from bas.eval.metric import DELTAS_SECONDS, MeanAP, MetricSettings, average_map
from bas.eval.spots import FloatArray, Game

Grids = tuple[FloatArray, FloatArray]
"""Events (T, C): 0, 1, -1; scores (T, C): -1 for none."""
Reference = Callable[[Sequence[Grids], Fraction, Sequence[int]], list[Any]]


@pytest.fixture(scope="session")
def reference(package: Any) -> Reference:
    """(games, fps, deltas in seconds) -> the package's six results."""

    def call(games: Sequence[Grids], fps: Fraction, deltas: Sequence[int]) -> list[Any]:
        targets, detections = [grids[0] for grids in games], [grids[1] for grids in games]
        closests = [nearest_by_definition(target) for target in targets]
        with np.errstate(divide="ignore", invalid="ignore"):
            result = package.average_mAP(targets, detections, closests, framerate=float(fps), deltas=np.array(deltas))
        return [np.asarray(part, dtype=np.float64) for part in result]

    return call


def nearest_by_definition(target: FloatArray) -> FloatArray:
    """(T, C): the value of the event of that class nearest to each cell, -1 without any; borders rounded down."""
    nearest = np.full(target.shape, -1.0)
    for c in range(target.shape[1]):
        events = np.nonzero(target[:, c])[0].tolist()
        for cell in range(len(target)) if events else ():
            passed = sum((a + b) // 2 <= cell for a, b in pairwise(events))
            nearest[cell, c] = target[events[passed], c]
    return nearest


def random_grids(generator: np.random.Generator, *, num_frames: int, num_classes: int, kind: str) -> Grids:
    """One game; `kind` picks how the scores look."""
    shape = (num_frames, num_classes)
    density = generator.choice([0.0, 0.02, 0.1, 0.5], size=num_classes)
    target = np.where(generator.random(shape) < density, generator.choice([1.0, -1.0], p=[0.8, 0.2], size=shape), 0.0)
    scores = {
        "uniform": generator.random(shape),
        "ties": generator.integers(0, 4, shape) / 3,
        "equal": np.full(shape, generator.choice([0.0, 0.5, 1.0])),
        "edges": generator.choice([0.0, 1.0, 1 / 199, np.nextafter(1 / 199, 0), 100 / 199, -0.0], size=shape),
        "outside": generator.choice([-0.5, 1.5, 0.2, np.inf, np.nan, 1e-300], size=shape),
        "small": generator.random(shape) * 0.01,
        "thresholds": np.linspace(0, 1, 200)[generator.integers(0, 200, shape)],
    }[kind]
    is_there = generator.random(shape) < generator.choice([0.0, 0.05, 0.3, 1.0], size=num_classes)
    return target, np.where(is_there, scores, -1.0)


KINDS = ("uniform", "ties", "equal", "edges", "outside", "small", "thresholds")


def ours(games: Sequence[Grids], fps: Fraction, metric: str) -> MeanAP:
    return average_map([Game.from_grids(*grids) for grids in games], MetricSettings.named(metric, fps=fps))


def assert_equal(result: MeanAP, wanted: Sequence[Any]) -> None:
    names = ("mean", "per_class", "mean_visible", "per_class_visible", "mean_unshown", "per_class_unshown")
    for name, value in zip(names, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(getattr(result, name)), value, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fps", ["25", "12.5", "2"])
@pytest.mark.parametrize("num_turns", [4, pytest.param(80, marks=pytest.mark.slow)])
def test_random_games_score_as_in_the_package(reference: Reference, kind: str, fps: str, num_turns: int) -> None:
    generator = np.random.default_rng([KINDS.index(kind), int(float(fps)), num_turns])
    for turn in range(num_turns):
        num_classes = int(generator.integers(1, 4))
        games = [
            random_grids(generator, num_frames=int(generator.integers(1, 150)), num_classes=num_classes, kind=kind)
            for _ in range(generator.integers(1, 4))
        ]
        metric = list(DELTAS_SECONDS)[(0, 1, 0, 2, 0, 3, 0, 4, 5, 6)[turn % 10]]
        wanted = reference(games, Fraction(fps), DELTAS_SECONDS[metric])
        assert_equal(ours(games, Fraction(fps), metric), wanted)


CELLS = st.tuples(
    st.sampled_from([0.0, 0.0, 1.0, -1.0]), st.sampled_from([-1.0, -1.0, 0.0, 0.25, 0.5, 0.5, 1.0, 1.5, -0.2])
)


@settings(max_examples=100, deadline=None)
@given(
    games=st.lists(st.lists(CELLS, min_size=1, max_size=40), min_size=1, max_size=3),
    fps=st.sampled_from(["25", "12.5", "2"]),
    metric=st.sampled_from(["at1", "at2", "at5"]),
)
def test_any_small_game_scores_as_in_the_package(
    reference: Reference, games: list[list[tuple[float, float]]], fps: str, metric: str
) -> None:
    grids = [(np.array(cells)[:, :1], np.array(cells)[:, 1:]) for cells in games]
    assert_equal(ours(grids, Fraction(fps), metric), reference(grids, Fraction(fps), DELTAS_SECONDS[metric]))


def test_games_of_different_classes_are_refused() -> None:
    grids = [(np.zeros((5, c)), np.zeros((5, c))) for c in (1, 2)]
    with pytest.raises(InputError, match="numbers of classes"):
        ours(grids, Fraction(25), "at1")
