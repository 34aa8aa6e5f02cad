"""Fetching a weights file into the cache, whole or not at all."""

import contextlib
import os
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from ...errors import InputError
from ...files import cache_folder

_CHUNK_BYTES = 1 << 20


def weights_cache() -> Path:
    """Folder of downloaded weights: `$BAS_CACHE/weights`, else `~/.cache/bas/weights`."""
    return cache_folder() / "weights"


def download(url: str, target: Path, *, timeout_seconds: float = 30.0) -> Path:
    """Fetch `url` to `target`, unless it is there. A broken transfer leaves nothing behind.

    Raises:
        InputError: the address cannot be reached, or the file arrives shorter than announced.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=timeout_seconds) as answer:
            announced = answer.headers.get("Content-Length")
            size_bytes = 0
            while chunk := answer.read(_CHUNK_BYTES):
                out.write(chunk)
                size_bytes += len(chunk)
            if announced is not None and size_bytes != int(announced):
                raise OSError(f"only {size_bytes} of {announced} bytes arrived")
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(url, target, error) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return target


def _unreachable(url: str, target: Path, reason: object) -> InputError:
    return InputError(
        f"cannot fetch the weights {target.name}",
        got=reason,
        wanted=url,
        cure=f"fetch {url} on another machine and pass it with --weights FILE, or copy it to {target}",
    )
