"""`bas predict`: a store, a data set or any video, and finished runs, to spots."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast, get_args

from .cache.store import FeatureStore
from .data.games import Game, Part, StoredPart, VideoPart, choose_games, find_games
from .errors import InputError, named_values
from .eval.calibrate import FittedCalibration
from .eval.peaks import SEED_PEAKS, PeakSettings, find_spots
from .eval.prediction_folder import PartSpots, PredictionFolder
from .eval.spots import Spots
from .events import Event, Split, TimeGrid
from .extract.backbones.weights import has_backbone
from .extract.extractor import Extractor
from .extract.options import Device, EngineKind, ExtractRunOptions, known_view, parse_choice
from .extract.rows import MatchRows, RowsCallback, stored_rows, streamed_rows
from .extract.run import extract_matches, software_versions
from .extract.video.reader import Video
from .files import disk_errors
from .heads.ensemble import Ensemble
from .heads.training.loop import choose_device
from .workers import Progress

Nms = Literal["run", "seed"]
Calibrate = Literal["none", "rank"]
NUM_BEST = 30
"""Spots that a result carries for people to look at; the files hold all."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is asked for beside sources and runs."""

    splits: tuple[Split, ...] = ()
    """Only matches of these; empty: all."""
    matches: tuple[str, ...] = ()
    """Only these ids, or parts of ids; empty: all."""
    keep: Path | None = None
    """A feature store for the rows of videos; None: they are forgotten after each match."""
    weights: str | None = None
    """The backbone's weights file or finetuned run, where the features were made with one; None: a run's own."""
    engine: EngineKind = "auto"
    """Which library runs the backbone."""
    device: Device = "auto"
    """Where backbone and heads run."""
    nms: Nms = "run"
    """Peaks chosen at the end of the first run, or the seed's own."""
    calibrate: Calibrate = "none"
    """`rank`: the first run's calibration spreads confidences over the metric's thresholds, order kept."""
    threshold: float | None = None
    """Spots whose confidence, as written, is below are left out; 0 to 1."""
    max_bad_share: float = 0.05
    """Share of a video's frames, 0 to 1, that may be undecodable."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError("--threshold is not usable", got=self.threshold, wanted="0 to 1")
        if not 0 <= self.max_bad_share <= 1:
            raise InputError("--max-bad-share is not usable", got=self.max_bad_share, wanted="0 to 1")

    @classmethod
    def parse(
        cls, *, split: Iterable[str], engine: str, device: str, nms: str, calibrate: str, **others: Any
    ) -> "PredictOptions":
        """From the command line; `others` are fields as they are.

        Raises:
            InputError: a choice that there is not, or a number out of range.
        """
        for option, value, allowed in (("--nms", nms, get_args(Nms)), ("--calibrate", calibrate, get_args(Calibrate))):
            if value not in allowed:
                raise InputError(f"{option} is not known", got=value, wanted=", ".join(allowed))
        return cls(
            splits=tuple(parse_choice(name, option="--split") for name in split),
            engine=parse_choice(engine, option="--engine"),
            device=parse_choice(device, option="--device"),
            nms=cast(Nms, nms),
            calibrate=cast(Calibrate, calibrate),
            **others,
        )


@dataclass(frozen=True)
class GameResult:
    """How one game ended."""

    id: str
    status: Literal["predicted", "failed"]
    num_rows: int = 0
    num_spots: int = 0
    seconds: float = 0.0
    """From video or store to files."""
    message: str = ""
    """Why it failed."""
    best: tuple[tuple[str, Event], ...] = ()
    """(match id, spot) of up to `NUM_BEST` spots, the surest of each class first."""

    @property
    def rows_per_second(self) -> float:
        """0 where nothing was predicted."""
        return self.num_rows / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Prediction:
    """How a call ended."""

    folder: PredictionFolder
    results: tuple[GameResult, ...]

    @property
    def complete(self) -> bool:
        """Whether every game was predicted."""
        return all(result.status == "predicted" for result in self.results)


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear; every field may be left out."""

    started: Callable[[Ensemble, str, int], None] = lambda *_: None
    """Called once: runs, the engine's name (empty where all rows are stored), number of games."""
    fidelity: Callable[[str], None] = lambda _: None
    """Called once, where an engine runs that is not plain fp32: how close it is."""
    extracting: RowsCallback = lambda *_: None
    """Called after every block of rows."""
    scoring: Callable[[str, int, int], None] = lambda *_: None
    """Called with the match, rows done and rows in all."""
    finished: Callable[[GameResult], None] = lambda _: None
    """Called after every game."""


@dataclass
class _Shared:
    """What all games of one call share."""

    ensemble: Ensemble
    options: PredictOptions
    report: Reporter
    peaks: PeakSettings
    calibration: FittedCalibration | None
    extractor: Extractor | None
    """None where all rows are stored."""
    engine_checked: bool = False
    seconds_before: dict[str, float] = field(default_factory=dict)
    """Match id -> seconds that were spent on its rows already."""


def predict(
    sources: Sequence[Path],
    runs: Sequence[Path],
    out: Path,
    options: PredictOptions | None = None,
    report: Reporter | None = None,
) -> Prediction:
    """Find spots in matches and write them.

    Args:
        sources: feature stores, data set folders and video files.
        runs: folders of finished runs of the same classes and features; their confidences are averaged. Peaks and
            calibration are those of the first: they were fitted to one run's confidences, and no validation of the
            mean is at hand. A mean changes the scale of confidences little, and calibration keeps their order.
        out: folder for `prediction.json`, and `results_spotting.json` and `spots.csv` of each game.
        options: all else.
        report: hears how it goes.

    Raises:
        InputError: nothing can be predicted with these. A game that fails is in the result instead.
    """
    options, report = options or PredictOptions(), report or Reporter()
    ensemble = Ensemble.load(runs, choose_device(options.device))
    games = choose_games(
        find_games(sources, with_labels=options.keep is not None), splits=options.splits, names=options.matches
    )
    shared = _shared(ensemble, games, options, report)
    with disk_errors(out):
        folder = PredictionFolder.open(
            out, made_with=_made_with(shared), about=_about(shared), games=[game.id for game in games]
        )
    report.started(ensemble, shared.extractor.engine().name if shared.extractor else "", len(games))
    if options.keep is not None:
        games = _keep_rows(shared, games, options.keep)
    results = []
    for game in games:
        result = _predict_or_explain(shared, game, folder)
        results.append(result)
        report.finished(result)
    return Prediction(folder, tuple(results))


def _predict_or_explain(shared: _Shared, game: Game, folder: PredictionFolder) -> GameResult:
    """A game that cannot be predicted does not stop the others."""
    try:
        if game.problem:
            raise InputError(game.problem)
        return predict_game(shared, game, folder)
    except InputError as error:
        return GameResult(game.id, "failed", message=str(error))


def predict_game(shared: _Shared, game: Game, folder: PredictionFolder) -> GameResult:
    """One game: rows, confidences, peaks, calibration, files."""
    started, found, about, num_rows = time.perf_counter(), [], [], 0
    ensemble, report, threshold = shared.ensemble, shared.report, shared.options.threshold
    for part in game.parts:
        rows = _rows(shared, part)

        def scoring(done: int, total: int, match_id: str = part.id) -> None:
            report.scoring(match_id, done, total)

        spots = find_spots(ensemble.scores(rows.bank, on_progress=scoring), shared.peaks)
        if shared.calibration is not None:
            spots = shared.calibration.apply(spots)
        if threshold is not None:
            spots = spots.keep(spots.values >= threshold)
        found.append(
            PartSpots(part.id, _events(spots, ensemble.first.classes, TimeGrid(rows.fps), half=part.half or 1))
        )
        about.append({"match": part.id, "rows": rows.bank.num_rows, **rows.about})
        num_rows += rows.bank.num_rows
    num_spots = sum(len(part.events) for part in found)
    seconds = time.perf_counter() - started + sum(shared.seconds_before.get(part.id, 0.0) for part in game.parts)
    with disk_errors(folder.path):
        folder.write(game.id, found, {"spots": num_spots, "seconds": round(seconds, 3), "parts": about})
    best = best_spots([(part.match_id, event) for part in found for event in part.events], NUM_BEST)
    return GameResult(game.id, "predicted", num_rows, num_spots, seconds, best=best)


def best_spots(spots: Sequence[tuple[str, Event]], count: int) -> tuple[tuple[str, Event], ...]:
    """Up to `count` of (match id, spot): the surest of each class of each match, then the second of each, ...; in
    order of match and time."""
    ranks: dict[tuple[str, str], int] = {}
    ranked = []
    for match_id, event in sorted(spots, key=lambda spot: -(spot[1].confidence or 0.0)):
        rank = ranks[match_id, event.label] = ranks.get((match_id, event.label), -1) + 1
        ranked.append((rank, -(event.confidence or 0.0), match_id, event))
    chosen = sorted(ranked, key=lambda each: each[:3])[:count]
    return tuple(sorted(((match_id, event) for _, _, match_id, event in chosen), key=lambda spot: spot[:2]))


def _events(spots: Spots, classes: Sequence[str], grid: TimeGrid, *, half: int) -> tuple[Event, ...]:
    """Spots as predictions, in time order."""
    events = [
        Event(grid.instant_ms(int(frame)), label, half=half, confidence=float(value))
        for index, label in enumerate(classes)
        for frame, value in zip(*spots.of_class(index), strict=True)
    ]
    return tuple(sorted(events, key=lambda event: event.position_ms))


def _rows(shared: _Shared, part: Part) -> MatchRows:
    ensemble, report = shared.ensemble, shared.report
    if isinstance(part, StoredPart):
        rows = stored_rows(part, view=ensemble.view, device=ensemble.device, reduction=ensemble.reduction)
        _require_rate(rows.fps, ensemble, part.id)
        return rows
    extractor = shared.extractor
    assert extractor is not None

    def opened(video: Video) -> None:
        _require_rate(video.grid.fps, ensemble, part.id)
        if not shared.engine_checked and (fidelity := extractor.check(video)) is not None:
            report.fidelity(str(fidelity))
        shared.engine_checked = True

    return streamed_rows(
        part,
        extractor,
        view=ensemble.view,
        device=ensemble.device,
        max_bad_share=shared.options.max_bad_share,
        reduction=ensemble.reduction,
        opened=opened,
        on_progress=report.extracting,
    )


def _keep_rows(shared: _Shared, games: Sequence[Game], keep: Path) -> list[Game]:
    """Extract the videos into a store; the same games with stored parts, and with a problem where that failed."""
    options, report, extractor = shared.options, shared.report, shared.extractor
    parts = [part for game in games for part in game.parts if isinstance(part, VideoPart) and not game.problem]
    if not parts or extractor is None:
        return list(games)
    run = ExtractRunOptions(views=(known_view(shared.ensemble.view),), max_bad_share=options.max_bad_share)
    summary = extract_matches(
        extractor,
        parts[0].data_set,
        [part.match for part in parts],
        keep,
        run,
        progress=Progress(note=report.fidelity, advanced=report.extracting),
    )
    results, store = {result.match_id: result for result in summary.results}, FeatureStore.open(keep)
    shared.seconds_before = {match_id: result.seconds for match_id, result in results.items()}
    kept = []
    for game in games:
        told = [results[part.id].message for part in game.parts if part.id in results and not results[part.id].is_done]
        stored = tuple(
            StoredPart(part.id, part.half, part.split, store) if part.id in results else part for part in game.parts
        )
        kept.append(replace(game, parts=stored, problem="\n".join([game.problem, *told]).strip()))
    return kept


def _shared(ensemble: Ensemble, games: Sequence[Game], options: PredictOptions, report: Reporter) -> _Shared:
    """What all games share; every store and the backbone's weights are checked before work begins."""
    first = ensemble.first
    parts = [part for game in games for part in game.parts]
    for store in {part.store.path: part.store for part in parts if isinstance(part, StoredPart)}.values():
        features = ensemble.full_features if store.settings.reduction is None else ensemble.features
        wrong = store.settings.differing(features)
        if wrong:
            raise InputError(
                f"{store.path}: rows of other settings than the run was trained on; these differ: {', '.join(wrong)}",
                got=named_values(wrong, vars(store.settings)),
                wanted=named_values(wrong, vars(features)),
                cure="name a store of the settings that the run was trained on, or the videos themselves",
            )
    if options.nms == "seed" and TimeGrid(first.fps).is_coarse:
        raise InputError(
            "--nms seed is not for rows this far apart",
            got=f"{first.fps} rows a second",
            wanted="25, of which it takes every second one",
            cure="leave --nms out: the run chose its peaks on its validation",
        )
    peaks = SEED_PEAKS if options.nms == "seed" else first.peaks
    assert peaks is not None
    calibration = first.calibration if options.calibrate == "rank" else None
    if options.calibrate == "rank" and calibration is None:
        raise InputError("the run has no calibration", cure="leave --calibrate out, or train the run again")
    has_videos = any(isinstance(part, VideoPart) for part in parts)
    extractor = _extractor(ensemble, options) if has_videos else None
    return _Shared(ensemble, options, report, peaks, calibration, extractor)


def _extractor(ensemble: Ensemble, options: PredictOptions) -> Extractor:
    features = ensemble.full_features
    if features.is_imported:
        raise InputError(
            "the run was trained on imported rows: no backbone of ours makes them from a video",
            got=f"{features.backbone} of the model {features.weights}",
            cure="bas cache import the rows of this match too, and name that store in place of the video",
        )
    own = next((str(member.folder.resolve()) for member in ensemble.members if has_backbone(member.folder)), None)
    return Extractor.like(features, weights=options.weights or own, kind=options.engine, device=options.device)


def _require_rate(fps: Fraction, ensemble: Ensemble, match_id: str) -> None:
    if fps != ensemble.first.fps:
        raise InputError(
            f"{match_id}: rows of another rate than the run was trained on",
            got=f"{fps} rows a second",
            wanted=f"{ensemble.first.fps}",
            cure="train on features of one rate: bas extract --fps 25 brings every video to it",
        )


def _made_with(shared: _Shared) -> dict[str, Any]:
    """All that decides a prediction."""
    first, options = shared.ensemble.first, shared.options
    return {
        "weights_sha256": [member.weights_sha256 for member in shared.ensemble.members],
        "features_key": first.features.key(),
        "classes": list(first.classes),
        "peaks": shared.peaks.to_json(),
        "calibration": {"kind": options.calibrate, "of": shared.calibration and shared.calibration.to_json()},
        "threshold": options.threshold,
    }


def _about(shared: _Shared) -> dict[str, Any]:
    """What else is worth knowing."""
    first, members = shared.ensemble.first, shared.ensemble.members
    return {
        "runs": [
            {"folder": str(member.folder), "head": member.record.settings.head, "epoch": member.record.best_epoch}
            for member in members
        ],
        "features": first.features.to_json(),
        "fps": str(first.fps),
        "peaks_from": "the seed" if shared.options.nms == "seed" else f"validation of {members[0].folder}",
        "confidences": "of the run" if len(members) == 1 else f"mean of {len(members)} runs",
        "device": str(shared.ensemble.device),
        "software": software_versions(),
    }
