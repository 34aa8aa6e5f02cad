"""Places that share a store, by URL: S3-compatible, Google and Azure object stores and web servers, by obstore.

The Hugging Face hub is in a file of its own. A folder is no place: it is a store like any other, read where it lies, so
matches have to appear in it by one rename (see `pull`), which no object interface to a folder offers.
"""

import getpass
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import obstore
from obstore import exceptions
from obstore.store import from_url

from ...errors import InputError
from ...files import open_bytes, parse_json
from ..layout import FEATURES, MANIFESTS, METADATA, canonical_json, group_metadata
from .manifest import FileEntry, MatchManifest, id_hash, is_manifest

OnBytes = Callable[[int], None]
"""Called with the bytes that have just travelled, from any thread; may raise an InputError to stop it."""
_FILES_AT_ONCE = 8
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 3
_PACE_SECONDS, _PACE_BYTES = 60.0, 128 << 10
"""A file that brings less in such a time is given up: the limits below end silence, but not one byte a second."""
_TIMEOUTS = {"timeout": "10m", "connect_timeout": "10s", "read_timeout": "60s"}
"""Of one request (many travel side by side, so that one may take long on a slow line), and of silence within it."""
_RETRIES: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_NO_RETRIES: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=3)}
_LOCK_SECONDS = 24 * 3600
"""After so long the mark of a push is taken to be left over."""
_CREDENTIALS = (
    "check the address; for S3 set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION (AWS_ENDPOINT_URL for a server "
    "of your own, AWS_SKIP_SIGNATURE=true for public buckets), or pip install boto3 to use profiles"
)


class Unreachable(InputError):  # noqa: N818 (an InputError by nature)
    """The place does not answer."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One match on its way to a place: its files first, its manifest last."""

    manifest: MatchManifest
    """All that the place has of the match afterwards."""
    folder: Path
    """The match's folder on this machine."""
    paths: tuple[str, ...]
    """Files to bring, within the match's folder: values before metadata."""
    groups: tuple[str, ...]
    """Folders above the match, that need a group's metadata."""
    outdated: tuple[str, ...] = ()
    """Names of all manifests of the same match that were there when this was planned; the new one replaces them."""
    overwrite: bool = False
    """Files that the place has may be of other content, and are replaced."""


class Place(Protocol):
    """Where a shared store lies. Paths are relative to the store's root, parts joined by `/`. Thread-safe.

    Every method raises Unreachable where the place does not answer, and InputError where it refuses.
    """

    url: str
    is_read_only: bool
    has_card: bool
    """Whether it shows people a data card, licence and origin first."""
    uploads_at_once: int
    """Matches that `publish` takes best in one call."""
    publishers: int
    """Calls of `publish` that may run side by side."""

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """A small file whole; None where it does not exist. Raises InputError where it is longer."""

    def fetch(self, path: str, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
        """Bring a file here. Raises InputError where it is not what `entry` says; never writes more than that."""

    def manifests(self) -> list[str] | None:
        """Names of the match manifests there, oldest first; None where the place cannot list."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless it exists; False where it does."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """Bring matches there, each seen by readers whole or not at all. What is there already does not travel.

        Raises:
            InputError: the place refuses, or has manifests of a match that are not among `outdated`: it has changed.
        """


def scheme_of(url: str) -> str:
    """`s3` of `s3://...`; empty for a folder."""
    return url.partition("://")[0].lower() if "://" in url else ""


def is_folder(url: str) -> bool:
    """Whether a URL is a folder on this machine or a network share."""
    return scheme_of(url) in ("", "file")


def folder_of(url: str) -> Path:
    """The folder that `is_folder` found."""
    if scheme_of(url) != "file":
        return Path(url)
    rest = url[len("file://") :]
    if not rest.startswith("/"):
        raise InputError("not a folder", got=url, wanted="file:///PATH, or the plain path")
    return Path(unquote(rest))


def open_place(url: str, *, patient: bool = True) -> Place:
    """The place at a URL that is no folder; nothing is asked yet.

    Args:
        url: s3://BUCKET/PATH, gs://, az://, http(s)://, hf://datasets/USER/NAME[/PATH].
        patient: False gives up after seconds where nobody answers.

    Raises:
        InputError: not such a URL, or one that cannot be used.
    """
    if scheme_of(url) == "hf":
        from .hub import HubPlace

        return HubPlace(url)
    if scheme_of(url) in ("s3", "gs", "az", "http", "https"):
        return ObjectPlace(url, patient=patient)
    raise InputError(
        "not a place for stores",
        got=url,
        wanted="a folder, s3://BUCKET/PATH, gs://..., az://..., https://..., hf://datasets/USER/NAME",
    )


class ObjectPlace:
    """A prefix of a bucket, or a folder behind HTTP (read only). Requests are tried again by obstore itself."""

    uploads_at_once = 1
    publishers = 4
    has_card = False

    def __init__(self, url: str, *, patient: bool = True) -> None:
        """Connect; nothing is read yet. Raises InputError: the URL or the environment's settings cannot be used."""
        self.url, self.is_read_only = url.rstrip("/"), scheme_of(url) in ("http", "https")
        options: Any = {**_TIMEOUTS, "allow_http": _allows_http(url)}
        if not patient:
            options |= {"connect_timeout": "3s", "read_timeout": "10s"}
        try:
            provider = _credentials(url)
            more = {} if provider is None else {"credential_provider": provider}
            retries = _RETRIES if patient else _NO_RETRIES
            self._store = from_url(self.url, client_options=options, retry_config=retries, **more)
        except Exception as error:  # whatever obstore says about URL and environment
            raise InputError(f"{url}: cannot be used", got=_first_line(error), cure=_CREDENTIALS) from None

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """See `Place`."""
        try:
            with self._errors(path):
                result = obstore.get(self._store, path)
                if result.meta["size"] > max_bytes:  # as announced; obstore takes no more than that
                    raise InputError(f"{self.url}/{path}: too large", wanted=f"at most {max_bytes:,} bytes")
                return b"".join(self._arriving(result, path))
        except FileNotFoundError:
            return None

    def fetch(self, path: str, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
        """See `Place`."""
        try:
            with self._errors(path), target.open("wb") as file:
                result = obstore.get(self._store, path)
                if result.meta["size"] != entry.num_bytes:
                    raise not_as_announced(f"{self.url}: {path}", f"{result.meta['size']} bytes", entry)
                digest = hashlib.sha256()
                for block in self._arriving(result, path):
                    on_bytes(len(block))
                    digest.update(block)
                    file.write(block)
        except FileNotFoundError as error:
            raise InputError(f"{self.url}/{path}: no such file there", got=_first_line(error)) from None
        if digest.hexdigest() != entry.sha256:
            raise not_as_announced(f"{self.url}: {path}", f"SHA-256 {digest.hexdigest()}", entry)

    def _arriving(self, result: "obstore.GetResult", path: str) -> Iterator[bytes]:
        """Blocks of a file as they come. Raises Unreachable where next to nothing does: no silence, but no progress."""
        # every piece as it comes (obstore would gather 10 MB), so that a slow line is told from a silent one
        blocks, waited_seconds, num_bytes = iter(result.stream(min_chunk_size=1)), 0.0, 0
        while True:
            started = time.monotonic()
            block = next(blocks, None)
            waited_seconds += time.monotonic() - started  # the time that the caller takes does not count
            if block is None:
                return
            num_bytes += len(block)
            if waited_seconds >= _PACE_SECONDS:
                if num_bytes < _PACE_BYTES:
                    got = f"{num_bytes:,} bytes in {waited_seconds:.0f} s"
                    wanted = f"at least {_PACE_BYTES:,} in {_PACE_SECONDS:g} s"
                    cure = "run the same command again when the line or the server is faster"
                    raise Unreachable(f"{self.url}/{path}: too slow", got=got, wanted=wanted, cure=cure)
                waited_seconds, num_bytes = 0.0, 0
            yield bytes(block)

    def manifests(self) -> list[str] | None:
        """See `Place`."""
        if self.is_read_only:
            return None
        named = sorted((each["last_modified"], each["path"].rpartition("/")[2]) for each in self._files(MANIFESTS))
        return [name for _, name in named if is_manifest(name)]

    def create(self, path: str, data: bytes) -> bool:
        """See `Place`. Where the server knows no conditional write, the file is looked for first."""
        with self._errors(path, writing=True):
            try:
                obstore.put(self._store, path, data, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            except exceptions.NotSupportedError:
                if self._head(path) is not None:
                    return False
                obstore.put(self._store, path, data)
            return True

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        with self._errors(path, writing=True):
            obstore.put(self._store, path, data)

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """See `Place`: values, then metadata, then the manifest that makes the match visible."""
        for upload in uploads:
            manifest = upload.manifest
            with self._marked(manifest, take_over=upload.overwrite):
                others = self._others(upload)
                if set(others) - set(upload.outdated):
                    raise changed_meanwhile(manifest.match_id)
                if upload.overwrite:
                    self._clear(upload, others)
                self._send_files(upload, on_bytes)
                for group in upload.groups:
                    self.create(f"{group}/{METADATA}", canonical_json(group_metadata({}), where=group))
                self._require_mark(manifest)
                self.write(f"{MANIFESTS}/{manifest.name}", manifest.document)
                self._delete(*(f"{MANIFESTS}/{name}" for name in others))

    @contextmanager
    def _marked(self, manifest: MatchManifest, *, take_over: bool) -> Iterator[None]:
        """A mark beside the manifests while a match is brought: object stores know no locks, and two contents of a
        match must not mix. Several processes may bring the same content at once; a kill leaves the mark behind.

        Raises:
            InputError: somebody else brings other content.
        """
        path = _mark(manifest)
        by = f"{_user()} on {socket.gethostname()}, process {os.getpid()}"
        document = canonical_json({"manifest": manifest.name, "by": by, "since": int(time.time())}, where=path)
        if not self.create(path, document):
            theirs = self._read_mark(manifest)
            if theirs and theirs["manifest"] != manifest.name and not take_over:
                raise InputError(
                    f"match {manifest.match_id!r} is being pushed by somebody else, with other content",
                    got=f"{theirs['by'][:100]!r}, {int(max(0, time.time() - theirs['since']) // 60)} minutes ago",
                    cure="wait for them; if they have given up: --replace",
                )
            self.write(path, document)
        try:
            yield
        except Exception:
            with suppress(InputError):
                theirs = self._read_mark(manifest)
                if theirs and theirs["manifest"] == manifest.name:  # nobody has taken over
                    self._delete(path)
            raise
        self._delete(path)

    def _require_mark(self, manifest: MatchManifest) -> None:
        """Raise InputError where somebody else has taken over by --replace meanwhile: files may be theirs."""
        theirs = self._read_mark(manifest)
        if theirs is None:  # another process with the same content has ended: then its manifest is there
            if self._head(f"{MANIFESTS}/{manifest.name}") is not None:
                return
        elif theirs["manifest"] == manifest.name:
            return
        raise InputError(
            f"match {manifest.match_id!r} is being replaced by somebody else",
            got=theirs["by"][:100] if theirs else "the mark of this push is gone",
            cure="ask them, then run the same command again",
        )

    def _read_mark(self, manifest: MatchManifest) -> dict[str, Any] | None:
        """The mark there; None where there is none, it is damaged, or left over."""
        path = _mark(manifest)
        try:
            record = parse_json(self.read(path, max_bytes=1 << 16) or b"null", where=path)
        except InputError:
            return None
        kinds = {"manifest": str, "by": str, "since": int}
        if not isinstance(record, dict) or not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
            return None
        return record if abs(time.time() - record["since"]) < _LOCK_SECONDS else None

    def _others(self, upload: Upload) -> list[str]:
        """Names of the match's manifests that are there now, but for the one to come."""
        mine = f"{id_hash(upload.manifest.match_id)}."
        return [name for name in self.manifests() or [] if name.startswith(mine) and name != upload.manifest.name]

    def _clear(self, upload: Upload, manifests: Sequence[str]) -> None:
        """Let nobody see the match while its files are replaced, and take away those that the new one has not."""
        match_id = upload.manifest.match_id
        self._delete(*(f"{MANIFESTS}/{name}" for name in (*manifests, upload.manifest.name)), f"{match_id}/{METADATA}")
        there = {each["path"] for each in self._files(f"{match_id}/{FEATURES}")}
        self._delete(*sorted(there - {f"{match_id}/{path}" for path in upload.manifest.files}))

    def _send_files(self, upload: Upload, on_bytes: OnBytes) -> None:
        """Values side by side, then metadata in order; what an earlier run has brought stays there."""
        match_id, files = upload.manifest.match_id, upload.manifest.files
        there = {each["path"]: each["size"] for each in self._files(match_id)}

        def send(path: str) -> None:
            entry, name = files[path], f"{match_id}/{path}"
            if there.get(name) != entry.num_bytes or self._sha256(name) != entry.sha256:
                self._send(upload.folder / path, name, entry, on_bytes)

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            list(pool.map(send, [path for path in upload.paths if not path.endswith(METADATA)]))
        for path in upload.paths:  # sorted, so that an array's metadata comes before its match's
            if path.endswith(METADATA):
                send(path)

    def _send(self, path: Path, name: str, entry: FileEntry, on_bytes: OnBytes) -> None:
        """One file, hashed once more on its way: what is announced is what arrives."""

        def blocks() -> Iterator[bytes]:
            digest = hashlib.sha256()
            with open_bytes(path) as file:
                while block := file.read(_PART_BYTES):
                    digest.update(block)
                    on_bytes(len(block))
                    yield block
            if digest.hexdigest() != entry.sha256:
                raise InputError(f"{path}: changed while it was read", cure="push again")

        attributes: Any = {"sha256": entry.sha256}  # kept with the object, and compared by the next push
        with self._errors(name, writing=True):
            if entry.num_bytes <= _PART_BYTES:
                data = b"".join(blocks())
                obstore.put(self._store, name, data, attributes=attributes, use_multipart=False)
            else:
                parts: Any = {"chunk_size": _PART_BYTES, "max_concurrency": _PARTS_AT_ONCE}
                obstore.put(self._store, name, blocks(), attributes=attributes, **parts)

    def _files(self, folder: str) -> list[Any]:
        """`path`, `size` and `last_modified` of all files below a folder; none where there is no such folder."""
        with self._errors(folder):
            return list(obstore.list(self._store, folder).collect())

    def _head(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            with self._errors(path):
                return obstore.head(self._store, path)["size"]
        except FileNotFoundError:
            return None

    def _sha256(self, path: str) -> str | None:
        """What `_send` kept with a file; None where something else brought it."""
        with self._errors(path):
            # obstore.head gives no attributes
            attributes: Mapping[Any, str] = obstore.get(self._store, path, options={"head": True}).attributes
            return attributes.get("sha256")

    def _delete(self, *paths: str) -> None:
        """Remove files; those that do not exist are no trouble."""
        for path in paths:
            with suppress(FileNotFoundError), self._errors(path):
                obstore.delete(self._store, path)

    @contextmanager
    def _errors(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Turn what obstore says into errors with a cure; FileNotFoundError passes where something is read."""
        try:
            yield
        except (InputError, exceptions.AlreadyExistsError):
            raise
        except FileNotFoundError as error:
            if not writing:
                raise
            cure = "make it first, or check its name"
            raise InputError(f"{self.url}: no such bucket", got=_first_line(error), cure=cure) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise InputError(f"{self.url}: refused", got=_first_line(error), cure=_CREDENTIALS) from None
        except (exceptions.BaseError, OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # this machine's disk, not the place
                raise
            raise Unreachable(
                f"{self.url}/{path}: cannot be reached",
                got=_first_line(error),
                cure=f"check address, network and rights, then run the same command again; {_CREDENTIALS}",
            ) from None


def not_as_announced(where: str, got: str, entry: FileEntry) -> InputError:
    """The error for a file that is not what its manifest says."""
    return InputError(
        f"{where} is not what its manifest says",
        got=got,
        wanted=f"{entry.num_bytes} bytes, SHA-256 {entry.sha256}",
        cure="it was damaged there, or is being replaced: try again, or have it pushed again with --replace",
    )


def changed_meanwhile(match_id: str) -> InputError:
    """The error for a match that somebody else has brought since it was looked for."""
    return InputError(
        f"match {match_id!r} has just been pushed by somebody else, with other content",
        cure="run the same command again: it compares anew, and what has arrived does not travel twice",
    )


def _mark(manifest: MatchManifest) -> str:
    return f"{MANIFESTS}/{id_hash(manifest.match_id)}.claim"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in the system's list
        return "somebody"


def _allows_http(url: str) -> bool:
    """Whether plain HTTP is what the user asked for."""
    endpoints = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"))
    asked = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
    return asked or scheme_of(url) == "http" or any(each.startswith("http://") for each in endpoints)


def _credentials(url: str) -> Any:
    """boto3's credentials (profiles, SSO, ~/.aws) where S3's are not in the environment and boto3 is there."""
    named = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    if scheme_of(url) != "s3" or any(os.environ.get(name) for name in named):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = boto3.session.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
