"""The command `bas predict`. Nothing here imports torch before it runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..predict import PredictOptions
from .options import AsJson, known_splits, local_stores
from .settings_options import with_options
from .show import ProgressView, show

PANELS = {
    "Spots": ("nms", "calibrate", "threshold"),
    "Features": ("keep", "weights", "engine", "device", "max_bad_share"),
}


@with_options(panels=PANELS, names={"keep": "--store"})
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Video files, data set folders, stores of `bas extract`, or URLs of shared stores.",
        ),
    ],
    run: Annotated[
        list[Path],
        typer.Option(
            help="Folder of a finished run. Repeated: confidences are averaged; peaks and calibration are the first's."
        ),
    ],
    given: Annotated[dict[str, Any], PredictOptions],
    out: Annotated[Path, typer.Option(help="Folder for results_spotting.json and spots.csv of each match.")],
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    match: Annotated[
        list[str] | None, typer.Option(help="Only this match (id or part of it); may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find actions in any video with a trained head: SoccerNet's results file and a table per match."""
    from ..predict import predict as run_prediction
    from .predict_view import prediction_view

    splits = known_splits(split)
    options = PredictOptions(splits=splits, matches=tuple(match or ()), **given)
    paths = local_stores(sources, splits=splits, views=("identity",))
    with ProgressView("predicting") as progress:
        summary = run_prediction(paths, run, out, options, progress=progress)
    show(prediction_view(summary), summary.to_json(), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)
