"""SoccerNet's features: `1_NAME.npy` and `2_NAME.npy` per game, a table of one row per step for each half."""

import re
from collections.abc import Collection
from pathlib import Path

from ...errors import InputError
from ...events import TimeGrid
from .importing import (
    DERIVED,
    FindFolders,
    ImportOptions,
    ImportSource,
    SourceMatch,
    SourceRows,
    events_of_rows,
    files_below,
    name_list,
    with_last_label,
)
from .offsets import read_offsets
from .tables import open_table

# scores.npz is of another kind of source, which may lie beside the features
_HALF_FILE = re.compile(r"([12])_(?!scores\.npz$)(.+)\.(?:npy|npz|h5|hdf5)", re.IGNORECASE)
_RATE_IN_NAME = re.compile(r"(?:^|_)(\d+)fps(?:_|$)", re.IGNORECASE)
_RATES = {"resnet": "2", "baidu_soccer_embeddings": "1", "c3d": "2", "i3d": "2"}
"""How a NAME begins -> rows a second, as SoccerNet publishes them."""
_LABEL_NAMES = ("Labels-ball.json", "Labels-v2.json")
_OVERLAP_ROWS = 2
"""A half may end in a part of a step: so many rows of half 1 may reach into half 2, which wins."""


DESCRIPTION = "folders with 1_NAME.npy and 2_NAME.npy (SoccerNet's ResNET and Baidu features)"
OPTIONS = frozenset({"split_file", "labels", "features", "offsets", "offset", "dataset", "transpose"})


def is_here(names: Collection[str]) -> bool:
    """Whether files of these names are of this kind."""
    return any(map(_name_of, names))


def find(root: Path, options: ImportOptions, find_folders: FindFolders, stored_fps: str | None) -> ImportSource:
    """Find every folder with `1_NAME.*` and `2_NAME.*`.

    Raises:
        InputError: several NAMEs and none chosen, or the rate is not known.
    """
    names = {path.name for path in files_below(root)}
    features = choose_features(names, options.features)
    labels = (options.labels,) if options.labels else _LABEL_NAMES
    wanted = {name for name in names if _name_of(name) == features}
    matches, classes = find_folders(root, wanted, options.split_file, labels)
    if options.labels and all(match.events is None for match in matches):
        raise InputError(f"{root}: no {options.labels} in any match's folder", cure="leave out --labels")
    fps = options.fps or known_rate(features) or stored_fps
    if fps is None:
        cure = "--fps 2 where the files have two rows a second"
        raise InputError(f"the rate of {features} is not known", got="no --fps", cure=cure)
    grid = TimeGrid.parse(fps)
    offsets = read_offsets(root, options.offsets, [match.id for match in matches])

    def load(match: SourceMatch) -> SourceRows:
        """Both halves of a game on its clock."""
        paths = [_file_of_half(match.folder, half, features) for half in (1, 2)]
        tables = [open_table(path, dataset=options.dataset, transpose=options.transpose) for path in paths]
        (num_first, num_channels), (num_second, others) = (table.shape for table in tables)
        if num_channels != others:
            got = f"{num_channels} and {others}"
            raise InputError(f"{match.folder}: the halves differ in channels", got=got, wanted="halves of one model")
        named, start_from = options.offset_seconds, "--offset"
        if named is None:
            named, start_from = offsets.seconds(match.id), offsets.name
        if named is None:
            per_half = any(event.half == 2 for event in match.events or ())
            events = [event for event in match.events or () if per_half and event.half == 1]
            start, start_from = with_last_label(events, num_first, grid), DERIVED
        else:
            start = grid.nearest(named)
            if start < max(1, num_first - _OVERLAP_ROWS):
                raise InputError(
                    f"{match.id}: the second half would begin inside the first",
                    got=f"{float(named):g} s is row {start}; half 1 has {num_first} rows",
                    wanted=f"at least {float(grid.seconds(num_first)):g} s",
                    cure="make sure that --fps is the rate of these features",
                )
        events = events_of_rows(match, grid, start)
        return SourceRows(
            parts=((0, tables[0]), (start, tables[1])),
            num_rows=with_last_label(events, start + num_second, grid),
            paths=paths,
            half1_offset_frames=start,
            offset_from=start_from,
            about={} if named is None else {"half2_later_ms": float(1000 * (named - grid.seconds(start)))},
        )

    return ImportSource(
        kind="features", matches=matches, load=load, classes=classes, fps=fps, model=None if stored_fps else features
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
