"""How a match looks: kits, grass, light, crowd, boards, and where the camera stands; drawn once per match."""

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .script import HALF_LENGTH, HALF_WIDTH, Array
from .tracks import late, smooth

_HOUSE = 49
"""Seed of the look that matches without variety share."""
Colour = tuple[float, float, float]
"""R, G, B, 0 to 255."""


@dataclass(frozen=True)
class Kit:
    """What one player wears."""

    shirt: Colour
    shorts: Colour
    socks: Colour


@dataclass(frozen=True)
class Look:
    """Everything that differs between matches without being play."""

    kits: tuple[Kit, Kit, Kit, Kit, Kit]
    """Side 0, side 1, their keepers, the referee."""
    grass: tuple[Colour, Colour]
    """The two mowing stripes."""
    stripe_metres: float
    stripes_across: bool
    """Stripes run across the pitch, else along it (or both, as checks)."""
    checks: bool
    wear: float
    """Standard deviation of the grass's brightness from square metre to square metre, share of it."""
    shade: float
    """Brightness of the part in the shadow of the stand, 0 to 1; 1: none."""
    shade_edge_metres: float
    sun: tuple[float, float]
    """Length of a player's shadow on the ground in metres, along x and y."""
    shadow: float
    """Darkness of shadows, 0 to 1."""
    crowd: tuple[Colour, Colour, Colour]
    boards: tuple[Colour, ...]
    camera_height_metres: float
    camera_back_metres: float
    """From the near touchline."""
    focal_pixels: float
    top_pixels: float
    """Height of the stand above the far touchline in the picture."""
    gain: float
    gamma: float
    noise: float
    """Standard deviation of the grain, grey levels."""
    blur: float
    """Weight of the neighbours in a 3-tap filter, 0 to 0.25."""
    crf: int


def draw_look(rng: np.random.Generator, *, variety: float = 1.0) -> Look:
    """The look of one match; variety 0: all look the same, 1: each has a ground, a light and a camera of its own."""
    own = _own_look(rng)
    return own if variety == 1 else _between(_own_look(np.random.default_rng(_HOUSE)), own, variety, rng)


def _between(house: Look, own: Look, variety: float, rng: np.random.Generator) -> Look:
    """Numbers and colours lie `variety` of the way from the house's to the match's own; all else is either's."""
    values = {}
    for name, mine in vars(own).items():
        theirs, takes_own = getattr(house, name), rng.random() < variety
        if type(mine) is float:
            values[name] = theirs + variety * (mine - theirs)
        elif name in ("grass", "sun", "crowd"):
            values[name] = _mix(theirs, mine, variety)
        else:
            values[name] = mine if takes_own else theirs
    return Look(**values)


def _mix(one: Any, other: Any, share: float) -> Any:
    """Nested tuples of numbers, `share` of the way from one to the other."""
    if isinstance(one, tuple):
        return tuple(_mix(*pair, share) for pair in zip(one, other, strict=True))
    return one + share * (other - one)


def _own_look(rng: np.random.Generator) -> Look:
    first, second = _kit_hues(rng)
    hue, level = rng.uniform(0.24, 0.36), rng.uniform(0.36, 0.56)
    saturation, contrast = rng.uniform(0.45, 0.75), rng.uniform(0.82, 0.97)
    sunny = rng.random() < 0.45
    return Look(
        kits=(
            *(_kit(rng, first), _kit(rng, second), _keeper(rng), _keeper(rng)),
            Kit((25, 25, 25) if rng.random() < 0.7 else (210, 205, 60), (20, 20, 20), (20, 20, 20)),
        ),
        grass=(_rgb(hue, saturation, level), _rgb(hue, saturation, level * contrast)),
        stripe_metres=float(rng.uniform(4.5, 9)),
        stripes_across=bool(rng.random() < 0.75),
        checks=bool(rng.random() < 0.2),
        shade=float(rng.uniform(0.5, 0.75)) if sunny and rng.random() < 0.6 else 1.0,
        shade_edge_metres=float(rng.uniform(-30, 10)),
        sun=(float(rng.uniform(-1.6, 1.6)), float(rng.uniform(-0.2, 1.0))) if sunny else (0.15, 0.05),
        shadow=float(rng.uniform(0.4, 0.6)) if sunny else float(rng.uniform(0.2, 0.35)),
        crowd=(
            *(_rgb(*rng.random(3) * (1, 0.5, 0.7)), _rgb(*rng.random(3) * (1, 0.7, 0.8))),
            _rgb(*rng.random(3) * (1, 0.3, 0.9)),
        ),
        boards=tuple(
            _rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.95)) for _ in range(int(rng.integers(2, 7)))
        ),
        camera_height_metres=float(rng.uniform(23, 33)),
        camera_back_metres=float(rng.uniform(56, 78)),
        focal_pixels=float(rng.uniform(1250, 1500)),
        top_pixels=float(rng.uniform(22, 48)),
        gain=float(rng.uniform(0.85, 1.12)),
        gamma=float(rng.uniform(0.85, 1.2)),
        noise=float(rng.uniform(0.3, 2.5)),
        blur=float(rng.uniform(0.0, 0.16)),
        crf=int(rng.integers(21, 27)),
        wear=float(rng.uniform(0.03, 0.08)),
    )


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return 255 * red, 255 * green, 255 * blue


def _kit_hues(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two shirts that a viewer tells apart from each other and from the grass."""
    shirts = [
        *((235.0, 235.0, 235.0), (200.0, 25.0, 30.0), (35.0, 70.0, 190.0), (240.0, 205.0, 40.0), (30.0, 30.0, 40.0)),
        *((120.0, 190.0, 235.0), (240.0, 120.0, 25.0), (125.0, 30.0, 60.0), (95.0, 45.0, 140.0), (20.0, 60.0, 60.0)),
    ]
    while True:
        first, second = (shirts[int(index)] for index in rng.choice(len(shirts), 2, replace=False))
        if sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 200:
            return first, second


def _kit(rng: np.random.Generator, shirt: Colour) -> Kit:
    choices = [shirt, (25.0, 25.0, 35.0), (235.0, 235.0, 235.0)]
    return Kit(shirt, choices[int(rng.integers(3))], choices[int(rng.integers(3))])


def _keeper(rng: np.random.Generator) -> Kit:
    colour = _rgb(rng.random(), 0.85, 0.85)
    return Kit(colour, colour, colour)


_MATRIX = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])


def to_yuv(rgb: Array) -> Array:
    """(..., 3) RGB of 0 to 255 -> (..., 3): Y 16 to 235, U and V 16 to 240."""
    result: Array = rgb @ _MATRIX.T + np.array([16.0, 128.0, 128.0])
    return result


WIDTH, HEIGHT = 398, 224
_MARGIN_PIXELS = 60
_ABOVE_PIXELS = 60
"""Rows of the panorama above the highest view of the far stand."""


@dataclass(frozen=True)
class Camera:
    """Projects metres to pixels of the panorama."""

    height: float
    """Metres above the pitch."""
    y: float
    """Metres, negative; x is 0."""
    focal: float
    """Pixels per radian, and per unit of slope."""
    top: float
    """Slope pixels of row 0 below the horizon; negative above it."""
    far_row: float
    """Row of the far touchline at the halfway line."""
    columns: int
    rows: int

    def pixels(self, points: Array) -> tuple[Array, Array, Array]:
        """Panorama column and row of points (..., 3) in metres, and pixels per metre there, each (...)."""
        away = points[..., 1] - self.y
        distance = np.hypot(points[..., 0], away)
        column = self.columns / 2 + self.focal * np.arctan2(points[..., 0], away)
        row = self.focal * (self.height - points[..., 2]) / distance - self.top
        return column, row, self.focal / distance


def make_camera(look: Look) -> Camera:
    """The camera of a match, with a panorama that holds all it may look at."""
    y = -HALF_WIDTH - look.camera_back_metres
    far = look.focal_pixels * look.camera_height_metres / (2 * HALF_WIDTH + look.camera_back_metres)
    near = look.focal_pixels * look.camera_height_metres / (look.camera_back_metres - 4)
    widest = np.arctan2(HALF_LENGTH + 3, look.camera_back_metres + 25)
    columns = int(2 * widest * look.focal_pixels + WIDTH + 2 * _MARGIN_PIXELS) // 2 * 2
    top = far - look.top_pixels - _ABOVE_PIXELS
    rows = int(near - top + _MARGIN_PIXELS) // 2 * 2
    return Camera(look.camera_height_metres, y, look.focal_pixels, top, far - top, columns, rows)


@dataclass(frozen=True)
class Views:
    """Where the camera looks, (T,) each, in panorama pixels; zoom is panorama pixels per picture pixel."""

    left: Array
    top: Array
    zoom: Array


def follow(camera: Camera, look: Look, *, ball: npt.NDArray[np.float32], rng: np.random.Generator) -> Views:
    """A view per frame: after the ball, (T, 3) metres, with a human lag, starting slightly before it moves."""
    num_frames, lag = len(ball), int(rng.integers(3, 6))
    column, _, _ = camera.pixels(ball.astype(np.float64) * (1, 1, 0.25))
    _, row, _ = camera.pixels(ball.astype(np.float64) * (1, 1, 0.1))
    column = late(smooth(smooth(column, 5), 9), lag) + 1.5 * _unrest(rng, num_frames)
    row = late(smooth(smooth(row, 9), 17), lag)
    speed = smooth(smooth(np.abs(np.gradient(column)), 51), 75)
    zoom = float(rng.uniform(0.9, 1.02)) + 0.1 * np.clip(speed / 3, 0, 1) + 0.015 * _unrest(rng, num_frames)
    zoom = np.clip(zoom, 0.82, 1.16)
    high = camera.far_row - look.top_pixels * zoom  # shows the far stand, unless the ball is too near
    top = high + np.maximum(0, 0.6 * (row - high - 0.45 * HEIGHT * zoom))
    top = np.clip(top, row - (HEIGHT - 40) * zoom, row - 34 * zoom)
    left = np.clip(column - zoom * WIDTH / 2, 2, camera.columns - zoom * WIDTH - 4)
    return Views(left, np.clip(top, 1, camera.rows - zoom * HEIGHT - 4), zoom)


def _unrest(rng: np.random.Generator, num_frames: int) -> Array:
    """(T,) the operator's slow unrest, about 1."""
    every = 40
    knots = rng.normal(0, 1, num_frames // every + 3)
    path = np.interp(np.arange(num_frames), every * np.arange(len(knots)), knots)
    return smooth(smooth(path, 21), 21)
