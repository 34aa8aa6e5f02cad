"""The main camera: it stands in the main stand, turns after the ball, and zooms a little.

The panorama is a cylinder around it: column u is an angle, row v the slope of the view, so that turning the camera
only moves the picture. A view (left, top, zoom) shows panorama pixel `left + zoom * j` in column j.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .look import Look
from .pitch import HALF_LENGTH, HALF_WIDTH, Array
from .tracks import late, smooth

AnyFloats = npt.NDArray[np.floating[Any]]
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

    def rays(self, columns: AnyFloats, rows: AnyFloats) -> tuple[AnyFloats, AnyFloats]:
        """Angle and downward slope of panorama pixels; both broadcast."""
        return (columns - self.columns / 2) / self.focal, (rows + self.top) / self.focal


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
    """A view per frame: after the ball with a human lag, starting slightly before it moves.

    Args:
        camera: of the match.
        look: of the match.
        ball: (T, 3) metres.
        rng: the hand of the operator.
    """
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
