"""Files that may change or go away while they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Anything that the system has against reading the file becomes an `InputError`."""
    try:
        yield
    except OSError as error:
        cure = "it was there when the run began: bring it back and run the same command again"
        raise InputError(f"{path}: cannot be read", got=error.strerror, cure=cure) from error


def file_stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file: its number, size and time of writing. InputError where it cannot be read."""
    with reading(path):
        status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def require_unchanged(path: Path, stamp: tuple[int, int, int]) -> None:
    """Refuse a file that is no longer as it was at `file_stamp`.

    Raises:
        InputError: it was written to, replaced or taken away.
    """
    if file_stamp(path) != stamp:
        cure = "run the same command again once nothing writes to it: rows of another video are begun anew"
        raise InputError(f"{path}: the video changed while it was read", cure=cure)
