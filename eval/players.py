"""F1 of events with their player, as FOOTPASS and SoccerNet's player-centric challenge count it.

Both files are `{"keys": [half, ...], "events": {half: [[frame, team, jersey, class, ...], ...]}}`; of a prediction the
fifth number is its confidence. In each half predictions of at least the threshold take, the surest first, the nearest
free event of the same team, jersey and class within the tolerance.
Source: Ochin et al., FOOTPASS, 2025 (arXiv), and the behaviour of its public evaluation.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json

CLASSES = ("DRIVE", "PASS", "CROSS", "THROW IN", "SHOT", "HEADER", "TACKLE", "BLOCK")
"""In the files' order: class 1 is DRIVE."""
SIDES = ("left", "right")
"""Team 0, which plays from left to right, and team 1."""
FPS = Fraction(25)
"""Of the frames, which count on through both halves of a game's one video."""
TOLERANCE_FRAMES, THRESHOLD = 12, 0.15
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class PlayerScore:
    """Counts of one class, or of all."""

    label: str
    num_events: int
    num_predictions: int
    """Of at least the threshold."""
    num_right: int

    @property
    def precision(self) -> float:
        """0 where nothing is predicted."""
        return self.num_right / max(1, self.num_predictions)

    @property
    def recall(self) -> float:
        """0 where there is no event."""
        return self.num_right / max(1, self.num_events)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.num_right / max(1, self.num_events + self.num_predictions)

    def to_json(self) -> dict[str, Any]:
        """Counts and rates."""
        return {**vars(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True)
class PlayersReport:
    """F1 over all classes together (micro), its mean over classes (macro), and each class."""

    total: PlayerScore
    classes: tuple[PlayerScore, ...]
    warnings: tuple[str, ...]

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have events."""
        held = [score.f1 for score in self.classes if score.num_events]
        return sum(held) / max(1, len(held))

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        classes = [score.to_json() for score in self.classes]
        return {
            "metric": "players",
            "micro_f1": self.total.f1,
            "macro_f1": self.macro_f1,
            "tolerance_frames": TOLERANCE_FRAMES,
            "threshold": THRESHOLD,
            "total": self.total.to_json(),
            "classes": classes,
            "warnings": list(self.warnings),
        }


def evaluate_players(labels: Path, predictions: Path) -> PlayersReport:
    """Score a file of predictions against a file of events.

    Raises:
        InputError: a file is not of this shape, or they have no half in common.
    """
    true, found = read_rows(labels), read_rows(predictions)
    if not set(true) & set(found):
        got = f"{', '.join(list(found)[:3])}; events are of {', '.join(list(true)[:3])}"
        raise InputError(f"{predictions}: about none of these halves", got=got, wanted="the same keys in both files")
    warnings = [f"{half}: no predictions, all its events count as missed" for half in true if half not in found]
    warnings += [f"{half}: no events in {labels.name}, left out" for half in found if half not in true]
    events, predicted, right = ([0] * (len(CLASSES) + 1) for _ in range(3))
    for half, of_half in true.items():
        sure = [each for each in found.get(half, ()) if each[4] >= THRESHOLD]
        for _, _, _, c, _ in of_half:
            events[int(c)] += 1
        for _, _, _, c, _ in sure:
            predicted[int(c)] += 1
        for c in _matched(of_half, sure):
            right[c] += 1
    scores = [PlayerScore(name, events[c], predicted[c], right[c]) for c, name in enumerate(CLASSES, 1)]
    total = PlayerScore("all", sum(events), sum(predicted), sum(right))
    return PlayersReport(total, tuple(scores), tuple(warnings))


Row = tuple[float, float, float, float, float]
"""Frame, team, jersey, class, confidence (1 for an event)."""


def _matched(events: Sequence[Row], predictions: Sequence[Row]) -> list[int]:
    """Class of every prediction that takes an event."""
    free: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for frame, team, jersey, c, _ in events:
        free[int(team), int(jersey), int(c)].append(int(frame))
    for frames in free.values():
        frames.sort()
    taken = []
    for frame, team, jersey, c, _ in sorted(predictions, key=lambda each: -each[4]):
        frames = free.get((int(team), int(jersey), int(c)), [])
        nearest = min(frames, key=lambda at: abs(at - frame), default=None)
        if nearest is not None and abs(nearest - frame) <= TOLERANCE_FRAMES:
            frames.remove(nearest)
            taken.append(int(c))
    return taken


def game_of(half: str) -> str:
    """The game that a half is of: `game_18` of `game_18_H1`."""
    return half.removesuffix("_H1").removesuffix("_H2")


def read_rows(path: Path) -> dict[str, list[Row]]:
    """Half -> its events or predictions."""
    return rows_of(read_json(path, max_bytes=_MAX_BYTES), path)


def rows_of(document: object, path: Path) -> dict[str, list[Row]]:
    """Half -> its events or predictions, of a file's content."""
    events = document.get("events") if isinstance(document, Mapping) else None
    if not isinstance(events, Mapping):
        raise InputError(
            f"{path}: no events of players",
            got=type(document).__name__,
            wanted='{"keys": [half, ...], "events": {half: [[frame, team, jersey, class, ...], ...]}}',
        )
    return {
        str(half): [_row(row, where=f"{path}: {half}[{number}]") for number, row in enumerate(rows)]
        for half, rows in events.items()
    }


def _row(row: Any, *, where: str) -> Row:
    is_right = isinstance(row, list) and len(row) >= 4 and all(type(each) in (int, float) for each in row[:5])
    if not is_right or not 1 <= row[3] <= len(CLASSES) or row[0] < 0 or row[1] not in (0, 1):
        wanted = f"[frame >= 0, team 0 or 1, jersey, class 1 to {len(CLASSES)}, confidence]"
        raise InputError(f"{where}: no event", got=repr(row)[:80], wanted=wanted)
    confidence = row[4] if len(row) > 4 and len(row) < 6 else 1.0  # of an event the fifth and sixth are flags
    return row[0], row[1], row[2], row[3], float(confidence)
