"""A shared store in an object store (S3-compatible, Google, Azure) or behind a plain HTTP server, by obstore."""

import getpass
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ...errors import InputError
from ..layout import MANIFESTS, METADATA, canonical_json, group_metadata
from .manifest import FileEntry, id_hash, is_manifest
from .place import MATCHES_AT_ONCE, DamagedInTransit, OnBytes, Upload, scheme_of

T = TypeVar("T")
_RANGE_BYTES = 4 << 20
_RANGES_AHEAD = 4
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 3
_FILES_AT_ONCE = 8
_ATTEMPTS = 3
_CLIENT = {"timeout": "10m", "connect_timeout": "10s"}
"""Timeouts of one request; many travel side by side, so that one may take long on a slow line."""
_CLAIM_SECONDS = 24 * 3600
"""After so long a claim is taken to be left over."""


class _Missing(InputError):  # noqa: N818 (an InputError by nature)
    """No such file there."""


class ObjectPlace:
    """A prefix of a bucket, or a folder behind HTTP (read only)."""

    uploads_at_once = 1
    publishers = MATCHES_AT_ONCE

    def __init__(self, url: str) -> None:
        """Connect; nothing is read yet.

        Raises:
            InputError: the URL or the configuration in the environment cannot be used.
        """
        from obstore.store import from_url

        self.url = url.rstrip("/")
        self._is_http = scheme_of(url) in ("http", "https")
        self._known_groups: set[str] = set()
        options: Any = {**_CLIENT, "allow_http": _allows_http(url)}
        try:
            provider = _credentials(url)
            arguments = {} if provider is None else {"credential_provider": provider}
            self._store = from_url(self.url, client_options=options, **arguments)
        except Exception as error:  # whatever obstore says about URL and environment
            raise InputError(f"{url}: cannot be used", got=_first_line(error), cure=_CURE_CREDENTIALS) from None

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """See `Place`."""

        def attempt() -> bytes | None:
            import obstore

            result = obstore.get(self._store, path)
            pieces, num_bytes = [], 0
            for piece in result.stream(min_chunk_size=1 << 16):
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise InputError(f"{self.url}/{path}: too large", wanted=f"at most {max_bytes} bytes")
                pieces.append(bytes(piece))
            return b"".join(pieces)

        return self._found(attempt, path)

    def stream(self, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """See `Place`. The next ranges are on their way while one is used."""
        from obstore.exceptions import NotSupportedError

        step = _RANGE_BYTES * _RANGES_AHEAD
        with ThreadPoolExecutor(1) as ahead:
            ask = ((path, at, min(num_bytes, at + step)) for at in range(start, num_bytes, step))
            coming = [ahead.submit(self._ranges, *each) for each in islice(ask, 1)]
            while coming:
                try:
                    pieces = coming.pop().result()
                except NotSupportedError:  # a plain HTTP server without ranges
                    yield from self._from_begin(path, start)
                    return
                coming += [ahead.submit(self._ranges, *each) for each in islice(ask, 1)]
                for piece in pieces:
                    yield bytes(piece)

    def manifests(self) -> list[str] | None:
        """See `Place`; oldest first."""
        if self._is_http:
            return None

        def attempt() -> list[str]:
            import obstore

            found = obstore.list(self._store, MANIFESTS).collect()
            named = sorted((each["last_modified"], each["path"].rpartition("/")[2]) for each in found)
            return [name for _, name in named if is_manifest(name)]

        return self._found(attempt, MANIFESTS) or []

    def create(self, path: str, data: bytes) -> bool:
        """See `Place`. Where the server knows no conditional write, the file is looked for first."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        def attempt() -> bool:
            try:
                obstore.put(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
            except NotSupportedError:
                if self._size(path) is not None:
                    return False
                obstore.put(self._store, path, data)
            return True

        return self._put(attempt, path)

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        import obstore

        self._put(lambda: obstore.put(self._store, path, data), path)

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """See `Place`: values, then metadata, then the manifest that makes the match visible."""
        for upload in uploads:
            claim = f"{MANIFESTS}/{id_hash(upload.manifest.match_id)}.claim"
            self._claim(claim, upload)
            if upload.overwrite:
                self._forget(upload.outdated)
            self._send_files(upload, on_bytes)
            for group in upload.groups:
                if group not in self._known_groups:
                    self.create(f"{group}/{METADATA}", canonical_json(group_metadata({}), where=group))
                    self._known_groups.add(group)
            self.write(f"{MANIFESTS}/{upload.manifest.name}", upload.manifest.document)
            self._forget([name for name in upload.outdated if name != upload.manifest.name])
            self._delete(claim)

    def _send_files(self, upload: Upload, on_bytes: OnBytes) -> None:
        """Values side by side, then metadata in order; what an earlier run has brought stays there."""
        match_id, files = upload.manifest.match_id, upload.manifest.files
        there = self._sizes(match_id)

        def send(path: str) -> None:
            entry, name = files[path], f"{match_id}/{path}"
            if there.get(name) == entry.num_bytes and self._holds(name, entry):
                on_bytes(entry.num_bytes)
                return
            self._send(upload.folder / path, name, entry, on_bytes)

        values = [path for path in upload.paths if not path.endswith(METADATA)]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            list(pool.map(send, values))
        for path in upload.paths:
            if path.endswith(METADATA):
                send(path)

    def _send(self, path: Path, name: str, entry: FileEntry, on_bytes: OnBytes) -> None:
        """One file, hashed once more on its way: what is announced is what arrives."""
        import obstore

        attributes: Any = {"sha256": entry.sha256}

        def attempt() -> None:
            digest = hashlib.sha256()

            def blocks() -> Iterator[bytes]:
                with path.open("rb") as file:
                    while block := file.read(_PART_BYTES):
                        digest.update(block)
                        on_bytes(len(block))
                        yield block
                if digest.hexdigest() != entry.sha256:
                    raise DamagedInTransit(f"{path}: changed while it was read", cure="push again")

            if entry.num_bytes <= _PART_BYTES:
                obstore.put(self._store, name, b"".join(blocks()), attributes=attributes, use_multipart=False)
            else:
                obstore.put(
                    self._store,
                    name,
                    blocks(),
                    attributes=attributes,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )

        self._put(attempt, name)
        if self._size(name) != entry.num_bytes:
            raise DamagedInTransit(f"{self.url}/{name}: did not arrive whole", cure="push again")

    def _holds(self, name: str, entry: FileEntry) -> bool:
        """Whether a file there was brought by us with this content."""
        import obstore

        result = self._found(lambda: obstore.get(self._store, name, options={"head": True}), name)
        return result is not None and result.attributes.get("sha256") == entry.sha256

    def _claim(self, claim: str, upload: Upload) -> None:
        """Say that this match is on its way, so that two people do not push different contents of it at once.

        Raises:
            InputError: somebody else does.
        """
        mine = {
            "manifest": upload.manifest.name,
            "by": f"{_user()} on {socket.gethostname()}, process {os.getpid()}",
            "since": int(time.time()),
        }
        document = canonical_json(mine, where=claim)
        if self.create(claim, document):
            return
        try:
            theirs = json.loads(self.read(claim, max_bytes=1 << 16) or b"{}")
            same = theirs.get("manifest") in (mine["manifest"], None)
            is_old = time.time() - int(theirs.get("since", 0)) > _CLAIM_SECONDS
        except (ValueError, AttributeError, TypeError):
            same, is_old, theirs = False, True, {}
        if not same and not is_old and not upload.overwrite:
            raise InputError(
                f"match {upload.manifest.match_id!r} is being pushed by somebody else, with other content",
                got=f"{str(theirs.get('by'))[:100]}, since {time.ctime(int(theirs['since']))}",
                cure="wait for them; if they have given up: --replace",
            )
        self.write(claim, document)

    def _forget(self, names: Sequence[str]) -> None:
        """Remove manifests."""
        for name in names:
            self._delete(f"{MANIFESTS}/{name}")

    def _delete(self, path: str) -> None:
        import obstore

        self._found(lambda: obstore.delete(self._store, path), path)

    def _sizes(self, folder: str) -> dict[str, int]:
        """Size by path of all files below a folder."""
        import obstore

        found = self._found(lambda: obstore.list(self._store, folder).collect(), folder) or []
        return {each["path"]: each["size"] for each in found}

    def _size(self, path: str) -> int | None:
        import obstore

        meta = self._found(lambda: obstore.head(self._store, path), path)
        return None if meta is None else meta["size"]

    def _ranges(self, path: str, start: int, stop: int) -> list[Any]:
        """Bytes start..stop-1 in pieces."""
        import obstore

        starts = list(range(start, stop, _RANGE_BYTES))
        stops = [min(stop, at + _RANGE_BYTES) for at in starts]
        return self._call(
            lambda: list(obstore.get_ranges(self._store, path, starts=starts, ends=stops, coalesce=0)), path
        )

    def _from_begin(self, path: str, start: int) -> Iterator[bytes]:
        """Bytes from `start` on, of a file that can only be read from its begin."""
        import obstore

        at = 0
        for piece in self._call(lambda: obstore.get(self._store, path), path).stream():
            yield bytes(piece)[max(0, start - at) :]
            at += len(piece)

    def _put(self, attempt: Callable[[], T], path: str) -> T:
        """As `_call`, of something that writes."""
        if self._is_http:
            raise InputError(
                f"{self.url}: a web server is read only",
                cure="push to the folder that it serves, or to S3, the hub, ...",
            )
        try:
            return self._call(attempt, path)
        except _Missing as error:
            raise InputError(
                f"{self.url}: no such bucket", got=error.got, cure="make it first, or check its name"
            ) from None

    def _found(self, attempt: Callable[[], T], path: str) -> T | None:
        """As `_call`; None where there is no such file."""
        try:
            return self._call(attempt, path)
        except _Missing:
            return None

    def _call(self, attempt: Callable[[], T], path: str) -> T:
        """The result. What may be a passing trouble is tried again.

        Raises:
            _Missing: no such file.
            InputError: the place refuses, or cannot be reached.
        """
        from obstore import exceptions

        for number in range(_ATTEMPTS):
            try:
                return attempt()
            except FileNotFoundError as error:
                raise _Missing(f"{self.url}/{path}: no such file there", got=_first_line(error)) from None
            except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
                raise InputError(f"{self.url}: refused", got=_first_line(error), cure=_CURE_CREDENTIALS) from None
            except (InputError, exceptions.NotSupportedError):
                raise
            except (exceptions.BaseError, OSError, ValueError) as error:
                if _ASKED_MACHINE in str(error):
                    raise InputError(f"{self.url}: no credentials", cure=_CURE_CREDENTIALS) from None
                if number + 1 == _ATTEMPTS:
                    raise InputError(
                        f"{self.url}/{path}: cannot be reached",
                        got=_first_line(error),
                        cure="check address, network and rights; what has arrived stays, run the same command again",
                    ) from None
                time.sleep(0.2 * 4**number)
        raise AssertionError("unreachable")


_ASKED_MACHINE = "/latest/api/token"
"""In the message where the last resort, the cloud machine's own service, was asked for credentials in vain."""
_CURE_CREDENTIALS = (
    "check the address; for S3 set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION (AWS_ENDPOINT_URL for a server "
    "of your own, AWS_SKIP_SIGNATURE=true for public buckets), or pip install boto3 to use profiles"
)


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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
