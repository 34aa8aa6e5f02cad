"""E2E-Spot's and T-DEED's own public code beside ours: the same matches, picture size, clips, batch, number of frames.

    python benchmarks/systems.py E2E_SPOT T_DEED WORK [--parts train,network,accuracy,predict] [--rounds 3] [--steps 8]

E2E_SPOT and T_DEED are trees of github.com/jhong93/spot and github.com/arturxe2/T-DEED, WORK a folder for matches,
frames and runs. RegNetY-002 with GSM and a GRU, and with GSF and the SGP mixer (recipes `e2e-spot-200mf` and
`t-deed-200mf`), random weights, fp32, one thread. Theirs read folders of JPEG frames, made first by their own scripts;
ours read the videos. `train`: their `epoch()` on their data set against `bas finetune`, all on one core, and with
`--cores 2` one loader on the second (a process of theirs, a thread of ours). `network`: forward, backward and update on
given tensors. `accuracy`: one seed, judged by `bas eval`. `predict`: from a new video to spots, with the weights of
`accuracy`. Every figure is of a process of its own, the processes in turn. It also needs OpenCV, tqdm, tabulate and
SoccerNet.
What is changed in their code while it runs: see `theirs.py`.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import machine, median_ratio, spread
from theirs import CLIP_LEN, HEIGHT, MAKERS, NEW, WIDTH, extract_frames, t_deed, write_spots, write_their_labels
from torch.utils.data import DataLoader

from bas import evaluate
from bas.data.sources import Match, find_sources
from bas.extract.options import ExtractOptions
from bas.finetune.data import ClipBatch
from bas.finetune.devices import Devices
from bas.finetune.loop import _network, finetune
from bas.finetune.start import Start
from bas.finetune.trainer import ClipTrainer
from bas.heads.recipes import RECIPES
from bas.heads.targets import clip_targets
from bas.heads.training.data import Chosen
from bas.heads.training.loop import TrainingProgress
from bas.heads.training.settings import FinetuneSettings

RECIPE = {"e2e-spot": "e2e-spot-200mf", "t-deed": "t-deed-200mf"}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("e2e_spot", type=Path)
    parser.add_argument("t_deed", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--parts", default="train,network,accuracy,predict")
    parser.add_argument("--systems", default="e2e-spot,t-deed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="updates of a measurement")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cores", type=int, default=1, choices=(1, 2), help="of train")
    parser.add_argument("--minutes", type=float, default=14, help="of the seven matches together")
    parser.add_argument("--epochs", type=int, default=4, help="of accuracy")
    parser.add_argument("--epoch-frames", type=int, default=6000, help="of accuracy")
    parser.add_argument("--seed", type=int, default=0, help="of accuracy")
    parser.add_argument("--precision", default="fp32", help="of ours; theirs is fp32 on a CPU")
    parser.add_argument("--child", nargs="+", help="what this process measures")
    arguments = parser.parse_args()
    for name in ("e2e_spot", "t_deed", "work"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    arguments.matches = arguments.work / "matches"
    torch.set_num_threads(1)
    if arguments.child:
        kind, system, *rest = arguments.child
        print("\n" + json.dumps(measured(CHILDREN[kind], arguments, system, *rest)))
        return
    print(f"{machine()}, torch {torch.__version__}, {arguments.batch} clips of {CLIP_LEN} frames of {WIDTH}x{HEIGHT}")
    make_matches(arguments)
    systems = arguments.systems.split(",")
    for system in systems:
        show_frames(arguments, system)
    for part in arguments.parts.split(","):
        PARTS[part](arguments, systems)


# Processes


def child(*words: str, cores: int = 1) -> dict[str, Any]:
    """What a process of its own measures, on so many cores."""
    own = sorted(os.sched_getaffinity(0))[-cores:]
    command = [sys.executable, __file__, *sys.argv[1:], "--child", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, own)
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """What a child found, with the most memory that its process has held."""
    result = work(*given)
    return {**result, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@contextmanager
def stopwatch(into: dict[str, Any]) -> Iterator[None]:
    """Note wall and processor time."""
    began, processor = time.perf_counter(), processor_seconds()
    yield
    into.update(seconds=time.perf_counter() - began, processor_seconds=processor_seconds() - processor)


# The data


def make_matches(arguments: argparse.Namespace) -> None:
    """Seven synthetic matches, unless WORK has some already."""
    if arguments.matches.exists():
        return
    command = [sys.executable, "-m", "bas", "data", "synthetic", str(arguments.matches), "--jobs", "1", "--quiet"]
    command += ["--matches", "7", "--variety", "0.25", "--minutes", str(arguments.minutes)]
    subprocess.run(command, check=True, capture_output=True)


def show_frames(arguments: argparse.Namespace, system: str) -> None:
    """Make the folders that theirs reads, once, and say what that took."""
    note = arguments.work / system / "frames.json"
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(child("frames", system)))
    made = json.loads(note.read_text())
    videos = list(arguments.matches.rglob("*.mp4"))
    video_mb = sum(video.stat().st_size for video in videos) / 1e6
    print(
        f"{system}: {made['num_frames']} JPEGs, {made['bytes'] / 1e6:.0f} MB of {WIDTH}x{HEIGHT} (videos of 398x224: "
        f"{video_mb:.0f} MB), {made['seconds']:.0f} s, {made['processor_seconds']:.0f} s of processor; "
        f"index of clips {made['index_seconds']:.0f} s"
    )


def make_frames(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Frames by their own script, and their label files."""
    result: dict[str, Any] = {}
    folder = arguments.work / system
    os.chdir(folder)
    shutil.rmtree("frames", ignore_errors=True)
    with stopwatch(result):
        for match in find_sources([arguments.matches]).matches:
            extract_frames(arguments, system, match.require_video(), folder / "frames" / f"{match.split}/{match.id}")
    files = list((folder / "frames").rglob("*.jpg"))
    write_their_labels(arguments, system)
    began = time.perf_counter()
    if system == "t-deed":
        t_deed(arguments, frames_per_epoch=CLIP_LEN * 4, store_mode="store")
    index_seconds = time.perf_counter() - began
    num_bytes = sum(file.stat().st_size for file in files)
    return {**result, "num_frames": len(files), "bytes": num_bytes, "index_seconds": index_seconds}


# Training: what a child measures


def train_theirs(arguments: argparse.Namespace, system: str, workers: str) -> dict[str, Any]:
    """One call of their `epoch()`."""
    os.chdir(arguments.work / system)
    theirs = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments))
    result: dict[str, Any] = {}
    options = {"num_workers": int(workers), "prefetch_factor": 2} if int(workers) else {}
    loader = DataLoader(theirs.train_data, batch_size=arguments.batch, **options)  # type: ignore[arg-type]
    optimizer, scaler = theirs.model.get_optimizer({"lr": 1e-4})
    with stopwatch(result):
        theirs.model.epoch(loader, optimizer, scaler)
    return result


def frames_of(arguments: argparse.Namespace) -> int:
    """Of one measurement."""
    return int(arguments.steps * arguments.batch * CLIP_LEN)


class TrainedError(Exception):
    """The updates are done: what follows is not measured."""


def train_ours(arguments: argparse.Namespace, system: str, *_: str) -> dict[str, Any]:
    """`bas finetune` until its first validation."""
    result: dict[str, Any] = {}
    settings, start = ours(arguments, system)
    watch = stopwatch(result)

    def stop(_: str) -> None:
        raise TrainedError

    out = arguments.work / "unfinished" / f"{system}-{time.time_ns()}"
    progress = TrainingProgress(started=lambda *_: watch.__enter__(), validating=stop)
    try:
        finetune(find_sources([arguments.matches]), out, settings, start, decode_threads=1, progress=progress)
    except TrainedError:
        watch.__exit__(None, None, None)
    return result


def ours(arguments: argparse.Namespace, system: str, **changed: Any) -> tuple[FinetuneSettings, Start]:
    """A recipe's settings, and its network with random weights."""
    recipe = RECIPES[RECIPE[system]]
    given = {**recipe.finetuning, "batch": arguments.batch, "frames_per_epoch": frames_of(arguments), **changed}
    settings = FinetuneSettings.of(recipe.settings, epochs=1, lr=1e-4, precision=arguments.precision, **given)
    asked = ExtractOptions(backbone=recipe.backbone, weights="none", size=(WIDTH, HEIGHT))
    return settings, Start.of(settings, asked, None)


class Given(list[dict[str, Any]]):
    """Batches that are there already, in place of a loader."""

    dataset = argparse.Namespace(load_frame_gpu=lambda batch, _: batch["frame"])


def network_theirs(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Their `epoch()` on tensors; without T-DEED's augmentation, which is in its network."""
    os.chdir(arguments.work / system)
    theirs = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments))
    result: dict[str, Any] = {}
    shape = (arguments.batch, CLIP_LEN, 3, HEIGHT, WIDTH)
    labels = torch.randint(0, 13, shape[:2]) * (torch.rand(shape[:2]) < 0.05)
    batch = {"frame": torch.rand(shape), "label": labels}
    if system == "t-deed":
        batch["labelD"] = torch.zeros(shape[:2])
        theirs.model._model.augmentation = torch.nn.Identity()
    optimizer, scaler = theirs.model.get_optimizer({"lr": 1e-4})
    theirs.model.epoch(Given([batch]), optimizer, scaler)
    with stopwatch(result):
        theirs.model.epoch(Given([batch] * arguments.steps), optimizer, scaler)
    return result


def network_ours(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """The updates of `bas finetune` on pictures; without augmentation."""
    result: dict[str, Any] = {}
    settings, start = ours(arguments, system, augment="none")
    fabric = Devices(place="cpu").launch(settings.precision)
    names = tuple(f"class {number}" for number in range(12))
    net = _network(start, settings, names, fabric, checkpointing=False)
    clip = clip_targets([(20, 1), (30, 2)], num_steps=CLIP_LEN, num_classes=12, settings=settings.targets)[0]
    targets = clip.select(torch.arange(CLIP_LEN).expand(arguments.batch, -1))
    pixels = torch.randint(0, 256, (arguments.batch, CLIP_LEN, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    batch, chosen, nothing = (
        ClipBatch(pixels, tuple(range(arguments.batch)), targets),
        Chosen((), (), names, Fraction(25)),
        cast(Any, None),
    )
    trainer = ClipTrainer(settings, net, fabric, clips=nothing, chosen=chosen, source=nothing, record=nothing)
    trainer.training_step((batch,), lr=1e-4, seed=0)
    with stopwatch(result):
        for number in range(arguments.steps):
            trainer.training_step((batch,), lr=1e-4, seed=number)
    return result


# Training: the tables


def show_train(arguments: argparse.Namespace, systems: list[str]) -> None:
    """Frames per second from what each reads."""
    print("training from files,", "all on one core" if arguments.cores == 1 else "one loader on a second core")
    show_rates(arguments, systems, "train", str(arguments.cores - 1), cores=arguments.cores)


def show_network(arguments: argparse.Namespace, systems: list[str]) -> None:
    """Frames per second of updates on tensors that are there already."""
    print("updates on given tensors")
    show_rates(arguments, systems, "network", cores=1)


def show_rates(arguments: argparse.Namespace, systems: list[str], kind: str, *words: str, cores: int) -> None:
    """Rates by wall and by processor time, ratios and memory, theirs and ours in turn."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        for system in systems:
            for whose in ("theirs", "ours"):
                each = child(f"{kind}-{whose}", system, *words, cores=cores)
                found.setdefault((system, whose), []).append(each)
    for system in systems:
        for unit in ("seconds", "processor_seconds"):
            rates = {
                whose: [frames_of(arguments) / each[unit] for each in found[system, whose]]
                for whose in ("theirs", "ours")
            }
            texts = ", ".join(f"{whose} {spread(values)}" for whose, values in rates.items())
            ratio = median_ratio(rates["ours"], rates["theirs"])
            print(f"  {system:9} frames a {unit.removesuffix('s').replace('_', ' ')}: {texts}, {ratio:.2f}x")
        peaks = {whose: statistics.median(each["peak_gb"] for each in found[system, whose]) for whose in rates}
        print(f"  {system:9} peak: theirs {peaks['theirs']:.2f} GB, ours {peaks['ours']:.2f} GB")


# Accuracy and prediction


def learn_theirs(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Train by their loop, keep the epoch of their best validation, write spots of the test matches for `bas eval`."""
    os.chdir(arguments.work / system)
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # theirs draw from it, and from the next
    random.seed(arguments.seed)
    theirs = MAKERS[system](arguments, frames_per_epoch=arguments.epoch_frames)
    result: dict[str, Any] = {}
    loader = DataLoader(theirs.train_data, batch_size=arguments.batch)
    optimizer, scaler = theirs.model.get_optimizer({"lr": RECIPES[RECIPE[system]].settings.lr})
    schedule, best, history = theirs.schedule(optimizer, len(loader)), -1.0, []
    with stopwatch(result):
        for _ in range(arguments.epochs):
            loss = theirs.model.epoch(loader, optimizer, scaler, lr_scheduler=schedule)
            history.append((loss, theirs.validate()))
            if history[-1][1] > best:
                best = history[-1][1]
                torch.save(theirs.model.state_dict(), "best.pt")
    theirs.model.load(torch.load("best.pt"))
    Path("runs").mkdir(exist_ok=True)
    write_spots(theirs.predict("test", Path("runs/spots").resolve()), Path("predictions"))
    return {**result, "history": history}


def bas(*words: str | Path) -> None:
    """Run a command of ours on one core."""
    command, own = [sys.executable, "-m", "bas", *map(str, words), "--quiet"], sorted(os.sched_getaffinity(0))[-1:]
    subprocess.run(command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, own))


def show_accuracy(arguments: argparse.Namespace, systems: list[str]) -> None:
    """mAP of the test matches by `bas eval`, of one seed."""
    for system in systems:
        run = arguments.work / f"{system}-run-{arguments.seed}"
        spots = arguments.work / f"{system}-predictions-{arguments.seed}"
        took: dict[str, Any] = {}
        theirs = child("learn-theirs", system)
        words = ["--recipe", RECIPE[system], "--weights", "none", "--size", f"{WIDTH}x{HEIGHT}", "--schedule", "seed"]
        words += [
            "--precision",
            arguments.precision,
            "--batch",
            str(arguments.batch),
            "--epochs",
            str(arguments.epochs),
            "--warmup-epochs",
            "1",
        ]
        words += [
            "--frames-per-epoch",
            str(arguments.epoch_frames),
            "--decode-threads",
            "1",
            "--seed",
            str(arguments.seed),
        ]
        with stopwatch(took):
            bas("finetune", arguments.matches, "--out", run, *words)
        bas("predict", arguments.matches, "--split", "test", "--run", run, "--out", spots)
        print(f"{system}: their losses and validation {theirs['history']}")
        for whose, folder, spent in (
            ("theirs", arguments.work / system / "predictions", theirs),
            ("ours", spots, took),
        ):
            means = evaluate(arguments.matches, folder, splits=("test",)).means
            print(f"  {whose}: {spent['processor_seconds']:.0f} s of processor to learn; {means}")


def predict_theirs(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Frames of the new video by their script, then their evaluation, with the weights of `accuracy`."""
    os.chdir(arguments.work / system)
    out = Path("again").resolve() / str(time.time_ns())
    result: dict[str, Any] = {}
    theirs = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments))
    theirs.model.load(torch.load("best.pt"))
    with stopwatch(result):
        match = new_match(arguments)
        extract_frames(arguments, system, match.require_video(), out / match.id)
    theirs.predict(NEW, out / "spots")
    return {"frames_seconds": result["processor_seconds"]}


def new_match(arguments: argparse.Namespace) -> Match:
    """The first test match."""
    return next(match for match in find_sources([arguments.matches]).matches if match.split == "test")


def show_predict(arguments: argparse.Namespace, systems: list[str]) -> None:
    """From the first test match's video to spots, whole processes."""
    for system in systems:
        found: dict[str, list[dict[str, Any]]] = {"theirs": [], "ours": []}
        for number in range(arguments.rounds):
            for whose in found:
                found[whose].append({})
                with stopwatch(found[whose][-1]):
                    if whose == "theirs":
                        child("predict-theirs", system)
                        continue
                    out = arguments.work / "unfinished" / f"{system}-spots-{number}-{time.time_ns()}"
                    run = ("--run", arguments.work / f"{system}-run-{arguments.seed}", "--out", out)
                    bas("predict", new_match(arguments).require_video(), *run)
        for unit in ("seconds", "processor_seconds"):
            theirs, ours = ([each[unit] for each in found[whose]] for whose in ("theirs", "ours"))
            ratio = median_ratio(theirs, ours)
            print(f"{system}: {unit} from a video to spots: theirs {spread(theirs)}, ours {spread(ours)}, {ratio:.2f}x")


CHILDREN: Mapping[str, Callable[..., dict[str, Any]]] = {
    "frames": make_frames,
    "train-theirs": train_theirs,
    "train-ours": train_ours,
    "network-theirs": network_theirs,
    "network-ours": network_ours,
    "learn-theirs": learn_theirs,
    "predict-theirs": predict_theirs,
}
PARTS: Mapping[str, Callable[[argparse.Namespace, list[str]], None]] = {
    "train": show_train,
    "network": show_network,
    "accuracy": show_accuracy,
    "predict": show_predict,
}

if __name__ == "__main__":
    main()
