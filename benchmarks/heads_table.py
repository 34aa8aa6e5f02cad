"""Every head on one store, several seeds: a table with intervals, time, memory and chance.

    python benchmarks/heads_table.py STORE --out DIR [--protocol scores|small] [--heads ...] [--seeds 3] [--jobs 2]
    python benchmarks/heads_table.py STORE --protocol scores --average RUN...

`scores` is for confidences of another model (bas cache import), `small` for small sets of real video. Runs are kept in
DIR and not trained again. Judged are the matches of --split with peaks that are fixed beforehand, so that nothing is
chosen on them; AP in %, mean and deviation over seeds, mean ends of the seeds' bootstrap intervals.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from common import machine

from bas.cache.bank import open_bank
from bas.cache.store import FeatureStore
from bas.eval.e2e import DELTAS_FRAMES
from bas.eval.metric import MetricSettings, average_map
from bas.eval.peaks import PeakSettings, find_spots
from bas.eval.report import EvalSettings, Resampling, average_precision, chance_games, evaluate
from bas.eval.spots import Game, Spots
from bas.heads.ensemble import Ensemble
from bas.heads.recipes import RECIPES, default_recipe
from bas.heads.training.data import LabelledMatch, Matches, labelled_matches
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings


@dataclass(frozen=True)
class Protocol:
    """What all heads of a table share."""

    settings: Mapping[str, Any]
    """Training settings that replace those of every head's own recipe."""
    heads: Mapping[str, Mapping[str, Any]]
    """Head -> what is special to it."""
    peaks: PeakSettings
    split: str
    """Judged; for `scores` the validation match, which then chooses nothing (`keep` is `last`)."""


_SIGMOID = {"loss": "bce", "sigma": 2.0}
_SCORES = RECIPES["scores"].settings
SCORES = Protocol(
    settings={
        name: getattr(_SCORES, name)
        for name in (
            *("inputs", "clip_len", "hop_rows", "batch", "warmup_epochs", "patience", "lr", "max_grad_norm"),
            *("ema", "keep", "score_len"),
        )
    }
    | {"epochs": 2, "frames_per_epoch": 100 * 8_192, "warmup_epochs": 0.2},
    heads={
        "fc": {**_SIGMOID, "proj": 0},
        "tcn": {**_SIGMOID, "proj": 64},
        "tcn_dilated": {**_SIGMOID, "proj": 64, "options": {"tcn_dilated.hidden": 64}},
        "sgp": {**_SIGMOID, "proj": 64},
        "tcn+sgp": {**_SIGMOID, "proj": 64},
        "sgp_block": {**_SIGMOID, "proj": 64},
        "ed_conv": {**_SIGMOID, "proj": 64},
        "tpn": {**_SIGMOID, "proj": 64},
        "transformer": {
            **_SIGMOID,
            "lr": 1e-3,
            "clip_len": 128,
            "batch": 64,
            "score_len": 128,
            "options": {"transformer.width": 128, "transformer.feed_forward": 128},
        },
        "ed": {**_SIGMOID, "proj": 64},
        "ed+disp": {"loss": None, "dilate": 2, "proj": 64},
        "bigru": {**_SIGMOID, "options": {"bigru.hidden": 64}},
        "unet_gru": {**_SIGMOID, "options": {"unet_gru.widths": "48,64", "unet_gru.gru.hidden": 64}},
        "unet": _SIGMOID,
        "anchor": {
            "proj": 64,
            "options": {"anchor.width": 64, "anchor.lengths_steps": "4,8,16", "anchor.event_steps": 8},
        },
        "actionformer": {"lr": 1e-3, "options": {"actionformer.width": 64}},
    },
    peaks=PeakSettings(kind="hard", window_frames=4, sigma_frames=1.4),
    split="valid",
)
_SMALL = RECIPES["small"].settings
SMALL = Protocol(
    settings={
        name: getattr(_SMALL, name)
        for name in (
            *(
                "inputs",
                "proj",
                "clip_len",
                "stride",
                "hop_rows",
                "batch",
                "epochs",
                "frames_per_epoch",
                "warmup_epochs",
            ),
            *("patience", "lr", "weight_decay", "max_grad_norm"),
        )
    },
    heads={
        "fc": {"dilate": 1},
        "tcn": {"dilate": 1},
        "ed": {"dilate": 1},
        "bigru": {"dilate": 1, "options": {"bigru.hidden": 64}},
        "anchor": {"options": {"anchor.width": 64}},
        "actionformer": {"options": {"actionformer.width": 64, "actionformer.num_levels": 3}},
    },
    peaks=PeakSettings(kind="hard", window_frames=6, sigma_frames=1.0),
    split="test",
)
PROTOCOLS = {"scores": SCORES, "small": SMALL}


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, default=Path("heads-table"))
    parser.add_argument("--protocol", choices=PROTOCOLS, default="scores")
    parser.add_argument("--heads")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--average", nargs="+", type=Path, help="judge the mean of these finished runs, train nothing")
    arguments = parser.parse_args()
    protocol = PROTOCOLS[arguments.protocol]
    if arguments.average:
        store = FeatureStore.open(arguments.store)
        fps = judged_matches(store, protocol)[0].fps
        found = measure(judged_games(store, arguments.average, protocol), store.classes, fps)
        print(", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        return
    heads = arguments.heads.split(",") if arguments.heads else list(protocol.heads)
    print(f"{machine()}; PyTorch {torch.__version__}, one thread a run, {arguments.jobs} runs side by side")
    tasks = [
        (arguments.store, arguments.out / f"{head}-{seed}", settings_of(protocol, head, seed), protocol)
        for seed in range(arguments.seeds)
        for head in heads
    ]
    context = multiprocessing.get_context("spawn")
    rows: dict[str, list[dict[str, float]]] = {head: [] for head in heads}
    with context.Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for head, result in pool.imap(_run, tasks, chunksize=1):
            rows[head].append(result)
            print(f"{head}: " + ", ".join(f"{name} {value:.1f}" for name, value in result.items()), flush=True)
    print_table(rows, chance(arguments.store, protocol))


def settings_of(protocol: Protocol, head: str, seed: int) -> TrainSettings:
    own = dict(protocol.heads[head])
    base = replace(default_recipe(head), **protocol.settings)
    return replace(base, **own, seed=seed)


def _run(task: tuple[Path, Path, TrainSettings, Protocol]) -> tuple[str, dict[str, float]]:
    store_path, out, settings, protocol = task
    torch.set_num_threads(1)
    store, result_file = FeatureStore.open(store_path), out.with_name(f"{out.name}.json")
    began = time.monotonic()
    record = train(store, out, settings)
    seconds = time.monotonic() - began
    result = json.loads(result_file.read_text()) if result_file.exists() else {}
    if not result or result["settings"] != settings.to_json():
        epoch_seconds = statistics.median(line.seconds - line.valid_seconds for line in record.history)
        result = {
            "settings": settings.to_json(),
            "seconds": seconds,
            "epoch_s": epoch_seconds,
            "memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "parameters_k": record.num_parameters / 1000,
        }
    result["scores"] = measure(judged_games(store, [out], protocol), record.classes, record.fps)
    result_file.write_text(json.dumps(result))
    shown = {name: result[name] for name in ("epoch_s", "memory_MB", "parameters_k")}
    return settings.head, {**result["scores"], **shown}


def judged_games(store: FeatureStore, runs: Sequence[Path], protocol: Protocol) -> list[Game]:
    """Events, and spots of the mean of runs, of the matches that are judged; a match keeps its own clock."""
    ensemble, games = Ensemble.load(runs, torch.device("cpu")), []
    for match in judged_matches(store, protocol):
        spots = find_spots(ensemble.scores(open_bank(store, [match.id])), protocol.peaks)
        games.append(Game(match.spots(len(store.classes)), spots))
    return games


def judged_matches(store: FeatureStore, protocol: Protocol) -> list[LabelledMatch]:
    ids = [match_id for match_id in store.matches() if store.match(match_id).meta.split == protocol.split]
    return labelled_matches(Matches.of_store(store), ids, store.classes)


def measure(games: Sequence[Game], classes: Sequence[str], fps: Fraction) -> dict[str, float]:
    """AP in %, the headline with its bootstrap interval first."""
    report = evaluate(games, classes, EvalSettings(fps=fps, num_chance_draws=0))
    name, headline = next(iter(report.means.items()))
    found = {name: headline.value, "low": headline.low, "high": headline.high}
    if len(classes) == 12:
        found["mAP-12"] = report.means["mAP-12"].value
    else:
        found = {f"{key} 1 s" if key == name else key: value for key, value in found.items()}
        found["mAP 0.5 s"] = average_map(games, MetricSettings((Fraction(1, 2),), fps)).mean
        settings = EvalSettings(metric="e2e", fps=fps, resampling=Resampling(num_resamples=500))
        exact = average_precision(games, settings)[0].mean(-1)
        samples = average_precision(games, settings, block_frames=100_000, resampling=True).mean(-1)
        low, high = settings.resampling.interval(samples)
        for delta in (2, 4):
            index = DELTAS_FRAMES.index(delta)
            found[f"AP +-{delta}"] = float(exact[index])
            found[f"+-{delta} low"], found[f"+-{delta} high"] = float(low[index]), float(high[index])
    return {key: 100 * value for key, value in found.items()}


def chance(store_path: Path, protocol: Protocol) -> dict[str, float]:
    """The same figures for instants and confidences drawn at random, one a second and class; mean of five draws."""
    store = FeatureStore.open(store_path)
    fps, nothing = judged_matches(store, protocol)[0].fps, Spots.collect([], [], [], num_classes=len(store.classes))
    games = [Game(match.spots(len(store.classes)), nothing) for match in judged_matches(store, protocol)]
    draws = [measure(chance_games(games, fps, draw=draw), store.classes, fps) for draw in range(5)]
    return {name: statistics.mean(draw[name] for draw in draws) for name in draws[0]}


def print_table(rows: Mapping[str, Sequence[Mapping[str, float]]], by_chance: Mapping[str, float]) -> None:
    names = list(next(iter(rows.values()))[0])
    print(f"\n| head | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for head, results in rows.items():
        cells = []
        for name in names:
            values = [result[name] for result in results]
            sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 and ("AP" in name) else ""
            cells.append(f"{statistics.mean(values):,.1f}{sd}")
        print(f"| {head} | {' | '.join(cells)} |")
    print(f"| chance | {' | '.join(f'{by_chance[name]:.1f}' if name in by_chance else '' for name in names)} |")


if __name__ == "__main__":
    main()
