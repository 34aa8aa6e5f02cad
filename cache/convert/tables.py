"""Tables of features in files of other programs: what they are, and what is believed of them.

T: rows, C: channels of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import InputError

MAX_ROWS = 24 * 3600 * 60
"""A day at 60 rows a second; more is no match."""
_MAX_CHANNELS = 1 << 16
_MAX_BYTES = 1 << 36
MAX_SHRINKING = 200
"""A file that claims to hold more than this many times its own bytes is taken for a lie."""
_FLOATS = frozenset({"f2", "f4", "f8"})
_WHOLE = frozenset({"u1", "i1"})
_BLOCK_BYTES = 32 << 20
_LEAST_BLOCK_ROWS = 256


class Table(Protocol):
    """A (T, C) table in a file; its header is checked, its values are not read yet."""

    where: str
    """File, and the name of the table in it, for errors."""
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1 as stored, (n, C), own memory.

        Raises:
            InputError: the file is damaged.
        """


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table lies in its file."""

    dataset: str | None = None
    """Its name in an npz or HDF5 file; None: the only two-dimensional one."""
    transpose: bool = False
    """True where the file has (C, T)."""


def check_table(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, transpose: bool) -> tuple[int, int]:
    """(T, C) of a table whose header says this shape and type.

    Raises:
        InputError: Python objects, not floats or bytes, not two-dimensional, empty, or absurdly large.
    """
    if dtype.hasobject:
        raise InputError(
            f"{where}: holds Python objects",
            got=f"dtype {dtype}",
            wanted="numbers; objects would have to be unpickled, which runs code",
            cure="save plain float32 arrays",
        )
    if f"{dtype.kind}{dtype.itemsize}" not in _FLOATS | _WHOLE:
        raise InputError(f"{where}: not features", got=f"dtype {dtype}", wanted="float16, float32, float64 or uint8")
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"{where}: not a table of features", got=f"shape {shape}", wanted="(rows, channels)")
    num_rows, num_channels = (shape[1], shape[0]) if transpose else (shape[0], shape[1])
    if num_rows > MAX_ROWS or num_channels > _MAX_CHANNELS or num_rows * num_channels * dtype.itemsize > _MAX_BYTES:
        raise InputError(
            f"{where}: too large for one match",
            got=f"{num_rows:,} rows of {num_channels:,} channels, {num_rows * num_channels * dtype.itemsize:,} bytes",
            wanted=f"at most {MAX_ROWS:,} rows, {_MAX_CHANNELS:,} channels and {_MAX_BYTES:,} bytes",
            cure="--transpose where the file has (channels, rows)",
        )
    return num_rows, num_channels


def check_claim(where: str, claimed_bytes: int, stored_bytes: int) -> None:
    """Refuse what claims to be far more than a file holds.

    Raises:
        InputError: more than `MAX_SHRINKING` times as much.
    """
    if claimed_bytes > MAX_SHRINKING * stored_bytes + (1 << 20):
        raise InputError(
            f"{where}: claims more than it can hold",
            got=f"{claimed_bytes:,} bytes out of {stored_bytes:,}",
            wanted=f"at most {MAX_SHRINKING} times as much",
            cure="do not trust this file; if it is right all the same, save it uncompressed",
        )


def block_rows(num_channels: int) -> int:
    """Rows that are read at once, a multiple of 256: about 32 MB as float64."""
    return max(_LEAST_BLOCK_ROWS, _BLOCK_BYTES // (8 * num_channels) // _LEAST_BLOCK_ROWS * _LEAST_BLOCK_ROWS)


def blocks(num_rows: int, num_channels: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks of a table."""
    step = block_rows(num_channels)
    for start in range(0, num_rows, step):
        yield start, min(num_rows, start + step)
