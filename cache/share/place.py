"""Places that hold a shared store, by URL: folder, S3-compatible and other object stores, HTTP, Hugging Face hub."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...errors import InputError
from .manifest import MatchManifest

OnBytes = Callable[[int], None]
"""Called with the bytes that have just travelled; may raise an InputError to stop it."""
MATCHES_AT_ONCE = 4
"""Matches under way at a time; the files of each travel side by side."""


class DamagedInTransit(InputError):  # noqa: N818 (an InputError by nature)
    """What arrived is not what was announced."""


class TooLarge(InputError):  # noqa: N818 (an InputError by nature)
    """A file that is longer than such a file can be."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One match on its way to a place: its files first, its manifest last."""

    manifest: MatchManifest
    """All that the place has of the match afterwards."""
    folder: Path
    """The match's folder on this machine."""
    paths: tuple[str, ...]
    """Files to bring, within the match's folder: values before metadata."""
    groups: tuple[str, ...]
    """Folders above the match, that need a group's metadata."""
    outdated: tuple[str, ...] = ()
    """Names of all manifests of the same match that were there when this was planned; the new one replaces them."""
    overwrite: bool = False
    """Files that the place has may be of other content, and are replaced."""


class Place(Protocol):
    """Where a shared store lies. Paths are relative to the store's root, parts joined by `/`. Thread-safe.

    Every method raises InputError where the place cannot be reached or refuses.
    """

    url: str
    uploads_at_once: int
    """Matches that `publish` takes best in one call."""
    publishers: int
    """Calls of `publish` that may run side by side."""

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """A small file whole; None where it does not exist.

        Raises:
            TooLarge: it is longer.
        """

    def stream(self, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """Bytes `start` to `num_bytes` of a file in order, at most so many.

        Raises:
            InputError: no such file.
        """

    def manifests(self) -> list[str] | None:
        """Names of the match manifests there; None where the place cannot list."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless it exists; False where it does."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """Bring matches there, each seen by readers whole or not at all. What is there already does not travel.

        Raises:
            InputError: the place refuses, or has manifests of a match that are not among `outdated`: it has changed.
        """


def scheme_of(url: str) -> str:
    """`s3` of `s3://...`; empty for a folder."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def is_folder(url: str) -> bool:
    """Whether a place is a folder on this machine or a network share."""
    return scheme_of(url) in ("", "file")


def folder_of(url: str) -> Path:
    """The folder that `is_folder` found."""
    if scheme_of(url) != "file":
        return Path(url)
    rest = url[len("file://") :]
    if not rest.startswith("/"):
        raise InputError("not a folder", got=url, wanted="file:///PATH, or the plain path")
    from urllib.parse import unquote

    return Path(unquote(rest))


def in_order(paths: Mapping[str, object]) -> tuple[str, ...]:
    """Paths of a match in the order in which they must become visible: values, arrays, groups, the match itself."""
    return tuple(sorted(paths, key=lambda path: (path.endswith(".json"), -path.count("/"), path)))
