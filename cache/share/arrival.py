"""One match on its way into a store on this machine: staged under `.partial`, checked, then seen whole.

What arrives is trusted in nothing: sizes and hashes have to be those of the manifest, shapes and types those of the
store, and every check of `bas cache verify` has to pass before the match appears.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import InputError
from ...files import disk_errors, read_json, replace_synced, sync_folder
from ..layout import (
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
    same_layout,
    shard_metadata,
)
from ..match import read_match
from ..partial import JOURNAL, TREE, lock_match, publish, read_journal
from ..rows import array_metadata
from ..store import FeatureStore
from ..verify import check_match
from ..writer import AppendFile, require_own_place
from .manifest import FileEntry, MatchManifest, view_files
from .place import DamagedInTransit, OnBytes
from .source import Source

_OLD = "old"
"""Folder of the replaced match, until the new one is in its place."""


class Arrival:
    """A match on its way; use it in a `with`: it holds the match's lock. Leaving it keeps what has arrived."""

    def __init__(
        self, store: FeatureStore, manifest: MatchManifest, *, where: str, adding: bool, replacing: bool
    ) -> None:
        """Take the match's lock, and keep what has arrived of the same content before.

        Args:
            store: where it goes.
            manifest: whole; of the views that are to arrive.
            where: path or URL that it comes from, for errors.
            adding: the store has the match, and gets further views of it.
            replacing: the store has the match with other content, which goes.

        Raises:
            InputError: the match cannot have this place in the store, or the disk refuses.
            MatchBusy: another process writes it.
        """
        self._store, self._manifest, self._where = store, manifest, where
        self._adding, self._replacing = adding, replacing
        self._folder = inside(store.path, f"{PARTIAL}/{partial_name(manifest.match_id)}")
        self._lock = lock_match(store.path, manifest.match_id)
        try:
            with disk_errors(self._folder):
                require_own_place(store.path, manifest.match_id)
                self._begin()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def receive(self, source: Source, path: str, on_bytes: OnBytes) -> None:
        """Bring one file, from where an earlier run was cut off; a file that comes wrong is fetched once more.

        Raises:
            DamagedInTransit: it is not what the manifest says; names both.
            InputError: the place cannot be reached, or the disk refuses.
        """
        entry, target = self._manifest.files[path], self._folder / TREE / path
        with disk_errors(target):
            kept = min(target.stat().st_size, entry.num_bytes) if target.is_file() else 0
            got = self._fetch(source, path, kept, on_bytes)
            if got != entry:
                got = self._fetch(source, path, 0, on_bytes)
        if got != entry:
            raise DamagedInTransit(
                f"{source.name}: {self._manifest.match_id}/{path} is not what its manifest says",
                got=f"{got.num_bytes} bytes, SHA-256 {got.sha256}",
                wanted=f"{entry.num_bytes} bytes, SHA-256 {entry.sha256}",
                cure="it was damaged there, or is being replaced: try again, or have it pushed again with --replace",
            )

    def require_fitting(self) -> None:
        """Hold what the metadata says against the store's settings and the manifest, before the values are fetched.

        Raises:
            DamagedInTransit: shapes, types, sizes or the match's record do not fit.
        """
        try:
            self._check_records()
            self._check_arrays()
        except InputError as error:
            raise DamagedInTransit(
                f"{self._where}: {self._as_there(error.what)}",
                got=error.got,
                wanted=error.wanted,
                cure="do not trust this store; have its owner run `bas cache verify` and push the match again",
            ) from None

    def _check_records(self) -> None:
        manifest = self._manifest
        info = read_match(self._folder, TREE)
        said = (info.num_rows, info.meta.split, None if info.meta.labels is None else len(info.meta.labels))
        if said != (manifest.num_rows, manifest.split, manifest.num_events):
            wanted = (manifest.num_rows, manifest.split, manifest.num_events)
            raise InputError(f"match {manifest.match_id!r}: record and manifest differ", got=said, wanted=wanted)
        for group in ("", f"/{FEATURES}"):
            path = self._folder / f"{TREE}{group}" / METADATA
            document = read_json(path)
            if not isinstance(document, dict) or {**document, "attributes": {}} != group_metadata({}):
                raise InputError(f"{path}: not a plain group of Zarr v3")

    def _check_arrays(self) -> None:
        manifest, settings, tree = self._manifest, self._store.settings, self._folder / TREE
        layout = ShardLayout(manifest.num_rows, settings.dim, DTYPES[settings.dtype])
        wanted = {view_files(view): (shard_metadata(layout, {}), layout.file_bytes) for view in manifest.views}
        for name, dtype in ((PTS, "int64"), (VALID, "uint8")):
            metadata = plain_metadata(manifest.num_rows, DTYPES[dtype], {})
            wanted[f"{name}/{METADATA}", f"{name}/c/0"] = metadata, manifest.num_rows * DTYPES[dtype].itemsize
        for (document, values), (metadata, num_bytes) in wanted.items():
            array = array_metadata(self._folder, f"{TREE}/{document.removesuffix(METADATA)}")
            if not isinstance(array["attributes"].get("sha256"), str):
                raise InputError(f"{tree / document}: no hash of its values", wanted="attributes with sha256")
            if not same_layout(array, metadata):
                plain = f"{metadata['data_type']} {tuple(metadata['shape'])}, laid out as bas does"
                raise InputError(f"{tree / document}: another array than the store's", wanted=plain)
            if manifest.files[values].num_bytes != num_bytes:
                got = f"{manifest.files[values].num_bytes} bytes"
                raise InputError(f"{tree / values}: size does not fit", got=got, wanted=f"{num_bytes} bytes")

    def discard(self) -> None:
        """Forget what has arrived."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def publish(self) -> None:
        """Check everything that has arrived, then let it appear in the store.

        Raises:
            InputError: a check of `bas cache verify` fails; nothing appears then.
        """
        staged = FeatureStore(self._folder, self._store.record)
        errors = [finding.message for finding in check_match(staged, TREE) if finding.severity == "error"]
        if errors:
            raise DamagedInTransit(
                f"{self._where}: match {self._manifest.match_id!r}: what arrived is not usable",
                got=self._as_there("; ".join(errors))[:400],
                cure="have its owner run `bas cache verify`",
            )
        root, match_id = self._store.path, self._manifest.match_id
        with disk_errors(self._folder):
            require_own_place(root, match_id)
            for parent, _, _ in os.walk(self._folder / TREE, topdown=False):
                sync_folder(Path(parent))
            self._write_journal(committing=True)
            if self._replacing:
                (root / match_id).rename(self._folder / _OLD)
            publish(root, self._folder, match_id, adding=self._adding)
            shutil.rmtree(self._folder)

    def _begin(self) -> None:
        """Keep the staged files where they are of the same content, else begin empty."""
        journal = read_journal(self._folder)
        if journal is None or journal["fingerprint"] != self._fingerprint or journal["adding"] != self._adding:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._write_journal(committing=False)

    @property
    def _fingerprint(self) -> dict[str, Any]:
        views = [f"{view} (replaced)" for view in self._manifest.views] if self._replacing else self._manifest.views
        return {"manifest": self._manifest.name, "views": list(views)}

    def _write_journal(self, *, committing: bool) -> None:
        journal = {
            "match": self._manifest.match_id,
            "adding": self._adding,
            "committing": committing,
            "fingerprint": self._fingerprint,
            "rows_done": 0,
            "crc32c": {},
        }
        data = canonical_json(journal, where=self._manifest.match_id)
        replace_synced(self._folder / f"{JOURNAL}.new", self._folder / JOURNAL, data)

    def _fetch(self, source: Source, path: str, kept: int, on_bytes: OnBytes) -> FileEntry:
        """Append to the first `kept` bytes; size and hash of what is there then. Never more than announced."""
        limit = self._manifest.files[path].num_bytes
        file = AppendFile(self._folder / TREE / path, keep_bytes=kept)
        try:
            if kept < limit:
                for block in source.stream(self._manifest.match_id, path, start=kept, num_bytes=limit):
                    if file.num_bytes + len(block) > limit:
                        return FileEntry(file.num_bytes + len(block), "longer than announced")
                    file.append(block)
                    on_bytes(len(block))
            file.sync()
            return FileEntry(file.num_bytes, file.sha256)
        finally:
            file.close()

    def _as_there(self, text: str) -> str:
        """A message about the staged match, with its name in place of the path on this machine."""
        return text.replace(str(self._folder / TREE), self._manifest.match_id)
