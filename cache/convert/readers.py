"""Tables of features by the suffix of their file: read in blocks, never trusted, nothing unpickled."""

from collections.abc import Callable
from pathlib import Path

from ...errors import InputError
from .hdf5_tables import open_hdf5
from .npy_tables import open_npy, open_npz
from .tables import Table, TableOptions

READERS: dict[str, Callable[[Path, TableOptions], Table]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
}
"""Suffix -> what opens such a file."""


def open_table(path: Path, options: TableOptions) -> Table:
    """Check the header of a table.

    Raises:
        InputError: unknown suffix, not such a file, no or several tables in it, a type or shape that is no features,
            or more than the file can hold.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: no known table", got=f"suffix {path.suffix!r}", wanted=" ".join(READERS))
    return reader(path, options)
