"""What a Xet client has stored in a folder, put together again by that client. From the documents of Xet's shards."""

import struct
import tempfile
import time
from pathlib import Path


def from_xet(cas: Path, sha256: str) -> dict[str, bytes]:
    """A file's bytes by its SHA-256, put together by the Xet client from what it has stored; empty: not there."""
    for shard in cas.rglob("xorbs/shards/*.mdb"):
        for file_hash, num_bytes, named in _shard_files(shard.read_bytes()):
            if named == sha256:
                return {sha256: _assembled(cas, file_hash, num_bytes)}
    return {}


def _shard_files(shard: bytes) -> list[tuple[str, int, str]]:
    """Xet hash, size and SHA-256 of the files that a shard describes; records of 48 bytes after a header of 48."""
    found, at = [], 48
    while shard[at : at + 32] != b"\xff" * 32:
        flags, num_entries = struct.unpack_from("<II", shard, at + 32)
        file_hash = _hash_text(shard[at : at + 32])
        sizes = (struct.unpack_from("<I", shard, at + 48 * (n + 1) + 36)[0] for n in range(num_entries))
        num_bytes = sum(sizes)
        at += 48 * (1 + num_entries * (1 + (flags >> 31)))
        if flags >> 30 & 1:
            found.append((file_hash, num_bytes, _hash_text(shard[at : at + 32])))
            at += 48
    return found


def _hash_text(data: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))


def _assembled(cas: Path, file_hash: str, num_bytes: int) -> bytes:
    """The bytes of a file, by the Xet client."""
    import hf_xet  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        target, until = Path(folder) / "file", int(time.time()) + 3600
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=f"local://{cas}", token="xet", token_expiry_unix_secs=until
        )
        with group:
            group.start_download_file(hf_xet.XetFileInfo(file_hash, num_bytes), str(target))
        return target.read_bytes()
