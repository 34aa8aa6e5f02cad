"""Fixtures of all tests: the command line, the real data beside the checkout, and the real weights, where they are."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bas import cli
from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.events import Event, TimeGrid

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WEIGHTS_DIR = os.environ.get("BAS_WEIGHTS_DIR", "")


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny tensors are slower on many threads, and much slower on busy cores; figures are those of the workers."""
    import torch  # takes seconds, and not every test needs it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bas(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process: arguments -> exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return call


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
) -> Path:
    """A store that says it is of a backbone, with a match per split: noise of 4 channels, a pulse at every event."""
    grid = TimeGrid(Fraction(25))
    record = FeatureSettings.imported(kind="x", model="none", dim=4, fps="25").to_json()
    settings = FeatureSettings.from_json(record | {"backbone": backbone, "depth": depth})
    store = FeatureStore.create_or_open(path, settings, classes=classes, software={"bas": "0"})
    for seed, split in enumerate(splits):
        generator = np.random.default_rng(seed)
        rows, labels = 0.1 * generator.normal(size=(num_rows, 4)).astype(np.float32), []
        for number, row in enumerate(range(20, num_rows - 10, gap_rows)):
            rows[row - 1 : row + 2, number % 2] += 2
            labels.append(Event(grid.ms(row), classes[number % 2]).to_json())
        meta = MatchMeta(
            fps=grid.fps, time_base=Fraction(1, 25), origin_ticks=0, split=split, labels=tuple(labels), video={}
        )
        with store.writer(
            f"m-{split}", num_rows=num_rows, pts_ticks=np.arange(num_rows), match_meta=meta, provenance={}
        ) as w:
            w.append({"identity": rows}, np.ones(num_rows, bool))
            w.commit()
    return path
