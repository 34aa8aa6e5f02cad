"""The Python API: what a notebook needs, with few arguments. `import bas` gives these names without importing torch."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from .cache.share.local_copy import local_copy
from .cache.share.places import folder_of, is_folder
from .cache.share.pull import Selection
from .cache.store import FeatureStore
from .data.games import find_labels, game_of_folder
from .errors import InputError
from .eval.files import PairedFiles, exact_frame, find_predictions, label_events, load, official_frame, pair
from .eval.report import Calibration, EvalSettings, Metric, Report, Resampling
from .eval.report import evaluate as evaluate_games
from .eval.warnings import file_warnings
from .events import Split, TimeGrid, parse_fraction, team_classes, teams_of


def open_store(place: Path | str, *, splits: Sequence[Split] = (), views: Sequence[str] = ()) -> FeatureStore:
    """Open a feature store; of a shared one (an address) what is needed is pulled into the local cache first.

    Args:
        place: a folder, or an address such as `s3://team/x3d_s.zarr` or `hf://datasets/USER/NAME`.
        splits: matches that are needed of a shared store; empty: all.
        views: views that are needed of a shared store; empty: all.

    Raises:
        InputError: no store there, damaged, or it cannot be reached and no whole copy is here.
    """
    text = str(place)
    if is_folder(text):
        return FeatureStore.open(folder_of(text))
    return FeatureStore.open(local_copy(text, Selection(splits=tuple(splits), views=tuple(views))))


def evaluate(
    labels: Path | str,
    predictions: Path | str,
    *,
    metric: Metric = "at1",
    splits: Sequence[Split] = (),
    classes: Sequence[str] = (),
    fps: str = "25",
    calibrate: Calibration = "none",
    num_resamples: int = 500,
    deltas: Sequence[str] = (),
) -> Report:
    """Score predictions as `bas eval` does.

    Args:
        labels: a data set's folder, a feature store, or one label file.
        predictions: a folder with `results_spotting.json` per game, or one such file.
        metric: SoccerNet's `at1` ... `at5`, `tight`, `loose`, `team`, or `e2e`.
        splits: only games of these; empty: all.
        classes: the class list; empty: the data set's own.
        fps: cells of the metric's grid per second.
        calibrate: `rank` spreads the scores over the metric's thresholds first, order kept.
        num_resamples: bootstrap resamples for the intervals; 0: none.
        deltas: full widths of the tolerance in seconds, such as `0.5`, in place of the metric's own.

    Raises:
        InputError: files are missing or cannot be used.
    """
    settings = EvalSettings(
        metric=metric,
        deltas_seconds=_seconds(deltas),
        fps=TimeGrid.parse(fps).fps,
        calibrate=calibrate,
        resampling=Resampling(num_resamples=num_resamples),
    )
    names = tuple(name.strip() for name in classes)
    if not all(names) or len(set(names)) < len(names):
        raise InputError("the class list is not usable", got=repr(classes), wanted="different names, as PASS,DRIVE")
    found = find_labels(Path(labels), splits=splits)
    names = names or found.classes
    folder = Path(predictions)
    paired = pair(found.files, find_predictions(folder, game_id=game_of_folder(folder)), found.videos)
    teams = _teams(paired) if metric == "team" else ()
    names = team_classes(names, teams) if teams else names
    # the official reader rounds in floating point, and published scores need that; E2E-Spot counts exact frames
    to_frame = exact_frame if metric == "e2e" else official_frame
    loaded = load(paired, names, settings.fps, to_frame=to_frame, teams=teams)
    warnings = (*found.problems, *file_warnings(paired, loaded, names))
    return evaluate_games(loaded.games, names, settings, num_teams=len(teams) or 1, warnings=warnings)


def _teams(paired: PairedFiles) -> tuple[str, ...]:
    """Teams that the labels name."""
    teams = teams_of(event for labels, _ in paired.files.values() for event in label_events(labels))
    if not teams:
        raise InputError("no label names a team", wanted='"team": "left" or "right" in each annotation')
    return teams


def _seconds(texts: Sequence[str]) -> tuple[Fraction, ...]:
    try:
        return tuple(map(parse_fraction, texts))
    except (ValueError, ZeroDivisionError):
        raise InputError("--delta is not usable", got=", ".join(texts), wanted="seconds above 0, such as 0.5") from None
