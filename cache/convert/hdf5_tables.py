"""Tables in HDF5 files. Only what lies in the file itself, through filters that h5py ships, in chunks of usual size.

T: rows, C: channels of a row.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .tables import TableOptions, check_claim, check_table

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""HDF5's own and h5py's; any other would be loaded from a plug-in."""
_MAX_CHUNK_BYTES = 256 << 20
_MAX_DEPTH = 8
_MAX_NODES = 100_000


class Hdf5Table:
    """A data set of an HDF5 file, or columns of it where it is transposed."""

    def __init__(self, file: Any, data_set: Any, *, where: str, transpose: bool) -> None:
        self.where, self.dtype = where, data_set.dtype
        self.shape = check_table(where, data_set.shape, data_set.dtype, transpose=transpose)
        _check_storage(data_set, where)
        self._data_set, self._transpose = data_set, transpose
        weakref.finalize(self, file.close)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """(n, C) as stored. Raises InputError where the file is damaged."""
        try:
            if self._transpose:
                return np.ascontiguousarray(self._data_set[:, start:stop].T)
            return np.asarray(self._data_set[start:stop])
        except Exception as error:  # whatever HDF5 says about damaged bytes
            raise InputError(f"{self.where}: damaged", got=repr(error)[:120], cure="fetch it again") from None


def open_hdf5(path: Path, options: TableOptions) -> Hdf5Table:
    """The data set named, or the only two-dimensional one. Raises InputError as `open_table`."""
    file = open_file(path)
    try:
        tables = dict(_tables(file, path))
        name = options.dataset
        if name is None and len(tables) == 1:
            name = next(iter(tables))
        found = tables.get(name.strip("/")) if name is not None else None
        if found is None:
            raise InputError(
                f"{path}: " + ("no single two-dimensional data set" if name is None else f"no data set {name!r}"),
                got=", ".join(list(tables)[:8]) or "no data set of two dimensions",
                cure="--dataset NAME says which",
            )
        return Hdf5Table(file, found, where=f"{path}, {found.name!r}", transpose=options.transpose)
    except Exception as error:  # InputError as it is; else whatever HDF5 says about damaged bytes
        file.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged", got=repr(error)[:120], cure="fetch it again") from None


def read_vector(path: Path, name: str, check: Callable[[tuple[int, ...], np.dtype[Any]], None]) -> npt.NDArray[Any]:
    """Whole (T,) data set at the root of a file.

    Args:
        path: the file.
        name: of the data set.
        check: raises InputError for a shape or type that is not wanted, before anything is read.

    Raises:
        InputError: missing, a link, stored elsewhere, or damaged.
    """
    import h5py

    with open_file(path) as file:
        try:
            link = file.get(name, getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise _a_link(path, name, link)
            data_set = file[name]
            check(data_set.shape, data_set.dtype)
            _check_storage(data_set, f"{path}, {name!r}")
            return np.asarray(data_set[:])
        except InputError:
            raise
        except Exception as error:  # as above
            raise InputError(f"{path}, {name!r}: damaged", got=repr(error)[:120], cure="fetch it again") from None


def table_names(path: Path) -> list[str]:
    """Names of the two-dimensional data sets of a file, in order. Raises InputError as `open_table`."""
    with open_file(path) as file:
        return sorted(name for name, _ in _tables(file, path))


def open_file(path: Path) -> Any:
    """An `h5py.File` for reading.

    Raises:
        InputError: not an HDF5 file, or it cannot be read.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a usable HDF5 file", got=str(error)[:120], cure="fetch it again") from None


def _tables(file: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """(name, data set) of everything two-dimensional that is reached by hard links.

    Raises:
        InputError: a link leads elsewhere, groups lie too deep or are too many, or the file is damaged.
    """
    import h5py

    waiting, num_seen = [(file["/"], "")], 0
    try:
        while waiting:
            group, prefix = waiting.pop()
            for name in group:
                link, num_seen = group.get(name, getlink=True), num_seen + 1
                if not isinstance(link, h5py.HardLink):
                    raise _a_link(path, prefix + name, link)
                node = group[name]
                if isinstance(node, h5py.Group):
                    if prefix.count("/") >= _MAX_DEPTH or num_seen > _MAX_NODES:
                        raise InputError(f"{path}: groups nested too deep, or too many", got=f"{num_seen} so far")
                    waiting.append((node, f"{prefix}{name}/"))
                elif isinstance(node, h5py.Dataset) and node.ndim == 2:
                    yield prefix + name, node
    except InputError:
        raise
    except Exception as error:  # as above
        raise InputError(f"{path}: damaged", got=repr(error)[:120], cure="fetch it again") from None


def _a_link(path: Path, name: str, link: Any) -> InputError:
    target = f"{getattr(link, 'filename', '')}:{getattr(link, 'path', '')}".strip(":")
    return InputError(
        f"{path}, {name!r}: a link",
        got=f"{type(link).__name__} to {target}"[:200],
        wanted="data sets that lie in the file itself",
        cure="copy the data set into a file of its own (h5repack, h5copy)",
    )


def _check_storage(data_set: Any, where: str) -> None:
    """Refuse values that lie elsewhere, filters from plug-ins, and chunks or sizes that take all memory."""
    properties = data_set.id.get_create_plist()
    if data_set.is_virtual or data_set.external:
        raise InputError(f"{where}: its values lie in other files", wanted="values in the file itself")
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    unknown = [str(number) for number in filters if number not in _FILTERS]
    if unknown:
        wanted = ", ".join(_FILTERS.values())
        raise InputError(f"{where}: filter is not allowed", got=", ".join(unknown), wanted=wanted)
    chunk_bytes = math.prod(data_set.chunks or (0,)) * data_set.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES:
        got, wanted = f"{chunk_bytes:,} bytes", f"at most {_MAX_CHUNK_BYTES:,}"
        raise InputError(f"{where}: chunks are too large", got=got, wanted=wanted, cure="h5repack to smaller chunks")
    check_claim(where, int(data_set.nbytes), int(data_set.id.get_storage_size()))
