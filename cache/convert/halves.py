"""SoccerNet's features: `1_NAME.npy` and `2_NAME.npy` per game, a table of one row per step for each half.

T: rows, C: channels of a row.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from ...errors import InputError
from ...events import TimeGrid
from .importing import DERIVED, ImportMatch, ImportOptions, ImportSummary, SourceRows, import_matches, on_match_clock
from .placed import HashedFiles, PlacedRows, with_last_label
from .readers import open_table
from .request import FindFolders, ImportRequest, Progress, SourceFormat, files_below, name_list, seconds_option
from .score_files import Offsets, read_offsets
from .tables import Table, TableOptions

_HALF_FILE = re.compile(r"([12])_(?!scores\.npz$)(.+)\.(?:npy|npz|h5|hdf5)", re.IGNORECASE)
_RATE_IN_NAME = re.compile(r"(?:^|_)(\d+)fps(?:_|$)", re.IGNORECASE)
_RATES = {"resnet": "2", "baidu_soccer_embeddings": "1", "c3d": "2", "i3d": "2"}
"""How a NAME begins -> rows a second, as SoccerNet publishes them."""
_LABEL_NAMES = ("Labels-ball.json", "Labels-v2.json")
_OVERLAP_ROWS = 2
"""A half may end in a part of a step: so many rows of half 1 may reach into half 2, which wins."""


@dataclass(frozen=True, kw_only=True)
class HalvesOptions:
    """How the two files of each game are read and joined."""

    features: str
    """NAME of `1_NAME.npy`."""
    grid: TimeGrid
    """Rows a second."""
    offsets: Offsets
    """Where second halves begin, of games where a file says so."""
    offset_seconds: Fraction | None
    """Where every second half begins; None: by `offsets`, else derived."""
    table: TableOptions


def import_halves(request: ImportRequest, find: FindFolders, on_progress: Progress) -> ImportSummary:
    """Import every folder with `1_NAME.*` and `2_NAME.*`.

    Raises:
        InputError: several NAMEs and none chosen, the rate is not known, or nothing can be imported.
    """
    names = {path.name for path in files_below(request.root)}
    features = choose_features(names, request.features)
    wanted = {name for name in names if _name_of(name) == features}
    labels = (request.labels,) if request.labels else _LABEL_NAMES
    found = find(request.root, wanted, request.splits_file, labels)
    if request.labels and all(match.events is None for match in found.matches):
        raise InputError(f"{request.root}: no {request.labels} in any match's folder", cure="leave out --labels")
    fps = request.fps or known_rate(features) or request.stored_fps
    if fps is None:
        raise InputError(
            f"the rate of {features} is not known",
            got="no --fps",
            cure="--fps 2 where the files have two rows a second",
        )
    options = HalvesOptions(
        features=features,
        grid=TimeGrid.parse(fps),
        offsets=read_offsets(request.root, request.offsets_file, [match.id for match in found.matches]),
        offset_seconds=None if request.offset_seconds is None else seconds_option("offset", request.offset_seconds),
        table=request.table,
    )
    model = request.model or (features if request.stored_fps is None else None)
    return import_matches(
        found.matches,
        partial(load_halves, options=options),
        request.store,
        ImportOptions(kind="features", model=model, fps=fps),
        classes=found.classes,
        on_progress=on_progress,
    )


def choose_features(names: Collection[str], wanted: str | None) -> str:
    """NAME to import.

    Raises:
        InputError: none or several, or not the one wanted.
    """
    there = {name for name in map(_name_of, names) if name}
    if wanted in there:
        return wanted
    if wanted is not None or len(there) != 1:
        raise InputError(
            f"no features {wanted!r}" if wanted else "several features in these folders" if there else "no features",
            got=name_list(there) or "no 1_NAME.npy",
            wanted="one NAME of 1_NAME.npy and 2_NAME.npy",
            cure=f"--features {min(there)}" if there else "",
        )
    return there.pop()


def known_rate(features: str) -> str | None:
    """Rows a second of features that are known by name; None: not known."""
    if stated := _RATE_IN_NAME.search(features):
        return stated[1]
    return next((rate for start, rate in _RATES.items() if features.lower().startswith(start)), None)


def load_halves(match: ImportMatch, options: HalvesOptions) -> SourceRows:
    """Both halves of a game on its clock.

    Raises:
        InputError: a file is missing or cannot be used, the halves differ in channels, or half 2 would begin inside
            half 1.
    """
    paths = [_file_of_half(match.folder, half, options.features) for half in (1, 2)]
    first, second = (open_table(path, options.table) for path in paths)
    if first.shape[1] != second.shape[1]:
        got = f"{first.shape[1]} and {second.shape[1]}"
        raise InputError(f"{match.folder}: the halves differ in channels", got=got, wanted="halves of one model")
    start, start_from, missed = _second_start(match, first, options)
    events = on_match_clock(match.events or (), options.grid, start)
    rows = PlacedRows(((0, first), (start, second)), with_last_label(events, start + second.shape[0], options.grid))
    return SourceRows(
        rows=rows,
        valid=rows.valid(),
        files=HashedFiles(paths),
        half1_offset_frames=start,
        offset_from=start_from,
        about={} if missed is None else {"half2_later_ms": float(1000 * missed)},
    )


def _second_start(match: ImportMatch, first: Table, options: HalvesOptions) -> tuple[int, str, Fraction | None]:
    """(row at which half 2 begins, where that is from, seconds by which the row lies before the instant named)."""
    num_rows, named = first.shape[0], options.offset_seconds
    where = "--offset" if named is not None else options.offsets.name
    if named is None:
        named = options.offsets.find_seconds(match.id)
    if named is None:
        per_half = any(event.half == 2 for event in match.events or ())
        events = [event for event in match.events or () if per_half and event.half == 1]
        return with_last_label(events, num_rows, options.grid), DERIVED, None
    row = options.grid.nearest(named)
    if row < num_rows - _OVERLAP_ROWS or row < 1:
        raise InputError(
            f"{match.id}: the second half would begin inside the first",
            got=f"{float(named):g} s ({where}) is row {row}; half 1 has {num_rows} rows",
            wanted=f"at least {float(options.grid.seconds(num_rows)):g} s",
            cure="make sure that --fps is the rate of these features",
        )
    return row, where, named - options.grid.seconds(row)


def _file_of_half(folder: Path, half: int, features: str) -> Path:
    there = [path for path in sorted(folder.iterdir()) if path.is_file() and _name_of(path.name) == features]
    found = [path for path in there if path.name.startswith(f"{half}_")]
    if len(found) != 1:
        raise InputError(
            f"{folder}: half {half} of {features} is {'there more than once' if found else 'missing'}",
            got=", ".join(path.name for path in there) or "no such file",
            wanted=f"one file 1_{features}.* and one 2_{features}.*",
        )
    return found[0]


def _name_of(file_name: str) -> str:
    """NAME of `1_NAME.npy`; empty for any other file."""
    known = _HALF_FILE.fullmatch(file_name)
    return known[2] if known else ""


FORMAT = SourceFormat(
    "folders with 1_NAME.npy and 2_NAME.npy (SoccerNet's ResNET and Baidu features)",
    lambda _, names: any(map(_name_of, names)),
    import_halves,
    frozenset({"splits_file", "labels", "features", "offsets_file", "offset_seconds", "dataset", "transpose"}),
)
