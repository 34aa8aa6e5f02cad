"""Fixtures of all tests: the command line, the real data beside the checkout, and the real weights, where they are."""

import copy
import errno
import functools
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from bas import cli
from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.events import Event, TimeGrid
from bas.workers import Failure

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WEIGHTS_DIR = os.environ.get("BAS_WEIGHTS_DIR", "")
# Files go to a worker whole: these first, so that none is left alone with a long one at the end, and so that those that
# wait for nodes and browsers do it while the gate's other checks can use the core; before them the one that sends
# signals to its own process, while no other test has left threads there.
LONGEST_FILES = (
    "test_stopping.py",
    "test_reliability.py",
    "test_ray.py",
    "test_label.py",
    "test_browser.py",
    "test_run.py",
    "test_loop.py",
    "test_demo.py",
    "test_predict.py",
)

# The same examples every time, however busy the machine is: a failure is found again, and a gate is not a lottery.
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("gate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    rank = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data; the test is skipped, loudly, without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"REAL DATA MISSING: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of real weights (`BAS_WEIGHTS_DIR`), from `shared/tools/get_weights.py`; skipped, loudly, without it."""
    if not WEIGHTS_DIR or not Path(WEIGHTS_DIR).is_dir():
        pytest.skip("REAL WEIGHTS MISSING: set BAS_WEIGHTS_DIR to a folder made by shared/tools/get_weights.py")
    return Path(WEIGHTS_DIR)


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """The tests end processes, not machines: what was written is there without waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@contextmanager
def on_one_thread() -> Iterator[None]:
    """What torch computes inside, it computes on one thread."""
    import torch  # takes seconds, and not every test needs it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on many threads, and much slower on busy cores; figures are those of the workers."""
    with on_one_thread():
        yield


@pytest.fixture(scope="session")
def graphs() -> dict[tuple[object, ...], Any]:
    """What OpenVINO has converted in this process."""
    return {}


@pytest.fixture(scope="module")
def known_graphs(graphs: dict[tuple[object, ...], Any]) -> Iterator[None]:
    """Equal networks are converted once (3 s) for all tests that ask for this."""
    from bas.extract.engines import openvino

    convert = openvino._graph

    def graph(net: Any, shape: tuple[int, ...]) -> Any:
        tensors = (tensor.detach().numpy().tobytes() for tensor in (*net.parameters(), *net.buffers()))
        key = (repr(net), shape, *map(hash, tensors))
        if key not in graphs:
            graphs[key] = convert(net, shape)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "_graph", graph)
        yield


@pytest.fixture(scope="module")
def without_openvino() -> Iterator[None]:
    """PyTorch is the engine: networks that learn would be converted again after every epoch (1 s each)."""
    from bas.extract.engines import choose

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "openvino_installed", lambda: False)
        yield


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """SIGINT raises, also where the tests were started in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bas(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process: arguments -> exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return call


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of an ablation without workers: for what does not depend on them."""
    from bas.ablate import loop, runs

    def in_turn(_work: object, tasks: Sequence[runs.RunTask], *, ended: Callable[..., None], **_: object) -> None:
        for task in tasks:
            try:
                ended(task, runs.run_seed(task))
            except InputError as error:
                ended(task, Failure(str(error)))

    monkeypatch.setattr(loop, "side_by_side", in_turn)


@pytest.fixture
def lock_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder another user's: this process may not look into it, whoever runs the tests."""

    def lock(folder: Path) -> None:
        for name in ("open", "stat", "lstat", "scandir", "listdir", "mkdir"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name), folder, itself=name in ("scandir", "listdir")))

    return lock


def refusing(call: Callable[..., Any], folder: Path, *, itself: bool) -> Callable[..., Any]:
    """`call`, which is denied what lies in the folder (and the folder itself)."""

    def checked(path: Any = ".", *arguments: Any, **options: Any) -> Any:
        if isinstance(path, str | os.PathLike) and (folder in Path(path).parents or (itself and Path(path) == folder)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return call(path, *arguments, **options)

    return checked


@pytest.fixture(scope="session")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with one synthetic match of 8 s in each of three splits; for reading only."""
    from bas.data.synthetic import write_match

    root = tmp_path_factory.mktemp("games")
    for seed, split in enumerate(("train", "valid", "test")):
        write_match(root / split / f"game-{split}", seconds=8, seed=seed)
    return root


@pytest.fixture(scope="session")
def store(games: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its features, of a random X3D; for reading only."""
    from bas.data.sources import find_sources
    from bas.extract.options import ExtractOptions, ExtractRunOptions
    from bas.extract.run import extract

    path = tmp_path_factory.mktemp("store") / "games.zarr"
    options = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=4, stride=2)
    with on_one_thread():
        assert extract(find_sources([games]), path, options, ExtractRunOptions(engine="torch")).complete
    return path


@pytest.fixture(scope="session")
def pulse_store() -> Callable[..., Path]:
    """Writes small stores."""
    return write_pulses


def write_pulses(
    path: Path,
    *,
    backbone: str = "x3d_s",
    depth: int | None = 5,
    num_rows: int = 300,
    gap_rows: int = 25,
    splits: Sequence[str] = ("train", "valid", "test"),
    classes: Sequence[str] = ("PASS", "DRIVE"),
    teams: Sequence[str] = (),
) -> Path:
    """A store that says it is of a backbone, with a match per split: noise of 4 channels, a pulse at every event.

    With two teams channel 2 or 3 tells which of them it is, and the view `hflip` has these two the other way round.
    """
    grid = TimeGrid(Fraction(25))
    record = FeatureSettings.imported(kind="x", model="none", dim=4, fps="25").to_json()
    settings = FeatureSettings.from_json(record | {"backbone": backbone, "depth": depth})
    store = FeatureStore.create_or_open(path, settings, classes=classes, software={"bas": "0"})
    for seed, split in enumerate(splits):
        generator = np.random.default_rng(seed)
        rows, labels = 0.1 * generator.normal(size=(num_rows, 4)).astype(np.float32), []
        for number, row in enumerate(range(20, num_rows - 10, gap_rows)):
            rows[row - 1 : row + 2, number % 2] += 2
            team = int(generator.integers(len(teams))) if teams else 0
            rows[row - 1 : row + 2, 2 + team] += 2 * bool(teams)
            labels.append(Event(grid.ms(row), classes[number % 2], team=teams[team] if teams else "").to_json())
        meta = MatchMeta(
            fps=grid.fps, time_base=Fraction(1, 25), origin_ticks=0, split=split, labels=tuple(labels), video={}
        )
        views = {"identity": rows, **({"hflip": rows[:, [0, 1, 3, 2]]} if teams else {})}
        times = np.arange(num_rows)
        with store.writer(
            *(f"m-{split}",), views=tuple(views), num_rows=num_rows, pts_ticks=times, match_meta=meta, provenance={}
        ) as w:
            w.append(views, np.ones(num_rows, bool))
            w.commit()
    return path


HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 10**6, 10**12, 10**18, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "5"),
    *("1e999999999", "1/0", "9" * 5000, "../../../x", "/etc/passwd", "con", "\x1b[2J", "\ud800", "[/x]", "a" * 300),
    *([], {}, [[]], ["x"], [1, 2], [None], {"x": 1}, [0] * 500, [[[[[[[[]]]]]]]]),
)
"""What no field of ours holds, or only some."""


def mutated_json(document: Any, seed: int) -> Any:
    """The document with one or two values replaced, left out or added at random places."""
    chance, result = random.Random(seed), copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2))):
        parent: Any = None
        key: Any = None
        value = result
        while isinstance(value, dict | list) and value and (parent is None or chance.random() < 0.8):
            parent, key = value, chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
            value = value[key]
        if parent is None:
            continue
        what = chance.random()
        if what < 0.1:
            del parent[key]
        elif what < 0.15 and isinstance(parent, dict):
            parent["unknown"] = value
        else:
            parent[key] = chance.choice(HOSTILE_VALUES)
    return result


def mutated_bytes(data: bytes, seed: int) -> bytes:
    """The bytes with bits flipped, cut short, spliced, or numbers of 8 bytes replaced."""
    chance, result = random.Random(seed), bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3))):
        start = chance.randrange(len(result) + 1)
        if chance.random() < 0.5:  # headers, and the index at the end, matter most
            start = chance.choice((start % 64, max(0, len(result) - 1 - start % 64)))
        stop = min(len(result), start + chance.choice((1, 4, 8, 100)))
        what = chance.randrange(5)
        if what == 0 and start < len(result):
            result[start] ^= 1 << chance.randrange(8)
        elif what == 1:
            del result[start:]
        elif what == 2:
            del result[start:stop]
        elif what == 3:
            result[start:stop] = result[:8]
        else:
            result[start : start + 8] = chance.choice((0, 2**63 - 1, 2**64 - 1, 2**40)).to_bytes(8, "little")
    return bytes(result)


@pytest.fixture(scope="session")
def damage() -> Callable[[Path, int], None]:
    """Damages a file of ours by a seed: values of JSON, or bytes of anything."""

    def damage_file(path: Path, seed: int) -> None:
        data = path.read_bytes()
        if path.suffix == ".json" and seed % 4:
            data = json.dumps(mutated_json(json.loads(data), seed)).encode()
        else:
            data = mutated_bytes(data, seed)
        path.write_bytes(data)

    return damage_file


Pixels = npt.NDArray[np.uint8]
ClipMaker = Callable[..., Path]

BITS_WIDE, BITS_HIGH = 5, 2
ENCODING = {  # quiet and fast: there are 20,000 frames of them
    "libx264": {"x264-params": "log-level=none:scenecut=0", "preset": "veryfast"},
    "libx265": {"x265-params": "log-level=none", "preset": "ultrafast"},
}


@functools.lru_cache(maxsize=600)
def numbered_picture(number: int, width: int, height: int) -> Pixels:
    """(height, width, 3): ten grey blocks, light for 1 and dark for 0, over moving texture in small amplitude."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS_WIDE * BITS_HIGH)]).reshape(BITS_HIGH, BITS_WIDE)
    rows = np.arange(height) * BITS_HIGH // height
    columns = np.arange(width) * BITS_WIDE // width
    texture = np.random.default_rng(number).integers(0, 40, (height, width), dtype=np.uint8)
    grey = 40 + 140 * bits[rows][:, columns].astype(np.uint8) + texture
    return np.repeat(grey[:, :, None], 3, axis=2)


def number_of(image: Pixels) -> int:
    """The number in a picture of any size."""
    blocks = np.array_split(image.mean(axis=2), BITS_HIGH, axis=0)
    means = [block.mean() for row in blocks for block in np.array_split(row, BITS_WIDE, axis=1)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 128)


@pytest.fixture(scope="session")
def read_number() -> Callable[[Pixels], int]:
    """Reads the number of a picture."""
    return number_of


@pytest.fixture
def make_clip(tmp_path: Path) -> ClipMaker:
    """Writes a clip of numbered frames."""

    def make(
        name: str,
        *,
        num_frames: int = 60,
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 12800),
        rate: Fraction = Fraction(25),
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        size: tuple[int, int] = (160, 96),
        gop: int = 12,
        options: dict[str, str] | None = None,
        pixel_aspect: Fraction | None = None,
        rotation: int = 0,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path, reformatter = tmp_path / name, VideoReformatter()
        ticks = round(1 / (rate * time_base))
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = cast(VideoStream, container.add_stream(codec, rate=rate))
            stream.width, stream.height, stream.pix_fmt = *size, pixel_format
            stream.codec_context.gop_size = gop
            stream.codec_context.time_base = time_base
            stream.options = dict(ENCODING.get(codec, {}) | (options or {}))
            if pixel_aspect:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation:
                stream.set_display_rotation(rotation)
            for number in range(num_frames):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), "rgb24")
                frame = reformatter.reformat(frame, format=pixel_format, dst_colorspace=Colorspace.ITU601)
                frame.pts, frame.time_base = (pts[number] if pts else number * ticks), time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(offset, size) in bytes of each packet, in file order."""
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size) for p in container.demux(container.streams.video[0]) if p.size]


@pytest.fixture(scope="session")
def damage_clip() -> Callable[..., Path]:
    """Writes a copy of a clip with random bytes at spots inside its packets, or whole packets of zeros (`None`)."""

    def make(
        clip: Path,
        target: Path,
        *,
        num_spots: int,
        num_bytes: int | None,
        seed: int = 0,
        num_packets: int | None = None,
    ) -> Path:
        rng = np.random.default_rng(seed)
        content, places = bytearray(clip.read_bytes()), packet_places(clip)[:num_packets]
        for _ in range(num_spots):
            position, size = places[int(rng.integers(len(places)))]
            if num_bytes is None:
                content[position : position + size] = bytes(size)
                continue
            start = position + int(rng.integers(max(1, size - num_bytes)))
            content[start : start + num_bytes] = rng.integers(0, 256, num_bytes, dtype=np.uint8).tobytes()
        target.write_bytes(content)
        return target

    return make
