"""Reading arrays of a store: rows are mapped from the shard that we write, small arrays are read whole.

T: rows (frames of the grid), C: channels of a feature row.
"""

import errno
import hashlib
import mmap
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import open_regular, read_bounded, read_json
from .layout import (
    DTYPES,
    MAX_CHANNELS,
    MAX_ROWS,
    METADATA,
    METADATA_BYTES,
    ShardLayout,
    inside,
    plain_metadata,
    same_layout,
    shard_layout,
    with_crc32c,
)


class MappedRows:
    """Rows of one view, (T, C), read straight from the mapped file; nothing is copied until it is used.

    The pages are read when first touched, and stay in the page cache. Cutting the file short while it is mapped kills
    the process (SIGBUS), as with any mapped file; the writer never does that to a finished match. It pickles as path
    and geometry: a spawned worker maps the file again, and checks its index again.
    """

    def __init__(self, path: Path, layout: ShardLayout) -> None:
        """Map a shard, which is no link, after checking its index against what the array's metadata says.

        Raises:
            InputError: missing, cut short, the index is damaged, or its chunks lie in another order than ours. Wrong
                rows are never served.
        """
        self.path, self.layout, self.dtype = path, layout, layout.dtype
        self.shape = (layout.num_rows, layout.num_channels)
        self._mapped = _map(path, layout)
        count = layout.num_rows * layout.num_channels  # without the padding and the index
        self._rows_tc: npt.NDArray[Any] = np.frombuffer(self._mapped, layout.dtype, count).reshape(self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedRows, (self.path, self.layout)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """(n, C) view of the mapped file, read-only; slices as in numpy."""
        return self._rows_tc[rows]

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n, C) copy of the rows at `indices`: (n,) whole numbers, 0..T-1, in any order."""
        return self._rows_tc.take(np.asarray(indices, np.intp), axis=0)

    def willneed(self, start: int, stop: int) -> None:
        """Ask the system to read rows start..stop-1 ahead, in the background; cheap where they are in memory."""
        if hasattr(mmap, "MADV_WILLNEED") and start < stop:
            begin = max(0, start) * self.layout.row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            end = min(stop, len(self)) * self.layout.row_bytes
            if begin < end:
                self._mapped.madvise(mmap.MADV_WILLNEED, begin, end - begin)


def _map(path: Path, layout: ShardLayout) -> mmap.mmap:
    try:
        handle = open_regular(path, follow=False)
    except OSError as error:
        cure = "raise the limit on open files (ulimit -n)" if error.errno == errno.EMFILE else None
        raise damaged(path, error.strerror or "cannot be opened", cure=cure) from None
    with os.fdopen(handle, "rb") as file:  # the mapping outlives it
        size, wanted = os.fstat(file.fileno()).st_size, f"{layout.file_bytes} bytes"
        index_bytes = layout.file_bytes - layout.num_chunks * layout.chunk_bytes
        if size < index_bytes:  # before an index is made or read: the metadata may lie about its length
            raise damaged(path, f"{size} bytes", wanted=wanted)
        file.seek(-index_bytes, os.SEEK_END)
        index = file.read(index_bytes)
        if index != with_crc32c(index[:-4]):
            raise damaged(path, "the shard index does not fit its checksum")
        if index != layout.index:
            raise not_ours(path, "chunks in another order")
        if size != layout.file_bytes:
            raise damaged(path, f"{size} bytes", wanted=wanted)
        # 3.13 need not keep a file descriptor open, which a store of 1,000 matches would run out of
        track: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **track)


def open_rows(root: Path, relative: str) -> MappedRows:
    """Open a (T, C) array, by the store's folder and the array's folder within it.

    Raises:
        InputError: no such array, damaged metadata or index, another layout than ours, or a link out of the store.
    """
    folder = inside(root, relative)
    layout = shard_layout(array_metadata(root, relative))
    if layout is None:
        raise not_ours(folder, "compressed or chunked otherwise")
    return MappedRows(inside(root, f"{relative}/c/0/0"), layout)


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
    if not same_layout(metadata, plain_metadata(shape[0], dtype, {})):
        raise not_ours(folder, "compressed or chunked otherwise")
    path, num_bytes = inside(root, f"{relative}/c/0"), shape[0] * dtype.itemsize
    try:
        data = read_bounded(path, max_bytes=num_bytes)
    except InputError as error:
        raise damaged(path, str(error.got), wanted=f"{num_bytes} bytes") from None
    if len(data) != num_bytes:
        raise damaged(path, f"{len(data)} bytes", wanted=f"{num_bytes} bytes")
    recorded = metadata["attributes"].get("sha256")
    if recorded is not None and recorded != hashlib.sha256(data).hexdigest():
        raise damaged(folder, "values do not fit their sha256")
    return np.frombuffer(data, dtype)


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


def damaged(path: Path, got: str, *, wanted: str | None = None, cure: str | None = None) -> InputError:
    """The error for a file of a match that must not be read."""
    return InputError(
        f"{path}: damaged",
        got=got,
        wanted=wanted,
        cure=cure or "run `bas cache verify` on the store, then delete this match's folder and extract it again",
    )


def not_ours(path: Path, got: str) -> InputError:
    """The error for an array that another program wrote: only the layout that can be mapped is read."""
    return InputError(
        f"{path}: not written by bas", got=got, wanted="an array as bas writes it", cure="bas cache import"
    )
