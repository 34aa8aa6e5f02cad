"""Tables of features in .npy, .npz and HDF5 files, by numpy and h5py. Nothing is unpickled; sizes are bounded first.

T: rows, C: channels of a row.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..layout import MAX_CHANNELS

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
MAX_ROWS = 24 * 3600 * 60
"""A day at 60 rows a second; more is no match."""
_MAX_BYTES = 1 << 36
_MAX_MEMBER_BYTES = 8 << 30
"""A table in an npz file is unpacked into memory."""
_MAX_SHRINKING = 200
"""A file that claims to hold more than this many times its own bytes is taken for a zip bomb."""
_DTYPES = frozenset({"f2", "f4", "f8", "u1", "i1"})
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""HDF5's own and h5py's; any other would be loaded from a plug-in, which is code."""
_MAX_CHUNK_BYTES = 256 << 20
_MAX_NODES, _MAX_DEPTH = 100_000, 8


@dataclass(frozen=True)
class FeatureTable:
    """A table of features: checked, not read yet."""

    where: str
    """File, and the name of the table in it, for errors."""
    values: Any
    """(T, C), or (C, T) where `transpose`: an array, mapped array or HDF5 data set."""
    transpose: bool = False

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(T, C)."""
        first, second = self.values.shape
        return (second, first) if self.transpose else (first, second)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1 as stored, (n, C).

        Raises:
            InputError: the file is damaged.
        """
        with _telling_damage(self.where):
            return np.ascontiguousarray(self.values[:, start:stop].T if self.transpose else self.values[start:stop])


@contextmanager
def _telling_damage(where: object) -> Iterator[None]:
    """Turn whatever numpy, zip, zlib and HDF5 say about damaged or hostile bytes into one error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{where}: damaged, or not such a file", got=repr(error)[:120], cure="fetch it again"
        ) from None


def open_table(path: Path, *, dataset: str | None = None, transpose: bool = False) -> FeatureTable:
    """Open the table in a file with one of `SUFFIXES`.

    Args:
        path: the file.
        dataset: name of the table in an npz or HDF5 file; None: the only two-dimensional one.
        transpose: True where the file holds (C, T).

    Raises:
        InputError: unknown suffix, not such a file, no or several tables in it, a type or shape that is no features,
            or more than the file can hold.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        raise InputError(f"{path}: no known table", got=f"suffix {path.suffix!r}", wanted=" ".join(SUFFIXES))
    with _telling_damage(path):
        if suffix == ".npy":
            return _checked(str(path), np.load(path, mmap_mode="r", allow_pickle=False), transpose=transpose)
        if suffix == ".npz":
            return _open_npz(path, dataset, transpose=transpose)
        return _open_hdf5(path, dataset, transpose=transpose)


def table_names(path: Path) -> list[str]:
    """Names of the two-dimensional data sets of an HDF5 file, sorted. Raises InputError as `open_table`."""
    import h5py

    with _telling_damage(path), h5py.File(path, "r") as file:
        return sorted(name for name, _ in _data_sets(file, path))


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """Whole arrays of an npz file.

    Raises:
        InputError: not such a file, an array is missing, or it claims more than the file can hold.
    """
    with _telling_damage(path), zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file.files]
        if missing:
            got = ", ".join(file.files[:8])
            raise InputError(f"{path}: missing {' and '.join(missing)}", got=got, wanted=" and ".join(names))
        for name in names:
            _check_member(archive, f"{name}.npy", str(path))
        return {name: np.asarray(file[name]) for name in names}


def _checked(where: str, values: Any, *, transpose: bool) -> FeatureTable:
    """The table, where its type and shape are those of features."""
    shape, dtype = values.shape, values.dtype
    if f"{dtype.kind}{dtype.itemsize}" not in _DTYPES:
        raise InputError(f"{where}: not features", got=f"dtype {dtype}", wanted="float16, float32, float64 or uint8")
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"{where}: not a table of features", got=f"shape {shape}", wanted="(rows, channels)")
    table = FeatureTable(where, values, transpose)
    num_rows, num_channels = table.shape
    if num_rows > MAX_ROWS or num_channels > MAX_CHANNELS or num_rows * num_channels * dtype.itemsize > _MAX_BYTES:
        raise InputError(
            f"{where}: too large for one match",
            got=f"{num_rows:,} rows of {num_channels:,} channels",
            wanted=f"at most {MAX_ROWS:,} rows, {MAX_CHANNELS:,} channels and {_MAX_BYTES:,} bytes",
            cure="--transpose where the file has (channels, rows)",
        )
    return table


def _open_npz(path: Path, dataset: str | None, *, transpose: bool) -> FeatureTable:
    with zipfile.ZipFile(path) as archive:
        shapes = {name: _check_member(archive, name, str(path)) for name in archive.namelist() if name[-4:] == ".npy"}
    tables = [name.removesuffix(".npy") for name, shape in shapes.items() if len(shape) == 2]
    name = _one_of(tables, dataset, path)
    return _checked(f"{path}, {name!r}", read_npz(path, (name,))[name], transpose=transpose)


def _check_member(archive: zipfile.ZipFile, name: str, where: str) -> tuple[int, ...]:
    """Shape of an array in an npz file, by its header; refused where it claims more than is there."""
    member = archive.getinfo(name)
    _check_claim(f"{where}, {name!r}", member.file_size, member.compress_size)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)  # 3.0 has the header of 2.0, in UTF-8
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > member.file_size or member.file_size > _MAX_MEMBER_BYTES:
        got, wanted = f"{claimed:,} bytes in {member.file_size:,}", f"at most {_MAX_MEMBER_BYTES:,}"
        raise InputError(f"{where}, {name!r}: cannot be unpacked", got=got, wanted=wanted, cure="save it as .npy")
    return tuple(shape)


def _open_hdf5(path: Path, dataset: str | None, *, transpose: bool) -> FeatureTable:
    import h5py

    file = h5py.File(path, "r")  # closed with the last data set that refers to it
    found = dict(_data_sets(file, path))
    values = found[_one_of(list(found), dataset and dataset.strip("/"), path)]
    where = f"{path}, {values.name!r}"
    properties = values.id.get_create_plist()
    if values.is_virtual or values.external:
        raise InputError(f"{where}: its values lie in other files", wanted="values in the file itself")
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    unknown = [str(number) for number in filters if number not in _FILTERS]
    if unknown:
        raise InputError(f"{where}: filter is not allowed", got=", ".join(unknown), wanted=", ".join(_FILTERS.values()))
    chunk_bytes = math.prod(values.chunks or (0,)) * values.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES:
        got, wanted = f"{chunk_bytes:,} bytes", f"at most {_MAX_CHUNK_BYTES:,}"
        raise InputError(f"{where}: chunks are too large", got=got, wanted=wanted, cure="h5repack to smaller chunks")
    _check_claim(where, int(values.nbytes), int(values.id.get_storage_size()))
    return _checked(where, values, transpose=transpose)


def _data_sets(file: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """(name, data set) of everything two-dimensional that is reached by hard links: others lead to other files."""
    import h5py

    waiting, num_seen = [(file["/"], "")], 0
    while waiting:
        group, prefix = waiting.pop()
        for name in group:
            num_seen += 1
            if num_seen > _MAX_NODES or prefix.count("/") > _MAX_DEPTH:  # a group may hold itself
                raise InputError(f"{path}: too many groups, or nested too deep", got=f"{num_seen} so far")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                cure = "copy the data set into a file of its own (h5repack, h5copy)"
                raise InputError(f"{path}, {prefix + name!r}: a link", wanted="data sets in the file itself", cure=cure)
            node = group[name]
            if isinstance(node, h5py.Group):
                waiting.append((node, f"{prefix}{name}/"))
            elif node.ndim == 2:
                yield prefix + name, node


def _one_of(names: list[str], wanted: str | None, path: Path) -> str:
    name = wanted if wanted is not None else names[0] if len(names) == 1 else None
    if name is None or name not in names:
        raise InputError(
            f"{path}: " + ("no single two-dimensional table" if wanted is None else f"no table {wanted!r}"),
            got=", ".join(names[:8]) or "no table of two dimensions",
            cure="--dataset NAME says which",
        )
    return name


def _check_claim(where: str, claimed_bytes: int, stored_bytes: int) -> None:
    if claimed_bytes > _MAX_SHRINKING * stored_bytes + (1 << 20):  # a small file of zeros may shrink more
        raise InputError(
            f"{where}: claims more than it can hold",
            got=f"{claimed_bytes:,} bytes out of {stored_bytes:,}",
            wanted=f"at most {_MAX_SHRINKING} times as much",
            cure="do not trust this file; if it is right all the same, save it uncompressed",
        )
