"""Checks of a finished store: metadata, shapes, indexes, hashes, values, stray files. Findings, never exceptions.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import read_json, real_files, unreadable
from .layout import (
    DTYPES,
    FEATURES,
    MANIFESTS,
    MAX_ID_PARTS,
    METADATA,
    METADATA_BYTES,
    PARTIAL,
    PTS,
    REDUCTION,
    VALID,
    group_metadata,
    inside,
)
from .match import MatchInfo
from .partial import read_journal
from .reduction import REDUCTION_FILE
from .rows import MappedRows, array_metadata, first_not_finite, open_rows, read_plain
from .store import FeatureStore

Severity = Literal["error", "warning", "note"]
_BLOCK_ROWS = 8192
_MAX_DEPTH = MAX_ID_PARTS + 8


@dataclass(frozen=True)
class StoreFinding:
    """One thing that `verify` has to say."""

    severity: Severity
    """`error`: do not use this match; `warning`: not checked, or slow; `note`: harmless."""
    match: str
    """Match id; empty for the store itself."""
    view: str
    """View; empty for the match itself."""
    message: str
    """What is wrong, with the place."""

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def verify(path: Path | str, *, matches: Sequence[str] | None = None) -> list[StoreFinding]:
    """Check a store, or some matches of it, against its own hashes and settings. Reads every byte; writes nothing.

    Args:
        path: the store's folder.
        matches: ids; all matches, and the files between them, by default.

    Returns:
        What was found, in order of match; empty where all is well.
    """
    path = Path(path)
    try:
        store = FeatureStore.open(path)
        known = store.matches()
    except InputError as error:
        return [StoreFinding("error", "", "", str(error))]
    findings = [] if matches is not None else [*_check_folders(path, "", known), *_unfinished(path)]
    findings += _check_reduction(store)
    for match_id in known if matches is None else matches:
        if match_id not in known:
            findings.append(StoreFinding("error", match_id, "", "the store has no such match"))
        else:
            findings += check_match(store, match_id)
    return findings


def compare_rows(
    stored: npt.ArrayLike,
    again: npt.ArrayLike,
    *,
    first_row: int,
    match: str,
    view: str,
    tolerance: float,
    lengths: npt.ArrayLike | None = None,
) -> list[StoreFinding]:
    """Compare stored rows with the same rows made again from the video.

    Args:
        stored: (n, C) rows of the store.
        again: (n, C) float, made again.
        first_row: row of the match that again[0] is.
        match: id, for the finding.
        view: name, for the finding.
        tolerance: largest length of the difference of a row allowed, as a share of `lengths`.
        lengths: (n,) by default the lengths of the rows made again.

    Returns:
        At most one finding, which names the worst row.
    """
    made, kept = np.asarray(again, np.float64), np.asarray(stored, np.float64)
    if kept.shape != made.shape:
        return [
            StoreFinding("error", match, view, f"made again {made.shape}, stored {kept.shape} from row {first_row}")
        ]
    length = np.linalg.norm(made, axis=1) if lengths is None else np.asarray(lengths, np.float64)
    differing = np.linalg.norm(made - kept, axis=1)
    share = np.divide(differing, length, out=np.where(differing == 0, 0.0, np.inf), where=length > 0)
    wrong = np.flatnonzero(~(share <= tolerance))
    if not len(wrong):
        return []
    worst = int(wrong[np.argmax(np.nan_to_num(share[wrong], nan=np.inf, posinf=np.inf))])
    message = f"{len(wrong)} of {len(made)} rows differ from the video's; row {first_row + worst} by {share[worst]:.2g}"
    return [StoreFinding("error", match, view, f"{message} of its length (allowed {tolerance:g})")]


def _check_reduction(store: FeatureStore) -> Iterator[StoreFinding]:
    try:
        is_wanted = store.reduction is not None
    except InputError as error:
        yield StoreFinding("error", "", "", str(error))
        return
    if not is_wanted and (store.path / REDUCTION_FILE).exists():
        yield _stray("", Path(REDUCTION_FILE), "a file that does not belong there")


def check_match(store: FeatureStore, match_id: str) -> Iterator[StoreFinding]:
    """What is wrong with one match of a store."""
    try:
        info = store.match(match_id)
    except InputError as error:
        yield StoreFinding("error", match_id, "", str(error))
        return
    for name, check in ((PTS, _check_pts), (VALID, _check_valid)):
        try:
            values = read_plain(store.path, f"{match_id}/{name}")
            unhashed = "sha256" not in array_metadata(store.path, f"{match_id}/{name}")["attributes"]
        except InputError as error:
            yield StoreFinding("error", match_id, "", str(error))
            continue
        if unhashed:
            yield StoreFinding("warning", match_id, "", f"{name}: no sha256 to check the values against")
        if values.shape != (info.num_rows,):
            yield StoreFinding(
                "error", match_id, "", f"{name}: {len(values)} values, the match has {info.num_rows} rows"
            )
        yield from (StoreFinding("error", match_id, "", f"{name}: {message}") for message in check(values))
    yield from _check_labels(store, info)
    yield from _check_groups(store.path, match_id)
    views = store.views(match_id)
    if not views:
        yield StoreFinding("error", match_id, "", "no view")
    for view in views:
        yield from _check_view(store, info, view)
    yield from _check_folders(store.path, match_id, [])


def _check_groups(root: Path, match_id: str) -> Iterator[StoreFinding]:
    """A group says nothing but its attributes: what a Zarr reader would believe (consolidated metadata) is not ours."""
    for relative in (f"{match_id}/{METADATA}", f"{match_id}/{FEATURES}/{METADATA}"):
        try:
            document = read_json(inside(root, relative), max_bytes=METADATA_BYTES)
        except InputError as error:
            yield StoreFinding("error", match_id, "", str(error))
            continue
        if not isinstance(document, dict) or {**document, "attributes": {}} != group_metadata({}):
            yield StoreFinding("error", match_id, "", f"{relative}: not a plain group of Zarr v3")


def _check_pts(pts: npt.NDArray[Any]) -> Iterator[str]:
    back = np.flatnonzero(pts[1:] < pts[:-1])
    if len(back):
        yield f"goes back at row {int(back[0]) + 1}"


def _check_valid(valid: npt.NDArray[Any]) -> Iterator[str]:
    if valid.size and valid.max() > 1:
        yield f"row {int(np.argmax(valid > 1))} is neither 0 nor 1"


def _check_labels(store: FeatureStore, info: MatchInfo) -> Iterator[StoreFinding]:
    try:
        events = info.meta.events() or []
    except InputError as error:
        yield StoreFinding("error", info.id, "", str(error))
        return
    for event in events:
        if info.meta.grid.frame(event.position_ms) >= info.num_rows:
            message = f"label {event.label} at {event.position_ms} ms lies after the end ({1000 * info.seconds:.0f} ms)"
            yield StoreFinding("error", info.id, "", message)
        if store.classes and event.label not in store.classes:
            yield StoreFinding("error", info.id, "", f"label {event.label!r} at {event.position_ms} ms is not a class")


def _check_view(store: FeatureStore, info: MatchInfo, view: str) -> Iterator[StoreFinding]:
    relative = f"{info.id}/{FEATURES}/{view}"
    try:
        rows = open_rows(store.path, relative)
        recorded = array_metadata(store.path, relative)["attributes"].get("sha256")
        digest, not_finite = _read_all(rows)
    except InputError as error:
        yield StoreFinding("error", info.id, view, str(error))
        return
    if recorded is None:
        yield StoreFinding("warning", info.id, view, "no sha256 to check the rows against")
    messages, wanted = [], (info.num_rows, store.settings.dim)
    if rows.shape != wanted:
        messages.append(f"shape {rows.shape}, wanted {wanted}")
    if rows.dtype != DTYPES[store.settings.dtype]:
        messages.append(f"type {rows.dtype}, wanted {store.settings.dtype}")
    if recorded not in (None, digest):
        messages.append("the rows do not fit their sha256")
    if not_finite >= 0:
        messages.append(f"row {not_finite} holds NaN or Inf")
    if not _padding_is_zero(rows):
        messages.append("the padding behind the last row is not zero")
    yield from (StoreFinding("error", info.id, view, message) for message in messages)


def _read_all(rows: MappedRows) -> tuple[str, int]:
    """(sha256 of all rows, first row that is not finite or -1); memory bounded by `_BLOCK_ROWS`."""
    digest, not_finite = hashlib.sha256(), -1
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + _BLOCK_ROWS])
        digest.update(block.data if block.size else b"")
        if not_finite < 0 and (row := first_not_finite(block)) >= 0:
            not_finite = start + row
    return digest.hexdigest(), not_finite


def _padding_is_zero(rows: MappedRows) -> bool:
    """Whether nothing hides between the last row and the index of a shard (less than one chunk)."""
    layout = rows.layout
    with rows.path.open("rb") as file:
        file.seek(layout.data_bytes)
        return not any(file.read(layout.num_chunks * layout.chunk_bytes - layout.data_bytes))


def _unfinished(root: Path) -> Iterator[StoreFinding]:
    if not (root / PARTIAL).is_dir() or (root / PARTIAL).is_symlink():
        return
    try:
        entries = sorted((root / PARTIAL).iterdir())
    except OSError as error:
        yield StoreFinding("error", "", "", str(unreadable(error)))
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            journal = read_journal(entry)
            name, rows = (journal["match"], journal["rows_done"]) if journal else ("", 0)
            yield StoreFinding(
                "note", name, "", f"unfinished work, {rows} rows saved: run the same extraction to go on"
            )


def _check_folders(root: Path, relative: str, skip: Sequence[str]) -> Iterator[StoreFinding]:
    """Files that do not belong there, links, and groups without metadata.

    Args:
        root: the store.
        relative: folder to look through: a match, or empty for what lies between the matches.
        skip: matches that are left out.
    """
    skipped, todo = {Path(name) for name in skip}, [root / relative]
    while todo:
        parent = todo.pop()
        here = parent.relative_to(root)
        if len(here.parts) > _MAX_DEPTH:
            yield StoreFinding("error", relative, "", f"{'/'.join(here.parts[:8])}...: folders nested too deep")
            continue
        where = "" if here == Path() else here.as_posix()
        arrays = _array_files(root, where) if where and relative else None
        wanted = ({METADATA} if where else {METADATA, REDUCTION_FILE}) if arrays is None else arrays
        try:
            found = sorted(real_files(parent, deep=arrays is not None), key=lambda each: each[0])
        except InputError as error:
            yield StoreFinding("error", relative, "", str(error))
            continue
        links = [path for path, status in found if stat.S_ISLNK(status.st_mode) and _is_folder(path)]
        yield from (_stray(relative, path.relative_to(root), "a link") for path in links)
        folders = [path for path, status in found if stat.S_ISDIR(status.st_mode)]
        if arrays is None:
            left_out = {PARTIAL} if where else {PARTIAL, MANIFESTS, REDUCTION}  # the reduction is looked at by itself
            todo += [
                path for path in reversed(folders) if path.name not in left_out and here / path.name not in skipped
            ]
        files = {path.relative_to(parent).as_posix() for path in {path for path, _ in found} - {*folders, *links}}
        extra = sorted(files - wanted) if wanted else []
        yield from (_stray(relative, here / name, "a file that does not belong there") for name in extra)
        if METADATA not in files:
            yield StoreFinding("error", relative, "", f"{here}: a folder without {METADATA}")


def _array_files(root: Path, relative: str) -> set[str] | None:
    """Files of an array, within its folder; None where it is no array."""
    try:
        metadata = array_metadata(root, relative)
    except InputError:
        return None
    return {METADATA, "c/" + "/".join("0" * len(metadata["shape"]))}


def _stray(match: str, path: Path, what: str) -> StoreFinding:
    return StoreFinding("error", match, "", f"{path.as_posix()}: {what}")


def _is_folder(path: Path) -> bool:
    """Whether a link leads to a folder; False where that may not be seen."""
    try:
        return path.is_dir()
    except OSError:
        return False
