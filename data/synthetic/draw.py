"""Draws the frames of a match: a cut of the panorama, then players and ball from far to near.

The panorama is the stadium as seen all around the camera: grass, lines, goals, boards and crowd, drawn once per match.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .look import HEIGHT, WIDTH, Camera, Colour, Look, draw_look, follow, make_camera, to_yuv
from .script import GOAL_HALF_WIDTH, GOAL_HEIGHT, HALF_LENGTH, HALF_WIDTH, NUM_PLAYERS, Array, Script
from .sprites import Plane, part_colours, paste, place_of, player_sprite, pose_key, shadow_sprite
from .tracks import POSES, make_tracks

_SKINS: tuple[Colour, ...] = ((225.0, 180.0, 150.0), (205.0, 155.0, 120.0), (150.0, 100.0, 70.0), (95.0, 65.0, 50.0))
_YAWS = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])
_HEAD, _CHEER = POSES.index("head"), POSES.index("cheer")
_JUMP_METRES = 0.42
_BALL = 22 + 1
_SHUTTER = 0.5
"""Share of a frame's time that the shutter is open: what the camera pans over in it is smeared."""

Floats = npt.NDArray[np.floating[Any]]
_BOARD_GAP_METRES, _BOARD_METRES, _PANEL_METRES = 4.0, 1.0, 6.5
_LINE_METRES = 0.14
_SEAT_METRES, _ROW_METRES = 0.55, 0.8
_WHITE = np.array([238.0, 238.0, 232.0], np.float32)


class Painter:
    """Draws frame after frame of one match."""

    def __init__(self, script: Script, seed: int, *, variety: float = 1.0) -> None:
        """Prepare what the match of this seed is drawn from; see `draw_look` for its variety of looks."""
        look = self._look = draw_look(np.random.default_rng((seed, 1)), variety=variety)
        rng = np.random.default_rng((seed, 2))
        self.tracks, self.camera = make_tracks(script, rng), make_camera(look)
        self.views = follow(self.camera, look, ball=self.tracks.ball, rng=rng)
        panorama = draw_panorama(self.camera, look, rng)
        self.crf = look.crf
        """Quality of the match's video."""
        tone = 255 * np.clip(look.gain * (np.arange(256) / 255) ** look.gamma, 0, 1)
        self._planes = _planes(_blurred(panorama, look.blur), tone)
        skins = rng.integers(0, len(_SKINS), 2 * NUM_PLAYERS + 1)
        self._colours = [part_colours(look.kits[_kit(player)], _SKINS[skin], tone) for player, skin in enumerate(skins)]
        self._grain = np.round(rng.normal(0, look.noise, (3 * HEIGHT, 3 * WIDTH))).astype(np.int16)
        self._grain_at = rng.integers(0, (2 * HEIGHT, 2 * WIDTH), (997, 2))
        self._frame = np.empty(HEIGHT * WIDTH * 3 // 2, np.uint8)
        size = HEIGHT * WIDTH
        self._luma = self._frame[:size].reshape(1, HEIGHT, WIDTH)
        self._chroma = self._frame[size:].reshape(2, HEIGHT // 2, WIDTH // 2)

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Each frame as (336, 398) yuv420p, valid until the next one."""
        for index in range(len(self.tracks.ball)):
            yield self.draw(index)

    def draw(self, index: int) -> npt.NDArray[np.uint8]:
        """One frame as (336, 398) yuv420p, valid until the next call."""
        left, top, zoom = (float(each[index]) for each in (self.views.left, self.views.top, self.views.zoom))
        _cut(self._planes[0], self._luma, left=left, top=top, zoom=zoom)
        _cut(self._planes[1], self._chroma, left=left / 2, top=top / 2, zoom=zoom)
        _smear(self._luma, _SHUTTER * abs(left - float(self.views.left[max(0, index - 1)])) / zoom)
        self._figures(index)
        row, column = self._grain_at[index % len(self._grain_at)]
        grainy = self._luma + self._grain[row : row + HEIGHT, column : column + WIDTH]
        np.clip(grainy, 16, 240, out=grainy)
        self._luma[...] = grainy
        return self._frame.reshape(HEIGHT * 3 // 2, WIDTH)

    def place(self, index: int, points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """Column, row and pixels per metre in frame `index` of points (N, 3) in metres; (N,) each."""
        column, row, scale = self.camera.pixels(points)
        zoom = self.views.zoom[index]
        return (column - self.views.left[index]) / zoom, (row - self.views.top[index]) / zoom, scale / zoom

    def _figures(self, index: int) -> None:
        tracks = self.tracks
        points = np.zeros((_BALL + 3, 3))
        points[:_BALL, :2] = tracks.players[index]
        points[_BALL] = tracks.ball[index]
        sun = np.array(self._look.sun)
        points[_BALL + 1, :2] = tracks.ball[index, :2] + sun * tracks.ball[index, 2] / 1.8
        points[_BALL + 2, :2] = tracks.ball[index, :2] + sun / 1.8
        column, row, scale = self.place(index, points)
        seen = (column > -30) & (column < WIDTH + 30) & (row > -5) & (row < HEIGHT + 45)
        for player in np.flatnonzero(seen[:_BALL]):
            x, y = float(column[player]), float(row[player])
            sprite = shadow_sprite(self._look.sun, self._look.shadow, place_of(float(scale[player]), x, y))
            paste(self._luma, self._chroma, sprite, x=x, y=y)
        self._shade_ball(float(column[_BALL + 1]), float(row[_BALL + 1]), float(scale[_BALL]))
        depth = points[: _BALL + 1, 1].copy()
        depth[_BALL] -= 0.25
        for player in np.argsort(-depth, kind="stable"):
            if player == _BALL:
                self._paint_ball(float(column[_BALL]), float(row[_BALL]), float(scale[_BALL]))
            elif seen[player]:
                self._paint_player(index, int(player), float(column[player]), float(row[player]), float(scale[player]))

    def _paint_player(self, index: int, player: int, column: float, row: float, scale: float) -> None:
        tracks = self.tracks
        pose, moment = int(tracks.pose[index, player]), int(tracks.moment[index, player])
        vx, vy = (float(each) for each in tracks.velocity[index, player])
        speed = float(np.hypot(vx, vy))
        key = pose_key(pose, moment, stride_metres=float(tracks.stride[index, player]), speed=speed)
        facing = vx / speed if speed > 0.8 else float(np.sign(tracks.ball[index, 0] - tracks.players[index, player, 0]))
        yaw = float(_YAWS[np.abs(_YAWS - facing).argmin()])
        if pose in (_HEAD, _CHEER) and abs(moment) < 7:
            row -= scale * _JUMP_METRES * (1 - (moment / 7) ** 2)
        soft, place = 2 * self._look.blur, place_of(scale, column, row)
        sprite = player_sprite(self._colours[player], key, yaw, soft=soft, place=place)
        paste(self._luma, self._chroma, sprite, x=column, y=row)

    def _shade_ball(self, column: float, row: float, scale: float) -> None:
        radius = _ball_radius(scale)
        part, x, y = _around(self._luma[0], column, row, radius, 0.6 * radius)
        far = (x / radius - column / radius) ** 2 + (y / (0.6 * radius) - row / (0.6 * radius)) ** 2
        part[...] = part * (1 - (self._look.shadow + 0.15) * np.clip(1.4 - 1.1 * far, 0, 1))

    def _paint_ball(self, column: float, row: float, scale: float) -> None:
        radius = _ball_radius(scale)
        row -= 0.7 * radius
        _disc(self._luma[0], column, row, radius, bright=232, shade=70)
        for plane in self._chroma:
            _disc(plane, column / 2 - 0.25, row / 2 - 0.25, radius / 2, bright=128, shade=0)


def _ball_radius(scale: float) -> float:
    return float(np.clip(0.2 * scale, 1.8, 2.9))


def _kit(player: int) -> int:
    if player == 2 * NUM_PLAYERS:
        return 4
    side = player // NUM_PLAYERS
    return 2 + side if player % NUM_PLAYERS == 0 else side


def _planes(rgb: npt.NDArray[np.float32], tone: npt.NDArray[np.float64]) -> tuple[Plane, Plane]:
    """(1, rows, columns) Y, and (2, rows / 2, columns / 2) U and V."""
    yuv = to_yuv(np.interp(rgb, np.arange(256), tone))
    rows, columns, _ = yuv.shape
    half = yuv.reshape(rows // 2, 2, columns // 2, 2, 3).mean(axis=(1, 3))
    luma = np.clip(np.round(yuv[None, ..., 0]), 16, 240).astype(np.uint8)
    chroma = np.clip(np.round(half[..., 1:].transpose(2, 0, 1)), 16, 240).astype(np.uint8)
    return luma, np.ascontiguousarray(chroma)


def _blurred(image: npt.NDArray[np.float32], weight: float) -> npt.NDArray[np.float32]:
    for axis in (0, 1):
        image = (1 - 2 * weight) * image + weight * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image


def _cut(planes: Plane, out: Plane, *, left: float, top: float, zoom: float) -> None:
    """Fill `out` with the part of `planes` that begins at (top, left), `zoom` source pixels per pixel, bilinear."""
    rows, columns = top + zoom * np.arange(out.shape[1]), left + zoom * np.arange(out.shape[2])
    row, column = rows.astype(np.intp), columns.astype(np.intp)
    down = ((rows - row) * 128).astype(np.uint16)[:, None]
    across = ((columns - column) * 128).astype(np.uint16)
    first, last = int(column[0]), int(column[-1]) + 2
    part = planes[:, :, first:last]
    mixed = part[:, row] * (128 - down)
    mixed += part[:, row + 1] * down
    mixed >>= 7
    column -= first
    result = mixed.take(column, axis=2)
    result *= 128 - across
    column += 1
    right = mixed.take(column, axis=2)
    right *= across
    result += right
    result += 64
    result >>= 7
    out[...] = result


def _smear(planes: Plane, pixels: float) -> None:
    """Average along the rows over 1 + `pixels` columns, in place: the blur of a camera that turns."""
    if pixels < 0.05:
        return
    whole, part = int(pixels), pixels % 1
    before, columns = (whole + 1) // 2, planes.shape[2]
    around = ((0, 0), (0, 0), (before + 1, whole + 2 - before))
    sums = np.pad(planes, around, mode="edge").cumsum(axis=2, dtype=np.float32)  # exact: far below 2^24
    narrow = sums[..., whole + 1 : whole + 1 + columns] - sums[..., :columns]
    wide = sums[..., whole + 2 : whole + 2 + columns] - sums[..., :columns]
    narrow *= (1 - part) / (whole + 1)
    wide *= part / (whole + 2)
    narrow += wide
    narrow += 0.5
    planes[...] = narrow


def _around(plane: Plane, column: float, row: float, wide: float, high: float) -> tuple[Plane, Array, Array]:
    """What lies around a place, perhaps nothing: the part of the plane, its columns (C,) and rows (R, 1)."""
    left, top = max(0, int(column - wide - 1)), max(0, int(row - high - 1))
    right = max(left, min(plane.shape[1], int(column + wide + 2)))
    bottom = max(top, min(plane.shape[0], int(row + high + 2)))
    return plane[top:bottom, left:right], np.arange(left, right, dtype=float), np.arange(top, bottom)[:, None] * 1.0


def _disc(plane: Plane, column: float, row: float, radius: float, *, bright: int, shade: int) -> None:
    part, x, y = _around(plane, column, row, radius, radius)
    x, y = x - column, y - row
    cover = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    level = bright - shade * np.clip((0.4 * x + y) / radius, 0, 1)
    part[...] = part + cover * (level - part)


class _Ground:
    """What each pixel sees of the pitch's plane in metres: x and y, (rows, columns)."""

    def __init__(self, camera: Camera, angle: Floats, slope: Floats) -> None:
        """Follow the rays of all columns, (1, columns) angles, and rows, (rows, 1) slopes."""
        distance = np.float32(camera.height) / np.maximum(slope, np.float32(0.05))
        self._sine, self._cosine = np.sin(angle), np.cos(angle)
        self._deep = distance**2 / np.float32(camera.focal * camera.height)
        self._wide = distance / np.float32(camera.focal)
        self.x: Floats = distance * self._sine
        self.y: Floats = np.float32(camera.y) + distance * self._cosine

    def footprint(self, normal_x: Floats | float, normal_y: Floats | float) -> Floats:
        """What a pixel covers in the direction of a unit normal."""
        along = np.abs(normal_x * self._sine + normal_y * self._cosine)
        across = np.abs(normal_x * self._cosine - normal_y * self._sine)
        result: Floats = along * self._deep + across * self._wide
        return result


def draw_panorama(camera: Camera, look: Look, rng: np.random.Generator) -> Floats:
    """The panorama, (rows, columns, 3) RGB, 0 to 255."""
    rows, columns = np.arange(camera.rows, dtype=np.float32), np.arange(camera.columns, dtype=np.float32)
    angle = ((columns[None, :] - camera.columns / 2) / camera.focal).astype(np.float32)
    slope = ((rows[:, None] + camera.top) / camera.focal).astype(np.float32)
    ground = _Ground(camera, angle, slope)
    image = _grass(look, ground, rng)
    image += (0.85 * _lines(ground))[..., None] * (_WHITE - image)
    if look.shade < 1:
        edge = np.clip((ground.y - look.shade_edge_metres) / 1.5 + 0.5, 0, 1)
        image *= (look.shade + (1 - look.shade) * edge)[..., None]
    _stand(image, camera, look, rng, angle, slope)
    for end in (-1, 1):
        _goal(image, camera, end)
    return image


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
    posts = ((x, -w, 0), (x, -w, h)), ((x, w, 0), (x, w, h)), ((x, -w, h), (x, w, h))
    for strokes, width, alpha in ((net, 0.5, 0.28), (posts, 1.5, 0.95)):
        for ends in strokes:
            _stroke(image, camera, ends, width=width, alpha=alpha)


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
