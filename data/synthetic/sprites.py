"""Small pictures of players, drawn when first needed and kept: YUV 4:2:0, premultiplied, ready to be pasted."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .figures import PARTS, limbs
from .look import Colour, Kit
from .pitch import Array, to_yuv

Plane = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]
_LARGE = 26
"""Pixels per metre of the large drawing."""
_WIDE, _ABOVE, _BELOW = 1.45, 2.45, 0.4
"""Metres to each side of the feet, above and below them, that the large drawing covers."""
_ROWS, _COLUMNS = round((_ABOVE + _BELOW) * _LARGE), round(2 * _WIDE * _LARGE)
_STEP = 1.05
"""Ratio of neighbouring sizes."""
_LOG_STEP = float(np.log(_STEP))
_MAX_SHAPES = 4000


@dataclass(frozen=True)
class Layer:
    """`plane = (plane * through + own) >> 8` pastes it on one or more planes; (planes, rows, columns)."""

    own: Words
    through: Words


@dataclass(frozen=True)
class Sprite:
    """A player or a shadow: where it lies from the feet's even column and row, and what is pasted there."""

    luma: Layer
    chroma: Layer | None
    """U and V, of half the size; a shadow has none."""
    left: int
    """Even."""
    top: int
    """Even."""


@dataclass(frozen=True)
class _Large:
    """A drawing without colours, cut to what is covered."""

    weights: Floats
    """(parts + 1, rows, columns): how much of each part's colour shows, light included; last the coverage."""
    left: int
    """Its first column, of those of the whole canvas."""
    top: int
    """Its first row."""


@dataclass(frozen=True)
class _Shape:
    """A drawing without colours at its final size and position."""

    luma: Floats
    """(parts + 1, rows * columns) weights."""
    chroma: Floats
    """(parts + 1, rows * columns / 4) weights."""
    rows: int
    columns: int
    left: int
    top: int


class Wardrobe:
    """All figures of a match; what it keeps is bounded, and the same for the same question whatever came before."""

    def __init__(self, kits: tuple[Kit, ...], skins: tuple[Colour, ...], *, tone: Array, soft: float) -> None:
        """
        Args:
            kits: what each group of players wears.
            skins: drawn by turns from player to player.
            tone: (256,) the camera's curve.
            soft: extra blur in pixels.
        """
        self._soft = soft
        self._colours = {
            (kit, skin): _part_colours(kits[kit], skins[skin], tone)
            for kit in range(len(kits))
            for skin in range(len(skins))
        }
        self._large: dict[tuple[str, float], _Large] = {}
        self._filters: dict[tuple[int, int], tuple[_Filter, _Filter]] = {}
        self._shapes: dict[tuple[str, float, int, int, int], _Shape] = {}

    def sprite(self, who: tuple[int, int], key: str, yaw: float, *, scale: float, x: float, y: float) -> Sprite:
        """The drawing of one player.

        Args:
            who: index of the kit and of the skin.
            key: as `figures.pose_key` gives it.
            yaw: one of a few levels.
            scale: pixels per metre; rounded to steps of 5 %.
            x: column of the feet; what lies beyond an even column counts.
            y: row of the feet, likewise.
        """
        shape = self._shape((key, yaw, _size(scale), int(x % 2), int(y % 2)))
        luma_colours, chroma_colours = self._colours[who]
        luma = (luma_colours @ shape.luma).astype(np.uint16).reshape(2, shape.rows, shape.columns)
        chroma = (chroma_colours @ shape.chroma).astype(np.uint16).reshape(3, shape.rows // 2, shape.columns // 2)
        return Sprite(
            Layer(luma[:1], 256 - luma[1:]), Layer(chroma[:2], 256 - chroma[2:]), left=shape.left, top=shape.top
        )

    def _shape(self, which: tuple[str, float, int, int, int]) -> _Shape:
        found = self._shapes.get(which)
        if found is None:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            key, yaw, size, odd_x, odd_y = which
            large = self._large.get((key, yaw))
            if large is None:
                large = self._large[key, yaw] = _draw(key, yaw)
            found = self._shapes[which] = _shrink(large, self._filter(size, odd_x)[0], self._filter(size, odd_y)[1])
        return found

    def _filter(self, size: int, odd: int) -> tuple["_Filter", "_Filter"]:
        """Across and down, for feet at half a pixel, or at one and a half, from an even pixel."""
        found = self._filters.get((size, odd))
        if found is None:
            scale, feet = _STEP**size, odd + 0.5
            found = (
                _Filter.make(feet - _WIDE * scale, _COLUMNS, scale, self._soft),
                _Filter.make(feet - _ABOVE * scale, _ROWS, scale, self._soft),
            )
            self._filters[size, odd] = found
        return found


@dataclass(frozen=True)
class _Filter:
    """Brings samples of the large canvas to pixels, along one axis."""

    weights: Floats
    """(pixels, samples)"""
    first: int
    """Pixel of the first row of weights; even."""
    start: float
    """Where the samples begin, in pixels."""
    step: float
    """Pixels per sample."""
    reach: float
    """Pixels over which a sample spreads."""

    @classmethod
    def make(cls, start: float, samples: int, scale: float, soft: float) -> "_Filter":
        """For samples from `start` pixels on, at `scale` pixels per metre."""
        step, reach = scale / _LARGE, 1.0 + soft
        first = 2 * int(np.floor((start - reach) / 2))
        pixels = 2 * int(np.ceil((start + samples * step + reach - first) / 2))
        centre = first + np.arange(pixels) + 0.5
        source = start + (np.arange(samples) + 0.5) * step
        weight = np.clip(1 - np.abs(centre[:, None] - source) / reach, 0, None)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), reach / step)  # never above 1
        return cls(weight.astype(np.float32), first, start, step, reach)

    def part(self, begin: int, end: int) -> tuple[int, Floats]:
        """First pixel and (pixels, end - begin) weights of the samples from `begin` to `end`; both pixels even."""
        low = (self.start + begin * self.step - self.reach - self.first) // 2
        high = -((self.start + end * self.step + self.reach - self.first) // -2)
        first, last = 2 * max(0, int(low)), min(len(self.weights), 2 * int(high))
        return self.first + first, self.weights[first:last, begin:end]


def _shrink(large: _Large, across: _Filter, down: _Filter) -> _Shape:
    parts, rows, columns = large.weights.shape
    left, right = across.part(large.left, large.left + columns)
    top, below = down.part(large.top, large.top + rows)
    full = np.matmul(np.matmul(below, large.weights), right.T)
    half = 0.25 * (full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2])
    return _Shape(full.reshape(parts, -1), half.reshape(parts, -1), full.shape[1], full.shape[2], left, top)


def _size(scale: float) -> int:
    return round(float(np.log(scale)) / _LOG_STEP)


def _part_colours(kit: Kit, skin: Colour, tone: Array) -> tuple[Floats, Floats]:
    """What turns weights into layers, times 256: (2, parts + 1) Y and coverage, (3, parts + 1) U, V and coverage."""
    hair: Colour = (0.3 * skin[0], 0.25 * skin[1], 0.25 * skin[2])
    colours = {
        **{"shirt": kit.shirt, "shorts": kit.shorts, "socks": kit.socks},
        **{"skin": skin, "hair": hair, "boots": (30.0, 30.0, 30.0)},
    }
    rgb = np.interp(np.array([colours[part] for part in PARTS]), np.arange(256), tone)
    yuv = to_yuv(rgb).T - np.array([[0.0], [128.0], [128.0]])
    luma, chroma = np.zeros((2, len(PARTS) + 1), np.float32), np.zeros((3, len(PARTS) + 1), np.float32)
    luma[0, :-1], luma[1, -1] = 256 * yuv[0], 256
    chroma[:2, :-1], chroma[:2, -1], chroma[2, -1] = 256 * yuv[1:], 256 * 128, 256
    return luma, chroma


def _draw(key: str, yaw: float) -> _Large:
    """A figure in a pose, stroke over stroke."""
    x = (np.arange(_COLUMNS, dtype=np.float32) + 0.5) / _LARGE - _WIDE
    z = _ABOVE - (np.arange(_ROWS, dtype=np.float32)[:, None] + 0.5) / _LARGE
    image = np.zeros((len(PARTS) + 1, _ROWS, _COLUMNS), np.float32)
    for limb in limbs(key, yaw):
        (x0, z0), (x1, z1), edge = limb.start, limb.stop, limb.radius + 1 / _LARGE
        wide = slice(*np.searchsorted(x, (min(x0, x1) - edge, max(x0, x1) + edge)))
        high = slice(*np.searchsorted(-z[:, 0], (-max(z0, z1) - edge, -min(z0, z1) + edge)))
        u, v, dx, dz = x[wide] - x0, z[high] - z0, x1 - x0, z1 - z0
        share = np.clip((u * dx + v * dz) / max(1e-9, dx * dx + dz * dz), 0, 1)
        cover = np.clip((limb.radius - np.hypot(u - share * dx, v - share * dz)) * _LARGE + 0.5, 0, 1)
        part = image[:, high, wide]
        part *= 1 - cover
        part[PARTS.index(limb.part)] += cover * (0.85 + 0.2 * np.clip(v / 0.4 + 0.5, 0, 1))
        part[-1] += cover
    used_rows, used_columns = np.flatnonzero(image[-1].any(axis=1)), np.flatnonzero(image[-1].any(axis=0))
    top, left = int(used_rows[0]), int(used_columns[0])
    cut = image[:, top : used_rows[-1] + 1, left : used_columns[-1] + 1]
    return _Large(np.ascontiguousarray(cut), left, top)


class Shadows:
    """Soft patches on the ground, kept by size; bounded."""

    def __init__(self, sun: tuple[float, float], darkness: float) -> None:
        """
        Args:
            sun: metres on the ground, x and y, from the feet to the shadow of a head.
            darkness: 0 to 1.
        """
        self._sun, self._darkness = sun, darkness
        self._kept: dict[tuple[int, int, int], Sprite] = {}

    def sprite(self, *, scale: float, x: float, y: float) -> Sprite:
        """The shadow of a player at column `x` and row `y`, `scale` pixels per metre there."""
        which = (_size(scale), int(x % 2), int(y % 2))
        found = self._kept.get(which)
        if found is None:
            found = self._kept[which] = self._draw(*which)
        return found

    def _draw(self, size: int, sub_x: int, sub_y: int) -> Sprite:
        scale = _STEP**size
        wide, high = 0.32 * scale, 0.14 * scale
        to_x, to_y = 0.9 * self._sun[0] * scale, -0.42 * self._sun[1] * scale
        left, top = (
            2 * int(np.floor((min(0.0, to) - 1.2 * size_ - 1) / 2)) for to, size_ in ((to_x, wide), (to_y, high))
        )
        right, bottom = (
            2 * int(np.ceil((max(0.0, to) + 1.2 * size_ + 2) / 2)) for to, size_ in ((to_x, wide), (to_y, high))
        )
        x = (np.arange(left, right) - sub_x) / wide
        y = (np.arange(top, bottom)[:, None] - sub_y) / high
        dx, dy = to_x / wide, to_y / high
        share = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        far = (x - share * dx) ** 2 + (y - share * dy) ** 2
        through = 256 * (1 - self._darkness * np.clip(1.4 - 1.1 * far, 0, 1))
        words = through.astype(np.uint16)[None]
        return Sprite(Layer(np.zeros_like(words), words), None, left, top)


def paste(luma: Plane, chroma: Plane, sprite: Sprite, *, x: float, y: float) -> None:
    """Put a sprite on the planes, its feet at column `x` and row `y`.

    Args:
        luma: (1, rows, columns).
        chroma: (2, rows / 2, columns / 2): U and V.
        sprite: a player, or a shadow.
        x: column of the feet.
        y: row of the feet.
    """
    left, top = 2 * int(x // 2) + sprite.left, 2 * int(y // 2) + sprite.top
    _paste(luma, sprite.luma, top, left)
    if sprite.chroma is not None:
        _paste(chroma, sprite.chroma, top // 2, left // 2)


def _paste(planes: Plane, layer: Layer, row: int, column: int) -> None:
    _, rows, columns = layer.own.shape
    top, left = max(0, -row), max(0, -column)
    bottom, right = min(rows, planes.shape[1] - row), min(columns, planes.shape[2] - column)
    if top >= bottom or left >= right:
        return
    part = planes[:, row + top : row + bottom, column + left : column + right]
    mixed = part * layer.through[:, top:bottom, left:right]
    mixed += layer.own[:, top:bottom, left:right]
    mixed >>= 8
    part[...] = mixed
