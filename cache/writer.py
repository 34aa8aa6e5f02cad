"""Writing a match: staged under `.partial`, resumable at any row, seen by readers whole or not at all.

T: rows (frames of the grid), C: channels of a feature row.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import disk_errors, sync_path, write_atomic, write_synced
from .layout import (
    CHUNK_ROWS,
    DTYPES,
    FEATURES,
    METADATA,
    PARTIAL,
    PTS,
    VALID,
    ShardLayout,
    canonical_json,
    group_metadata,
    inside,
    partial_name,
    plain_metadata,
    shard_metadata,
)
from .match import MatchMeta, read_match
from .partial import JOURNAL, TREE, lock_match, publish, read_journal
from .rows import first_not_finite, read_plain
from .settings import FeatureSettings


@dataclass(frozen=True, kw_only=True)
class MatchJob:
    """What is to be written; checked on creation. The fields are those of `FeatureStore.writer`."""

    root: Path
    match_id: str
    views: tuple[str, ...]
    num_rows: int
    pts: npt.NDArray[Any]
    meta: MatchMeta
    provenance: Mapping[str, Any]
    settings: FeatureSettings

    def __post_init__(self) -> None:
        where = f"match {self.match_id!r}"
        if self.num_rows < 1:
            raise InputError(f"{where}: nothing to write", got=f"{self.num_rows} rows", wanted="at least one frame")
        if not self.views or len(set(self.views)) != len(self.views):
            raise InputError(f"{where}: views are not usable", got=self.views, wanted="different names, at least one")
        if self.pts.shape != (self.num_rows,) or self.pts.dtype.kind not in "iu":
            got = f"{self.pts.dtype} {self.pts.shape}"
            raise InputError(f"{where}: pts do not fit the rows", got=got, wanted=f"whole numbers ({self.num_rows},)")
        if (np.diff(self.pts) < 0).any():
            row = int(np.argmax(np.diff(self.pts) < 0)) + 1
            raise InputError(f"{where}: pts go back", got=f"{self.pts[row - 1]}, {self.pts[row]} at row {row}")
        canonical_json(self.attributes(""), where=f"{where}, provenance")
        canonical_json(self.record, where=f"{where}, meta")

    @cached_property
    def layout(self) -> ShardLayout:
        """Geometry of each view's shard."""
        return ShardLayout(self.num_rows, self.settings.dim, DTYPES[self.settings.dtype])

    @cached_property
    def pts_bytes(self) -> bytes:
        """`pts` as stored."""
        return self.pts.astype("<i8").tobytes()

    @property
    def record(self) -> dict[str, Any]:
        """The match's attributes."""
        return {"bas_match": self.meta.to_json(num_rows=self.num_rows)}

    def attributes(self, sha256: str) -> dict[str, Any]:
        """Attributes of a view's array."""
        return {"sha256": sha256, "engine": dict(self.provenance)}

    @property
    def video(self) -> dict[str, Any]:
        """What tells the video from others."""
        return {name: self.meta.video.get(name) for name in ("bytes", "sha256")}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that must be equal for unfinished work to be carried on, as plain JSON."""
        record = {
            "settings_key": self.settings.key(),
            "num_rows": self.num_rows,
            "views": list(self.views),
            "pts_sha256": hashlib.sha256(self.pts_bytes).hexdigest(),
            "video": self.video,
            "provenance": dict(self.provenance),
        }
        copy: dict[str, Any] = json.loads(json.dumps(record))  # tuples become lists, as in the journal
        return copy

    @property
    def partial(self) -> Path:
        """Folder of the unfinished work."""
        return self.root / PARTIAL / partial_name(self.match_id)

    def check_place(self) -> bool:
        """Whether the store has the match already, so that this job adds views to it.

        Raises:
            InputError: a view is there already, the match's id is the folder of other matches or lies inside a match,
                a link leads out of the store, or the stored match has other frames or another video.
        """
        require_own_place(self.root, self.match_id)
        target = inside(self.root, self.match_id)
        if not (target / FEATURES).is_dir():
            return False
        there = [view for view in self.views if (target / FEATURES / view).exists()]
        if there:
            cure = "nothing to do; to extract it again, delete the match's folder first"
            raise InputError(f"match {self.match_id!r} is in the store already", got=", ".join(there), cure=cure)
        mine, stored = self.video, read_match(self.root, self.match_id).meta.video
        theirs = {name: stored.get(name) for name in mine}
        cure = "add views from the same video file, or delete the match's folder and extract all views again"
        if any(mine[name] != theirs[name] for name in mine if None not in (mine[name], theirs[name])):
            raise InputError(f"match {self.match_id!r}: another video", got=mine, wanted=theirs, cure=cure)
        if read_plain(self.root, f"{self.match_id}/{PTS}").tobytes() != self.pts_bytes:
            raise InputError(f"match {self.match_id!r}: stored with other frames (pts differ)", cure=cure)
        return True


def require_own_place(root: Path, match_id: str) -> None:
    """Raise InputError where a match would lie inside another match, or around others."""
    for folder in list((root / match_id).parents)[: match_id.count("/")]:
        if (folder / FEATURES).exists():
            raise InputError(f"match {match_id!r} lies inside a match", got=folder, cure="rename one of them")
    target = root / match_id
    if not (target / FEATURES).is_dir() and target.is_dir() and any(entry.is_dir() for entry in target.iterdir()):
        raise InputError(f"match id {match_id!r} is a folder of other matches", cure="rename one of them")


def cast_rows(
    values: npt.ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any], *, where: str, first_row: int
) -> npt.NDArray[Any]:
    """Rows (n, C) in the type of the store: float of any width as float16, uint8 as it is.

    Errors begin with `where` (match and view) and count rows from `first_row`, that of values[0] in the match.

    Raises:
        InputError: another shape or type, or a value that is not finite once it is cast.
    """
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind != dtype.kind:
        got = f"{array.dtype} {array.shape}"
        raise InputError(f"{where}: rows do not fit", got=got, wanted=f"{dtype} {shape}, or a wider float")
    if dtype.kind != "f":
        return array.astype(dtype, casting="equiv", copy=False)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    row = first_not_finite(cast)
    if row >= 0:
        channel = int(np.argmin(np.isfinite(cast[row])))
        raise InputError(
            f"{where}: row {first_row + row}, channel {channel} is not finite as {dtype}",
            got=array[row, channel],
            wanted=f"a number within +-{np.finfo(dtype).max}",
            cure="check weights and precision of the backbone (extract in float32)",
        )
    return cast


_BLOCK_BYTES = 1 << 20


class AppendFile:
    """A file that only grows, with sha256 and crc32c of everything in it. After an error: close it, open it again."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Open after the first `keep_bytes`; what follows is cut off. Raises EOFError where there are fewer."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.num_bytes, self.crc32c, self._sha256 = path, 0, 0, hashlib.sha256()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            # read all that is kept: both digests are of the whole file
            while self.num_bytes < keep_bytes:
                block = os.read(self._handle, min(_BLOCK_BYTES, keep_bytes - self.num_bytes))
                if not block:
                    raise EOFError(f"{path.name} holds {self.num_bytes} bytes, not {keep_bytes}")
                self._count(block)
            os.ftruncate(self._handle, keep_bytes)
        except BaseException:
            self.close()
            raise

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes so far."""
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end."""
        rest = memoryview(data)
        while rest:  # a disk that is nearly full takes a part
            rest = rest[os.write(self._handle, rest) :]
        self._count(data)

    def sync(self) -> None:
        """Return when everything is on the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _count(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self.crc32c = int(google_crc32c.extend(self.crc32c, data))
        self._sha256.update(data)


def resumable(job: MatchJob) -> tuple[str, int, dict[str, int]]:
    """(why it must be begun anew or empty, rows saved, checksum of the saved rows by file)."""
    journal = read_journal(job.partial)
    if journal is None:
        return "the journal of the unfinished work is missing or damaged", 0, {}
    mine, theirs = job.fingerprint, journal["fingerprint"]
    wrong = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if wrong:
        names = ["video"] if "video" in wrong else wrong  # another video has other frames and times as well
        changes = (f"{name} was {theirs.get(name)}, now {mine.get(name)}" for name in names)
        return "made from something else: " + "; ".join(changes), 0, {}
    rows_done = journal["rows_done"]
    if not 0 <= rows_done <= job.num_rows or rows_done % CHUNK_ROWS:
        return f"the journal says {rows_done} rows", 0, {}
    return "", rows_done, journal["crc32c"]


class MatchWriter:
    """Appends rows of one match, in order; see `FeatureStore.writer`. Use it in a `with`.

    Leaving the `with` without `commit` keeps the unfinished work for the next run.
    """

    def __init__(self, job: MatchJob, *, resume: bool, journal_seconds: float) -> None:
        self._job, self._journal_seconds = job, journal_seconds
        self.rows_done = 0
        """Rows saved for good, the same for all views: a multiple of 256. Append from this row on."""
        self.rows_appended = 0
        """Rows taken by `append`, those saved before included."""
        self.num_invalid = 0
        """Rows so far, those saved before included, whose frame could not be decoded."""
        self.restarted_because = ""
        """Why unfinished work was discarded, in words; empty where it was carried on, or there was none."""
        self._files: dict[str, AppendFile] = {}
        self._lock = lock_match(job.root, job.match_id)
        try:  # under the lock: what is in the place, and how far unfinished work has come, no longer changes
            with disk_errors(job.partial):
                self._adding = job.check_place()
                self._begin(resume=resume)
        except BaseException:
            self.close()
            raise

    def append(self, rows: Mapping[str, npt.ArrayLike], valid: npt.ArrayLike) -> None:
        """Take the next n rows, n >= 0; saved after each 256th row, at most every `journal_seconds`.

        Args:
            rows: view -> (n, C) float32 (float16 and float64 too; uint8 for a store of uint8), finite.
            valid: (n,) bool: False where the frame could not be decoded.

        Raises:
            InputError: shapes, views or count do not fit; a value is not finite as float16 (names match, row, channel);
                the disk is full. What was saved stays good.
        """
        cast, flags = self._check(rows, valid)
        stop = 0
        with self._or_close():
            while stop < len(flags):  # in pieces that end where progress may be saved
                start, stop = stop, min(len(flags), stop + CHUNK_ROWS - self.rows_appended % CHUNK_ROWS)
                for view, values in cast.items():
                    self._files[view].append(values[start:stop].tobytes())
                self._files[VALID].append(flags[start:stop].tobytes())
                self.num_invalid += stop - start - int(flags[start:stop].sum())
                self.rows_appended += stop - start
                due = time.monotonic() - self._saved_at >= self._journal_seconds
                if self.rows_appended % CHUNK_ROWS == 0 and due:
                    self._save()

    def commit(self) -> None:
        """Finish the match: it appears in the store whole.

        Raises:
            InputError: rows are missing, `valid` differs from the stored match's, or the disk is full.
        """
        job = self._job
        self._require_open()
        if self.rows_appended != job.num_rows:
            raise InputError(
                f"match {job.match_id!r}: rows are missing", got=self.rows_appended, wanted=f"{job.num_rows} rows"
            )
        with self._or_close():
            self._stage()
            self._journal["committing"] = True  # from here on, whoever finds the journal completes the commit
            self._write_journal()
            publish(job.root, job.partial, job.match_id, adding=self._adding)
            shutil.rmtree(job.partial)
        self.close()

    def close(self) -> None:
        """Let go of the match; unfinished work stays. A second call does nothing."""
        for file in self._files.values():
            file.close()
        self._files = {}
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _or_close(self) -> Iterator[None]:
        """Close on any failure: the staged files may then end anywhere, and only a fresh start knows where to cut."""
        try:
            with disk_errors(self._job.partial):
                yield
        except BaseException:
            self.close()
            raise

    def _require_open(self) -> None:
        if not self._files:
            cure = "begin again: it goes on from the last saved row"
            raise InputError(f"match {self._job.match_id!r}: the writer is closed", cure=cure)

    def _path(self, name: str) -> Path:
        tree = self._job.partial / TREE
        return tree / VALID / "c" / "0" if name == VALID else tree / FEATURES / name / "c" / "0" / "0"

    def _begin(self, *, resume: bool) -> None:
        """Open the staged files after the last saved row, or empty."""
        job = self._job
        if job.partial.exists():
            why, rows_done, checksums = resumable(job) if resume else ("resuming was turned off", 0, {})
            if not why and rows_done:
                why = self._open_files(rows_done, checksums)
            self.rows_done = 0 if why else rows_done
            self.restarted_because = why
            if not self.rows_done:
                shutil.rmtree(job.partial)
        if not self.rows_done:
            self._open_files(0, {})
        self.rows_appended = self.rows_done
        self.num_invalid = self._path(VALID).read_bytes()[: self.rows_done].count(0)
        self._journal = {
            "match": job.match_id,
            "adding": self._adding,
            "committing": False,
            "fingerprint": job.fingerprint,
        }
        self._save()

    def _open_files(self, rows_done: int, checksums: Mapping[str, int]) -> str:
        """Open every file for appending; why its first rows cannot be kept, or empty."""
        try:
            for name in (*self._job.views, VALID):
                row_bytes = 1 if name == VALID else self._job.layout.row_bytes
                self._files[name] = file = AppendFile(self._path(name), keep_bytes=rows_done * row_bytes)
                if rows_done and file.crc32c != checksums.get(name):
                    raise EOFError(f"saved rows of {name} do not fit their checksum")
        except EOFError as error:
            for file in self._files.values():
                file.close()
            self._files = {}
            return str(error)
        return ""

    def _check(
        self, rows: Mapping[str, npt.ArrayLike], valid: npt.ArrayLike
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.uint8]]:
        """Rows as stored, and flags 0 or 1."""
        job = self._job
        self._require_open()
        if set(rows) != set(job.views):
            raise InputError(f"match {job.match_id!r}: views differ", got=sorted(rows), wanted=sorted(job.views))
        flags = np.asarray(valid)
        if flags.ndim != 1 or flags.dtype != np.bool_ or len(flags) > job.num_rows - self.rows_appended:
            raise InputError(
                f"match {job.match_id!r}: valid is not usable",
                got=f"{flags.dtype} {flags.shape} at row {self.rows_appended}",
                wanted=f"bool (n,), {job.num_rows} rows in all",
            )
        shape = (len(flags), job.settings.dim)
        cast = {}
        for view, values in rows.items():
            where = f"match {job.match_id!r}, view {view}"
            cast[view] = cast_rows(values, shape, job.layout.dtype, where=where, first_row=self.rows_appended)
        return cast, flags.astype(np.uint8)

    def _save(self) -> None:
        """Bring all rows so far to the disk, then say so in the journal."""
        for file in self._files.values():
            file.sync()
        self._journal["rows_done"] = self.rows_appended
        self._journal["crc32c"] = {name: file.crc32c for name, file in self._files.items()}
        self._write_journal()
        self.rows_done, self._saved_at = self.rows_appended, time.monotonic()

    def _write_journal(self) -> None:
        write_atomic(self._job.partial / JOURNAL, canonical_json(self._journal, where=self._job.match_id))

    def _stage(self) -> None:
        """Finish the staged tree: ends of the shards, pts, metadata; all of it on the disk."""
        job, tree = self._job, self._job.partial / TREE
        hashes = {name: file.sha256 for name, file in self._files.items()}
        if self._adding:
            stored = read_plain(job.root, f"{job.match_id}/{VALID}")
            if hashlib.sha256(stored.tobytes()).hexdigest() != hashes[VALID]:
                cure = "delete the match's folder and extract all views again"
                raise InputError(f"match {job.match_id!r}: other frames are valid than stored", cure=cure)
        for name, file in self._files.items():
            if name != VALID:
                file.append(job.layout.tail)
            file.sync()
        write_synced(tree / PTS / "c" / "0", job.pts_bytes)
        documents: dict[str, dict[str, Any]] = {
            "": group_metadata(job.record),
            FEATURES: group_metadata({}),
            PTS: plain_metadata(job.num_rows, DTYPES["int64"], {"sha256": hashlib.sha256(job.pts_bytes).hexdigest()}),
            VALID: plain_metadata(job.num_rows, DTYPES["uint8"], {"sha256": hashes[VALID]}),
        }
        for view in job.views:
            documents[f"{FEATURES}/{view}"] = shard_metadata(job.layout, job.attributes(hashes[view]))
        for folder, document in documents.items():
            write_synced(tree / folder / METADATA, canonical_json(document, where=job.match_id))
        for parent, _, _ in os.walk(tree, topdown=False):  # names of files are on the disk before those of folders
            sync_path(Path(parent))
