"""Reading arrays of a store: mapped where the layout is ours, through zarr where it is not.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import read_bounded, read_json
from .foreign import check_foreign, open_zarr
from .layout import METADATA, METADATA_BYTES, inside, plain_metadata, same_layout, shard_layout
from .shard import DTYPES, MAX_CHANNELS, MAX_ROWS, damaged, map_shard


class Rows(Protocol):
    """Rows of one view: (T, C), whatever the layout below."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    is_mapped: bool

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """(n, C) rows; a view of the mapped file where `is_mapped`, else a copy."""

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n, C) copy of the rows at `indices` (0..T-1, any order)."""

    def willneed(self, start: int, stop: int) -> None:
        """Ask for rows start..stop-1 to be read ahead; a hint, never an error."""


class ZarrRows:
    """Rows of an array in another layout, read by zarr-python: 10 to 50 times slower than mapped rows."""

    is_mapped = False

    def __init__(self, folder: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self._folder = shape, dtype, folder
        self._array = open_zarr(folder)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """(n, C) copy of the rows; slices as in numpy."""
        start, stop, step = rows.indices(len(self))
        return self._read(slice(start, max(start, stop)))[::step] if step > 0 else self.take(range(start, stop, step))

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n, C) copy of the rows at `indices` (0..T-1, any order)."""
        wanted = np.asarray(indices, np.intp)
        if wanted.size and not (-len(self) <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} of {len(self)}")
        distinct, position = np.unique(wanted, return_inverse=True)
        return self._read(distinct)[position] if wanted.size else np.empty((0, self.shape[1]), self.dtype)

    def willneed(self, start: int, stop: int) -> None:
        """Does nothing here."""

    def _read(self, rows: Any) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._array.oindex[rows, :], self.dtype)
        except Exception as error:  # whatever a codec says about damaged bytes
            raise damaged(self._folder, f"zarr cannot read it: {error!r}"[:200]) from error


def open_rows(root: Path, relative: str) -> Rows:
    """Open a (T, C) array of a store.

    Args:
        root: the store's folder.
        relative: the array's folder within it.

    Raises:
        InputError: no such array, damaged metadata or index, a codec or type that we do not
            read, or a link out of the store.
    """
    folder = inside(root, relative)
    metadata = array_metadata(root, relative)
    layout = shard_layout(metadata)
    if layout is not None:
        mapped = map_shard(inside(root, f"{relative}/c/0/0"), layout)
        if mapped is not None:
            return mapped
    shape = metadata["shape"]
    if len(shape) != 2:
        raise InputError(f"{folder}: not a table of features", got=f"shape {shape}", wanted="(rows, channels)")
    check_foreign(root, folder, metadata)
    return ZarrRows(folder, (shape[0], shape[1]), DTYPES[metadata["data_type"]])


def read_plain(root: Path, relative: str) -> npt.NDArray[Any]:
    """Whole (T,) array, checked against its sha256 where it has one.

    Raises:
        InputError: as `open_rows`, or the values do not fit their hash.
    """
    folder = inside(root, relative)
    metadata = array_metadata(root, relative)
    shape, dtype = metadata["shape"], DTYPES[metadata["data_type"]]
    if len(shape) != 1:
        raise InputError(f"{folder}: not one value per row", got=f"shape {shape}", wanted="(rows,)")
    if same_layout(metadata, plain_metadata(shape[0], dtype, {})):
        path = inside(root, f"{relative}/c/0")
        try:
            data = read_bounded(path, max_bytes=shape[0] * dtype.itemsize)
        except InputError as error:
            raise damaged(path, str(error.got), wanted=f"{shape[0] * dtype.itemsize} bytes") from None
        if len(data) != shape[0] * dtype.itemsize:
            raise damaged(path, f"{len(data)} bytes", wanted=f"{shape[0] * dtype.itemsize} bytes")
        values = np.frombuffer(data, dtype)
    else:
        check_foreign(root, folder, metadata)
        try:
            values = np.asarray(open_zarr(folder)[:], dtype)
        except Exception as error:  # whatever a codec says about damaged bytes
            raise damaged(folder, f"zarr cannot read it: {error!r}"[:200]) from error
    recorded = metadata["attributes"].get("sha256")
    if recorded is not None and recorded != hashlib.sha256(values.tobytes()).hexdigest():
        raise damaged(folder, "values do not fit their sha256")
    return values


def first_not_finite(values: npt.NDArray[Any]) -> int:
    """Index of the first row (n, C) that holds NaN or Inf; -1 where there is none.

    For float16 by its bits: 4 times as fast as numpy's isfinite.
    """
    if values.dtype == np.float16 and values.flags.c_contiguous:
        bits = values.view(np.uint16) & np.uint16(0x7FFF)
        if not bits.size or bits.max() < 0x7C00:  # an exponent of all ones: Inf, NaN
            return -1
    finite = np.isfinite(values).all(axis=1)
    return -1 if finite.all() else int(np.argmin(finite))


def array_metadata(root: Path, relative: str) -> dict[str, Any]:
    """`zarr.json` of an array, with a usable `shape`, a `data_type` of `DTYPES` and a mapping `attributes`.

    Raises:
        InputError: missing, damaged, not an array, or a data type that we do not read.
    """
    path = inside(root, f"{relative}/{METADATA}")
    metadata = read_json(path, max_bytes=METADATA_BYTES)
    if not isinstance(metadata, dict) or metadata.get("node_type") != "array" or metadata.get("zarr_format") != 3:
        raise damaged(path, "not a Zarr v3 array")
    shape = metadata.get("shape")
    if not isinstance(shape, list) or len(shape) > 2 or not all(type(size) is int and size >= 0 for size in shape):
        raise damaged(path, f"shape {shape!r}"[:80])
    if any(size > most for size, most in zip(shape, (MAX_ROWS, MAX_CHANNELS), strict=False)):
        raise damaged(path, f"shape {shape!r}"[:80], wanted=f"at most {MAX_ROWS} rows of {MAX_CHANNELS} channels")
    data_type = metadata.get("data_type")
    if not isinstance(data_type, str) or data_type not in DTYPES:
        raise InputError(f"{path}: data type is not known", got=repr(data_type)[:80], wanted=", ".join(DTYPES))
    if not isinstance(metadata.setdefault("attributes", {}), dict):
        raise damaged(path, "attributes are not an object")
    return metadata
