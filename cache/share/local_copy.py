"""Shared stores as folders on this machine: what a command needs is pulled into the cache, then mapped from there."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...files import FileLock, cache_folder, disk_errors, read_bounded, write_atomic
from ...workers import SILENT, Progress
from ..partial import lock_match
from ..store import FeatureStore
from .manifest import MAX_INDEX_BYTES, choose, index_document, parse_index
from .places import Unreachable, open_place
from .pull import Selection, receive
from .source import PlaceSource, StoreSource

_STORE, _LISTING = "store", "listing.json"
"""In the folder of one URL: the copy, and what the place said of its matches when it was last asked."""
_POLL_SECONDS = 0.5
_LIMIT = "50GB"
_IN_USE_SECONDS = 24 * 3600
"""A copy that was asked for less than this long ago may be what a run reads now, and stays."""


def limit_bytes() -> int:
    """How much copies may take together: `$BAS_CACHE_LIMIT`, such as `500MB`, else 50 GB.

    Raises:
        InputError: it is no size.
    """
    text = os.environ.get("BAS_CACHE_LIMIT") or _LIMIT
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(KB|MB|GB|TB)", text.strip().upper())
    if not found or not float(found[1]):
        wanted = "a number with KB, MB, GB or TB"
        raise InputError("BAS_CACHE_LIMIT is not usable", got=text, wanted=wanted, cure=f"BAS_CACHE_LIMIT={_LIMIT}")
    return int(float(found[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[found[2]])


def local_copy(url: str, selection: Selection, *, root: Path | None = None, progress: Progress = SILENT) -> Path:
    """The store at a URL as a folder on this machine, with the matches asked for.

    The place is asked what has changed; where it does not answer, a copy that was complete when it last did is used.

    Args:
        url: a place; see `open_place`.
        selection: what is needed; splits that no match has are left out.
        root: where copies lie, and may be deleted at any time; default: `$BAS_CACHE/stores`, else ~/.cache/bas/stores.
        progress: hears of progress, and is told where the copy may be old.

    Raises:
        InputError: no store there, what is needed did not arrive, or the disk refuses.
    """
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(url).name)[:80]
    root, limit = root or cache_folder() / "stores", limit_bytes()
    entry = root / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    with disk_errors(entry):
        entry.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(entry, progress):
            store = _refresh(url, selection, entry, progress)
            (entry / _LISTING).touch()  # its time says when the copy was last used
        _make_room(root, limit, progress)
    return store


def _refresh(url: str, selection: Selection, entry: Path, progress: Progress) -> Path:
    is_complete = _is_complete(entry, selection)
    try:
        manifests = PlaceSource(open_place(url, patient=not is_complete)).offered()[0]
    except Unreachable as error:
        if not is_complete:
            raise
        progress.note(f"{url} does not answer ({error.got}): the copy on this machine is used, {entry / _STORE}")
        return entry / _STORE
    _remove_gone(entry / _STORE, {each.match_id for each in manifests})
    source = PlaceSource(open_place(url), offered=manifests)  # it answers: from here on with patience
    summary = receive(source, entry / _STORE, selection, replace=True, progress=progress)
    wrong = [result for result in summary.results if not result.is_done]
    if wrong:
        raise InputError(
            f"{url}: {len(wrong)} of {len(summary.results)} matches did not arrive",
            got=f"{wrong[0].match_id}: {wrong[0].message}",
            cure="run the same command again",
        )
    write_atomic(entry / _LISTING, index_document(manifests))
    return entry / _STORE


def _make_room(root: Path, limit: int, progress: Progress) -> None:
    """Remove whole copies, those first that were not used for the longest, until the others fit."""
    used = sorted((path.stat().st_mtime, path.parent) for path in root.glob(f"*/{_LISTING}"))
    sizes = {entry: sum(path.lstat().st_size for path in entry.rglob("*")) for _, entry in used}
    total = sum(sizes.values())
    for when, entry in used:
        if total <= limit or time.time() - when < _IN_USE_SECONDS:
            return
        progress.note(f"copies of shared stores take more than BAS_CACHE_LIMIT: {entry} is removed")
        shutil.rmtree(entry)
        total -= sizes[entry]


def _is_complete(entry: Path, selection: Selection) -> bool:
    """Whether the copy has all that the place had of the selection when it was last asked."""
    try:
        known = parse_index(read_bounded(entry / _LISTING, max_bytes=MAX_INDEX_BYTES), where=str(entry))[0].values()
        here = StoreSource(FeatureStore.open(entry / _STORE))
        for wanted in choose(
            known, match_ids=selection.matches, splits=selection.splits, views=selection.views, where=str(entry)
        ):
            mine = here.outline(wanted.match_id)
            if not set(wanted.views) <= set(mine.views) or mine.differing(wanted):
                return False
        return True
    except InputError:  # no copy, or one that lacks something
        return False


def _remove_gone(store: Path, offered: Collection[str]) -> None:
    """Remove matches that the place no longer has; a process that has mapped them reads on."""
    try:
        gone = set(FeatureStore.open(store).matches()) - set(offered)
    except InputError:  # there is no copy yet
        return
    for match_id in gone:
        with lock_match(store, match_id):
            shutil.rmtree(store / match_id)


@contextmanager
def _one_at_a_time(entry: Path, progress: Progress) -> Iterator[None]:
    """One process at a time fills a copy; the next finds it filled."""
    is_noted = False
    while (lock := FileLock.acquire(entry / "lock", wait_seconds=_POLL_SECONDS)) is None:
        if not is_noted:
            progress.note(f"another bas fills {entry} ({FileLock.owner(entry / 'lock')}): waiting for it")
        is_noted = True
    with lock:
        yield
