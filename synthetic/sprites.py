"""Small pictures of players, drawn when first needed and kept: YUV 4:2:0, premultiplied, ready to be pasted."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .colour import to_yuv
from .figures import limbs
from .look import Colour, Kit

Plane = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

SUB = 2
"""Positions per pixel and axis at which sprites are drawn."""
_LARGE = 30
"""Pixels per metre of the large drawing."""
_LEFT, _DOWN, _WIDE, _HIGH = 1.35, 0.4, 2.7, 2.8
"""Metres: the feet lie _LEFT from the left edge, _DOWN above the lower one."""
_STEP = 1.06
_MAX_KEPT = 12_000


@dataclass(frozen=True)
class Layer:
    """`plane = (plane * through + own) >> 8` pastes it."""

    own: Words
    through: Words


@dataclass(frozen=True)
class Sprite:
    """A player, for one plane each."""

    y: Layer
    u: Layer
    v: Layer
    left: int
    """Columns from its left edge to the even column of the feet; even."""
    top: int
    """Rows from its upper edge to the even row of the feet; even."""


class Wardrobe:
    """All sprites of a match; bounded, the same for the same questions."""

    def __init__(
        self, kits: tuple[Kit, ...], skins: tuple[Colour, ...], tone: npt.NDArray[np.float64], soft: float
    ) -> None:
        """
        Args:
            kits: what each group of players wears.
            skins: drawn by turns from player to player.
            tone: (256,) the camera's curve.
            soft: extra blur in pixels.
        """
        self._kits, self._skins, self._tone, self._soft = kits, skins, tone, soft
        self._large: dict[tuple[int, int, str, float], Floats] = {}
        self._filters: dict[tuple[int, int, bool, bool], Floats] = {}
        self._sprites: dict[tuple[int, int, str, float, int, int, int], Sprite] = {}

    def sprite(self, kit: int, skin: int, key: str, yaw: float, pixels_per_metre: float, x: float, y: float) -> Sprite:
        """The drawing of one player.

        Args:
            kit: index.
            skin: index.
            key: as `figures.pose_key` gives it.
            yaw: one of a few levels.
            pixels_per_metre: rounded to steps of 6 %.
            x: column of the feet; what lies beyond its even column counts.
            y: row of the feet.
        """
        size = round(float(np.log(pixels_per_metre) / np.log(_STEP)))
        sub_x, sub_y = int((x % 2) * SUB), int((y % 2) * SUB)
        which = (kit, skin, key, yaw, size, sub_x, sub_y)
        found = self._sprites.get(which)
        if found is None:
            if len(self._sprites) >= _MAX_KEPT:
                self._sprites.clear()
            found = self._sprites[which] = self._make(which)
        return found

    def _make(self, which: tuple[int, int, str, float, int, int, int]) -> Sprite:
        kit, skin, key, yaw, size, sub_x, sub_y = which
        large = self._large.get((kit, skin, key, yaw))
        if large is None:
            large = self._large[kit, skin, key, yaw] = self._draw(kit, skin, key, yaw)
        scale = _STEP**size
        left, top = _even(_LEFT * scale), _even((_HIGH - _DOWN) * scale)
        wide, high = left + _even((_WIDE - _LEFT) * scale), top + _even(_DOWN * scale)
        layers = []
        for halved, channels in ((False, (0,)), (True, (1, 2))):
            across = self._filter(size, sub_x, wide, left, _LEFT, large.shape[2], halved)
            down = self._filter(size, sub_y, high, top, _HIGH - _DOWN, large.shape[1], halved)
            alpha = down @ large[3] @ across.T
            for channel in channels:
                own = down @ large[channel] @ across.T
                layers.append(Layer((own * 256).astype(np.uint16), (256 - np.ceil(alpha * 256)).astype(np.uint16)))
        return Sprite(layers[0], layers[1], layers[2], left, top)

    def _filter(
        self, size: int, sub: int, pixels: int, feet: int, feet_metres: float, samples: int, halved: bool
    ) -> Floats:
        """(pixels, samples) weights that bring the large drawing to a size and position, along one axis."""
        which = (size, sub, feet_metres == _LEFT, halved)
        found = self._filters.get(which)
        if found is None:
            step = 2 if halved else 1
            scale = _STEP**size
            centre = (np.arange(pixels // step) + 0.5) * step - feet - (sub + 0.5) / SUB + feet_metres * scale
            source = (np.arange(samples) + 0.5) / _LARGE * scale
            reach = (1.0 + self._soft) * step
            weight = np.clip(1 - np.abs(centre[:, None] - source[None, :]) / reach, 0, None)
            found = self._filters[which] = (weight * scale / _LARGE / reach).astype(np.float32)
        return found

    def _draw(self, kit: int, skin: int, key: str, yaw: float) -> Floats:
        """(4, rows, columns): Y, U, V premultiplied by the coverage, and the coverage."""
        clothes, skin_colour = self._kits[kit], self._skins[skin]
        dark: Colour = (skin_colour[0] * 0.35, skin_colour[1] * 0.3, skin_colour[2] * 0.3)
        colours = {
            **{"shirt": clothes.shirt, "shorts": clothes.shorts, "socks": clothes.socks},
            **{"skin": skin_colour, "hair": dark, "boots": (30.0, 30.0, 30.0)},
        }
        rows, columns = round(_HIGH * _LARGE), round(_WIDE * _LARGE)
        z = (_HIGH - _DOWN) - (np.arange(rows)[:, None] + 0.5) / _LARGE
        x = (np.arange(columns)[None, :] + 0.5) / _LARGE - _LEFT
        image = np.zeros((4, rows, columns), np.float32)
        for limb in limbs(key, yaw):
            dx, dz = limb.stop[0] - limb.start[0], limb.stop[1] - limb.start[1]
            share = ((x - limb.start[0]) * dx + (z - limb.start[1]) * dz) / max(1e-9, dx * dx + dz * dz)
            share = np.clip(share, 0, 1)
            far = np.hypot(x - limb.start[0] - share * dx, z - limb.start[1] - share * dz)
            cover = np.clip((limb.radius - far) * _LARGE + 0.5, 0, 1)
            shade = 0.82 + 0.25 * np.clip((z - limb.start[1]) / 0.4 + 0.5, 0, 1)
            rgb = np.interp(np.array(colours[limb.part]), np.arange(256), self._tone)
            luma, blue, red = to_yuv(rgb)
            image *= 1 - cover
            image[0] += cover * np.minimum(luma * shade, 250)
            image[1] += cover * blue
            image[2] += cover * red
            image[3] += cover
        return image


def _even(pixels: float) -> int:
    return 2 * int(np.ceil((pixels + 2) / 2))


def paste(plane: Plane, layer: Layer, row: int, column: int) -> None:
    """Put a layer on a plane, upper left corner at (row, column); what lies outside is cut off."""
    rows, columns = layer.own.shape
    top, left = max(0, -row), max(0, -column)
    bottom, right = min(rows, plane.shape[0] - row), min(columns, plane.shape[1] - column)
    if top >= bottom or left >= right:
        return
    part = plane[row + top : row + bottom, column + left : column + right]
    mixed = part * layer.through[top:bottom, left:right]
    mixed += layer.own[top:bottom, left:right]
    mixed >>= 8
    part[...] = mixed
