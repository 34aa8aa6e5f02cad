"""The command `bas predict`. Nothing here imports torch before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from ..extract.options import EngineKind
from ..predict import Calibrate, Device, Nms
from .options import AsJson, known_splits, local_stores
from .settings_options import with_options
from .show import ProgressView, show


@with_options()
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
    out: Annotated[Path, typer.Option(help="Folder for results_spotting.json and spots.csv of each match.")],
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    match: Annotated[
        list[str] | None, typer.Option(help="Only this match (id or part of it); may be repeated.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep the features of videos in this store; else they are forgotten.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights FILE or finetuned run that made the features; a finetuned run has its own."),
    ] = None,
    nms: Annotated[
        Nms, typer.Option(help="run: the peaks chosen on the run's validation; seed: those of the seed recipes.")
    ] = "run",
    calibrate: Annotated[
        Calibrate,
        typer.Option(
            help="none: plain confidences. rank: the run's calibration spreads them over the metric's thresholds, "
            "order kept; they are no probabilities then."
        ),
    ] = "none",
    threshold: Annotated[
        float | None, typer.Option(help="Write only spots of at least this confidence; default: those of the peaks.")
    ] = None,
    engine: Annotated[EngineKind, typer.Option(help="Of the backbone: auto, torch or openvino.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where backbone and heads run; on mps the heads only.")] = "auto",
    max_bad_share: Annotated[
        float, typer.Option(help="Share of undecodable frames that is put up with, 0 to 1.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Find actions in any video with a trained head: SoccerNet's results file and a table per match."""
    from ..predict import PredictOptions
    from ..predict import predict as run_prediction
    from .predict_view import prediction_view

    options = PredictOptions(
        splits=known_splits(split),
        engine=engine,
        device=device,
        nms=nms,
        calibrate=calibrate,
        matches=tuple(match or ()),
        keep=store,
        weights=weights,
        threshold=threshold,
        max_bad_share=max_bad_share,
    )
    with (
        local_stores(sources, splits=split or (), views=("identity",)) as paths,
        ProgressView("predicting") as progress,
    ):
        summary = run_prediction(paths, run, out, options, progress=progress)
    show(prediction_view(summary), summary.to_json(), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)
