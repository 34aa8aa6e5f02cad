"""What bounds extraction on many machines: decoding per core, frames through an object store, balance of the shares.

    python benchmarks/cluster_speed.py VIDEO... [--frames 1500] [--size 398x224]

Per video: frames/s of one decoding thread, and what a copy of each picture (as through a node's object store) costs it.
Then the idle share at the end for 500 matches on 8 devices, longest first against in order of name.
"""

import argparse
import heapq
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from common import machine

from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import open_video

NUM_MATCHES, NUM_DEVICES, FRAMES_PER_MATCH = 500, 8, 135_000
BLOCK_FRAMES = 16


def decode_rate(path: Path, size: tuple[int, int], num_frames: int, *, shipped: bool) -> float:
    """Frames per second of one thread, with or without pickling each block and reading it again."""
    import pickle

    picture = PictureFormat(width=size[0], height=size[1], fit="pad", scaler="swscale-bicubic")
    video = open_video(path, fps=Fraction(25), picture=picture, threads=1)
    frames, done, started = islice(video.frames(), num_frames), 0, time.perf_counter()
    while block := list(islice(frames, BLOCK_FRAMES)):
        if shipped:
            pickle.loads(pickle.dumps(np.stack([frame.image for frame in block]), protocol=5))
        done += len(block)
    return done / (time.perf_counter() - started)


def idle_share(lengths: Sequence[float]) -> float:
    """Share of the devices' time after they have nothing left to do, each taking the next match once it is free."""
    free = [0.0] * NUM_DEVICES
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return 1 - sum(free) / (NUM_DEVICES * max(free))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--size", default="398x224")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    print(machine())
    for path in arguments.videos:
        rates = {
            shipped: sorted(decode_rate(path, (width, height), arguments.frames, shipped=shipped) for _ in range(3))
            for shipped in (False, True)
        }
        alone, shipped = rates[False][1], rates[True][1]
        print(f"{path.name}: {alone:,.0f} frames/s of one thread, {shipped:,.0f} shipped ({shipped / alone:.2f})")
    generator = np.random.default_rng(0)
    lengths = (FRAMES_PER_MATCH * generator.normal(1, 0.05, NUM_MATCHES).clip(0.8)).tolist()
    print(
        f"idle at the end: {idle_share(sorted(lengths, reverse=True)):.3%} longest first, {idle_share(lengths):.3%} not"
    )


if __name__ == "__main__":
    main()
