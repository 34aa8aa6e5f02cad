"""The annotation file of OpenTAD and ActionFormer: segments, subsets and lengths of videos in one JSON document.

`{"database": {VIDEO: {"subset": "training", "duration": 9.5, "annotations": [{"segment": [1, 2], "label": "A"}]}}}`
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...events import SPLIT_NAMES, Event, Split, split_named
from ...files import read_json
from ..match import MatchInfo
from .importing import Instant

_SUBSET_NAMES = {"train": "training", "valid": "validation", "test": "testing", "challenge": "challenge"}
_HALF_SEGMENT_MS = 500
_MAX_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Annotated:
    """What the file says of one video."""

    split: Split | None
    events: tuple[Event, ...]
    """In time order."""
    duration_seconds: float | None
    fps: Fraction | None
    """Frames a second of the video."""


@dataclass(frozen=True)
class Annotations:
    """An annotation file."""

    path: Path
    videos: Mapping[str, Annotated]
    classes: tuple[str, ...]
    """By `label_id` where every annotation has one, else sorted."""

    def find(self, match_id: str) -> tuple[str, Annotated] | None:
        """(name in the file, what it says) of a match, by its id or the last part of it; None where it is not there."""
        for name in (match_id, match_id.rsplit("/", 1)[-1]):
            if name in self.videos:
                return name, self.videos[name]
        return None


def holds_annotations(path: Path) -> bool:
    """Whether a JSON file has a `database`."""
    document = read_json(path)
    return isinstance(document, dict) and isinstance(document.get("database"), dict)


def read_annotations(path: Path, *, instant: Instant) -> Annotations:
    """An annotation file with each segment as one instant of it (one without length is its start).

    Raises:
        InputError: it cannot be read, or an entry cannot be used (named).
    """
    document = read_json(path)
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise InputError(f"{path}: no annotations", got=type(database).__name__, wanted='{"database": {VIDEO: {...}}}')
    videos = {name: _video(entry, instant, f"{path}: {name}") for name, entry in database.items()}
    return Annotations(path, videos, _classes(database))


def annotated_video(info: MatchInfo, classes: Sequence[str]) -> dict[str, Any]:
    """One entry of `database`: each event as a segment of a second around it, shorter at the ends of the match.

    A label that is not among the classes has no `label_id`.
    """
    length_ms, records = round(1000 * info.seconds), []
    for event in info.meta.events() or []:
        half_ms = max(0, min(_HALF_SEGMENT_MS, event.position_ms, length_ms - event.position_ms))
        segment = [(event.position_ms - half_ms) / 1000, (event.position_ms + half_ms) / 1000]
        record: dict[str, Any] = {"segment": segment, "label": event.label}
        records.append(record | ({"label_id": classes.index(event.label)} if event.label in classes else {}))
    subset = _SUBSET_NAMES.get(info.meta.split or "")
    entry = {"duration": length_ms / 1000, "fps": float(info.meta.fps), "annotations": records}
    return entry if subset is None else {"subset": subset, **entry}


def _video(entry: object, instant: Instant, where: str) -> Annotated:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not an object", got=repr(entry)[:80])
    subset, records = entry.get("subset"), entry.get("annotations", [])
    split = split_named(str(subset))
    if subset is not None and split is None:
        raise InputError(f"{where}: subset is not known", got=repr(subset)[:80], wanted=", ".join(SPLIT_NAMES))
    if not isinstance(records, list):
        raise InputError(f"{where}: annotations are no list", got=repr(records)[:80])
    events = sorted(_event(record, instant, f"{where}: annotations[{i}]") for i, record in enumerate(records))
    fps = entry.get("fps")
    return Annotated(
        split,
        tuple(events),
        None if entry.get("duration") is None else _number(entry["duration"], f"{where}: duration", _MAX_SECONDS),
        None if fps is None else Fraction(str(_number(fps, f"{where}: fps", 1000))),
    )


def _event(record: Any, instant: Instant, where: str) -> Event:
    segment = record.get("segment") if isinstance(record, dict) else None
    label = record.get("label") if isinstance(record, dict) else None
    if not isinstance(segment, list) or len(segment) != 2 or not isinstance(label, str) or not label:
        raise InputError(f"{where}: not usable", got=repr(record)[:120], wanted='{"segment": [s, e], "label": "A"}')
    start, end = (_number(value, where, _MAX_SECONDS) for value in segment)
    if end < start:
        raise InputError(f"{where}: segment ends before it starts", got=segment)
    seconds = {"start": start, "centre": (start + end) / 2, "end": end}[instant]
    return Event(round(1000 * seconds), label)


def _number(value: object, where: str, limit: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= limit:  # NaN is neither
        return float(value)
    raise InputError(f"{where}: not usable", got=repr(value)[:80], wanted=f"a number, 0 to {limit}")


def _classes(database: Mapping[str, Any]) -> tuple[str, ...]:
    records = [record for entry in database.values() for record in entry.get("annotations", [])]
    ids: dict[str, Any] = {}
    for record in records:
        ids.setdefault(record["label"], record.get("label_id"))
    numbered = all(type(value) is int for value in ids.values()) and len(set(ids.values())) == len(ids)
    ordered: Iterable[str] = sorted(ids, key=lambda label: ids[label]) if numbered else sorted(ids)
    return tuple(ordered)
