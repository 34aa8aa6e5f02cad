"""How a match looks: kits, grass, light, crowd, boards, and where the camera stands; drawn once per match."""

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """The look of one match.

    Args:
        rng: decides it.
        variety: 0 (every match looks the same) to 1 (each has a ground, a light and a camera of its own).
    """
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
            Kit((25, 25, 25), (20, 20, 20), (20, 20, 20))
            if rng.random() < 0.7
            else Kit((210, 205, 60), *[(20.0,) * 3] * 2),
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
            _rgb(*rng.random(3) * (1, 0.5, 0.7)),
            _rgb(*rng.random(3) * (1, 0.7, 0.8)),
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
    dark, light = (25.0, 25.0, 35.0), (235.0, 235.0, 235.0)
    choices = [shirt, dark, light]
    return Kit(shirt, choices[int(rng.integers(3))], choices[int(rng.integers(3))])


def _keeper(rng: np.random.Generator) -> Kit:
    colour = _rgb(rng.random(), 0.85, 0.85)
    return Kit(colour, colour, colour)
