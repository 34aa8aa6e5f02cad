"""Events, classes, splits and the time grid; reads labels, writes and reads predictions.

Source of the conventions: SoccerNet ball action spotting 2025 (`Labels-ball.json`, `results_spotting.json`).
Imports nothing of ours but the error type.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import InputError
from .files import JSON_BYTES, read_json, write_json_atomic

PREDICTIONS_BYTES = 256 << 20
"""Largest predictions file: other programs keep one for each frame and class."""
LABEL_FPS, COARSE_FPS = 25, 5
"""Grids of fewer frames a second are coarse: of features that others made, such as SoccerNet's at 2 and 1 a second."""
_MAX_POSITION_MS = 24 * 3600 * 1000
_FRACTION = re.compile(r"[0-9]{1,18}(\.[0-9]{1,12}|/[0-9]{1,18})?")
Split = Literal["train", "valid", "test", "challenge"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_NAMES: dict[str, Split] = {
    **{split: split for split in SPLITS},
    **{"val": "valid", "validation": "valid", "training": "train", "testing": "test"},
}
"""What people call the splits, in lower case -> the split."""
SOCCERNET_BALL_CLASSES = (
    "PASS",
    "DRIVE",
    "HEADER",
    "HIGH PASS",
    "OUT",
    "CROSS",
    "THROW IN",
    "SHOT",
    "BALL PLAYER BLOCK",
    "PLAYER SUCCESSFUL TACKLE",
    "FREE KICK",
    "GOAL",
)
"""The twelve SoccerNet classes; class id is the position here plus one, 0 is background."""
MIRRORED: Mapping[str, str] = {"left": "right", "right": "left"}
"""Team -> the one that it is in a mirrored picture; home and away stay what they are."""
NO_TEAM = frozenset(("", "not applicable"))
"""What stands for no team in SoccerNet's labels."""
_SEASON = "england_efl/2019-2020/"
SOCCERNET_BALL_SPLITS: dict[str, Split] = {
    _SEASON + "2019-10-01 - Leeds United - West Bromwich": "train",
    _SEASON + "2019-10-01 - Hull City - Sheffield Wednesday": "train",
    _SEASON + "2019-10-01 - Brentford - Bristol City": "train",
    _SEASON + "2019-10-01 - Blackburn Rovers - Nottingham Forest": "train",
    _SEASON + "2019-10-01 - Middlesbrough - Preston North End": "valid",
    _SEASON + "2019-10-01 - Stoke City - Huddersfield Town": "test",
    _SEASON + "2019-10-01 - Reading - Fulham": "test",
    _SEASON + "2019-10-02 - Cardiff City - Queens Park Rangers": "challenge",
    _SEASON + "2019-10-01 - Wigan Athletic - Birmingham City": "challenge",
}
"""Game folder (relative to the data set's root, split folders left out) -> official split."""


_SOCCERNET_FOLDER = re.compile(r"(.*/)?[0-9]{4}(-[0-9]{4})?/[0-9]{4}-[0-9]{2}-[0-9]{2} - .+ - .+")
"""`england_efl/2019-2020/2019-10-01 - Reading - Fulham`, and what is laid out like it."""


def own_classes(classes: tuple[str, ...], games: Iterable[str], labels: Collection[str]) -> tuple[str, ...]:
    """The classes that are meant where nobody has listed any: SoccerNet's twelve for its games, else those that occur.

    Args:
        classes: the class list that was found.
        games: ids of all games, of whatever split.
        labels: all labels that occur in them.
    """
    found = tuple(name for name in classes if name in labels)
    is_soccernet = any(_SOCCERNET_FOLDER.fullmatch(game) for game in games)
    return classes if classes != SOCCERNET_BALL_CLASSES or is_soccernet or not found else found


def team_label(label: str, team: str) -> str:
    """Joint class of a label and the team that acts, as SoccerNet's team challenge writes it: `PASS-left`."""
    return f"{label}-{team}"


def team_classes(classes: Iterable[str], teams: Sequence[str]) -> tuple[str, ...]:
    """Every joint class, those of one label side by side."""
    return tuple(team_label(label, team) for label in classes for team in teams)


def teams_of(events: Iterable["Event"]) -> tuple[str, ...]:
    """Teams that events name, sorted; left and right come together, as a mirrored picture needs both."""
    found = {event.team for event in events} - NO_TEAM
    return tuple(sorted(found | MIRRORED.keys() if found & MIRRORED.keys() else found))


def by_team(events: Iterable["Event"]) -> list["Event"]:
    """The same events with joint classes as their labels."""
    return [replace(event, label=team_label(event.label, event.team)) for event in events]


def split_named(name: str) -> Split | None:
    """The split that a name means, in any case of its letters; None for any other name."""
    return SPLIT_NAMES.get(name.strip().lower())


def parse_fraction(text: object) -> Fraction:
    """From `25`, `12.5` or `30000/1001`: no exponent and few digits, as `1e1000000000` would keep us busy for hours.

    Raises:
        ValueError, ZeroDivisionError: anything else.
    """
    if not isinstance(text, str) or not _FRACTION.fullmatch(text.strip()):
        raise ValueError(f"no fraction: {text!r}"[:80])
    return Fraction(text.strip())


@dataclass(frozen=True)
class TimeGrid:
    """Constant-rate grid of frames: the only place where milliseconds and frames convert.

    Integer and rational arithmetic only: `int(25 * (p / 1000))` in floating point is one frame off for 6.3 % of
    SoccerNet's labels.
    """

    fps: Fraction
    """Frames per second, > 0."""

    def __post_init__(self) -> None:
        if not isinstance(self.fps, Fraction) or self.fps <= 0:
            raise InputError(
                "frame rate is not usable", got=self.fps, wanted="a positive fraction, such as 25 or 30000/1001"
            )

    def frame(self, position_ms: int) -> int:
        """Index of the frame on screen at `position_ms` (>= 0): floor(position_ms * fps / 1000)."""
        return position_ms * self.fps.numerator // (1000 * self.fps.denominator)

    def seconds(self, frame: int) -> Fraction:
        """Start of `frame` in seconds, exact."""
        return Fraction(frame) / self.fps

    def ms(self, frame: int) -> int:
        """Smallest whole millisecond that lies inside `frame`, so that `grid.frame(grid.ms(f)) == f` (fps <= 1000)."""
        exact = 1000 * Fraction(frame) / self.fps
        return -(-exact.numerator // exact.denominator)

    @property
    def is_coarse(self) -> bool:
        """Whether a frame is long beside the tolerances of the metrics."""
        return self.fps < COARSE_FPS

    def instant_ms(self, frame: int) -> int:
        """Where to place what was found in `frame`, inside of it: its start; on a coarse grid its middle.

        Labels belong to the frame at or before them. At 25 fps they lie on its start; at 1 fps they are half a second
        after it on average, and the middle is at most half a second from any of them.
        """
        if not self.is_coarse:
            return self.ms(frame)
        return int(1000 * (self.seconds(frame) + self.seconds(frame + 1)) / 2)

    @property
    def judged(self) -> "TimeGrid":
        """The grid that spots are judged on: this one; where it is coarse, that of SoccerNet's labels."""
        return TimeGrid(Fraction(LABEL_FPS)) if self.is_coarse else self

    def nearest(self, seconds: Fraction) -> int:
        """Frame that starts nearest to an instant (exact, >= 0); the earlier one of two that are as near."""
        exact = seconds * self.fps - Fraction(1, 2)
        return -(-exact.numerator // exact.denominator)

    @classmethod
    def parse(cls, text: str) -> "TimeGrid":
        """From `25`, `12.5` or `30000/1001`.

        Raises:
            InputError: not a positive number or fraction.
        """
        try:
            return cls(parse_fraction(text))
        except (ValueError, ZeroDivisionError):
            raise InputError(
                "frame rate is not usable",
                got=repr(text)[:80],
                wanted="a positive number or fraction, such as 25 or 30000/1001",
            ) from None

    def __str__(self) -> str:
        return str(self.fps)


@dataclass(frozen=True, order=True)
class Event:
    """One instant with a class; a prediction where `confidence` is not None."""

    position_ms: int
    """Milliseconds from the start of the video, >= 0."""
    label: str
    """Class name as in the data set's class list."""
    half: int = 1
    """1 or 2; positions of the older two-halves edition restart at the second half."""
    team: str = ""
    """As annotated (`left`, `right`, `home`, `away`, `not applicable`); may be empty."""
    visible: bool = True
    """False where the annotation says `not shown`."""
    confidence: float | None = None
    """Score of a prediction; None for ground truth."""
    player: str = ""
    """Jersey number or name of who acts, where the source names one."""

    def to_json(self) -> dict[str, Any]:
        """As a SoccerNet annotation (or prediction, with a confidence)."""
        total_seconds = self.position_ms // 1000
        record: dict[str, Any] = {
            "gameTime": f"{self.half} - {total_seconds // 60:02d}:{total_seconds % 60:02d}",
            "label": self.label,
            "position": str(self.position_ms),
        }
        if self.player:
            record["player"] = self.player
        if self.confidence is not None:
            team = {"team": self.team} if self.team else {}
            return record | {"half": str(self.half), "confidence": repr(float(self.confidence))} | team
        return record | {"team": self.team, "visibility": "visible" if self.visible else "not shown"}


def parse_event(record: object, *, where: str) -> Event:
    """One annotation or prediction record -> `Event`.

    Args:
        record: an object with `label`, `position` (milliseconds; string or number), optionally `gameTime`, `half`,
            `team`, `player`, `visibility`, `confidence` (string or number).
        where: file and index, for the error.

    Raises:
        InputError: a field is missing or not usable.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: not an object", got=repr(record)[:80])
    label, position = record.get("label"), record.get("position")
    if not isinstance(label, str) or not label:
        raise InputError(f"{where}: no usable label", got=repr(label)[:80], wanted="a class name")
    try:
        text = str(position).strip()
        position_ms = int(text) if text.isascii() and text.isdigit() else -1  # int() alone also takes "1_000"
    except ValueError:
        position_ms = -1
    if not 0 <= position_ms < _MAX_POSITION_MS:
        raise InputError(
            f"{where}: position is not usable",
            got=repr(position)[:80],
            wanted="whole milliseconds >= 0, as a string, less than a day",
        )
    confidence = record.get("confidence")
    try:
        score = None if confidence is None else float(confidence)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: confidence is not a number", got=repr(confidence)[:80]) from None
    if score is not None and score != score:  # NaN
        raise InputError(f"{where}: confidence is not a number", got="nan")
    half = str(record.get("half") or str(record.get("gameTime", "1")).split("-")[0]).strip()
    return Event(
        position_ms=position_ms,
        label=label,
        half=2 if half == "2" else 1,
        team=str(record.get("team", "")),
        visible=str(record.get("visibility", "visible")) != "not shown",
        confidence=score,
        player=str(record.get("player", "")),
    )


def read_labels(path: Path) -> list[Event]:
    """Events of a `Labels-ball.json` (key `annotations`), in time order.

    Raises:
        InputError: unreadable, bad JSON (with line), or a record that cannot be used (with its index).
    """
    return sorted(read_events(path, key="annotations"), key=lambda event: (event.half, event.position_ms))


def read_events(path: Path, *, key: str) -> list[Event]:
    """Events of a label file (key `annotations`) or a prediction file (`predictions`), in the file's own order.

    The order matters: on one cell of the grid the last of the file wins.

    Raises:
        InputError: unreadable, bad JSON, or a record that cannot be used (with its index).
    """
    document = read_json(path, max_bytes=PREDICTIONS_BYTES if key == "predictions" else JSON_BYTES)
    records = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(records, list):
        raise InputError(f"{path}: no list named {key!r}", got=type(document).__name__, wanted=f'{{"{key}": [...]}}')
    return [parse_event(record, where=f"{path}: {key}[{index}]") for index, record in enumerate(records)]


def write_predictions(path: Path, events: Iterable[Event], *, url_local: str) -> None:
    """Write a `results_spotting.json` that the official reader accepts; whole or not at all.

    Args:
        path: the file; its folder is made.
        events: predictions (with `confidence`), any order; written in time order.
        url_local: the game's folder relative to the data set's root.
    """
    ordered = sorted(events, key=lambda event: (event.half, event.position_ms))
    write_json_atomic(path, {"UrlLocal": url_local, "predictions": [event.to_json() for event in ordered]})
