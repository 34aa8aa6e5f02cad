"""Bodies: the limbs of a figure in a pose, as strokes in metres; x to where he faces, z up, the feet at (0, 0)."""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from .look import Colour, Kit, to_yuv
from .script import Array
from .tracks import POSES

PHASES = 8
"""Of the running legs."""
PARTS = ("shirt", "shorts", "socks", "skin", "hair", "boots")
"""What has a colour of its own."""


Limb = tuple[Array, Array, float, str]
"""A stroke with round ends: start, stop, radius, one of `PARTS`."""


@dataclass(frozen=True)
class _Posture:
    """Angles in radians; 0 hangs straight down, positive swings forward."""

    lean: float = 0.05
    thighs: tuple[float, float] = (0.0, 0.0)
    knees: tuple[float, float] = (0.0, 0.0)
    """Bent backwards."""
    arms: tuple[float, float] = (0.1, -0.1)
    elbows: tuple[float, float] = (0.2, 0.2)
    hip_height: float = 0.93


def pose_key(pose: int, moment: int, *, stride_metres: float, speed: float) -> str:
    """Which drawing shows a player: a few names, so that drawings can be kept.

    Args:
        pose: index into `POSES`.
        moment: frames since the contact.
        stride_metres: way run so far.
        speed: metres per second.
    """
    name = POSES[pose]
    if name in ("kick", "push"):  # a foot that pushes the ball on looks like one that passes it
        return "kick0" if moment < -1 else "kick1" if moment < 2 else "kick2"
    if name == "throw":
        return "throw0" if moment < 0 else "throw1"
    if name in ("head", "slide"):
        return name
    if name == "fall":
        return "slide" if moment < 6 else "fall"
    if name == "cheer":
        return "cheer" if (moment // 12) % 2 else _running(stride_metres, max(speed, 1.0))
    return _running(stride_metres, speed)


def _running(stride_metres: float, speed: float) -> str:
    if speed < 0.5:
        return "stand"
    length = 1.5 if speed < 2.2 else 2.6
    phase = int(stride_metres / length * PHASES) % PHASES
    return f"{'walk' if speed < 2.2 else 'run'}{phase}"


def _posture(key: str) -> _Posture:
    phase = 2 * np.pi * int(key[-1]) / PHASES
    size = 0.45 if key.startswith("walk") else 0.85
    swing, lift = size * np.sin(phase), size * np.cos(phase)
    return _Posture(
        lean=0.06 + 0.14 * size,
        thighs=(0.1 + swing, 0.1 - swing),
        knees=(0.15 + 1.3 * max(0.0, lift), 0.15 + 1.3 * max(0.0, -lift)),
        arms=(-0.9 * swing, 0.9 * swing),
        elbows=(0.3 + size, 0.3 + size),
        hip_height=0.9,
    )


_POSTURES = {
    "stand": _Posture(thighs=(0.08, -0.08)),
    "kick0": _Posture(0.2, (0.25, -0.75), (0.3, 1.2), (0.7, -0.9), (0.3, 0.3), 0.88),
    "kick1": _Posture(-0.02, (-0.15, 0.45), (0.15, 0.25), (-0.7, 0.6), (0.3, 0.3), 0.9),
    "kick2": _Posture(-0.12, (-0.25, 1.1), (0.1, 0.1), (-0.9, 0.9), (0.2, 0.2), 0.9),
    "head": _Posture(0.3, (0.3, -0.5), (0.9, 1.0), (0.9, -0.9), (0.6, 0.6), 0.95),
    "throw0": _Posture(-0.15, (0.2, -0.25), (0.1, 0.1), (3.3, 3.4), (-0.5, -0.5), 0.92),
    "throw1": _Posture(0.3, (0.25, -0.3), (0.1, 0.1), (2.2, 2.1), (0.1, 0.1), 0.9),
    "slide": _Posture(-1.0, (1.35, 1.0), (0.1, 1.0), (-1.2, 0.4), (0.2, 0.2), 0.24),
    "fall": _Posture(-1.45, (1.5, 1.7), (0.5, 1.1), (-2.6, -1.2), (0.3, 0.6), 0.18),
    "cheer": _Posture(-0.05, (0.15, -0.15), (0.1, 0.1), (2.9, 3.3), (0.1, 0.1), 0.93),
}


def limbs(key: str, yaw: float) -> list[Limb]:
    """The strokes of one drawing, far ones first.

    Args:
        key: as `pose_key` gives it.
        yaw: -1 to 1: how much of the front shows to the right; 0 faces the camera or turns away from it.
    """
    posture = _POSTURES[key] if key in _POSTURES else _posture(key)
    apart = float(np.sqrt(1 - min(1.0, yaw * yaw)))
    hip = np.array([0.0, posture.hip_height])
    neck = hip + 0.53 * np.array([np.sin(posture.lean) * yaw, np.cos(posture.lean)])
    head = neck + 0.2 * np.array([np.sin(posture.lean) * yaw, np.cos(posture.lean)])
    legs, arms = list[Limb](), list[list[Limb]]()
    for index, out in ((1, -1), (0, 1)):
        thigh, knee = posture.thighs[index], posture.knees[index]
        root = hip + _at(out * 0.11 * apart, 0.0)
        middle = root + 0.45 * _swing(thigh, yaw)
        foot = middle + 0.46 * _swing(thigh - knee, yaw)
        legs += [(root, middle, 0.105, "shorts"), (root + 0.7 * (middle - root), middle, 0.08, "skin")]
        legs += [(middle, foot, 0.075, "socks"), (foot, foot + _at(0.13 * yaw, -0.01), 0.06, "boots")]
        shoulder = neck + _at(out * 0.19 * apart, -0.05)
        elbow = shoulder + 0.28 * _swing(posture.arms[index], yaw) + _at(out * 0.07, 0.0)
        hand = elbow + 0.27 * _swing(posture.arms[index] + posture.elbows[index], yaw)
        arms.append([(shoulder, elbow, 0.07, "shirt"), (elbow, hand, 0.05, "skin")])
    width = 0.15 + 0.05 * apart
    body = [(hip, hip + _at(0, 0.04), width - 0.01, "shorts"), (hip + _at(0, 0.06), neck - _at(0, 0.1), width, "shirt")]
    skull = [(neck, head, 0.075, "skin"), (head + _at(0, 0.03), head + _at(0, 0.05), 0.125, "hair")]
    skull.append((head + _at(0.04 * yaw, -0.03), head + _at(0.05 * yaw, -0.02), 0.105, "skin"))
    return [*arms[0], *legs, *body, *skull, *arms[1]]


def _at(x: float, z: float) -> Array:
    return np.array([x, z])


def _swing(angle: float, yaw: float) -> Array:
    return np.array([np.sin(angle) * yaw, -np.cos(angle)])


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


Layer = tuple[Words, Words]
"""(own, through), (planes, rows, columns) each: `plane = (plane * through + own) >> 8` pastes it."""


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


Place = tuple[int, int, int]
"""Size (`_STEP` to its power is pixels per metre), and column and row of the feet beyond an even one, 0 or 1."""


def place_of(scale: float, x: float, y: float) -> Place:
    """What a sprite depends on for feet at column `x` and row `y`, where a metre has `scale` pixels."""
    return round(float(np.log(scale)) / float(np.log(_STEP))), int(x % 2), int(y % 2)


def player_sprite(colours: tuple[Floats, Floats], key: str, yaw: float, *, soft: float, place: Place) -> Sprite:
    """The drawing of one player; the same for the same question, whatever came before.

    Args:
        colours: of `part_colours`.
        key: of `pose_key`.
        yaw: one of a few levels.
        soft: extra blur in pixels.
        place: of `place_of`.
    """
    full, half, left, top = _shape(key, yaw, place, soft)
    luma, chroma = (
        (of_part @ weights.reshape(len(weights), -1)).astype(np.uint16).reshape(-1, *weights.shape[1:])
        for of_part, weights in zip(colours, (full, half), strict=True)
    )
    return Sprite((luma[:1], 256 - luma[1:]), (chroma[:2], 256 - chroma[2:]), left, top)


@lru_cache(maxsize=4000)
def _shape(key: str, yaw: float, place: Place, soft: float) -> tuple[Floats, Floats, int, int]:
    """A drawing without colours at its final size: (parts + 1, rows, columns) weights of Y, of U and V; left; top."""
    (large, left, top), (size, odd_x, odd_y) = _figure(key, yaw), place
    _, rows, columns = large.shape
    x, right = _filter(_WIDE, _COLUMNS, size, odd_x, soft).part(left, left + columns)
    y, below = _filter(_ABOVE, _ROWS, size, odd_y, soft).part(top, top + rows)
    full = np.matmul(np.matmul(below, large), right.T)
    half = 0.25 * (full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2])
    return full, half, x, y


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

    def part(self, begin: int, end: int) -> tuple[int, Floats]:
        """First pixel and (pixels, end - begin) weights of the samples from `begin` to `end`; both pixels even."""
        low = (self.start + begin * self.step - self.reach - self.first) // 2
        high = -((self.start + end * self.step + self.reach - self.first) // -2)
        first, last = 2 * max(0, int(low)), min(len(self.weights), 2 * int(high))
        return self.first + first, self.weights[first:last, begin:end]


@lru_cache(maxsize=400)
def _filter(metres: float, samples: int, size: int, odd: int, soft: float) -> _Filter:
    """For samples from `metres` before the feet on, which are half a pixel, or one and a half, from an even pixel."""
    scale, reach = _STEP**size, 1.0 + soft
    start, step = odd + 0.5 - metres * scale, scale / _LARGE
    first = 2 * int(np.floor((start - reach) / 2))
    pixels = 2 * int(np.ceil((start + samples * step + reach - first) / 2))
    centre = first + np.arange(pixels) + 0.5
    source = start + (np.arange(samples) + 0.5) * step
    weight = np.clip(1 - np.abs(centre[:, None] - source) / reach, 0, None)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), reach / step)  # never above 1
    return _Filter(weight.astype(np.float32), first, start, step, reach)


def part_colours(kit: Kit, skin: Colour, tone: Array) -> tuple[Floats, Floats]:
    """What turns weights into layers, times 256: (2, parts + 1) Y and coverage, (3, parts + 1) U, V and coverage.

    Args:
        kit: what the player wears.
        skin: his own colour.
        tone: (256,) the camera's curve.
    """
    hair: Colour = (0.3 * skin[0], 0.25 * skin[1], 0.25 * skin[2])
    rgb = np.interp(np.array([kit.shirt, kit.shorts, kit.socks, skin, hair, (30.0, 30.0, 30.0)]), np.arange(256), tone)
    yuv = to_yuv(rgb).T - np.array([[0.0], [128.0], [128.0]])
    luma, chroma = np.zeros((2, len(PARTS) + 1), np.float32), np.zeros((3, len(PARTS) + 1), np.float32)
    luma[0, :-1], luma[1, -1] = 256 * yuv[0], 256
    chroma[:2, :-1], chroma[:2, -1], chroma[2, -1] = 256 * yuv[1:], 256 * 128, 256
    return luma, chroma


@cache
def _figure(key: str, yaw: float) -> tuple[Floats, int, int]:
    """A figure in a pose, stroke over stroke, without colours, and the column and row where what is covered begins.

    Returns:
        (parts + 1, rows, columns) how much of each part's colour shows, light included, last the coverage; left; top.
    """
    x = (np.arange(_COLUMNS, dtype=np.float32) + 0.5) / _LARGE - _WIDE
    z = _ABOVE - (np.arange(_ROWS, dtype=np.float32)[:, None] + 0.5) / _LARGE
    image = np.zeros((len(PARTS) + 1, _ROWS, _COLUMNS), np.float32)
    for start, stop, radius, name in limbs(key, yaw):
        (x0, z0), (x1, z1), edge = start.tolist(), stop.tolist(), radius + 1 / _LARGE
        wide = slice(*np.searchsorted(x, (min(x0, x1) - edge, max(x0, x1) + edge)))
        high = slice(*np.searchsorted(-z[:, 0], (-max(z0, z1) - edge, -min(z0, z1) + edge)))
        u, v, dx, dz = x[wide] - x0, z[high] - z0, x1 - x0, z1 - z0
        share = np.clip((u * dx + v * dz) / max(1e-9, dx * dx + dz * dz), 0, 1)
        cover = np.clip((radius - np.hypot(u - share * dx, v - share * dz)) * _LARGE + 0.5, 0, 1)
        part = image[:, high, wide]
        part *= 1 - cover
        part[PARTS.index(name)] += cover * (0.85 + 0.2 * np.clip(v / 0.4 + 0.5, 0, 1))
        part[-1] += cover
    used_rows, used_columns = np.flatnonzero(image[-1].any(axis=1)), np.flatnonzero(image[-1].any(axis=0))
    top, left = int(used_rows[0]), int(used_columns[0])
    cut = image[:, top : used_rows[-1] + 1, left : used_columns[-1] + 1]
    return np.ascontiguousarray(cut), left, top


@lru_cache(maxsize=400)
def shadow_sprite(sun: tuple[float, float], darkness: float, place: Place) -> Sprite:
    """The soft patch at a player's feet; `sun`: metres from there to the shadow of a head; `darkness`: 0 to 1."""
    size, odd_x, odd_y = place
    scale = _STEP**size
    ways = (0.9 * sun[0] * scale, 0.32 * scale), (-0.42 * sun[1] * scale, 0.14 * scale)
    (left, right), (top, bottom) = (
        (2 * int(np.floor((min(0.0, to) - 1.2 * wide - 1) / 2)), 2 * int(np.ceil((max(0.0, to) + 1.2 * wide + 2) / 2)))
        for to, wide in ways
    )
    (to_x, wide), (to_y, high) = ways
    x, y = (np.arange(left, right) - odd_x) / wide, (np.arange(top, bottom)[:, None] - odd_y) / high
    dx, dy = to_x / wide, to_y / high
    share = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    far = (x - share * dx) ** 2 + (y - share * dy) ** 2
    words = (256 * (1 - darkness * np.clip(1.4 - 1.1 * far, 0, 1))).astype(np.uint16)[None]
    return Sprite((np.zeros_like(words), words), None, left, top)


def paste(luma: Plane, chroma: Plane, sprite: Sprite, *, x: float, y: float) -> None:
    """Put a sprite on the planes Y (1, rows, columns), U and V (2, rows / 2, columns / 2), its feet at (x, y)."""
    left, top = 2 * int(x // 2) + sprite.left, 2 * int(y // 2) + sprite.top
    _paste(luma, sprite.luma, top, left)
    if sprite.chroma is not None:
        _paste(chroma, sprite.chroma, top // 2, left // 2)


def _paste(planes: Plane, layer: Layer, row: int, column: int) -> None:
    own, through = layer
    _, rows, columns = own.shape
    top, left = max(0, -row), max(0, -column)
    bottom, right = min(rows, planes.shape[1] - row), min(columns, planes.shape[2] - column)
    if top >= bottom or left >= right:
        return
    part = planes[:, row + top : row + bottom, column + left : column + right]
    mixed = part * through[:, top:bottom, left:right]
    mixed += own[:, top:bottom, left:right]
    mixed >>= 8
    part[...] = mixed
