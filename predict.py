"""`bas predict`: a store, a data set or any video, and finished runs, to spots.

Nothing here imports torch before something is predicted: the options are those of the command line.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from .cache.store import FeatureStore
from .data.games import Part, SourceGame, StoredPart, VideoPart, choose_games, find_games
from .errors import InputError
from .eval.calibrate import FittedCalibration
from .eval.peaks import SEED_PEAKS, PeakSettings, find_spots
from .eval.prediction_folder import PartSpots, PredictionFolder
from .eval.spots import Spots
from .events import MIRRORED, SPLITS, Event, Split, TimeGrid
from .extract.options import EngineKind, ExtractRunOptions, View, known_view
from .files import disk_errors
from .published import PREFIX, run_folder
from .workers import SILENT, MatchResult, Progress, Summary, each_match

if TYPE_CHECKING:
    from .extract.extractor import Extractor
    from .extract.rows import MatchRows
    from .extract.video.reader import Video
    from .heads.ensemble import Ensemble

Device = Literal["auto", "cpu", "cuda", "mps"]
Nms = Literal["run", "seed"]
Calibrate = Literal["none", "rank"]
NUM_BEST = 30
"""Spots that a summary carries for people to look at; the files hold all."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is asked for beside sources and runs."""

    splits: tuple[Split, ...] = ()
    """Only matches of these splits: train, valid, test or challenge; by default all."""
    matches: tuple[str, ...] = ()
    """Only these matches (ids, or parts of ids); by default all."""
    keep: Path | None = None
    """Keep the features of videos in this store; by default they are forgotten after each match."""
    weights: str | None = None
    """Weights file or finetuned run of the backbone that made the features; a finetuned run has its own."""
    engine: EngineKind = "auto"
    """Library that runs the backbone over videos."""
    device: Device = "auto"
    """Where backbone and heads run; on mps the heads only, the backbone stays on the CPU."""
    fast: bool = False
    """Run the backbone in 8 bits: two to three times as fast on a recent CPU after a minute of calibration; not
    exact, and nothing of it is stored."""
    views: tuple[View, ...] = ()
    """Views of the pictures whose confidences are averaged: identity,hflip costs twice as much; default: the one that
    the run was validated on."""
    nms: Nms = "run"
    """How peaks are found: as the run chose on its validation (run), or as the seed's recipes do (seed)."""
    calibrate: Calibrate = "none"
    """Whether the run's calibration spreads confidences over the metric's thresholds (rank); their order is kept, but
    they are no probabilities then."""
    threshold: float | None = None
    """Write only spots of at least this confidence, 0 to 1; by default those that the peaks give."""
    max_bad_share: float = 0.05
    """Share of a video's frames, 0 to 1, that may be undecodable."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError("--threshold is not usable", got=self.threshold, wanted="0 to 1")
        if not 0 <= self.max_bad_share <= 1:
            raise InputError("--max-bad-share is not usable", got=self.max_bad_share, wanted="0 to 1")
        if self.fast and (self.keep is not None or self.engine == "torch" or self.device == "cuda"):
            raise InputError(
                "--fast is for OpenVINO on a CPU, and its rows are not stored",
                got="--store" if self.keep else f"--engine {self.engine} --device {self.device}",
                cure="leave out one of the two",
            )
        for option, typed, allowed in (
            ("--views", self.views, get_args(View)),
            ("--nms", [self.nms], get_args(Nms)),
            ("--calibrate", [self.calibrate], get_args(Calibrate)),
            ("--engine", [self.engine], get_args(EngineKind)),
            ("--device", [self.device], get_args(Device)),
            ("--split", self.splits, SPLITS),
        ):
            unknown = [each for each in typed if each not in allowed]
            if unknown:
                raise InputError(f"{option} is not known", got=", ".join(unknown), wanted=", ".join(allowed))


@dataclass
class _Prediction:
    """What all games of one call share."""

    ensemble: "Ensemble"
    options: PredictOptions
    progress: Progress
    peaks: PeakSettings
    calibration: FittedCalibration | None
    extractor: "Extractor | None"
    """None where all rows are stored."""
    folder: PredictionFolder | None = None
    engine_checked: bool = False
    seconds_before: Mapping[str, float] = field(default_factory=dict)
    """Match id -> seconds that were spent on its rows already."""
    best: list[tuple[str, Event]] = field(default_factory=list)
    """(match id, spot) of the surest spots of each game."""

    @property
    def views(self) -> tuple[str, ...]:
        """Views whose confidences are averaged."""
        return self.options.views or (self.ensemble.view,)


def predict(
    sources: Sequence[Path | str] | Path | str,
    runs: Sequence[Path | str] | Path | str,
    out: Path | str,
    options: PredictOptions | None = None,
    *,
    progress: Progress = SILENT,
) -> Summary:
    """Find spots in matches and write them.

    Args:
        sources: feature stores, data set folders and video files.
        runs: folders of finished runs (or `hub:NAME`, see `bas weights`) of the same classes and features; their
            confidences are averaged. Peaks and calibration are those of the first: they were fitted to one run's
            confidences, and no validation of the mean is at hand. A mean changes the scale of confidences little, and
            calibration keeps their order.
        out: folder for `prediction.json`, and `results_spotting.json` and `spots.csv` of each game.
        options: all else.
        progress: callbacks.

    Returns:
        One result per game, with its number of `spots`; the record says how they were made, and holds the `best` spots
        of all games. Whatever ends one game is its result, and the others go on.

    Raises:
        InputError: nothing can be predicted with these.
    """
    from .heads.ensemble import Ensemble
    from .heads.training.loop import choose_device

    options, out, started = options or PredictOptions(), Path(out), time.perf_counter()
    folders = [run_folder(str(run)) if str(run).startswith(PREFIX) else run for run in _paths(runs)]
    ensemble = Ensemble.load(folders, choose_device(options.device))
    games = choose_games(
        find_games(_paths(sources), with_labels=options.keep is not None), splits=options.splits, names=options.matches
    )
    shared = _prepared(ensemble, games, options, progress)
    with disk_errors(out):
        shared.folder = PredictionFolder.open(
            out, made_with=_made_with(shared), about=_about(shared), games=[game.id for game in games]
        )
    for run in ensemble.runs:
        record = run.record
        progress.note(
            f"{run.folder}: {record.settings.head}, {record.num_parameters:,} parameters, epoch {record.best_epoch}, "
            f"{len(record.classes)} class{'es' if len(record.classes) != 1 else ''}"
        )
    engine = f"engine {shared.extractor.engine().name}, " if shared.extractor else ""
    progress.note(f"{engine}heads on {ensemble.device}")
    if options.keep is not None:
        games = _keep_rows(shared, games, options.keep)
    progress.started(len(games), 0)
    results = each_match(games, lambda game: _predict_game(shared, game), progress)
    best = [
        {
            "match": match_id,
            "half": spot.half,
            "ms": spot.position_ms,
            "label": spot.label,
            **({"team": spot.team} if spot.team else {}),
            "confidence": spot.confidence,
        }
        for match_id, spot in best_spots(shared.best, NUM_BEST)
    ]
    return Summary(
        results=tuple(results),
        target=str(out),
        seconds=time.perf_counter() - started,
        unit="frames",
        amount=sum(result.num_rows for result in results),
        record={**shared.folder.record, "best": best},
    )


def _predict_game(shared: _Prediction, game: SourceGame) -> MatchResult:
    """One game: rows, confidences, peaks, calibration, files."""
    if game.problem:
        raise InputError(game.problem)
    assert shared.folder is not None
    started, found, about, num_rows = time.perf_counter(), [], [], 0
    ensemble, threshold = shared.ensemble, shared.options.threshold
    for part in game.parts:
        scores_vrk = []
        for view in shared.views:
            rows = _rows(shared, game, part, view, first_row=num_rows)

            def scoring(
                done: int, total: int, first_row: int = num_rows, stop: int = num_rows + rows.bank.num_rows
            ) -> None:
                at = first_row + (stop - first_row) * done / total if shared.extractor is None else stop
                shared.progress.advanced(game.id, at, stop, f"confidences {100 * done // total} %")

            scores_vrk.append(ensemble.scores(rows.bank, on_progress=scoring))
        spots = find_spots(sum(scores_vrk) / len(scores_vrk), shared.peaks)
        if shared.calibration is not None:
            spots = shared.calibration.apply(spots)
        if threshold is not None:
            spots = spots.keep(spots.values >= threshold)
        events = _events(spots, ensemble.first.labels, TimeGrid(rows.fps), half=part.half or 1)
        found.append(PartSpots(part.id, events))
        about.append({"match": part.id, "rows": rows.bank.num_rows, **rows.about})
        num_rows += rows.bank.num_rows
    num_spots = sum(len(part.events) for part in found)
    seconds = time.perf_counter() - started + sum(shared.seconds_before.get(part.id, 0.0) for part in game.parts)
    with disk_errors(shared.folder.path):
        shared.folder.write(game.id, found, {"spots": num_spots, "seconds": round(seconds, 3), "parts": about})
    shared.best += best_spots([(part.match_id, event) for part in found for event in part.events], NUM_BEST)
    columns = {"spots": num_spots, "frames/s": round(num_rows / max(seconds, 1e-9), 1)}
    return MatchResult(match_id=game.id, status="predicted", num_rows=num_rows, seconds=seconds, columns=columns)


def best_spots(spots: Sequence[tuple[str, Event]], count: int) -> list[tuple[str, Event]]:
    """Up to `count` of (match id, spot): the surest of each class of each match, then the second of each, ...; in
    order of match and time."""
    ranks: dict[tuple[str, str], int] = {}
    ranked = []
    for match_id, event in sorted(spots, key=lambda spot: -(spot[1].confidence or 0.0)):
        rank = ranks[match_id, event.label] = ranks.get((match_id, event.label), -1) + 1
        ranked.append((rank, -(event.confidence or 0.0), match_id, event))
    chosen = sorted(ranked, key=lambda each: each[:3])[:count]
    return sorted(((match_id, event) for _, _, match_id, event in chosen), key=lambda spot: spot[:2])


def _events(spots: Spots, labels: Sequence[tuple[str, str]], grid: TimeGrid, *, half: int) -> tuple[Event, ...]:
    """Spots as predictions, in time order; `labels` holds (label, team) of each class."""
    events = [
        Event(grid.instant_ms(int(frame)), label, half=half, team=team, confidence=float(value))
        for index, (label, team) in enumerate(labels)
        for frame, value in zip(*spots.of_class(index), strict=True)
    ]
    # of two teams at one instant the surer comes last: a reader who ignores teams keeps the last of a class
    return tuple(sorted(events, key=lambda event: (event.position_ms, event.confidence if event.team else 0)))


def _rows(shared: _Prediction, game: SourceGame, part: Part, view: str, *, first_row: int) -> "MatchRows":
    """Rows of a view of a part, from its store or video; progress counts on from `first_row`, where the part before
    ended."""
    from .extract.rows import stored_rows, streamed_rows

    ensemble = shared.ensemble
    if isinstance(part, StoredPart):
        rows = stored_rows(part, view=view, device=ensemble.device, reduction=ensemble.reduction)
        _require_rate(rows.fps, ensemble, part.id)
        return rows
    extractor = shared.extractor
    assert extractor is not None

    def opened(video: "Video") -> None:
        _require_rate(video.grid.fps, ensemble, part.id)
        if not shared.engine_checked and (fidelity := extractor.check(video)) is not None:
            shared.progress.note(str(fidelity))
        shared.engine_checked = True

    return streamed_rows(
        part,
        extractor,
        view=view,
        device=ensemble.device,
        max_bad_share=shared.options.max_bad_share,
        reduction=ensemble.reduction,
        opened=opened,
        on_progress=lambda _, done, total, words: shared.progress.advanced(
            game.id, first_row + done, first_row + total, words
        ),
    )


def _keep_rows(shared: _Prediction, games: Sequence[SourceGame], keep: Path) -> list[SourceGame]:
    """Extract the videos into a store; the same games with stored parts, and with a problem where that failed."""
    from .extract.run import extract_matches

    options, progress, extractor = shared.options, shared.progress, shared.extractor
    parts = [part for game in games for part in game.parts if isinstance(part, VideoPart) and not game.problem]
    if not parts or extractor is None:
        return list(games)
    run = ExtractRunOptions(views=tuple(map(known_view, shared.views)), max_bad_share=options.max_bad_share)
    silent_end = replace(progress, started=SILENT.started, finished=SILENT.finished)  # the games are counted later
    matches = [part.match for part in parts]
    extracted = extract_matches(extractor, parts[0].data_set, matches, keep, run, progress=silent_end)
    results, store = {result.match_id: result for result in extracted.results}, FeatureStore.open(keep)
    shared.seconds_before = {match_id: result.seconds for match_id, result in results.items()}
    kept = []
    for game in games:
        failures = [
            results[part.id].message for part in game.parts if part.id in results and not results[part.id].is_done
        ]
        stored = tuple(
            StoredPart(part.id, part.half, part.split, store) if part.id in results else part for part in game.parts
        )
        kept.append(replace(game, parts=stored, problem="\n".join([game.problem, *failures]).strip()))
    return kept


def _prepared(
    ensemble: "Ensemble", games: Sequence[SourceGame], options: PredictOptions, progress: Progress
) -> _Prediction:
    """What all games share; every store and the backbone's weights are checked before work begins."""
    first = ensemble.first
    parts = [part for game in games for part in game.parts]
    for store in {part.store.path: part.store for part in parts if isinstance(part, StoredPart)}.values():
        ensemble.require_store(
            store, cure="name a store of the settings that the run was trained on, or the videos themselves"
        )
    if options.nms == "seed" and TimeGrid(first.fps).is_coarse:
        raise InputError(
            "--nms seed is not for rows this far apart",
            got=f"{first.fps} rows a second",
            wanted="25, of which it takes every second one",
            cure="leave --nms out: the run chose its peaks on its validation",
        )
    if "hflip" in options.views and any(team in MIRRORED for _, team in first.labels):
        raise InputError(
            "--views is not usable with teams",
            got=",".join(options.views),
            wanted="identity: hflip swaps left and right",
        )
    peaks = SEED_PEAKS if options.nms == "seed" else first.peaks
    assert peaks is not None
    calibration = first.calibration if options.calibrate == "rank" else None
    if options.calibrate == "rank" and calibration is None:
        raise InputError("the run has no calibration", cure="leave --calibrate out, or train the run again")
    has_videos = any(isinstance(part, VideoPart) for part in parts)
    extractor = _extractor(ensemble, options) if has_videos else None
    return _Prediction(ensemble, options, progress, peaks, calibration, extractor)


def _extractor(ensemble: "Ensemble", options: PredictOptions) -> "Extractor":
    from .extract.backbones.weights import has_backbone
    from .extract.extractor import Extractor

    features = ensemble.full_features
    if features.is_imported:
        raise InputError(
            "the run was trained on imported rows: no backbone of ours makes them from a video",
            got=f"{features.backbone} of the model {features.weights}",
            cure="bas cache import the rows of this match too, and name that store in place of the video",
        )
    own = next((str(run.folder.resolve()) for run in ensemble.runs if has_backbone(run.folder)), None)
    device = "cpu" if options.device == "mps" else options.device  # no engine was ever held against fp32 on mps
    kind = "openvino" if options.fast else options.engine
    extractor = Extractor.like(features, weights=options.weights or own, kind=kind, device=device)
    extractor.is_quantised = options.fast
    return extractor


def _require_rate(fps: Fraction, ensemble: "Ensemble", match_id: str) -> None:
    if fps != ensemble.first.fps:
        raise InputError(
            f"{match_id}: rows of another rate than the run was trained on",
            got=f"{fps} rows a second",
            wanted=f"{ensemble.first.fps}",
            cure="train on features of one rate: bas extract --fps 25 brings every video to it",
        )


def _paths(named: Sequence[Path | str] | Path | str) -> list[Path]:
    return [Path(each) for each in ([named] if isinstance(named, Path | str) else named)]


def _made_with(shared: _Prediction) -> dict[str, Any]:
    """All that decides a prediction."""
    first, options = shared.ensemble.first, shared.options
    return {
        "weights_sha256": [run.weights_sha256 for run in shared.ensemble.runs],
        "features_key": first.features.key(),
        "classes": list(first.classes),
        "peaks": shared.peaks.to_json(),
        "calibration": {"kind": options.calibrate, "of": shared.calibration and shared.calibration.to_json()},
        "threshold": options.threshold,
        **({"views": list(options.views)} if options.views else {}),
        **({"bits": 8} if options.fast and shared.extractor else {}),  # stored rows are as they are
    }


def _about(shared: _Prediction) -> dict[str, Any]:
    """What else is worth knowing."""
    from .extract.run import software_versions

    first, runs, peaks_from = shared.ensemble.first, shared.ensemble.runs, "the seed"
    if shared.options.nms == "run":
        folder = runs[0].folder
        peaks_from = f"validation of {folder}" if first.valid_matches else f"{folder}, as published"
    return {
        "runs": [
            {"folder": str(run.folder), "head": run.record.settings.head, "epoch": run.record.best_epoch}
            for run in runs
        ],
        "features": first.features.to_json(),
        "fps": str(first.fps),
        "peaks_from": peaks_from,
        "confidences": "of the run" if len(runs) == 1 else f"mean of {len(runs)} runs",
        "device": str(shared.ensemble.device),
        "software": software_versions(),
        "warnings": [f"{run.folder}: {each}" for run in runs for each in run.record.caveats],
    }
