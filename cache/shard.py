"""One shard with all rows of a view: its geometry, its index with crc32c, and reading it by mapping the file.

T: rows (frames of the grid), C: channels of a feature row.
"""

import errno
import mmap
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import open_regular

CHUNK_ROWS = 256
"""Rows in one chunk; what is journalled is a multiple of it."""
MAX_ROWS, MAX_CHANNELS = 1 << 24, 1 << 16
"""Of a match: a week at 25 frames a second, and far more channels than any network has. More is a lie."""
MAX_CHUNK_ROWS = 1 << 16
"""Of a shard that we map."""
DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
"""Zarr's name of a data type -> how it lies in the file; what we read."""

_MISSING = 2**64 - 1


@dataclass(frozen=True)
class ShardLayout:
    """Geometry of one shard that holds all rows of a view: a raw matrix, then the index."""

    num_rows: int
    """T, >= 1."""
    num_channels: int
    """C, >= 1."""
    dtype: np.dtype[Any]
    """One of `DTYPES`."""
    chunk_rows: int = CHUNK_ROWS
    """Rows in one inner chunk."""

    @cached_property
    def num_chunks(self) -> int:
        """Inner chunks, the last one padded."""
        return -(-self.num_rows // self.chunk_rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.num_channels * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk."""
        return self.chunk_rows * self.row_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of the index with its checksum."""
        return 16 * self.num_chunks + 4

    @property
    def data_bytes(self) -> int:
        """Bytes of the rows without padding."""
        return self.num_rows * self.row_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole shard."""
        return self.num_chunks * self.chunk_bytes + self.index_bytes

    def tail(self) -> bytes:
        """What follows the rows: zeros up to a whole chunk, then (offset, size) per chunk as uint64, then crc32c."""
        offsets = np.arange(self.num_chunks, dtype="<u8") * self.chunk_bytes
        index = np.stack([offsets, np.full_like(offsets, self.chunk_bytes)], axis=1).tobytes()
        padding = bytes(self.num_chunks * self.chunk_bytes - self.data_bytes)
        return padding + index + int(google_crc32c.value(index)).to_bytes(4, "little")

    def index_is_ours(self, tail: bytes) -> bool:
        """Whether an intact index says that the chunks lie in order, without gaps, from the start of the file.

        Args:
            tail: the last `index_bytes` of the shard.

        Raises:
            ValueError: the checksum is wrong, or a chunk is said to have another size.
        """
        index, checksum = tail[:-4], int.from_bytes(tail[-4:], "little")
        if len(tail) != self.index_bytes or google_crc32c.value(index) != checksum:
            raise ValueError("the shard index does not fit its checksum")
        entries: npt.NDArray[np.uint64] = np.frombuffer(index, "<u8").reshape(-1, 2)
        present = entries[(entries != _MISSING).any(axis=1)]
        if (present[:, 1] != self.chunk_bytes).any():
            raise ValueError("the shard index names chunks of a wrong size")
        expected = np.arange(self.num_chunks, dtype="<u8") * self.chunk_bytes
        return len(present) == len(entries) and bool((entries[:, 0] == expected).all())


class MappedRows:
    """Rows of one view, read straight from the mapped file; nothing is copied until it is used.

    The pages are read when first touched, and stay in the page cache. Cutting the file short while it is mapped kills
    the process (SIGBUS), as with any mapped file; the writer never does that to a finished match.
    """

    is_mapped = True
    """Whether slices are views of a mapped file (no copy)."""

    def __init__(self, layout: ShardLayout, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._row_bytes = layout.row_bytes
        self.array: npt.NDArray[Any] = np.frombuffer(
            mapped, layout.dtype, count=layout.num_rows * layout.num_channels
        ).reshape(layout.num_rows, layout.num_channels)
        """(T, C), read-only view of the mapped file."""
        self.shape: tuple[int, int] = (layout.num_rows, layout.num_channels)
        self.dtype = layout.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """(n, C) view of the mapped file, read-only; slices as in numpy."""
        return self.array[rows]

    def take(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """Copy of rows in any order.

        Args:
            indices: (n,) whole numbers, 0..T-1.

        Returns:
            (n, C), own memory.
        """
        return self.array.take(np.asarray(indices, np.intp), axis=0)

    def willneed(self, start: int, stop: int) -> None:
        """Ask the system to read rows start..stop-1 ahead, in the background; cheap where they are in memory."""
        if hasattr(mmap, "MADV_WILLNEED") and start < stop:
            begin = max(0, start) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            end = min(stop, len(self)) * self._row_bytes
            if begin < end:
                self._mapped.madvise(mmap.MADV_WILLNEED, begin, end - begin)


def map_shard(path: Path, layout: ShardLayout) -> MappedRows | None:
    """Map a shard after checking it against its index; None where its chunks lie in another order or are left out.

    Args:
        path: the shard's file; not a link.
        layout: what the array's metadata says.

    Raises:
        InputError: missing, cut short, or the index is damaged. Wrong rows are never served.
    """
    try:
        handle = open_regular(path, follow=False)
    except OSError as error:
        cure = "raise the limit on open files (ulimit -n)" if error.errno == errno.EMFILE else None
        raise damaged(path, error.strerror or "cannot be opened", cure=cure) from None
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < layout.index_bytes:  # before so much is read: the metadata may lie
            raise damaged(path, f"{size} bytes", wanted=f"{layout.file_bytes} bytes")
        file.seek(size - layout.index_bytes)
        tail = file.read(layout.index_bytes)
        try:
            in_order = layout.index_is_ours(tail)
        except ValueError as error:
            raise damaged(path, str(error)) from None
        if not in_order:
            return None
        if size != layout.file_bytes:
            raise damaged(path, f"{size} bytes", wanted=f"{layout.file_bytes} bytes")
        return MappedRows(layout, _map(file.fileno()))


def _map(handle: int) -> mmap.mmap:
    """The whole file, read-only; without keeping a file descriptor where Python can (3.13)."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(handle, 0, access=mmap.ACCESS_READ, trackfd=False)
    return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)


def damaged(path: Path, got: str, *, wanted: str | None = None, cure: str | None = None) -> InputError:
    """The error for a file of a match that must not be read."""
    return InputError(
        f"{path}: damaged",
        got=got,
        wanted=wanted,
        cure=cure or "run `bas cache verify` on the store, then delete this match's folder and extract it again",
    )
