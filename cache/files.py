"""Files written safely: an append-only file with running checksums, fsync, and a lock with one owner."""

import hashlib
import os
from pathlib import Path

import google_crc32c

_BLOCK_BYTES = 1 << 20


class AppendFile:
    """A file that only grows, with sha256 and crc32c of everything in it. After an error: close it, open it again."""

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Open for appending after the first `keep_bytes`; what follows them is cut off.

        Raises:
            OSError: as the file system says.
            EOFError: the file is shorter than `keep_bytes`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.num_bytes, self.crc32c, self._sha256 = path, 0, 0, hashlib.sha256()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
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
        while rest:
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
