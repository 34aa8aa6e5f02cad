"""Speed of stage two, side by side in one run.

    python benchmarks/train_speed.py [--parts loading,heads,inference,seeds,video] [--video VIDEO] [--device auto]

`loading`: updates per second of `tcn` and `ed` at C = 192, four clips of 50 steps each, from the feature bank and from
a PyTorch DataLoader with workers over HDF5 files (h5py); and what share of an update the bank's loading takes.
`video`: the same head trained end to end with X3D-S, one clip of VIDEO at a time (for memory), against the bank.
`heads`: an epoch of 500,000 frames for every head (updates timed in turn, several rounds; an epoch has 2,500).
`inference`: confidences of a whole match of 146,892 frames, and its spots.
`seeds`: what three seeds of a recipe cost, in single ones: whole commands of `bas ablate`, which trains side by side.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from common import interleaved, machine, median_ratio, spread
from stores import TRAIN_ROWS, VALID_ROWS, random_store
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bas.cache.bank import FeatureBank, open_bank
from bas.cache.store import FeatureStore
from bas.eval.peaks import PeakSettings, find_spots
from bas.extract.backbones.registry import backbone_spec
from bas.extract.backbones.weights import load_weights
from bas.extract.extractor import Extractor, resolve_settings
from bas.extract.options import ExtractOptions
from bas.heads.model import build_model
from bas.heads.recipes import default_recipe
from bas.heads.registry import HEADS
from bas.heads.scoring import match_scores
from bas.heads.targets import Targets
from bas.heads.training.data import Batch, Chosen, Examples, choose_matches
from bas.heads.training.loop import HeadTrainer, choose_device
from bas.heads.training.settings import TrainSettings

DIM = 192
NUM_CLASSES = 12


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="loading,heads,inference")
    parser.add_argument("--video", type=Path, help="for the part `video`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--updates", type=int, default=40, help="updates per round")
    parser.add_argument("--heads", default=",".join(HEADS), help="for the part `heads`")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    parts = arguments.parts.split(",")
    print(f"{machine()}; PyTorch {torch.__version__} on {device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "store", DIM, train=TRAIN_ROWS, valid=VALID_ROWS)
        chosen = choose_matches(store)
        bank = open_bank(store, store_order(chosen), device=device)
        if "loading" in parts:
            loading(store, chosen, bank, Path(folder), arguments)
        if "heads" in parts:
            epochs(chosen, bank, arguments)
        if "inference" in parts:
            inference(bank, arguments)
        if "seeds" in parts:
            for head in arguments.heads.split(","):
                ones, threes = price_of_seeds(Path(folder), head, arguments.device, repeats=arguments.repeats)
                print(f"{head}: one seed {spread(ones)} s, three {spread(threes)} s, {median_ratio(threes, ones):.2f}x")
        if "video" in parts:
            end_to_end(chosen, bank, arguments)


def store_order(chosen: Chosen) -> list[str]:
    return [match.id for match in (*chosen.train, *chosen.valid)]


def trainer_of(settings: TrainSettings, examples: Examples, device: torch.device) -> HeadTrainer:
    torch.manual_seed(0)
    trainer = HeadTrainer(settings, build_model(settings, dim=DIM, num_classes=NUM_CLASSES), examples, device=device)
    trainer.model.train()
    return trainer


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ClipFiles(Dataset[dict[str, Tensor]]):
    """What one would write without a feature store: an HDF5 file per match, a clip per item."""

    def __init__(self, folder: Path, examples: Examples) -> None:
        self.folder, self.settings = folder, examples.windows.settings
        self.first, self.targets = examples.windows.first_row_w, examples.windows.targets
        self.starts = [match.first_row for match in examples.bank.matches]
        self.names = [match.id for match in examples.bank.matches]
        self.files: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, window: int) -> dict[str, Tensor]:
        first, stride = int(self.first[window]), self.settings.stride
        number = int(np.searchsorted(self.starts, first, side="right")) - 1
        name, start = self.names[number], first - self.starts[number]
        if name not in self.files:  # one handle per worker: h5py handles do not survive a fork
            self.files[name] = h5py.File(self.folder / f"{name}.h5", "r")["rows"]
        stop = start + (self.settings.clip_len - 1) * stride + 1
        rows = self.files[name][start:stop][::stride]
        index = torch.arange(first, first + stop - start, stride)
        chosen = self.targets.select(index)
        return {"features": torch.from_numpy(np.ascontiguousarray(rows)).float(), **vars(chosen)}


def loading(
    store: FeatureStore, chosen: Chosen, bank: FeatureBank, folder: Path, arguments: argparse.Namespace
) -> None:
    for match in chosen.train:
        with h5py.File(folder / f"{match.id}.h5", "w") as file:
            file.create_dataset("rows", data=store.rows(match.id)[:])
    for head in ("tcn", "ed"):
        updates_by_loader(head, chosen, bank, folder, arguments)


def updates_by_loader(
    head: str, chosen: Chosen, bank: FeatureBank, folder: Path, arguments: argparse.Namespace
) -> None:
    settings = default_recipe(head)
    examples = Examples.of(chosen, bank, settings)
    trainer = trainer_of(settings, examples, bank.device)

    def from_bank() -> float:
        batches = examples.epoch(0)
        return run_updates(trainer, batches, arguments.updates)

    def from_loader(num_workers: int) -> Callable[[], float]:
        dataset = ClipFiles(folder, examples)
        loader = DataLoader(
            dataset, settings.batch, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
        )
        batches = iter(loader)

        def work() -> float:
            def converted() -> Iterator[Batch]:
                for item in batches:
                    moved = {name: tensor.to(bank.device) for name, tensor in item.items()}
                    yield Batch(moved.pop("features"), Targets(**moved))

            return run_updates(trainer, converted(), arguments.updates)

        return work

    rates = interleaved(
        {
            "bank": from_bank,
            "DataLoader, no worker": from_loader(0),
            "DataLoader, 2 workers": from_loader(2),
        },
        repeats=arguments.repeats,
    )
    print(f"\n{head} at C = 192, updates a second, four clips of 50 steps")
    for name, values in rates.items():
        print(f"{name:<24}{spread(values):>28}   bank is {median_ratio(rates['bank'], values):.2f}x")
    alone = interleaved(
        {"bank": lambda: only_load(examples.epoch(0), 200), "DataLoader": loader_alone(folder, examples)},
        repeats=arguments.repeats,
    )
    print("loading alone, batches a second")
    for name, values in alone.items():
        print(f"{name:<24}{spread(values):>28}   bank is {median_ratio(alone['bank'], values):.1f}x")
    share = [rate / alone_rate for rate, alone_rate in zip(rates["bank"], alone["bank"], strict=True)]
    print(f"the bank's share of an update: {100 * float(np.median(share)):.2f} %")


def loader_alone(folder: Path, examples: Examples) -> Callable[[], float]:
    files, batch = ClipFiles(folder, examples), examples.windows.settings.batch
    loader = DataLoader(files, batch, shuffle=True, num_workers=2, persistent_workers=True)
    batches = iter(loader)
    return lambda: only_load(batches, 200)


def only_load(batches: Iterator[Any], count: int) -> float:
    for _ in range(count):
        next(batches)
    return count


def run_updates(trainer: HeadTrainer, batches: Iterator[Batch], count: int) -> float:
    """Updates on the next `count` batches; returns their number."""
    loss = torch.zeros(())
    for _ in range(count):
        loss = trainer.training_step(next(batches), lr=1e-4, seed=0)
    float(loss)  # waits for the device
    return count


def epochs(chosen: Chosen, bank: FeatureBank, arguments: argparse.Namespace) -> None:
    tasks: dict[str, Callable[[], float]] = {}
    settings_of: dict[str, TrainSettings] = {}
    sizes = {}
    for name in arguments.heads.split(","):
        settings = default_recipe(name)
        settings_of[name] = settings = replace(settings, batch=4, clip_len=50, stride=2)
        examples = Examples.of(chosen, bank, settings)
        trainer = trainer_of(settings, examples, bank.device)
        sizes[name] = trainer.model.num_parameters
        source = cycle(range(1_000_000))

        def work(
            trainer: HeadTrainer = trainer, examples: Examples = examples, source: Iterator[int] = source
        ) -> float:
            return run_updates(trainer, examples.epoch(next(source)), arguments.updates)

        tasks[name] = work
    rates = interleaved(tasks, repeats=arguments.repeats)
    print(f"\nan epoch of 500,000 frames at C = {DIM}: 2,500 updates of four clips of 50 steps")
    print(f"{'head':<14}{'parameters':>12}{'updates/s':>28}{'seconds an epoch':>18}")
    for name, values in rates.items():
        seconds = settings_of[name].steps_per_epoch / float(np.median(values))
        print(f"{name:<14}{sizes[name]:>12,}{spread(values):>28}{seconds:>18.1f}")


def price_of_seeds(folder: Path, head: str, device: str, *, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of one seed, and of three, in turn."""
    store = folder / "seeds.zarr"
    if not store.exists():
        random_store(store, DIM, train={"a": 100_000}, valid={"b": 5_000})
    seconds: dict[int, list[float]] = {1: [], 3: []}
    for number in range(repeats):
        for seeds, found in seconds.items():
            words = ["--any-backbone", "--recipes", head, "--split", "valid", "--epochs", "1", "--device", device]
            words += [
                "--seeds",
                str(seeds),
                "--frames-per-epoch",
                "100000",
                "--out",
                str(folder / f"{head}-{number}-{seeds}"),
            ]
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "bas", "ablate", str(store), *words], check=True, capture_output=True)
            found.append(time.perf_counter() - began)
    return seconds[1], seconds[3]


def inference(bank: FeatureBank, arguments: argparse.Namespace) -> None:
    place = bank.matches[-1]

    def gather(index_bt: Tensor) -> Tensor:
        return bank.gather(index_bt + place.first_row)

    print(f"\nconfidences of {place.num_rows:,} frames (windows of 50 steps, half overlap, both phases), seconds")
    for name in ("fc", "tcn", "ed", "bigru", "unet"):
        if name not in arguments.heads.split(","):
            continue
        settings = default_recipe(name)
        torch.manual_seed(0)
        model = build_model(settings, dim=DIM, num_classes=NUM_CLASSES).to(bank.device).eval()
        synchronise(bank.device)
        began = time.perf_counter()
        scores = match_scores(model, gather, place.num_rows, settings.scoring_plan, num_classes=NUM_CLASSES)
        scored = time.perf_counter()
        spots = find_spots(scores, PeakSettings())
        ended = time.perf_counter()
        print(f"{name:<14}{scored - began:>8.2f} network, {ended - scored:.2f} for {len(spots.frames):,} spots")


def end_to_end(chosen: Chosen, bank: FeatureBank, arguments: argparse.Namespace) -> None:
    """One update of X3D-S and `ed` together, decoding included, against updates from the bank."""
    if arguments.video is None:
        raise SystemExit("--parts video needs --video")
    settings = default_recipe("ed")
    examples = Examples.of(chosen, bank, settings)
    trainer = trainer_of(settings, examples, bank.device)
    module, record = load_weights("x3d_s", None, "none")
    options = resolve_settings(ExtractOptions(), record, backbone_spec("x3d_s"), None)
    video = Extractor(module, options).open(arguments.video)
    head = trainer_of(settings, examples, bank.device)
    both = torch.nn.ModuleList([module.to(bank.device), head.model]).train()
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-4)
    mean, std = (torch.tensor(values, device=bank.device).view(1, 3, 1, 1, 1) for values in (options.mean, options.std))
    generator, span = np.random.default_rng(0), (settings.clip_len - 1) * settings.stride + 1

    def decode() -> Tensor:
        clips = []
        for first in generator.integers(0, video.num_steps - span, 1):
            pictures = [frame.image for frame in video.frames(int(first), int(first) + span)]
            clips.append(np.stack(pictures[:: settings.stride]))
        return torch.from_numpy(np.stack(clips)).to(bank.device).permute(0, 4, 1, 2, 3)

    def end_to_end_update() -> float:
        targets = next(examples.epoch(0)).targets.select(torch.arange(1, device=bank.device))
        with torch.autocast(bank.device.type, torch.float16, enabled=bank.device.type == "cuda"):
            features_btc = module((decode().float() / 255 - mean) / std)
            loss = head.model.loss(head.model(features_btc), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(loss.detach())
        return 1

    rates = interleaved(
        {
            "bank": lambda: settings.batch * run_updates(trainer, examples.epoch(0), arguments.updates),
            "end to end from video": end_to_end_update,
        },
        repeats=min(arguments.repeats, 2),
    )
    print("\nX3D-S and ed, clips of 50 steps at 398x224 a second")
    for name, values in rates.items():
        print(f"{name:<24}{spread(values):>28}   bank is {median_ratio(rates['bank'], values):,.0f}x")


if __name__ == "__main__":
    main()
