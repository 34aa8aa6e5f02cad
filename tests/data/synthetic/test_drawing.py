"""How synthetic matches look: the ball is where the labels say, the camera follows, and no match looks like another."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from bas.data.synthetic.data_set import make_painter, script_of
from bas.data.synthetic.draw import Painter, _smear
from bas.data.synthetic.look import HEIGHT, WIDTH, draw_look, follow, make_camera
from bas.data.synthetic.tracks import make_tracks

SEEDS = (1, 2)
NUM_FRAMES = 1500


@pytest.fixture(scope="module")
def painters() -> dict[int, Painter]:
    return {seed: make_painter(script_of(seed, num_frames=NUM_FRAMES), seed)[0] for seed in SEEDS}


def luma(painter: Painter, frame: int) -> npt.NDArray[np.uint8]:
    return painter.draw(frame)[:HEIGHT].copy()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ball_is_to_be_seen_where_the_labels_say(seed: int, painters: dict[int, Painter]) -> None:
    painter, script = painters[seed], script_of(seed, num_frames=NUM_FRAMES)
    seen = []
    for event in script.events:
        frame = event.position_ms // 40
        (column,), (row,), _ = painter.place(frame, painter.ball(frame)[None])
        image, u, v = luma(painter, frame).astype(int), round(float(column)), round(float(row))
        assert (4 < u < WIDTH - 4, 4 < v < HEIGHT - 4) == (True, True), "out of the picture"
        around = image[v - 9 : v + 10, u - 9 : u + 10]
        seen.append(image[v - 4 : v + 2, u - 2 : u + 3].max() > np.median(around) + 40)
    assert len(seen) > 8
    assert np.mean(seen) > 0.9


def test_a_frame_is_the_same_whatever_was_drawn_before(painters: dict[int, Painter]) -> None:
    direct = luma(painters[1], 300)
    for frame in range(250, 300):
        painters[1].draw(frame)
    assert np.array_equal(luma(painters[1], 300), direct)
    assert not np.array_equal(luma(painters[1], 301), direct)


def test_the_camera_follows_the_ball_and_keeps_inside_the_stadium() -> None:
    for seed in range(4):
        script = script_of(seed, num_frames=20_000)
        look, rng = draw_look(np.random.default_rng(seed)), np.random.default_rng(seed)
        tracks, camera = make_tracks(script, rng), make_camera(look)
        views = follow(camera, look, ball=tracks.ball, rng=rng)
        assert views.left.min() >= 0
        assert views.top.min() >= 0
        assert (views.left + views.zoom * WIDTH + 1).max() < camera.columns
        assert (views.top + views.zoom * HEIGHT + 1).max() < camera.rows
        column, row, _ = camera.pixels(tracks.ball.astype(float))
        assert np.corrcoef(column, views.left)[0, 1] > 0.95
        x, y = (column - views.left) / views.zoom, (row - views.top) / views.zoom
        frames = [event.position_ms // 40 for event in script.events]
        inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
        assert inside.mean() > 0.95  # high balls leave it for a moment
        assert inside[frames].mean() > 0.99
        assert np.abs(np.diff(views.left)).max() < 40
        assert np.abs(np.diff(views.zoom)).max() < 0.01


def test_a_higher_ball_is_higher_in_the_picture_than_its_shadow(painters: dict[int, Painter]) -> None:
    points = np.array([[3.0, 5.0, 0.0], [3.0, 5.0, 4.0]])
    (u0, u1), (v0, v1), _ = painters[2].place(700, points)
    assert abs(u0 - u1) < 1e-6
    assert 20 < v0 - v1 < 80


def test_far_players_are_smaller(painters: dict[int, Painter]) -> None:
    _, (far, near), (far_scale, near_scale) = painters[2].place(0, np.array([[0.0, 30.0, 0.0], [0.0, -30.0, 0.0]]))
    assert far < near
    assert 1.3 < near_scale / far_scale < 2.5


def test_every_match_looks_different_unless_variety_is_none() -> None:
    means = []
    for seed in range(4):
        painter, _ = make_painter(script_of(seed, num_frames=10), seed)
        image = painter.draw(0)
        means.append([image[HEIGHT // 2 : HEIGHT].mean(), image[HEIGHT:].reshape(2, -1).mean(), image[:30].std()])
    assert min(np.abs(np.subtract(a, b)).max() for a, b in itertools.combinations(means, 2)) > 2
    same = [draw_look(np.random.default_rng(seed), variety=0) for seed in range(3)]
    assert same[0].grass == same[1].grass == same[2].grass


@pytest.mark.parametrize("pixels", [0.3, 1.0, 4.6])
def test_a_turning_camera_smears_along_the_rows_and_changes_no_brightness(pixels: float) -> None:
    image = np.full((1, 4, 60), 100, np.uint8)
    image[0, 1, 30] = 220
    _smear(image, pixels)
    assert np.array_equal(image[0, 2], np.full(60, 100))
    spread = image[0, 1].astype(int) - 100
    assert abs(spread.sum() - 120) <= 6
    assert abs(spread @ np.arange(60) / spread.sum() - 30) <= 0.5
    assert np.count_nonzero(spread) == int(np.ceil(pixels)) + 1
