"""The stadium as seen all around the camera: grass, lines, goals, boards and crowd, drawn once per match."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .look import Camera, Look
from .pitch import GOAL_HALF_WIDTH, GOAL_HEIGHT, HALF_LENGTH, HALF_WIDTH

Floats = npt.NDArray[np.floating[Any]]
_BOARD_GAP_METRES, _BOARD_METRES, _PANEL_METRES = 4.0, 1.0, 6.5
_LINE_METRES = 0.14
_SEAT_METRES, _ROW_METRES = 0.55, 0.8
_WHITE = np.array([238.0, 238.0, 232.0], np.float32)


@dataclass(frozen=True)
class _Ground:
    """What each pixel sees of the pitch's plane, (rows, columns) or what broadcasts to it; metres."""

    x: Floats
    y: Floats
    sine: Floats
    """Of the angle of view, (1, columns)."""
    cosine: Floats
    wide: Floats
    """What a pixel covers across the line of sight."""
    deep: Floats
    """What it covers along it."""

    def footprint(self, normal_x: Floats | float, normal_y: Floats | float) -> Floats:
        """What a pixel covers in the direction of a unit normal."""
        along = np.abs(normal_x * self.sine + normal_y * self.cosine)
        across = np.abs(normal_x * self.cosine - normal_y * self.sine)
        result: Floats = along * self.deep + across * self.wide
        return result


def draw_panorama(camera: Camera, look: Look, rng: np.random.Generator) -> Floats:
    """The panorama, (rows, columns, 3) RGB, 0 to 255."""
    rows, columns = np.arange(camera.rows, dtype=np.float32), np.arange(camera.columns, dtype=np.float32)
    angle, slope = (each.astype(np.float32) for each in camera.rays(columns[None, :], rows[:, None]))
    ground = _ground(camera, angle, slope)
    image = _grass(look, ground, rng)
    image += (0.85 * _lines(ground))[..., None] * (_WHITE - image)
    if look.shade < 1:
        edge = np.clip((ground.y - look.shade_edge_metres) / 1.5 + 0.5, 0, 1)
        image *= (look.shade + (1 - look.shade) * edge)[..., None]
    _stand(image, camera, look, rng, angle, slope)
    for end in (-1, 1):
        _goal(image, camera, end)
    return image


def _ground(camera: Camera, angle: Floats, slope: Floats) -> _Ground:
    distance = np.float32(camera.height) / np.maximum(slope, np.float32(0.05))
    sine, cosine = np.sin(angle), np.cos(angle)
    deep = distance**2 / np.float32(camera.focal * camera.height)
    wide = distance / np.float32(camera.focal)
    return _Ground(distance * sine, np.float32(camera.y) + distance * cosine, sine, cosine, wide, deep)


def _grass(look: Look, ground: _Ground, rng: np.random.Generator) -> Floats:
    metres = np.float32(look.stripe_metres)
    across = _stripes(ground.x, ground.footprint(1, 0), metres)
    along = _stripes(ground.y, ground.footprint(0, 1), metres)
    both = across + along - 2 * across * along
    stripe = both if look.checks else across if look.stripes_across else along
    inside = (np.abs(ground.x) < HALF_LENGTH + 3) & (np.abs(ground.y) < HALF_WIDTH + 3)
    stripe = np.where(inside, stripe, np.float32(0.6))
    light, dark = np.array(look.grass[0], np.float32), np.array(look.grass[1], np.float32)
    patches = rng.standard_normal((191, 193), np.float32)
    spot = patches[(ground.y / 0.9).astype(int) % 191, (ground.x / 1.1).astype(int) % 193]
    fine = rng.standard_normal(stripe.shape, np.float32)
    image: Floats = dark + (light - dark) * stripe[..., None]
    image *= (1 + np.float32(look.wear) * spot + 0.02 * fine)[..., None]
    return image


def _stripes(metres: Floats, footprint: Floats, width: np.float32) -> Floats:
    """0 and 1 by turns, blended at the edges."""
    wave = np.abs((metres / width) % 2 - 1) - np.float32(0.5)
    result: Floats = np.clip(wave * width / footprint + np.float32(0.5), 0, 1)
    return result


def _lines(ground: _Ground) -> Floats:
    """Share of each pixel that is white paint, 0 to 1."""
    a, b, half = np.abs(ground.x), np.abs(ground.y), _LINE_METRES / 2
    foot_x, foot_y = ground.footprint(1, 0), ground.footprint(0, 1)
    on_length, on_width = a <= HALF_LENGTH + half, b <= HALF_WIDTH + half
    paint = _stroke_cover(a - HALF_LENGTH, foot_x) * on_width
    np.maximum(paint, _stroke_cover(b - HALF_WIDTH, foot_y) * on_length, out=paint)
    np.maximum(paint, _stroke_cover(ground.x, foot_x) * on_width, out=paint)
    for depth, width in ((16.5, 20.16), (5.5, 9.16)):
        edge = HALF_LENGTH - depth
        np.maximum(paint, _stroke_cover(a - edge, foot_x) * (b < width + half), out=paint)
        np.maximum(paint, _stroke_cover(b - width, foot_y) * ((a > edge) & on_length), out=paint)
    spot = HALF_LENGTH - 11
    arcs = ((0.0, 0.0, 9.15, a >= 0), (spot, 0.0, 9.15, a < HALF_LENGTH - 16.5))
    corners = ((HALF_LENGTH, HALF_WIDTH, 1.0, on_length & on_width),)
    dots = ((0.0, 0.0, 0.12, a >= 0), (spot, 0.0, 0.12, a >= 0))
    for centre_x, centre_y, radius, where in (*arcs, *corners, *dots):
        u, v = a - np.float32(centre_x), b - np.float32(centre_y)
        far = np.maximum(np.hypot(u, v), np.float32(1e-3))
        foot = ground.footprint(u / far * np.sign(ground.x), v / far * np.sign(ground.y))
        np.maximum(paint, _stroke_cover(far - np.float32(radius), foot) * where, out=paint)
    return paint


def _stroke_cover(away: Floats, footprint: Floats) -> Floats:
    """Share of a pixel under a line at `away` metres; far lines stay visible, but get fainter."""
    half = np.maximum(np.float32(_LINE_METRES / 2), np.float32(0.4) * footprint)
    faint = np.sqrt(np.float32(_LINE_METRES / 2) / half)
    result: Floats = faint * np.clip((half - np.abs(away)) / footprint + np.float32(0.5), 0, 1)
    return result


def _stand(image: Floats, camera: Camera, look: Look, rng: np.random.Generator, angle: Floats, slope: Floats) -> None:
    """Boards and crowd on a rectangle around the pitch, painted over whatever lies behind it."""
    wall_y, wall_x = HALF_WIDTH + _BOARD_GAP_METRES - camera.y, HALF_LENGTH + _BOARD_GAP_METRES + 1
    along_far = wall_y * np.tan(angle)
    behind_goal = np.abs(along_far) > wall_x
    distance = np.where(behind_goal, wall_x / np.maximum(np.abs(np.sin(angle)), 1e-3), wall_y / np.cos(angle))
    place = np.where(behind_goal, distance * np.cos(angle) + 300 * np.sign(angle), along_far).astype(np.float32)
    height = (camera.height - distance * slope).astype(np.float32)
    high = int(np.flatnonzero((height >= 0).any(axis=1))[-1]) + 1
    height, part = height[:high], image[:high]
    stand, foot = height >= 0, camera.focal / distance
    painted = np.where((height < _BOARD_METRES)[..., None], _boards(look, rng, place, height), 0)
    crowd = height >= _BOARD_METRES
    painted = np.where(crowd[..., None], _crowd(look, rng, place, height), painted)
    share = np.clip(height * foot.astype(np.float32) + 0.5, 0, 1) * (stand | (height > -0.2))
    part += share[..., None] * (painted - part)


def _boards(look: Look, rng: np.random.Generator, place: Floats, height: Floats) -> Floats:
    """Panels with something like writing on them."""
    panel = np.floor(place / _PANEL_METRES).astype(int)
    colours = np.array(look.boards, np.float32)
    image = colours[(panel * 7 + panel // 3) % len(colours)]
    pattern = rng.random((8, 997)) < 0.45
    letter = pattern[np.clip((height * 8).astype(int), 0, 7), np.floor(place * 2.1).astype(int) % 997]
    within = place % _PANEL_METRES
    letter &= (height > 0.22) & (height < 0.8) & (within > 0.9) & (within < _PANEL_METRES - 0.9)
    bright = np.where(image.mean(axis=-1, keepdims=True) < 130, np.float32(225), np.float32(35))
    result: Floats = np.where(letter[..., None], bright, image).astype(np.float32)
    return result


def _crowd(look: Look, rng: np.random.Generator, place: Floats, height: Floats) -> Floats:
    """Heads over shirts in rows, with gangways between them."""
    grid = rng.random((512, 512), np.float32)
    level = height / np.float32(_ROW_METRES)
    row = np.floor(level).astype(int)
    seat = (place / np.float32(_SEAT_METRES) + np.float32(0.5) * (row % 2)).astype(np.float32)
    column = np.floor(seat).astype(int)
    who = grid[row % 512, column % 512]
    shirts = np.array([*look.crowd, (34, 34, 40), (60, 60, 70), look.crowd[0]], np.float32)
    image = shirts[np.clip((who * 6).astype(int), 0, 5)] * (0.5 + 0.6 * ((who * 37) % 1))[..., None]
    up, aside = level - row, np.abs(seat - column - np.float32(0.5))
    head = (up > 0.55) & (aside < 0.26)
    image = np.where(
        head[..., None], np.array([150, 118, 98], np.float32) * (0.6 + 0.6 * ((who * 91) % 1))[..., None], image
    )
    dark = ((up > 0.55) & (aside >= 0.26)) | (who > 0.93)
    image *= np.where(dark, np.float32(0.35), np.float32(0.9))[..., None]
    gangway = np.broadcast_to((place % 17) < 0.9, height.shape) | (np.abs(height - 6.9) < 0.5)
    image[gangway] = 0.3 * image[gangway] + 60
    image[height < _BOARD_METRES + 0.45] = 50
    result: Floats = image.astype(np.float32)
    return result


def _goal(image: Floats, camera: Camera, end: int) -> None:
    """Posts, bar and net, as translucent strokes."""
    x, w, h = end * HALF_LENGTH, GOAL_HALF_WIDTH, GOAL_HEIGHT
    back = x + end * 1.9
    net = [((x, y, h), (back, y, 0.0)) for y in np.linspace(-w, w, 15)]
    net += [((x + end * 1.9 * s, -w, h * (1 - s)), (x + end * 1.9 * s, w, h * (1 - s))) for s in np.linspace(0.1, 1, 7)]
    net += [((x, y, h * s), (x + end * 1.9 * (1 - s), y, h * s)) for y in (-w, w) for s in np.linspace(0.15, 0.9, 5)]
    for start, stop in net:
        _stroke(image, camera, (start, stop), width=0.5, alpha=0.28)
    for start, stop in (((x, -w, 0), (x, -w, h)), ((x, w, 0), (x, w, h)), ((x, -w, h), (x, w, h))):
        _stroke(image, camera, (start, stop), width=1.5, alpha=0.95)


def _stroke(
    image: Floats, camera: Camera, ends: tuple[tuple[float, ...], tuple[float, ...]], *, width: float, alpha: float
) -> None:
    """A straight white stroke between two points in metres, `width` pixels wide."""
    columns, rows, _ = camera.pixels(np.array(ends, float))
    left, right = int(columns.min()) - 3, int(columns.max()) + 4
    top, bottom = int(rows.min()) - 3, int(rows.max()) + 4
    v, u = np.mgrid[top:bottom, left:right]
    du, dv = columns[1] - columns[0], rows[1] - rows[0]
    share = np.clip(((u - columns[0]) * du + (v - rows[0]) * dv) / max(1e-9, du * du + dv * dv), 0, 1)
    distance = np.hypot(u - columns[0] - share * du, v - rows[0] - share * dv)
    cover = (alpha * np.clip(width / 2 + 0.5 - distance, 0, 1)).astype(np.float32)[..., None]
    part = image[top:bottom, left:right]
    part += cover * (_WHITE - part)
