"""Arrays of other layouts, read by zarr-python after a look at what they claim; what unpacks is bounded by it.

A store may come from anywhere: a chunk of a few kilobytes may unpack to all memory there is, and an array of a few
files may claim more chunks than there are seconds. Blosc is not read: its decoder trusts the lengths in the chunk's own
header and reads beyond its end.
"""

import asyncio
import math
import stat
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, reading_record
from ..files import real_files
from .layout import inside
from .shard import DTYPES, damaged

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

CODECS = frozenset({"bytes", "sharding_indexed", "crc32c", "zstd", "gzip", "transpose"})
"""Codecs of Zarr v3 that we let a store name; none of them runs code from the store."""
MAX_CHUNK_BYTES = 1 << 30
"""Of one chunk as it is in memory; zarr unpacks a whole one to read a row of it."""
MAX_CHUNKS = 1 << 20
"""Of one array; each costs zarr about a tenth of a millisecond."""
_ZSTD_MAGIC, _ZSTD_SKIPPABLE, _ZSTD_BLOCK_BYTES = 0xFD2FB528, 0x184D2A5, 1 << 17


def check_foreign(root: Path, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse an array before zarr reads it: codecs that we do not know, chunks that are too large or too many, links
    that lead out of the store, pipes and devices.

    Args:
        root: the store.
        folder: the array's.
        metadata: with a usable `shape` and `data_type`.

    Raises:
        InputError: as said.
    """
    codecs = metadata.get("codecs")
    unknown = sorted(_codec_names(codecs) - CODECS)
    if unknown:
        got = ", ".join(unknown)[:200]
        raise InputError(f"{folder}: codec is not allowed", got=got, wanted=", ".join(sorted(CODECS)))
    with reading_record(f"{folder}: chunks are not usable"):
        largest_file = _check_chunks(folder, metadata)
    for path, status in real_files(folder):
        if stat.S_ISLNK(status.st_mode):
            status = inside(root, path.relative_to(root).as_posix()).stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise damaged(path, "neither a file nor a folder")
        # of an empty file zarr says that its chunk was left out
        if stat.S_ISREG(status.st_mode) and not 0 < status.st_size <= largest_file:
            raise damaged(path, f"{status.st_size:,} bytes", wanted=f"1 to {largest_file:,}")


def open_zarr(folder: Path) -> Any:
    """The array as zarr-python sees it, with codecs that unpack no more than a chunk holds.

    Raises:
        InputError: whatever zarr does not like.
    """
    try:
        import zarr  # 0.3 s, and needed here only

        with zarr.config.set(_bounded_codecs()):
            return zarr.open_array(store=str(folder), mode="r", zarr_format=3)
    except Exception as error:  # zarr raises many kinds for metadata that it does not like
        raise damaged(folder, f"zarr cannot open it: {error!r}"[:200]) from error


def gunzip(data: bytes, *, max_bytes: int) -> bytes:
    """Unpacked gzip members.

    Raises:
        ValueError: damaged, or larger than `max_bytes`.
    """
    parts: list[bytes] = []
    room = max_bytes
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(data, room + 1))
        except zlib.error as error:
            raise ValueError(f"gzip: {error}") from None
        room -= len(parts[-1])
        if room < 0:
            raise ValueError(f"a chunk unpacks to more than {max_bytes} bytes")
        if not stream.eof:
            raise ValueError("gzip: cut short")
        data = stream.unused_data
    return b"".join(parts)


def zstd_bound(data: bytes) -> int:
    """How many bytes zstd frames unpack to, at most: of each frame what it says, else what its blocks can hold.

    Raises:
        ValueError: no zstd frames, or cut short.
    """
    total, place = 0, 0
    while place < len(data):
        magic = _little(data, place, 4)
        if magic >> 4 == _ZSTD_SKIPPABLE:
            place += 8 + _little(data, place + 4, 4)
            continue
        if magic != _ZSTD_MAGIC:
            raise ValueError("zstd: no frame")
        size, place, has_checksum = _frame_header(data, place + 4)
        blocks, place = _blocks(data, place)
        total += blocks if size is None else size
        place += 4 * has_checksum
    if place > len(data):
        raise ValueError("zstd: cut short")
    return total


def _frame_header(data: bytes, place: int) -> tuple[int | None, int, bool]:
    """(content size or None, where the first block begins, whether a checksum follows the last)."""
    descriptor = _little(data, place, 1)
    is_single, size_flag = bool(descriptor & 0x20), descriptor >> 6
    place += 1 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    num_bytes = (1 if is_single else 0, 2, 4, 8)[size_flag]
    size = _little(data, place, num_bytes) + (256 if num_bytes == 2 else 0) if num_bytes else None
    return size, place + num_bytes, bool(descriptor & 4)


def _blocks(data: bytes, place: int) -> tuple[int, int]:
    """(bytes that the blocks hold at most, where they end)."""
    total, is_last = 0, False
    while not is_last:
        header = _little(data, place, 3)
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3:
            raise ValueError("zstd: damaged block")
        total += _ZSTD_BLOCK_BYTES if kind == 2 else size
        place += 3 + (1 if kind == 1 else size)
    return total, place


def _little(data: bytes, place: int, num_bytes: int) -> int:
    part = data[place : place + num_bytes]
    if len(part) < num_bytes:
        raise ValueError("zstd: cut short")
    return int.from_bytes(part, "little")


def _check_chunks(folder: Path, metadata: Mapping[str, Any]) -> int:
    """Bytes that a file of the array may have at most."""
    shape: list[int] = metadata["shape"]
    item_bytes: int = DTYPES[metadata["data_type"]].itemsize
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError("the chunk grid is not regular")
    outer = _sizes(metadata["chunk_grid"]["configuration"]["chunk_shape"], shape)
    inner = outer
    for codec in metadata["codecs"]:
        if codec["name"] == "sharding_indexed":
            inner = _sizes(codec["configuration"]["chunk_shape"], shape)
            if any(whole > 2 * max(size, part) for whole, size, part in zip(outer, shape, inner, strict=True)):
                raise ValueError(f"shards {outer} of an array {shape}")
            if "sharding_indexed" in _codec_names(codec["configuration"]["codecs"]):
                raise ValueError("shards inside shards")
    num_chunks = math.prod(-(-max(size, whole) // part) for size, whole, part in zip(shape, outer, inner, strict=True))
    if math.prod(inner) * item_bytes > MAX_CHUNK_BYTES or num_chunks > MAX_CHUNKS:
        raise InputError(
            f"{folder}: chunks are too large or too many",
            got=f"{num_chunks:,} of {math.prod(inner) * item_bytes:,} bytes",
            wanted=f"at most {MAX_CHUNKS:,} of at most {MAX_CHUNK_BYTES:,}",
            cure="write the array again with other chunks; do not trust this store",
        )
    return 2 * (math.prod(outer) * item_bytes + 16 * num_chunks) + (1 << 20)


def _sizes(value: Any, shape: Sequence[int]) -> list[int]:
    sizes = list(value)
    if len(sizes) != len(shape) or not all(type(size) is int and 1 <= size < 1 << 40 for size in sizes):
        raise ValueError(f"chunks {value!r} of an array {shape}")
    return sizes


def _codec_names(codecs: object) -> set[str]:
    """Names of codecs, those inside a shard included; `?` for what cannot be read."""
    names: set[str] = set()
    for codec in codecs if isinstance(codecs, list) else [None]:
        if not isinstance(codec, dict):
            return {"?"}
        names.add(str(codec.get("name")))
        configuration = codec.get("configuration", {})
        for inner in ("codecs", "index_codecs"):
            if isinstance(configuration, dict) and inner in configuration:
                names |= _codec_names(configuration[inner])
    return names


def _most_bytes(chunk_spec: "ArraySpec") -> int:
    """What a codec may give at most: the chunk, or what another codec made of it."""
    item_bytes: int = chunk_spec.dtype.to_native_dtype().itemsize
    num_items: int = math.prod(chunk_spec.shape)
    return num_items * item_bytes * 9 // 8 + (1 << 16)


@cache
def _bounded_codecs() -> dict[str, str]:
    """Zarr's configuration that takes our codecs in the place of its own."""
    from numcodecs.zstd import Zstd
    from zarr.codecs import GzipCodec, ZstdCodec
    from zarr.registry import register_codec

    class BoundedGzip(GzipCodec):
        """Gzip that unpacks no more than the chunk."""

        def _decode_sync(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "Buffer":
            unpacked = gunzip(chunk_bytes.to_bytes(), max_bytes=_most_bytes(chunk_spec))
            return chunk_spec.prototype.buffer.from_bytes(unpacked)

        async def _decode_single(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "Buffer":
            return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    class BoundedZstd(ZstdCodec):
        """Zstd that unpacks no more than the chunk."""

        def _decode_sync(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "Buffer":
            data, most = chunk_bytes.to_bytes(), _most_bytes(chunk_spec)
            # a frame that does not say its size is a stream: its blocks may be smaller than they could be
            if zstd_bound(data) > 2 * most + _ZSTD_BLOCK_BYTES:
                raise ValueError(f"a chunk may unpack to {zstd_bound(data)} bytes, more than {most}")
            return chunk_spec.prototype.buffer.from_bytes(bytes(Zstd().decode(data)))

        async def _decode_single(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "Buffer":
            return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    names = {}
    for name, codec in (("gzip", BoundedGzip), ("zstd", BoundedZstd)):
        names[f"codecs.{name}"] = f"{__name__}.{codec.__name__}"
        register_codec(name, codec, qualname=names[f"codecs.{name}"])
    return names
