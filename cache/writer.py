"""Writing a match: staged under `.partial`, resumable at any row, seen by readers whole or not at all.

T: rows (frames of the grid), C: channels of a feature row.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import disk_errors, replace_synced, sync_folder, write_synced
from .files import AppendFile
from .job import MatchJob, cast_rows
from .layout import FEATURES, METADATA, PTS, VALID, canonical_json, group_metadata, plain_metadata, shard_metadata
from .partial import JOURNAL, TREE, lock_match, publish, resumable
from .rows import read_plain
from .shard import CHUNK_ROWS, DTYPES


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
        try:
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
        with self._or_close():
            for start, stop in _pieces(self.rows_appended, len(flags)):
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
            self._journal["committing"] = True
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

    def _row_bytes(self, name: str) -> int:
        return 1 if name == VALID else self._job.layout.row_bytes

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
                file = AppendFile(self._path(name), keep_bytes=rows_done * self._row_bytes(name))
                self._files[name] = file
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
        data = canonical_json(self._journal, where=self._job.match_id)
        replace_synced(self._job.partial / f"{JOURNAL}.new", self._job.partial / JOURNAL, data)

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
                file.append(job.layout.tail())
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
        for parent, _, _ in os.walk(tree, topdown=False):
            sync_folder(Path(parent))


def _pieces(row: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut `count` rows from `row` on at multiples of `CHUNK_ROWS`: (start, stop) from 0."""
    start = 0
    while start < count:
        stop = min(count, start + CHUNK_ROWS - (row + start) % CHUNK_ROWS)
        yield start, stop
        start = stop
