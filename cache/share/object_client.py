"""One prefix of an object store (S3-compatible, Google, Azure) or one folder behind plain HTTP, by obstore.

Passing troubles are tried again; what the server says is turned into errors with a cure.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

from ...errors import InputError
from .place import TooLarge, scheme_of

T = TypeVar("T")
_RANGE_BYTES = 4 << 20
_RANGES_AHEAD = 4
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 3
_ATTEMPTS = 3
_TIMEOUTS = {"timeout": "10m", "connect_timeout": "10s", "read_timeout": "60s"}
"""Of one request (many travel side by side, so that one may take long on a slow line), and of silence within it."""
_RETRY_SECONDS = 90
"""Of one request by obstore itself, at most ten times; a server silent for `read_timeout` is asked once more."""


class Missing(InputError):  # noqa: N818 (an InputError by nature)
    """No such file there."""


class ObjectClient:
    """Reads and writes files by path below a URL. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Connect; nothing is read yet.

        Raises:
            InputError: the URL or the configuration in the environment cannot be used.
        """
        from obstore.store import from_url

        self.url = url.rstrip("/")
        self.is_http = scheme_of(url) in ("http", "https")
        options: Any = {**_TIMEOUTS, "allow_http": _allows_http(url)}
        retries: Any = {"max_retries": 10, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)}
        try:
            provider = _credentials(url)
            arguments = {} if provider is None else {"credential_provider": provider}
            self._store = from_url(self.url, client_options=options, retry_config=retries, **arguments)
        except Exception as error:  # whatever obstore says about URL and environment
            raise InputError(f"{url}: cannot be used", got=_first_line(error), cure=_CURE_CREDENTIALS) from None

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """A small file whole; None where it does not exist.

        Raises:
            TooLarge: it is longer.
            InputError: it cannot be had.
        """

        def attempt() -> bytes:
            import obstore

            pieces, num_bytes = [], 0
            for piece in obstore.get(self._store, path).stream(min_chunk_size=1 << 16):
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise TooLarge(f"{self.url}/{path}: too large", wanted=f"at most {max_bytes:,} bytes")
                pieces.append(bytes(piece))
            return b"".join(pieces)

        return self._found(attempt, path)

    def stream(self, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """Bytes `start` to `num_bytes` of a file in order; the next ranges are on their way while one is used.

        Raises:
            InputError: no such file, or it cannot be had.
        """
        from obstore.exceptions import NotSupportedError

        step, position = _RANGE_BYTES * _RANGES_AHEAD, start
        with ThreadPoolExecutor(1) as ahead:
            ask = ((path, at, min(num_bytes, at + step)) for at in range(start, num_bytes, step))
            coming = [ahead.submit(self._ranges, *each) for each in islice(ask, 1)]
            while coming:
                try:
                    pieces = coming.pop().result()
                except NotSupportedError:  # a plain HTTP server without ranges
                    yield from self._from_begin(path, position)
                    return
                coming += [ahead.submit(self._ranges, *each) for each in islice(ask, 1)]
                for piece in pieces:
                    position += len(piece)
                    yield bytes(piece)

    def files(self, folder: str) -> list[dict[str, Any]]:
        """`path`, `size` and `last_modified` of all files below a folder; none where there is no such folder."""

        def attempt() -> list[Any]:
            import obstore

            return list(obstore.list(self._store, folder).collect())

        return self._found(attempt, folder) or []

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless it exists; False where it does.

        Where the server knows no conditional write, the file is looked for first.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError

        def attempt() -> bool:
            try:
                obstore.put(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
            except NotSupportedError:
                if self.size(path) is not None:
                    return False
                obstore.put(self._store, path, data)
            return True

        return self._put(attempt, path)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        import obstore

        self._put(lambda: obstore.put(self._store, path, data), path)

    def send(self, path: str, blocks: Callable[[int], Iterator[bytes]], *, num_bytes: int, sha256: str) -> None:
        """Write a file of any size, whole or not at all.

        Args:
            path: where to.
            blocks: gives the file's bytes in blocks of a size, from the start at each call.
            num_bytes: of the file.
            sha256: kept with it; see `sha256`.
        """
        import obstore

        attributes: Any = {"sha256": sha256}

        def attempt() -> None:
            if num_bytes <= _PART_BYTES:
                data = b"".join(blocks(_PART_BYTES))
                obstore.put(self._store, path, data, attributes=attributes, use_multipart=False)
            else:
                obstore.put(
                    self._store,
                    path,
                    blocks(_PART_BYTES),
                    attributes=attributes,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )

        self._put(attempt, path)

    def delete(self, path: str) -> None:
        """Remove a file; nothing where there is none."""
        import obstore

        self._found(lambda: obstore.delete(self._store, path), path)

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        import obstore

        meta = self._found(lambda: obstore.head(self._store, path), path)
        return None if meta is None else meta["size"]

    def sha256(self, path: str) -> str | None:
        """What `send` kept with a file; None where there is no file, or it was brought by something else."""
        import obstore

        result = self._found(lambda: obstore.get(self._store, path, options={"head": True}), path)
        return None if result is None else result.attributes.get("sha256")

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
        pieces = iter(self._call(lambda: obstore.get(self._store, path), path).stream())
        while (piece := self._call(lambda: next(pieces, None), path, attempts=1)) is not None:
            yield bytes(piece)[max(0, start - at) :]
            at += len(piece)

    def _put(self, attempt: Callable[[], T], path: str) -> T:
        """As `_call`, of something that writes."""
        if self.is_http:
            raise InputError(
                f"{self.url}: a web server is read only",
                cure="push to the folder that it serves, or to S3, the hub, ...",
            )
        try:
            return self._call(attempt, path)
        except Missing as error:
            raise InputError(
                f"{self.url}: no such bucket", got=error.got, cure="make it first, or check its name"
            ) from None

    def _found(self, attempt: Callable[[], T], path: str) -> T | None:
        """As `_call`; None where there is no such file."""
        try:
            return self._call(attempt, path)
        except Missing:
            return None

    def _call(self, attempt: Callable[[], T], path: str, *, attempts: int | None = None) -> T:
        """The result. What may be a passing trouble is tried again.

        Raises:
            Missing: no such file.
            InputError: the place refuses, or cannot be reached.
        """
        from obstore import exceptions

        attempts, started = attempts or _ATTEMPTS, time.monotonic()
        for number in range(attempts):
            try:
                return attempt()
            except FileNotFoundError as error:
                raise Missing(f"{self.url}/{path}: no such file there", got=_first_line(error)) from None
            except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
                raise InputError(f"{self.url}: refused", got=_first_line(error), cure=_CURE_CREDENTIALS) from None
            except (InputError, exceptions.NotSupportedError):
                raise
            except (exceptions.BaseError, OSError, ValueError) as error:
                if _ASKED_MACHINE in str(error):
                    raise InputError(f"{self.url}: no credentials", cure=_CURE_CREDENTIALS) from None
                if number + 1 == attempts or time.monotonic() - started > _RETRY_SECONDS:
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
