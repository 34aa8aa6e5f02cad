"""What a store knows of one match besides its rows: the record in the match's group attributes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import InputError, reading_record
from ..events import SPLITS, Event, TimeGrid, parse_event, parse_fraction
from ..files import read_json
from .layout import METADATA, METADATA_BYTES, inside
from .shard import MAX_ROWS

_FIELDS = frozenset({"num_rows", "fps", "time_base", "origin_ticks", "split", "labels", "video"})


@dataclass(frozen=True, kw_only=True)
class MatchMeta:
    """All that is kept with a match, given when it is written."""

    fps: Fraction
    """Frames (rows) per second of the grid."""
    time_base: Fraction
    """Seconds per tick of `pts`, e.g. 1/12800."""
    origin_ticks: int
    """Presentation time of grid frame 0, in ticks."""
    split: str | None = None
    """train, valid, test, challenge, or None."""
    labels: tuple[Mapping[str, Any], ...] | None = None
    """SoccerNet annotation records; None: unlabelled, (): labelled, but nothing happens."""
    video: Mapping[str, Any] = field(default_factory=dict)
    """`name`, `bytes`, `sha256` (or None) and whatever else is worth keeping, plain JSON; no path, no time stamp."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further plain JSON of the match."""

    def __post_init__(self) -> None:
        TimeGrid(self.fps)
        if self.time_base <= 0:
            raise InputError("time base is not usable", got=self.time_base, wanted="a positive fraction of a second")
        if set(self.extra) & _FIELDS:
            raise InputError("extra names a field of its own", got=", ".join(sorted(set(self.extra) & _FIELDS)))
        if self.split is not None and self.split not in SPLITS:
            raise InputError("split is not known", got=repr(self.split), wanted=", ".join(SPLITS))

    @property
    def grid(self) -> TimeGrid:
        """Converts between frames (rows) and milliseconds."""
        return TimeGrid(self.fps)

    def events(self) -> list[Event] | None:
        """Labels as events, in time order; None where the match is unlabelled.

        Raises:
            InputError: a record cannot be used.
        """
        if self.labels is None:
            return None
        parsed = (parse_event(record, where=f"labels[{index}]") for index, record in enumerate(self.labels))
        return sorted(parsed, key=lambda event: (event.half, event.position_ms))

    def to_json(self, *, num_rows: int) -> dict[str, Any]:
        """The record as stored; inverse of `MatchInfo.from_json`."""
        return {
            **self.extra,
            "num_rows": num_rows,
            "fps": str(self.fps),
            "time_base": str(self.time_base),
            "origin_ticks": self.origin_ticks,
            "split": self.split,
            "labels": None if self.labels is None else [dict(record) for record in self.labels],
            "video": dict(self.video),
        }


@dataclass(frozen=True)
class MatchInfo:
    """A match of a store."""

    id: str
    """Folder within the store, parts joined by `/`."""
    num_rows: int
    """T: rows of every view, and of `pts` and `valid`."""
    meta: MatchMeta
    """Time grid, split, labels, video."""

    @property
    def seconds(self) -> float:
        """Length of the match's grid."""
        return float(self.num_rows / self.meta.fps)

    @classmethod
    def from_json(cls, match_id: str, record: object, *, where: str) -> "MatchInfo":
        """From the match's attributes.

        Raises:
            InputError: a field is missing or not usable.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: no match record", got=repr(record)[:80], wanted='an object "bas_match"')
        rest = dict(record)
        try:
            with reading_record("match record is damaged"):
                num_rows, ticks = rest.pop("num_rows"), rest.pop("origin_ticks")
                labels, video = rest.pop("labels"), rest.pop("video")
                if type(num_rows) is not int or not 1 <= num_rows <= MAX_ROWS:
                    raise ValueError(f"num_rows {num_rows!r}")
                if type(ticks) is not int or abs(ticks) >= 1 << 63:
                    raise ValueError(f"origin_ticks {ticks!r}")
                if not isinstance(video, Mapping) or not isinstance(labels, list | None):
                    raise TypeError("labels or video")
                meta = MatchMeta(
                    fps=parse_fraction(rest.pop("fps")),
                    time_base=parse_fraction(rest.pop("time_base")),
                    origin_ticks=ticks,
                    split=rest.pop("split"),
                    labels=None if labels is None else tuple(dict(label) for label in labels),
                    video=dict(video),
                    extra=rest,
                )
        except InputError as error:
            raise InputError(f"{where}: {error.what}", got=error.got, wanted=error.wanted) from None
        return cls(match_id, num_rows, meta)


def read_match(root: Path, match_id: str) -> MatchInfo:
    """The record of a match in the store at `root`.

    Raises:
        InputError: missing or damaged.
    """
    path = inside(root, f"{match_id}/{METADATA}")
    metadata = read_json(path, max_bytes=METADATA_BYTES)
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    record = attributes.get("bas_match") if isinstance(attributes, dict) else None
    return MatchInfo.from_json(match_id, record, where=str(path))
