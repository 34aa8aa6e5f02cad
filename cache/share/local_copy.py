"""Shared stores as folders on this machine: what is needed is pulled into a cache of limited size, then mapped."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...files import FileLock, cache_folder, disk_errors
from ..layout import METADATA, PARTIAL
from ..store import FeatureStore
from .manifest import MatchManifest, choose
from .places import open_place
from .pull import receive
from .source import PlaceSource
from .transfer import BAD, Reporter, Selection, Transfer, size_text

DEFAULT_LIMIT = "50GB"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_STORE, _USED = "store", "used"
"""In the folder of one URL: the store, and a file per match whose time says when the match was last asked for."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class LocalCache:
    """Where copies lie, and how much they may take."""

    root: Path
    limit_bytes: int

    @classmethod
    def from_environment(cls) -> "LocalCache":
        """`$BAS_CACHE/stores`, else `~/.cache/bas/stores`, limited by `$BAS_CACHE_LIMIT`.

        Raises:
            InputError: the limit is no size.
        """
        return cls(cache_folder() / "stores", parse_size(os.environ.get("BAS_CACHE_LIMIT") or DEFAULT_LIMIT))

    def entry(self, url: str) -> Path:
        """Folder of one URL."""
        name = re.sub(r"[^\w.-]", "_", PurePosixPath(url).name)[:80]
        return self.root / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def parse_size(text: str) -> int:
    """Bytes of `50GB`, `500 MB`, `1.5TB`.

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(KB|MB|GB|TB)", text.strip().upper())
    if not match or not float(match[1]):
        raise InputError(
            "size is not usable", got=text, wanted="a number with KB, MB, GB or TB", cure="BAS_CACHE_LIMIT=50GB"
        )
    return int(float(match[1]) * _UNITS[match[2]])


@contextlib.contextmanager
def local_copy(url: str, selection: Selection, cache: LocalCache, report: Reporter) -> Iterator[Path]:
    """The store at a URL as a folder on this machine, with the matches asked for; they stay there while in the `with`.

    Matches that are not needed now make room, those first that were not asked for the longest.

    Args:
        url: a place; see `open_place`.
        selection: what is needed; splits that no match has are left out.
        cache: where.
        report: hears of progress.

    Raises:
        InputError: no store there, what is needed is larger than the cache or did not arrive, or the disk refuses.
    """
    source, entry = PlaceSource(open_place(url)), cache.entry(url)
    manifests = source.manifests()
    needed = choose(manifests, match_ids=selection.matches, splits=selection.splits, views=selection.views, where=url)
    with disk_errors(entry):
        (entry / _USED).mkdir(parents=True, exist_ok=True)
    with _filling(cache, report):
        _make_room(cache, entry, needed, {each.match_id for each in manifests})
        outcome = receive(source, entry / _STORE, selection, Transfer(replace=True), report)
        for each in needed:
            (entry / _USED / _mark(each.match_id)).touch()
        use = _Use.of(entry)
    with use:
        failed = [result for result in outcome.results if result.status in BAD]
        if failed:
            raise InputError(
                f"{url}: {len(failed)} of {len(needed)} matches did not arrive",
                got=f"{failed[0].match}: {failed[0].message}",
                cure="run the same command again",
            )
        yield entry / _STORE


def _make_room(cache: LocalCache, entry: Path, needed: Sequence[MatchManifest], offered: set[str]) -> None:
    """Remove what the place no longer has, then what was not asked for the longest, until all fits."""
    num_needed = sum(each.num_bytes for each in needed)
    if num_needed > cache.limit_bytes:
        raise InputError(
            "what is needed is larger than the cache",
            got=size_text(num_needed),
            wanted=f"at most {size_text(cache.limit_bytes)}",
            cure="set BAS_CACHE_LIMIT=100GB (or more), or pull it to a folder of your own: bas cache pull",
        )
    kept = [match for folder in _entries(cache) for match in _matches_of(folder)]
    for each in [match for match in kept if match.entry == entry and match.match_id not in offered]:
        if not each.remove():
            raise InputError(
                f"{each.match_id!r} is no longer in the shared store, but another run of bas uses the copy here",
                cure="wait for that run",
            )
        kept.remove(each)
    wanted = {each.match_id for each in needed}
    spare = [match for match in kept if match.entry != entry or match.match_id not in wanted]
    total = num_needed + sum(match.num_bytes for match in spare)
    for each in sorted(spare, key=lambda match: match.used_at):
        if total <= cache.limit_bytes:
            return
        total -= each.num_bytes * each.remove()
    if total > cache.limit_bytes:
        raise InputError(
            "the cache is full of stores that are in use",
            got=f"{size_text(total)} with what is needed",
            wanted=f"at most {size_text(cache.limit_bytes)}",
            cure="wait for the other runs of bas, or set BAS_CACHE_LIMIT",
        )


@dataclass(frozen=True)
class _Kept:
    """A match in the cache."""

    entry: Path
    match_id: str
    num_bytes: int
    used_at: float

    def remove(self) -> bool:
        """Remove it, unless its store is in use; whether it is gone."""
        with _Use.alone(self.entry) as is_alone:
            if is_alone:
                folder = self.entry / _STORE / self.match_id
                aside = self.entry / _STORE / PARTIAL / f"evicted-{_mark(self.match_id)}"
                aside.parent.mkdir(exist_ok=True)
                folder.rename(aside)  # at once for readers
                shutil.rmtree(aside)
                (self.entry / _USED / _mark(self.match_id)).unlink(missing_ok=True)
            return is_alone


class _Use:
    """A shared hold on the store of one URL: its matches are not removed. Ends with the process, however it ends."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def of(cls, entry: Path) -> "_Use":
        import fcntl  # here, so that a store can be read on Windows

        handle = os.open(entry / "use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        fcntl.flock(handle, fcntl.LOCK_SH)
        return cls(handle)

    @classmethod
    @contextlib.contextmanager
    def alone(cls, entry: Path) -> Iterator[bool]:
        """Whether nobody uses the store; nobody begins to while in the `with`."""
        import fcntl

        handle = os.open(entry / "use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(handle)

    def __enter__(self) -> "_Use":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


@contextlib.contextmanager
def _filling(cache: LocalCache, report: Reporter) -> Iterator[None]:
    """One process at a time fills the cache, so that the limit holds."""
    path = cache.root / "filling" / "lock"
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while (lock := FileLock.acquire(path, wait_seconds=_POLL_SECONDS)) is None:
        if not told:
            report.waiting(FileLock.owner(path))
            told = True
    with lock:
        yield


def _entries(cache: LocalCache) -> list[Path]:
    return [path for path in cache.root.iterdir() if (path / _STORE / METADATA).is_file()]


def _matches_of(entry: Path) -> list[_Kept]:
    store = FeatureStore.open(entry / _STORE)
    return [
        _Kept(entry, match_id, _folder_bytes(store.path / match_id), _used_at(entry, match_id))
        for match_id in store.matches()
    ]


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _used_at(entry: Path, match_id: str) -> float:
    try:
        return (entry / _USED / _mark(match_id)).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _mark(match_id: str) -> str:
    return hashlib.sha256(match_id.encode()).hexdigest()[:32]
