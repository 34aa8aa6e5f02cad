"""Where matches come from: a store on this machine, or a place that shares one; manifests say what it has."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import InputError
from ...files import open_bytes, parse_json, read_bounded, reading_errors
from ..layout import DTYPES, FEATURES, FORMAT, MANIFESTS, MAX_CHANNELS, METADATA, METADATA_BYTES, attribute, inside
from ..match import MatchLine, StoreInfo, info, store_info
from ..reduction import REDUCTION_FILE, Reduction, read_reduction
from ..rows import array_metadata, damaged
from ..settings import FeatureSettings
from ..store import FeatureStore
from .manifest import (
    INDEX,
    MATCH_FILES,
    MAX_DOCUMENT_BYTES,
    MAX_INDEX_BYTES,
    MAX_JSON_BYTES,
    FileEntry,
    MatchManifest,
    id_hash,
    parse_index,
    view_files,
)
from .places import OnBytes, Place, Unreachable, folder_of, is_folder, not_as_announced, open_place

_BLOCK_BYTES = 4 << 20
_MANIFESTS_AT_ONCE = 32


class StoreSource:
    """A store in a folder: what it holds is what its folders hold."""

    def __init__(self, store: FeatureStore) -> None:
        self.name, self.store = str(store.path), store
        self.hashed: dict[str, MatchManifest] = {}
        """What `whole` has hashed, by match id."""

    def reduction(self) -> Reduction | None:
        """How its rows were made from full ones; None where they are full. Raises InputError."""
        return self.store.reduction

    def offered(self) -> tuple[list[MatchManifest], Mapping[str, InputError]]:
        """Outlines of matches that are whole, and what is wrong with the others, by id."""
        outlines, damaged_ones = [], {}
        for match_id in self.store.matches():
            try:
                outlines.append(self.outline(match_id))
            except InputError as error:
                damaged_ones[match_id] = error
        return outlines, damaged_ones

    def outline(self, match_id: str) -> MatchManifest:
        """Of one match: the hashes of its JSON files only, each of which holds the hash of the array's values.

        Raises:
            InputError: a file is missing, or names no hash of its values.
        """
        match, views = self.store.match(match_id), self.store.views(match_id)
        paths = [*MATCH_FILES, *(path for view in views for path in view_files(view))]
        return MatchManifest(
            match_id=match_id,
            split=match.meta.split,
            num_rows=match.num_rows,
            num_events=None if match.meta.labels is None else len(match.meta.labels),
            settings_key=self.store.settings.key(),
            files={path: self._entry(match_id, path) for path in paths},
        )

    def whole(self, outline: MatchManifest) -> MatchManifest:
        """The manifest with the hash of every file, each of which is read for it.

        Raises:
            InputError: values do not fit their hash: nothing damaged is sent.
        """
        files = {
            path: entry if entry.sha256 else FileEntry(entry.num_bytes, self._sha256(outline.match_id, path))
            for path, entry in outline.files.items()
        }
        made = self.hashed[outline.match_id] = replace(outline, files=files)
        return made

    def fetch(self, match_id: str, path: str, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
        """Copy a match's file. Raises InputError where it is not what `entry` says."""
        place, digest, num_bytes = inside(self.store.path, f"{match_id}/{path}"), hashlib.sha256(), 0
        with reading_errors(place):
            source = open_bytes(place)
        with source, target.open("wb") as file:
            while num_bytes <= entry.num_bytes and (block := source.read(_BLOCK_BYTES)):
                on_bytes(len(block))
                digest.update(block)
                file.write(block)
                num_bytes += len(block)
        if (num_bytes, digest.hexdigest()) != (entry.num_bytes, entry.sha256):
            got = f"{num_bytes} bytes, SHA-256 {digest.hexdigest()}"
            raise not_as_announced(f"{self.name}: {match_id}/{path}", got, entry)

    def _entry(self, match_id: str, path: str) -> FileEntry:
        place = inside(self.store.path, f"{match_id}/{path}")
        try:
            if not path.endswith(METADATA):
                return FileEntry(place.stat().st_size, "")
            place.stat()  # tells what is missing from what cannot be read
        except FileNotFoundError:
            cure = "run `bas cache verify`; a store of another layout cannot be shared"
            raise InputError(f"{place}: missing", wanted="an array as bas writes it", cure=cure) from None
        data = read_bounded(place, max_bytes=MAX_JSON_BYTES)
        is_array = path not in (METADATA, f"{FEATURES}/{METADATA}")
        if is_array and not isinstance(attribute(parse_json(data, where=str(place)), "sha256"), str):
            cure = "a store that bas did not write cannot be shared"
            raise InputError(f"{place}: names no sha256 of its values", cure=cure)
        return FileEntry(len(data), hashlib.sha256(data).hexdigest())

    def _sha256(self, match_id: str, path: str) -> str:
        """Of a file of values; these, without what follows them in a shard, have to fit the hash in their metadata."""
        place, array = inside(self.store.path, f"{match_id}/{path}"), path.partition("/c/")[0]
        metadata = array_metadata(self.store.path, f"{match_id}/{array}")
        num_bytes = math.prod(metadata["shape"]) * DTYPES[metadata["data_type"]].itemsize
        try:
            with open_bytes(place) as file:
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

    def __init__(self, place: Place, *, offered: list[MatchManifest] | None = None) -> None:
        """Name the place; nothing is asked yet. `offered` saves asking what it has."""
        self.name, self._place, self._offered = place.url, place, offered

    @cached_property
    def store(self) -> FeatureStore:
        """What its root says. Raises InputError where there is no store, or it is damaged."""
        found = shared_root(self._place)
        if found is None:
            raise InputError(
                f"{self.name}: no store there",
                got=f"no {METADATA}",
                wanted="a store that `bas cache push` brought",
                cure=f"check the address, and your rights; to bring one there: bas cache push STORE {self.name}",
            )
        return found

    def reduction(self) -> Reduction | None:
        """How its rows were made from full ones, fetched. Raises InputError."""
        return fetch_reduction(self._place, self.store.settings)

    def offered(self) -> tuple[list[MatchManifest], Mapping[str, InputError]]:
        """All that is there, or nothing where one is damaged: the place is not to be trusted then."""
        if self._offered is None:
            there = listing(self._place)
            if there.damaged:
                raise next(iter(there.damaged.values()))
            self._offered = list(there.manifests.values())
        return self._offered, {}

    def whole(self, outline: MatchManifest) -> MatchManifest:
        """The same: manifests at a place are whole."""
        return outline

    def fetch(self, match_id: str, path: str, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
        """Bring a match's file here. Raises InputError where it is not what `entry` says."""
        self._place.fetch(f"{match_id}/{path}", target, entry, on_bytes)


Source = StoreSource | PlaceSource
"""A store to take matches from: in a folder, or shared at a place."""


def open_source(url: str) -> Source:
    """The store at a path or URL."""
    return StoreSource(FeatureStore.open(folder_of(url))) if is_folder(url) else PlaceSource(open_place(url))


def source_info(url: str) -> StoreInfo:
    """The table of `bas cache info` for a folder or URL; of a shared store nothing of its rows travels.

    Raises:
        InputError: no store there, or it is damaged.
    """
    if is_folder(url):
        return info(FeatureStore.open(folder_of(url)))
    source = open_source(url)
    store, manifests = source.store, source.offered()[0]
    fps = store.settings.fps_fraction
    lines = [
        MatchLine(
            match=each.match_id,
            split=each.split or "",
            rows=each.num_rows,
            minutes=None if fps is None else each.num_rows / float(fps) / 60,
            events=each.num_events,
            views=each.views,
            megabytes=each.num_bytes / 1e6,
            invalid_share=None,
        )
        for each in sorted(manifests, key=lambda each: each.match_id)
    ]
    return store_info(store, lines, source.reduction(), {})


@contextmanager
def named(url: str) -> Iterator[None]:
    """Errors name a store that is no folder by its URL: as a path, `s3://` is cut to `s3:/`."""
    try:
        yield
    except InputError as error:
        what = error.what if url in error.what else error.what.replace(str(Path(url)), url)
        raise InputError(what, got=error.got, wanted=error.wanted, cure=error.cure) from None


def shared_root(place: Place) -> FeatureStore | None:
    """What a shared store's root says; None where there is no store.

    Raises:
        InputError: something else is there, another format, or it is damaged.
    """
    data = place.read(METADATA, max_bytes=MAX_JSON_BYTES)
    if data is None:
        return None
    try:
        record = parse_json(data, where=METADATA)["attributes"]["bas"]
        if not isinstance(record, dict):
            raise TypeError("no object")
    except (InputError, LookupError, TypeError) as error:
        got = error.what if isinstance(error, InputError) else repr(error)[:120]
        raise InputError(f"{place.url}: not a store of bas", got=got, cure="check the address") from None
    if record.get("format") != FORMAT:
        got = repr(record.get("format"))[:80]
        raise InputError(f"{place.url}: the store has another format", got=got, wanted=FORMAT, cure="update bas")
    with named(place.url):
        return FeatureStore.of_record(Path(place.url), record)


def fetch_reduction(place: Place, settings: FeatureSettings) -> Reduction | None:
    """The components of a shared store of reduced rows, checked against the hash in its settings; None: full rows.

    Raises:
        InputError: missing or damaged.
    """
    if settings.reduction is None:
        return None
    cure = "have its owner push the store again"
    # float32 of (dim, channels) and three vectors, and the record: no file of components is larger
    data = place.read(REDUCTION_FILE, max_bytes=METADATA_BYTES + 4 * MAX_CHANNELS * (settings.dim + 3))
    if data is None:
        what = f"{place.url}: the components of its reduced rows are missing"
        raise InputError(what, got=f"no {REDUCTION_FILE}", cure=cure)
    with TemporaryDirectory() as folder:
        (Path(folder) / REDUCTION_FILE).write_bytes(data)
        try:
            return read_reduction(Path(folder), settings)
        except InputError as error:
            what = error.what.replace(folder, place.url)
            raise InputError(what, got=error.got, wanted=error.wanted, cure=cure) from None


@dataclass(frozen=True)
class Listing:
    """What a place says of its matches."""

    manifests: Mapping[str, MatchManifest]
    """By match id."""
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
    packed, broken = read_index(place, may_lack=names is not None)
    if names is None:
        names = [*packed, *broken]
    else:
        fetched, broken = read_manifests(place, [name for name in names if name not in packed])
        packed |= fetched
    found: dict[str, MatchManifest] = {}
    for made in (packed[name] for name in names if name in packed):  # the newest of one match comes last
        old = found.get(made.match_id)
        # two documents of one match: it is being replaced, or two people have added views to it
        found[made.match_id] = made if old is None or old.differing(made) else old.joined(made)
    return Listing(found, tuple(names), broken)


def read_index(place: Place, *, may_lack: bool) -> tuple[dict[str, MatchManifest], dict[str, InputError]]:
    """See `parse_index`; nothing where the index is missing or damaged and the place can do without."""
    where = f"{MANIFESTS}/{INDEX}"
    try:
        index = place.read(where, max_bytes=MAX_INDEX_BYTES)
        if index is not None:
            return parse_index(index, where=place.url)
    except Unreachable:  # an InputError as well: who does not answer has not said that it lacks an index
        raise
    except InputError:
        if not may_lack:
            raise
    if not may_lack:
        cure = "serve a folder that `bas cache push STORE FOLDER` made"
        raise InputError(f"{place.url}: no index of matches", wanted=where, cure=cure)
    return {}, {}


def read_manifests(place: Place, names: list[str]) -> tuple[dict[str, MatchManifest], dict[str, InputError]]:
    """Manifests by name, and what is wrong with others; without those that were replaced just now."""

    def fetch(name: str) -> MatchManifest | InputError | None:
        try:
            data = place.read(f"{MANIFESTS}/{name}", max_bytes=MAX_DOCUMENT_BYTES)
            return None if data is None else MatchManifest.parse(data, name=name, where=place.url)
        except Unreachable:
            raise
        except InputError as error:  # damaged, or too large to be one
            return error

    with ThreadPoolExecutor(_MANIFESTS_AT_ONCE) as pool:
        ends = dict(zip(names, pool.map(fetch, names), strict=True))
    made = {name: each for name, each in ends.items() if isinstance(each, MatchManifest)}
    return made, {name: each for name, each in ends.items() if isinstance(each, InputError)}
