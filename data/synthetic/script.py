"""What a match is made of: the pitch, where the ball moves, who touches it, and the labelled instants.

No frame is drawn for a `Script`: hours of play take seconds, so its statistics can be tested. Metres: x runs along the
pitch (-52.5 to 52.5), y across it (-34 near the camera to 34), z up. Side 0 ("left") attacks towards +x.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...events import Event, TimeGrid

Array = npt.NDArray[np.float64]
HALF_LENGTH, HALF_WIDTH = 52.5, 34.0
GOAL_HALF_WIDTH, GOAL_HEIGHT = 3.66, 2.44
NUM_PLAYERS = 11
"""Of one team; player 0 is the goalkeeper."""
_BLOCK_LENGTH, _BLOCK_HALF_WIDTH = 36.0, 29.0
_FORMATIONS: dict[str, tuple[tuple[float, float], ...]] = {
    "4-4-2": (
        *((0.08, -0.8), (0.0, -0.28), (0.0, 0.28), (0.08, 0.8)),
        *((0.52, -0.85), (0.42, -0.25), (0.42, 0.25), (0.52, 0.85)),
        *((0.92, -0.2), (0.98, 0.25)),
    ),
    "4-3-3": (
        *((0.08, -0.8), (0.0, -0.28), (0.0, 0.28), (0.08, 0.8)),
        *((0.45, -0.42), (0.36, 0.0), (0.45, 0.42)),
        *((0.88, -0.82), (1.0, 0.0), (0.88, 0.82)),
    ),
    "3-5-2": (
        *((0.0, -0.5), (0.0, 0.0), (0.0, 0.5)),
        *((0.48, -0.9), (0.4, -0.35), (0.32, 0.0), (0.4, 0.35), (0.48, 0.9)),
        *((0.92, -0.22), (0.98, 0.22)),
    ),
}
FORMATIONS = tuple(_FORMATIONS)
"""Names; depth 0 is the last line, 1 the foremost, and -1 to 1 runs across the pitch."""

FPS = 25
GRID = TimeGrid(Fraction(FPS))
SIDES = ("left", "right")
Pose = Literal["run", "kick", "push", "head", "throw", "slide", "fall", "cheer"]
Style = Literal["roll", "fly", "carry", "still"]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Flight:
    """The ball's motion in frames [start, stop); it reaches `to` at frame `stop`."""

    start: int
    stop: int
    origin: Point
    """x, y, z in metres at frame `start`."""
    to: Point
    style: Style
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


def direction(side: int) -> int:
    """+1 or -1: where a side attacks, along x."""
    return 1 if side == 0 else -1


def stations(formation: str, side: int, ball: Array, forward: Array) -> Array:
    """Where the players of a side belong, (T, 11, 2) metres.

    Args:
        formation: one of `FORMATIONS`.
        side: 0 or 1.
        ball: (T, 2) metres.
        forward: (T,) 1 where the side has the ball, -1 where the other has it, or between.
    """
    ahead, (ball_x, ball_y) = direction(side), ball.T
    places = np.array(_FORMATIONS[formation])
    centre = 0.66 * ball_x + ahead * 3.5 * forward
    x = centre[:, None] + ahead * _BLOCK_LENGTH * (places[:, 0] - 0.5)
    spread = 1.0 + 0.12 * forward
    y = _BLOCK_HALF_WIDTH * spread[:, None] * places[:, 1] + 0.3 * ball_y[:, None]
    keeper_x = -ahead * (50.5 - 0.11 * (ahead * ball_x + HALF_LENGTH))
    result = np.empty((len(ball_x), NUM_PLAYERS, 2))
    result[:, 0, 0], result[:, 0, 1] = keeper_x, 0.08 * ball_y
    result[:, 1:, 0], result[:, 1:, 1] = np.clip(x, -48.5, 48.5), np.clip(y, -32.5, 32.5)
    return result


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


def draw_next(rng: np.random.Generator, label: str, *, side: int, x: float, y: float) -> str:
    """The label (or `FOUL`) that follows `label`, for the player of `side` who has the ball, or will, at (x, y)."""
    weights = _NEXT[label]
    names = list(weights)
    bent = np.array([weights[name] * _bend(name, direction(side) * x, abs(y)) for name in names])
    return names[int(rng.choice(len(names), p=bent / bent.sum()))]


def _bend(name: str, ahead: float, aside: float) -> float:
    """Factor on a weight at `ahead` metres towards the other goal from the centre, `aside` from the middle."""
    if name == "CROSS":
        return float(ahead > 28 and aside > 13)
    if name == "SHOT":
        return float(np.hypot(HALF_LENGTH - ahead, aside) < 26)
    if name == "HIGH PASS":
        return 1.15 if ahead < 15 else 0.35
    return 1.0


HEAD_HEIGHT = 1.95
KICKS = ("PASS", "HIGH PASS", "CROSS", "SHOT", "FREE KICK")
FLOWN = {"HIGH PASS", "CROSS", "SHOT", "FREE KICK", "HEADER", "THROW IN"}
_REACH: dict[str, tuple[float, float]] = {
    "PASS": (11.0, 6.5),
    "HIGH PASS": (33.0, 8.0),
    "HEADER": (10.0, 5.0),
    "THROW IN": (10.0, 5.0),
    BLOCK: (7.0, 5.0),
    TACKLE: (5.0, 4.0),
}
"""Metres from the ball at which its receiver is looked for, and the spread."""
_LOST: dict[str, float] = {"PASS": 0.1, "HIGH PASS": 0.4, "HEADER": 0.5, "THROW IN": 0.2, BLOCK: 0.6, TACKLE: 0.0}
"""Share of balls that an opponent gets."""


@dataclass(frozen=True)
class Receiver:
    """Who gets the ball, and where."""

    side: int
    player: int
    x: float
    y: float


def nearest(places: Array, x: float, y: float, *, but: int = -1, with_keeper: bool = False) -> int:
    """Index of the player nearest to (x, y), without player `but`."""
    distance = np.hypot(places[:, 0] - x, places[:, 1] - y)
    if but >= 0:
        distance[but] = np.inf
    if not with_keeper:
        distance[0] = np.inf
    return int(distance.argmin())


def choose_receiver(
    rng: np.random.Generator, label: str, ball: Point, *, side: int, player: int, teams: tuple[Array, Array]
) -> Receiver:
    """Who gets the ball after `label` by `player` of `side`; `teams` are the stations of both sides, (11, 2) each."""
    ahead = direction(side)
    if label in ("CROSS", "FREE KICK"):
        return _in_the_box(rng, side=side, player=player, teams=teams)
    if label == "SHOT":
        return Receiver(1 - side, 0, ahead * (HALF_LENGTH - rng.uniform(0.5, 2)), float(rng.uniform(-3, 3)))
    mates = teams[side]
    far, spread = _REACH[label]
    distance = np.hypot(mates[:, 0] - ball[0], mates[:, 1] - ball[1])
    forward = ahead * (mates[:, 0] - ball[0])
    weight = np.exp(-(((distance - far) / spread) ** 2) / 2 + 0.035 * np.clip(forward, -12, 40)) + 1e-9
    weight[0] *= 0.25
    weight[player] = 0.0
    chosen = int(rng.choice(len(mates), p=weight / weight.sum()))
    lead = rng.normal(0, 1.8, 2) + np.array([ahead * rng.uniform(0, 3), 0.0])
    x, y = _inside(*(mates[chosen] + lead))
    if rng.random() < _LOST[label]:
        short = rng.uniform(0.75, 1.05)
        x, y = _inside(ball[0] + short * (x - ball[0]), ball[1] + short * (y - ball[1]))
        return Receiver(1 - side, nearest(teams[1 - side], x, y), x, y)
    return Receiver(side, chosen, x, y)


def _in_the_box(rng: np.random.Generator, *, side: int, player: int, teams: tuple[Array, Array]) -> Receiver:
    x, y = direction(side) * rng.uniform(40.5, 49.5), float(rng.normal(0, 6))
    if rng.random() < 0.45:
        defenders = teams[1 - side]
        return Receiver(1 - side, nearest(defenders, x, y, with_keeper=rng.random() < 0.2), x, y)
    return Receiver(side, nearest(teams[side], x, y, but=player), x, y)


def _inside(x: float, y: float) -> tuple[float, float]:
    return float(np.clip(x, -51, 51)), float(np.clip(y, -32.8, 32.8))


def choose_exit(rng: np.random.Generator, label: str, ball: Point, *, side: int) -> Point:
    """Where the ball crosses a line after `label` by a player of `side`."""
    ahead, (x, y, _) = direction(side), ball
    to_go = HALF_LENGTH - ahead * x
    to_goal_line = {"SHOT": 1.0, "FREE KICK": 1.0, "CROSS": 0.6}.get(label, 0.0)
    if label == "HIGH PASS" and to_go < 55:
        to_goal_line = 0.55
    if label in (BLOCK, TACKLE, "HEADER", "DRIVE", "PASS") and HALF_LENGTH - abs(x) < 20:
        to_goal_line = 0.6
    if rng.random() >= to_goal_line:
        line_y = np.copysign(HALF_WIDTH, y if abs(y) > 4 or rng.random() < 0.5 else -y)
        along = rng.uniform(-2, 12) if label != "HIGH PASS" else rng.uniform(12, 34)
        high = 1.2 if label in ("HIGH PASS", "CROSS", "HEADER") else 0.0
        return float(np.clip(x + ahead * along, -50, 50)), float(line_y), high
    if label in ("SHOT", "FREE KICK", "CROSS", "HIGH PASS"):
        line_x = ahead * HALF_LENGTH
        over = label == "SHOT" and to_go > 8 and rng.random() < 0.4
        aside = rng.uniform(0, 3.5) if over else rng.uniform(4.4, 11 if label == "SHOT" else 22)
        height = rng.uniform(2.9, 5.5) if over else rng.uniform(0.1, 2.5)
        return line_x, float(rng.choice((-1, 1)) * aside), float(height)
    line_x = np.copysign(HALF_LENGTH, x)
    aside = np.clip(y + rng.normal(0, 4), -30, 30)
    aside = np.copysign(max(abs(aside), GOAL_HALF_WIDTH + 1), aside)
    return float(line_x), float(aside), 0.0


def flight_frames(rng: np.random.Generator, label: str, *, origin: Point, to: Point) -> int:
    """Frames that the ball is on its way from `origin` to `to` after `label`; at least 3."""
    metres = float(np.hypot(to[0] - origin[0], to[1] - origin[1]))
    ground_speed = {"PASS": 12.5, BLOCK: 9.0, TACKLE: 6.5, "SHOT": 20.0}
    if label in ground_speed:
        mean = ground_speed[label] + 0.12 * (metres - 12) * (label == "PASS")
        seconds = metres / float(np.clip(rng.normal(mean, 0.18 * mean), 5, 30))
    else:
        cross = (0.6, 0.031)
        way = {"HIGH PASS": (1.0, 0.052), "CROSS": cross, "FREE KICK": cross, "THROW IN": (0.5, 0.045)}
        base, per_metre = way.get(label, (0.7, 0.065))
        seconds = (base + per_metre * metres) * float(rng.normal(1, 0.1))
    return max(3, round(seconds * FPS))
