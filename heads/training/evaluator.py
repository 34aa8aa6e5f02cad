"""Validation on whole matches, and the choice of peaks and calibration at the end of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from ...cache.bank import BankMatch, FeatureBank
from ...eval.calibrate import FittedCalibration, fit_calibration
from ...eval.metric import MetricSettings, average_map
from ...eval.peaks import PeakSettings, Tried, candidates_for, choose_peaks, default_peaks, find_spots
from ...eval.report import mean_groups
from ...eval.spots import Game, Spots
from ...events import TimeGrid
from ..model import SpottingModel
from ..scoring import FloatArray, match_scores
from .data import Chosen, LabelledMatch
from .settings import ScoringPlan, TrainSettings


@dataclass(frozen=True)
class Verdict:
    """Validation mAP at 1 s, 0 to 1."""

    headline: float
    """mAP-10 for SoccerNet's classes, else over all."""
    mean: float
    """Over all classes."""
    per_class: Mapping[str, float]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Verdict":
        """Inverse of `vars`; any error of plain Python where it is none."""
        per_class = {str(name): float(value) for name, value in record["per_class"].items()}
        return cls(float(record["headline"]), float(record["mean"]), per_class)


@dataclass(frozen=True)
class Choice:
    """What the end of a run adds to it."""

    peaks: PeakSettings
    """Best on validation."""
    calibration: FittedCalibration
    """Fitted on the validation spots of these peaks."""
    verdict: Verdict
    """With these peaks, uncalibrated: it chose them, so it flatters a little."""
    table: tuple[Tried, ...]
    """Every candidate with its mAP."""


@dataclass(frozen=True)
class Referee:
    """The validation matches' labels: judges confidences of their rows, (rows, K) of each match."""

    matches: tuple[LabelledMatch, ...]
    classes: tuple[str, ...]
    fps: Fraction
    """Rows a second."""

    @classmethod
    def of(cls, chosen: Chosen) -> "Referee":
        """Of the matches that judge."""
        return cls(chosen.valid, chosen.classes, chosen.fps)

    def verdict(self, scores: Sequence[FloatArray]) -> Verdict:
        """Validation mAP with the default peaks."""
        return self._measure(self._games(scores, default_peaks(self.fps)))

    def choose(self, scores: Sequence[FloatArray]) -> Choice:
        """The best peaks, and a calibration fitted on them."""
        chosen = choose_peaks(
            scores,
            self._events(),
            fps=TimeGrid(self.fps).judged.fps,
            num_headline=self._num_headline,
            candidates=candidates_for(self.fps),
            to_grid=self._judged,
        )
        games = self._games(scores, chosen.best)
        return Choice(chosen.best, fit_calibration(games), self._measure(games), chosen.table)

    def _games(self, scores: Sequence[FloatArray], peaks: PeakSettings) -> list[Game]:
        found = [self._judged(find_spots(each, peaks)) for each in scores]
        return [Game(true, spots) for true, spots in zip(self._events(), found, strict=True)]

    def _judged(self, spots: Spots) -> Spots:
        """Spots of rows where `bas predict` puts them, in cells of `TimeGrid.judged`."""
        grid = TimeGrid(self.fps)
        if not grid.is_coarse:
            return spots
        cells = [grid.judged.frame(grid.instant_ms(row)) for row in spots.frames.tolist()]
        return replace(spots, frames=np.array(cells, np.int64))

    def _measure(self, games: list[Game]) -> Verdict:
        measured = average_map(games, MetricSettings.named("at1", fps=TimeGrid(self.fps).judged.fps))
        headline = float(measured.per_class[: self._num_headline].mean())
        return Verdict(headline, measured.mean, dict(zip(self.classes, map(float, measured.per_class), strict=True)))

    @property
    def _num_headline(self) -> int:
        return next(iter(mean_groups(self.classes).values()))

    def _events(self) -> list[Spots]:
        return [match.spots(len(self.classes)) for match in self.matches]


@dataclass(frozen=True)
class Judge:
    """The validation matches with their rows: the bank ends with them."""

    bank: FeatureBank
    places: tuple[BankMatch, ...]
    referee: Referee
    plan: ScoringPlan

    @classmethod
    def over(cls, chosen: Chosen, bank: FeatureBank, settings: TrainSettings) -> "Judge":
        """A judge of the validation matches."""
        return cls(bank, bank.matches[len(chosen.train) :], Referee.of(chosen), settings.scoring_plan)

    def verdict(self, model: SpottingModel) -> Verdict:
        """Validation mAP with the default peaks; leaves the model in training mode."""
        return self.referee.verdict(self.scores(model))

    def choose(self, model: SpottingModel) -> Choice:
        """The best peaks, and a calibration fitted on them."""
        return self.referee.choose(self.scores(model))

    def scores(self, model: SpottingModel) -> list[FloatArray]:
        """(rows, K) of each match."""
        model.eval()
        found = []
        for place in self.places:

            def gather(index_bt: Tensor, first_row: int = place.first_row) -> Tensor:
                return self.bank.gather(index_bt + first_row)

            found.append(match_scores(model, gather, place.num_rows, self.plan, num_classes=len(self.referee.classes)))
        model.train()
        return found
