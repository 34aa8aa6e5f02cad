"""What a Xet client has stored in a folder, put together again by that client. From the documents of Xet's shards."""

import shutil
import struct
import tempfile
import time
from pathlib import Path


def from_xet(cas: Path, wanted: set[str]) -> dict[str, bytes]:
    """Bytes of files by SHA-256, put together by the Xet client; without those that are not there."""
    import hf_xet  # type: ignore[import-untyped]

    known = [each for shard in cas.rglob("xorbs/shards/*.mdb") for each in _shard_files(shard.read_bytes())]
    found = {sha256: (file_hash, num_bytes) for file_hash, num_bytes, sha256 in known if sha256 in wanted}
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(cas, Path(folder) / "cas")  # the original's index may be open in the client's process
        group = hf_xet.XetSession().new_file_download_group(
            endpoint=f"local://{copy}", token="xet", token_expiry_unix_secs=int(time.time()) + 3600
        )
        with group:
            for sha256, each in found.items():
                group.start_download_file(hf_xet.XetFileInfo(*each), f"{folder}/{sha256}")
        return {sha256: Path(folder, sha256).read_bytes() for sha256 in found}


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
