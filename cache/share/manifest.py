"""What a place that shares a store says of each match: its files with sizes and SHA-256. Pure; nothing is trusted.

Next to the plain Zarr hierarchy a shared store has a folder `__manifest__` with one small JSON document per match,
written last: a match without one is not there yet. A document is never changed, as its name holds its own hash.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from ...errors import InputError, reading_record
from ...events import SPLITS
from ...files import parse_json
from ..layout import (
    DTYPES,
    FEATURES,
    MANIFESTS,
    METADATA,
    PTS,
    VALID,
    ShardLayout,
    canonical_json,
    check_id,
    check_view,
)
from ..settings import FeatureSettings

FORMAT = 1
"""Version of the documents."""
INDEX = "index.json"
"""All documents in one file, for places that cannot list a folder (HTTP) and for a quick start everywhere."""
MAX_DOCUMENT_BYTES = 1 << 20
MAX_INDEX_BYTES = 32 << 20
"""Of an index: 20,000 matches. Parsed, the worst that a stranger can put there takes 25 times its size."""
MAX_JSON_BYTES = 16 << 20
"""Largest `zarr.json` that is fetched: 100,000 labels."""
MATCH_FILES = (
    METADATA,
    f"{FEATURES}/{METADATA}",
    f"{PTS}/{METADATA}",
    f"{PTS}/c/0",
    f"{VALID}/{METADATA}",
    f"{VALID}/c/0",
)
"""Files of a match beside its views."""
_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 1 << 50
_MAX_VIEWS = 100
_CURE = f"have the match pushed again with --replace, or remove the file from {MANIFESTS} there"


def view_files(view: str) -> tuple[str, str]:
    """Files of one view within its match: metadata, then the shard."""
    return f"{FEATURES}/{view}/{METADATA}", f"{FEATURES}/{view}/c/0/0"


@dataclass(frozen=True)
class FileEntry:
    """One file of a match."""

    num_bytes: int
    """>= 0."""
    sha256: str
    """Hex digest of the file; empty in an outline, which knows the hashes of JSON files only."""


@dataclass(frozen=True, kw_only=True)
class MatchManifest:
    """All files of a match."""

    match_id: str
    split: str | None
    num_rows: int
    """T."""
    num_events: int | None
    """Labels; None where the match is unlabelled."""
    settings_key: str
    """Of the store that it belongs to."""
    files: Mapping[str, FileEntry]
    """Path within the match's folder -> entry: `MATCH_FILES` and those of each view, no other."""

    def __post_init__(self) -> None:
        check_id(self.match_id)
        if not 1 <= len(self.views) <= _MAX_VIEWS:
            got = f"{len(self.views)} views"
            raise InputError(f"match {self.match_id[:80]!r}", got=got, wanted=f"1 to {_MAX_VIEWS}")
        for view in self.views:
            check_view(view)

    @property
    def views(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted({path.split("/")[1] for path in self.files if path.endswith("/c/0/0")}))

    def require_fitting(self, settings: FeatureSettings, *, where: str) -> None:
        """Raise InputError where a size is not that of so many rows, before a byte of the file is fetched."""
        layout = ShardLayout(self.num_rows, settings.dim, DTYPES[settings.dtype])
        wanted = {f"{PTS}/c/0": 8 * self.num_rows, f"{VALID}/c/0": self.num_rows}
        wanted |= {view_files(view)[1]: layout.file_bytes for view in self.views}
        for path, num_bytes in wanted.items():
            if self.files[path].num_bytes != num_bytes:
                got = f"{self.files[path].num_bytes} bytes"
                what = f"{where}: {self.match_id}/{path}: size does not fit {self.num_rows} rows"
                raise InputError(what, got=got, wanted=f"{num_bytes} bytes", cure=_CURE)

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(entry.num_bytes for entry in self.files.values())

    def only(self, views: Iterable[str]) -> "MatchManifest":
        """With some of its views."""
        paths = [*MATCH_FILES, *(path for view in views for path in view_files(view))]
        return replace(self, files={path: self.files[path] for path in paths})

    def joined(self, other: "MatchManifest") -> "MatchManifest":
        """With the views of both; the match's own files are the same."""
        return replace(self, files={**self.files, **other.files})

    def differing(self, other: "MatchManifest") -> list[str]:
        """In what they differ, in words, as far as both have it; empty: the same content.

        The JSON files are enough: each array's holds the hash of its values.
        """
        parts = {"labels, split or video": METADATA, "pts": f"{PTS}/{METADATA}", "valid": f"{VALID}/{METADATA}"}
        parts |= {f"view {view}": view_files(view)[0] for view in set(self.views) & set(other.views)}
        return [name for name, path in parts.items() if self.files[path].sha256 != other.files[path].sha256]

    @cached_property
    def document(self) -> bytes:
        """As it lies in `MANIFESTS`."""
        return canonical_json(self.record, where=self.match_id)

    @property
    def record(self) -> dict[str, Any]:
        """Plain JSON values."""
        files = {path: [entry.num_bytes, entry.sha256] for path, entry in sorted(self.files.items())}
        return {
            "format": FORMAT,
            "match": self.match_id,
            "split": self.split,
            "num_rows": self.num_rows,
            "num_events": self.num_events,
            "settings_key": self.settings_key,
            "files": files,
        }

    @cached_property
    def name(self) -> str:
        """Of the document's file: which match, and which content."""
        return f"{id_hash(self.match_id)}.{hashlib.sha256(self.document).hexdigest()[:32]}.json"

    @classmethod
    def parse(cls, document: bytes, *, name: str, where: str) -> "MatchManifest":
        """From its document, fetched from anywhere. Raises InputError as `of_record`."""
        try:
            record = parse_json(document, where="its document")
        except InputError as error:
            what = f"{where}: manifest {name}: {error.what}"
            raise InputError(what, got=error.got, wanted=error.wanted, cure=_CURE) from None
        return cls.of_record(record, name=name, where=where)

    @classmethod
    def of_record(cls, record: Any, *, name: str, where: str) -> "MatchManifest":
        """From parsed JSON of the file `name`, which has to fit its hash.

        Raises:
            InputError: damaged, or it says what no manifest of ours says.
        """
        where = f"{where}: manifest {name}"
        try:
            with reading_record("damaged"):
                if record["format"] != FORMAT:
                    raise ValueError(f"format {record['format']!r}"[:80])
                made = cls(
                    match_id=_text(record["match"]),
                    split=record["split"],
                    num_rows=_count(record["num_rows"]),
                    num_events=None if record["num_events"] is None else _count(record["num_events"]),
                    settings_key=_hash(record["settings_key"]),
                    files={
                        _text(path): FileEntry(_count(num_bytes), _hash(sha256))
                        for path, (num_bytes, sha256) in record["files"].items()
                    },
                )
        except InputError as error:
            raise InputError(f"{where}: {error.what}", got=error.got, wanted=error.wanted, cure=_CURE) from None
        made._check(name, where)
        return made

    def _check(self, name: str, where: str) -> None:
        if self.split is not None and self.split not in SPLITS:
            raise InputError(f"{where}: split is not known", got=repr(self.split)[:80], wanted=", ".join(SPLITS))
        wanted = {*MATCH_FILES, *(path for view in self.views for path in view_files(view))}
        if set(self.files) != wanted:
            wrong = sorted(wanted ^ set(self.files))
            raise InputError(f"{where}: files of a match are missing, or others named", got=", ".join(wrong[:3])[:200])
        for path, entry in self.files.items():
            if path.endswith(METADATA) and entry.num_bytes > MAX_JSON_BYTES:
                raise InputError(f"{where}: {path} is too large", wanted=f"at most {MAX_JSON_BYTES} bytes")
        if name != self.name:
            raise InputError(f"{where}: does not fit its own hash", got=self.name, cure=_CURE)


def id_hash(match_id: str) -> str:
    """First half of the names of a match's documents."""
    return hashlib.sha256(match_id.encode()).hexdigest()[:32]


def is_manifest(name: str) -> bool:
    """Whether a file of `MANIFESTS` is a match's document."""
    return _NAME.fullmatch(name) is not None


def index_document(manifests: Iterable[MatchManifest]) -> bytes:
    """`INDEX` of manifests."""
    record = {"format": FORMAT, "manifests": {each.name: each.record for each in manifests}}
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_index(document: bytes, *, where: str) -> tuple[dict[str, MatchManifest], dict[str, InputError]]:
    """From `INDEX`: manifests by name of their document, and what is wrong with those that cannot be used.

    Raises:
        InputError: the index itself is damaged.
    """
    path = f"{where}/{MANIFESTS}/{INDEX}"
    try:
        record = parse_json(document, where=path)
        with reading_record(f"{path}: damaged"):
            if record["format"] != FORMAT:
                raise ValueError(f"format {record['format']!r}"[:80])
            records = {name: each for name, each in record["manifests"].items() if is_manifest(name)}
    except InputError as error:
        raise InputError(error.what, got=error.got, wanted=error.wanted, cure="push again") from None
    made, damaged = {}, {}
    for name, each in records.items():
        try:
            made[name] = MatchManifest.of_record(each, name=name, where=where)
        except InputError as error:
            damaged[name] = error
    return made, damaged


def require_apart(match_ids: Collection[str], *, where: str) -> None:
    """Raise InputError where a match would lie inside another."""
    known = set(match_ids)
    for match_id in sorted(known):
        around = [parent for parent in map(str, PurePosixPath(match_id).parents) if parent in known]
        if around:
            cure = "rename one of them, or leave it out by --match"
            raise InputError(f"{where}: match {match_id!r} lies inside match {around[0]!r}", cure=cure)


def choose(
    manifests: Collection[MatchManifest],
    *,
    match_ids: Collection[str] = (),
    splits: Collection[str] = (),
    views: Collection[str] = (),
    where: str,
) -> list[MatchManifest]:
    """Those asked for, in order of id, with the views asked for; empty: all.

    Raises:
        InputError: a match is not there, none is left, one lies inside another, or a match lacks a view.
    """
    known = {each.match_id: each for each in manifests}
    missing = sorted(set(match_ids) - set(known))
    if missing:
        some = ", ".join(sorted(known)[:3])
        raise InputError(
            f"{where}: no match {missing[0]!r}", got=f"{len(known)} matches: {some}", cure="bas cache info"
        )
    asked = [known[match_id] for match_id in sorted(set(match_ids) or known)]
    chosen = [each for each in asked if not splits or each.split in splits]
    if not chosen:
        have = ", ".join(sorted({str(each.split) for each in manifests})) or "no match at all"
        raise InputError(f"{where}: no match to take", got=f"splits: {have}", wanted=", ".join(splits) or "a match")
    require_apart([each.match_id for each in chosen], where=where)
    for each in chosen:
        lacking = sorted(set(views) - set(each.views))
        if lacking:
            raise InputError(f"{where}: match {each.match_id!r} has no view {lacking[0]!r}", got=", ".join(each.views))
    return [each.only(views) if views else each for each in chosen]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text"[:80])
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_BYTES:
        raise ValueError(f"{value!r} is no count"[:80])
    return value


def _hash(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is no SHA-256"[:80])
    return value
