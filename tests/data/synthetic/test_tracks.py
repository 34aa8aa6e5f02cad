"""Paths of ball and players: nobody is faster than people are, and whoever acts is at the ball."""

import numpy as np
import pytest

from bas.data.synthetic.data_set import script_of
from bas.data.synthetic.pitch import NUM_PLAYERS
from bas.data.synthetic.script import Script
from bas.data.synthetic.tracks import POSES, Tracks, late, make_tracks, smooth

NUM_FRAMES = 30_000


@pytest.fixture(scope="module")
def script() -> Script:
    return script_of(7, num_frames=NUM_FRAMES)


@pytest.fixture(scope="module")
def tracks(script: Script) -> Tracks:
    return make_tracks(script, np.random.default_rng(0))


def test_people_move_like_people(tracks: Tracks) -> None:
    speed = np.hypot(tracks.velocity[..., 0], tracks.velocity[..., 1])
    assert 1 < np.median(speed) < 3
    assert np.quantile(speed, 0.99) < 9.5
    assert np.quantile(speed, 0.999) < 14
    assert speed.max() < 30
    x, y = np.abs(tracks.players[..., 0]), np.abs(tracks.players[..., 1])
    assert (x.max() < 62, y.max() < 42) == (True, True)


def test_whoever_acts_is_at_the_ball_in_the_right_pose(script: Script, tracks: Tracks) -> None:
    poses = {"PASS": "kick", "HIGH PASS": "kick", "CROSS": "kick", "SHOT": "kick", "FREE KICK": "kick"}
    poses |= {"DRIVE": "push", "HEADER": "head", "THROW IN": "throw"}
    right = []
    for event in script.events:
        frame = event.position_ms // 40
        if event.label not in poses or not 10 < frame < NUM_FRAMES - 10:
            continue
        side = 0 if event.team == "left" else 1
        team = slice(side * NUM_PLAYERS, (side + 1) * NUM_PLAYERS)
        distance = np.hypot(*(tracks.players[frame, team] - tracks.ball[frame, :2]).T)
        actor = side * NUM_PLAYERS + int(distance.argmin())
        is_posed = POSES[tracks.pose[frame, actor]] == poses[event.label] and tracks.moment[frame, actor] == 0
        right.append(bool(distance.min() < 1.5 and is_posed))
    assert len(right) > 200
    assert np.mean(right) > 0.97


def test_legs_move_as_far_as_the_player(tracks: Tracks) -> None:
    ways = np.linalg.norm(np.diff(tracks.players, axis=0), axis=2).sum(axis=0)
    assert np.allclose(tracks.stride[-1], ways, rtol=0.02)


def test_smoothing_keeps_a_constant_and_a_line_and_late_shifts() -> None:
    line = np.arange(50.0)
    assert np.allclose(smooth(np.full(30, 4.0), 9), 4)
    assert np.allclose(smooth(line, 9)[4:-4], line[4:-4])
    assert np.array_equal(late(line, 3), np.concatenate([[0, 0, 0], line[:-3]]))
