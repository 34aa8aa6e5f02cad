"""Where an action sends the ball, to whom, and how long it is on its way."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .pitch import GOAL_HALF_WIDTH, HALF_LENGTH, HALF_WIDTH, Array, direction, stations
from .script import BLOCK, FPS, TACKLE, Point

HEAD_HEIGHT = 1.95
KICKS = ("PASS", "HIGH PASS", "CROSS", "SHOT", "FREE KICK")
_FLOWN = {"HIGH PASS", "CROSS", "SHOT", "FREE KICK", "HEADER", "THROW IN"}
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


@dataclass(frozen=True)
class Exit:
    """Where the ball leaves the pitch."""

    point: Point
    line: Literal["touch", "goal"]


def team_places(formation: str, side: int, ball: tuple[float, float], *, has_ball: bool) -> Array:
    """Stations of one side for this ball, (11, 2) metres."""
    ball_x, ball_y, forward = np.array([ball[0]]), np.array([ball[1]]), np.array([1.0 if has_ball else -1.0])
    places: Array = stations(formation, side, ball_x=ball_x, ball_y=ball_y, forward=forward)[0]
    return places


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
    """Who gets the ball after `label` by `player` of `side`.

    Args:
        rng: draws.
        label: the action that sends the ball.
        ball: where it is.
        side: of the player who acts.
        player: who acts.
        teams: stations of both sides, (11, 2) each.
    """
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


def choose_exit(rng: np.random.Generator, label: str, ball: Point, *, side: int) -> Exit:
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
        return Exit((float(np.clip(x + ahead * along, -50, 50)), float(line_y), high), "touch")
    if label in ("SHOT", "FREE KICK", "CROSS", "HIGH PASS"):
        line_x = ahead * HALF_LENGTH
        over = label == "SHOT" and to_go > 8 and rng.random() < 0.4
        aside = rng.uniform(0, 3.5) if over else rng.uniform(4.4, 11 if label == "SHOT" else 22)
        height = rng.uniform(2.9, 5.5) if over else rng.uniform(0.1, 2.5)
        return Exit((line_x, float(rng.choice((-1, 1)) * aside), float(height)), "goal")
    line_x = np.copysign(HALF_LENGTH, x)
    aside = np.clip(y + rng.normal(0, 4), -30, 30)
    aside = np.copysign(max(abs(aside), GOAL_HALF_WIDTH + 1), aside)
    return Exit((float(line_x), float(aside), 0.0), "goal")


def flight_frames(rng: np.random.Generator, label: str, *, origin: Point, to: Point) -> int:
    """Frames that the ball is on its way from `origin` to `to` after `label`; at least 3."""
    metres = float(np.hypot(to[0] - origin[0], to[1] - origin[1]))
    ground_speed = {"PASS": 12.5, BLOCK: 9.0, TACKLE: 6.5, "SHOT": 20.0}
    if label in ground_speed:
        mean = ground_speed[label] + 0.12 * (metres - 12) * (label == "PASS")
        seconds = metres / float(np.clip(rng.normal(mean, 0.18 * mean), 5, 30))
    else:
        base, per_metre = {
            "HIGH PASS": (1.0, 0.052),
            "CROSS": (0.6, 0.031),
            "FREE KICK": (0.6, 0.031),
            "THROW IN": (0.5, 0.045),
        }.get(label, (0.7, 0.065))
        seconds = (base + per_metre * metres) * float(rng.normal(1, 0.1))
    return max(3, round(seconds * FPS))


def is_flown(label: str) -> bool:
    """Whether the ball leaves the ground."""
    return label in _FLOWN
