"""Events and predictions of one game on the metric's grid: which (class, frame) cells hold something.

Legend: N cells, T frames, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Spots:
    """Cells by class, then by frame; each (class, frame) at most once."""

    frames: IntArray
    """(N,) cell of each spot, >= 0 where it comes from files."""
    values: FloatArray
    """(N,) a prediction's score (>= 0), or +1 for a visible event and -1 for one that is not shown."""
    starts: IntArray
    """(C + 1,) class c is at `starts[c]:starts[c + 1]`."""
    num_overwritten: int = 0
    """Spots that a later one on the same cell replaced."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.starts) - 1

    @property
    def counts(self) -> IntArray:
        """(C,) spots of each class."""
        return np.diff(self.starts)

    def of_class(self, class_index: int) -> tuple[IntArray, FloatArray]:
        """Frames (n,) in ascending order and values (n,) of one class, 0 <= class_index < C."""
        part = slice(self.starts[class_index], self.starts[class_index + 1])
        return self.frames[part], self.values[part]

    @classmethod
    def collect(cls, frames: ArrayLike, classes: ArrayLike, values: ArrayLike, *, num_classes: int) -> "Spots":
        """From a list in any order; on one cell the last of the list wins, as in the official reader.

        Args:
            frames: (N,) integers.
            classes: (N,) integers, 0 to num_classes - 1.
            values: (N,) scores or visibilities; what is not >= 0 is kept here (see `Game`).
            num_classes: C.

        Raises:
            InputError: lengths differ, or a class is outside its range.
        """
        frame, index = np.asarray(frames, dtype=np.int64), np.asarray(classes, dtype=np.int64)
        value = np.asarray(values, dtype=np.float64)
        if not frame.shape == index.shape == value.shape or frame.ndim != 1:
            raise InputError(
                "lists of spots differ in length",
                got=f"{frame.shape}, {index.shape}, {value.shape}",
                wanted="three of the same length",
            )
        if len(index) and not (index.min() >= 0 and index.max() < num_classes):
            raise InputError(
                "class index is out of range", got=f"{index.min()} to {index.max()}", wanted=f"0 to {num_classes - 1}"
            )
        order = np.lexsort((frame, index))  # stable: the last of equal cells is the last of the list
        frame, index, value = frame[order], index[order], value[order]
        is_last = np.ones(len(order), dtype=bool)
        is_last[:-1] = (np.diff(frame) != 0) | (np.diff(index) != 0)
        starts = np.searchsorted(index[is_last], np.arange(num_classes + 1))
        return cls(frame[is_last], value[is_last], starts, int(np.count_nonzero(~is_last)))

    def keep(self, is_kept: NDArray[np.bool_]) -> "Spots":
        """Only the spots where `is_kept` (N,)."""
        before = np.concatenate([[0], np.cumsum(is_kept)])
        return Spots(self.frames[is_kept], self.values[is_kept], before[self.starts], self.num_overwritten)

    def with_values(self, values: FloatArray) -> "Spots":
        """The same cells with other values (N,)."""
        return Spots(self.frames, values, self.starts, self.num_overwritten)


@dataclass(frozen=True)
class Game:
    """Events and predictions of one game, or of one half where each half has its own clock."""

    events: Spots
    """Values +1 (visible) and -1 (not shown)."""
    predictions: Spots
    """Values are scores >= 0; a negative score or NaN is no prediction and is left out."""

    def __post_init__(self) -> None:
        if self.events.num_classes != self.predictions.num_classes:
            raise InputError(
                "events and predictions have different classes",
                got=f"{self.events.num_classes} and {self.predictions.num_classes}",
                wanted="the same number",
            )
        # In the official dense grid -1 stands for "no prediction here"; NaN is never >= 0 either. This comes after the
        # last spot on a cell has won: a negative score that comes later in a file erases an earlier prediction.
        is_detection = self.predictions.values >= 0
        if not is_detection.all():
            object.__setattr__(self, "predictions", self.predictions.keep(is_detection))

    @property
    def num_classes(self) -> int:
        """C."""
        return self.events.num_classes

    @property
    def num_frames(self) -> int:
        """One more than the last frame that holds anything."""
        return 1 + max(
            (int(spots.frames.max()) for spots in (self.events, self.predictions) if len(spots.frames)), default=-1
        )

    @classmethod
    def from_grids(cls, targets: ArrayLike, detections: ArrayLike) -> "Game":
        """From the official dense form.

        Args:
            targets: (T, C); 0 no event, > 0 a visible event, < 0 one that is not shown.
            detections: (T, C); a score >= 0, or -1 where there is no prediction.

        Raises:
            InputError: the shapes differ.
        """
        target, detection = np.asarray(targets, dtype=np.float64), np.asarray(detections, dtype=np.float64)
        if target.ndim != 2 or target.shape != detection.shape:
            raise InputError(
                "grids of events and predictions differ",
                got=f"{target.shape} and {detection.shape}",
                wanted="(frames, classes) both",
            )

        def spots(grid_tc: FloatArray, is_spot_tc: NDArray[np.bool_]) -> Spots:
            frames, classes = np.nonzero(is_spot_tc)
            return Spots.collect(frames, classes, grid_tc[is_spot_tc], num_classes=grid_tc.shape[1])

        return cls(spots(np.sign(target), target != 0), spots(detection, detection >= 0))


def check_same_classes(games: Sequence[Game]) -> int:
    """C of all games.

    Raises:
        InputError: no game, or games with different numbers of classes.
    """
    found = sorted({game.num_classes for game in games})
    if len(found) != 1 or not found[0]:
        raise InputError(
            "games cannot be evaluated together", got=f"numbers of classes {found}", wanted="one number above zero"
        )
    return found[0]
