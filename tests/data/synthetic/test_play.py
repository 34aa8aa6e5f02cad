"""What happens in synthetic matches: as often and as close together as in real ones, by the laws of the game."""

import itertools
from collections import Counter

import numpy as np
import pytest

from bas.data.synthetic.data_set import script_of
from bas.data.synthetic.pitch import GOAL_HALF_WIDTH, GOAL_HEIGHT, HALF_LENGTH, HALF_WIDTH
from bas.data.synthetic.script import Script
from bas.data.synthetic.tracks import ball_path
from bas.events import SOCCERNET_BALL_CLASSES

HALF_HOUR = 45_000
REAL = {
    **{"PASS": 4985, "DRIVE": 4300, "HEADER": 713, "HIGH PASS": 761, "OUT": 551, "CROSS": 261, "THROW IN": 362},
    **{"SHOT": 169, "BALL PLAYER BLOCK": 223, "PLAYER SUCCESSFUL TACKLE": 74, "FREE KICK": 21, "GOAL": 13},
}
"""Events of the seven SoccerNet matches."""


@pytest.fixture(scope="module")
def ten_hours() -> list[Script]:
    return [script_of(seed, num_frames=HALF_HOUR) for seed in range(20)]


def test_classes_are_as_frequent_as_in_real_matches(ten_hours: list[Script]) -> None:
    counts = Counter(event.label for script in ten_hours for event in script.events)
    assert set(counts) == set(SOCCERNET_BALL_CLASSES)
    share = {label: counts[label] / counts.total() * sum(REAL.values()) / REAL[label] for label in REAL}
    assert all(0.95 < share[label] < 1.05 for label in ("PASS", "DRIVE")), share
    assert all(0.8 < share[label] < 1.25 for label in REAL if REAL[label] > 150), share
    assert all(0.4 < share[label] < 2 for label in REAL), share  # about 10 FREE KICKs and GOALs: chance
    assert 17.2 < counts.total() / 600 < 19.2  # a minute; 18.2 in real matches


def test_gaps_between_events_are_those_of_real_matches(ten_hours: list[Script]) -> None:
    gaps, same = [], 0
    for script in ten_hours:
        for first, second in itertools.pairwise(script.events):
            gaps.append((second.position_ms - first.position_ms) / 1000)
            same += first.label == second.label and gaps[-1] <= 0.48
    assert abs(np.median(gaps) - 1.56) < 0.12
    assert abs(np.mean(np.array(gaps) <= 1) - 0.23) < 0.03
    assert same / len(gaps) < 0.008  # 0.4 % in real matches
    assert min(gaps) > 0


def test_labels_are_ordered_frames_inside_the_match(ten_hours: list[Script]) -> None:
    for script in ten_hours[:4]:
        positions = [event.position_ms for event in script.events]
        assert positions == sorted(set(positions))
        assert all(position % 40 == 0 and 0 <= position < HALF_HOUR * 40 for position in positions)
        assert {event.team for event in script.events} == {"left", "right"}


def test_play_follows_the_laws_of_the_game(ten_hours: list[Script]) -> None:
    after = Counter(
        (first.label, second.label) for script in ten_hours for first, second in itertools.pairwise(script.events)
    )
    assert {second for first, second in after if first == "OUT"} <= {"THROW IN", "HIGH PASS", "PASS", "CROSS"}
    assert {first for first, second in after if second == "THROW IN"} == {"OUT"}
    assert {second for first, second in after if first == "GOAL"} == {"PASS"}  # from the centre spot
    assert {first for first, second in after if second == "GOAL"} <= {"SHOT", "FREE KICK"}
    assert {first for first, second in after if second == "PLAYER SUCCESSFUL TACKLE"} == {"DRIVE"}


def test_the_ball_is_where_the_label_says(ten_hours: list[Script]) -> None:
    seen: Counter[str] = Counter()
    for script in ten_hours:
        ball = ball_path(script)
        for event in script.events:
            x, y, z = (float(each) for each in np.abs(ball[event.position_ms // 40]))
            seen[event.label] += 1
            on_a_line = abs(x - HALF_LENGTH) < 1e-3 or abs(y - HALF_WIDTH) < 1e-3
            if event.label == "OUT":
                assert on_a_line
                assert x < HALF_LENGTH - 1e-3 or y > GOAL_HALF_WIDTH or z > GOAL_HEIGHT, "that is a goal"
            elif event.label == "GOAL":
                assert (abs(x - HALF_LENGTH) < 1e-3, y < GOAL_HALF_WIDTH, z < GOAL_HEIGHT) == (True, True, True)
            elif event.label == "THROW IN":
                assert y > HALF_WIDTH
            elif event.label == "HEADER":
                assert 1.7 < z < 2.5
            else:
                assert (x <= HALF_LENGTH, y <= HALF_WIDTH, z < 1.3) == (True, True, True)
    assert set(seen) == set(SOCCERNET_BALL_CLASSES)


def test_the_ball_never_jumps_and_a_free_kick_starts_from_rest(ten_hours: list[Script]) -> None:
    for script in ten_hours:
        for first, second in itertools.pairwise(script.flights):
            assert (first.stop, first.to) == (second.start, second.origin)
        ball = ball_path(script)
        assert np.linalg.norm(np.diff(ball, axis=0), axis=1).max() * 25 < 40  # m/s
        assert ball[:, 2].min() > -1e-3
        for event in script.events:
            frame = event.position_ms // 40
            if event.label == "FREE KICK":
                assert np.ptp(ball[frame - 20 : frame + 1], axis=0).max() < 1e-3
                assert np.linalg.norm(ball[frame + 5] - ball[frame]) > 1


def test_equal_seeds_play_alike_and_most_short_matches_have_a_pass_and_a_drive() -> None:
    assert script_of(3, num_frames=500) == script_of(3, num_frames=500)
    assert script_of(3, num_frames=500) != script_of(4, num_frames=500)
    short = [{event.label for event in script_of(seed, num_frames=200).events} for seed in range(40)]
    assert np.mean([{"PASS", "DRIVE"} <= labels for labels in short]) > 0.8
    assert all("PASS" in labels for labels in short), "a match begins with the kick-off"
