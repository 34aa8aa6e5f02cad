"""Per-frame scores of another model, as npz files: reads them, and joins the halves of a match on its clock.

`1_scores.npz` and `2_scores.npz` (or `scores.npz` of an unsplit match) hold `frame_indexes` (N,), counted from the
start of the half, and `scores` (N, C). T: frames of the match, N: frames with a score, C: channels.
"""

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...events import TimeGrid
from ...files import read_bounded, read_json
from .importing import DERIVED, ImportMatch, ImportOptions, ImportSummary, SourceRows, import_matches
from .npy_tables import npz_members
from .request import FindFolders, ImportRequest, Progress, SourceFormat
from .tables import MAX_ROWS

WHOLE_NAME = "scores.npz"
HALF_NAMES = ("1_scores.npz", "2_scores.npz")
SCORE_NAMES = frozenset({WHOLE_NAME, *HALF_NAMES})
OFFSETS_NAME = "expected_mAP_at1.json"
"""The published file that names the offset of each game, where it lies at the root."""
_OFFSET_KEY, _OFFSET_MS_KEY = "half1_offset_frames", "half1_offset_ms"
_FRAMES = TimeGrid(Fraction(25))
"""Of SoccerNet's videos, in which offsets are counted."""
_MAX_FRAMES = MAX_ROWS
_MAX_MS = 24 * 3600 * 1000
_MAX_BYTES = 1 << 30
"""Of a file, as it is and unpacked: a day of 50 channels in float32."""
_KEYS = ("frame_indexes", "scores")


@dataclass(frozen=True)
class Scores:
    """One npz file."""

    frames: npt.NDArray[np.int64]
    """(N,) increasing, >= 0, counted from the start of the half (or match); N >= 1."""
    values: npt.NDArray[np.float16]
    """(N, C) finite."""
    file: Mapping[str, Any]
    """`name`, `bytes`, `sha256`."""

    @property
    def num_frames(self) -> int:
        """Length of the half: a window model loses the margin before the first index at the end as well."""
        first, last = int(self.frames[0]), int(self.frames[-1])
        return max(first + last, last + 1)


@dataclass(frozen=True)
class Offsets:
    """Row of frame 0 of the second half, of games where a file names it."""

    name: str = ""
    """The file's name."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """Game id, or the last part of it, -> offset."""
    ms: Mapping[str, int] = field(default_factory=dict)
    """The same in milliseconds, for features of other rates."""

    def find(self, match_id: str) -> int | None:
        """Offset of a match, None where the file does not name it."""
        return self.frames.get(match_id, self.frames.get(match_id.rsplit("/", 1)[-1]))

    def find_seconds(self, match_id: str) -> Fraction | None:
        """Offset of a match in seconds: milliseconds where they are named, else frames of a video of 25 a second."""
        ms, frames = self.ms.get(match_id, self.ms.get(match_id.rsplit("/", 1)[-1])), self.find(match_id)
        if ms is not None:
            return Fraction(ms, 1000)
        return None if frames is None else _FRAMES.seconds(frames)


def read_offsets(root: Path, file: Path | None, match_ids: Collection[str]) -> Offsets:
    """Offsets from `file`, else from `OFFSETS_NAME` at the root, else none.

    Args:
        root: folder of the matches.
        file: `{"games": {GAME: {"half1_offset_frames": N}}}`; GAME is a match id or the last part of one, and N may
            stand in the place of the object. `half1_offset_ms` is read as well, for features.
        match_ids: the matches at hand.

    Raises:
        InputError: the file cannot be used, or `file` names none of the matches.
    """
    path = file or root / OFFSETS_NAME
    if file is None and not path.is_file():
        return Offsets()
    document = read_json(path)
    games = document.get("games") if isinstance(document, Mapping) else None
    if not isinstance(games, Mapping):
        raise InputError(
            f"{path}: no offsets", got=type(games).__name__, wanted=f'{{"games": {{GAME: {{"{_OFFSET_KEY}": N}}}}}}'
        )
    entries = {game: entry.get(_OFFSET_KEY) if isinstance(entry, Mapping) else entry for game, entry in games.items()}
    found = {
        game: _offset(value, _MAX_FRAMES, f"{path}: {game}") for game, value in entries.items() if value is not None
    }
    in_ms = {game: entry.get(_OFFSET_MS_KEY) for game, entry in games.items() if isinstance(entry, Mapping)}
    found_ms = {game: _offset(value, _MAX_MS, f"{path}: {game}") for game, value in in_ms.items() if value is not None}
    offsets = Offsets(path.name, found, found_ms)
    if file is not None and not any(offsets.find_seconds(match_id) is not None for match_id in match_ids):
        got, wanted = ", ".join(sorted(found | found_ms)[:3]), ", ".join(sorted(match_ids)[:3])
        raise InputError(f"{path}: names no match at hand", got=got, wanted=wanted)
    return offsets


def _offset(value: object, limit: int, where: str) -> int:
    if type(value) is not int or not 1 <= value < limit:
        raise InputError(f"{where}: offset is not usable", got=repr(value)[:80], wanted="a whole number >= 1")
    return value


def import_scores(request: ImportRequest, find: FindFolders, on_progress: Progress) -> ImportSummary:
    """Import every folder of score files below a root. Raises InputError where nothing can be imported."""
    found = find(request.root, SCORE_NAMES, request.splits_file, ("Labels-ball.json",))
    offsets = read_offsets(request.root, request.offsets_file, [match.id for match in found.matches])
    return import_matches(
        found.matches,
        partial(load_scores, offsets=offsets),
        request.store,
        ImportOptions(kind="scores", model=request.model, fps=request.fps),
        classes=found.classes,
        on_progress=on_progress,
    )


def load_scores(match: ImportMatch, offsets: Offsets) -> SourceRows:
    """Scores of a match on its clock; what has no score is 0 and not valid.

    Raises:
        InputError: files are missing, damaged or do not fit each other, or the offset is neither known nor derivable.
    """
    there = [name for name in (WHOLE_NAME, *HALF_NAMES) if (match.folder / name).is_file()]
    if there == [WHOLE_NAME]:
        whole = read_scores(match.folder / WHOLE_NAME)
        rows, valid = place([(0, whole)], whole.num_frames)
        return SourceRows(rows=rows, valid=valid, files=(whole.file,))
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
    rows, valid = place([(0, first), (offset, second)], offset + second.num_frames)
    return SourceRows(
        rows=rows,
        valid=valid,
        files=(first.file, second.file),
        half1_offset_frames=offset,
        offset_from=offset_from,
    )


def choose_offset(match: ImportMatch, first: Scores, offsets: Offsets) -> tuple[int, str]:
    """Row of frame 0 of the second half, and where it is from: the offsets file, else first + last index of half 1.

    Raises:
        InputError: the second half would begin inside the first, or the model's margin is not known.
    """
    named, last = offsets.find(match.id), int(first.frames[-1])
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
            cure=f'--offsets FILE with {{"games": {{"{match.id}": {{"{_OFFSET_KEY}": N}}}}}}',
        )
    return first.num_frames, DERIVED


def place(parts: list[tuple[int, Scores]], num_frames: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Rows (T, C), 0 where no part has a score, and `valid` (T,).

    Args:
        parts: (row of its frame 0, scores); they do not overlap.
        num_frames: T.
    """
    rows = np.zeros((num_frames, parts[0][1].values.shape[1]), np.float16)
    valid = np.zeros(num_frames, bool)
    for offset, scores in parts:
        rows[offset + scores.frames] = scores.values
        valid[offset + scores.frames] = True
    return rows, valid


def read_scores(path: Path) -> Scores:
    """One npz file, checked. Executes nothing that is in it.

    Raises:
        InputError: not a zip, damaged, keys are missing, or the arrays cannot be used.
    """
    data = read_bounded(path, max_bytes=_MAX_BYTES)
    arrays = _read_npz(path, data)
    frames, values = (arrays[key] for key in _KEYS)
    if values.ndim != 2 or not values.size or values.dtype.kind != "f" or frames.shape != values.shape[:1]:
        raise InputError(
            f"{path}: arrays do not fit",
            got=f"frame_indexes {frames.dtype} {frames.shape}, scores {values.dtype} {values.shape}",
            wanted="whole numbers (N,) and floats (N, C), N and C >= 1",
        )
    _check_frames(path, frames)
    with np.errstate(over="ignore"):
        cast = values.astype(np.float16, copy=False)
    if not np.isfinite(cast).all():
        row, channel = (int(index) for index in np.argwhere(~np.isfinite(cast))[0])
        raise InputError(
            f"{path}: score of frame {frames[row]}, channel {channel} is not finite as float16",
            got=values[row, channel],
            wanted=f"a number within +-{np.finfo(np.float16).max}",
        )
    file = {"name": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return Scores(frames.astype(np.int64), cast, file)


def _read_npz(path: Path, data: bytes) -> dict[str, npt.NDArray[Any]]:
    npz_members(path, max_bytes=_MAX_BYTES)  # nothing is unpacked before
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            missing = [key for key in _KEYS if key not in file.files]
            if missing:
                raise InputError(
                    f"{path}: missing {' and '.join(missing)}", got=", ".join(file.files), wanted=" and ".join(_KEYS)
                )
            return {key: np.asarray(file[key]) for key in _KEYS}
    except InputError:
        raise
    except Exception as error:  # whatever zip, zlib and numpy say about damaged or hostile bytes
        raise InputError(f"{path}: damaged", got=repr(error)[:120], cure="fetch it again") from None


def _check_frames(path: Path, frames: npt.NDArray[Any]) -> None:
    wanted = f"whole numbers that increase, 0 to {_MAX_FRAMES - 1}"
    if frames.dtype.kind not in "iu":
        raise InputError(f"{path}: frame_indexes are not whole numbers", got=frames.dtype, wanted=wanted)
    if frames.min() < 0 or frames.max() >= _MAX_FRAMES:
        got = f"{frames.min()} to {frames.max()}"
        raise InputError(f"{path}: frame_indexes out of range", got=got, wanted=wanted)
    steps = np.diff(frames.astype(np.int64))
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0))
        got = f"{frames[row]}, {frames[row + 1]} at {row}"
        raise InputError(f"{path}: frame_indexes do not increase", got=got, wanted=wanted)


FORMAT = SourceFormat(
    "folders with 1_scores.npz and 2_scores.npz, or scores.npz (confidences per frame)",
    lambda _, names: not SCORE_NAMES.isdisjoint(names),
    import_scores,
    frozenset({"splits_file", "offsets_file"}),
)
