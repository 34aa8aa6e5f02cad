"""Unfinished work under `.partial`: journal, what can be carried on, moving it to its place, clearing it away."""

import contextlib
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import FileLock, MatchBusy, disk_errors, read_json, real_files, sync_path, write_atomic
from .layout import (
    FEATURES,
    METADATA,
    METADATA_BYTES,
    PARTIAL,
    canonical_json,
    check_id,
    check_view,
    group_metadata,
    inside,
    partial_name,
)

JOURNAL, TREE = "journal.json", "match"
"""Names within the folder of one unfinished match: what is saved, and the match as it will be."""
_LOCK_WAIT_SECONDS = 1.0
"""A starting process looks at unfinished work under the lock for an instant: wait for that, not for a writer."""


_KINDS = {"match": str, "adding": bool, "committing": bool, "fingerprint": dict, "rows_done": int, "crc32c": dict}
"""Fields of a journal."""


def sweep(root: Path) -> None:
    """Clear away what a kill left of finished matches; unfinished work and other processes' matches are left alone.

    A commit that a kill cut off between its renames is completed. The store may come from elsewhere: work that holds
    links, or that tells of another place than its own, is cleared away and never followed.

    Raises:
        InputError: `.partial` is a link.
    """
    require_real(root / PARTIAL)
    for path in [entry for entry in (root / PARTIAL).iterdir() if entry.name != "root.lock"]:  # the caller holds that
        if path.name == "root.json":
            path.unlink(missing_ok=True)
            continue
        lock = FileLock.acquire(path.with_suffix(".lock"), wait_seconds=0.0)
        if lock is None:  # its writer is alive
            continue
        with lock:
            folder = path.with_suffix("")
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink(missing_ok=True)
                continue
            journal = read_journal(folder)
            if journal is not None and journal["committing"]:
                publish(root, folder, journal["match"], adding=journal["adding"])
            if journal is None or journal["committing"] or _is_complete(root, journal):
                _clear_away(folder)


def _clear_away(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        raise InputError(f"{folder}: folders nested too deep", cure="remove it; do not trust this store") from None


def require_real(partial: Path) -> None:
    """Raise InputError where `.partial` is a link: what it leads to would be written and cleared away."""
    if partial.is_symlink():
        raise InputError(f"{partial}: a link", wanted="a folder", cure="remove the link; do not trust this store")


def lock_match(root: Path, match_id: str) -> FileLock:
    """Become the one writer of a match; the caller releases the lock.

    Raises:
        MatchBusy: another process writes it.
        InputError: `.partial` is a link, or the disk refuses.
    """
    require_real(root / PARTIAL)
    path = (root / PARTIAL / partial_name(match_id)).with_suffix(".lock")
    with disk_errors(path):
        lock = FileLock.acquire(path, wait_seconds=_LOCK_WAIT_SECONDS)
    if lock is None:
        raise MatchBusy(
            f"match {match_id!r} is being written by another process",
            got=FileLock.owner(path),
            cure="wait for it, or stop it; each match has one writer at a time",
        )
    return lock


def read_journal(partial: Path) -> dict[str, Any] | None:
    """The journal of unfinished work; None where there is none that can be used, or the work holds links or pipes."""
    if partial.is_symlink():
        return None
    try:
        journal = read_json(partial / JOURNAL, max_bytes=METADATA_BYTES)
        if not isinstance(journal, dict) or not all(
            isinstance(journal.get(name), kind) for name, kind in _KINDS.items()
        ):
            return None
        views = journal["fingerprint"]["views"]
        usable = all(check_view(view) for view in views) and partial_name(check_id(journal["match"])) == partial.name
        kept = (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) for _, status in real_files(partial))
        return journal if usable and all(kept) else None
    except (InputError, AttributeError, LookupError, TypeError):
        return None


def _is_complete(root: Path, journal: Mapping[str, Any]) -> bool:
    features = root / journal["match"] / FEATURES
    return all((features / view).is_dir() for view in journal["fingerprint"]["views"])


def publish(root: Path, partial: Path, match_id: str, *, adding: bool) -> None:
    """Move a staged tree, complete and on the disk, to its place. May be cut off anywhere and called again.

    Raises:
        InputError: the place lies behind a link that leads out of the store.
    """
    target, tree = inside(root, match_id), partial / TREE
    if adding:
        staged_views = sorted((tree / FEATURES).iterdir()) if (tree / FEATURES).is_dir() else []
        for staged in staged_views:
            place = target / FEATURES / staged.name
            if staged.is_dir() and target.is_dir() and not place.exists():  # else moved before a kill
                staged.rename(place)
        with contextlib.suppress(FileNotFoundError):
            sync_path(target / FEATURES)
    elif tree.is_dir() and not (target / FEATURES).exists():
        # from the root down; a kill leaves folders without metadata, which the next call completes
        for folder in reversed(list(target.parents)[: match_id.count("/")]):
            folder.mkdir(exist_ok=True)
            sync_path(folder.parent)
            if not (folder / METADATA).exists():
                document = canonical_json(group_metadata({}), where="")
                write_atomic(folder / METADATA, document, via=partial / "group.json")
        tree.rename(target)
        sync_path(target.parent)
