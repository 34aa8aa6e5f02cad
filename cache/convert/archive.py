"""Exports of ours back into a store: the same rows, times, labels and settings, so that the store is the same again.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import MatchBusy
from ..layout import DTYPES, METADATA
from ..store import FeatureStore
from .archived import MATCH_NAME, ROOT_NAME, ArchivedMatch, ArchiveRoot, Times
from .containers import CONTAINERS
from .importing import ImportResult, ImportSummary
from .request import FindFolders, ImportRequest, Progress, SourceFormat, files_below
from .tables import Table, blocks


@dataclass(frozen=True)
class _Opened:
    """A match whose headers are checked."""

    match: ArchivedMatch
    tables: Mapping[str, Table]
    times: Times


def import_archive(request: ImportRequest, _: FindFolders, on_progress: Progress) -> ImportSummary:
    """Import every match of an export.

    Raises:
        InputError: the export is damaged, an option would change what it says, the store has other settings, or no
            match can be used.
    """
    for name in ("model", "fps"):
        if getattr(request, name) is not None:
            raise InputError(f"--{name} cannot be chosen here", got=f"an export of bas, which knows its {name}")
    root = ArchiveRoot.read(request.root)
    if root.container not in CONTAINERS:
        got, wanted = repr(root.container)[:80], ", ".join(CONTAINERS)
        raise InputError(f"{request.root / ROOT_NAME}: container is not known", got=got, wanted=wanted)
    places = [path.parent for path in files_below(request.root) if path.name == MATCH_NAME]
    opened = {place: _open_or_error(place, request.root, root) for place in places}
    errors = [each for each in opened.values() if isinstance(each, InputError)]
    if len(errors) == len(opened):
        raise errors[0] if errors else InputError(f"{request.root}: no match", wanted=f"<match>/{MATCH_NAME}")
    store = FeatureStore.create_or_open(
        request.store,
        root.settings,
        classes=root.classes,
        software=root.software,
        origin=root.origin,
        reduction=root.reduction,
    )
    results = []
    for number, (place, each) in enumerate(opened.items()):
        on_progress(number, len(opened))
        name = place.relative_to(request.root).as_posix()
        results.append(_failed(name, each) if isinstance(each, InputError) else _import_or_explain(store, each))
    on_progress(len(opened), len(opened))
    return ImportSummary(request.store, root.settings, tuple(results), ())


def _open_or_error(place: Path, top: Path, root: ArchiveRoot) -> _Opened | InputError:
    try:
        return _open(place, top, root)
    except InputError as error:
        return error


def _open(place: Path, top: Path, root: ArchiveRoot) -> _Opened:
    """Raises InputError where what the match says of itself does not fit together."""
    match = ArchivedMatch.read(place / MATCH_NAME)
    if match.info.id != place.relative_to(top).as_posix():
        raise InputError(f"{place / MATCH_NAME}: names another match", got=repr(match.info.id), cure="move it back")
    tables, times = CONTAINERS[root.container].read(place, match)
    wanted = (match.info.num_rows, root.settings.dim), DTYPES[root.settings.dtype]
    for table in tables.values():
        if (table.shape, table.dtype) != wanted:
            got = f"{table.dtype} {table.shape}"
            raise InputError(f"{table.where}: does not fit the match", got=got, wanted=f"{wanted[1]} {wanted[0]}")
    return _Opened(match, tables, times.check(match, place))


def _failed(match_id: str, error: InputError) -> ImportResult:
    return ImportResult(match_id, "", "failed", message=str(error))


def _import_or_explain(store: FeatureStore, opened: _Opened) -> ImportResult:
    info = opened.match.info
    try:
        there = store.views(info.id)
        missing = {view: each for view, each in opened.match.views.items() if view not in there}
        resumed = False
        if missing:
            for view in missing:
                _check_hash(opened.tables[view], opened.match.views[view].sha256)
            for views in _of_one_engine(missing):
                resumed |= _write(store, opened, views)
        return ImportResult(
            info.id,
            info.meta.split or "",
            "resumed" if resumed else "imported" if missing else "already there",
            rows=info.num_rows,
            events=None if info.meta.labels is None else len(info.meta.labels),
            half1_offset_frames=info.meta.extra.get("half1_offset_frames"),
            offset_from=str(info.meta.extra.get("offset_from", "")),
            unscored_share=float(1 - opened.times.valid.mean()),
            message="" if missing or _is_same(store, opened.match) else "stored from another export: left alone",
        )
    except MatchBusy as error:
        return ImportResult(info.id, info.meta.split or "", "busy elsewhere", message=str(error))
    except InputError as error:
        return _failed(info.id, error)


def _is_same(store: FeatureStore, match: ArchivedMatch) -> bool:
    return ArchivedMatch.of(store, match.info.id, tuple(match.views)).to_json() == match.to_json()


def _check_hash(table: Table, recorded: str | None) -> None:
    """Read a table once before any of it is written.

    Raises:
        InputError: its rows are others than the export says.
    """
    digest = hashlib.sha256()
    for start, stop in blocks(*table.shape):
        digest.update(np.ascontiguousarray(table.read(start, stop)).data)
    if recorded not in (None, digest.hexdigest()):
        raise InputError(
            f"{table.where}: the rows do not fit their sha256",
            got=digest.hexdigest(),
            wanted=recorded,
            cure="fetch the export again",
        )


def _of_one_engine(views: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Views that were made together, so that what is kept with the arrays stays what it was."""
    groups: dict[str, list[str]] = {}
    for view, each in views.items():
        groups.setdefault(json.dumps(each.engine, sort_keys=True), []).append(view)
    yield from map(tuple, groups.values())


def _write(store: FeatureStore, opened: _Opened, views: tuple[str, ...]) -> bool:
    """Write some views; whether unfinished work was carried on."""
    info, times = opened.match.info, opened.times
    with store.writer(
        info.id,
        views=views,
        num_rows=info.num_rows,
        pts_ticks=times.pts,
        match_meta=info.meta,
        provenance=opened.match.views[views[0]].engine,
    ) as writer:
        first_row = writer.rows_done
        for start, stop in blocks(*opened.tables[views[0]].shape):
            begin = max(start, first_row)
            if begin < stop:
                rows = {view: opened.tables[view].read(begin, stop) for view in views}
                writer.append(rows, times.valid[begin:stop])
        writer.commit()
    return first_row > 0


FORMAT = SourceFormat(
    f"a folder that `bas cache export` made ({ROOT_NAME})",
    lambda root, _: (root / ROOT_NAME).is_file() and not (root / METADATA).exists(),
    import_archive,
)
