"""The pitch in metres, and where the players of a team stand for a given ball.

x runs along the pitch (-52.5 to 52.5), y across it (-34 near the camera to 34), z up.
Side 0 ("left") attacks towards +x.
"""

import numpy as np
import numpy.typing as npt

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


def direction(side: int) -> int:
    """+1 or -1: where a side attacks, along x."""
    return 1 if side == 0 else -1


def stations(formation: str, side: int, *, ball_x: Array, ball_y: Array, forward: Array) -> Array:
    """Where the players of a side belong.

    Args:
        formation: one of `FORMATIONS`.
        side: 0 or 1.
        ball_x: (T,) metres.
        ball_y: (T,) metres.
        forward: (T,) 1 where the side has the ball, -1 where the other has it, or between.

    Returns:
        (T, 11, 2) metres.
    """
    ahead = direction(side)
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


_MATRIX = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])


def to_yuv(rgb: Array) -> Array:
    """(..., 3) RGB of 0 to 255 -> (..., 3): Y 16 to 235, U and V 16 to 240."""
    result: Array = rgb @ _MATRIX.T + np.array([16.0, 128.0, 128.0])
    return result
