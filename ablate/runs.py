"""One run of `bas ablate`: train, predict the evaluated split, score. Goes on where it stopped, does nothing twice."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ..cache.store import FeatureStore
from ..data.games import StoredPart, choose_games, find_games
from ..errors import InputError
from ..eval.files import PREDICTIONS_NAME, games_of
from ..eval.prediction_folder import RECORD
from ..eval.report import EvalSettings, Report, Resampling, evaluate
from ..events import SOCCERNET_BALL_CLASSES, Event, Split, read_events
from ..extract.options import Device
from ..files import read_json, write_json_atomic
from ..heads.training.checkpoint import BEST, RunRecord
from ..heads.training.loop import EpochProgress, TrainingProgress, train
from ..heads.training.settings import TrainSettings
from ..predict import PredictOptions, predict
from .table import SeedRun

FORMAT = "bas-judged-2"
SEED_FPS = Fraction(25, 2)
"""Cells per second of the grid that published figures were measured on: 25 give 0.03 to 0.19 points less."""


@dataclass(frozen=True, kw_only=True)
class RunTask:
    """What one run is; small, as it goes to another process."""

    row: str
    """Name of the row that it belongs to."""
    settings: TrainSettings
    """With the run's seed."""
    store: Path
    out: Path
    """The ablation's folder."""
    split: Split
    """Split that is evaluated."""
    device: Device
    cost: float
    """Arithmetic of the whole training, in no particular unit."""
    is_finetuned: bool = False
    """`bas finetune` has made the run, on videos; it is there."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return run_folder(self.out, self.row, self.settings.seed)

    @property
    def predictions(self) -> Path:
        """The folder of its predictions."""
        return self.run / "predictions" / self.split

    @property
    def scores(self) -> Path:
        """The file of its scores."""
        # the name is from a time when evaluating was called judging; tables from then go on
        return self.run / f"judged-{self.split}.json"


def run_folder(out: Path, row: str, seed: int) -> Path:
    """Where a run of a row lies in an ablation's folder."""
    return out / "runs" / f"{row}-{seed}"


@dataclass(frozen=True)
class LabelledGame:
    """A game of a store with its labels."""

    id: str
    parts: tuple[StoredPart, ...]
    events: tuple[Event, ...]


def run_seed(task: RunTask, on_progress: Callable[[float], None] = lambda _: None) -> SeedRun:
    """Train, predict and score one run.

    Args:
        task: the run.
        on_progress: called with the share of the training that is done, 0 to 1.

    Raises:
        InputError: it cannot be trained, predicted or evaluated.
    """

    def advanced(progress: EpochProgress) -> None:
        on_progress((progress.epoch - 1 + progress.step / progress.num_steps) / progress.epochs)

    store = FeatureStore.open(task.store)
    if task.is_finetuned:
        record = RunRecord.read(task.run)
    else:
        heard = TrainingProgress(advanced=advanced)
        record = train(store, task.run, task.settings, classes=store.classes, device=task.device, progress=heard)
    games = labelled_games(store, task.split)
    # scores of an earlier call count only for these weights and labels: labels in a store may be corrected meanwhile
    made_with = {
        "weights_sha256": hashlib.sha256((task.run / BEST).read_bytes()).hexdigest(),
        "labels_sha256": labels_sha256(games),
    }
    known = _known(task, made_with)
    if known is None:
        options = PredictOptions(splits=(task.split,), device=task.device)
        prediction = predict([task.store], [task.run], task.predictions, options)
        for result in prediction.results:
            if not result.is_done:
                raise InputError(f"{result.match_id}: {result.message}")
        known = SeedRun.plain(evaluate_predictions(games, task.predictions, record.classes).means)
        if record.classes == SOCCERNET_BALL_CLASSES and _fps(games) != SEED_FPS:  # the grid of the published figures
            once = Resampling(num_resamples=0)
            report = evaluate_predictions(games, task.predictions, record.classes, fps=SEED_FPS, resampling=once)
            headline, score = next(iter(SeedRun.plain(report.means).items()))
            known[f"{headline} at 12.5"] = score
        write_json_atomic(task.scores, {"format": FORMAT, "made_with": made_with, "means": known})
    return SeedRun(
        seed=task.settings.seed,
        run=shown_path(task.run, task.out),
        store=shown_path(task.store, task.out),
        predictions=shown_path(task.predictions, task.out),
        seconds=sum(line.seconds for line in record.history),
        parameters=record.num_parameters,
        means=known,
    )


def run_seed_single_threaded(task: RunTask, on_progress: Callable[[float], None]) -> SeedRun:
    """`run_seed` in a process of its own, with one thread: figures do not depend on how many run side by side."""
    torch.set_num_threads(1)
    return run_seed(task, on_progress)


def labelled_games(store: FeatureStore, split: Split) -> list[LabelledGame]:
    """Games of a split with their labels, in order of id.

    Raises:
        InputError: none, or one without labels.
    """
    found = []
    for game in choose_games(find_games([store.path]), splits=(split,)):
        parts = tuple(part for part in game.parts if isinstance(part, StoredPart))
        events: list[Event] = []
        for part in parts:
            of_part = store.match(part.id).meta.events()
            if of_part is None:
                raise InputError(
                    f"{store.path}: match {part.id!r} has no labels, so nothing can be evaluated on it",
                    cure="put Labels-ball.json beside its video and extract again, or choose another --split",
                )
            events += of_part
        found.append(LabelledGame(game.id, parts, tuple(events)))
    return found


def labels_sha256(games: Sequence[LabelledGame]) -> str:
    """SHA-256 of the labels: scores that were computed by other labels or games are computed again."""
    record = {game.id: [event.to_json() for event in game.events] for game in games}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def evaluate_predictions(
    games: Sequence[LabelledGame],
    predictions: Path,
    classes: Sequence[str],
    *,
    fps: Fraction | None = None,
    resampling: Resampling | None = None,
) -> Report:
    """What `bas eval` says of the predictions in a folder: official metric at 1 s, intervals, chance."""
    fps = fps or _fps(games)
    found = [read_events(predictions / game.id / PREDICTIONS_NAME, key="predictions") for game in games]
    both = zip(games, found, strict=True)
    on_grid = [each for game, spots in both for _, each, _ in games_of(game.events, spots, classes, fps)]
    return evaluate(on_grid, classes, EvalSettings(fps=fps, resampling=resampling or Resampling()))


def chance_scores(games: Sequence[LabelledGame], classes: Sequence[str]) -> dict[str, float]:
    """Name of each mean -> what predictions that know nothing reach, over the whole length of the games, 0 to 1."""
    on_grid = []
    for game in games:
        matches = [(part, part.store.match(part.id)) for part in game.parts]
        ends = [
            Event(match.meta.grid.ms(match.num_rows - 1), classes[0], half=part.half or 1, confidence=0.0)
            for part, match in matches
        ]
        on_grid += [each for _, each, _ in games_of(game.events, ends, classes, _fps(games))]
    settings = EvalSettings(fps=_fps(games), resampling=Resampling(num_resamples=0))
    return {name: score.chance for name, score in evaluate(on_grid, classes, settings).means.items()}


def _fps(games: Sequence[LabelledGame]) -> Fraction:
    """Cells per second of the metric's grid."""
    part = games[0].parts[0]
    return part.store.match(part.id).meta.grid.judged.fps


def _known(task: RunTask, made_with: Mapping[str, str]) -> dict[str, Any] | None:
    """Scores of these weights by these labels from another time."""
    if not task.scores.is_file() or not (task.predictions / RECORD).is_file():
        return None
    record = read_json(task.scores)
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("made_with") != made_with:
        return None
    means: dict[str, Any] = record["means"]
    return means


def shown_path(path: Path, out: Path) -> str:
    """Relative to the ablation's folder where it lies inside, else absolute."""
    full, folder = path.resolve(), out.resolve()
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)
