"""Views: fixed augmentations that are cached side by side, so that head training keeps some augmentation."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Clips = npt.NDArray[np.uint8]
View = Literal["identity", "hflip"]

VIEWS: dict[View, Callable[[Clips], Clips]] = {
    "identity": lambda clips: clips,
    "hflip": lambda clips: np.ascontiguousarray(clips[..., ::-1, :]),
}
"""Name -> function of pictures (..., H, W, 3) uint8 to pictures of the same shape."""
