"""Reads label and prediction files into games on the metric's grid, as the official reader does."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..errors import InputError
from ..events import Event, TimeGrid, by_team, read_events
from .spots import Game, IntArray, Spots

LabelSource = Path | tuple[Event, ...]
"""Labels of a game: a file, or events that were read elsewhere (a feature store holds them too)."""

PREDICTIONS_NAME = "results_spotting.json"
OFFICIAL_HALF_SECONDS = 7200
"""Length of the official reader's grid; what lies beyond is put on its last cell there, and left in place here."""


@dataclass(frozen=True)
class PairedFiles:
    """Label and prediction files of the same games."""

    files: Mapping[str, tuple[LabelSource, Path | None]]
    """Game id -> labels, predictions."""
    unlabelled: tuple[str, ...]
    """Ids of predictions that belong to no labelled game."""

    @property
    def unpredicted(self) -> tuple[str, ...]:
        """Ids of games without predictions."""
        return tuple(game for game, (_, predictions) in self.files.items() if predictions is None)


@dataclass(frozen=True)
class SpotTimes:
    """When the spots of a game are, in the file's own milliseconds; cells of the official reader are coarser."""

    events_ms: IntArray
    """(E,) of `Game.events`."""
    predictions_ms: IntArray
    """(P,) of `Game.predictions`."""


@dataclass(frozen=True)
class LoadedGames:
    """Games ready for the metric, and what was noticed on the way."""

    games: tuple[Game, ...]
    """One per half that holds anything, in order of `names`."""
    times: tuple[SpotTimes, ...]
    """Of each game."""
    names: tuple[str, ...]
    """Game ids, with `/2` after the second half's."""
    foreign_events: Mapping[str, int]
    """Labels that are not in the class list -> number of events."""
    foreign_predictions: Mapping[str, int]
    """Likewise for predictions."""
    one_sided_halves: tuple[str, ...]
    """Games whose second half has only labels or only predictions, though the other side has a first half."""
    num_beyond: int
    """Events and predictions later than `OFFICIAL_HALF_SECONDS`."""
    num_unscored: int
    """Predictions without a confidence; they count with score 1."""


def official_frame(position_ms: int, fps: Fraction) -> int:
    """Cell of an instant in the official reader, in floating point on purpose.

    At 25 fps it is one frame early for 6 % of SoccerNet's labels, which moves a real model's score by up to 0.03
    points; equality with published scores needs it. Everything else converts with `TimeGrid`.
    """
    return int(float(fps) * (position_ms / 1000))


def exact_frame(position_ms: int, fps: Fraction) -> int:
    """Cell of an instant by integer arithmetic: the frame on screen."""
    return TimeGrid(fps).frame(position_ms)


def find_predictions(root: Path, *, game_id: Callable[[Path], str]) -> dict[str, Path]:
    """Game id -> `results_spotting.json`, at any depth below `root`; `root` may be one such file.

    Args:
        root: a folder or a file.
        game_id: id of the game that a folder belongs to.

    Raises:
        InputError: missing, a zip file, no prediction file, or two for one game.
    """
    if not root.exists() or root.suffix.lower() == ".zip":
        got = "a zip file" if root.exists() else "no such file or folder"
        raise InputError(
            f"{root}: predictions cannot be read", got=got, wanted=f"a folder with {PREDICTIONS_NAME} per game"
        )
    paths = [root] if root.is_file() else sorted(root.rglob(PREDICTIONS_NAME))
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(game_id(path.parent), path)
        if first is not path:
            raise InputError("two prediction files for one game", got=f"{first} and {path}", cure="keep one of them")
    if not found:
        raise InputError(f"{root}: no predictions", wanted=f"{PREDICTIONS_NAME} in a folder per game")
    return found


class NoGamePredicted(InputError):  # noqa: N818 (an InputError by nature)
    """Predictions and labels are of different games."""


def pair(
    labels: Mapping[str, LabelSource],
    predictions: Mapping[str, Path],
    videos: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> PairedFiles:
    """Which predictions belong to which labels: the same id, ids of which one ends in the other, or the video's name.

    Args:
        labels: game id -> file or events.
        predictions: game id -> file. A single file on either side is paired whatever its id, if the other has one.
        videos: name of a video without its suffix -> ids of the games that have one of this name: predictions of a
            single file are called by it.

    Raises:
        NoGamePredicted: none of the games has predictions.
        InputError: no labels, or predictions that could belong to two games.
    """
    if not labels:
        raise InputError("no labels", wanted="Labels-ball.json in a folder per game")
    if len(labels) == len(predictions) == 1:
        [(game, path)], [found] = labels.items(), predictions.values()
        return PairedFiles({game: (path, found)}, ())
    files: dict[str, tuple[LabelSource, Path | None]] = {game: (path, None) for game, path in labels.items()}
    unlabelled = []
    for name, path in predictions.items():
        games = [name] if name in labels else [game for game in labels if same_tail(game, name)]
        games = games or [*videos.get(name.rsplit("/", 1)[-1], ())]
        if not games or (len(games) == 1 and games[0] not in files):
            unlabelled.append(name)
        elif len(games) > 1 or files[games[0]][1] is not None:
            raise InputError(
                f"{path}: it is not clear which game these predictions belong to",
                got=", ".join(games) if len(games) > 1 else f"{games[0]}, which has {files[games[0]][1]}",
                cure="lay them out as <game id>/results_spotting.json, one per game",
            )
        else:
            files[games[0]] = (files[games[0]][0], path)
    if len(unlabelled) == len(predictions):
        raise NoGamePredicted(
            "no game has predictions",
            got=", ".join(unlabelled[:3]) or "no results_spotting.json",
            wanted=f"the games with labels, such as {next(iter(labels))}",
            cure="lay the predictions out as <game id>/results_spotting.json",
        )
    return PairedFiles(files, tuple(unlabelled))


def same_tail(one: str, other: str) -> bool:
    """Whether one id is the other, or its last folders."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def load(
    paired: PairedFiles,
    classes: Sequence[str],
    fps: Fraction,
    *,
    to_frame: Callable[[int, Fraction], int] = official_frame,
    teams: Sequence[str] = (),
) -> LoadedGames:
    """Read every file and put it on the grid; each half is a game of its own, as in the official reader.

    Args:
        paired: the files.
        classes: the class list; other labels are left out and counted.
        fps: cells per second.
        to_frame: how milliseconds become cells.
        teams: where there are any, labels are joined to their teams; `classes` are of that kind.

    Raises:
        InputError: a file cannot be read, or no prediction is of these teams.
    """
    index = {label: position for position, label in enumerate(classes)}
    foreign: dict[str, Counter[str]] = {"annotations": Counter(), "predictions": Counter()}
    games, times, names, one_sided, num_beyond, num_unscored = [], [], [], [], 0, 0
    for name, (labels, predictions) in paired.files.items():
        both = {"annotations": label_events(labels)}
        both["predictions"] = read_events(predictions, key="predictions") if predictions else []
        if teams:
            _require_teams(both["predictions"], teams, where=str(predictions))
            both = {key: by_team(events) for key, events in both.items()}
        for key, events in both.items():
            foreign[key].update(event.label for event in events if event.label not in index)
            num_beyond += sum(event.position_ms >= 1000 * OFFICIAL_HALF_SECONDS for event in events)
        num_unscored += sum(event.confidence is None for event in both["predictions"])
        # two halves against one: the clocks differ, so every instant of the second half is wrong; the score is just low
        if all(both.values()) and len({any(event.half == 2 for event in events) for events in both.values()}) == 2:
            one_sided.append(name)
        for half, game, spot_times in games_of(
            both["annotations"], both["predictions"], classes, fps, to_frame=to_frame
        ):
            games.append(game)
            times.append(spot_times)
            names.append(name if half == 1 else f"{name}/2")
    return LoadedGames(
        games=tuple(games),
        times=tuple(times),
        names=tuple(names),
        foreign_events=foreign["annotations"],
        foreign_predictions=foreign["predictions"],
        one_sided_halves=tuple(one_sided),
        num_beyond=num_beyond,
        num_unscored=num_unscored,
    )


def label_events(labels: LabelSource) -> list[Event]:
    """The labels of a game, in the order of their file."""
    return read_events(labels, key="annotations") if isinstance(labels, Path) else [*labels]


def _require_teams(predictions: Sequence[Event], teams: Sequence[str], *, where: str) -> None:
    if predictions and not any(event.team in teams for event in predictions):
        raise InputError(
            f"{where}: no prediction is of a team of the labels",
            got=", ".join(sorted({event.team or "no team" for event in predictions})[:4]),
            wanted=", ".join(teams),
            cure="predict with a run of bas train-head --classes-by team",
        )


def games_of(
    events: Sequence[Event],
    predictions: Sequence[Event],
    classes: Sequence[str],
    fps: Fraction,
    *,
    to_frame: Callable[[int, Fraction], int] = official_frame,
) -> list[tuple[int, Game, SpotTimes]]:
    """One game on the grid, each half by itself: half 1, and half 2 where there is anything in it.

    Args:
        events: labels of the whole game.
        predictions: likewise.
        classes: the class list; other labels are left out.
        fps: cells per second.
        to_frame: how milliseconds become cells.
    """
    index = {label: position for position, label in enumerate(classes)}

    def spots(of: Sequence[Event], values: Sequence[float]) -> Spots:
        frames = [to_frame(event.position_ms, fps) for event in of]
        return Spots.collect(frames, [index[event.label] for event in of], values, num_classes=len(index))

    def times_ms(of: Sequence[Event]) -> IntArray:  # as values, so that they are sorted and overwritten as the spots
        return spots(of, [event.position_ms for event in of]).values.astype(np.int64)

    games = []
    for half in (1, 2):
        true, made = (
            [event for event in both if event.half == half and event.label in index] for both in (events, predictions)
        )
        if half == 1 or true or made:
            found = spots(made, [1.0 if event.confidence is None else event.confidence for event in made])
            game = Game(spots(true, [1.0 if event.visible else -1.0 for event in true]), found)
            # `Game` has left out what has no score: so do the times
            games.append((half, game, SpotTimes(times_ms(true), times_ms(made)[found.values >= 0])))
    return games
