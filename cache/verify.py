"""Checks of a finished store: metadata, shapes, indexes, hashes, values, stray files. Findings, never exceptions.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

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
    """Check a store (or only some matches, not the files between them) against its own hashes and settings.

    Reads every byte and writes nothing. What was found comes in order of match; empty where all is well.
    """
    path = Path(path)
    try:
        store = FeatureStore.open(path)
        known = store.matches()
    except InputError as error:
        return [StoreFinding("error", "", "", str(error))]
    findings = [] if matches is not None else [*_findings(_check_folders(path, "", known)), *_unfinished(path)]
    findings += _findings(_check_reduction(store))
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
    """Compare rows (n, C) of a store, from `first_row` of a match on, with the same rows made again from the video.

    The difference of a row may be `tolerance` times as long as `lengths` (n,), by default those of the rows made again.
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


def check_match(store: FeatureStore, match_id: str) -> Iterator[StoreFinding]:
    """What is wrong with one match of a store."""
    try:
        info = store.match(match_id)
    except InputError as error:
        yield StoreFinding("error", match_id, "", str(error))
        return
    yield from _findings(_check_vector(store.path, info, PTS), match_id)
    yield from _findings(_check_vector(store.path, info, VALID), match_id)
    yield from _findings(_check_labels(store, info), match_id)
    for name in (METADATA, f"{FEATURES}/{METADATA}"):
        yield from _findings(_check_group(store.path, f"{match_id}/{name}"), match_id)
    views = store.views(match_id)
    if not views:
        yield StoreFinding("error", match_id, "", "no view")
    for view in views:
        yield from _findings(_check_view(store, info, view), match_id, view)
    yield from _findings(_check_folders(store.path, match_id), match_id)


def _findings(checks: Iterator[tuple[Severity, str]], match: str = "", view: str = "") -> Iterator[StoreFinding]:
    """What a check has to say of a place; the InputError that ends it is one more."""
    try:  # a generator cannot go on after it has raised: a check yields what it can before
        for severity, message in checks:
            yield StoreFinding(severity, match, view, message)
    except InputError as error:
        yield StoreFinding("error", match, view, str(error))


def _check_reduction(store: FeatureStore) -> Iterator[tuple[Severity, str]]:
    if store.reduction is None and (store.path / REDUCTION_FILE).exists():
        yield "error", f"{REDUCTION_FILE}: a file that does not belong there"


def _check_group(root: Path, relative: str) -> Iterator[tuple[Severity, str]]:
    """A group says nothing but its attributes: what a Zarr reader would believe (consolidated metadata) is not ours."""
    document = read_json(inside(root, relative), max_bytes=METADATA_BYTES)
    if not isinstance(document, dict) or {**document, "attributes": {}} != group_metadata({}):
        yield "error", f"{relative}: not a plain group of Zarr v3"


def _check_vector(root: Path, info: MatchInfo, name: str) -> Iterator[tuple[Severity, str]]:
    """`pts` or `valid`."""
    values = read_plain(root, f"{info.id}/{name}")  # checked against its hash
    if "sha256" not in array_metadata(root, f"{info.id}/{name}")["attributes"]:
        yield "warning", f"{name}: no sha256 to check the values against"
    if values.shape != (info.num_rows,):
        yield "error", f"{name}: {len(values)} values, the match has {info.num_rows} rows"
    back = np.flatnonzero(values[1:] < values[:-1])
    if name == PTS and len(back):
        yield "error", f"{name}: goes back at row {int(back[0]) + 1}"
    if name == VALID and values.size and values.max() > 1:
        yield "error", f"{name}: row {int(np.argmax(values > 1))} is neither 0 nor 1"


def _check_labels(store: FeatureStore, info: MatchInfo) -> Iterator[tuple[Severity, str]]:
    for event in info.meta.events() or []:
        if info.meta.grid.frame(event.position_ms) >= info.num_rows:
            end_ms = 1000 * info.seconds
            yield "error", f"label {event.label} at {event.position_ms} ms lies after the end ({end_ms:.0f} ms)"
        if store.classes and event.label not in store.classes:
            yield "error", f"label {event.label!r} at {event.position_ms} ms is not a class"


def _check_view(store: FeatureStore, info: MatchInfo, view: str) -> Iterator[tuple[Severity, str]]:
    relative, wanted = f"{info.id}/{FEATURES}/{view}", (info.num_rows, store.settings.dim)
    rows = open_rows(store.path, relative)
    recorded = array_metadata(store.path, relative)["attributes"].get("sha256")
    digest, not_finite = _read_all(rows)
    if recorded is None:
        yield "warning", "no sha256 to check the rows against"
    if rows.shape != wanted:
        yield "error", f"shape {rows.shape}, wanted {wanted}"
    if rows.dtype != DTYPES[store.settings.dtype]:
        yield "error", f"type {rows.dtype}, wanted {store.settings.dtype}"
    if recorded not in (None, digest):
        yield "error", "the rows do not fit their sha256"
    if not_finite >= 0:
        yield "error", f"row {not_finite} holds NaN or Inf"
    with rows.path.open("rb") as file:
        file.seek(rows.layout.data_bytes)
        if file.read() != rows.layout.tail:  # nothing hides between the rows and the index, which was checked above
            yield "error", "the padding behind the last row is not zero"


def _read_all(rows: MappedRows) -> tuple[str, int]:
    """(sha256 of all rows, first row that is not finite or -1), in blocks."""
    digest, not_finite = hashlib.sha256(), -1
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + _BLOCK_ROWS])
        digest.update(block.data)
        if not_finite < 0 and (row := first_not_finite(block)) >= 0:
            not_finite = start + row
    return digest.hexdigest(), not_finite


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


def _check_folders(root: Path, relative: str, skip: Sequence[str] = ()) -> Iterator[tuple[Severity, str]]:
    """Strays, links, and groups without metadata: in a match, or (empty) between the matches, which are skipped."""
    skipped, todo = {Path(name) for name in skip}, [root / relative]
    while todo:
        parent = todo.pop()
        here = parent.relative_to(root)
        if len(here.parts) > _MAX_DEPTH:
            yield "error", f"{'/'.join(here.parts[:8])}...: folders nested too deep"
            continue
        where = "" if here == Path() else here.as_posix()
        arrays = _array_files(root, where) if where and relative else None
        wanted = ({METADATA} if where else {METADATA, REDUCTION_FILE}) if arrays is None else arrays
        try:
            found = sorted(real_files(parent, deep=arrays is not None), key=lambda each: each[0])
        except InputError as error:
            yield "error", str(error)
            continue
        # isdir, as Path.is_dir raises where the link leads to what may not be seen
        links = [path for path, status in found if stat.S_ISLNK(status.st_mode) and os.path.isdir(path)]  # noqa: PTH112
        yield from (("error", f"{path.relative_to(root).as_posix()}: a link") for path in links)
        folders = [path for path, status in found if stat.S_ISDIR(status.st_mode)]
        if arrays is None:
            left_out = {PARTIAL} if where else {PARTIAL, MANIFESTS, REDUCTION}  # the reduction is looked at by itself
            below = [path for path in folders if path.name not in left_out and here / path.name not in skipped]
            todo += reversed(below)
        files = {path.relative_to(parent).as_posix() for path in {path for path, _ in found} - {*folders, *links}}
        for name in sorted(files - wanted):
            yield "error", f"{(here / name).as_posix()}: a file that does not belong there"
        if METADATA not in files:
            yield "error", f"{here}: a folder without {METADATA}"


def _array_files(root: Path, relative: str) -> set[str] | None:
    """Files of an array, within its folder; None where it is no array."""
    try:
        return {METADATA, "c/" + "/".join("0" * len(array_metadata(root, relative)["shape"]))}
    except InputError:
        return None
