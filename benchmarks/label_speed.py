"""Seconds from a change to new proposals in `bas label`, by length of the match: `python benchmarks/label_speed.py`.

In the process that `bas label` keeps, so without loading PyTorch, which the first training adds. Rows are random.
"""

import argparse
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.events import SOCCERNET_BALL_CLASSES
from bas.label.learn import LearnTask, Marked, learn

FPS, BLOCK = 25, 9000


def write_store(path: Path, num_rows: int, dim: int) -> None:
    """One match of random rows."""
    record = FeatureSettings.imported(kind="x", model="none", dim=dim, fps=str(FPS)).to_json()
    settings = FeatureSettings.from_json(record)
    store = FeatureStore.create_or_open(path, settings, classes=SOCCERNET_BALL_CLASSES, software={})
    meta = MatchMeta(
        fps=Fraction(FPS), time_base=Fraction(1, FPS), origin_ticks=0, split="train", labels=None, video={"name": "x"}
    )
    generator = np.random.default_rng(0)
    with store.writer("m", num_rows=num_rows, pts_ticks=np.arange(num_rows), match_meta=meta, provenance={}) as writer:
        for first in range(0, num_rows, BLOCK):
            size = min(BLOCK, num_rows - first)
            writer.append({"identity": generator.normal(size=(size, dim)).astype(np.float16)}, np.ones(size, bool))
        writer.commit()


def main() -> None:
    """Print a row per length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 45, 90])
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--spots", type=int, default=160, help="in the first minutes, which are marked whole")
    parser.add_argument("--marked-minutes", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    generator = np.random.default_rng(1)
    until_ms = round(60_000 * args.marked_minutes)
    times, classes = generator.integers(0, until_ms, args.spots), generator.integers(0, 12, args.spots)
    marked = Marked("m", tuple(sorted(zip(times.tolist(), classes.tolist(), strict=True))), ((0, until_ms),), ())
    with tempfile.TemporaryDirectory() as folder:
        tasks = {}
        for minutes in args.minutes:
            tasks[minutes] = LearnTask(Path(folder) / f"{minutes}.zarr", SOCCERNET_BALL_CLASSES, (marked,))
            write_store(tasks[minutes].store, int(60 * minutes * FPS), args.dim)
            learn(tasks[minutes], lambda _: None)
        seconds: dict[float, list[tuple[float, float]]] = {minutes: [] for minutes in args.minutes}
        for _ in range(args.repeats):
            for minutes, task in tasks.items():
                begun = time.perf_counter()
                about = learn(task, lambda _: None)
                seconds[minutes].append((time.perf_counter() - begun, about["training_seconds"]))
    print("| minutes | s from the change to proposals | of these training |\n|---|---|---|")
    for minutes, rows in seconds.items():
        whole, training = (statistics.median(column) for column in zip(*rows, strict=True))
        least, most = min(row[0] for row in rows), max(row[0] for row in rows)
        print(f"| {minutes:g} | {whole:.1f} ({least:.1f} to {most:.1f}) | {training:.1f} |")


if __name__ == "__main__":
    main()
