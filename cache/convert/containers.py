"""How the arrays of an exported match lie in files: NumPy files, or one HDF5 file. A new one is one entry below.

T: rows (frames of the grid), C: channels of a feature row.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..layout import FEATURES, PTS, VALID
from ..reduce.about import decoding
from .archived import ArchivedMatch, ArchiveRoot, Times
from .hdf5_tables import open_hdf5, read_vector
from .npy_tables import open_file, open_npy, read_header
from .tables import Table, TableOptions

Blocks = Callable[[str], Iterator[npt.NDArray[Any]]]
"""View -> its rows in order, (n, C) each."""
H5_NAME = "features.h5"
_TIMES_MS = "times_ms"
_VECTOR_KINDS = {PTS: "i8", VALID: "b1", _TIMES_MS: "f8"}


@dataclass(frozen=True)
class Container:
    """One way of keeping a match's arrays in a folder."""

    told: str
    """In a line, for the user."""
    write: Callable[[Path, ArchiveRoot, ArchivedMatch, Times, Blocks], None]
    """Into a folder that no reader sees yet; what it wrote is on the disk when it returns."""
    read: Callable[[Path, ArchivedMatch], tuple[dict[str, Table], Times]]
    """(view -> its rows, times); raises InputError for what cannot be used."""


def _write_npy(folder: Path, root: ArchiveRoot, match: ArchivedMatch, times: Times, blocks: Blocks) -> None:
    for view in match.views:
        if view == _TIMES_MS:
            raise InputError(f"view {view!r} cannot be a file beside {_TIMES_MS}.npy", cure="--format h5")
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(root.settings.dtype)),
            "fortran_order": False,
            "shape": (match.info.num_rows, root.settings.dim),
        }
        with (folder / f"{view}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks(view):
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            os.fsync(file.fileno())
    for name, values in ((PTS, times.pts), (VALID, times.valid), (_TIMES_MS, 1000 * times.seconds(match.info))):
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())


def _read_npy(folder: Path, match: ArchivedMatch) -> tuple[dict[str, Table], Times]:
    tables: dict[str, Table] = {view: open_npy(folder / f"{view}.npy", TableOptions()) for view in match.views}
    pts, valid = (_vector(folder / f"{name}.npy", name, match.info.num_rows) for name in (PTS, VALID))
    return tables, Times(pts, valid)


def _vector(path: Path, name: str, num_rows: int) -> npt.NDArray[Any]:
    """(T,) array of a small file, after its header was checked."""
    with open_file(path) as file:
        header = read_header(file, str(path))
        _check_vector(str(path), header.shape, header.dtype, name, num_rows)
        data = file.read(header.data_bytes + 1)
    if len(data) != header.data_bytes:
        raise InputError(f"{path}: its size does not fit its header", wanted=f"{header.data_bytes} bytes of values")
    return _of_bytes(np.frombuffer(data, np.uint8 if name == VALID else header.dtype), name, str(path))


def _check_vector(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, num_rows: int) -> None:
    kind = f"{dtype.kind}{dtype.itemsize}"
    if shape != (num_rows,) or kind not in (_VECTOR_KINDS[name], "u1" if name == VALID else ""):
        raise InputError(
            f"{where}: does not fit", got=f"{dtype} {shape}", wanted=f"{_VECTOR_KINDS[name]} ({num_rows},)"
        )


def _of_bytes(values: npt.NDArray[Any], name: str, where: str) -> npt.NDArray[Any]:
    """Flags as bool; anything but 0 and 1 among them is refused."""
    if name != VALID:
        return values
    if values.size and values.max() > 1:
        raise InputError(f"{where}: a flag is neither 0 nor 1", got=values.max())
    return values.astype(np.bool_)


def _write_h5(folder: Path, root: ArchiveRoot, match: ArchivedMatch, times: Times, blocks: Blocks) -> None:
    import h5py

    path, meta = folder / H5_NAME, match.info.meta
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {
                "match": match.info.id,
                "fps": str(meta.fps),
                "split": meta.split or "",
                "classes": json.dumps(list(root.classes), ensure_ascii=False),
                "settings_key": root.settings.key(),
                **{name: _attribute(value) for name, value in root.settings.to_json().items() if name != "fps"},
            }
        )
        if root.reduction is not None:
            file.attrs["decode"] = decoding(root.reduction)
            for name, values in zip(("scale", "offset"), root.reduction.levels or (), strict=False):
                file.create_dataset(name, data=values)  # as an attribute, 64 kB would be the most
        for view in match.views:
            shape = (match.info.num_rows, root.settings.dim)
            rows, start = file.create_dataset(f"{FEATURES}/{view}", shape, np.dtype(root.settings.dtype)), 0
            for block in blocks(view):
                rows[start : start + len(block)] = block
                start += len(block)
        file.create_dataset(PTS, data=times.pts).attrs.update(
            {"time_base": str(meta.time_base), "origin_ticks": str(meta.origin_ticks)}
        )
        file.create_dataset("times_seconds", data=times.seconds(match.info))
        file.create_dataset(VALID, data=times.valid.astype(np.uint8))
        if meta.labels is not None:
            records = [dict(record) for record in meta.labels]
            file.create_dataset("labels", data=json.dumps(records, ensure_ascii=False))
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _attribute(value: object) -> str | int | float | list[float]:
    """A setting as HDF5 can keep it."""
    return "" if value is None else cast("str | int | float | list[float]", value)


def _read_h5(folder: Path, match: ArchivedMatch) -> tuple[dict[str, Table], Times]:
    path = folder / H5_NAME
    tables: dict[str, Table] = {
        view: open_hdf5(path, TableOptions(dataset=f"{FEATURES}/{view}")) for view in match.views
    }
    pts, valid = (_h5_vector(path, name, match.info.num_rows) for name in (PTS, VALID))
    return tables, Times(pts, valid)


def _h5_vector(path: Path, name: str, num_rows: int) -> npt.NDArray[Any]:
    where = f"{path}, {name!r}"
    values = read_vector(path, name, lambda shape, dtype: _check_vector(where, shape, dtype, name, num_rows))
    return _of_bytes(values, name, where)


CONTAINERS: Mapping[str, Container] = {
    "npy": Container("VIEW.npy, pts.npy, times_ms.npy and valid.npy per match", _write_npy, _read_npy),
    "h5": Container("one features.h5 per match", _write_h5, _read_h5),
}
