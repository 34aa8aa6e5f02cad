"""What a store holds, as a table: one line per match."""

from dataclasses import asdict, dataclass
from typing import Any

from .layout import FEATURES
from .rows import array_metadata
from .shard import DTYPES
from .store import FeatureStore


@dataclass(frozen=True)
class MatchLine:
    """One match of the table."""

    match: str
    """Match id."""
    split: str
    """train, valid, test, challenge; empty where there is none."""
    rows: int
    """Frames of the grid."""
    minutes: float | None
    """Length of the grid; None where each match has a rate of its own, and is elsewhere."""
    events: int | None
    """Labels; None where the match is unlabelled."""
    views: tuple[str, ...]
    """Views, sorted."""
    megabytes: float
    """Features of all views as they are read, 10^6 bytes."""
    invalid_share: float | None
    """Share of rows whose frame could not be decoded, 0..1; None where that takes the rows, which are elsewhere."""


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance."""

    settings: dict[str, Any]
    """What the features were made with, plain JSON."""
    settings_key: str
    """SHA-256 of the settings."""
    classes: tuple[str, ...]
    """Class names."""
    software: dict[str, str]
    """Versions that the store was made with."""
    weights_origin: dict[str, Any] | None
    """The weights file or finetuned run, plain JSON; None where that was not written down."""
    matches: tuple[MatchLine, ...]
    """Lines of the table, in order of id."""
    reduction: dict[str, Any] | None = None
    """What reduced rows were fitted on and what they keep, plain JSON; None where the rows are full."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def info(store: FeatureStore) -> StoreInfo:
    """Read metadata and `valid` of every match; no features.

    Raises:
        InputError: a match is damaged.
    """
    lines = tuple(_line(store, match_id) for match_id in store.matches())
    origin = store.origin.to_json() if store.origin else None
    reduced = store.reduction
    reduction = {"source": reduced.source.to_json(), **reduced.about} if reduced else None
    return StoreInfo(
        store.settings.to_json(), store.settings.key(), store.classes, store.software, origin, lines, reduction
    )


def _line(store: FeatureStore, match_id: str) -> MatchLine:
    match, views = store.match(match_id), tuple(store.views(match_id))
    num_bytes = 0
    for view in views:
        metadata = array_metadata(store.path, f"{match_id}/{FEATURES}/{view}")
        num_values = 1
        for size in metadata["shape"]:
            num_values *= size
        num_bytes += num_values * DTYPES[metadata["data_type"]].itemsize
    return MatchLine(
        match=match_id,
        split=match.meta.split or "",
        rows=match.num_rows,
        minutes=match.seconds / 60,
        events=None if match.meta.labels is None else len(match.meta.labels),
        views=views,
        megabytes=num_bytes / 1e6,
        invalid_share=float(1 - store.valid(match_id).mean()),
    )
