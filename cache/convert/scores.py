"""Per-frame scores of another model, as npz files: reads them, and joins the halves of a match on its clock.

`1_scores.npz` and `2_scores.npz` (or `scores.npz` of an unsplit match) hold `frame_indexes` (N,), counted from the
start of the half, and `scores` (N, C). T: frames of the match, N: frames with a score, C: channels.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .importing import DERIVED, FindFolders, ImportOptions, ImportSource, SourceMatch, SourceRows
from .offsets import FRAMES_KEY, Offsets, read_offsets
from .tables import MAX_ROWS, FeatureTable, read_npz

WHOLE_NAME = "scores.npz"
HALF_NAMES = ("1_scores.npz", "2_scores.npz")
_NAMES = frozenset({WHOLE_NAME, *HALF_NAMES})
DESCRIPTION = "folders with 1_scores.npz and 2_scores.npz, or scores.npz (confidences per frame)"
OPTIONS = frozenset({"split_file", "offsets"})


@dataclass(frozen=True)
class Scores:
    """One npz file."""

    path: Path
    frames: npt.NDArray[np.int64]
    """(N,) increasing, >= 0, counted from the start of the half (or match); N >= 1."""
    values: npt.NDArray[Any]
    """(N, C) floats."""

    @property
    def num_frames(self) -> int:
        """Length of the half: a window model loses the margin before the first index at the end as well."""
        first, last = int(self.frames[0]), int(self.frames[-1])
        return max(first + last, last + 1)


def is_here(names: Collection[str]) -> bool:
    """Whether files of these names are of this kind."""
    return not _NAMES.isdisjoint(names)


def find(root: Path, options: ImportOptions, find_folders: FindFolders, stored_fps: str | None) -> ImportSource:  # noqa: ARG001
    """Find every folder of score files below a root. Raises InputError where there is none."""
    matches, classes = find_folders(root, _NAMES, options.split_file, ("Labels-ball.json",))
    offsets = read_offsets(root, options.offsets, [match.id for match in matches])
    load = partial(load_scores, offsets=offsets)
    return ImportSource(kind="scores", matches=matches, load=load, classes=classes, fps=options.fps)


def load_scores(match: SourceMatch, offsets: Offsets) -> SourceRows:
    """Scores of a match on its clock; what has no score is 0 and not valid.

    Raises:
        InputError: files are missing, damaged or do not fit each other, or the offset is neither known nor derivable.
    """
    there = [name for name in (WHOLE_NAME, *HALF_NAMES) if (match.folder / name).is_file()]
    if there == [WHOLE_NAME]:
        whole = read_scores(match.folder / WHOLE_NAME)
        return _placed([(0, whole)], whole.num_frames, None, "")
    if there != [*HALF_NAMES]:
        raise InputError(
            f"{match.folder}: the match's scores are not whole",
            got=", ".join(there) or "no npz file",
            wanted=f"{' and '.join(HALF_NAMES)}, or {WHOLE_NAME} alone",
            cure=f"fetch the missing half; a match in one piece is called {WHOLE_NAME}",
        )
    first, second = (read_scores(match.folder / name) for name in HALF_NAMES)
    if first.values.shape[1] != second.values.shape[1]:
        got = f"{first.values.shape[1]} and {second.values.shape[1]}"
        raise InputError(f"{match.folder}: the halves differ in channels", got=got, wanted="halves of one model")
    offset, offset_from = choose_offset(match, first, offsets)
    return _placed([(0, first), (offset, second)], offset + second.num_frames, offset, offset_from)


def choose_offset(match: SourceMatch, first: Scores, offsets: Offsets) -> tuple[int, str]:
    """Row of frame 0 of the second half, and where it is from: the offsets file, else first + last index of half 1.

    Raises:
        InputError: the second half would begin inside the first, or the model's margin is not known.
    """
    named, last = offsets.frames(match.id), int(first.frames[-1])
    if named is not None:
        if named <= last:
            raise InputError(
                f"{match.id}: the second half would begin inside the first",
                got=f"offset {named} in {offsets.name}, scores of half 1 up to frame {last}",
                wanted=f"an offset > {last}",
            )
        return named, offsets.name
    if first.frames[0] == 0:
        raise InputError(
            f"{match.id}: where the second half begins is not known",
            got="scores of half 1 from frame 0 on, so that the margin lost at its end cannot be told",
            wanted="the frames of half 1",
            cure=f'--offsets FILE with {{"games": {{"{match.id}": {{"{FRAMES_KEY}": N}}}}}}',
        )
    return first.num_frames, DERIVED


def _placed(parts: list[tuple[int, Scores]], num_frames: int, offset: int | None, offset_from: str) -> SourceRows:
    """Rows (T, C), 0 where no part has a score. `parts`: (row of its frame 0, scores); they do not overlap."""
    rows = np.zeros((num_frames, parts[0][1].values.shape[1]), parts[0][1].values.dtype)
    valid = np.zeros(num_frames, bool)
    for first_row, scores in parts:
        rows[first_row + scores.frames] = scores.values
        valid[first_row + scores.frames] = True
    paths = [scores.path for _, scores in parts]
    return SourceRows(
        parts=((0, FeatureTable(str(paths[0].parent), rows)),),
        num_rows=num_frames,
        is_valid=valid,
        paths=paths,
        half1_offset_frames=offset,
        offset_from=offset_from,
    )


def read_scores(path: Path) -> Scores:
    """One npz file, checked.

    Raises:
        InputError: not a zip, damaged, arrays are missing or cannot be used.
    """
    arrays = read_npz(path, ("frame_indexes", "scores"))
    frames, values = arrays["frame_indexes"], arrays["scores"]
    if values.ndim != 2 or not values.size or values.dtype.kind != "f" or frames.shape != values.shape[:1]:
        raise InputError(
            f"{path}: arrays do not fit",
            got=f"frame_indexes {frames.dtype} {frames.shape}, scores {values.dtype} {values.shape}",
            wanted="whole numbers (N,) and floats (N, C), N and C >= 1",
        )
    wanted = f"whole numbers that increase, 0 to {MAX_ROWS - 1}"
    if frames.dtype.kind not in "iu":
        raise InputError(f"{path}: frame_indexes are not whole numbers", got=frames.dtype, wanted=wanted)
    if frames.min() < 0 or frames.max() >= MAX_ROWS:
        got = f"{frames.min()} to {frames.max()}"
        raise InputError(f"{path}: frame_indexes out of range", got=got, wanted=wanted)
    if (np.diff(frames.astype(np.int64)) <= 0).any():
        raise InputError(f"{path}: frame_indexes do not increase", wanted=wanted)
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(values.astype(np.float16)))
    if len(bad):
        row, channel = (int(index) for index in bad[0])
        raise InputError(
            f"{path}: score of frame {frames[row]}, channel {channel} is not finite as float16",
            got=values[row, channel],
            wanted=f"a number within +-{np.finfo(np.float16).max}",
        )
    return Scores(path, frames.astype(np.int64), values)
