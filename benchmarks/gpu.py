"""A GPU measured in one command of at most nine minutes: `python benchmarks/gpu.py --out DIR [--minutes 9]`.

  tests      everything marked `gpu`
  decode     frames per second of PyAV alone, of 224p and of 720p at full size, and of NVDEC where torchcodec is there
  networks   each backbone on frames that lie on the device: fp32, fp16 (autocast, channels last), fp16 compiled, fp16
             as a CUDA graph, with the worst row's cosine against fp32; and `streamed`, as `bas extract` runs it, from
             frames in the host's memory to rows there, clips overlapping by half: its share of fp16 that is reached
  match      a 90-minute match through X3D-S, or as much of it as the time allows, and which stage limits it
  heads      seconds of an epoch of 500,000 frames for every head
  finetune   a step of X3D-S with `ed`, four clips of 50 at 398x224, and its peak memory

What is missing, fails or has no time left is named in the table. `benchmarks/gpu.md` says what a bare machine with
PyTorch needs. The videos are made by `bas` itself; weights are random, which changes no speed.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bas.errors import InputError
from bas.extract.engines.choose import Engine, clip_rows
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import GridFrame, Video, open_video

BACKBONES = ("x3d_s", "x3d_m", "regnety_002", "regnety_002+gsf", "tf_efficientnet_lite0", "timm:vit_small_patch16_224")
SIZE = (398, 224)
LARGE = (1280, 720)
MATCH_SECONDS = 90 * 60
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Report:
    """What was measured, part by part, and until when it may take."""

    device: torch.device
    until: float
    """On the clock of `time.monotonic`."""
    is_quick: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        """Of the device."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    @property
    def seconds_left(self) -> float:
        """Until all must be over."""
        return self.until - time.monotonic()

    def add(self, part: str, what: str, value: object, unit: str = "") -> None:
        """One line of the table."""
        self.rows.append({"part": part, "what": what, "value": value, "unit": unit})
        shown = f"{value:,.4g}" if isinstance(value, float) else value
        print(f"{part:<10}{what:<52}{shown} {unit}", flush=True)

    def attempt(self, part: str, what: str, measure: Callable[[], None], *, needs_seconds: float = 5.0) -> None:
        """Measure; what goes wrong, or has no time left, is a line too."""
        if self.seconds_left < needs_seconds:
            self.add(part, what, "skipped: no time left")
            return
        try:
            measure()
        except Exception as error:  # whatever it is, the other parts are worth having
            if not isinstance(error, InputError):
                traceback.print_exc()
            self.add(part, what, f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
        finally:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], object], units: float, *, seconds: float = 2.0) -> float:
        """Units per second: median of repeats, after two that do not count."""
        for _ in range(2):
            work()
        self.wait()
        rates: list[float] = []
        until = time.monotonic() + (0.2 if self.is_quick else seconds)
        while len(rates) < 3 or time.monotonic() < until:
            began = time.perf_counter()
            work()
            self.wait()
            rates.append(units / (time.perf_counter() - began))
        return statistics.median(rates)


def tests(report: Report) -> None:
    """Everything marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    report.add("tests", "marked gpu", lines[-1].strip("= ") if lines else f"exit code {done.returncode}")
    for line in lines:
        if line.startswith("FAILED"):
            report.add("tests", line[:100], "failed")


def decode(report: Report, video: Path, folder: Path) -> None:
    """Each decoder alone."""
    from bas.extract.video.nvdec import MAX_SESSIONS, nvdec_decoders

    def measure(what: str, opened: Video) -> None:
        rate = report.rate(lambda: sum(1 for _ in opened.frames()), opened.num_steps)
        report.add("decode", f"{what}, {'x'.join(map(str, opened.picture_size))} H.264, to RGB", rate, "frames/s")

    def by_pyav(path: Path, size: tuple[int, int], threads: int) -> Video:
        return open_video(path, fps=None, picture=PictureFormat(width=size[0], height=size[1]), threads=threads)

    large = enlarged(video, folder / "720p.mp4")
    measure("PyAV", by_pyav(video, SIZE, 0))
    measure("PyAV", by_pyav(large, LARGE, 0))
    decoders = partial(nvdec_decoders, device=report.device, size=LARGE)
    report.attempt(
        "decode", "NVDEC", lambda: measure("NVDEC", by_pyav(large, LARGE, MAX_SESSIONS).decoded_by(decoders))
    )


def enlarged(video: Path, target: Path) -> Path:
    """The video in 720p, its colours stated."""
    import av

    with av.open(video) as source, av.open(target, "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "50", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = *LARGE, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1  # BT.709, limited
        for frame in source.decode(video=0):
            out.mux(stream.encode(frame.reformat(*LARGE, "yuv420p")))
        out.mux(stream.encode(None))
    return target


def networks(report: Report, name: str) -> None:
    """One backbone on frames that lie on the device, by each way to run it, and by our engine from the host."""
    from bas.extract.backbones.registry import backbone_spec
    from bas.extract.backbones.weights import load_weights
    from bas.extract.engines.pytorch import Normalised, TorchEngine, lay_channels_last

    spec = backbone_spec(name)
    module, record = load_weights(name, None, "none")
    width, height = spec.nearest_size(SIZE)
    steps = 50
    clip = np.random.default_rng(0).integers(0, 256, (1, steps, height, width, 3), np.uint8)
    num_clips = 1 if report.is_quick else 4
    pixels = torch.from_numpy(clip).to(report.device).expand(num_clips, -1, -1, -1, -1).contiguous()
    plain = Normalised(module, mean=record.mean, std=record.std).to(report.device).eval()
    with torch.inference_mode():
        wanted = plain(pixels[:1])[0].float().cpu()
        report.add("networks", f"{name}, fp32", _rate(report, plain, pixels), "frames/s")
    if report.device.type == "cuda":
        lay_channels_last(plain)
        plain.dtype = torch.float16
        half = Half(plain)
        _compared(report, f"{name}, fp16", half, pixels, wanted)
        report.attempt(
            "networks",
            f"{name}, fp16 compiled",
            lambda: _compared(report, f"{name}, fp16 compiled", torch.compile(half), pixels, wanted),  # type: ignore[arg-type]
            needs_seconds=60.0,
        )
        report.attempt(
            "networks",
            f"{name}, fp16 CUDA graph",
            lambda: _compared(report, f"{name}, fp16 CUDA graph", Graph(half, pixels), pixels, wanted),
        )
    shape = (steps, height, width)
    engine = TorchEngine(module, mean=record.mean, std=record.std, device=report.kind, clip_shape=shape)
    streamed(report, name, engine, frames=clip[0], stride=spec.stride)
    worst = _worst_cosine(torch.from_numpy(clip_rows(engine, clip)[0]), wanted)
    report.add("networks", f"{name}, engine, worst row's cosine", round(worst, 7))


def streamed(report: Report, name: str, engine: Engine, *, frames: npt.NDArray[np.uint8], stride: int) -> None:
    """Rows of a long video without its decoder: each frame is uploaded once, for two clips."""
    from bas.extract.stream import Waits, stream_rows
    from bas.extract.windows import WindowPlan

    num_calls = 3 if report.is_quick else 6
    groups = -(-engine.preferred_clips // stride)
    plan = WindowPlan(num_calls * groups * len(frames) // 2 * stride, len(frames), len(frames) // 2, stride, "hann")
    video, waits = Still(frames, plan.num_frames), Waits()
    if report.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        for _ in stream_rows(video, plan, engine, groups_per_call=groups, waits=waits):  # type: ignore[arg-type]
            pass

    rate = report.rate(run, plan.num_groups * plan.window * stride)
    report.add("networks", f"{name}, streamed", rate, f"frames/s through the network, limit {waits.bottleneck}")
    if report.device.type == "cuda":
        report.add("networks", f"{name}, streamed, peak memory", torch.cuda.max_memory_allocated() / 1e9, "GB")


class Still:
    """A video of a few frames again and again, which lie in memory."""

    def __init__(self, images: npt.NDArray[np.uint8], num_frames: int) -> None:
        self.images, self.num_frames = list(images), num_frames

    def frames(self, start: int) -> Iterator[GridFrame]:
        """As `Video.frames`."""
        for step in range(start, self.num_frames):
            yield GridFrame(step, self.images[step % len(self.images)], True)


class Half(nn.Module):
    """A network under fp16 autocast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures to rows."""
        with torch.autocast("cuda", dtype=torch.float16):
            rows: Tensor = self.network(pixels)
        return rows


class Graph(nn.Module):
    """A network's kernels, recorded once and played again for pictures of the same shape."""

    def __init__(self, network: nn.Module, pixels: Tensor) -> None:
        super().__init__()
        self.pixels = pixels.clone()
        with torch.inference_mode():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    network(self.pixels)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.rows = network(self.pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures to rows."""
        self.pixels.copy_(pixels)
        self.graph.replay()
        rows: Tensor = self.rows
        return rows


def _compared(report: Report, what: str, network: nn.Module, pixels: Tensor, wanted: Tensor) -> None:
    with torch.inference_mode():
        report.add("networks", what, _rate(report, network, pixels), "frames/s")
        report.add("networks", f"{what}, worst row's cosine", round(_worst_cosine(network(pixels)[0], wanted), 7))


def _rate(report: Report, network: nn.Module, pixels: Tensor) -> float:
    return report.rate(lambda: network(pixels), pixels.shape[0] * pixels.shape[1])


def _worst_cosine(rows: Tensor, wanted: Tensor) -> float:
    return float(nn.functional.cosine_similarity(rows.float().cpu(), wanted, dim=1).min())


def match(report: Report, video: Path, folder: Path) -> None:
    """A long match through X3D-S: ten minutes first, and the whole of it where that fits."""
    seconds = 30 if report.is_quick else 600
    rate = _extracted(report, _repeated(video, folder / "part.mp4", seconds), folder / "part.zarr")
    needed = MATCH_SECONDS * 25 / rate + 20
    if needed > report.seconds_left / 2:
        report.add("match", "90 minutes, X3D-S, by that rate", MATCH_SECONDS * 25 / rate, "s (not run)")
        return
    _extracted(report, _repeated(video, folder / "match.mp4", MATCH_SECONDS), folder / "match.zarr")


def _extracted(report: Report, video: Path, store: Path) -> float:
    from bas.data.sources import find_sources
    from bas.extract.options import ExtractOptions, ExtractRunOptions
    from bas.extract.run import extract

    run = ExtractRunOptions(device=report.kind)
    summary = extract(find_sources([video]), store, ExtractOptions(backbone="x3d_s", weights="none"), run)
    result = summary.results[0]
    rate = float(result.columns["frames/s"])
    limit = result.columns["limit"]
    what = f"{result.num_rows / 1500:.1f} minutes, X3D-S"
    report.add("match", what, result.num_rows / rate, f"s, {rate:,.0f} frames/s, limit {limit}")
    return rate


def _repeated(video: Path, target: Path, seconds: float) -> Path:
    """The video again and again until that length, packet by packet."""
    import av

    with av.open(target, "w") as out:
        to, shift = None, 0
        frames = 0
        while frames < 25 * seconds:
            with av.open(video) as source:
                stream = source.streams.video[0]
                if to is None:
                    to = out.add_stream_from_template(stream)
                length = round(Fraction(stream.frames, 25) / stream.time_base)  # type: ignore[operator]
                for packet in source.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, to
                        out.mux(packet)
                shift, frames = shift + length, frames + stream.frames
    return target


def heads(report: Report, folder: Path) -> None:
    """An epoch of every head, by its own trainer from the bank on the device."""
    from stores import TRAIN_ROWS, VALID_ROWS, random_store
    from train_speed import DIM, price_of_seeds, run_updates, store_order, trainer_of

    from bas.cache.bank import open_bank
    from bas.heads.recipes import default_recipe
    from bas.heads.registry import HEADS
    from bas.heads.training.data import Examples, choose_matches

    store = random_store(folder / "store", DIM, train=TRAIN_ROWS, valid=VALID_ROWS)
    chosen = choose_matches(store)
    bank = open_bank(store, store_order(chosen), device=report.device)

    def measure(name: str) -> None:
        settings = default_recipe(name)
        examples = Examples.of(chosen, bank, settings)
        trainer, epochs = trainer_of(settings, examples, report.device), cycle(range(1_000_000))
        count = 2 if report.is_quick else 30
        rate = report.rate(lambda: run_updates(trainer, examples.epoch(next(epochs)), count), count)
        report.add("heads", name, settings.steps_per_epoch / rate, "s an epoch of 500,000 frames")

    def price(name: str) -> None:
        ones, threes = price_of_seeds(folder, name, report.device.type, repeats=1)
        report.add("heads", f"{name}, three seeds by bas ablate", threes[0] / ones[0], "times one seed, whole commands")

    for name in HEADS:
        if name == "stage_unet":
            report.add("heads", name, "skipped: its rows are of four depths")
            continue
        report.attempt("heads", name, lambda name=name: measure(name))  # type: ignore[misc]
    for name in ("tcn", "ed"):
        report.attempt("heads", f"{name}, three seeds by bas ablate", lambda name=name: price(name))  # type: ignore[misc]


def finetune(report: Report) -> None:
    """A step of backbone and head."""
    from bas.extract.backbones.weights import load_weights
    from bas.extract.engines.pytorch import Normalised, lay_channels_last
    from bas.heads.model import build_model
    from bas.heads.recipes import default_recipe

    module, record = load_weights("x3d_s", None, "none")
    seen = Normalised(module, mean=record.mean, std=record.std).to(report.device).train()
    lay_channels_last(seen)
    head = build_model(default_recipe("ed"), dim=record.dim, num_classes=12).to(report.device).train()
    optimizer = torch.optim.AdamW([*seen.parameters(), *head.parameters()], lr=1e-4)
    num_clips, steps = (1, 10) if report.is_quick else (4, 50)
    pixels = torch.randint(0, 256, (num_clips, steps, SIZE[1], SIZE[0], 3), dtype=torch.uint8, device=report.device)

    def step() -> None:
        with torch.autocast(report.device.type, torch.float16, enabled=report.device.type == "cuda"):
            loss = head(seen(pixels)).logits.float().pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if report.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rate = report.rate(step, num_clips * steps)
    report.add("finetune", f"X3D-S and ed, {num_clips} clips of {steps}, without decoding", rate, "frames/s")
    if report.device.type == "cuda":
        report.add("finetune", "peak memory", torch.cuda.max_memory_allocated() / 1e9, "GB")


def made_video(folder: Path, seconds: float) -> Path:
    """Made-up football, 398x224, 25 fps."""
    from bas.data.synthetic import write_match

    write_match(folder / "source", seconds=seconds, seed=0)
    return folder / "source" / "224p.mp4"


def parts_of(report: Report, folder: Path) -> Iterator[tuple[str, Callable[[], None], float]]:
    """Part, how it is measured, and the seconds that it needs at least."""
    video = made_video(folder, 8 if report.is_quick else 40)
    yield "match", lambda: match(report, video, folder), 60.0
    yield "decode", lambda: decode(report, video, folder), 30.0
    for name in BACKBONES:
        yield "networks", lambda name=name: networks(report, name), 25.0  # type: ignore[misc]
    yield "heads", lambda: heads(report, folder), 20.0
    yield "finetune", lambda: finetune(report), 10.0
    yield "tests", lambda: tests(report), 30.0


def main() -> None:
    """Measure all, and write `gpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--minutes", type=float, default=9.0, help="at most as long")
    parser.add_argument("--parts", default="match,decode,networks,heads,finetune,tests")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a trial: short, and no figure counts")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --device cpu --quick tries the script without one")
    report = Report(device, time.monotonic() + 60 * arguments.minutes, arguments.quick)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    report.add(
        "machine", name, f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    )
    asked = arguments.parts.split(",")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for part, measure, needs_seconds in parts_of(report, Path(folder)):
            if part in asked:
                report.attempt(part, "all", measure, needs_seconds=needs_seconds)
            (arguments.out / "gpu.json").write_text(json.dumps(report.rows, indent=1))


if __name__ == "__main__":
    main()
