"""Speed of stage one, side by side in one run.

    python benchmarks/extract_speed.py VIDEO [--frames 1500] [--repeats 5] [--device auto]

For each backbone: decode alone, backbone alone and the whole pipeline (which should reach 95 % of the slower of the
two), and the engine against plain PyTorch fp32. Then the window plan against naive clips with 90 % overlap, and how
close each comes to "a 50-step clip centred on the frame".
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import interleaved, machine, median_ratio, spread

from bas.data.sources import find_sources
from bas.extract.backbones.registry import backbone_spec
from bas.extract.backbones.weights import load_weights
from bas.extract.engines.choose import clip_rows
from bas.extract.engines.pytorch import Normalised
from bas.extract.extractor import Extractor, resolve_settings
from bas.extract.options import ExtractOptions, ExtractRunOptions
from bas.extract.run import extract
from bas.extract.windows import WindowPlan

Rows = npt.NDArray[np.float32]


def make(backbone: str, device: str, weights: str = "none", size: tuple[int, int] | None = None) -> Extractor:
    module, record = load_weights(backbone, None, weights)
    settings = resolve_settings(ExtractOptions(size=size), record, backbone_spec(backbone), None)
    return Extractor(module, settings, device=device)  # type: ignore[arg-type]


def first_frames(video: Path, target: Path, num_frames: int) -> Path:
    """A copy of the first frames of a video, packet by packet."""
    import av

    with av.open(video) as source, av.open(target, "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in islice(source.demux(source.streams.video[0]), num_frames):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    return target


def pipeline_against_parts(backbone: str, clip: Path, folder: Path, device: str, repeats: int) -> None:
    extractor = make(backbone, device)
    engine, video = extractor.engine(), extractor.open(clip)
    plan = extractor.plan(video)
    num_frames = plan.num_frames
    groups = -(-engine.preferred_clips // extractor.settings.stride)
    pictures = [frame.image for frame in video.frames(0, plan.group_span(min(groups, plan.num_groups) - 1)[1])]
    shown = [min(group, plan.num_groups - 1) for group in range(groups)]
    batch = np.stack([[pictures[i] for i in phase] for group in shown for phase in plan.group_frames(group)])
    passes = plan.num_groups / groups

    def decode() -> float:
        return sum(1 for _ in video.frames())

    def backbone_alone() -> float:
        for _ in range(max(1, round(passes))):
            clip_rows(engine, batch)
        return num_frames * max(1, round(passes)) / passes

    runs = iter(range(10_000))

    def pipeline() -> float:
        options, run = ExtractOptions(backbone=backbone, weights="none"), ExtractRunOptions(device=device)  # type: ignore[arg-type]
        store = folder / f"{backbone}-{next(runs)}.zarr"
        result = extract(find_sources([clip]), store, options, run).results[0]
        pipeline_rates.append(float(result.columns["frames/s"]))
        return result.num_rows

    pipeline_rates: list[float] = []
    rates = interleaved({"decode": decode, "backbone": backbone_alone, "pipeline": pipeline}, repeats=repeats)
    rates["pipeline"] = pipeline_rates[1:]  # the match itself: without imports, model building and the engine's check
    slower = min(("decode", "backbone"), key=lambda name: float(np.median(rates[name])))
    print(f"\n{backbone}, {engine.name}, {num_frames} frames, frames/s as median (min to max) of {repeats}")
    for name, values in rates.items():
        print(f"  {name:<22}{spread(values):>34}")
    print(f"  pipeline / {slower:<11}{median_ratio(rates['pipeline'], rates[slower]):>34.1%}   (target >= 95 %)")


def engine_against_plain(backbone: str, clip: Path, repeats: int) -> None:
    extractor = make(backbone, "cpu")
    engine, video, settings = extractor.engine(), extractor.open(clip), extractor.settings
    plan = extractor.plan(video)
    pictures = [frame.image for frame in video.frames(0, plan.group_span(0)[1])]
    clips = np.stack([[pictures[i] for i in plan.group_frames(0)[0]]] * 2)
    net = Normalised(extractor.module, mean=settings.mean, std=settings.std).eval()

    def plain() -> float:
        with torch.inference_mode():
            net(torch.from_numpy(clips[:1]))
        return plan.window

    def ours() -> float:
        clip_rows(engine, clips)
        return 2 * plan.window

    rates = interleaved({engine.name: ours, "plain PyTorch fp32": plain}, repeats=repeats)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(clips[:1])).numpy()[0]
    got = clip_rows(engine, clips[:1])[0]
    cosine = (wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    print(f"\n{backbone}: frames of clips through the network, frames/s")
    for name, values in rates.items():
        print(f"  {name:<22}{spread(values):>34}")
    ratio = median_ratio(rates[engine.name], rates["plain PyTorch fp32"])
    print(f"  ratio {ratio:.2f} (target >= 4), worst row's cosine {cosine.min():.7f}")


def plan_against_naive(clip: Path, base: Extractor, num_probes: int = 24) -> None:
    """Rows of several window plans beside those of the clip that is centred on the frame."""
    settings, engine = base.settings, base.engine()
    video = base.open(clip)
    half = settings.window // 2 * settings.stride
    images = [frame.image for frame in video.frames(0, min(video.num_steps, 300))]
    frames = np.linspace(half, len(images) - half - 1, num_probes).astype(int)
    steps = (np.arange(settings.window) - settings.window // 2) * settings.stride
    centred: Rows = np.concatenate(
        [
            clip_rows(engine, np.stack([[images[frame + step] for step in steps]]))[:, settings.window // 2]
            for frame in frames
        ]
    )
    what = f"{settings.backbone}, weights {settings.weights}, {settings.width}x{settings.height}"
    print(f"\n{what}: closeness to a {settings.window}-step clip centred on the frame, mean standardised cosine")
    for hop, blend in ((50, "mean"), (25, "hann"), (25, "centre"), (5, "hann")):
        plan = WindowPlan.of(replace(settings, hop=hop, blend=blend), len(images))  # type: ignore[arg-type]
        rows = plan_rows(plan, images, base)
        close = standardised_cosine(centred, rows[frames], rows)
        cost = plan.num_groups * plan.window * plan.stride / plan.num_frames
        print(f"  hop {hop:>2} {blend:<8} cost {cost:5.2f}   cosine {close:.3f}")


def plan_rows(plan: WindowPlan, images: list[npt.NDArray[np.uint8]], extractor: Extractor) -> Rows:
    from bas.extract.windows import Blender

    blender, engine = Blender(plan), extractor.engine()
    groups = (np.stack([[images[i] for i in phase] for phase in plan.group_frames(g)]) for g in range(plan.num_groups))
    return np.concatenate([blender.add(clip_rows(engine, clips)) for clips in groups])


def standardised_cosine(a: Rows, b: Rows, population: Rows) -> float:
    mean, deviation = population.mean(0), population.std(0) + 1e-9
    a, b = (a - mean) / deviation, (b - mean) / deviation
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def ours_against_naive(repeats: int) -> None:
    """Rows per second: our default plan on our engine, and 50-step clips with 90 % overlap on plain PyTorch."""
    extractor = make("x3d_s", "cpu")
    settings, engine = extractor.settings, extractor.engine()
    net = Normalised(extractor.module, mean=settings.mean, std=settings.std).eval()
    clips = np.zeros((2, settings.window, settings.height, settings.width, 3), np.uint8)
    rows_per_clip = settings.hop, settings.window // 10

    def ours() -> float:
        clip_rows(engine, clips)
        return 2 * rows_per_clip[0]

    def naive_same_engine() -> float:
        clip_rows(engine, clips)
        return 2 * rows_per_clip[1]

    def naive_plain() -> float:
        with torch.inference_mode():
            net(torch.from_numpy(clips[:1]))
        return rows_per_clip[1]

    names = ("ours: hop 25, hann", "90 % overlap, same engine", "90 % overlap, plain PyTorch")
    rates = interleaved(dict(zip(names, (ours, naive_same_engine, naive_plain), strict=True)), repeats=repeats)
    print("\nx3d_s, rows (frames of the match) per second")
    for name, values in rates.items():
        print(f"  {name:<28}{spread(values):>28}   ours is {median_ratio(rates[names[0]], values):.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbones", default="x3d_s,tf_efficientnet_lite0")
    parser.add_argument("--i3d-weights", help="File: also how close the window plans come with trained weights.")
    parser.add_argument("--parts", default="pipeline,engine,plan,naive")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        clip = first_frames(arguments.video, Path(folder) / "clip.mp4", arguments.frames)
        parts = arguments.parts.split(",")
        for backbone in arguments.backbones.split(","):
            if "pipeline" in parts:
                pipeline_against_parts(backbone, clip, Path(folder), arguments.device, arguments.repeats)
            if "engine" in parts:
                engine_against_plain(backbone, clip, arguments.repeats)
        if "plan" in parts:
            plan_against_naive(clip, make("x3d_s", "cpu"))
        if "plan" in parts and arguments.i3d_weights:
            plan_against_naive(clip, make("i3d", "cpu", arguments.i3d_weights, (224, 126)))
        if "naive" in parts:
            ours_against_naive(arguments.repeats)


if __name__ == "__main__":
    main()
