"""What a match is made of: where the ball moves, who touches it, and the labelled instants. No frame is drawn for it.

A `Script` is cheap: hours of play take seconds, so its statistics can be tested.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from ...events import Event, TimeGrid
from .pitch import HALF_LENGTH, direction

FPS = 25
GRID = TimeGrid(Fraction(FPS))
SIDES = ("left", "right")
Pose = Literal["run", "kick", "push", "head", "throw", "slide", "fall", "cheer"]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Flight:
    """The ball's motion in frames [start, stop); it reaches `to` at frame `stop`."""

    start: int
    stop: int
    origin: Point
    """x, y, z in metres at frame `start`."""
    to: Point
    style: Literal["roll", "fly", "carry", "still"]
    """`fly` follows gravity, `roll` slows down, `carry` swerves along a player's path."""
    bend: float = 0.0
    """Metres by which a carried or flown ball leaves the straight line, to the left, half-way."""


@dataclass(frozen=True)
class Touch:
    """A player is at the ball, or at a spot, in frames [start, stop]."""

    side: int
    player: int
    start: int
    stop: int
    pose: Pose = "run"
    pose_frame: int | None = None
    """Frame of the contact; None: no special pose."""
    spot: tuple[float, float] | None = None
    """Where he stands; None: at the ball."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Metres from the ball, for one who presses."""


@dataclass(frozen=True)
class Script:
    """A match of `num_frames` frames."""

    num_frames: int
    formations: tuple[str, str]
    flights: tuple[Flight, ...]
    """In order, without gaps, from frame 0 to `num_frames` or beyond."""
    touches: tuple[Touch, ...]
    """By start."""
    events: tuple[Event, ...] = field(default=())
    """Labels in time order, all before the last frame; positions in multiples of 40 ms."""


def dribble_steps(frames: int) -> int:
    """How often the foot pushes the ball on the way of a carried ball of so many frames."""
    return max(1, round(frames / FPS / 0.55))


FOUL = "FOUL"
"""No label: play stops, and a free kick, or a pass, follows."""
BLOCK, TACKLE = "BALL PLAYER BLOCK", "PLAYER SUCCESSFUL TACKLE"
_NEXT: dict[str, dict[str, float]] = {
    "PASS": {
        **{"DRIVE": 0.655, "PASS": 0.205, "OUT": 0.033, "HIGH PASS": 0.038, BLOCK: 0.016, "CROSS": 0.21},
        **{"HEADER": 0.012, "SHOT": 0.06},
    },
    "DRIVE": {
        **{"PASS": 0.77, "HIGH PASS": 0.115, "DRIVE": 0.034, "CROSS": 0.46, "SHOT": 0.11, TACKLE: 0.0205},
        **{"OUT": 0.008, FOUL: 0.038},
    },
    "HIGH PASS": {
        **{"HEADER": 0.41, "DRIVE": 0.27, "PASS": 0.16, "OUT": 0.105, "HIGH PASS": 0.025, BLOCK: 0.018},
    },
    "HEADER": {
        **{"DRIVE": 0.37, "HEADER": 0.23, "PASS": 0.22, "OUT": 0.09, "HIGH PASS": 0.07, "SHOT": 0.06},
    },
    "THROW IN": {"DRIVE": 0.53, "PASS": 0.30, "HEADER": 0.15, "HIGH PASS": 0.02},
    BLOCK: {"OUT": 0.47, "DRIVE": 0.24, "PASS": 0.15, "HIGH PASS": 0.06, "HEADER": 0.06, "SHOT": 0.05},
    "CROSS": {
        **{"HEADER": 0.33, BLOCK: 0.21, "DRIVE": 0.17, "PASS": 0.11, "SHOT": 0.10, "OUT": 0.08},
        **{"HIGH PASS": 0.04},
    },
    "SHOT": {BLOCK: 0.41, "OUT": 0.32, "DRIVE": 0.17, "GOAL": 0.065, "HEADER": 0.02},
    TACKLE: {"DRIVE": 0.48, "OUT": 0.28, "PASS": 0.17, "HIGH PASS": 0.07},
    "FREE KICK": {"HEADER": 0.72, "OUT": 0.08, "DRIVE": 0.08, BLOCK: 0.07, "GOAL": 0.05},
}
_FIRST_TIME = {"DRIVE", "PASS", "HIGH PASS", "CROSS", "SHOT"}
"""What the player does whom the ball reaches; the others are done to the ball on its way."""


def draw_next(rng: np.random.Generator, label: str, *, side: int, x: float, y: float) -> str:
    """The label (or `FOUL`) that follows `label`, for the player of `side` who has the ball, or will, at (x, y)."""
    weights = _NEXT[label]
    names = list(weights)
    bent = np.array([weights[name] * _bend(name, direction(side) * x, abs(y)) for name in names])
    return names[int(rng.choice(len(names), p=bent / bent.sum()))]


def needs_receiver(label: str) -> bool:
    """Whether a player who gets the ball on the ground does it."""
    return label in _FIRST_TIME


def _bend(name: str, ahead: float, aside: float) -> float:
    """Factor on a weight at `ahead` metres towards the other goal from the centre, `aside` from the middle."""
    if name == "CROSS":
        return float(ahead > 28 and aside > 13) * 1.0
    if name == "SHOT":
        return float(np.hypot(HALF_LENGTH - ahead, aside) < 26)
    if name == "HIGH PASS":
        return 1.15 if ahead < 15 else 0.35
    return 1.0
