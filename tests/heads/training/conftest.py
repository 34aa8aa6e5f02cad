"""Small stores whose features carry the events, tiny settings, and the command line in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.events import Event, TimeGrid
from bas.heads.training.settings import TrainSettings

DIM, CLASSES = 4, ("PASS", "DRIVE")
FEATURES = FeatureSettings.imported(kind="pulses", model="none", dim=DIM, fps="25")


@dataclass(frozen=True)
class MatchPlan:
    """A match to be written."""

    id: str
    split: str | None = "train"
    num_rows: int = 500
    seed: int = 0
    fps: int = 25
    views: tuple[str, ...] = ("identity", "hflip")
    is_labelled: bool = True
    shift_rows: int = 0
    """The labels say that the events are so much later than the features do."""
    events: tuple[tuple[int, str], ...] | None = None
    """(row, class); by default one about every `gap_rows`, classes at random."""
    gap_rows: int = 20

    def placed(self) -> tuple[tuple[int, str], ...]:
        """(row, class) in time order."""
        if self.events is not None:
            return self.events
        generator = np.random.default_rng(self.seed)
        rows, wander = range(12, self.num_rows - 12, self.gap_rows), self.gap_rows // 5
        return tuple(
            (max(0, row + int(generator.integers(-wander, wander + 1))), CLASSES[generator.integers(0, 2)])
            for row in rows
        )


TRAIN_A, TRAIN_B = MatchPlan("liga/a", seed=1), MatchPlan("liga/b", seed=2, num_rows=410)
VALID = MatchPlan("liga/x", "valid", seed=3, num_rows=600)
PLANS = (TRAIN_A, TRAIN_B, VALID)


def write_store(path: Path, plans: Sequence[MatchPlan] = PLANS, *, classes: Sequence[str] = CLASSES) -> FeatureStore:
    """Noise, and around every event a pulse of 5 rows in its class's channel; the other views have other noise."""
    store = FeatureStore.create_or_open(path, FEATURES, classes=classes, software={"bas": "0"})
    for plan in plans:
        grid, generator = TimeGrid(Fraction(plan.fps)), np.random.default_rng(100 + plan.seed)
        rows = {view: 0.1 * generator.normal(size=(plan.num_rows, DIM)).astype(np.float32) for view in plan.views}
        for row, label in plan.placed():
            for near in range(max(0, row - 2), min(plan.num_rows, row + 3)):
                for each in rows.values():
                    each[near, CLASSES.index(label)] += 2 - 0.5 * abs(near - row)
        labels = [Event(grid.ms(row + plan.shift_rows), label).to_json() for row, label in plan.placed()]
        meta = MatchMeta(
            fps=grid.fps,
            time_base=Fraction(1, 12800),
            origin_ticks=0,
            split=plan.split,
            labels=tuple(labels) if plan.is_labelled else None,
            video={"bytes": 1},
        )
        pts = np.arange(plan.num_rows) * 512
        with store.writer(
            plan.id, views=plan.views, num_rows=plan.num_rows, pts_ticks=pts, match_meta=meta, provenance={}
        ) as writer:
            writer.append(rows, np.ones(plan.num_rows, bool))
            writer.commit()
    return FeatureStore.open(path)


def tiny_settings(**changes: Any) -> TrainSettings:
    """Three epochs of six updates."""
    tiny: dict[str, Any] = {
        "head": "tcn",
        "clip_len": 16,
        "stride": 2,
        "hop_rows": 4,
        "batch": 4,
        "frames_per_epoch": 16 * 4 * 6,
        "epochs": 3,
        "patience": 0,
        "lr": 5e-3,
        "precision": "fp32",  # the same on every processor
    }
    return TrainSettings(**(tiny | changes))


@pytest.fixture(scope="session")
def plan() -> type[MatchPlan]:
    """Plans of matches."""
    return MatchPlan


@pytest.fixture(scope="session")
def plans() -> tuple[MatchPlan, ...]:
    """The matches of `store`: two train, one validates."""
    return PLANS


@pytest.fixture(scope="session")
def make_store() -> Callable[..., FeatureStore]:
    """Writes stores."""
    return write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Two matches that train and one that validates; read only."""
    return write_store(tmp_path_factory.mktemp("store") / "pulses.zarr")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainSettings]:
    """Settings that train in a blink."""
    return tiny_settings
