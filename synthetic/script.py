"""What a match is made of: where the ball moves, who touches it, and the labelled instants. No frame is drawn for it.

A `Script` is cheap: hours of play take seconds, so its statistics can be tested.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from ..events import Event, TimeGrid

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
