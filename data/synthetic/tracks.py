"""A script made into paths: where ball and players are in every frame, and what pose each player has."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .script import FPS, NUM_PLAYERS, Array, Flight, Script, Touch, direction, dribble_steps, stations

_GRAVITY = 9.81
_BALL_LAG_FRAMES = 20
"""How late a team follows the ball."""
_POSE_SPAN: dict[str, tuple[int, int]] = {
    **{"kick": (-5, 5), "push": (-3, 2), "head": (-6, 6), "throw": (-26, 5), "slide": (-6, 14)},
    **{"fall": (0, 30), "cheer": (-30, 200)},
}
"""Frames before and after the contact in which a pose is held."""
POSES = ("run", *_POSE_SPAN)


@dataclass(frozen=True)
class Tracks:
    """Paths of T frames; players 0 to 10 are the side that attacks +x, 11 to 21 the other, 22 the referee."""

    ball: npt.NDArray[np.float32]
    """(T, 3) metres."""
    players: npt.NDArray[np.float32]
    """(T, 23, 2) metres."""
    pose: npt.NDArray[np.int8]
    """(T, 23) index into `POSES`."""
    moment: npt.NDArray[np.int16]
    """(T, 23) frames since the contact of the pose, negative before."""
    stride: npt.NDArray[np.float32]
    """(T, 23) metres run, for the phase of the legs."""
    velocity: npt.NDArray[np.float32]
    """(T, 23, 2) metres per second."""


def make_tracks(script: Script, rng: np.random.Generator) -> Tracks:
    """Paths of everyone in a script; about 0.5 kB a frame."""
    ball = ball_path(script)
    players = _player_paths(script, ball, rng)
    pose, moment = _poses(script)
    velocity = np.gradient(players, axis=0) * FPS
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    stride = np.cumsum(speed / FPS, axis=0, dtype=np.float32)
    return Tracks(ball, players, pose, moment, stride, velocity.astype(np.float32))


def ball_path(script: Script) -> npt.NDArray[np.float32]:
    """(T, 3) metres: where the ball is in each frame."""
    path = np.empty((script.num_frames, 3), np.float32)
    for flight in script.flights:
        if flight.start >= script.num_frames:
            break
        stop = min(flight.stop, script.num_frames)
        path[flight.start : stop] = _along(flight)[: stop - flight.start]
    return path


def _along(flight: Flight) -> Array:
    """(frames, 3) metres of one flight, from its start on."""
    frames = flight.stop - flight.start
    share = np.arange(frames) / frames
    seconds = frames / FPS
    origin, to = np.array(flight.origin), np.array(flight.to)
    if flight.style == "roll":
        share = 1.3 * share - 0.3 * share**2
    elif flight.style == "carry":
        steps = dribble_steps(frames)
        share = share + 0.35 / (2 * np.pi * steps) * np.sin(2 * np.pi * steps * share)
    points: Array = origin + (to - origin) * share[:, None]
    if flight.style == "fly":
        points[:, 2] += _GRAVITY / 2 * seconds**2 * share * (1 - share)
    if flight.bend:
        across = np.array([origin[1] - to[1], to[0] - origin[0]]) / max(1e-6, float(np.hypot(*(to - origin)[:2])))
        points[:, :2] += flight.bend * 4 * (share * (1 - share))[:, None] * across
    return points


def smooth(values: Array, width: int) -> Array:
    """Centred moving average of odd `width` along axis 0, edges repeated; any shape."""
    half = width // 2
    first, last = np.repeat(values[:1], half + 1, axis=0), np.repeat(values[-1:], half, axis=0)
    sums = np.cumsum(np.concatenate([first, values, last]), axis=0, dtype=np.float64)
    result: Array = (sums[width:] - sums[:-width]) / width
    return result


def late(values: Array, frames: int) -> Array:
    """The same, `frames` later; the first value fills the start."""
    result: Array = np.concatenate([np.repeat(values[:1], frames, axis=0), values])[: len(values)]
    return result


def _player_paths(script: Script, ball: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    num_frames = script.num_frames
    followed = late(smooth(smooth(ball[:, :2].astype(np.float64), 41), 51), _BALL_LAG_FRAMES)
    forward = late(smooth(_possession(script), 75), 10)
    paths = np.empty((num_frames, 2 * NUM_PLAYERS + 1, 2), np.float32)
    for side, formation in enumerate(script.formations):
        places = stations(formation, side, followed, direction(side) * forward)
        paths[:, side * NUM_PLAYERS : (side + 1) * NUM_PLAYERS] = places
    paths[:, -1, 0] = 0.8 * followed[:, 0]
    paths[:, -1, 1] = 0.6 * followed[:, 1] - 7
    touches: dict[int, list[Touch]] = defaultdict(list)
    for touch in script.touches:
        if touch.start < num_frames:
            touches[touch.side * NUM_PLAYERS + touch.player].append(touch)
    for index in range(paths.shape[1]):
        calm = 0.15 if index % NUM_PLAYERS == 0 and index < 2 * NUM_PLAYERS else 1.0
        path = paths[:, index] + calm * _wander(rng, num_frames)
        path += _corrections(touches[index], path, ball)
        paths[:, index] = smooth(path, 7)
    return paths


def _eased(share: Array) -> Array:
    """0 to 1, slow at both ends."""
    return share * share * (3 - 2 * share)


def _possession(script: Script) -> Array:
    """(T,) +1 where side 0 has the ball, -1 where side 1 has it."""
    sign = np.zeros(script.num_frames)
    for touch in script.touches:
        if touch.offset == (0.0, 0.0):
            sign[touch.start :] = direction(touch.side)
    return sign


def _wander(rng: np.random.Generator, num_frames: int) -> Array:
    """(T, 2) metres: small runs of his own."""
    every = 2.2 * FPS
    knots = rng.normal(0, 1.7, (int(num_frames / every) + 3, 2))
    place = np.arange(num_frames) / every
    left = place.astype(int)
    share = _eased(place - left)[:, None]
    result: Array = knots[left] * (1 - share) + knots[left + 1] * share
    return result


def _corrections(touches: list[Touch], path: Array, ball: npt.NDArray[np.float32]) -> Array:
    """(T, 2) metres that bring a player from his own path to his touches and back, without a jump."""
    num_frames = len(path)
    result = np.zeros_like(path)
    last_stop, last_value = -(10**6), np.zeros(2)
    for touch in touches:
        start, stop = max(touch.start, last_stop + 1), min(touch.stop, num_frames - 1)
        if start > stop:
            continue
        wanted = _pinned(touch, ball[start : stop + 1]) - path[start : stop + 1]
        _ease(result, last_stop, last_value, start, wanted[0])
        result[start : stop + 1] = wanted
        last_stop, last_value = stop, wanted[-1]
    _ease(result, last_stop, last_value, num_frames + 10**6, np.zeros(2))
    return result


def _pinned(touch: Touch, ball: npt.NDArray[np.float32]) -> Array:
    """(frames, 2) metres: where a touch wants its player."""
    if touch.spot is not None:
        return np.repeat(np.array([touch.spot]), len(ball), axis=0)
    behind = np.array([-0.3 if touch.side == 0 else 0.3, 0.22])
    result: Array = ball[:, :2] + np.array(touch.offset) + (behind if touch.pose != "head" else 0.0)
    return result


def _ease(result: Array, stop: int, leaves: Array, start: int, arrives: Array) -> None:
    """Fill `result` between two pinned stretches: the first correction fades out, the next one fades in."""
    gap = start - stop
    for edge, value, step in ((stop, leaves, 1), (start, arrives, -1)):
        reach = int(min(gap, np.clip(float(np.hypot(*value)) / 4.2, 0.7, 5.0) * FPS))
        frames = edge + step * np.arange(1, reach)
        inside = (frames >= 0) & (frames < len(result))
        result[frames[inside]] += _eased(1 - np.arange(1, reach) / reach)[inside, None] * value


def _poses(script: Script) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int16]]:
    shape = script.num_frames, 2 * NUM_PLAYERS + 1
    pose, moment = np.zeros(shape, np.int8), np.zeros(shape, np.int16)
    for touch in script.touches:
        if touch.pose_frame is None or touch.pose not in _POSE_SPAN:
            continue
        before, after = _POSE_SPAN[touch.pose]
        start, stop = max(0, touch.pose_frame + before), min(script.num_frames, touch.pose_frame + after + 1)
        if start < stop:
            index = touch.side * NUM_PLAYERS + touch.player
            pose[start:stop, index] = POSES.index(touch.pose)
            moment[start:stop, index] = np.arange(start, stop) - touch.pose_frame
    return pose, moment
