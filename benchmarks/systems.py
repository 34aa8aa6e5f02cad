"""E2E-Spot's and T-DEED's own public code beside ours: the same matches, picture size, clips, batch, number of frames.

    python benchmarks/systems.py E2E_SPOT T_DEED WORK [--parts train,network,accuracy,predict] [--rounds 3] [--steps 8]

E2E_SPOT and T_DEED are trees of github.com/jhong93/spot and github.com/arturxe2/T-DEED, WORK a folder for matches,
frames and runs. RegNetY-002 with GSM and a GRU, and with GSF and the SGP mixer (recipes `e2e-spot-200mf` and
`t-deed-200mf`), random weights, fp32, one thread. Theirs read folders of JPEG frames, made first by their own scripts;
ours read the videos. `train`: their `epoch()` on their data set against `bas finetune`, all on one core, and with
`--cores 2` one loader on the second (a process of theirs, a thread of ours). `network`: forward, backward and update on
given tensors. `accuracy`: one seed, judged by `bas eval`. `predict`: from new videos to spots, with the weights of
`accuracy`. Every figure is of a process of its own, the processes in turn. It also needs OpenCV, tqdm, tabulate and
SoccerNet.

Changed in their code while it runs, nothing in its files: random weights in place of timm's downloads; `wandb` and
`moviepy` (the length of a broken video) are stand-ins; the JPEGs have the size of the comparison. Where torchvision's
own reader of JPEGs does not load, OpenCV reads them. E2E-Spot: stride 2, which its scripts leave at 1;
`torch.cuda.FloatTensor`, `np.int` and `timm.models.layers`, which a CPU or today's libraries lack, get their
successors. T-DEED: the configuration SoccerNetBall_challenge1 without its second data set. Both: `device="cpu"`, where
their mixed precision does nothing, and validation without 8 processes.
"""

import argparse
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from common import machine, median_ratio, spread
from torch.utils.data import DataLoader

from bas.data.sources import find_sources
from bas.eval.files import PREDICTIONS_NAME
from bas.events import Event, write_predictions
from bas.extract.backbones.torchvision_compat import import_with_torchvision
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

WIDTH, HEIGHT, CLIP_LEN, STRIDE, FPS = 112, 64, 100, 2, 25
RECIPE = {"e2e-spot": "e2e-spot-200mf", "t-deed": "t-deed-200mf"}
DATA = {"e2e-spot": "data/soccernet_ball", "t-deed": "data/soccernetball"}
JSON_OF = {"train": "train", "valid": "val", "test": "test"}
NMS_SECONDS = 1.0
"""Of E2E-Spot's predictions: its README's 25 frames for this task."""


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
    parser.add_argument("--child", nargs="+", help="what this process measures")
    arguments = parser.parse_args()
    for name in ("e2e_spot", "t_deed", "work"):
        setattr(arguments, name, getattr(arguments, name).resolve())
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
    """What a child found, with the time and memory of its whole process."""
    result = work(*given)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {**result, "peak_gb": peaks[0] / 1e6, "all_processor_seconds": processor_seconds()}


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
    if matches_of(arguments).exists():
        return
    command = [sys.executable, "-m", "bas", "data", "synthetic", str(matches_of(arguments)), "--jobs", "1", "--quiet"]
    command += ["--matches", "7", "--variety", "0.25", "--minutes", str(arguments.minutes)]
    subprocess.run(command, check=True, capture_output=True)


def matches_of(arguments: argparse.Namespace) -> Path:
    """Their folder."""
    folder: Path = arguments.work / "matches"
    return folder


def show_frames(arguments: argparse.Namespace, system: str) -> None:
    """Make the folders that theirs reads, once, and say what that took."""
    note = arguments.work / system / "frames.json"
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(child("frames", system)))
    made = json.loads(note.read_text())
    videos = list(matches_of(arguments).rglob("*.mp4"))
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
        for match in find_sources([matches_of(arguments)]).matches:
            extract_frames(arguments, system, match.require_video(), folder / "frames" / f"{match.split}/{match.id}")
    files = list((folder / "frames").rglob("*.jpg"))
    write_their_labels(arguments, system)
    began = time.perf_counter()
    if system == "t-deed":
        t_deed(arguments, frames_per_epoch=CLIP_LEN * 4, store_mode="store")
    index_seconds = time.perf_counter() - began
    num_bytes = sum(file.stat().st_size for file in files)
    return {**result, "num_frames": len(files), "bytes": num_bytes, "index_seconds": index_seconds}


def extract_frames(arguments: argparse.Namespace, system: str, video: Path, out: Path) -> None:
    """One video's frames by their own script."""
    name = {"e2e-spot": "frames_as_jpg_soccernet_ball", "t-deed": "extract_frames_snb"}[system]
    script = import_theirs(arguments, system, name)
    script.TARGET_WIDTH, script.TARGET_HEIGHT = WIDTH, HEIGHT
    script.get_duration = lambda _: 0.0
    script.worker((out.name, str(video), str(out), FPS))


def write_their_labels(arguments: argparse.Namespace, system: str) -> None:
    """`class.txt` and a JSON list of each split, in the working folder."""
    data_set, data = find_sources([matches_of(arguments)]), Path(DATA[system])
    data.mkdir(parents=True, exist_ok=True)
    (data / "class.txt").write_text("\n".join(data_set.classes))
    Path("data/soccernet").mkdir(exist_ok=True)
    for place in (data, Path("data/soccernet")):
        (place / "labels_path.txt").write_text(str(matches_of(arguments)))
    for split, name in JSON_OF.items():
        entries = []
        for match in data_set.matches:
            if match.split != split:
                continue
            num_frames = len(list((Path("frames") / split / match.id).glob("*.jpg")))
            events = [
                {"frame": event.position_ms * FPS // 1000, "label": event.label, "comment": ""}
                for event in data_set.events(match) or ()
            ]
            about = {"num_frames": num_frames, "fps": FPS, "width": WIDTH, "height": HEIGHT}
            entries.append({"video": f"{split}/{match.id}", "events": events, "num_events": len(events), **about})
        (data / f"{name}.json").write_text(json.dumps(entries))


# Theirs


@dataclass(frozen=True)
class Theirs:
    """Their objects, made by their own code."""

    model: Any
    train_data: Any
    schedule: Callable[..., Any]
    """Optimizer and updates of an epoch -> their learning-rate schedule."""
    validate: Callable[[], float]
    """mAP of the validation match, as they choose the epoch."""
    predict: Callable[[Path], list[dict[str, Any]]]
    """Spots of the test matches: their list of videos, with events at half the frame rate."""


def import_theirs(arguments: argparse.Namespace, system: str, name: str) -> Any:
    """A module of their tree, after what today's libraries no longer have."""
    tree = str(getattr(arguments, system.replace("-", "_")))
    if tree not in sys.path:
        sys.path.insert(0, tree)
        timm = import_with_torchvision("timm")
        timm.models.layers = timm.layers
        timm.create_model = partial(without_pretrained, timm.create_model)
        for missing in ("wandb", "moviepy", "moviepy.editor"):
            sys.modules[missing] = ModuleType(missing)
        sys.modules["moviepy"].editor = sys.modules["moviepy.editor"]  # type: ignore[attr-defined]
        torch.cuda.FloatTensor = torch.empty  # type: ignore[attr-defined]
        np.int = int  # type: ignore[attr-defined]
        readable(import_with_torchvision("torchvision"))
    return import_module(name)


def without_pretrained(create: Callable[..., Any], name: str, *, pretrained: bool) -> Any:
    """timm's `create_model` with random weights."""
    del pretrained
    return create(name, pretrained=False)


def readable(torchvision: ModuleType) -> None:
    """OpenCV in place of torchvision's reader of JPEGs, where that one does not load."""
    if not hasattr(torch.ops.image, "decode_jpeg"):
        torchvision.io.read_image = read_by_opencv


def read_by_opencv(path: str) -> torch.Tensor:
    """(3, H, W) RGB uint8; raises RuntimeError where there is no file, as torchvision's does."""
    cv2 = import_module("cv2")
    picture = cv2.imread(path, cv2.IMREAD_COLOR_RGB) if Path(path).exists() else None
    if picture is None:
        raise RuntimeError(path)
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def in_process(data: Any, *, batch_size: int, **_: Any) -> Any:
    """Their loader of validation clips, without processes."""
    return DataLoader(data, batch_size=batch_size)


def e2e_spot(arguments: argparse.Namespace, *, frames_per_epoch: int) -> Theirs:
    """By the functions of their `train_e2e.py`."""
    code = import_theirs(arguments, "e2e-spot", "train_e2e")
    code.EPOCH_NUM_FRAMES, code.DataLoader = frames_per_epoch, in_process
    code.ActionSpotDataset = partial(code.ActionSpotDataset, stride=STRIDE)
    code.ActionSpotVideoDataset = partial(code.ActionSpotVideoDataset, stride=STRIDE)
    asked = argparse.Namespace(dataset="soccernet_ball", frame_dir="frames", modality="rgb", clip_len=CLIP_LEN)
    vars(asked).update(crop_dim=None, dilate_len=0, mixup=True, fg_upsample=None, criterion="map")
    vars(asked).update(num_epochs=arguments.epochs, warm_up_epochs=1)
    classes, train_data, _, valid_data = code.get_datasets(asked)
    model = code.E2EModel(len(classes) + 1, "rny002_gsm", "gru", clip_len=CLIP_LEN, modality="rgb", device="cpu")

    def predict(out: Path) -> list[dict[str, Any]]:
        file = f"{DATA['e2e-spot']}/test.json"
        data = code.ActionSpotVideoDataset(classes, file, "frames", "rgb", CLIP_LEN, overlap_len=CLIP_LEN // 2)
        code.evaluate(model, data, "TEST", classes, str(out), calc_stats=False, save_scores=False)
        with gzip.open(f"{out}.recall.json.gz", "rt") as file:
            found = json.load(file)
        spots: list[dict[str, Any]] = import_theirs(arguments, "e2e-spot", "util.eval").non_maximum_supression(
            found, round(NMS_SECONDS * FPS / STRIDE)
        )
        return spots

    def validate() -> float:
        return float(code.evaluate(model, valid_data, "VAL", classes, None))

    def schedule(optimizer: Any, steps: int) -> Any:
        return code.get_lr_scheduler(asked, optimizer, steps)[1]

    return Theirs(model, train_data, schedule, validate, predict)


def t_deed(arguments: argparse.Namespace, *, frames_per_epoch: int, store_mode: str = "load") -> Theirs:
    """By the functions of their `train_tdeed.py`."""
    code = import_theirs(arguments, "t-deed", "train_tdeed")
    evaluation = import_theirs(arguments, "t-deed", "util.eval")
    evaluation.DataLoader = in_process
    file = arguments.t_deed / "config/SoccerNetBall/SoccerNetBall_challenge1.json"
    config = json.loads(file.read_text())
    del config["pretrain"]
    config.update(frame_dir="frames", store_dir="clips", save_dir="runs", store_mode=store_mode, warm_up_epochs=1)
    config.update(epoch_num_frames=frames_per_epoch, num_epochs=arguments.epochs, clip_len=CLIP_LEN)
    asked = code.update_args(argparse.Namespace(model="SoccerNetBall_small"), config)
    asked.crop_dim = None
    classes, _, train_data, _, valid_data = code.get_datasets(asked)
    model = import_theirs(arguments, "t-deed", "model.model").TDEEDModel(device="cpu", args=asked)

    def predict(out: Path) -> list[dict[str, Any]]:
        data = code.ActionSpotVideoDataset(
            *(classes, f"{DATA['t-deed']}/test.json", "frames", "rgb", CLIP_LEN),
            overlap_len=CLIP_LEN // 4 * 3,
            stride=STRIDE,
            dataset="soccernetball",
        )
        evaluation.evaluate(model, data, "TEST", classes, str(out), test=True, printed=False)
        spots: list[dict[str, Any]] = json.loads(Path(f"{out}.json").read_text())
        return spots

    def validate() -> float:
        return float(code.evaluate(model, valid_data, "VAL", classes, printed=False, test=False))

    def schedule(optimizer: Any, steps: int) -> Any:
        return code.get_lr_scheduler(asked, optimizer, steps)[1]

    return Theirs(model, train_data, schedule, validate, predict)


MAKERS: Mapping[str, Callable[..., Theirs]] = {"e2e-spot": e2e_spot, "t-deed": t_deed}


# Training: what a child measures


def train_theirs(arguments: argparse.Namespace, system: str, workers: str) -> dict[str, Any]:
    """One call of their `epoch()`."""
    os.chdir(arguments.work / system)
    theirs, result = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments)), {}
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
        finetune(find_sources([matches_of(arguments)]), out, settings, start, decode_threads=1, progress=progress)
    except TrainedError:
        watch.__exit__(None, None, None)
    return result


def ours(arguments: argparse.Namespace, system: str, **changed: Any) -> tuple[FinetuneSettings, Start]:
    """A recipe's settings, and its network with random weights."""
    recipe = RECIPES[RECIPE[system]]
    given = {"augment": recipe.augment, "batch": arguments.batch, "frames_per_epoch": frames_of(arguments), **changed}
    settings = FinetuneSettings.of(recipe.settings, epochs=1, lr=1e-4, **given)
    asked = ExtractOptions(backbone=recipe.backbone, weights="none", size=(WIDTH, HEIGHT))
    return settings, Start.of(settings, asked, None)


class Given(list[dict[str, Any]]):
    """Batches that are there already, in place of a loader."""

    dataset = argparse.Namespace(load_frame_gpu=lambda batch, _: batch["frame"])


def network_theirs(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Their `epoch()` on tensors; without T-DEED's augmentation, which is in its network."""
    os.chdir(arguments.work / system)
    theirs, result = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments)), {}
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
    fabric = Devices(place="cpu").launch("fp32")
    names = tuple(f"class {number}" for number in range(12))
    net = _network(start, settings, names, fabric, checkpointing=False)
    clip = clip_targets([(20, 1), (30, 2)], num_steps=CLIP_LEN, num_classes=12, settings=settings.targets).targets
    targets = clip.select(torch.arange(CLIP_LEN).expand(arguments.batch, -1))
    pixels = torch.randint(0, 256, (arguments.batch, CLIP_LEN, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    batch, chosen, nothing = ClipBatch(pixels, tuple(range(arguments.batch)), targets), Chosen((), (), names, FPS), None
    trainer = ClipTrainer.of(settings, net, fabric, clips=nothing, chosen=chosen, source=nothing, record=nothing)
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
    """Frames per second of updates on given tensors."""
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
    torch.manual_seed(0)
    theirs, result = MAKERS[system](arguments, frames_per_epoch=arguments.epoch_frames), {}
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
    write_spots(theirs.predict(Path("runs/spots").resolve()), Path("predictions"))
    return {**result, "history": history}


def write_spots(videos: list[dict[str, Any]], out: Path) -> None:
    """Their list of videos as the folder that `bas eval` reads."""
    for video in videos:
        game = video["video"].split("/", maxsplit=1)[1]
        events = [
            Event(round(each["frame"] * STRIDE * 1000 / FPS), each["label"], confidence=min(1.0, each["score"]))
            for each in video["events"]
        ]
        write_predictions(out / game / PREDICTIONS_NAME, events, url_local=game)


def bas(*words: str | Path) -> float:
    """Run a command of ours on one core; seconds."""
    began, own = time.perf_counter(), sorted(os.sched_getaffinity(0))[-1:]
    subprocess.run(
        [sys.executable, "-m", "bas", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )
    return time.perf_counter() - began


def show_accuracy(arguments: argparse.Namespace, systems: list[str]) -> None:
    """mAP of the test matches by `bas eval`, one seed."""
    evaluate, matches = import_module("bas").evaluate, matches_of(arguments)
    for system in systems:
        result = child("learn-theirs", system)
        run, spots = arguments.work / f"{system}-run", arguments.work / f"{system}-predictions"
        words = ["--recipe", RECIPE[system], "--weights", "none", "--size", f"{WIDTH}x{HEIGHT}", "--quiet"]
        words += ["--batch", str(arguments.batch), "--epochs", str(arguments.epochs), "--warmup-epochs", "1"]
        words += ["--frames-per-epoch", str(arguments.epoch_frames), "--decode-threads", "1", "--schedule", "seed"]
        seconds = bas("finetune", matches, "--out", run, *words)
        bas("predict", matches, "--split", "test", "--run", run, "--out", spots, "--quiet")
        print(f"{system}: their losses and validation {result['history']}")
        for whose, folder, took in (
            ("theirs", arguments.work / system / "predictions", result["seconds"]),
            ("ours", spots, seconds),
        ):
            report = evaluate(matches, folder, splits=("test",))
            print(f"{system} {whose}: {took:.0f} s to learn; {report}")


def predict_theirs(arguments: argparse.Namespace, system: str) -> dict[str, Any]:
    """Frames of the test matches by their script, then their evaluation, with the weights of `accuracy`."""
    os.chdir(arguments.work / system)
    out, result = Path("again").resolve() / str(time.time_ns()), {}
    theirs = MAKERS[system](arguments, frames_per_epoch=frames_of(arguments))
    theirs.model.load(torch.load("best.pt"))
    with stopwatch(result):
        for match in find_sources([matches_of(arguments)]).matches:
            if match.split == "test":
                extract_frames(arguments, system, match.require_video(), out / match.id)
    theirs.predict(out / "spots")
    return {"frames_seconds": result["seconds"]}


def show_predict(arguments: argparse.Namespace, systems: list[str]) -> None:
    """From the test matches' videos to spots, whole processes."""
    for system in systems:
        times: dict[str, list[float]] = {"theirs": [], "ours": []}
        for number in range(arguments.rounds):
            began = time.perf_counter()
            child("predict-theirs", system)
            times["theirs"].append(time.perf_counter() - began)
            out = arguments.work / "unfinished" / f"{system}-spots-{number}-{time.time_ns()}"
            run = arguments.work / f"{system}-run"
            words = ("--split", "test", "--run", run, "--out", out, "--quiet")
            times["ours"].append(bas("predict", matches_of(arguments), *words))
        ratio = median_ratio(times["theirs"], times["ours"])
        print(f"{system}: theirs {spread(times['theirs'])} s, ours {spread(times['ours'])} s, {ratio:.2f}x as fast")


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
