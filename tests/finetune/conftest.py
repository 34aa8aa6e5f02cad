"""Little videos whose classes differ by motion only, tiny settings, and runs on them in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bas.data.sources import DataSet, find_sources
from bas.events import Event, TimeGrid
from bas.extract.options import ExtractOptions
from bas.files import write_json_atomic
from bas.finetune.devices import Devices
from bas.finetune.loop import finetune
from bas.finetune.start import Start
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.settings import FinetuneSettings

WIDTH, HEIGHT, SQUARE = 48, 32, 10
CLASSES = ("LEFT", "RIGHT")
QUIET = {"x264-params": "log-level=none:scenecut=0", "crf": "12"}


def write_moving_match(folder: Path, *, num_frames: int, seed: int, gap_frames: int = 20) -> None:
    """A square on noise that stands still, and now and then moves LEFT or RIGHT for 9 frames; labels at the middle.

    Where it is says nothing: it enters anew at a random place before every event.
    """
    generator = np.random.default_rng(seed)
    texture = generator.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    middles = list(range(gap_frames // 2 + 2, num_frames - 8, gap_frames))
    labels = [CLASSES[generator.integers(0, 2)] for _ in middles]
    places = generator.integers(10, (WIDTH - SQUARE - 10, HEIGHT - SQUARE), (len(middles), 2)) - (0, 5)
    folder.mkdir(parents=True)
    with av.open(str(folder / "224p.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=QUIET)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        for number in range(num_frames):
            event = min(max(0, (number - 2) // gap_frames), len(middles) - 1)
            moved = int(np.clip(number - middles[event], -5, 4)) * (-1 if labels[event] == "LEFT" else 1)
            x, y = int(places[event][0]) + 2 * moved, max(0, int(places[event][1]))
            picture = texture.copy()
            picture[y : y + SQUARE, max(0, x) : x + SQUARE] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    grid = TimeGrid.parse("25")
    events = [
        Event(grid.ms(row), label, team=label.lower()).to_json() for row, label in zip(middles, labels, strict=True)
    ]
    write_json_atomic(folder / "Labels-ball.json", {"UrlLocal": folder.name, "annotations": events})


def tiny_settings(**changes: Any) -> FinetuneSettings:
    """Two epochs of three steps."""
    tiny: dict[str, Any] = {
        "head": "fc",
        "proj": 0,
        "clip_len": 8,
        "stride": 2,
        "hop_rows": 4,
        "batch": 4,
        "frames_per_epoch": 8 * 4 * 3,
        "epochs": 2,
        "patience": 0,
        "warmup_epochs": 0.0,
        "lr": 1e-3,
        "precision": "fp32",  # the same on every processor
    }
    return FinetuneSettings(**(tiny | changes))


def begin(settings: FinetuneSettings, backbone: str = "timm:test_resnet.r160_in1k", **asked: Any) -> Start:
    """Random weights, and pictures as they are."""
    asked = {"weights": "none", "size": (WIDTH, HEIGHT)} | asked
    return Start.of(settings, ExtractOptions(backbone=backbone, **asked), None)


@pytest.fixture(scope="session")
def write_match() -> Callable[..., None]:
    """Writes a match."""
    return write_moving_match


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matches train, two validate, one tests; read only."""
    root = tmp_path_factory.mktemp("videos")
    lengths = {"train/a": 90, "train/b": 61, "valid/x": 70, "valid/y": 44, "test/z": 50}
    for seed, (name, num_frames) in enumerate(lengths.items()):
        write_moving_match(root / name, num_frames=num_frames, seed=seed)
    return root


@pytest.fixture(scope="session")
def data(videos: Path) -> DataSet:
    """These matches."""
    return find_sources([videos])


@pytest.fixture(scope="session")
def tiny() -> Callable[..., FinetuneSettings]:
    """Settings that train in a blink."""
    return tiny_settings


@pytest.fixture(scope="session")
def start() -> Callable[..., Start]:
    """What a run begins with."""
    return begin


@pytest.fixture(scope="session")
def train(data: DataSet) -> Callable[..., RunRecord]:
    """Trains on the CPU in this process."""

    def run(
        out: Path,
        settings: FinetuneSettings,
        begun: Start | None = None,
        *,
        data_set: DataSet = data,
        classes: Sequence[str] | None = None,
        valid: Sequence[str] = (),
        **options: Any,
    ) -> RunRecord:
        begun = begun or begin(settings)
        how: dict[str, Any] = {"devices": Devices(place="cpu"), "engine": "torch", "decode_threads": 1, **options}
        return finetune(data_set, out, settings, begun, classes=classes, valid=valid, **how)

    return run
