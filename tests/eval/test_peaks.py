"""Peaks against their definitions, the choice of settings, and the published scores of a real model."""

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.errors import InputError
from bas.eval.metric import MetricSettings, average_map
from bas.eval.peaks import (
    CANDIDATES,
    SEED_PEAKS,
    PeakSettings,
    candidates_for,
    choose_peaks,
    default_peaks,
    find_spots,
    smooth,
)
from bas.eval.spots import FloatArray, Game, Spots

FPS = Fraction(25)
AT1 = MetricSettings.named("at1", fps=FPS)
LEVELS = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0]), max_size=60)
"""Confidences of one class with many ties and plateaus."""
Pairs = list[tuple[int, float]]
RealGames = dict[str, list[tuple[FloatArray, Spots]]]


def column(values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def pairs(spots: Spots, class_index: int = 0) -> Pairs:
    frames, values = spots.of_class(class_index)
    return list(zip(frames.tolist(), values.tolist(), strict=True))


def maxima_by_definition(values: list[float], threshold: float) -> Pairs:
    found, start = [], 0
    while start < len(values):
        stop = start
        while stop < len(values) and values[stop] == values[start]:
            stop += 1
        around = values[max(start - 1, 0) : start] + values[stop : stop + 1]
        if values[start] >= threshold and all(value < values[start] for value in around):
            found.append(((start + stop - 1) // 2, values[start]))
        start = stop
    return found


def suppress_by_definition(left: Pairs, chosen: PeakSettings) -> Pairs:
    taken: Pairs = []
    while left:
        frame, value = max(left, key=lambda pair: (pair[1], -pair[0]))
        taken.append((frame, value))
        left = [
            (other, score * weight(abs(other - frame), chosen))
            for other, score in left
            if other != frame and score * weight(abs(other - frame), chosen) >= chosen.threshold
        ]
    return sorted(taken)


def weight(distance: int, chosen: PeakSettings) -> float:
    if distance > chosen.window_frames:
        return 1.0
    share = float(distance) / (chosen.window_frames + 1)
    return share**chosen.decay_power if chosen.kind == "soft" else 0.0


def seed_by_definition(values: list[float]) -> Pairs:
    """The loop that the seed's authors run, window 5, threshold 0.05, over every second frame."""
    left, found = np.array(values[::2], dtype=np.float32), []
    while len(left) and left.max() >= 0.05:
        top = int(left.argmax())
        found.append((2 * top, float(left[top])))
        left[int(max(top - 5 / 2, 0)) : int(min(top + 5 // 2, len(left)))] = -1
    return sorted(found)


@settings(max_examples=300, deadline=None)
@given(values=LEVELS, window=st.integers(0, 8))
def test_hard_is_its_definition(values: list[float], window: int) -> None:
    chosen = PeakSettings(window_frames=window, sigma_frames=0.0)
    found = pairs(find_spots(column(values), chosen))
    assert found == suppress_by_definition(maxima_by_definition(values, chosen.threshold), chosen)
    assert all(late - early > window for (early, _), (late, _) in pairwise(found))


@settings(max_examples=300, deadline=None)
@given(values=LEVELS, window=st.integers(0, 8), power=st.sampled_from([0.5, 1.0, 2.0]))
def test_soft_is_its_definition(values: list[float], window: int, power: float) -> None:
    chosen = PeakSettings("soft", window, 0.0, threshold=0.01, decay_power=power)
    wanted = suppress_by_definition(maxima_by_definition(values, chosen.threshold), chosen)
    found = find_spots(column(values), chosen)
    assert found.frames.tolist() == [frame for frame, _ in wanted]
    np.testing.assert_allclose(found.values, [value for _, value in wanted], rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(values=LEVELS, window=st.integers(0, 8))
def test_soft_with_a_huge_power_is_hard(values: list[float], window: int) -> None:
    soft = PeakSettings("soft", window, 0.0, decay_power=1e6)
    hard = PeakSettings("hard", window, 0.0)
    assert pairs(find_spots(column(values), soft)) == pairs(find_spots(column(values), hard))


@settings(max_examples=300, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, 0.04, 0.05, 0.06, 0.5, 0.5, 0.75, 1.0]), max_size=60))
def test_seed_is_the_loop_of_its_authors(values: list[float]) -> None:
    values = np.array(values, dtype=np.float32).tolist()
    wanted = [(frame, value) for frame, value in seed_by_definition(values) if value >= SEED_PEAKS.threshold]
    assert pairs(find_spots(column(values), SEED_PEAKS)) == wanted


def test_seed_suppresses_three_steps_before_and_one_after() -> None:
    values = np.zeros((41, 1))
    values[20], values[[12, 14, 16, 18, 22, 24]] = 0.9, 0.5
    assert find_spots(values, SEED_PEAKS).frames.tolist() == [12, 20, 24]
    three = PeakSettings("seed", sigma_frames=0.0, threshold=0.05, stride_frames=3)
    assert find_spots(values, three).frames.tolist() == [12, 18, 24]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(["hard", "soft"]), sigma=st.sampled_from([0.0, 0.7, 2.0, 9.0]))
def test_spots_of_any_class_are_maxima_of_its_smoothed_confidences(seed: int, kind: Any, sigma: float) -> None:
    scores = np.random.default_rng(seed).random((80, 3)).astype(np.float32)
    chosen = PeakSettings(kind, 6, sigma)
    spots, rows = find_spots(scores, chosen), smooth(scores, sigma)
    assert spots.num_classes == 3
    for c in range(3):
        frames, values = spots.of_class(c)
        alone = find_spots(scores[:, c : c + 1], chosen)
        assert (alone.frames.tolist(), alone.values.tolist()) == (frames.tolist(), values.tolist())
        assert (np.diff(frames) > (chosen.window_frames if kind == "hard" else 0)).all()
        for frame, value in zip(frames, values, strict=True):
            assert rows[c, frame] == rows[c, max(frame - 1, 0) : frame + 2].max()
            assert value == rows[c, frame] if kind == "hard" else value <= rows[c, frame]
        assert values.max() == rows[c].max()


@pytest.mark.parametrize("kind", ["hard", "soft", "seed"])
def test_no_frame_one_frame_and_no_class(kind: Any) -> None:
    chosen = PeakSettings(kind)
    assert find_spots(np.zeros((0, 3)), chosen).counts.tolist() == [0, 0, 0]
    assert pairs(find_spots([[0.5]], chosen)) == [(0, 0.5)]
    assert find_spots(np.zeros((5, 0)), chosen).num_classes == 0
    assert find_spots([[0.0005]], chosen).counts.tolist() == [0]


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("sigma", [0.0, 1.3, 3.0, 40.0])
def test_a_plateau_is_one_spot_in_its_middle(kind: Any, sigma: float) -> None:
    chosen = PeakSettings(kind, 3, sigma)
    flat = find_spots(np.full((101, 1), 0.3), chosen)
    assert flat.frames.tolist() == [50]
    assert flat.values == pytest.approx(0.3)
    step = np.full((400, 1), 0.1)
    step[100:300] = 0.7
    frame, value = max(pairs(find_spots(step, chosen)), key=lambda pair: pair[1])
    assert abs(frame - 199) <= 1
    assert value == pytest.approx(0.7, abs=0.02)
    assert len(pairs(find_spots(step, chosen))) == 1


def test_the_ends_may_be_spots() -> None:
    assert pairs(find_spots(column([1.0, 0.5, 0.25, 0.5]), PeakSettings(window_frames=1, sigma_frames=0.0))) == [
        (0, 1.0),
        (3, 0.5),
    ]


def test_smoothing_is_a_weighted_mean_with_mirrored_ends() -> None:
    one = np.zeros((101, 1))
    one[50] = 1.0
    row = smooth(one, 2.0)[0]
    assert row.sum() == pytest.approx(1.0)
    assert row[50] == pytest.approx(1 / (2.0 * np.sqrt(2 * np.pi)), rel=1e-3)
    assert row[53] / row[50] == pytest.approx(np.exp(-9 / 8), rel=1e-5)
    assert smooth(one, 2.0)[0, :42].max() == 0 == smooth(one, 0.0)[0, 49]
    np.testing.assert_allclose(smooth(np.linspace(0, 1, 40)[:, None], 3.0)[0].mean(), 0.5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    scores = np.full((20, 2), 0.5)
    scores[3, 1] = bad
    with pytest.raises(InputError, match="1 NaN or infinite"):
        find_spots(scores, PeakSettings())


def test_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="another shape"):
        find_spots(np.zeros(5), PeakSettings())


@pytest.mark.parametrize("chosen", [PeakSettings(), SEED_PEAKS, PeakSettings("soft", 3, 1.5, 0.2, 1.0)])
def test_settings_round_trip_through_json(chosen: PeakSettings) -> None:
    assert PeakSettings.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "firm"},
        {"kind": ["hard"]},
        {"window_frames": -1},
        {"window_frames": 1.5},
        {"window_frames": True},
        {"sigma_frames": -0.1},
        {"sigma_frames": float("nan")},
        {"sigma_frames": "2"},
        {"threshold": 0.0},
        {"decay_power": 0},
        {"decay_power": float("inf")},
        {"stride_frames": 0},
        {"sigma": 1.0},
    ],
)
def test_settings_that_are_not_usable_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PeakSettings.from_json(PeakSettings().to_json() | change)


def test_a_missing_setting_gets_its_default() -> None:
    record = PeakSettings(window_frames=3).to_json()
    del record["threshold"]
    assert PeakSettings.from_json(record) == PeakSettings(window_frames=3)


def shaky_match(seed: int, num_frames: int = 6000) -> tuple[FloatArray, Spots]:
    """Three classes; each event a bump of sigma 5 frames under noise, so that smoothing pays."""
    generator = np.random.default_rng(seed)
    time, scores, cells = np.arange(num_frames), generator.normal(0.4, 0.15, (num_frames, 3)), []
    for c in range(3):
        for frame in range(60 + 20 * c, num_frames - 40, 150):
            scores[:, c] += 0.3 * np.exp(-0.5 * ((time - frame) / 5) ** 2)
            cells.append((frame, c))
    frames, classes = np.array(cells).T
    return scores.clip(0, 1), Spots.collect(frames, classes, np.ones(len(cells)), num_classes=3)


def test_the_choice_is_the_best_of_its_table_and_the_simplest_of_equals() -> None:
    matches = [shaky_match(seed) for seed in range(2)]
    scores, events = [match[0] for match in matches], [match[1] for match in matches]
    choice = choose_peaks(scores, events, metric=AT1, num_headline=2)
    assert [row.settings for row in choice.table] == list(CANDIDATES)
    best = max(row.headline for row in choice.table)
    assert next(row for row in choice.table if row.settings == choice.best).headline == pytest.approx(best)
    assert choice.best.sigma_frames >= 2
    assert min(row.headline for row in choice.table) < best - 0.1
    for row in choice.table[::9]:
        games = [Game(true, find_spots(match, row.settings)) for match, true in matches_of(scores, events)]
        result = average_map(games, AT1)
        assert row.overall == result.mean
        assert row.headline == result.per_class[:2].mean()


def matches_of(scores: list[FloatArray], events: list[Spots]) -> list[tuple[FloatArray, Spots]]:
    return list(zip(scores, events, strict=True))


def test_of_equals_the_simplest_is_chosen() -> None:
    scores = np.zeros((500, 1))
    scores[[100, 300]] = 0.9
    events = Spots.collect([100, 300], [0, 0], [1.0, 1.0], num_classes=1)
    choice = choose_peaks([scores], [events], metric=AT1, num_headline=1, candidates=CANDIDATES[::-1])
    assert {row.headline for row in choice.table} == {1.0}
    assert choice.best == CANDIDATES[0] == PeakSettings("hard", 8, 0.0)


@pytest.mark.parametrize(("fps", "window_frames"), [(1, 0), (2, 1), (Fraction(9, 2), 2)])
def test_rows_far_apart_have_short_windows_and_no_smoothing(fps: Fraction, window_frames: int) -> None:
    default = default_peaks(Fraction(fps))
    assert (default.kind, default.window_frames, default.sigma_frames) == ("hard", window_frames, 0)
    tried = candidates_for(Fraction(fps))
    assert len(set(tried)) == len(tried)
    assert {each.kind for each in tried} == {"hard", "soft"}
    assert max(each.window_frames for each in tried) == 2
    assert max(each.sigma_frames for each in tried) == 1


@pytest.mark.parametrize("fps", [5, 25, 50])
def test_rows_near_each_other_have_the_windows_of_25_fps(fps: int) -> None:
    assert default_peaks(Fraction(fps)) == PeakSettings()
    assert candidates_for(Fraction(fps)) == CANDIDATES


def test_a_narrow_tolerance_has_narrow_windows() -> None:
    assert default_peaks(FPS, 0.36) == PeakSettings(window_frames=4, sigma_frames=0.72)
    tried = candidates_for(FPS, 0.36)
    assert {each.window_frames for each in tried if each.kind == "hard"} == {3, 4, 6, 7}
    assert {each.kind for each in tried} == {"hard", "soft"}
    assert len(set(tried)) == len(tried)
    assert candidates_for(FPS, 4.0) == CANDIDATES
    assert min(each.window_frames for each in candidates_for(FPS, 0.01)) == 1


def test_a_window_of_less_than_a_row_keeps_every_maximum() -> None:
    scores = np.array([[0.1], [0.9], [0.2], [0.8], [0.1]])
    assert find_spots(scores, default_peaks(Fraction(1))).frames.tolist() == [1, 3]


def test_a_choice_of_nothing_is_refused() -> None:
    scores, events = shaky_match(0, num_frames=300)
    good: dict[str, Any] = {"scores": [scores], "events": [events], "metric": AT1, "num_headline": 1}
    changes: list[dict[str, Any]] = [
        {"scores": [], "events": []},
        {"events": []},
        {"candidates": []},
        {"num_headline": 4},
        {"num_headline": 0},
        {"scores": [scores[:, :2]]},
    ]
    for change in changes:
        with pytest.raises(InputError):
            choose_peaks(**(good | change))


@pytest.mark.shared
def test_the_authors_own_settings_give_the_published_scores(shared_data: Path, real_games: RealGames) -> None:
    document = json.loads((shared_data / "snbas" / "expected_mAP_at1.json").read_text())
    theirs = document["postprocess"]
    chosen = PeakSettings("hard", theirs["distance"] - 1, theirs["gauss_sigma"], theirs["height"])
    assert len(real_games) == 5
    for game, halves in real_games.items():
        ours = average_map([Game(events, find_spots(scores, chosen)) for scores, events in halves], AT1)
        assert ours.mean == pytest.approx(document["games"][game]["published_mAP_at1"], abs=5e-4)
