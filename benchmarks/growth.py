"""What one more match costs where there are many: `python benchmarks/growth.py WORK [--matches 1,10,100,1000]`.

Stores of made-up matches of 30 s in WORK, a new folder. Every figure is the median of three rounds in this process,
imports left out: the store opened and listed, `cache info`, a bank of all rows, one new match pushed to a folder and to
S3 (SeaweedFS) that hold all others, nothing new pulled from both, predictions and their evaluation, the report page and
its size. The last column is how the time grows from the last but one number of matches to the last: 1.0 is linear,
2.0 would be quadratic, 0.0 does not depend on them.
"""

import argparse
import math
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import machine
from s3_server import s3_server
from stores import random_store

from bas import evaluate
from bas.cache.bank import open_bank
from bas.cache.share.pull import Selection, pull
from bas.cache.share.push import push
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings
from bas.predict import PredictOptions, predict
from bas.report.make import report
from bas.report.sources import ReportOptions

ROUNDS, NUM_ROWS, DIM = 3, 750, 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--matches", default="1,10,100,1000")
    arguments = parser.parse_args()
    arguments.work.mkdir()
    numbers = [int(each) for each in arguments.matches.split(",")]
    with s3_server(arguments.work / "server") as bucket:
        found = {number: measure(arguments.work / str(number), f"{bucket}/{number}.zarr", number) for number in numbers}
    print(f"{machine()}; matches of {NUM_ROWS} rows of {DIM} channels; seconds\n")
    print("| | " + " | ".join(f"{number:,}" for number in numbers) + " | growth |\n|" + "---|" * (len(numbers) + 2))
    for name in found[numbers[0]]:
        values = [found[number][name] for number in numbers]
        growth = math.log(values[-1] / values[-2]) / math.log(numbers[-1] / numbers[-2]) if len(numbers) > 1 else 0.0
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in values) + f" | {growth:.1f} |")


def measure(folder: Path, url: str, number: int) -> dict[str, float]:
    """Seconds of each task where a store holds so many matches."""
    folder.mkdir()
    path, there, back = folder / "s.zarr", folder / "there.zarr", folder / "back.zarr"
    names = [f"league/2026/match {each:04}" for each in range(number)]
    found = {
        "written": timed(lambda: random_store(path, DIM, train={}, valid=dict.fromkeys(names, NUM_ROWS)), rounds=1)
    }
    store = FeatureStore.open(path)
    found["opened and listed"] = timed(lambda: len(FeatureStore.open(path).matches()))
    found["verified"] = timed(lambda: verify(path))
    found["bank of all rows"] = timed(lambda: open_bank(store, store.matches(), views=("identity",), place="ram"))
    for name, target in (("folder", str(there)), ("S3", url)):
        found[f"all pushed to {name}"] = timed(partial(push, path, target, Selection()), rounds=1)
        found[f"nothing new pushed to {name}"] = timed(partial(push, path, target, Selection()))
        ones = [one_match(folder / f"{name}{turn}.zarr", f"league/2027/{name} {turn}") for turn in range(ROUNDS)]
        push_one = map(partial(push, url=target, selection=Selection()), ones)
        found[f"one new match pushed to {name}"] = timed(push_one.__next__)
        pull(target, back, Selection())
        found[f"nothing new pulled from {name}"] = timed(partial(pull, target, back, Selection()))
    run, spots, page = folder / "run", folder / "spots", folder / "page"
    settings = TrainSettings(head="fc", epochs=1, frames_per_epoch=800)
    learned = random_store(folder / "train.zarr", DIM, train={"a": NUM_ROWS}, valid={"b": NUM_ROWS})
    train(learned, run, settings, device="cpu")
    found["predicted"] = timed(lambda: predict(path, [run], spots, PredictOptions(splits=("valid",), device="cpu")))
    found["evaluated, 200 resamples"] = timed(lambda: evaluate(path, spots, splits=("valid",), num_resamples=200))
    found["report page"] = timed(lambda: report([spots], page, ReportOptions(store=path)), rounds=1)
    found["its size, MB"] = sum(file.stat().st_size for file in page.rglob("*") if file.is_file()) / 1e6
    return found


def timed(task: Callable[[], object], *, rounds: int = ROUNDS) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def one_match(path: Path, name: str) -> Path:
    """A store of one match."""
    shutil.rmtree(path, ignore_errors=True)
    random_store(path, DIM, train={}, valid={name: NUM_ROWS})
    return path


if __name__ == "__main__":
    main()
