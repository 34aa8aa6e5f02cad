"""What a check found: errors and notes, each with its cure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..events import Event, parse_event
from ..files import read_json

Severity = Literal["error", "note"]
ROOT_PLACE = "."
"""`where` of a finding about the whole data set."""


@dataclass(frozen=True)
class Finding:
    """One thing to repair (error) or to know (note)."""

    severity: Severity
    """`error` stops a run; `note` does not."""
    where: str
    """Match id, or file name relative to the data set's root."""
    message: str
    """What is wrong, with what was found."""
    cure: str = ""
    """What to do; may be empty."""

    @classmethod
    def from_error(cls, where: str, error: InputError, *, prefix: str = "") -> "Finding":
        """An `InputError` as an error finding; `prefix` (such as a path) is cut off the front of its text."""
        message = error.what.removeprefix(prefix)
        details = [str(error.got)] if error.got is not None else []
        details += [f"wanted {error.wanted}"] if error.wanted is not None else []
        return cls("error", where, f"{message} ({'; '.join(details)})" if details else message, error.cure)


def error(where: str, message: str, cure: str = "") -> Finding:
    """An error finding."""
    return Finding("error", where, message, cure)


def note(where: str, message: str, cure: str = "") -> Finding:
    """A note."""
    return Finding("note", where, message, cure)


_MAX_RECORD_FINDINGS = 3


@dataclass(frozen=True)
class LabelFile:
    """What one `Labels-ball.json` holds."""

    events: tuple[Event, ...]
    """The usable ones, in time order."""
    findings: tuple[Finding, ...]


def event_time(event: Event) -> str:
    """`PASS at 4000 ms`, with the half where it is the second: how findings name an event."""
    return f"{event.label} at {event.position_ms} ms" + (" of half 2" if event.half == 2 else "")


def read_label_file(path: Path, *, game: str) -> LabelFile:
    """Events and findings of one label file; never raises for what is in it.

    Args:
        path: a `Labels-ball.json`.
        game: id of its match: the place named in findings, compared with `UrlLocal`.
    """
    try:
        document = read_json(path)
    except InputError as reason:
        return LabelFile((), (Finding.from_error(game, reason, prefix=f"{path.parent}/"),))
    records = document.get("annotations") if isinstance(document, Mapping) else None
    if not isinstance(records, list):
        message = f"{path.name}: no list named 'annotations'"
        return LabelFile((), (error(game, message, 'wanted {"annotations": [...]}: fetch the file again'),))
    events: list[Event] = []
    findings: list[Finding] = []
    for index, record in enumerate(records):
        try:
            events.append(parse_event(record, where=f"{path.name}: annotations[{index}]"))
        except InputError as reason:
            findings.append(Finding.from_error(game, reason))
    if (num_more := len(findings) - _MAX_RECORD_FINDINGS) > 0:
        findings[_MAX_RECORD_FINDINGS:] = [error(game, f"{path.name}: {num_more} more records that cannot be used")]
    events.sort(key=lambda event: (event.half, event.position_ms))
    findings += _identical(events, game=game) + _wrong_url(document.get("UrlLocal"), game=game)
    return LabelFile(tuple(events), tuple(findings))


def _identical(events: list[Event], *, game: str) -> list[Finding]:
    counts = Counter((event.half, event.position_ms, event.label) for event in events)
    seen = {(event.half, event.position_ms, event.label): event for event in events}
    repeated = [seen[key] for key, count in counts.items() if count > 1]
    if not repeated:
        return []
    message = f"{len(repeated)} event(s) more than once (first: {event_time(repeated[0])})"
    return [error(game, message, "keep one of each: the metric counts a class once per frame")]


def _wrong_url(url: object, *, game: str) -> list[Finding]:
    stated = str(url or "").replace("\\", "/").strip("/")
    if not stated or f"/{stated}".endswith(f"/{game}") or f"/{game}".endswith(f"/{stated}"):
        return []
    return [note(game, f"UrlLocal names another match ({stated})", "make sure that the labels are of this match")]
