"""`bas cache export`: matches of a store as NumPy or HDF5 files, each whole or absent.

T: rows (frames of the grid), C: channels of a feature row.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...events import SPLITS
from ...files import FileLock, MatchBusy, disk_errors, sync_folder, write_json_atomic, write_text_atomic
from ..layout import PARTIAL, check_view
from ..reduce.about import decoding
from ..reduce.files import BESIDE_NAME, BESIDE_PART, write_beside
from ..store import FeatureStore
from .annotations import annotated_video
from .archived import MATCH_NAME, ROOT_NAME, ArchivedMatch, ArchiveRoot, Times
from .containers import CONTAINERS
from .request import Progress, files_below
from .tables import blocks

Status = Literal["exported", "already there", "busy elsewhere", "failed"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how."""

    container: str = "npy"
    """A key of `CONTAINERS`."""
    matches: tuple[str, ...] = ()
    """Only these; empty: all."""
    splits: tuple[str, ...] = ()
    """Only matches of these; empty: all."""
    views: tuple[str, ...] = ()
    """Only these; empty: all that a match has."""

    def __post_init__(self) -> None:
        if self.container not in CONTAINERS:
            raise InputError("--format is not known", got=self.container, wanted=", ".join(CONTAINERS))
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown:
            raise InputError("--split is not known", got=", ".join(unknown), wanted=", ".join(SPLITS))
        for view in self.views:
            check_view(view)


@dataclass(frozen=True)
class ExportResult:
    """How one match ended."""

    match: str
    status: Status
    rows: int = 0
    views: tuple[str, ...] = ()
    message: str = ""
    """Why it failed or was left alone."""


@dataclass(frozen=True)
class ExportSummary:
    """How an export ended."""

    folder: Path
    root: ArchiveRoot
    results: tuple[ExportResult, ...]

    @property
    def complete(self) -> bool:
        """True where every match is there."""
        return all(result.status in ("exported", "already there") for result in self.results)


def export_store(
    store: FeatureStore, folder: Path, options: ExportOptions, *, on_progress: Progress = lambda *_: None
) -> ExportSummary:
    """Write every match chosen that is not there yet; a match that was cut off is begun anew.

    Args:
        store: to read; every row is checked against its hash.
        folder: a new one, or one that an export of the same store began.
        options: what, and how.
        on_progress: called with (matches done, matches).

    Raises:
        InputError: nothing chosen, or the folder holds something else. A match that fails is in the summary instead.
    """
    chosen = _choose(store, options)
    root = ArchiveRoot.of(store, options.container)
    _prepare(folder, root)
    results = []
    for number, match_id in enumerate(chosen):
        on_progress(number, len(chosen))
        results.append(_export_or_explain(store, match_id, root, folder, options.views))
    _describe(folder, root)
    on_progress(len(chosen), len(chosen))
    return ExportSummary(folder, root, tuple(results))


def _choose(store: FeatureStore, options: ExportOptions) -> list[str]:
    there = store.matches()
    unknown = [match_id for match_id in options.matches if match_id not in there]
    if unknown:
        got = f"{len(there)} matches: {', '.join(there[:3])}" + (", ..." if len(there) > 3 else "")
        raise InputError(f"{store.path}: no match {unknown[0]!r}", got=got, cure=f"bas cache info {store.path}")
    chosen = [match_id for match_id in there if not options.matches or match_id in options.matches]
    if options.splits:
        chosen = [match_id for match_id in chosen if store.match(match_id).meta.split in options.splits]
    if not chosen:
        raise InputError(f"{store.path}: no match to export", got=", ".join(options.splits) or "an empty store")
    return chosen


def _prepare(folder: Path, root: ArchiveRoot) -> None:
    """Make the folder, or make sure that it holds an export of the same store in the same form."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if {entry.name for entry in folder.iterdir()} <= {PARTIAL, BESIDE_NAME, BESIDE_PART}:
            if root.reduction is not None:
                write_beside(folder, root.reduction)  # before the root: an export without it would be of no use
            write_json_atomic(folder / ROOT_NAME, root.to_json())
            return
    if not (folder / ROOT_NAME).exists():
        raise InputError(f"{folder}: a folder with other things in it", cure="name another folder with --out")
    there = ArchiveRoot.read(folder)
    root.settings.require_equal(there.settings, store=str(folder))
    if (there.container, there.classes) != (root.container, root.classes):
        raise InputError(
            f"{folder}: holds an export in another form, or of a store with other classes",
            got=f"--format {root.container}, {len(root.classes)} classes",
            wanted=f"--format {there.container}, {len(there.classes)} classes",
            cure="name another folder with --out",
        )


def _export_or_explain(
    store: FeatureStore, match_id: str, root: ArchiveRoot, folder: Path, views: tuple[str, ...]
) -> ExportResult:
    """A match that cannot be exported does not stop the others."""
    try:
        match = ArchivedMatch.of(store, match_id, views)
        status: Status = "already there" if _is_there(folder, match) else "exported"
        if status == "exported":
            _export(store, match, root, folder)
        return ExportResult(match_id, status, match.info.num_rows, tuple(match.views))
    except MatchBusy as error:
        return ExportResult(match_id, "busy elsewhere", message=str(error))
    except InputError as error:
        return ExportResult(match_id, "failed", message=str(error))


def _is_there(folder: Path, match: ArchivedMatch) -> bool:
    """Whether the match was exported before.

    Raises:
        InputError: its place holds something else, other rows or other views.
    """
    place = folder / match.info.id
    if not place.exists():
        return False
    if not (place / MATCH_NAME).is_file():
        raise InputError(f"{place}: in the way", cure="name another folder with --out")
    there = ArchivedMatch.read(place / MATCH_NAME)
    if there.to_json() != match.to_json():
        got, wanted = f"views {', '.join(there.views)}", f"views {', '.join(match.views)}"
        raise InputError(
            f"{place}: exported before with other rows, labels or views",
            got=got if got != wanted else "other rows or labels",
            wanted=wanted,
            cure="delete that folder, or name another with --out",
        )
    return True


def _export(store: FeatureStore, match: ArchivedMatch, root: ArchiveRoot, folder: Path) -> None:
    """Write a match beside its place, and move it there when all of it is on the disk."""
    staged = folder / PARTIAL / hashlib.sha256(match.info.id.encode()).hexdigest()
    with disk_errors(staged):
        lock = FileLock.acquire(staged.with_suffix(".lock"), wait_seconds=1.0)
        if lock is None:
            raise MatchBusy(f"{match.info.id}: another process exports it", cure="wait for it, or stop it")
        with lock:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            try:
                _write(store, match, root, staged)
                place = folder / match.info.id
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(place)
                sync_folder(place.parent)
            finally:
                shutil.rmtree(staged, ignore_errors=True)


def _write(store: FeatureStore, match: ArchivedMatch, root: ArchiveRoot, staged: Path) -> None:
    times = Times.of(store, match.info.id).check(match, store.path)
    CONTAINERS[root.container].write(
        staged, root, match, times, lambda view: _checked_blocks(store, match, view, num_channels=root.settings.dim)
    )
    if match.info.meta.labels is not None:
        labels = [dict(record) for record in match.info.meta.labels]
        write_json_atomic(staged / "Labels-ball.json", {"UrlLocal": match.info.id, "annotations": labels})
    write_json_atomic(staged / MATCH_NAME, match.to_json() | _for_others(root))
    sync_folder(staged)


def _for_others(root: ArchiveRoot) -> dict[str, Any]:
    """How to decode reduced rows; nothing of ours reads it."""
    if root.reduction is None:
        return {}
    return {"decode": decoding(root.reduction), "decode_with": f"{BESIDE_NAME}, at the root of the export"}


def _checked_blocks(
    store: FeatureStore, match: ArchivedMatch, view: str, *, num_channels: int
) -> Iterator[npt.NDArray[Any]]:
    """Rows of a view; the file is mapped anew for each block, so that memory stays small.

    Raises:
        InputError: the rows do not fit the match or their hash; told after the last block.
    """
    digest, match_id, num_rows = hashlib.sha256(), match.info.id, match.info.num_rows
    if store.rows(match_id, view).shape != (num_rows, num_channels):
        raise InputError(f"{match_id}, view {view}: does not fit the match", cure=f"bas cache verify {store.path}")
    for start, stop in blocks(num_rows, num_channels):
        block = np.ascontiguousarray(store.rows(match_id, view)[start:stop])
        digest.update(block.data)
        yield block
    recorded = match.views[view].sha256
    if recorded not in (None, digest.hexdigest()):
        raise InputError(
            f"{match_id}, view {view}: the rows do not fit their sha256",
            got=digest.hexdigest(),
            wanted=recorded,
            cure=f"bas cache verify {store.path}",
        )


def _describe(folder: Path, root: ArchiveRoot) -> None:
    """What other programs read of all that is in the folder now: splits, classes, and OpenTAD's annotation file.

    In the latter a video is called `MATCH/VIEW`, so that its features are the folder, that name and `.npy`.
    """
    splits: dict[str, list[str]] = {}
    videos: dict[str, Any] = {}
    for path in files_below(folder):
        if path.name == MATCH_NAME:
            with contextlib.suppress(InputError):
                match = ArchivedMatch.read(path)
                splits.setdefault(match.info.meta.split or "", []).append(match.info.id)
                view = "identity" if "identity" in match.views else min(match.views)
                videos[f"{match.info.id}/{view}"] = annotated_video(match.info, root.classes)
    splits.pop("", None)
    with disk_errors(folder):
        if splits:
            write_json_atomic(folder / "splits.json", splits)
        if root.classes:
            write_text_atomic(folder / "classes.txt", "\n".join(root.classes) + "\n")
        if root.container == "npy":
            write_json_atomic(folder / "annotations.json", {"database": videos})
