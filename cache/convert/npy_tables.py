"""Tables in .npy and .npz files. Headers are parsed before anything is allocated; pickled objects are refused.

T: rows, C: channels of a row.
"""

import io
import os
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...files import disk_errors
from .tables import TableOptions, check_claim, check_table

_MAX_HEADER_BYTES = 10_000
_PREFIX_BYTES = 12
"""Magic, version and the longer form of the header's length."""
_MAX_MEMBERS = 1000
_COPY_BYTES = 1 << 20
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclass(frozen=True)
class NpyHeader:
    """What an npy file says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    num_bytes: int
    """Bytes before the first value."""

    @property
    def data_bytes(self) -> int:
        """Bytes of all values, in whole numbers without overflow."""
        num_values = 1
        for size in self.shape:
            num_values *= size
        return num_values * self.dtype.itemsize


def read_header(file: IO[bytes], where: str) -> NpyHeader:
    """Header of an npy file, from its first byte on.

    Raises:
        InputError: not an npy file, or the header is damaged or of an unknown version.
    """
    prefix = file.read(_PREFIX_BYTES)
    version = tuple(prefix[6:8])
    if prefix[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)):
        raise InputError(f"{where}: not an npy file", got=repr(prefix[:8]), wanted="version 1.0 or 2.0 of numpy's .npy")
    size_bytes = 2 if version == (1, 0) else 4
    length = int.from_bytes(prefix[8 : 8 + size_bytes], "little")
    if length > _MAX_HEADER_BYTES:
        raise InputError(f"{where}: header is too long", got=f"{length:,} bytes", wanted=f"<= {_MAX_HEADER_BYTES:,}")
    text = prefix + file.read(max(0, 8 + size_bytes + length - len(prefix)))
    read = np.lib.format.read_array_header_1_0 if size_bytes == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(io.BytesIO(text[8:]), max_header_size=_MAX_HEADER_BYTES)
    except Exception as error:  # numpy parses it as a Python literal, which fails in many ways
        raise InputError(f"{where}: header is damaged", got=repr(error)[:120], cure="fetch it again") from None
    if any(type(size) is not int or size < 0 for size in shape):
        raise InputError(f"{where}: header is damaged", got=f"shape {shape}"[:120], cure="fetch it again")
    return NpyHeader(shape, dtype, fortran_order, 8 + size_bytes + length)


class NpyTable:
    """A table within a file, read by position: row after row, or channel after channel."""

    def __init__(self, file: IO[bytes], header: NpyHeader, *, start_bytes: int, where: str, transpose: bool) -> None:
        self.where, self.dtype = where, header.dtype
        self.shape = check_table(where, header.shape, header.dtype, transpose=transpose)
        self._file, self._start_bytes = file, start_bytes + header.num_bytes
        self._by_rows = header.fortran_order == transpose
        weakref.finalize(self, file.close)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """(n, C) as stored. Raises InputError where the file ends early."""
        num_rows, num_channels = self.shape
        if self._by_rows:
            values = self._values(start * num_channels, (stop - start) * num_channels)
            return values.reshape(stop - start, num_channels)
        table = np.empty((stop - start, num_channels), self.dtype)
        for channel in range(num_channels):
            table[:, channel] = self._values(channel * num_rows + start, stop - start)
        return table

    def _values(self, first: int, count: int) -> npt.NDArray[Any]:
        num_bytes = count * self.dtype.itemsize
        data = os.pread(self._file.fileno(), num_bytes, self._start_bytes + first * self.dtype.itemsize)
        if len(data) != num_bytes:
            raise InputError(f"{self.where}: cut short while it was read", cure="fetch it again")
        return np.frombuffer(data, self.dtype)


def open_npy(path: Path, options: TableOptions) -> NpyTable:
    """A table in an .npy file. Raises InputError as `open_table`."""
    file = open_file(path)
    try:
        header = read_header(file, str(path))
        table = NpyTable(file, header, start_bytes=0, where=str(path), transpose=options.transpose)
        size = os.fstat(file.fileno()).st_size
        if size != header.num_bytes + header.data_bytes:
            raise InputError(
                f"{path}: its size does not fit its header",
                got=f"{size:,} bytes",
                wanted=f"{header.num_bytes + header.data_bytes:,} bytes for {header.dtype} {header.shape}",
                cure="fetch it again",
            )
    except BaseException:
        file.close()
        raise
    return table


class NpzTable:
    """A table in a zip file. When first read, its checksum is verified, and what is compressed unpacked to a file."""

    def __init__(self, path: Path, member: zipfile.ZipInfo, header: NpyHeader, *, transpose: bool) -> None:
        self.where, self.dtype = _where(path, member), header.dtype
        self.shape = check_table(self.where, header.shape, header.dtype, transpose=transpose)
        self._path, self._member, self._header, self._transpose = path, member, header, transpose
        self._table: NpyTable | None = None
        if member.file_size != header.num_bytes + header.data_bytes:
            got, wanted = f"{member.file_size:,} bytes", f"{header.num_bytes + header.data_bytes:,} bytes"
            raise InputError(f"{self.where}: its size does not fit its header", got=got, wanted=wanted)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """(n, C) as stored. Raises InputError where the member is damaged, or there is no room to unpack it."""
        if self._table is None:
            self._table = self._unpacked()
        return self._table.read(start, stop)

    def _unpacked(self) -> NpyTable:
        if self._member.compress_type == _STORED:
            _copy(self._path, self._member, None)  # for its checksum
            start_bytes = self._start_in_zip()
            file: IO[bytes] = open_file(self._path)
        else:
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if self._member.file_size > free:
                raise InputError(
                    f"{self.where}: no room to unpack it",
                    got=f"{free:,} bytes free in {tempfile.gettempdir()}",
                    wanted=f"{self._member.file_size:,} bytes",
                    cure="free some space, or name another folder with TMPDIR",
                )
            file, start_bytes = tempfile.TemporaryFile(), 0  # noqa: SIM115 (NpyTable closes it)
            try:
                with disk_errors(Path(tempfile.gettempdir())):
                    _copy(self._path, self._member, file)
                    file.flush()
            except BaseException:
                file.close()
                raise
        return NpyTable(file, self._header, start_bytes=start_bytes, where=self.where, transpose=self._transpose)

    def _start_in_zip(self) -> int:
        """Where a stored member's bytes begin: behind a header whose two last fields vary in length."""
        with open_file(self._path) as file:
            local = os.pread(file.fileno(), 30, self._member.header_offset)
        lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        return self._member.header_offset + 30 + lengths


def open_npz(path: Path, options: TableOptions) -> NpzTable:
    """A table in an .npz file. Raises InputError as `open_table`."""
    found: list[tuple[zipfile.ZipInfo, NpyHeader]] = []
    for member in npz_members(path):
        name = member.filename.removesuffix(".npy")
        header = _member_header(path, member)
        if name == options.dataset or (options.dataset is None and len(header.shape) == 2):
            found.append((member, header))
    if len(found) != 1:
        raise _not_one(path, [member.filename.removesuffix(".npy") for member in npz_members(path)], options.dataset)
    return NpzTable(path, *found[0], transpose=options.transpose)


def npz_members(path: Path, *, max_bytes: int | None = None) -> list[zipfile.ZipInfo]:
    """Arrays of an npz file, none of which claims more than the file can hold.

    Args:
        path: the file.
        max_bytes: of all arrays together, unpacked; None: they are not all unpacked into memory.

    Raises:
        InputError: not a zip file, encrypted, another compression, or a claim too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # whatever zipfile says about damaged or hostile bytes
        raise InputError(
            f"{path}: not a zip file", got=repr(error)[:120], wanted="an npz", cure="fetch it again"
        ) from None
    if len(members) > _MAX_MEMBERS:
        raise InputError(f"{path}: too many arrays", got=len(members), wanted=f"at most {_MAX_MEMBERS}")
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in (_STORED, _DEFLATED):
            raise InputError(f"{_where(path, member)}: encrypted, or a compression that numpy does not use")
        check_claim(_where(path, member), member.file_size, min(member.compress_size, path.stat().st_size))
    num_bytes = sum(member.file_size for member in members)
    if max_bytes is not None and num_bytes > max_bytes:
        raise InputError(f"{path}: too large, unpacked", got=f"{num_bytes:,} bytes", wanted=f"at most {max_bytes:,}")
    return members


def _member_header(path: Path, member: zipfile.ZipInfo) -> NpyHeader:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            return read_header(file, _where(path, member))
    except InputError:
        raise
    except Exception as error:  # as above
        raise _damaged(path, member, error) from None


def _copy(path: Path, member: zipfile.ZipInfo, target: IO[bytes] | None) -> None:
    """Read a member to its end, where zipfile compares the checksum; at most the size that it claims."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as source:
            while data := source.read(_COPY_BYTES):
                if target is not None:
                    target.write(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, member, error) from None


def _damaged(path: Path, member: zipfile.ZipInfo, error: Exception) -> InputError:
    return InputError(f"{_where(path, member)}: damaged", got=repr(error)[:120], cure="fetch it again")


def _where(path: Path, member: zipfile.ZipInfo) -> str:
    return f"{path}, {member.filename.removesuffix('.npy')!r}"


def _not_one(path: Path, names: Sequence[str], wanted: str | None) -> InputError:
    return InputError(
        f"{path}: " + ("no single two-dimensional array" if wanted is None else f"no array {wanted!r}"),
        got=", ".join(names[:8]) or "no array",
        cure="--dataset NAME says which",
    )


def open_file(path: Path) -> io.BufferedReader:
    """The file, for reading.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from None
