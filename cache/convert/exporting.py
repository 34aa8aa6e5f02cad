"""`bas cache export`: a store as NumPy or HDF5 files for other programs. One way: people push and pull.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import InputError
from ...files import disk_errors, read_json, write_json_atomic, write_text_atomic
from ...workers import SILENT, MatchResult, Progress, Summary, each_match
from ..layout import FEATURES, PTS, VALID
from ..match import MatchInfo
from ..reduction import REDUCTION_FILE, Reduction, write_reduction
from ..store import FeatureStore
from .annotations import annotated_video

Container = Literal["npy", "h5"]
ROOT_NAME, MATCH_NAME, H5_NAME = "bas-export.json", "match.json", "features.h5"
_TIMES_MS = "times_ms"
_BLOCK_ROWS = 8192


def export_store(
    store: FeatureStore,
    folder: Path,
    *,
    container: Container = "npy",
    matches: Sequence[str] = (),
    splits: Sequence[str] = (),
    views: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Summary:
    """Write every match chosen (empty: all) that is not there yet; a match that was cut off is begun anew.

    Every row is checked against its hash. npy: `<match>/<view>.npy`, pts.npy, valid.npy, times_ms.npy; h5:
    `<match>/features.h5` with the same.

    Raises:
        InputError: nothing chosen, or the folder holds something else. A match that fails is in the summary instead.
    """
    started = time.perf_counter()
    chosen = _choose(store, matches, splits)
    root = {
        "format": 2,
        "container": container,
        "settings": store.settings.to_json(),
        "settings_key": store.settings.key(),
        "classes": list(store.classes),
        "software": store.software,
        "decode": _decoding(store.reduction),
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        there = read_json(folder / ROOT_NAME) if (folder / ROOT_NAME).exists() else None
        if there is None and any(folder.iterdir()):
            raise InputError(f"{folder}: a folder with other things in it", cure="name another folder with --out")
        wanted = {name: root[name] for name in ("container", "settings_key", "classes")}
        if there is not None and wanted != {name: there.get(name) for name in wanted}:
            what = f"{folder}: holds an export in another form, or of another store"
            raise InputError(what, got=there.get("container"), wanted=container, cure="name another folder with --out")
        write_json_atomic(folder / ROOT_NAME, root)
        if store.reduction is not None:
            write_reduction(folder, store.reduction)
    progress.started(len(chosen), 0)
    results = each_match(chosen, lambda match_id: _export(store, match_id, folder, container, views), progress)
    _describe(store, folder, [result.match_id for result in results if result.is_done])
    return Summary(
        results=tuple(results),
        target=str(folder),
        seconds=time.perf_counter() - started,
        unit="rows",
        amount=sum(result.num_rows for result in results if result.status == "exported"),
        record={"format": container, "settings_key": store.settings.key()},
    )


def _choose(store: FeatureStore, matches: Sequence[str], splits: Sequence[str]) -> list[str]:
    there = store.matches()
    unknown = [match_id for match_id in matches if match_id not in there]
    if unknown:
        got = f"{len(there)} matches: {', '.join(there[:3])}" + (", ..." if len(there) > 3 else "")
        raise InputError(f"{store.path}: no match {unknown[0]!r}", got=got, cure=f"bas cache info {store.path}")
    chosen = [match_id for match_id in there if not matches or match_id in matches]
    if splits:
        chosen = [match_id for match_id in chosen if store.match(match_id).meta.split in splits]
    if not chosen:
        raise InputError(f"{store.path}: no match to export", got=", ".join(splits) or "an empty store")
    return chosen


def _export(
    store: FeatureStore, match_id: str, folder: Path, container: Container, views: Sequence[str]
) -> MatchResult:
    """Write a match beside its place, and move it there when all of it is on the disk."""
    started, info = time.perf_counter(), store.match(match_id)
    names = [view for view in store.views(match_id) if not views or view in views]
    missing = sorted(set(views) - set(names))
    if missing:
        raise InputError(f"{match_id}: no view {', '.join(missing)}", got=", ".join(store.views(match_id)))
    hashes = {view: store.source_of(match_id, view)["sha256"] for view in names}
    record = {**info.meta.to_json(num_rows=info.num_rows), "id": match_id, "views": hashes}
    place, status = folder / match_id, "already there"
    if place.exists():
        there = read_json(place / MATCH_NAME) if (place / MATCH_NAME).is_file() else None
        if there != record:
            what = f"{place}: in the way, or exported before with other rows, labels or views"
            raise InputError(what, cure="delete that folder, or name another with --out")
    else:
        status = "exported"
        staged = folder / f".export-{os.getpid()}"
        shutil.rmtree(staged, ignore_errors=True)
        with disk_errors(staged):
            staged.mkdir()
            try:
                _write_arrays(store, info, hashes, staged, container)
                if info.meta.labels is not None:
                    document = {"UrlLocal": match_id, "annotations": record["labels"]}
                    write_json_atomic(staged / "Labels-ball.json", document)
                write_json_atomic(staged / MATCH_NAME, record)
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(place)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    return MatchResult(
        match_id=match_id,
        status=status,
        num_rows=info.num_rows,
        seconds=time.perf_counter() - started,
        columns={"views": " ".join(names)},
    )


def _write_arrays(
    store: FeatureStore, info: MatchInfo, hashes: dict[str, str | None], folder: Path, container: Container
) -> None:
    shape, dtype = (info.num_rows, store.settings.dim), np.dtype(store.settings.dtype)
    pts = store.pts(info.id)
    vectors = {
        PTS: pts,
        VALID: store.valid(info.id),
        _TIMES_MS: (pts - info.meta.origin_ticks) * float(1000 * info.meta.time_base),
    }
    if container == "h5":
        import h5py

        with h5py.File(folder / H5_NAME, "w") as file:
            for view, sha256 in hashes.items():
                _copy_rows(store, info.id, view, sha256, file.create_dataset(f"{FEATURES}/{view}", shape, dtype))
            for name, values in vectors.items():
                file[name] = values
        return
    for view, sha256 in hashes.items():
        if view in vectors:
            raise InputError(f"view {view!r} cannot be a file beside {view}.npy", cure="--format h5")
        table = np.lib.format.open_memmap(folder / f"{view}.npy", mode="w+", dtype=dtype, shape=shape)
        _copy_rows(store, info.id, view, sha256, table)
        table.flush()
    for name, values in vectors.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _copy_rows(store: FeatureStore, match_id: str, view: str, sha256: str | None, table: Any) -> None:
    """Write the rows of a view, as stored, into a table. InputError after the last where their hash is another."""
    digest, rows = hashlib.sha256(), store.rows(match_id, view)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + _BLOCK_ROWS])
        digest.update(block.data)
        table[start : start + len(block)] = block
    if sha256 not in (None, digest.hexdigest()):
        what, cure = f"{match_id}, view {view}: the rows do not fit their sha256", f"bas cache verify {store.path}"
        raise InputError(what, got=digest.hexdigest(), wanted=sha256, cure=cure)


def _decoding(reduction: Reduction | None) -> str:
    """How stored rows become numbers, and those full rows again, for users of other programs."""
    if reduction is None:
        return "rows as they are"
    steps = "row * scale + offset" if reduction.levels else "row"
    nearly = steps if reduction.components is None else f"({steps}) @ components + mean"
    return f"what heads see: {steps}; full rows, nearly: {nearly}; arrays in {REDUCTION_FILE}"


def _describe(store: FeatureStore, folder: Path, match_ids: Sequence[str]) -> None:
    """Write splits, classes and OpenTAD's annotation file; its videos are called `MATCH/VIEW`, as their files are."""
    splits: dict[str, list[str]] = {}
    videos: dict[str, Any] = {}
    for match_id in match_ids:
        info = store.match(match_id)
        if info.meta.split:
            splits.setdefault(info.meta.split, []).append(match_id)
        views = read_json(folder / match_id / MATCH_NAME)["views"]
        view = "identity" if "identity" in views else min(views)
        videos[f"{match_id}/{view}"] = annotated_video(info, store.classes)
    with disk_errors(folder):
        if splits:
            write_json_atomic(folder / "splits.json", splits)
        if store.classes:
            write_text_atomic(folder / "classes.txt", "\n".join(store.classes) + "\n")
        write_json_atomic(folder / "annotations.json", {"database": videos})
