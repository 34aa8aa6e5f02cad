"""Where matches come from: a store on this machine, or a place that shares one; manifests say what it has."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ...errors import InputError
from ...files import parse_json, read_bounded
from ..layout import FEATURES, FORMAT, MANIFESTS, METADATA, inside
from ..reduction import Reduction
from ..rows import array_metadata
from ..settings import FeatureSettings
from ..shard import DTYPES, damaged
from ..store import FeatureStore
from .components import fetch_components
from .manifest import (
    INDEX,
    MATCH_FILES,
    MAX_DOCUMENT_BYTES,
    MAX_INDEX_BYTES,
    MAX_JSON_BYTES,
    FileEntry,
    MatchManifest,
    id_hash,
    parse_all,
    parse_index,
    view_files,
)
from .place import Place, TooLarge, folder_of, is_folder
from .places import open_place

_BLOCK_BYTES = 4 << 20
_MANIFESTS_AT_ONCE = 32


class Source(Protocol):
    """A store to take matches from."""

    name: str
    """Path or URL."""

    def record(self) -> Mapping[str, Any]:
        """The object `bas` of its root attributes. Raises InputError where it is no store."""

    def reduction(self, settings: FeatureSettings) -> Reduction | None:
        """How its rows were made from full ones; None where they are full. Raises InputError."""

    def manifests(self) -> list[MatchManifest]:
        """Of all its matches; outlines where hashing takes a look at every byte. Raises InputError."""

    def offered(self) -> tuple[list[MatchManifest], Mapping[str, InputError]]:
        """As `manifests`, and what is wrong with matches that cannot be shared, by id. Raises InputError."""

    def whole(self, outline: MatchManifest) -> MatchManifest:
        """With the hash of every file."""

    def stream(self, match_id: str, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """Bytes of a match's file. Raises InputError."""


def open_source(url: str) -> Source:
    """The store at a path or URL."""
    return StoreSource(FeatureStore.open(folder_of(url))) if is_folder(url) else PlaceSource(open_place(url))


class StoreSource:
    """A store in a folder: what it holds is what its folders hold."""

    def __init__(self, store: FeatureStore) -> None:
        self.name, self.store = str(store.path), store

    def record(self) -> Mapping[str, Any]:
        """The root's record."""
        return self.store.record

    def reduction(self, settings: FeatureSettings) -> Reduction | None:  # noqa: ARG002 (of the protocol)
        """The store's own."""
        return self.store.reduction

    def manifests(self) -> list[MatchManifest]:
        """Outlines: the hashes of JSON files only."""
        return [self.outline(match_id) for match_id in self.store.matches()]

    def offered(self) -> tuple[list[MatchManifest], Mapping[str, InputError]]:
        """Outlines of matches that are whole; a damaged one does not keep the others."""
        outlines, damaged = [], {}
        for match_id in self.store.matches():
            try:
                outlines.append(self.outline(match_id))
            except InputError as error:
                damaged[match_id] = error
        return outlines, damaged

    def outline(self, match_id: str) -> MatchManifest:
        """Of one match.

        Raises:
            InputError: a file is missing, or it is not laid out in our way.
        """
        store = self.store
        info, paths = store.match(match_id), [*MATCH_FILES]
        for view in store.views(match_id):
            paths += view_files(view)
        return MatchManifest(
            match_id=match_id,
            split=info.meta.split,
            num_rows=info.num_rows,
            num_events=None if info.meta.labels is None else len(info.meta.labels),
            settings_key=store.settings.key(),
            files={path: self._entry(match_id, path) for path in paths},
        )

    def whole(self, outline: MatchManifest) -> MatchManifest:
        """Reads every byte of the match's files. Raises InputError where values do not fit their hash: nothing damaged
        is sent."""
        files = {
            path: entry if entry.sha256 else FileEntry(entry.num_bytes, self._sha256(outline.match_id, path))
            for path, entry in outline.files.items()
        }
        return replace(outline, files=files)

    def stream(self, match_id: str, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """Reads the file."""
        place = inside(self.store.path, f"{match_id}/{path}")
        try:
            with place.open("rb") as file:
                file.seek(start)
                left = num_bytes - start
                while left > 0 and (block := file.read(min(_BLOCK_BYTES, left))):
                    left -= len(block)
                    yield block
        except OSError as error:
            raise InputError(f"{place}: cannot be read", got=error.strerror) from None

    def _entry(self, match_id: str, path: str) -> FileEntry:
        place = inside(self.store.path, f"{match_id}/{path}")
        try:
            if path.endswith(METADATA):
                place.stat()  # tells what is missing from what cannot be read
                data = read_bounded(place, max_bytes=MAX_JSON_BYTES)
                _require_hash(place, path, data)
                return FileEntry(len(data), hashlib.sha256(data).hexdigest())
            return FileEntry(place.stat().st_size, "")
        except FileNotFoundError:
            raise InputError(
                f"{place}: missing",
                wanted="an array as bas writes it",
                cure="run `bas cache verify`; a store of another layout cannot be shared",
            ) from None

    def _sha256(self, match_id: str, path: str) -> str:
        """Of a file of values; these, without what follows them in a shard, have to fit the hash in their metadata."""
        place, array = inside(self.store.path, f"{match_id}/{path}"), path.partition("/c/")[0]
        metadata = array_metadata(self.store.path, f"{match_id}/{array}")
        num_bytes = math.prod(metadata["shape"]) * DTYPES[metadata["data_type"]].itemsize
        try:
            with place.open("rb") as file:
                digest = hashlib.sha256()
                while num_bytes and (block := file.read(min(_BLOCK_BYTES, num_bytes))):
                    num_bytes -= len(block)
                    digest.update(block)
                if digest.hexdigest() != metadata["attributes"].get("sha256"):
                    raise damaged(place, "values do not fit their sha256")
                digest.update(file.read())
        except OSError as error:
            raise InputError(f"{place}: cannot be read", got=error.strerror) from None
        return digest.hexdigest()


class PlaceSource:
    """A shared store at a place; nothing that it says is trusted."""

    def __init__(self, place: Place) -> None:
        self.name, self.place = place.url, place

    def record(self) -> Mapping[str, Any]:
        """The root's record."""
        record = root_record(self.place)
        if record is None:
            raise InputError(
                f"{self.name}: no store there",
                got=f"no {METADATA}",
                wanted="a store that `bas cache push` brought",
                cure=f"check the address, and your rights; to bring one there: bas cache push STORE {self.name}",
            )
        return record

    def reduction(self, settings: FeatureSettings) -> Reduction | None:
        """Fetches it."""
        return fetch_components(self.place, settings)

    def manifests(self) -> list[MatchManifest]:
        """As the documents there say."""
        there = listing(self.place)
        if there.damaged:
            raise next(iter(there.damaged.values()))
        return list(there.manifests.values())

    def offered(self) -> tuple[list[MatchManifest], Mapping[str, InputError]]:
        """All, or nothing where one is damaged: the place is not to be trusted then."""
        return self.manifests(), {}

    def whole(self, outline: MatchManifest) -> MatchManifest:
        """It is whole already."""
        return outline

    def stream(self, match_id: str, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """Fetches it."""
        return self.place.stream(f"{match_id}/{path}", start=start, num_bytes=num_bytes)


@contextmanager
def named(url: str) -> Iterator[None]:
    """Errors name a store that is no folder by its URL: as a path, `s3://` is cut to `s3:/`."""
    try:
        yield
    except InputError as error:
        what = error.what if url in error.what else error.what.replace(str(Path(url)), url)
        raise InputError(what, got=error.got, wanted=error.wanted, cure=error.cure) from None


def root_record(place: Place) -> dict[str, Any] | None:
    """The object `bas` of a shared store's root attributes; None where there is no store.

    Raises:
        InputError: something else is there, or another format.
    """
    data = place.read(METADATA, max_bytes=MAX_JSON_BYTES)
    if data is None:
        return None
    try:
        record = parse_json(data, where=METADATA)["attributes"]["bas"]
        if not isinstance(record, dict):
            raise TypeError("no object")
    except InputError as error:
        raise InputError(f"{place.url}: not a store of bas", got=error.what, cure="check the address") from None
    except (LookupError, TypeError) as error:
        raise InputError(f"{place.url}: not a store of bas", got=repr(error)[:120], cure="check the address") from None
    if record.get("format") != FORMAT:
        raise InputError(
            f"{place.url}: the store has another format", got=repr(record.get("format"))[:80], wanted=FORMAT
        )
    return record


@dataclass(frozen=True)
class Listing:
    """What a place says of its matches."""

    manifests: Mapping[str, MatchManifest]
    """By match id: the newest of each."""
    names: tuple[str, ...]
    """Of all documents there."""
    damaged: Mapping[str, InputError]
    """By name: documents that cannot be used."""

    def names_of(self, match_id: str) -> tuple[str, ...]:
        """Of all documents of one match."""
        return tuple(name for name in self.names if name.startswith(f"{id_hash(match_id)}."))


def listing(place: Place) -> Listing:
    """Read the manifests at a place. The index saves fetching each; what it lacks is fetched, where the place can list.

    Raises:
        InputError: the place can neither list nor has an index, or its index is damaged then.
    """
    names = place.manifests()
    packed, damaged = parse_all(_index(place, may_lack=names is not None), where=place.url)
    if names is None:
        names = [*packed, *damaged]
    else:
        fetched, damaged = parse_all(_fetched(place, [name for name in names if name not in packed]), where=place.url)
        packed |= fetched
    found: dict[str, MatchManifest] = {}
    for made in (packed[name] for name in names if name in packed):  # in this order: the newest of one match comes last
        old = found.get(made.match_id)
        if old is None or old.differing(made) or set(old.views) <= set(made.views):
            found[made.match_id] = made
    return Listing(found, tuple(names), damaged)


def _index(place: Place, *, may_lack: bool) -> dict[str, bytes]:
    """Documents by name; none where the index is missing or damaged and the place can do without."""
    where = f"{MANIFESTS}/{INDEX}"
    try:
        index = place.read(where, max_bytes=MAX_INDEX_BYTES)
        if index is not None:
            return parse_index(index, where=place.url)
    except InputError:
        if not may_lack:
            raise
    if not may_lack:
        cure = "serve a folder that `bas cache push STORE FOLDER` made"
        raise InputError(f"{place.url}: no index of matches", wanted=where, cure=cure)
    return {}


def _fetched(place: Place, names: list[str]) -> dict[str, bytes]:
    """Documents by name; without those that were replaced just now. Empty where one is too large."""

    def fetch(name: str) -> bytes | None:
        try:
            return place.read(f"{MANIFESTS}/{name}", max_bytes=MAX_DOCUMENT_BYTES)
        except TooLarge:
            return b""

    if not names:
        return {}
    with ThreadPoolExecutor(_MANIFESTS_AT_ONCE) as pool:
        return {name: data for name, data in zip(names, pool.map(fetch, names), strict=True) if data is not None}


def _require_hash(place: Path, path: str, data: bytes) -> None:
    """Arrays name the hash of their values, so that metadata is enough to tell contents apart.

    Raises:
        InputError: this one does not.
    """
    if path in (METADATA, f"{FEATURES}/{METADATA}"):
        return
    try:
        named = parse_json(data, where=str(place))["attributes"]["sha256"]
    except (ValueError, LookupError, TypeError):
        named = None
    if not isinstance(named, str):
        raise InputError(
            f"{place}: names no sha256 of its values", cure="a store that bas did not write cannot be shared"
        )
