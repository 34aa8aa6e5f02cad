"""Settings, a small store, and whole-tree comparison for the store's tests."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bas.cache.match import MatchMeta
from bas.cache.reduce import FitSettings, reduce_store
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.cache.writer import MatchWriter

LABELS = ({"gameTime": "1 - 00:04", "label": "PASS", "position": "4000", "team": "home", "visibility": "visible"},)


class StoreMaker:
    """Makes stores and matches in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"

    def settings(self, dim: int = 6, **changes: object) -> FeatureSettings:
        """Settings with `dim` channels."""
        record = {
            "backbone": "x3d_s",
            "depth": 5,
            "weights": "none",
            "weights_sha256": "0" * 64,
            "dim": dim,
            "width": 398,
            "height": 224,
            "fit": "pad",
            "scaler": "swscale-bicubic",
            "fps": "25",
            "window": 50,
            "hop": 25,
            "blend": "hann",
            "stride": 1,
            "mean": [0.45, 0.45, 0.45],
            "std": [0.225, 0.225, 0.225],
            "dtype": "float16",
        }
        return FeatureSettings.from_json(record | changes)

    def store(self, dim: int = 6, **changes: object) -> FeatureStore:
        """The store, made where it is missing."""
        settings = self.settings(dim, **changes)
        return FeatureStore.create_or_open(self.path, settings, classes=("PASS", "DRIVE"), software={"bas": "0"})

    def rows(self, num_rows: int, dim: int = 6, seed: int = 0) -> npt.NDArray[np.float32]:
        """(num_rows, dim) standard normal."""
        return np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(np.float32)

    def writer(self, match_id: str = "a", *, num_rows: int, dim: int = 6, **changes: Any) -> MatchWriter:
        """A writer with plain defaults."""
        arguments: dict[str, Any] = {
            "views": ("identity",),
            "pts_ticks": np.arange(num_rows) * 512,
            "match_meta": self.meta(),
            "provenance": {"engine": "test"},
            "journal_seconds": 0.0,
        }
        return self.store(dim).writer(match_id, num_rows=num_rows, **(arguments | changes))

    def meta(self, **changes: Any) -> MatchMeta:
        """25 fps, two labels, a video of 5 bytes."""
        fields: dict[str, Any] = {
            "fps": Fraction(25),
            "time_base": Fraction(1, 12800),
            "origin_ticks": 3,
            "split": "train",
            "labels": LABELS,
            "video": {"name": "224p.mp4", "bytes": 5, "sha256": "ab"},
        }
        return MatchMeta(**(fields | changes))

    def match(
        self,
        match_id: str = "a",
        *,
        num_rows: int = 600,
        dim: int = 6,
        rows: Any = None,
        valid: Any = None,
        **more: Any,
    ) -> npt.NDArray[Any]:
        """Write a whole match; its rows as stored (those of the first view; each further view is one higher)."""
        rows = self.rows(num_rows, dim) if rows is None else rows
        flags = np.ones(len(rows), bool) if valid is None else valid
        with self.writer(match_id, num_rows=len(rows), dim=rows.shape[1], **more) as writer:
            writer.append({view: rows + n for n, view in enumerate(more.get("views", ("identity",)))}, flags)
            writer.commit()
        return rows.astype(np.float16)  # type: ignore[no-any-return]

    def reduced(self, name: str = "reduced", **fit: Any) -> Path:
        """All matches, reduced into a store beside this one: to 3 channels of 8 bits where nothing else is said."""
        out = self.path.with_name(name)
        asked = FitSettings(**(fit or {"dim": 3, "quantize": True}))
        assert reduce_store(self.path, out, asked=asked).complete
        return out

    @property
    def shard(self) -> Path:
        """Shard of match a."""
        return self.path / "a" / "features" / "identity" / "c" / "0" / "0"


@pytest.fixture
def maker(tmp_path: Path) -> StoreMaker:
    """Makes a store in the test's folder."""
    return StoreMaker(tmp_path)


@pytest.fixture(scope="session")
def make_maker() -> Callable[[Path], StoreMaker]:
    """Makes such makers, for tests that need a folder per example."""
    return StoreMaker


@pytest.fixture(scope="session")
def fill_plane() -> Callable[..., FeatureStore]:
    """Fills a maker's store with rows of 12 channels near a plane, so that 3 components hold most of them."""
    return _fill_plane


def _fill_plane(maker: StoreMaker, lengths: tuple[int, ...] = (700, 300, 260, 256, 40)) -> FeatureStore:
    """Two training matches, one that validates, one for tests and one without a split; two views, some rows invalid."""
    directions = np.random.default_rng(99).normal(size=(3, 12))
    splits = ("train", "train", "valid", "test", None)
    for seed, (split, num_rows) in enumerate(zip(splits, lengths, strict=True)):
        generator, valid = np.random.default_rng(seed), np.ones(num_rows, bool)
        rows = 2 + (generator.normal(size=(num_rows, 3)) * [5, 3, 1]) @ directions
        rows = (rows + 0.05 * generator.normal(size=(num_rows, 12))).astype(np.float32)
        valid[:5], rows[:5] = False, 1000  # would bend every component, were they not left out
        if split is None:
            rows += 500  # likewise
        meta = maker.meta(split=split, labels=())
        with maker.writer(
            f"m{seed}", num_rows=num_rows, dim=12, views=("identity", "hflip"), match_meta=meta
        ) as writer:
            writer.append({"identity": rows, "hflip": rows[:, ::-1]}, valid)
            writer.commit()
    return FeatureStore.open(maker.path)


def read_tree(root: Path) -> dict[str, bytes | None]:
    """Every file's bytes (None for a folder) by its path within a store."""
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Reads a whole store for comparison."""
    return read_tree
