"""Known traps of the official metric, E2E-Spot's metric against its definition, calibration, resampling."""

import inspect
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.errors import InputError
from bas.eval.calibrate import spread_by_rank
from bas.eval.e2e import rank
from bas.eval.metric import THRESHOLDS, MetricSettings, average_map, count, threshold_bins
from bas.eval.report import Resampling, chance_games
from bas.eval.spots import Game, Spots
from bas.eval.warnings import game_warnings
from bas.events import SOCCERNET_BALL_CLASSES

FPS = Fraction(25)
AT1 = MetricSettings.named("at1", fps=FPS)


def one_class(events: list[int], predictions: list[tuple[int, float]]) -> Game:
    frames, scores = [frame for frame, _ in predictions], [score for _, score in predictions]
    return Game(
        Spots.collect(events, [0] * len(events), [1.0] * len(events), num_classes=1),
        Spots.collect(frames, [0] * len(frames), scores, num_classes=1),
    )


def detector(*, seed: int, jitter_frames: float = 0.0, scale: float = 1.0) -> Game:
    """200 events, all found, and 200 false alarms with lower scores on the whole."""
    generator = np.random.default_rng(seed)
    events = np.arange(200) * 60 + 100
    found = events + np.rint(generator.normal(0, jitter_frames, 200)).astype(int)
    scores = np.concatenate([generator.beta(5, 2, 200), generator.beta(2, 5, 200)]) * scale
    frames = np.concatenate([found, events + 30])
    return one_class(events.tolist(), list(zip(frames.tolist(), scores.tolist(), strict=True)))


def test_the_packages_ball_dictionary_has_two_classes_and_ours_twelve(package: Any) -> None:
    assert set(package.EVENT_DICTIONARY_BALL) == {"PASS", "DRIVE"}
    assert len(SOCCERNET_BALL_CLASSES) == 12


def test_the_packages_default_framerate_is_2_and_2_is_warned_of(package: Any) -> None:
    assert inspect.signature(package.evaluate).parameters["framerate"].default == 2
    games = [one_class([5], [(5, 1.0)])]
    assert any("2 frames a second" in text for text in game_warnings(games, ["A"], Fraction(2), is_official=True))
    assert not any("a second" in text for text in game_warnings(games, ["A"], FPS, is_official=True))


@pytest.mark.parametrize(("distance", "wanted"), [(12, 1.0), (-12, 1.0), (13, 0.0), (-13, 0.0)])
def test_delta_is_a_full_width(distance: int, wanted: float) -> None:
    assert average_map([one_class([100], [(100 + distance, 0.9)])], AT1).mean == pytest.approx(wanted)


@pytest.mark.parametrize(("distance", "wanted"), [(4, 1.0), (-4, 1.0), (5, 0.0)])
def test_the_delta_of_e2e_spot_is_a_half_width_in_frames(distance: int, wanted: float) -> None:
    ranked = rank([one_class([100], [(100 + distance, 0.9)])], [4])
    assert ranked.average_precision()[0, 0, 0] == pytest.approx(wanted)


def test_small_scores_fall_into_two_thresholds_and_a_spread_by_rank_repairs_it() -> None:
    plain, small = [detector(seed=1)], [detector(seed=1, scale=0.01)]
    assert len(np.unique(threshold_bins(small[0].predictions.values))) == 2
    before, after = average_map(plain, AT1).mean, average_map(small, AT1).mean
    assert after < before - 0.05
    assert average_map(spread_by_rank(small), AT1).mean == pytest.approx(before, abs=0.02)
    assert any("--calibrate rank" in text for text in game_warnings(small, ["A"], FPS, is_official=True))
    assert not game_warnings(plain, ["A"], FPS, is_official=True)
    assert not game_warnings(spread_by_rank(small), ["A"], FPS, is_official=True)


def test_a_spread_by_rank_keeps_the_order_and_ties_over_games() -> None:
    games = [one_class([1], [(1, 0.3), (2, 0.1), (3, 0.3)]), one_class([1], [(5, 7.0), (6, 0.2)]), one_class([], [])]
    spread = spread_by_rank(games)
    before = np.concatenate([game.predictions.values for game in games])
    after = np.concatenate([game.predictions.values for game in spread])
    np.testing.assert_array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    assert after[0] == after[2]
    assert 0 <= after.min() <= after.max() == 1


def test_one_event_lost_caps_a_perfect_class_at_90_91() -> None:
    events = list(range(0, 5000, 50))
    perfect = [(frame, 0.9) for frame in events]
    assert average_map([one_class(events, perfect)], AT1).mean == pytest.approx(1.0)
    assert average_map([one_class(events, perfect[1:])], AT1).mean == pytest.approx(10 / 11)


def test_jitter_of_6_frames_costs_many_points_and_3_none() -> None:
    sure = [average_map([detector(seed=seed)], AT1).mean for seed in range(5)]
    by_3 = [average_map([detector(seed=seed, jitter_frames=3)], AT1).mean for seed in range(5)]
    by_6 = [average_map([detector(seed=seed, jitter_frames=6)], AT1).mean for seed in range(5)]
    assert np.mean(by_3) == pytest.approx(np.mean(sure), abs=0.01)
    assert 0.05 < np.mean(sure) - np.mean(by_6) < 0.2


def test_minus_1_is_no_prediction_and_0_is_one() -> None:
    detections = np.full((50, 1), -1.0)
    assert len(Game.from_grids(np.zeros((50, 1)), detections).predictions.frames) == 0
    detections[7] = 0.0
    assert Game.from_grids(np.zeros((50, 1)), detections).predictions.frames.tolist() == [7]


def test_the_last_on_a_cell_wins_also_with_no_prediction() -> None:
    game = one_class([], [(5, 0.9), (3, 0.5), (5, 0.2), (3, -1.0)])
    assert (game.predictions.frames.tolist(), game.predictions.values.tolist()) == ([5], [0.2])
    assert game.predictions.num_overwritten == 2
    assert any("2 prediction(s) overwritten" in text for text in game_warnings([game], ["A"], FPS, is_official=True))


def test_thresholds_are_reached_as_comparison_says() -> None:
    near = np.concatenate([THRESHOLDS, np.nextafter(THRESHOLDS, 2), np.nextafter(THRESHOLDS[1:], -1), [1.5, np.inf]])
    np.testing.assert_array_equal(threshold_bins(near), (near[:, None] >= THRESHOLDS).sum(axis=1) - 1)


@settings(max_examples=200, deadline=None)
@given(
    events=st.lists(st.integers(0, 30), max_size=8, unique=True),
    predictions=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([0.1, 0.5, 0.5, 0.9])),
        max_size=15,
        unique_by=lambda pair: pair[0],
    ),
    delta=st.sampled_from([0, 1, 2, 4]),
)
def test_e2e_is_its_definition(events: list[int], predictions: list[tuple[int, float]], delta: int) -> None:
    free, hits = sorted(events), []
    for frame, _ in sorted(predictions, key=lambda pair: (-pair[1], pair[0])):
        closest = min(free, key=lambda event: abs(event - frame), default=None)
        hits.append(closest is not None and abs(closest - frame) <= delta)
        if hits[-1]:
            free.remove(closest)  # type: ignore[arg-type]
    precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    area = sum(max(precision[k:]) for k, hit in enumerate(hits) if hit)
    wanted = area / len(events) if events else np.nan
    found = rank([one_class(events, predictions)], [delta]).average_precision()[0, 0, 0]
    assert found == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("block_frames", [1, 37, 1000])
def test_blocks_add_up_to_the_whole(block_frames: int) -> None:
    games = [detector(seed=1, jitter_frames=6), detector(seed=2), one_class([], [])]
    whole, blocks = count(games, AT1), count(games, AT1, block_frames=block_frames)
    for variant in range(3):
        wanted = whole.average_precision(variant=variant)
        np.testing.assert_array_equal(blocks.average_precision(variant=variant), wanted)
    in_blocks = rank(games, [0, 4], block_frames=block_frames)
    np.testing.assert_allclose(in_blocks.average_precision(), rank(games, [0, 4]).average_precision())


def test_drawing_a_game_twice_is_scoring_it_twice() -> None:
    games = [detector(seed=1, jitter_frames=6), detector(seed=2, jitter_frames=2)]
    drawn = [games[0], games[1], games[1]]
    weights = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(count(games, AT1).average_precision(weights), count(drawn, AT1).average_precision())
    ranked = rank(games, [2]).average_precision(weights)
    np.testing.assert_allclose(ranked, rank(drawn, [2]).average_precision(), atol=0.01)  # ties in another order


def test_resamples_are_a_function_of_the_seed_and_keep_the_number_of_games() -> None:
    game_of_block = np.array([0, 0, 0, 1, 1, 1])
    weights = Resampling(num_resamples=50, seed=3).weights(game_of_block)
    np.testing.assert_array_equal(weights, Resampling(num_resamples=50, seed=3).weights(game_of_block))
    assert (weights.sum(axis=1) == 6).all()
    assert set((weights[:, :3].sum(axis=1) / 3).tolist()) == {0.0, 1.0, 2.0}


def test_chance_keeps_the_events_and_scores_low() -> None:
    games = [detector(seed=1)]
    chance = chance_games(games, FPS, draw=0)
    assert chance[0].events is games[0].events
    assert len(chance[0].predictions.frames) == pytest.approx(480, abs=30)
    assert average_map(chance, AT1).mean < 0.5
    again, other = chance_games(games, FPS, draw=0), chance_games(games, FPS, draw=1)
    np.testing.assert_array_equal(chance[0].predictions.values, again[0].predictions.values)
    assert chance[0].predictions.frames.tolist() != other[0].predictions.frames.tolist()


def test_settings_and_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="no such metric"):
        MetricSettings.named("at9", fps=FPS)
    with pytest.raises(InputError, match="tolerances"):
        MetricSettings((), FPS)
    with pytest.raises(InputError, match="frame rate"):
        MetricSettings((Fraction(1),), Fraction(0))
    with pytest.raises(InputError, match="differ"):
        Game.from_grids(np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(InputError, match="out of range"):
        Spots.collect([1], [2], [0.5], num_classes=2)
    with pytest.raises(InputError, match="numbers of classes"):
        average_map([], AT1)
