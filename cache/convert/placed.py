"""Rows of source tables placed on a match's clock, as float16.

T: rows of the match, C: channels, n: rows of one table or slice.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...events import Event, TimeGrid
from ..writer import cast_rows
from .npy_tables import open_file
from .tables import Table

_FLOAT16 = np.dtype("<f2")


@dataclass(frozen=True)
class PlacedRows:
    """Tables one after another, or over another (the later one wins); rows without a table are 0."""

    parts: Sequence[tuple[int, Table]]
    """(row of the match at which its first row stands, table); all of the same C, at least one."""
    num_rows: int
    """T; what lies behind it is left out."""

    @property
    def shape(self) -> tuple[int, int]:
        """(T, C)."""
        return self.num_rows, self.parts[0][1].shape[1]

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float16]:
        """(n, C), own memory; steps of 1 only.

        Raises:
            InputError: a table is damaged, or a value is not finite as float16 (names file, row and channel).
        """
        start, stop, _ = rows.indices(self.num_rows)
        made = np.zeros((max(0, stop - start), self.shape[1]), _FLOAT16)
        for first_row, table in self.parts:
            begin, end = max(start, first_row), min(stop, first_row + table.shape[0])
            if begin < end:
                made[begin - start : end - start] = _read(table, begin - first_row, end - first_row)
        return made

    def valid(self) -> npt.NDArray[np.bool_]:
        """(T,) True where a table has the row."""
        flags = np.zeros(self.num_rows, bool)
        for first_row, table in self.parts:
            flags[first_row : first_row + table.shape[0]] = True
        return flags


def with_last_label(events: Iterable[Event], num_rows: int, grid: TimeGrid) -> int:
    """`num_rows`; more where the last label lies up to a second after them, since files may leave out a last part.

    Args:
        events: on the clock of the rows.
        num_rows: rows that there are.
        grid: of the rows.
    """
    needed = max((grid.frame(event.position_ms) + 1 for event in events), default=0)
    return needed if num_rows < needed <= num_rows + max(1, grid.frame(1000)) else num_rows


def _read(table: Table, start: int, stop: int) -> npt.NDArray[Any]:
    values = table.read(start, stop)
    if values.dtype.kind in "iu":  # one byte each: exact
        values = values.astype(_FLOAT16)
    return cast_rows(values, values.shape, _FLOAT16, where=table.where, first_row=start)


@dataclass(frozen=True)
class HashedFiles:
    """`name`, `bytes` and `sha256` of source files, read when they are asked for; InputError where one is gone."""

    paths: Sequence[Path]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self.paths:
            with open_file(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
