"""RGB to the YUV of standard-definition video (BT.601, limited range)."""

import numpy as np

from .pitch import Array

_MATRIX = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])


def to_yuv(rgb: Array) -> Array:
    """(..., 3) RGB of 0 to 255 -> (..., 3): Y 16 to 235, U and V 16 to 240."""
    result: Array = rgb @ _MATRIX.T + np.array([16.0, 128.0, 128.0])
    return result
