"""Our metric against the SoccerNet package's `average_mAP`: same input, same result, how many times as fast.

Two games of synthetic dense predictions, 12 classes, every frame scored. `python benchmarks/metric_speed.py`
(from the repository root, with `bas` and `SoccerNet` installed; the package takes about a minute a round).
"""

import argparse
import os
import statistics
import sys
import time
from fractions import Fraction
from typing import Any

import numpy as np
from common import interleaved, machine, median_ratio

from bas.eval.metric import DELTAS_SECONDS, MetricSettings, average_map
from bas.eval.spots import FloatArray, Game

FPS = 25
EVENTS_PER_MINUTE = (17.0, 15.0, 2.6, 3.0, 2.1, 1.1, 1.4, 0.6, 0.8, 0.2, 0.1, 0.04)
"""Of each class, as in SoccerNet's training games."""


def synthetic_game(generator: np.random.Generator, minutes: float) -> tuple[FloatArray, FloatArray]:
    """Events (T, 12) and a score for every frame and class: noise with a bump near most events."""
    num_frames = int(minutes * 60 * FPS)
    target = (generator.random((num_frames, 12)) < np.array(EVENTS_PER_MINUTE) / 60 / FPS).astype(np.float64)
    scores = generator.random((num_frames, 12)) ** 8
    frames, classes = np.nonzero(target)
    moved = np.clip(frames + generator.integers(-4, 5, len(frames)), 0, num_frames - 1)
    scores[moved, classes] = np.maximum(scores[moved, classes], generator.random(len(frames)) ** 0.5)
    return target, scores


def nearest(target: FloatArray) -> FloatArray:
    """The package's third input (T, C), which its `evaluate` makes: +1 near a visible event, -1 without any."""
    return np.where(target.any(axis=0), 1.0, -1.0) * np.ones_like(target)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=96.0, help="length of each game")
    parser.add_argument("--metric", default="at1", choices=sorted(DELTAS_SECONDS))
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds, after one that is not counted")
    options = parser.parse_args()
    from SoccerNet.Evaluation import ActionSpotting

    np.seterr(divide="ignore", invalid="ignore")
    grids = [synthetic_game(np.random.default_rng(seed), options.minutes) for seed in (1, 2)]
    targets, scores, closest = ([g[0] for g in grids], [g[1] for g in grids], [nearest(g[0]) for g in grids])
    deltas = np.array(DELTAS_SECONDS[options.metric])
    settings = MetricSettings.named(options.metric, fps=Fraction(FPS))
    results: dict[str, Any] = {}

    def ours() -> float:
        results["ours"] = average_map([Game.from_grids(*grid) for grid in grids], settings)
        return 1.0

    def package() -> float:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 its progress bar
        results["package"] = ActionSpotting.average_mAP(targets, scores, closest, framerate=FPS, deltas=deltas)
        sys.stderr = sys.__stderr__
        return 1.0

    started = time.perf_counter()
    rates = interleaved({"ours": ours, "package": package}, repeats=options.repeats)
    difference = np.abs(results["ours"].per_class - np.asarray(results["package"][1])).max()
    print(machine())
    print(f"two games of {options.minutes:g} min, {FPS} fps, 12 classes, every frame scored; {options.metric}")
    for name, values in rates.items():
        print(f"{name:8} {1000 * statistics.median(1 / value for value in values):12,.1f} ms a call (median)")
    print(f"ratio    {median_ratio(rates['ours'], rates['package']):12,.0f} x (median of {options.repeats} rounds)")
    print(f"largest difference of a class {difference:.1e}; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
