"""Stores of random rows for benchmarks, at SoccerNet's size."""

import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.events import SOCCERNET_BALL_CLASSES, Event

TRAIN_ROWS: Mapping[str, int] = {"leeds": 146_479, "hull": 144_752, "brentford": 142_498, "blackburn": 142_886}
"""Frames of SoccerNet's four training games."""
VALID_ROWS: Mapping[str, int] = {"middlesbrough": 146_892}
SECONDS_PER_EVENT = 3.4
"""1,022,160 frames hold 12,433 events."""


def random_store(path: Path, dim: int, *, train: Mapping[str, int], valid: Mapping[str, int]) -> FeatureStore:
    """A store of random rows (T, dim) with events of the twelve classes at random instants.

    Args:
        path: where it is made.
        dim: channels.
        train: match id -> rows.
        valid: likewise.
    """
    settings = FeatureSettings(
        backbone="x3d_s",
        depth=5,
        weights="none",
        weights_sha256="0" * 64,
        dim=dim,
        width=398,
        height=224,
        fit="pad",
        scaler="swscale-bicubic",
        fps="25",
        window=50,
        hop=25,
        blend="hann",
        stride=1,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
    )
    store = FeatureStore.create_or_open(path, settings, classes=SOCCERNET_BALL_CLASSES, software={})
    generator, num_rows, began = np.random.default_rng(0), 0, time.perf_counter()
    for split, matches in (("train", train), ("valid", valid)):
        for match_id, length in matches.items():
            _write(store, match_id, length, split=split, generator=generator)
            num_rows += length
    speed = 2e-6 * num_rows * dim / (time.perf_counter() - began)
    print(f"written at {speed:.0f} MB/s (random numbers included)")
    return store


def _write(store: FeatureStore, match_id: str, num_rows: int, *, split: str, generator: np.random.Generator) -> None:
    places = np.sort(generator.integers(0, num_rows, int(num_rows / 25 / SECONDS_PER_EVENT)))
    labels = generator.integers(0, len(store.classes), len(places))
    events = [Event(40 * int(place), store.classes[label]) for place, label in zip(places, labels, strict=True)]
    meta = MatchMeta(
        fps=Fraction(25),
        time_base=Fraction(1, 25),
        origin_ticks=0,
        split=split,
        labels=tuple(event.to_json() for event in events),
    )
    ticks = np.arange(num_rows)
    with store.writer(match_id, num_rows=num_rows, pts_ticks=ticks, match_meta=meta, provenance={}) as writer:
        for start in range(0, num_rows, 4096):
            rows = generator.standard_normal((min(4096, num_rows - start), store.settings.dim), np.float32)
            writer.append({"identity": rows}, np.ones(len(rows), bool))
        writer.commit()
