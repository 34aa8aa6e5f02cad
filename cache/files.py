"""Files written safely: an append-only file with running checksums, fsync, and a lock with one owner."""

import contextlib
import errno
import hashlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import google_crc32c

from ..errors import InputError
from ..events import read_bounded

_BLOCK_BYTES = 1 << 20
_MAX_DEPTH = 48
"""Folders inside each other: a match's id, and what is in a match."""
_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota used up", errno.EFBIG: "file size limit reached"}


class MatchBusy(InputError):  # noqa: N818 (an InputError by nature)
    """Another process writes this match now."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error with a cure.

    Raises:
        InputError: disk full, no permission, read-only, or any other failure of the file system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"{path}: {_FULL[error.errno]}",
                got=error.strerror,
                cure="free some space and run the same command again: it goes on from the last saved row",
            ) from error
        raise InputError(
            f"{error.filename or path}: cannot be written", got=error.strerror, cure="check the folder and its rights"
        ) from error


class AppendFile:
    """A file that only grows, with sha256 and crc32c of everything in it. After an error: close it, open it again."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Open for appending after the first `keep_bytes`; what follows them is cut off.

        Raises:
            OSError: as the file system says.
            EOFError: the file is shorter than `keep_bytes`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.num_bytes, self.crc32c, self._sha256 = path, 0, 0, hashlib.sha256()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            while self.num_bytes < keep_bytes:
                block = os.read(self._handle, min(_BLOCK_BYTES, keep_bytes - self.num_bytes))
                if not block:
                    raise EOFError(f"{path.name} holds {self.num_bytes} bytes, not {keep_bytes}")
                self._count(block)
            os.ftruncate(self._handle, keep_bytes)
        except BaseException:
            self.close()
            raise

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes so far."""
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self._count(data)

    def sync(self) -> None:
        """Return when everything is on the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _count(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self.crc32c = int(google_crc32c.extend(self.crc32c, data))
        self._sha256.update(data)


def cache_folder() -> Path:
    """What bas keeps between runs on this machine: `$BAS_CACHE`, else `~/.cache/bas`."""
    root = os.environ.get("BAS_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "bas"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file through to the disk; only for places that no reader sees yet. Never through a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(temporary: Path, path: Path, data: bytes) -> None:
    """Write `path` whole or not at all, by way of `temporary` on the same disk (left behind by a kill, never read)."""
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def real_files(folder: Path, *, deep: bool = True) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in a folder with its own status (that of a link, not of what it leads to); follows no link.

    Args:
        folder: where to begin.
        deep: folders in it as well.

    Raises:
        InputError: folders nested too deep, or one that cannot be read.
    """
    todo = [(folder, 0)]
    while todo:
        parent, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise InputError(
                f"{folder}: folders nested too deep",
                wanted=f"at most {_MAX_DEPTH}",
                cure="remove them; do not trust this store",
            )
        try:
            found = [(Path(entry.path), entry.stat(follow_symlinks=False)) for entry in os.scandir(parent)]
        except OSError as error:
            raise InputError(f"{parent}: cannot be read", got=error.strerror) from None
        yield from found
        todo += [(path, depth + 1) for path, status in found if deep and stat.S_ISDIR(status.st_mode)]


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass
class FileLock:
    """An flock on a small file that names its owner; released by `release` or with the process, however it ends."""

    path: Path
    handle: int

    @classmethod
    def acquire(cls, path: Path, *, wait_seconds: float) -> Self | None:
        """The lock, or None where another process still holds it after `wait_seconds`. Makes the parent folder."""
        deadline = time.monotonic() + wait_seconds
        while True:
            lock = cls._attempt(path)
            if lock is not None:
                return lock
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.01)

    @classmethod
    def _attempt(cls, path: Path) -> Self | None:
        import fcntl  # here, so that a store can be read on Windows

        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # the folder was just removed by another owner
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the name while we opened it: then this is nobody's lock.
            if os.fstat(handle).st_ino != path.stat().st_ino:
                raise FileNotFoundError
            os.ftruncate(handle, 0)
            os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        except (BlockingIOError, FileNotFoundError):
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        return cls(path, handle)

    @staticmethod
    def owner(path: Path) -> str:
        """Who holds the lock at `path`, as written there: `pid 12 on host`."""
        try:
            return read_bounded(path, max_bytes=4096).decode(errors="replace").strip() or "another process"
        except InputError:
            return "another process"

    def release(self) -> None:
        """Remove the file, then the folder where it is empty; a second call does nothing."""
        if self.handle < 0:
            return
        self.path.unlink(missing_ok=True)
        os.close(self.handle)
        self.handle = -1
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
