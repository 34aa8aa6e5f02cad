"""Stores whose rows lie near a plane, so that few components hold most of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bas.cache.store import FeatureStore

DIM, RANK = 12, 3


def plane_rows(num_rows: int, seed: int) -> npt.NDArray[np.float32]:
    """(num_rows, 12): three directions, the same for every seed, a mean, and a little noise."""
    directions = np.random.default_rng(99).normal(size=(RANK, DIM))
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(num_rows, RANK)) * [5, 3, 1]
    rows = 2 + weights @ directions + 0.05 * generator.normal(size=(num_rows, DIM))
    return rows.astype(np.float32)


@pytest.fixture
def full(maker: Any) -> FeatureStore:
    """Two training matches, one that validates, one for tests and one without a split; two views, some rows invalid."""
    return fill(maker)


def fill(maker: Any, lengths: tuple[int, ...] = (700, 300, 260, 256, 40)) -> FeatureStore:
    splits = ("train", "train", "valid", "test", None)
    for seed, (split, num_rows) in enumerate(zip(splits, lengths, strict=True)):
        rows, valid = plane_rows(num_rows, seed), np.ones(num_rows, bool)
        valid[:5] = False
        rows[:5] = 1000  # would bend every component, were it not left out
        if split is None:
            rows += 500  # likewise
        arguments = {
            "num_rows": num_rows,
            "dim": DIM,
            "views": ("identity", "hflip"),
            "match_meta": maker.meta(split=split, labels=()),
        }
        with maker.writer(f"m{seed}", **arguments) as writer:
            writer.append({"identity": rows, "hflip": rows[:, ::-1]}, valid)
            writer.commit()
    return FeatureStore.open(maker.path)


@pytest.fixture(scope="session")
def make_full() -> Callable[..., FeatureStore]:
    """Fills a maker's store."""
    return fill


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "reduced.zarr"
