"""What `bas cache pca` costs and saves: size, variance kept, mAP of heads, rows per second, peak memory.

    python benchmarks/reduce_cost.py STORE --out DIR [--dims 256,128,64,32] [--recipes small] [--seeds 3]
    python benchmarks/reduce_cost.py STORE --levels
    python benchmarks/reduce_cost.py STORE --speed
    python benchmarks/reduce_cost.py --memory 100000 1000000

The first makes the reduced stores and runs `bas ablate` over them and the full one: peaks chosen on validation, the
split test judged; mean and deviation over seeds, mean ends of the seeds' bootstrap intervals. All is kept in DIR and
not done again. `--levels` holds ranges of the 256 levels against each other. `--speed` holds our fit and transform
against scikit-learn's IncrementalPCA on the same rows in memory. `--memory` reduces stores of random rows (192
channels) and polls the process's anonymous memory: mapped rows of the store lie in the page cache, which the system
takes back when it needs it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import interleaved, machine, median_ratio, spread
from sklearn.decomposition import IncrementalPCA
from stores import random_store

from bas.ablate.loop import ablate
from bas.ablate.options import AblateOptions
from bas.cache.match import info
from bas.cache.reduce import READ_ROWS, FitSettings, SplitRows, fit, kept_of, levels_of, reduce_store
from bas.cache.reduction import Reduction
from bas.cache.store import FeatureStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("reduce-cost"))
    parser.add_argument("--dims", default="256,128,64,32")
    parser.add_argument("--both", default="64", help="channels of the stores that are in 8 bits as well")
    parser.add_argument("--recipes", default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inputs", default="standard")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--frames-per-epoch", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--levels", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="+", metavar="ROWS")
    parser.add_argument("--memory-child", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_child:
        memory_child(*arguments.memory_child)
        return
    print(machine())
    if arguments.memory:
        memory(arguments.memory)
    elif arguments.levels:
        levels(FeatureStore.open(arguments.store))
    elif arguments.speed:
        speed(FeatureStore.open(arguments.store), repeats=arguments.repeats)
    else:
        cost(arguments)


def cost(arguments: argparse.Namespace) -> None:
    """The table of stores by heads."""
    stores = [arguments.store, *(path for path, _ in variants(arguments))]
    for path, asked in variants(arguments):
        reduce_store(arguments.store, path, asked=asked)
    options = AblateOptions(
        recipes=tuple(arguments.recipes.split(",")),
        num_seeds=arguments.seeds,
        any_backbone=True,
        inputs=arguments.inputs,
        epochs=arguments.epochs,
        frames_per_epoch=arguments.frames_per_epoch,
        jobs=arguments.jobs,
        device="cpu",
    )
    table = ablate(stores, arguments.out / "ablation", options)
    rows = {row.name.partition("@")[2]: row for row in table.rows}
    heads = {row.recipe for row in table.rows}
    if len(heads) > 1:
        print("name one recipe at a time to see what the stores do to it")
    print(f"\n| rows | MB | variance kept, train | valid | clipped, valid | {', '.join(heads)} |")
    print("|---|---|---|---|---|---|")
    for path in stores:
        about = info(FeatureStore.open(path))
        kept = (about.reduction or {}).get("kept_variance", {})
        clipped = (about.reduction or {}).get("clipped_share", {})
        shares = [f"{100 * each:.2f} %" if each is not None else "" for each in (kept.get("train"), kept.get("valid"))]
        row, name = rows[path.stem], next(iter(table.chance))
        value, low, high = (100 * row.over_seeds(measure)[name] for measure in ("value", "low", "high"))
        sd = 100 * (row.sd() or {name: 0.0})[name]
        megabytes = sum(line.megabytes for line in about.matches)
        cut = f"{100 * clipped['valid']:.2f} %" if about.settings["dtype"] == "uint8" else ""
        print(
            f"| {path.stem} ({about.settings['dim']}) | {megabytes:.1f} | {' | '.join(shares)} | {cut} | "
            f"{value:.1f} ± {sd:.1f} ({low:.1f} to {high:.1f}) |"
        )
    print(f"| chance | | | | | {100 * next(iter(table.chance.values())):.1f} |")


def variants(arguments: argparse.Namespace) -> Iterator[tuple[Path, FitSettings]]:
    """Reduced stores and what is asked of them."""
    both = {int(dim) for dim in arguments.both.split(",")}
    yield arguments.out / "uint8.zarr", FitSettings(quantize=True)
    for dim in map(int, arguments.dims.split(",")):
        yield arguments.out / f"pca{dim}.zarr", FitSettings(dim=dim)
        if dim in both:
            yield arguments.out / f"pca{dim}-uint8.zarr", FitSettings(dim=dim, quantize=True)


def levels(store: FeatureStore, *, dim: int = 64) -> None:
    """Variance kept and values clipped by the range that the 256 levels cover; all training rows in memory."""
    splits = {split: SplitRows.of(store, split, "identity") for split in ("train", "valid")}
    print("| rows | levels over | variance kept, train | valid | clipped, train | valid |\n|---|---|---|---|---|---|")
    for bare in (fit(store, FitSettings(dim=dim), view="identity"), None):
        name = "all channels" if bare is None else f"PCA {dim}"
        if bare is not None:
            show_kept(name, "float16", bare, splits)
        blocks = splits["train"].blocks(READ_ROWS)
        values = np.concatenate([block if bare is None else bare.project(block) for block in blocks])
        arrays: dict[str, Any] = {} if bare is None else dict(bare.arrays)
        ends = np.quantile(values, [0.0005, 0.9995], axis=0)
        by_range = {"0.05 to 99.95 % of the values": levels_of(ends[0], ends[1], 0.0)}
        for share in (0, 0.125, 0.25, 0.5):
            by_range[f"least to greatest, {share:g} beyond"] = levels_of(values.min(0), values.max(0), share)
        for what, (scale, offset) in by_range.items():
            show_kept(name, what, Reduction(source=store.settings, **arrays, scale=scale, offset=offset), splits)


def show_kept(name: str, what: str, reduction: Reduction, splits: Mapping[str, SplitRows]) -> None:
    kept = [kept_of(reduction, rows.blocks(READ_ROWS)) for rows in splits.values()]
    cells = [f"{100 * share:.3f} %" for shares in zip(*kept, strict=True) for share in shares]
    print(f"| {name} | {what} | {' | '.join(cells)} |", flush=True)


def speed(store: FeatureStore, *, repeats: int, dim: int = 64) -> None:
    """Rows per second of training rows in the page cache."""
    train = SplitRows.of(store, "train", "identity")
    rows = np.concatenate(list(train.blocks(READ_ROWS)))
    ours = fit(store, FitSettings(dim=dim), view="identity")
    theirs = IncrementalPCA(n_components=dim, batch_size=READ_ROWS).fit(rows)
    cosines = np.abs(np.sum(ours.arrays["components"] * theirs.components_, axis=1))
    print(f"{len(rows):,} rows of {rows.shape[1]}, {dim} components; cosine with theirs {cosines.min():.6f} or more")

    def our_fit() -> float:
        fit(store, FitSettings(dim=dim), view="identity")
        return len(rows)

    def their_fit() -> float:
        IncrementalPCA(n_components=dim, batch_size=READ_ROWS).fit(rows)
        return len(rows)

    def our_transform() -> float:
        for match_id in train.match_ids:
            ours.encode(store.rows(match_id)[:])
        return sum(len(store.rows(match_id)) for match_id in train.match_ids)

    def their_transform() -> float:
        theirs.transform(rows)
        return len(rows)

    rates = interleaved(
        {"our fit": our_fit, "their fit": their_fit, "our rows": our_transform, "their rows": their_transform},
        repeats=repeats,
    )
    for name, values in rates.items():
        print(f"{name}: {spread(values)} rows/s")
    for what in ("fit", "rows"):
        print(f"{what}: {median_ratio(rates[f'our {what}'], rates[f'their {what}']):.2f} times theirs")


def memory(lengths: list[int]) -> None:
    """Peak memory by number of rows."""
    for num_rows in lengths:
        with tempfile.TemporaryDirectory() as folder:
            store, out = Path(folder, "full.zarr"), Path(folder, "small.zarr")
            parts = {f"m{number}": num_rows // 10 for number in range(9)}
            random_store(store, 192, train=parts, valid={"m9": num_rows // 10})
            command = [sys.executable, __file__, "--memory-child", str(store), str(out)]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{num_rows:,} rows: peak {told['peak_MB']:,.0f} MB, of which {told['before_MB']:,.0f} MB before it "
                f"began; {told['seconds']:.0f} s"
            )


def memory_child(store: Path, out: Path) -> None:
    """Reduce, and say how much memory it took."""
    peak, done = [0.0], threading.Event()
    before = anonymous_mb()

    def poll() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_mb())

    thread = threading.Thread(target=poll)
    thread.start()
    began = time.monotonic()
    reduce_store(store, out, asked=FitSettings(dim=64, quantize=True))
    done.set()
    thread.join()
    print(json.dumps({"peak_MB": peak[0], "before_MB": before, "seconds": time.monotonic() - began}))


def anonymous_mb() -> float:
    """Memory of this process that is no mapped file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
