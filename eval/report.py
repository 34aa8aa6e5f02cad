"""Evaluates games and gathers everything that is printed: scores, intervals, chance, timing, warnings.

Legend: R resamples, D deltas, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from ..events import SOCCERNET_BALL_CLASSES
from .calibrate import spread_by_rank
from .e2e import DELTAS_FRAMES, match_by_score, rank
from .metric import MetricSettings, average_map, count, match, over_deltas
from .spots import FloatArray, Game, IntArray, Spots, check_same_classes
from .warnings import game_warnings

Metric = Literal["at1", "at2", "at3", "at4", "at5", "tight", "loose", "e2e", "team"]
Calibration = Literal["none", "rank"]
_MAX_E2E_WORK = 100_000_000
"""Resamples times predictions beyond which E2E-Spot's metric comes without intervals (about ten seconds)."""
_RESAMPLES_AT_ONCE = 20


@dataclass(frozen=True)
class Resampling:
    """How the bootstrap draws."""

    num_resamples: int = 500
    """>= 0; 0: no intervals."""
    block_seconds: int = 300
    """Length of a block, > 0: events within it are kept together, since neighbours depend on each other."""
    level: float = 0.95
    """Share of the resamples inside the interval, 0 to 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_resamples < 0 or self.block_seconds < 1 or not 0 < self.level < 1:
            raise InputError("resampling is not usable", got=self, wanted="resamples >= 0, block >= 1 s, level in 0..1")

    def block_frames(self, fps: Fraction) -> int:
        """Length of a block in cells, at least 1."""
        return max(1, int(self.block_seconds * fps))

    def weights(self, game_of_block: IntArray) -> FloatArray:
        """(R, B) how often each block is drawn: games with replacement, then each one's blocks with replacement."""
        generator = np.random.default_rng(self.seed)
        blocks = [np.nonzero(game_of_block == game)[0] for game in np.unique(game_of_block)]
        weights = np.zeros((self.num_resamples, len(game_of_block)))
        for row in weights:
            for game in generator.integers(0, len(blocks), len(blocks)):
                drawn = generator.choice(blocks[game], len(blocks[game]))
                np.add.at(row, drawn, 1.0)
        return weights

    def interval(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Percentile interval over the first axis, (R, ...) -> two of (...); NaN samples are left out."""
        outside = (1 - self.level) / 2
        empty = np.isnan(samples).all(axis=0)
        filled = np.where(empty, 0.0, samples)
        low, high = np.nanquantile(filled, [outside, 1 - outside], axis=0)
        return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


@dataclass(frozen=True)
class EvalSettings:
    """What a report depends on."""

    metric: Metric = "at1"
    """An official metric, `e2e` (frames), or `team`: `at1` of joint classes, see `team_weights`."""
    fps: Fraction = Fraction(25)
    """Cells of the grid per second, > 0."""
    calibrate: Calibration = "none"
    """`rank`: spread the scores over the thresholds first, order kept; reported as such."""
    num_chance_draws: int = 5
    """Draws that the chance row averages, >= 0; 0: no chance row."""
    resampling: Resampling = field(default_factory=Resampling)
    deltas_seconds: tuple[Fraction, ...] = ()
    """Full widths of the tolerance in place of the metric's own, > 0; several are averaged as `tight` is."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("--metric", self.metric, get_args(Metric)),
            ("--calibrate", self.calibrate, get_args(Calibration)),
        ):
            if value not in allowed:
                raise InputError(f"{name} is not usable", got=value, wanted=", ".join(allowed))
        if self.deltas_seconds and (self.metric == "e2e" or min(self.deltas_seconds) <= 0):
            got = f"{', '.join(map(str, self.deltas_seconds))} with --metric {self.metric}"
            raise InputError("--delta is not usable", got=got, wanted="seconds above 0, with SoccerNet's metric")
        if self.fps <= 0 or self.num_chance_draws < 0:
            raise InputError("settings are not usable", got=self, wanted="frame rate above 0, draws >= 0")

    @property
    def official(self) -> MetricSettings:
        """Settings of the official metric (for `e2e`: of none, an error)."""
        if self.deltas_seconds:
            return MetricSettings(self.deltas_seconds, self.fps)
        return MetricSettings.named(self.metric, fps=self.fps)

    @property
    def deltas(self) -> tuple[str, ...]:
        """(D,) names of the tolerances."""
        if self.metric == "e2e":
            return tuple(f"{delta} frames" for delta in DELTAS_FRAMES)
        return tuple(f"{float(delta):g} s" for delta in self.official.deltas_seconds)


@dataclass(frozen=True)
class Score:
    """One average precision, 0 to 1, or a mean of them; NaN where it is not defined or not computed."""

    value: float
    low: float
    """Lower end of the bootstrap interval."""
    high: float
    chance: float
    """Mean over the draws."""
    chance_std: float


@dataclass(frozen=True)
class Timing:
    """Prediction minus event over matched pairs, in milliseconds: positive is late. NaN without pairs."""

    num_matched: int
    mean_ms: float
    std_ms: float
    median_abs_ms: float


@dataclass(frozen=True)
class ClassReport:
    """One row of the table."""

    label: str
    num_events: int
    num_predictions: int
    score: Score
    timing: Timing


@dataclass(frozen=True)
class Report:
    """Everything about one evaluation."""

    settings: EvalSettings
    num_games: int
    means: Mapping[str, Score]
    """`mAP-10` and `mAP-12` for SoccerNet's classes, else `mAP`; headline first."""
    classes: tuple[ClassReport, ...]
    """(C,)"""
    per_delta: Mapping[str, float]
    """Tolerance -> mean over all classes."""
    visible: float
    """Mean over all classes, predictions nearest to a visible event; NaN for `e2e`."""
    unshown: float
    """Likewise for events that are not shown."""
    timing: Timing
    """Over all classes."""
    timing_delta: str
    """The tolerance that the timing errors are measured at."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON object; NaN becomes null, the frame rate a text such as `25/2`."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


def finite(value: Any) -> Any:
    """The same values as plain JSON: null for what is no number, since JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, Fraction):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value


def evaluate(
    games: Sequence[Game],
    classes: Sequence[str],
    settings: EvalSettings,
    *,
    num_teams: int = 1,
    warnings: Sequence[str] = (),
) -> Report:
    """Score `games` and everything around the score.

    Args:
        games: with len(classes) classes each.
        classes: their names, in order.
        settings: metric, frame rate, resampling.
        num_teams: of `team`: so many neighbours in the class list are of one action.
        warnings: put into the report.

    Raises:
        InputError: no game, or games with another number of classes.
    """
    if check_same_classes(games) != len(classes):
        raise InputError("class list does not fit the games", got=len(classes), wanted=games[0].num_classes)
    scored = spread_by_rank(games) if settings.calibrate == "rank" else list(games)
    per_delta = average_precision(scored, settings)[0]
    samples = _samples(scored, settings)
    chance = _chance(games, settings)
    point = _combine(per_delta[None], settings)[0]
    is_team = settings.metric == "team"
    groups = {"Team-mAP": len(classes)} if is_team else mean_groups(classes)
    weights = team_weights(np.sum([game.events.counts for game in games], axis=0), num_teams) if is_team else None
    pairs = _timing_errors(scored, settings)
    hidden = None if settings.metric == "e2e" else average_map(scored, settings.official)
    return Report(
        settings=settings,
        num_games=len(games),
        means={
            name: _score(
                _mean(point[:size], settings, weights),
                _mean(samples[:, :size], settings, weights),
                _mean(chance[:, :size], settings, weights),
                settings,
            )
            for name, size in groups.items()
        },
        classes=tuple(
            ClassReport(
                label=label,
                num_events=sum(int(game.events.counts[c]) for game in games),
                num_predictions=sum(int(game.predictions.counts[c]) for game in games),
                score=_score(point[c], samples[:, c], chance[:, c], settings),
                timing=timing_of(pairs[c]),
            )
            for c, label in enumerate(classes)
        ),
        per_delta=dict(zip(settings.deltas, map(float, _mean(per_delta, settings, weights)), strict=True)),
        visible=hidden.mean_visible if hidden and not is_team else float("nan"),
        unshown=hidden.mean_unshown if hidden and not is_team else float("nan"),
        timing=timing_of(np.concatenate(pairs)),
        timing_delta=settings.deltas[-1] if settings.metric == "e2e" else settings.deltas[0],
        warnings=(
            *warnings,
            *game_warnings(scored, classes, settings.fps, is_official=settings.metric != "e2e"),
            *_work_warning(scored, settings),
        ),
    )


def mean_groups(classes: Sequence[str]) -> dict[str, int]:
    """Name of each mean -> how many of the first classes it is over, headline first."""
    if tuple(classes) == SOCCERNET_BALL_CLASSES:
        return {"mAP-10": 10, "mAP-12": 12}
    return {"mAP": len(classes)}


def team_weights(counts: IntArray, num_teams: int) -> FloatArray:
    """(C,) weight of each joint class in the Team-mAP of SoccerNet's Team Ball Action Spotting challenge of 2025.

    The average precision of an action is that of its teams, weighted by their numbers of events; Team-mAP is the plain
    mean over actions. An action without events counts as 0, as everywhere here; the challenge's own code divides by 0.
    Source: README and `util/score.py` of SoccerNet/sn-teamspotting (its code counts an event that is not shown as -1).

    Args:
        counts: (C,) events of each joint class, the teams of an action side by side.
        num_teams: of each action, >= 1.
    """
    counts_at = counts.reshape(-1, num_teams)
    shares: FloatArray = counts_at / np.maximum(counts_at.sum(axis=1, keepdims=True), 1) / len(counts_at)
    return shares.ravel()


def average_precision(
    games: Sequence[Game], settings: EvalSettings, *, block_frames: int | None = None, resampling: bool = False
) -> FloatArray:
    """(R, D, C) of the chosen metric; R is 1 without resampling. NaN: a class without events, for `e2e` only."""
    counted = (
        rank(games, DELTAS_FRAMES, block_frames=block_frames)
        if settings.metric == "e2e"
        else count(games, settings.official, block_frames=block_frames)
    )
    if not resampling:
        return counted.average_precision()
    weights = settings.resampling.weights(counted.game_of_block)
    parts = [
        counted.average_precision(weights[start : start + _RESAMPLES_AT_ONCE])
        for start in range(0, len(weights), _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _samples(games: Sequence[Game], settings: EvalSettings) -> FloatArray:
    """(R, C) resampled average precision; R is 0 where there are no intervals."""
    if not settings.resampling.num_resamples or _work_warning(games, settings):
        return np.zeros((0, games[0].num_classes))
    block_frames = settings.resampling.block_frames(settings.fps)
    return _combine(average_precision(games, settings, block_frames=block_frames, resampling=True), settings)


def _chance(games: Sequence[Game], settings: EvalSettings) -> FloatArray:
    """(draws, C) average precision of predictions that know nothing."""
    draws = [chance_games(games, settings.fps, draw=draw) for draw in range(settings.num_chance_draws)]
    values = [_combine(average_precision(drawn, settings), settings) for drawn in draws]
    return np.concatenate([np.zeros((0, games[0].num_classes)), *values])


def _work_warning(games: Sequence[Game], settings: EvalSettings) -> list[str]:
    work = sum(len(game.predictions.frames) for game in games) * settings.resampling.num_resamples
    if settings.metric != "e2e" or work <= _MAX_E2E_WORK:
        return []
    return ["too many predictions for bootstrap intervals of e2e: suppress non-maxima first, or lower --resamples"]


def _combine(values: FloatArray, settings: EvalSettings) -> FloatArray:
    """(R, D, C) -> (R, C): the official trapezoid over tolerances; for e2e their plain mean."""
    if settings.metric == "e2e":
        averaged: FloatArray = values.mean(axis=1)
        return averaged
    return over_deltas(np.swapaxes(values, 0, 1))


def _mean(values: FloatArray, settings: EvalSettings, weights: FloatArray | None = None) -> FloatArray:
    """(..., C) -> (...): over all classes, by their weights (C,) if any; for e2e over those with events."""
    if weights is not None:
        weighted: FloatArray = values @ weights
        return weighted
    if settings.metric != "e2e":
        plain: FloatArray = values.mean(axis=-1)
        return plain
    has_events = ~np.isnan(values)
    total = np.where(has_events, values, 0.0).sum(axis=-1)
    number = has_events.sum(axis=-1)
    mean: FloatArray = np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)
    return mean


def _score(point: FloatArray, samples: FloatArray, chance: FloatArray, settings: EvalSettings) -> Score:
    nothing = float("nan")
    low, high = settings.resampling.interval(samples) if len(samples) else (nothing, nothing)
    return Score(
        value=float(point),
        low=float(low),
        high=float(high),
        chance=float(chance.mean()) if len(chance) else nothing,
        chance_std=float(chance.std()) if len(chance) else nothing,
    )


def _timing_errors(games: Sequence[Game], settings: EvalSettings) -> list[FloatArray]:
    """(C,) milliseconds by which matched predictions are late, at the tolerance `Report.timing_delta`."""
    errors = []
    for c in range(games[0].num_classes):
        late: list[FloatArray] = [np.zeros(0)]
        for game in games:
            event_frames, (frames, scores) = game.events.of_class(c)[0], game.predictions.of_class(c)
            if settings.metric == "e2e":
                event_of = match_by_score(event_frames, frames, scores, DELTAS_FRAMES[-1])
                frames_late = frames[event_of >= 0] - event_frames[event_of[event_of >= 0]]
            else:
                matched = match(event_frames, frames, scores, settings.official.half_widths_frames[0])
                frames_late = frames[matched[matched >= 0]] - event_frames[matched >= 0]
            late.append(np.asarray(frames_late * float(1000 / settings.fps), dtype=np.float64))
        errors.append(np.concatenate(late))
    return errors


def timing_of(errors_ms: FloatArray) -> Timing:
    """Mean and spread of errors (n,)."""
    if not len(errors_ms):
        return Timing(0, float("nan"), float("nan"), float("nan"))
    return Timing(len(errors_ms), float(errors_ms.mean()), float(errors_ms.std()), float(np.median(np.abs(errors_ms))))


def chance_games(
    games: Sequence[Game], fps: Fraction, *, draw: int, per_second: float = 1.0, seed: int = 0
) -> list[Game]:
    """The same events with predictions that know nothing.

    For each class, `per_second` instants per second of the game on average, uniform over its cells, each with a
    uniform score in 0..1. A game lasts until its last event or prediction.

    Args:
        games: whose events are kept.
        fps: cells per second.
        draw: number of the draw; each is another random sequence.
        per_second: density for each class; SoccerNet's real predictions have one every 0.5 to 2 s.
        seed: of all draws.
    """
    chance = []
    for index, game in enumerate(games):
        generator = np.random.default_rng([seed, draw, index])
        num_frames, num_classes = game.num_frames, game.num_classes
        num_spots = round(float(num_frames / fps) * per_second) * num_classes
        predictions = Spots.collect(
            generator.integers(0, max(num_frames, 1), num_spots),
            np.arange(num_spots) % num_classes,
            generator.random(num_spots),
            num_classes=num_classes,
        )
        chance.append(Game(game.events, predictions))
    return chance
