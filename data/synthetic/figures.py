"""Bodies: the limbs of a figure in a pose, as strokes in metres; x to where he faces, z up, the feet at (0, 0)."""

from dataclasses import dataclass

import numpy as np

from .pitch import Array
from .tracks import POSES

PHASES = 8
"""Of the running legs."""
PARTS = ("shirt", "shorts", "socks", "skin", "hair", "boots")
"""What has a colour of its own."""


@dataclass(frozen=True)
class Limb:
    """A stroke with round ends."""

    start: tuple[float, float]
    stop: tuple[float, float]
    radius: float
    part: str
    """One of `PARTS`."""


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
    if key in _POSTURES:
        return _POSTURES[key]
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
    posture = _posture(key)
    apart = float(np.sqrt(1 - min(1.0, yaw * yaw)))
    hip = np.array([0.0, posture.hip_height])
    neck = hip + 0.53 * np.array([np.sin(posture.lean) * yaw, np.cos(posture.lean)])
    head = neck + 0.2 * np.array([np.sin(posture.lean) * yaw, np.cos(posture.lean)])
    legs, arms = [], []
    for index, out in ((1, -1), (0, 1)):
        thigh, knee = posture.thighs[index], posture.knees[index]
        root = hip + _at(out * 0.11 * apart, 0.0)
        middle = root + 0.45 * _swing(thigh, yaw)
        foot = middle + 0.46 * _swing(thigh - knee, yaw)
        legs += [_limb(root, middle, 0.105, "shorts"), _limb(root + 0.7 * (middle - root), middle, 0.08, "skin")]
        legs += [_limb(middle, foot, 0.075, "socks"), _limb(foot, foot + _at(0.13 * yaw, -0.01), 0.06, "boots")]
        shoulder = neck + _at(out * 0.19 * apart, -0.05)
        elbow = shoulder + 0.28 * _swing(posture.arms[index], yaw) + _at(out * 0.07, 0.0)
        hand = elbow + 0.27 * _swing(posture.arms[index] + posture.elbows[index], yaw)
        arms.append([_limb(shoulder, elbow, 0.07, "shirt"), _limb(elbow, hand, 0.05, "skin")])
    width = 0.15 + 0.05 * apart
    body = [
        _limb(hip + _at(0, 0.06), neck - _at(0, 0.1), width, "shirt"),
        _limb(hip, hip + _at(0, 0.04), width - 0.01, "shorts"),
    ]
    skull = [_limb(neck, head, 0.075, "skin"), _limb(head + _at(0, 0.03), head + _at(0, 0.05), 0.125, "hair")]
    skull.append(_limb(head + _at(0.04 * yaw, -0.03), head + _at(0.05 * yaw, -0.02), 0.105, "skin"))
    return [*arms[0], *legs, body[1], body[0], *skull, *arms[1]]


def _at(x: float, z: float) -> Array:
    return np.array([x, z])


def _swing(angle: float, yaw: float) -> Array:
    return np.array([np.sin(angle) * yaw, -np.cos(angle)])


def _limb(start: Array, stop: Array, radius: float, part: str) -> Limb:
    return Limb((float(start[0]), float(start[1])), (float(stop[0]), float(stop[1])), radius, part)
