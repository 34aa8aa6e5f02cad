"""Chunks that unpack to more than they should, and arrays that claim too many of them."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from zarr.codecs import GzipCodec

from bas.cache.foreign import gunzip, zstd_bound
from bas.cache.store import FeatureStore
from bas.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
QUICK = hypothesis_settings(max_examples=60, deadline=None, derandomize=True)


def repeating_frame(num_blocks: int, *, says_size: bool) -> bytes:
    """A zstd frame of blocks that each repeat a zero 131,072 times."""
    header = (131072 << 3) | 1 << 1
    blocks = (header.to_bytes(3, "little") + b"\0") * (num_blocks - 1) + (header | 1).to_bytes(3, "little") + b"\0"
    size = (num_blocks * 131072).to_bytes(8, "little")
    return b"\x28\xb5\x2f\xfd" + (b"\xe0" + size if says_size else b"\x00\x58") + blocks


def packed_zeros(num_blocks: int) -> bytes:
    """Gzip of so many times 4 MB, without its end: parts that are flushed can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, again = (packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (num_blocks - 1)


BOMBS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "gzip": lambda: ("gzip", packed_zeros(200)),
    "gzip members": lambda: ("gzip", gzip.compress(bytes(1 << 22)) * 256),
    "zstd": lambda: ("zstd", repeating_frame(1 << 15, says_size=False)),
    "zstd that says so": lambda: ("zstd", repeating_frame(1 << 15, says_size=True)),
    "zstd frames": lambda: ("zstd", numcodecs.Zstd().encode(bytes(1 << 20)) * 4096),
}
CONFIGURATION = {"gzip": {"level": 5}, "zstd": {"level": 0, "checksum": False}}


def plant(maker: Any, codec: str, data: bytes) -> Path:
    """Replace match a's features by one compressed chunk."""
    maker.match()
    folder: Path = maker.path / "a" / "features" / "identity"
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [600, 6]
    metadata["codecs"] = [LITTLE, {"name": codec, "configuration": CONFIGURATION.get(codec, {})}]
    (folder / "zarr.json").write_text(json.dumps(metadata))
    (folder / "c" / "0" / "0").write_bytes(data)
    return folder


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_within_little_memory(maker: Any, name: str) -> None:
    plant(maker, *BOMBS[name]())
    code = (
        "import resource, sys; import numpy, zarr, numcodecs; from bas.cache.store import FeatureStore\n"
        "from bas.errors import InputError\n"
        "rows = FeatureStore.open(sys.argv[1]).rows\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)\n"
        "try: rows('a')[:]\n"
        "except InputError as error: print(error)"
    )
    environment = {"PYTHONPATH": str(ROOT / ".typing"), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, maker.path],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=20,
    )
    assert "MemoryError" not in done.stdout
    assert "damaged" in done.stdout
    assert "more than" in done.stdout or "at most" in done.stdout


def test_blosc_is_refused_since_its_decoder_reads_beyond_the_end(maker: Any) -> None:
    data = bytes(numcodecs.Blosc("lz4").encode(os.urandom(7200)))[:200]
    plant(maker, "blosc", data)
    with pytest.raises(InputError, match="codec is not allowed"):
        maker.store().rows("a")


def test_gzip_reads_the_same(maker: Any) -> None:
    wanted = maker.match()
    folder = maker.path / "a" / "features" / "identity"
    shutil.rmtree(folder)
    zarr.create_array(folder, shape=(600, 6), chunks=(100, 6), dtype="float16", compressors=GzipCodec())[:] = wanted
    np.testing.assert_array_equal(maker.store().rows("a")[:], wanted)
    assert zarr.config.get("codecs.gzip") == "zarr.codecs.gzip.GzipCodec"


CHUNKS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "one value each, of many": ({"shape": [600, 60_000]}, [1, 1]),
    "one of terabytes": ({}, [600, 1 << 39]),
    "none": ({}, [0, 6]),
    "of three axes": ({}, [600, 6, 1]),
    "no list": ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": 5}}}, []),
    "not regular": ({"chunk_grid": {"name": "rectilinear"}}, []),
    "no grid": ({"chunk_grid": None}, []),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_hostile_chunks_are_refused(maker: Any, name: str) -> None:
    folder = plant(maker, "zstd", b"")
    changes, chunk_shape = CHUNKS[name]
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk_shape}}
    metadata = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps(metadata | {"chunk_grid": grid} | changes))
    with pytest.raises(InputError):
        maker.store().rows("a")


@pytest.mark.parametrize("outer", [[1 << 30, 6], [1024, 6], [600, 6]])
@pytest.mark.parametrize("inner", [[1 << 30, 6], [1, 1], "nested"])
def test_hostile_shards_are_refused_or_read(maker: Any, outer: list[int], inner: Any) -> None:
    folder = plant(maker, "zstd", b"")
    shard: dict[str, Any] = {
        "chunk_shape": inner,
        "codecs": [LITTLE],
        "index_codecs": [LITTLE],
        "index_location": "end",
    }
    if inner == "nested":
        deeper = {"name": "sharding_indexed", "configuration": shard | {"chunk_shape": [1, 6]}}
        shard |= {"chunk_shape": outer, "codecs": [deeper]}
    metadata = json.loads((folder / "zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = outer
    metadata["codecs"] = [{"name": "sharding_indexed", "configuration": shard}]
    (folder / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError):
        maker.store().rows("a")[:]


@QUICK
@given(data=st.binary(max_size=2000), times=st.sampled_from([1, 50, 700]), level=st.integers(1, 9))
def test_unpacking_is_bounded_and_exact(data: bytes, times: int, level: int) -> None:
    whole = data * times
    packed = gzip.compress(whole[:1000], level) + gzip.compress(whole[1000:], level)
    assert gunzip(packed, max_bytes=len(whole)) == whole
    if whole:
        with pytest.raises(ValueError, match="more than"):
            gunzip(packed, max_bytes=len(whole) - 1)
    assert zstd_bound(bytes(numcodecs.Zstd(level).encode(whole))) == len(whole)


@QUICK
@given(data=st.binary(max_size=500), seed=st.integers(0, 2**32))
def test_damaged_frames_are_errors_of_value(data: bytes, seed: int) -> None:
    frame = bytes(numcodecs.Zstd().encode(data * 5))
    place = seed % len(frame)
    for bad in (frame[:place], frame[:place] + bytes([seed >> 8 & 255]) + frame[place + 1 :], data):
        try:
            bound = zstd_bound(bad)
            assert len(bytes(numcodecs.Zstd().decode(bad))) <= bound + (1 << 17)
        except (ValueError, RuntimeError):
            pass


def test_a_store_that_zarr_compressed_opens(maker: Any) -> None:
    wanted = maker.match()
    folder = maker.path / "a" / "features" / "identity"
    shutil.rmtree(folder)
    zarr.create_array(folder, shape=(600, 6), chunks=(600, 6), dtype="float16")[:] = wanted
    np.testing.assert_array_equal(FeatureStore.open(maker.path).rows("a")[:], wanted)
