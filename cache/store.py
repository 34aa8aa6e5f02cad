"""The feature store: a folder that any Zarr v3 reader opens, with one group per match.

T: rows (frames of the grid), C: channels of a feature row.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, reading_record
from ..files import FileLock, disk_errors, read_json, reading_errors, remove_stale, unreadable, write_atomic
from .layout import (
    FEATURES,
    FORMAT,
    MAX_ID_PARTS,
    METADATA,
    METADATA_BYTES,
    PARTIAL,
    PTS,
    REDUCTION,
    VALID,
    attribute,
    canonical_json,
    check_id,
    check_view,
    group_metadata,
    inside,
)
from .match import MatchInfo, MatchMeta, Terms, WeightsOrigin, read_match
from .partial import lock_match, require_real, sweep
from .reduction import REDUCTION_FILE, Reduction, read_reduction, write_reduction
from .rows import MappedRows, array_metadata, damaged, open_rows, read_plain
from .settings import FeatureSettings
from .writer import MatchJob, MatchWriter

_ROOT_WAIT_SECONDS = 30.0
_ORIGIN, _TERMS = "weights_origin", "terms"


class FeatureStore:
    """A store of features; made by `open` or `create_or_open`. Reading takes no lock and writes nothing."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        """The store's folder."""
        self.record: Mapping[str, Any] = record
        """The object `bas` of the root attributes."""
        self.settings = FeatureSettings.from_json(record["settings"], where=str(path / METADATA))
        """What the features were made with."""
        names = record["classes"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes {names!r}")
        self.classes: tuple[str, ...] = tuple(names)
        """Class names of the labels, in the order of their ids 1..; may be empty."""
        self.software: dict[str, str] = {str(name): str(version) for name, version in record["software"].items()}
        """Versions that the store was made with."""
        self.origin: WeightsOrigin | None = None
        """Where the backbone's weights came from; None where that was not written down."""
        if record.get(_ORIGIN) is not None:
            self.origin = WeightsOrigin.from_json(record[_ORIGIN], where=str(path / METADATA))
        self.terms = Terms.from_json(record.get(_TERMS) or {})
        """Licence and origin, as far as they were said."""
        self._num_rows: dict[str, tuple[tuple[int, int, int], int]] = {}

    @classmethod
    def open(cls, path: Path | str) -> "FeatureStore":
        """Open a store for reading.

        Raises:
            InputError: missing, not a store, another format, or its settings do not fit their hash.
        """
        path = Path(path)
        return cls.of_record(path, _root_record(path))

    @classmethod
    def of_record(cls, path: Path, record: Mapping[str, Any]) -> "FeatureStore":
        """The store at a path whose root attributes are known; they are not trusted.

        Raises:
            InputError: damaged, or the settings do not fit their hash.
        """
        with reading_record(f"{path / METADATA}: damaged", cure="fetch the store again"):
            store = cls(path, record)
        if record.get("settings_key") not in (store.settings.key(), store.settings.key_with_name()):
            raise InputError(
                f"{path / METADATA}: the settings do not fit their hash",
                got=str(record.get("settings_key"))[:80],
                wanted=store.settings.key(),
                cure="the settings were edited after the features were made: restore the file, or extract again",
            )
        return store

    @classmethod
    def create_or_open(
        cls,
        path: Path | str,
        settings: FeatureSettings,
        *,
        classes: Sequence[str],
        software: Mapping[str, str],
        origin: WeightsOrigin | None = None,
        terms: Terms | None = None,
        reduction: Reduction | None = None,
    ) -> "FeatureStore":
        """Open a store for writing, make it where there is none, and clear away what a kill left of finished matches.

        Several processes may call it at once. A store that was made without labels takes over the classes; one that
        does not name the run that its weights came from takes over the origin (its tensors are the same). A store of
        reduced rows is made with their `reduction`, whose settings are `settings`. What `terms` say replaces what the
        store says.

        Raises:
            InputError: the store has other settings (names them) or other classes, the folder holds something else,
                or the disk refuses.
        """
        path = Path(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            require_real(path / PARTIAL)
            remove_stale(path / REDUCTION_FILE)
            others = any(entry.name not in (PARTIAL, REDUCTION, REDUCTION_FILE) for entry in path.iterdir())
            if others and not (path / METADATA).exists():  # in this order: another process may make the store just now
                raise _not_a_store(path, "a folder with other things in it", cure="name another folder")
            lock_path = path / PARTIAL / "root.lock"
            lock = FileLock.acquire(lock_path, wait_seconds=_ROOT_WAIT_SECONDS)
            if lock is None:
                raise InputError(f"{path}: in use", got=FileLock.owner(lock_path), cure="try again")
            with lock:
                if not (path / METADATA).exists():
                    _require_reduction(settings, reduction, path)
                    if reduction is not None:
                        write_reduction(path, reduction)  # before the root: a store without it would be of no use
                    new = {
                        "format": FORMAT,
                        "settings": settings.to_json(),
                        "settings_key": settings.key(),
                        "classes": list(classes),
                        "software": dict(software),
                    }
                    _write_root(path, cls(path, new).joined_record((), origin, terms))
                else:
                    stored = cls.open(path)
                    settings.require_equal(stored.settings, store=str(path))  # before anything is written
                    record = stored.joined_record(classes, origin, terms)
                    if record != stored.record:
                        _write_root(path, record)
                sweep(path)
        return cls.open(path)

    def create_like(self, path: Path, settings: FeatureSettings, reduction: Reduction | None) -> "FeatureStore":
        """Another store, made or opened as by `create_or_open`, for matches of this one."""
        return FeatureStore.create_or_open(
            path,
            settings,
            classes=self.classes,
            software=self.software,
            origin=self.origin,
            terms=self.terms,
            reduction=reduction,
        )

    def joined_record(
        self, classes: Sequence[str], origin: WeightsOrigin | None, terms: Terms | None
    ) -> Mapping[str, Any]:
        """The root's record with classes, origin and terms of matches that are to come; the same where nothing changes.

        Raises:
            InputError: other classes.
        """
        record, terms_then = dict(self.record), self.terms.joined(terms)
        if origin is not None and (self.origin is None or (origin.is_run and not self.origin.is_run)):
            record[_ORIGIN] = origin.to_json()
        if terms_then != self.terms:
            record[_TERMS] = dict(vars(terms_then))
        if classes and not self.classes:
            record["classes"] = list(classes)
        elif not set(classes) <= set(self.classes):
            raise InputError(
                f"{self.path}: made with other classes",
                got=", ".join(classes),
                wanted=", ".join(self.classes),
                cure="use the store's class list, or name another folder",
            )
        return record

    @cached_property
    def reduction(self) -> Reduction | None:
        """How the rows were made from full ones; None where they are full. Raises InputError: missing or damaged."""
        return read_reduction(self.path, self.settings)

    def matches(self) -> list[str]:
        """Ids of all matches, sorted. Reads no metadata: a folder with `features` in it is a match.

        So is a folder that may not be read: who asks for the match is told why.

        Raises:
            InputError: the store may not be read, a match's folder whose name is no id, or folders nested too deep.
        """
        return sorted(_walk(self.path, ""))

    def match(self, match_id: str) -> MatchInfo:
        """What is kept with a match. Raises InputError: no such match, or its record is damaged."""
        stamp = self._stamp(self._require(match_id))  # before it is read: a later change is then seen
        found = read_match(self.path, match_id)
        self._num_rows[match_id] = stamp, found.num_rows
        return found

    def _rows_of(self, match_id: str) -> int:
        """Rows that the match's record tells of; it is read again only where it has changed."""
        stamp, num_rows = self._num_rows.get(match_id, (None, 0))
        return num_rows if stamp == self._stamp(match_id) else self.match(match_id).num_rows

    def _stamp(self, match_id: str) -> tuple[int, int, int]:
        path = inside(self.path, f"{match_id}/{METADATA}")
        with reading_errors(path):
            status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def views(self, match_id: str) -> list[str]:
        """Names of a match's views, sorted; empty where the store does not have the match."""
        folder = inside(self.path, f"{check_id(match_id)}/{FEATURES}")
        with reading_errors(folder):
            if not folder.is_dir():
                return []
            entries = [*os.scandir(folder)]
        return sorted(check_view(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False))

    def rows(self, match_id: str, view: str = "identity") -> MappedRows:
        """Rows of a view, (T, C): `rows[a:b]` is a view of the mapped file (no copy).

        Raises:
            InputError: no such match or view, or it is damaged.
        """
        views = self.views(self._require(match_id))
        if check_view(view) not in views:
            raise InputError(
                f"{self.path}: match {match_id!r} has no view {view!r}",
                got=", ".join(views),
                cure=f"extract it: bas extract with the view {view}",
            )
        rows = open_rows(self.path, f"{match_id}/{FEATURES}/{view}")
        wanted = (self._rows_of(match_id), self.settings.dim)
        if rows.shape != wanted:
            raise damaged(self.path / match_id / FEATURES / view, f"shape {rows.shape}", wanted=str(wanted))
        return rows

    def pts(self, match_id: str) -> npt.NDArray[np.int64]:
        """(T,) presentation time of the video frame behind each row, in ticks of `time_base`. Raises as `rows`."""
        return self._per_row(match_id, PTS).astype(np.int64, copy=False)

    def valid(self, match_id: str) -> npt.NDArray[np.bool_]:
        """(T,) False where the video could not be decoded, or an imported source has no row. Raises as `rows`."""
        return self._per_row(match_id, VALID).astype(np.bool_)

    def _per_row(self, match_id: str, name: str) -> npt.NDArray[Any]:
        values, wanted = read_plain(self.path, f"{self._require(match_id)}/{name}"), self._rows_of(match_id)
        if values.shape != (wanted,) or values.dtype.kind not in "iu":
            got = f"{values.dtype} {values.shape}"
            raise damaged(self.path / match_id / name, got, wanted=f"whole numbers ({wanted},)")
        return values

    def source_of(self, match_id: str, view: str) -> dict[str, Any]:
        """What tells the rows of a view from others, for the provenance of what is made from them."""
        attributes = array_metadata(self.path, f"{match_id}/{FEATURES}/{view}")["attributes"]
        return {name: attributes.get(name) for name in ("sha256", "engine")}

    def writer(
        self,
        match_id: str,
        *,
        views: Sequence[str] = ("identity",),
        num_rows: int,
        pts_ticks: npt.ArrayLike,
        match_meta: MatchMeta,
        provenance: Mapping[str, Any],
        resume: bool = True,
        journal_seconds: float = 1.0,
    ) -> MatchWriter:
        """Begin, or go on with, a match; or with further views of a match that the store has.

        Args:
            match_id: see `check_id`.
            views: those that are appended together; none of them is in the store yet.
            num_rows: T, >= 1.
            pts_ticks: (T,) whole numbers, non-decreasing, in ticks of `match_meta.time_base`.
            match_meta: kept with the match; for further views only its video is compared.
            provenance: plain JSON that is kept with each array (engine, batch); work begun with another is begun anew.
            resume: False discards unfinished work.
            journal_seconds: least time between two savings of progress.

        Raises:
            InputError: an argument cannot be used, or the match does not fit what is stored.
            MatchBusy: another process writes this match.
        """
        job = MatchJob(
            root=self.path,
            match_id=check_id(match_id),
            views=tuple(check_view(view) for view in views),
            num_rows=num_rows,
            pts=np.asarray(pts_ticks),
            meta=match_meta,
            provenance=provenance,
            settings=self.settings,
        )
        return MatchWriter(job, resume=resume, journal_seconds=journal_seconds)

    def set_labels(self, match_id: str, labels: Sequence[Mapping[str, Any]], *, split: str | None) -> bool:
        """Bring labels and split of a match up to date; its rows stay. False where they are so already.

        Raises:
            InputError: no such match, or the disk refuses.
            MatchBusy: another process writes this match.
        """
        stored = self.match(match_id)
        meta = replace(stored.meta, labels=tuple(labels), split=split)
        if meta == stored.meta:
            return False
        path = inside(self.path, f"{match_id}/{METADATA}")
        record = group_metadata({"bas_match": meta.to_json(num_rows=stored.num_rows)})
        with lock_match(self.path, match_id), disk_errors(path):
            write_atomic(path, canonical_json(record, where=match_id), via=self.path / PARTIAL / "labels.json")
        return True

    def _require(self, match_id: str) -> str:
        """The id, where the store has the match."""
        folder = inside(self.path, f"{check_id(match_id)}/{FEATURES}")
        with reading_errors(folder):
            is_there = folder.is_dir()
        if not is_there:
            known = self.matches()
            raise InputError(
                f"{self.path}: no match {match_id!r}",
                got=f"{len(known)} matches: " + ", ".join(known[:3]) + (", ..." if len(known) > 3 else ""),
                cure="see `bas cache info`, or extract the match",
            )
        return match_id


def _walk(folder: Path | str, prefix: str) -> Iterator[str]:
    if prefix.count("/") > MAX_ID_PARTS:
        raise InputError(
            f"{ascii(prefix)[:80]}: folders nested too deep in the store",
            wanted=f"at most {MAX_ID_PARTS}",
            cure="remove them; do not trust this store",
        )
    try:
        with os.scandir(folder) as entries:
            folders = [e for e in entries if not e.name.startswith((PARTIAL, "__")) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # another process replaces the match just now
        return
    except OSError as error:
        if not prefix:
            raise unreadable(error, folder) from None
        yield check_id(prefix.removesuffix("/"))
        return
    if prefix and any(entry.name == FEATURES for entry in folders):
        yield check_id(prefix.removesuffix("/"))
        return
    for entry in folders:
        if prefix or entry.name != REDUCTION:
            yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _require_reduction(settings: FeatureSettings, reduction: Reduction | None, path: Path) -> None:
    """A new store of reduced rows is made with their components, and no other store with any."""
    if settings.reduction != (reduction.name if reduction else None):
        raise InputError(
            f"{path}: reduced rows and components do not go together",
            got=reduction.name if reduction else "no components",
            wanted=settings.reduction or "none",
            cure=f"make it by bas cache pca, or copy {REDUCTION_FILE} along",
        )


def _write_root(path: Path, record: Mapping[str, Any]) -> None:
    data = canonical_json(group_metadata({"bas": dict(record)}), where=str(path / METADATA))
    write_atomic(path / METADATA, data, via=path / PARTIAL / "root.json")


def _root_record(path: Path) -> Mapping[str, Any]:
    """The object `bas` of the root attributes, of a format that we read."""
    if not path.is_dir():
        raise _not_a_store(path, "no such folder" if not path.exists() else "a file")
    if not (path / METADATA).is_file():
        raise _not_a_store(path, f"a folder without {METADATA}")
    record = attribute(read_json(path / METADATA, max_bytes=METADATA_BYTES), "bas")
    if not isinstance(record, dict):
        raise _not_a_store(path, "a Zarr hierarchy that bas did not make", cure="import it: bas cache import")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path}: the store has another format",
            got=json.dumps(record.get("format"))[:80],
            wanted=FORMAT,
            cure="use the version of bas that made the store (its root attributes name it)",
        )
    return record


def _not_a_store(path: Path, got: str, *, cure: str = "name the folder that `bas extract --out` made") -> InputError:
    return InputError(f"{path}: not a feature store", got=got, wanted=f"a folder with our {METADATA}", cure=cure)
