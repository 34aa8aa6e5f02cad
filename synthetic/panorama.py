"""The stadium as seen all around the camera: grass, lines, goals, boards and crowd, drawn once per match."""

import numpy as np
import numpy.typing as npt

from .camera import Camera
from .look import Look
from .pitch import GOAL_HALF_WIDTH, GOAL_HEIGHT, HALF_LENGTH, HALF_WIDTH, Array

_BOARD_GAP_METRES, _BOARD_METRES = 4.0, 1.0
_LINE_METRES = 0.17
_SCALE = 2
"""Samples per pixel and axis."""


def draw_panorama(camera: Camera, look: Look, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The panorama, (rows, columns, 3) RGB, 0 to 255."""
    rows = (np.arange(camera.rows * _SCALE) + 0.5) / _SCALE - 0.5
    columns = (np.arange(camera.columns * _SCALE) + 0.5) / _SCALE - 0.5
    angle, slope = camera.rays(columns[None, :], rows[:, None])
    with np.errstate(divide="ignore"):
        distance = np.where(slope > 1e-4, camera.height / np.maximum(slope, 1e-4), 1e6)
    x, y = distance * np.sin(angle), camera.y + distance * np.cos(angle)
    image = _grass(look, x, y, rng)
    line = _lines(x, y) / np.maximum(1.0, distance / camera.focal / _LINE_METRES / 1.3)
    image += line[..., None] * 0.8 * (np.array([240.0, 240.0, 235.0]) - image)
    if look.shade < 1:
        edge = np.clip((y - look.shade_edge_metres) / 1.5 + 0.5, 0, 1)
        image *= (look.shade + (1 - look.shade) * edge)[..., None]
    _stand(image, camera, look, rng, angle, slope)
    rows_out, columns_out = camera.rows, camera.columns
    small = image.reshape(rows_out, _SCALE, columns_out, _SCALE, 3).mean(axis=(1, 3))
    for end in (-1, 1):
        _goal(small, camera, end)
    return np.asarray(small, np.float32)


def _grass(look: Look, x: Array, y: Array, rng: np.random.Generator) -> Array:
    across = np.floor(x / look.stripe_metres) % 2
    along = np.floor(y / look.stripe_metres) % 2
    stripe = (across + along) % 2 if look.checks else across if look.stripes_across else along
    light, dark = np.array(look.grass[0]), np.array(look.grass[1])
    inside = (np.abs(x) < HALF_LENGTH + 3) & (np.abs(y) < HALF_WIDTH + 3)
    stripe = np.where(inside, stripe, 0.6)
    image = dark + (light - dark) * stripe[..., None]
    patches = rng.normal(0, 1, (64, 96))
    spot = patches[np.floor(y / 1.7).astype(int) % 64, np.floor(x / 2.3).astype(int) % 96]
    fine = rng.normal(0, 1, x.shape)
    result: Array = image * (1 + 0.012 * spot + 0.02 * fine)[..., None]
    return result


def _lines(x: Array, y: Array) -> Array:
    """Coverage by white lines, 0 to 1."""
    half = _LINE_METRES / 2
    covered = np.zeros(x.shape, bool)
    a, b = np.abs(x), np.abs(y)
    on = (a <= HALF_LENGTH + half) & (b <= HALF_WIDTH + half)
    covered |= on & ((np.abs(a - HALF_LENGTH) < half) | (np.abs(b - HALF_WIDTH) < half) | (a < half))
    for depth, width in ((16.5, 20.16), (5.5, 9.16)):
        edge = HALF_LENGTH - depth
        covered |= (np.abs(a - edge) < half) & (b < width + half)
        covered |= (np.abs(b - width) < half) & (a > edge) & (a < HALF_LENGTH)
    radius = np.hypot(x, y)
    covered |= (np.abs(radius - 9.15) < half) | (radius < 0.25)
    from_spot = np.hypot(a - (HALF_LENGTH - 11), y)
    covered |= (from_spot < 0.25) | ((np.abs(from_spot - 9.15) < half) & (a < HALF_LENGTH - 16.5))
    corner = np.hypot(a - HALF_LENGTH, b - HALF_WIDTH)
    covered |= (np.abs(corner - 1) < half) & on
    return covered.astype(np.float64)


def _stand(image: Array, camera: Camera, look: Look, rng: np.random.Generator, angle: Array, slope: Array) -> None:
    """Boards and crowd on a rectangle around the pitch, painted over whatever lies behind it."""
    wall_y, wall_x = HALF_WIDTH + _BOARD_GAP_METRES - camera.y, HALF_LENGTH + _BOARD_GAP_METRES + 1
    along_far = wall_y * np.tan(np.clip(angle, -1.5, 1.5))
    behind_goal = np.abs(along_far) > wall_x
    safe = np.where(np.abs(np.sin(angle)) > 1e-3, np.abs(np.sin(angle)), 1e-3)
    distance = np.where(behind_goal, wall_x / safe, wall_y / np.cos(angle))
    place = np.where(behind_goal, distance * np.cos(angle) + 300 * np.sign(angle), along_far)
    height = camera.height - distance * slope  # (rows, columns) metres on the wall
    boards = (height >= 0) & (height < _BOARD_METRES)
    panel = np.floor(place / 6.5).astype(int)
    colours = np.array(look.boards)
    image_boards = colours[(panel * 7 + panel // 3) % len(colours)]
    pattern = rng.random((8, 997)) < 0.42
    letter = pattern[np.clip((height * 8).astype(int), 0, 7), np.floor(place * 2.1).astype(int) % 997]
    letter &= (height > 0.22) & (height < 0.8) & ((place % 6.5 > 0.9) & (place % 6.5 < 5.6))
    image_boards = np.where(letter[..., None], 255 - 0.8 * image_boards, image_boards)
    image[boards] = np.broadcast_to(image_boards, image.shape)[boards]
    above = height >= _BOARD_METRES
    image[above] = _crowd(look, rng, place, height)[above]


def _crowd(look: Look, rng: np.random.Generator, place: Array, height: Array) -> Array:
    """Heads in rows, with steps and gangways between them."""
    grid = rng.random((512, 512))
    seat_u = np.floor(place / 0.55).astype(int) % 512
    seat_v = np.floor(height / 0.8).astype(int) % 512
    who = grid[seat_v, np.broadcast_to(seat_u, seat_v.shape)]
    colours = np.array([*look.crowd, (30, 30, 36), (170, 140, 120)])
    image = colours[np.clip((who * 5).astype(int), 0, 4)] * (0.55 + 0.6 * ((who * 37) % 1))[..., None]
    image *= (0.75 + 0.25 * ((height / 0.8) % 1))[..., None]
    gangway = np.broadcast_to((place % 17) < 0.9, height.shape) | (np.abs(height - 6.4) < 0.5)
    image[gangway] = 0.35 * image[gangway] + 70
    low = height < _BOARD_METRES + 0.5
    image[low] = 60
    return np.asarray(image)


def _goal(image: Array, camera: Camera, end: int) -> None:
    """Posts, bar and net, as translucent strokes."""
    x, w, h = end * HALF_LENGTH, GOAL_HALF_WIDTH, GOAL_HEIGHT
    back = x + end * 1.9
    net = [((x, y, h), (back, y, 0.0)) for y in np.linspace(-w, w, 15)]
    net += [((x + end * 1.9 * s, -w, h * (1 - s)), (x + end * 1.9 * s, w, h * (1 - s))) for s in np.linspace(0.1, 1, 7)]
    net += [((x, y, h * s), (x + end * 1.9 * (1 - s), y, h * s)) for y in (-w, w) for s in np.linspace(0.15, 0.9, 5)]
    for start, stop in net:
        _stroke(image, camera, start, stop, width=0.5, alpha=0.28)
    frame = [((x, -w, 0), (x, -w, h)), ((x, w, 0), (x, w, h)), ((x, -w, h), (x, w, h))]
    for start, stop in frame:
        _stroke(image, camera, start, stop, width=1.5, alpha=0.95)


def _stroke(
    image: Array,
    camera: Camera,
    start: tuple[float, float, float],
    stop: tuple[float, float, float],
    *,
    width: float,
    alpha: float,
) -> None:
    """A straight white stroke between two points in metres, `width` pixels wide."""
    columns, rows, _ = camera.pixels(np.array([start, stop], float))
    left, right = int(columns.min()) - 3, int(columns.max()) + 4
    top, bottom = int(rows.min()) - 3, int(rows.max()) + 4
    v, u = np.mgrid[top:bottom, left:right]
    du, dv = columns[1] - columns[0], rows[1] - rows[0]
    share = ((u - columns[0]) * du + (v - rows[0]) * dv) / max(1e-9, du * du + dv * dv)
    share = np.clip(share, 0, 1)
    distance = np.hypot(u - columns[0] - share * du, v - rows[0] - share * dv)
    cover = alpha * np.clip(width / 2 + 0.5 - distance, 0, 1)[..., None]
    part = image[top:bottom, left:right]
    part += cover * (235.0 - part)
