"""The folder that `bas predict` writes: `prediction.json`, and of each game `results_spotting.json` and `spots.csv`."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, reading_record, refuse_differing
from ..events import Event, write_predictions
from ..files import read_json, write_json_atomic, write_text_atomic
from .files import PREDICTIONS_NAME

RECORD, SPOTS, FORMAT = "prediction.json", "spots.csv", "bas-prediction-1"


@dataclass(frozen=True)
class PartSpots:
    """What was found in a match, or in one half of it."""

    match_id: str
    events: tuple[Event, ...]
    """Predictions, with their half and confidence, in time order."""


@dataclass(frozen=True)
class PredictionFolder:
    """Predictions that were all made in one way."""

    path: Path
    record: Mapping[str, Any]
    """What `prediction.json` says beside the games."""

    @classmethod
    def open(
        cls, path: Path, *, made_with: Mapping[str, Any], about: Mapping[str, Any], games: Iterable[str]
    ) -> "PredictionFolder":
        """Make or go on with a folder, and note in its `prediction.json` what is about to be written.

        Args:
            path: the folder; may hold other things, which are left alone.
            made_with: plain JSON of all that decides a prediction.
            about: plain JSON that is worth keeping beside it.
            games: ids of the games that will be written.

        Raises:
            InputError: it holds predictions that were made in another way (names what differs), or of unknown origin,
                or a link leads out of it.
            OSError: as the file system says.
        """
        folder = cls(path, {"format": FORMAT, "made_with": made_with, **about})
        known = folder._known_games()
        for game in games:
            file = folder.of_game(game) / PREDICTIONS_NAME
            if file.exists() and game not in known:
                raise InputError(
                    f"{file}: would be overwritten",
                    got=f"predictions that {RECORD} in {path} does not list",
                    cure="name another --out",
                )
            known.setdefault(game, None)
        folder._write(known)
        return folder

    def of_game(self, game: str) -> Path:
        """The folder of a game.

        Raises:
            InputError: it lies elsewhere.
        """
        path = self.path / PurePosixPath(game)
        if not path.resolve().is_relative_to(self.path.resolve()) or path.resolve() == self.path.resolve():
            raise InputError(
                f"{path}: leads out of {self.path}",
                got=str(path.resolve()),
                cure="remove the link, or rename the match",
            )
        return path

    def files(self, game: str) -> list[str]:
        """Paths of the files of a game."""
        return [str(self.of_game(game) / name) for name in (PREDICTIONS_NAME, SPOTS)]

    def write(self, game: str, parts: Sequence[PartSpots], about: Mapping[str, Any]) -> None:
        """Write the files of a game, each whole or not at all, then note it in `prediction.json`.

        Args:
            game: its id.
            parts: the match, or its halves.
            about: plain JSON that is kept of the game.

        Raises:
            InputError, OSError: as `open`.
        """
        path = self.of_game(game)
        write_text_atomic(path / SPOTS, _csv(parts))
        write_predictions(path / PREDICTIONS_NAME, (event for part in parts for event in part.events), url_local=game)
        self._write({**self._known_games(), game: about})

    def _known_games(self) -> dict[str, Any]:
        """Games listed in `prediction.json`; raises where they were made in another way."""
        if not (self.path / RECORD).exists():
            return {}
        record = read_json(self.path / RECORD)
        with reading_record(f"{self.path / RECORD}: damaged", cure="name another --out"):
            games, mine, theirs = dict(record["games"]), dict(self.record["made_with"]), dict(record["made_with"])
            stored_format = record["format"]
        if stored_format != FORMAT:
            raise InputError(f"{self.path / RECORD}: another format", got=stored_format, wanted=FORMAT)
        wrong = [name for name in mine | theirs if _text(mine.get(name)) != _text(theirs.get(name))]
        what = f"{self.path}: holds predictions made in another way"
        refuse_differing(wrong, what, got=mine, wanted=theirs, cure="name another --out")
        return games

    def _write(self, games: Mapping[str, Any]) -> None:
        write_json_atomic(self.path / RECORD, {**self.record, "games": dict(sorted(games.items()))})


def clock(position_ms: int) -> str:
    """`mm:ss.cc` of an instant, cut off; minutes go on counting."""
    minutes, rest_ms = divmod(position_ms, 60_000)
    return f"{minutes:02d}:{rest_ms // 1000:02d}.{rest_ms % 1000 // 10:02d}"


def _csv(parts: Sequence[PartSpots]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_team = any(event.team for part in parts for event in part.events)
    writer.writerow(("match", "seconds", "time", "label", "confidence", *(["team"] if has_team else [])))
    for part in parts:
        for event in part.events:
            seconds = f"{event.position_ms // 1000}.{event.position_ms % 1000:03d}"
            row = (part.match_id, seconds, clock(event.position_ms), event.label, repr(event.confidence))
            writer.writerow((*row, event.team) if has_team else row)
    return text.getvalue()


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
