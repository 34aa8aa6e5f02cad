"""Updates of end-to-end training on random pictures: time side by side, and peak memory, each variant in a process.

    python benchmarks/finetune_speed.py [--parts time,memory] [--backbone x3d_s] [--size 112x64] [--batch 4]

`time`: frames per second of an update of backbone and head `ed`, the variants in turn. On a CPU also with PyTorch's
own gradient of depthwise 3-D convolutions in place of ours. `memory`: what one step needs at most,
beyond what the process holds before it, for the whole batch at once, in parts, with blocks computed twice, and for the
last block only.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import numpy as np
import torch
from common import interleaved, machine, median_ratio, spread

from bas.extract.backbones.weights import load_weights
from bas.extract.options import ExtractOptions, parse_pair
from bas.finetune.data import ClipBatch
from bas.finetune.depthwise import with_fast_depthwise
from bas.finetune.devices import Devices
from bas.finetune.network import FinetuneNet
from bas.finetune.start import Start
from bas.finetune.trainer import ClipTrainer
from bas.heads.targets import clip_targets
from bas.heads.training.data import Chosen
from bas.heads.training.settings import FinetuneSettings, Precision

NUM_CLASSES = 12


@dataclass(frozen=True)
class Variant:
    """How an update is done."""

    name: str
    precision: Precision = "fp32"
    accumulate: int = 1
    unfreeze: int | None = None
    checkpointing: bool = False
    is_quick: bool = True
    """On a CPU: our gradient of depthwise convolutions."""


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="time,memory")
    parser.add_argument("--backbone", default="x3d_s")
    parser.add_argument("--size", default="112x64")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--child", help="a variant that is measured in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.child:
        variant = Variant(**json.loads(arguments.child))
        print(json.dumps(peak_bytes(arguments, variant)))
        return
    half: Precision = "fp16" if Devices(place=arguments.device).kind == "cuda" else "bf16"
    print(machine(), f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{arguments.backbone} and ed, {arguments.batch} clips of 50 steps of {arguments.size}")
    if "time" in arguments.parts:
        show_time(arguments, half)
    if "memory" in arguments.parts:
        show_memory(arguments, half)


def show_time(arguments: argparse.Namespace, half: Precision) -> None:
    """Frames per second of each variant, and ratios to the first."""
    variants = [Variant("fp32"), Variant(half, half), Variant(f"{half}, blocks twice", half, checkpointing=True)]
    variants += [Variant(f"{half}, last block", half, unfreeze=1), Variant(f"{half}, head only", half, unfreeze=0)]
    if Devices(place=arguments.device).kind == "cpu":
        variants.insert(0, Variant("fp32, PyTorch's gradient", is_quick=False))
        variants.insert(2, Variant(f"{half}, PyTorch's gradient", half, is_quick=False))
    rates = interleaved({each.name: task(arguments, each) for each in variants}, repeats=arguments.repeats)
    for each in variants:
        ratio = median_ratio(rates[each.name], rates[variants[0].name])
        print(f"{each.name:26} {spread(rates[each.name])} frames/s, {ratio:.2f}x the first")


def task(arguments: argparse.Namespace, variant: Variant) -> Callable[[], float]:
    """One update; gives the number of frames."""
    trainer, batch = made(arguments, variant)
    settings = trainer.settings

    def work() -> float:
        loss = trainer.training_step(batch, lr=1e-5, seed=0)
        assert torch.isfinite(loss)
        return float(settings.batch * settings.clip_len)

    return work


def made(arguments: argparse.Namespace, variant: Variant) -> tuple[ClipTrainer, tuple[ClipBatch, ...]]:
    """An trainer at its first update, and a batch of random pictures."""
    settings = FinetuneSettings(
        batch=arguments.batch, accumulate=variant.accumulate, unfreeze=variant.unfreeze, norm="batch"
    )
    size = parse_pair(arguments.size, option="--size", separator="x", example="112x64")
    asked = ExtractOptions(backbone=arguments.backbone, weights="none", size=size)
    start = Start.of(settings, asked, None)
    backbone, _ = load_weights(arguments.backbone, start.features.depth, "none")
    fabric = Devices(place=arguments.device).launch(variant.precision)
    if variant.is_quick and fabric.device.type == "cpu":
        with_fast_depthwise(backbone)
    net = FinetuneNet(
        backbone,
        start.spotting(settings, [f"class {number}" for number in range(NUM_CLASSES)]),
        features=start.features,
        settings=settings,
        checkpointing=variant.checkpointing,
    )
    draw, num_clips = np.random.default_rng(0), settings.batch // settings.accumulate
    shape = (num_clips, settings.clip_len, size[1], size[0], 3)
    clip = clip_targets([(20, 1), (30, 2)], num_steps=settings.clip_len, num_classes=NUM_CLASSES)[0]
    targets = clip.select(torch.arange(settings.clip_len).expand(num_clips, -1)).to(fabric.device)
    pixels = torch.from_numpy(draw.integers(0, 256, shape, dtype=np.uint8))
    part, nothing = ClipBatch(pixels, tuple(range(num_clips)), targets), cast(Any, None)  # steps need no videos
    chosen = Chosen((), (), ("A",) * NUM_CLASSES, Fraction(25))
    return ClipTrainer(settings, net, fabric, clips=nothing, chosen=chosen, source=nothing, record=nothing), (
        part,
    ) * settings.accumulate


def show_memory(arguments: argparse.Namespace, half: Precision) -> None:
    """Peak of each variant, and ratios to the first."""
    whole = Variant(half, half)
    variants = [Variant("fp32"), whole, replace(whole, name=f"{half}, blocks twice", checkpointing=True)]
    parts = sorted({2, arguments.batch})
    variants += [replace(whole, name=f"{half}, {number} parts", accumulate=number) for number in parts]
    variants += [replace(whole, name=f"{half}, last block", unfreeze=1)]
    peaks = []
    for each in variants:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", json.dumps(vars(each))]
        peaks.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{each.name:26} {peaks[-1] / 1e9:.2f} GB, {peaks[-1] / peaks[0]:.2f}x the first")


def peak_bytes(arguments: argparse.Namespace, variant: Variant) -> int:
    """Memory that two updates add to what the process holds before them."""
    trainer, batch = made(arguments, variant)
    gc.collect()
    is_cuda = trainer.fabric.device.type == "cuda"
    before = torch.cuda.memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for _ in range(2):
        trainer.training_step(batch, lr=1e-5, seed=0)
    after = torch.cuda.max_memory_allocated() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return after - before


if __name__ == "__main__":
    main()
