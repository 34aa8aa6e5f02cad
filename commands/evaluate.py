"""The command `bas eval`. Nothing here imports torch before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson
from .settings_options import with_options
from .show import show


@with_options()
def evaluate(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Data set folder, store, or one Labels-ball.json.")],
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Folder with results_spotting.json per game, or one file.")
    ],
    metric: Annotated[
        str, typer.Option(help="at1 ... at5, tight, loose (SoccerNet), e2e (E2E-Spot, within 0, 1, 2, 4 frames).")
    ] = "at1",
    fps: Annotated[str, typer.Option(help="Cells of the metric's grid per second.")] = "25",
    classes: Annotated[str | None, typer.Option(help="A,B,...: the class list; default: the data set's own.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    calibrate: Annotated[str, typer.Option(help="rank: spread scores over the thresholds, order kept.")] = "none",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals; 0: none.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Score predictions: mAP, per class, with intervals, a chance row and warnings about what misleads."""
    from typing import cast

    from ..data.games import find_labels, game_of_folder
    from ..eval.files import exact_frame, find_predictions, load, official_frame, pair, parse_classes
    from ..eval.report import Calibration, EvalSettings, Metric
    from ..eval.report import evaluate as run_evaluation
    from ..eval.traps import file_warnings
    from ..eval.uncertainty import Resampling
    from ..events import TimeGrid
    from .eval_view import report_view

    settings = EvalSettings(
        metric=cast(Metric, metric),
        fps=TimeGrid.parse(fps).fps,
        calibrate=cast(Calibration, calibrate),
        resampling=Resampling(num_resamples=resamples),
    )
    found = find_labels(labels, splits=split or ())
    names = parse_classes(classes) if classes is not None else found.classes
    paired = pair(found.files, find_predictions(predictions, game_id=game_of_folder(predictions)))
    loaded = load(paired, names, settings.fps, to_frame=exact_frame if metric == "e2e" else official_frame)
    warnings = (*found.problems, *file_warnings(paired, loaded, names))
    report = run_evaluation(loaded.games, names, settings, warnings=warnings)
    show(report_view(report), report.to_json(), as_json=as_json)
