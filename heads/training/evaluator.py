"""Validation on whole matches, and the choice of peaks and calibration at the end of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from ...cache.bank import BankMatch, FeatureBank
from ...eval.calibrate import FittedCalibration, fit_calibration
from ...eval.metric import MetricSettings, average_map
from ...eval.peaks import PeakSettings, PeakTrial, candidates_for, choose_peaks, default_peaks, find_spots
from ...eval.report import mean_groups
from ...eval.spots import Game, Spots
from ...events import TimeGrid
from ..contract import HeadOutputs
from ..model import SpottingModel
from ..scoring import FloatArray, match_scores
from ..targets import Targets
from .data import Chosen
from .settings import ScoringPlan


@dataclass(frozen=True)
class ValidationResult:
    """Validation mAP within the setting's tolerance, 0 to 1."""

    headline: float
    """mAP-10 for SoccerNet's classes, else over all."""
    mean: float
    """Over all classes."""
    per_class: Mapping[str, float]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ValidationResult":
        """Inverse of `vars`; any error of plain Python where it is none."""
        per_class = {str(name): float(value) for name, value in record["per_class"].items()}
        return cls(float(record["headline"]), float(record["mean"]), per_class)


@dataclass
class LossSum:
    """The loss of validation windows, summed over their steps."""

    total: float = 0.0
    num_steps: int = 0

    def of_match(self, model: SpottingModel, targets: Targets) -> Callable[[HeadOutputs, Tensor], None]:
        """What adds windows of a match with these targets (R, ...), for `match_scores`."""

        def add(outputs: HeadOutputs, index_bt: Tensor) -> None:
            loss = model.loss(outputs, targets.select(index_bt.to(targets.mask_bt.device)))
            self.total += float(loss) * index_bt.numel()
            self.num_steps += index_bt.numel()

        return add

    @property
    def mean(self) -> float:
        """A step's."""
        return self.total / max(1, self.num_steps)


@dataclass(frozen=True)
class PostProcessing:
    """How confidences become spots, chosen on validation at the end of a run."""

    peaks: PeakSettings
    """Best on validation."""
    calibration: FittedCalibration
    """Fitted on the validation spots of these peaks."""
    result: ValidationResult
    """With these peaks, uncalibrated: a little too high, as these matches chose them."""
    table: tuple[PeakTrial, ...]
    """Every candidate with its mAP."""


@dataclass(frozen=True)
class Evaluator:
    """Scores confidences (rows, K) of each match chosen for validation against its labels."""

    chosen: Chosen
    tolerance_seconds: float
    """As `TrainSettings.tolerance`."""

    def validate(self, scores: Sequence[FloatArray]) -> ValidationResult:
        """Validation mAP with the default peaks."""
        return self._measure(self._games(scores, default_peaks(self.chosen.fps, self.tolerance_seconds)))

    def choose(self, scores: Sequence[FloatArray]) -> PostProcessing:
        """Choose the best peaks, and fit a calibration on them."""
        chosen = choose_peaks(
            scores,
            self._events(),
            metric=self._metric,
            num_headline=self._num_headline,
            candidates=candidates_for(self.chosen.fps, self.tolerance_seconds),
            to_grid=self._on_grid,
        )
        games = self._games(scores, chosen.best)
        return PostProcessing(chosen.best, fit_calibration(games), self._measure(games), chosen.table)

    def _games(self, scores: Sequence[FloatArray], peaks: PeakSettings) -> list[Game]:
        found = [self._on_grid(find_spots(each, peaks)) for each in scores]
        return [Game(true, spots) for true, spots in zip(self._events(), found, strict=True)]

    def _on_grid(self, spots: Spots) -> Spots:
        """Spots of rows where `bas predict` puts them, in the cells that the metric counts."""
        grid = TimeGrid(self.chosen.fps)
        if not grid.is_coarse:
            return spots
        cells = [grid.judged.frame(grid.instant_ms(row)) for row in spots.frames.tolist()]
        return replace(spots, frames=np.array(cells, np.int64))

    def _measure(self, games: list[Game]) -> ValidationResult:
        measured = average_map(games, self._metric)
        headline = float(measured.per_class[: self._num_headline].mean())
        per_class = dict(zip(self.chosen.classes, map(float, measured.per_class), strict=True))
        return ValidationResult(headline, measured.mean, per_class)

    @property
    def _metric(self) -> MetricSettings:
        return MetricSettings((Fraction(str(self.tolerance_seconds)),), TimeGrid(self.chosen.fps).judged.fps)

    @property
    def _num_headline(self) -> int:
        return next(iter(mean_groups(self.chosen.classes).values()))

    def _events(self) -> list[Spots]:
        return [match.spots(len(self.chosen.classes)) for match in self.chosen.valid]


def bank_scores(
    model: SpottingModel,
    bank: FeatureBank,
    places: Sequence[BankMatch],
    plan: ScoringPlan,
    targets: Sequence[Targets],
) -> tuple[list[FloatArray], float]:
    """Confidences (rows, K) of some matches of a bank, and the loss of their windows; ends in training mode.

    Args:
        model: on the bank's device.
        bank: of features.
        places: the matches.
        plan: windows over them.
        targets: of each match, (rows, ...), on the bank's device.
    """
    model.eval()
    found, loss = [], LossSum()
    for place, of_match in zip(places, targets, strict=True):

        def gather(index_bt: Tensor, first_row: int = place.first_row) -> Tensor:
            return bank.gather(index_bt + first_row)

        num_classes = of_match.presence_btk.shape[-1]
        add = loss.of_match(model, of_match)
        found.append(match_scores(model, gather, place.num_rows, plan, num_classes=num_classes, on_outputs=add))
    model.train()
    return found, loss.mean
