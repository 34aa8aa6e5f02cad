"""How fast clips are read from a store: mapped rows against zarr-python, tensorstore, h5py and memory.

    PYTHONPATH=.typing:benchmarks python benchmarks/store_reads.py [--num-rows 146479] [--repeats 7]

Warm: random clips from one match in the page cache, all readers in turn, several rounds; medians in thousand frames
a second. Cold: batches of clips after the file was dropped from the page cache, with and without reading ahead.
C: channels.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import tensorstore
import zarr
from stores import random_store

from bas.cache.store import FeatureStore

CLIP_FRAMES = 100
BATCH_CLIPS = 32
Reader = Callable[[int], Any]
"""First row of a clip -> the clip, (100, C)."""


def main() -> None:
    """Print both tables for each number of channels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rows", type=int, default=146_479, help="rows of the match (one SoccerNet game)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; the median is shown")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the store is made (a real disk, for cold reads)"
    )
    arguments = parser.parse_args()
    for dim in (432, 192):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            store = random_store(Path(folder) / "store", dim, train={"a": arguments.num_rows}, valid={})
            print(f"\nC={dim}, {arguments.num_rows} rows, random clips of {CLIP_FRAMES} frames")
            warm(store, Path(folder) / "rows.h5", repeats=arguments.repeats)
            cold(store, repeats=arguments.repeats)


def warm(store: FeatureStore, hdf5: Path, *, repeats: int) -> None:
    """Print thousand frames a second of each reader, and the ratio of the mapped rows to it."""
    readers = warm_readers(store, hdf5)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    wanted = store.rows("a")[1000 : 1000 + CLIP_FRAMES].copy()
    for name, read in readers.items():
        np.testing.assert_array_equal(np.asarray(read(1000)), wanted, err_msg=name)
    for turn in range(repeats + 1):
        for name, read in readers.items():
            num_clips = {"zarr-python": 40, "tensorstore": 400, "h5py": 400}.get(name, 4000)
            starts = clip_starts(store, num_clips, seed=turn)
            began = time.perf_counter()
            for start in starts:
                read(start)
            rates[name].append(num_clips * CLIP_FRAMES / (time.perf_counter() - began) / 1000)
    medians = {name: statistics.median(rate[1:]) for name, rate in rates.items()}  # the first round warms up
    print(f"{'warm':<28}{'thousand frames/s':>18}{'mapped is':>12}")
    for name, rate in medians.items():
        print(f"{name:<28}{rate:>18,.0f}{medians['mapped, copied'] / rate:>11.2f}x")


def warm_readers(store: FeatureStore, hdf5: Path) -> dict[str, Reader]:
    """Ways to read a clip of match `a`; each returns its own memory, but for the view."""
    folder = store.path / "a" / "features" / "identity"
    rows, memory = store.rows("a"), store.rows("a")[:].copy()
    array: Any = zarr.open_array(folder, mode="r")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder.resolve())}}
    tensor = tensorstore.open(spec, open=True, recheck_cached_data=False).result()
    with h5py.File(hdf5, "w") as file:
        file.create_dataset("rows", data=memory)
    dataset = h5py.File(hdf5, "r")["rows"]
    return {
        "mapped, copied": lambda start: rows[start : start + CLIP_FRAMES].copy(),
        "mapped, view": lambda start: rows[start : start + CLIP_FRAMES],
        "memory, copied": lambda start: memory[start : start + CLIP_FRAMES].copy(),
        "h5py": lambda start: dataset[start : start + CLIP_FRAMES],
        "tensorstore": lambda start: tensor[start : start + CLIP_FRAMES].read().result(),
        "zarr-python": lambda start: array[start : start + CLIP_FRAMES],
    }


def cold(store: FeatureStore, *, repeats: int) -> None:
    """Print thousand frames a second of batches that are not in memory, with and without reading ahead."""
    path = store.path / "a" / "features" / "identity" / "c" / "0" / "0"
    rates: dict[str, list[float]] = {"cold, mapped": [], "cold, mapped, read ahead": []}
    out: npt.NDArray[Any] = np.empty((BATCH_CLIPS, CLIP_FRAMES, store.settings.dim), np.float16)
    for turn in range(3 * repeats):
        for place, (name, numbers) in enumerate(rates.items()):
            drop(path)
            numbers.append(cold_rate(store, out, ahead=name.endswith("ahead"), seed=2 * turn + place))
    plain = statistics.median(rates["cold, mapped"])
    for name, numbers in rates.items():
        rate = statistics.median(numbers)
        print(f"{name:<28}{rate:>18,.0f}{'':>6}{rate / plain:.1f} x cold")


def cold_rate(store: FeatureStore, out: npt.NDArray[Any], *, ahead: bool, seed: int) -> float:
    """Thousand frames a second of one batch; unmapped on return (pages that are mapped cannot be dropped)."""
    rows, starts = store.rows("a"), clip_starts(store, BATCH_CLIPS, seed=seed)
    began = time.perf_counter()
    if ahead:
        for start in starts:
            rows.willneed(start, start + CLIP_FRAMES)
    for place, start in enumerate(starts):
        out[place] = rows[start : start + CLIP_FRAMES]
    return BATCH_CLIPS * CLIP_FRAMES / (time.perf_counter() - began) / 1000


def clip_starts(store: FeatureStore, num_clips: int, *, seed: int) -> list[int]:
    """First rows of random clips of match `a`."""
    last = store.rows("a").shape[0] - CLIP_FRAMES
    return [int(start) for start in np.random.default_rng(seed).integers(0, last + 1, num_clips)]


def drop(path: Path) -> None:
    """Let the system forget a file's pages (those that are not mapped elsewhere)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
