"""The commands of stage two: `train-head`, `predict`, `eval`. Nothing imports torch before a command needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import AsJson, Batch, Classes, ClipLen, Dilate, Ema, Epochs, EpochSteps, Head, HeadSettings, Hop, Inputs, Keep, LearningRate, Loss, MaxGradNorm, MixupAlpha, Patience, Precision, Projection, Recipe, Seed, Sigma, Stride, Valid, WeightDecay, WithValid, changed, local_stores, show


def train_head(
    store: Annotated[
        str | None,
        typer.Argument(metavar="STORE", help="Folder that `bas extract --out` made, or the URL of a shared store."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; an unfinished one goes on.")] = None,
    recipe: Recipe = None,
    head: Head = None,
    set_: HeadSettings = None,
    proj: Projection = None,
    inputs: Inputs = None,
    loss: Loss = None,
    clip_len: ClipLen = None,
    stride: Stride = None,
    hop: Hop = None,
    dilate: Dilate = None,
    sigma: Sigma = None,
    mixup: Annotated[bool | None, typer.Option(help="Blend pairs of windows by Beta(0.2, 0.2), or never.")] = None,
    mixup_alpha: MixupAlpha = None,
    views: Annotated[str | None, typer.Option(help="Views of the store to draw from: identity,hflip.")] = None,
    epochs: Epochs = None,
    epoch_steps: EpochSteps = None,
    patience: Patience = None,
    batch: Batch = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    max_grad_norm: MaxGradNorm = None,
    ema: Ema = None,
    keep: Keep = None,
    score_len: Annotated[int | None, typer.Option(help="Steps of windows over a match; 0: --clip-len.")] = None,
    precision: Precision = None,
    seed: Seed = None,
    classes: Classes = None,
    valid: Valid = None,
    with_valid: WithValid = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    bank: Annotated[str, typer.Option(help="Where features lie: auto, device, ram or mapped.")] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and heads, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on cached features; validates on whole matches every epoch, stops early, resumes exactly."""
    options = dict(locals())
    from rich.console import Console

    from ..cache.store import FeatureStore
    from ..eval.files import parse_classes
    from ..heads.losses import MIXUP_ALPHA
    from ..heads.recipes import default_recipe, named_recipe, other_features
    from ..heads.training.loop import RunOptions, train
    from .train_view import TrainingView, recipes_view, run_view

    if list_:
        Console(highlight=False).print(recipes_view())
        return
    if store is None or out is None:
        raise InputError("STORE and --out are needed", cure="bas train-head x3d_s.zarr --head ed --out runs/ed")
    chosen = named_recipe(recipe) if recipe else default_recipe(head or "ed")
    settings = changed(
        chosen,
        options,
        mixup=mixup_alpha if mixup is None or mixup_alpha is not None else MIXUP_ALPHA * mixup,
        views=tuple(views.split(",")) if views else None,
    )
    needed = {"splits": ("train", "valid"), "views": settings.views}
    with local_stores([store], **needed) as [path], TrainingView() as report:
        features = FeatureStore.open(path)
        _note(other_features(recipe, features.settings) if recipe else "")
        record = train(
            features,
            out,
            settings,
            classes=parse_classes(classes) if classes is not None else None,
            valid=valid or (),
            with_valid=with_valid,
            options=RunOptions.parse(device=device, place=bank),
            report=report,
        )
    _note(features.origin.flattery(record.valid_matches) if features.origin else "")
    show(run_view(record), record.to_json(), as_json=as_json)
    if not as_json:
        print(f"{out}: finished. Next: bas predict VIDEO-OR-STORE --run {out} --out predictions")


def _note(text: str) -> None:
    if text:
        print(f"note: {text}", file=sys.stderr)


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
        str, typer.Option(help="run: the peaks chosen on the run's validation; seed: those of the seed recipes.")
    ] = "run",
    calibrate: Annotated[
        str,
        typer.Option(
            help="none: plain confidences. rank: the run's calibration spreads them over the metric's thresholds, "
            "order kept; they are no probabilities then."
        ),
    ] = "none",
    threshold: Annotated[
        float | None, typer.Option(help="Write only spots of at least this confidence; default: those of the peaks.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Of the backbone: auto, torch or openvino.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_bad_share: Annotated[
        float, typer.Option(help="Share of undecodable frames that is put up with, 0 to 1.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Find actions in any video with a trained head: SoccerNet's results file and a table per match."""
    from ..predict import PredictOptions
    from ..predict import predict as run_prediction
    from .predict_view import PredictionView, prediction_json, prediction_view

    options = PredictOptions.parse(
        split=split or (),
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
    with local_stores(sources, splits=split or (), views=("identity",)) as paths, PredictionView() as report:
        prediction = run_prediction(paths, run, out, options, report)
    show(prediction_view(prediction), prediction_json(prediction), as_json=as_json)
    if not prediction.complete:
        raise typer.Exit(2)


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
