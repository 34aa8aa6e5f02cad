"""Draws the frames of a match: a cut of the panorama, then players and ball from far to near."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .look import HEIGHT, WIDTH, Camera, Colour, Look, Views
from .pitch import NUM_PLAYERS, to_yuv
from .sprites import Plane, Shadows, Wardrobe, paste, pose_key
from .tracks import POSES, Tracks

_SKINS: tuple[Colour, ...] = ((225.0, 180.0, 150.0), (205.0, 155.0, 120.0), (150.0, 100.0, 70.0), (95.0, 65.0, 50.0))
_YAWS = np.array([-1.0, -0.6, 0.0, 0.6, 1.0])
_HEAD, _CHEER = POSES.index("head"), POSES.index("cheer")
_JUMP_METRES = 0.42
_BALL = 22 + 1
_SHUTTER = 0.5
"""Share of a frame's time that the shutter is open: what the camera pans over in it is smeared."""


class Painter:
    """Draws frame after frame of one match."""

    def __init__(
        self,
        look: Look,
        camera: Camera,
        *,
        panorama: npt.NDArray[np.float32],
        tracks: Tracks,
        views: Views,
        rng: np.random.Generator,
    ) -> None:
        """
        Args:
            look: of the match.
            camera: of the match.
            panorama: (rows, columns, 3) RGB.
            tracks: of T frames.
            views: of T frames.
            rng: grain and skins.
        """
        self._look, self._camera, self._tracks, self._views = look, camera, tracks, views
        tone = 255 * np.clip(look.gain * (np.arange(256) / 255) ** look.gamma, 0, 1)
        self._planes = _planes(_blurred(panorama, look.blur), tone)
        self._skin = rng.integers(0, len(_SKINS), 2 * NUM_PLAYERS + 1)
        self._wardrobe = Wardrobe(look.kits, _SKINS, tone=tone, soft=2 * look.blur)
        self._shadows = Shadows(look.sun, look.shadow)
        self._grain = np.round(rng.normal(0, look.noise, (3 * HEIGHT, 3 * WIDTH))).astype(np.int16)
        self._grain_at = rng.integers(0, (2 * HEIGHT, 2 * WIDTH), (997, 2))
        self._frame = np.empty(HEIGHT * WIDTH * 3 // 2, np.uint8)
        size = HEIGHT * WIDTH
        self._luma = self._frame[:size].reshape(1, HEIGHT, WIDTH)
        self._chroma = self._frame[size:].reshape(2, HEIGHT // 2, WIDTH // 2)

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Each frame as (336, 398) yuv420p, valid until the next one."""
        for index in range(len(self._tracks.ball)):
            yield self.draw(index)

    def draw(self, index: int) -> npt.NDArray[np.uint8]:
        """One frame as (336, 398) yuv420p, valid until the next call."""
        left, top, zoom = (float(each[index]) for each in (self._views.left, self._views.top, self._views.zoom))
        _cut(self._planes[0], self._luma, left=left, top=top, zoom=zoom)
        _cut(self._planes[1], self._chroma, left=left / 2, top=top / 2, zoom=zoom)
        _smear(self._luma, _SHUTTER * abs(left - float(self._views.left[max(0, index - 1)])) / zoom)
        self._figures(index)
        row, column = self._grain_at[index % len(self._grain_at)]
        grainy = self._luma + self._grain[row : row + HEIGHT, column : column + WIDTH]
        np.clip(grainy, 16, 240, out=grainy)
        self._luma[...] = grainy
        return self._frame.reshape(HEIGHT * 3 // 2, WIDTH)

    def ball(self, index: int) -> npt.NDArray[np.float64]:
        """(3,) metres: where the ball is in frame `index`."""
        place: npt.NDArray[np.float64] = self._tracks.ball[index].astype(np.float64)
        return place

    def place(self, index: int, points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """Column, row and pixels per metre in frame `index` of points (N, 3) in metres; (N,) each."""
        column, row, scale = self._camera.pixels(points)
        zoom = self._views.zoom[index]
        return (column - self._views.left[index]) / zoom, (row - self._views.top[index]) / zoom, scale / zoom

    def _figures(self, index: int) -> None:
        tracks = self._tracks
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
            paste(self._luma, self._chroma, self._shadows.sprite(scale=float(scale[player]), x=x, y=y), x=x, y=y)
        self._shade_ball(float(column[_BALL + 1]), float(row[_BALL + 1]), float(scale[_BALL]))
        depth = points[: _BALL + 1, 1].copy()
        depth[_BALL] -= 0.25
        for player in np.argsort(-depth, kind="stable"):
            if player == _BALL:
                self._paint_ball(float(column[_BALL]), float(row[_BALL]), float(scale[_BALL]))
            elif seen[player]:
                self._paint_player(index, int(player), float(column[player]), float(row[player]), float(scale[player]))

    def _paint_player(self, index: int, player: int, column: float, row: float, scale: float) -> None:
        tracks = self._tracks
        pose, moment = int(tracks.pose[index, player]), int(tracks.moment[index, player])
        vx, vy = (float(each) for each in tracks.velocity[index, player])
        speed = float(np.hypot(vx, vy))
        key = pose_key(pose, moment, stride_metres=float(tracks.stride[index, player]), speed=speed)
        facing = vx / speed if speed > 0.8 else float(np.sign(tracks.ball[index, 0] - tracks.players[index, player, 0]))
        yaw = float(_YAWS[np.abs(_YAWS - facing).argmin()])
        if pose in (_HEAD, _CHEER) and abs(moment) < 7:
            row -= scale * _JUMP_METRES * (1 - (moment / 7) ** 2)
        who = (_kit(player), int(self._skin[player]))
        sprite = self._wardrobe.sprite(who, key, yaw, scale=scale, x=column, y=row)
        paste(self._luma, self._chroma, sprite, x=column, y=row)

    def _shade_ball(self, column: float, row: float, scale: float) -> None:
        radius = _ball_radius(scale)
        _darken(self._luma[0], (column, row), (column, row), (radius, 0.6 * radius), self._look.shadow + 0.15)

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
    """Fill `out` with the part of `planes` that begins at (top, left), `zoom` source pixels per pixel, bilinear.

    Args:
        planes: (planes, rows, columns).
        out: (planes, rows, columns) of the picture.
        left: column.
        top: row.
        zoom: pixels per pixel.
    """
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


def _darken(
    plane: Plane, start: tuple[float, float], stop: tuple[float, float], radii: tuple[float, float], alpha: float
) -> None:
    """A soft shadow along the line from `start` to `stop` (column, row)."""
    wide, high = radii
    left, right = int(min(start[0], stop[0]) - wide - 1), int(max(start[0], stop[0]) + wide + 2)
    top, bottom = int(min(start[1], stop[1]) - high - 1), int(max(start[1], stop[1]) + high + 2)
    left, right, top, bottom = max(0, left), min(plane.shape[1], right), max(0, top), min(plane.shape[0], bottom)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) / wide, np.arange(top, bottom)[:, None] / high
    x0, y0, x1, y1 = start[0] / wide, start[1] / high, stop[0] / wide, stop[1] / high
    share = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-9), 0, 1)
    far = (x - x0 - share * (x1 - x0)) ** 2 + (y - y0 - share * (y1 - y0)) ** 2
    part = plane[top:bottom, left:right]
    part[...] = part * (1 - alpha * np.clip(1.4 - 1.1 * far, 0, 1))


def _disc(plane: Plane, column: float, row: float, radius: float, *, bright: int, shade: int) -> None:
    left, right = max(0, int(column - radius - 1)), min(plane.shape[1], int(column + radius + 2))
    top, bottom = max(0, int(row - radius - 1)), min(plane.shape[0], int(row + radius + 2))
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) - column, np.arange(top, bottom)[:, None] - row
    cover = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    level = bright - shade * np.clip((0.4 * x + y) / radius, 0, 1)
    part = plane[top:bottom, left:right]
    part[...] = part + cover * (level - part)
