"""The command `bas train-head`. Nothing imports torch before a command needs it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import InputError
from .options import (
    AsJson,
    Batch,
    Classes,
    ClipLen,
    Dilate,
    Ema,
    Epochs,
    EpochSteps,
    Head,
    HeadSettings,
    Hop,
    Inputs,
    Keep,
    LearningRate,
    Loss,
    MaxGradNorm,
    MixupAlpha,
    Patience,
    Precision,
    Projection,
    Recipe,
    Seed,
    Sigma,
    Stride,
    Valid,
    WeightDecay,
    WithValid,
    changed,
    local_stores,
)
from .settings_options import with_options
from .show import ProgressView, note, show


@with_options()
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
    frames_per_epoch: EpochSteps = None,
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
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the head is trained.")] = "auto",
    bank: Annotated[Literal["auto", "device", "ram", "mapped"], typer.Option(help="Where the features lie.")] = "auto",
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
    from ..heads.training.loop import train
    from .train_view import recipes_view, run_view, training_progress

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
    with local_stores([store], **needed) as [path], ProgressView("training", unit="steps") as progress:
        features = FeatureStore.open(path)
        note(other_features(recipe, features.settings) if recipe else "")
        record = train(
            features,
            out,
            settings,
            classes=parse_classes(classes) if classes is not None else None,
            valid=valid or (),
            with_valid=with_valid,
            device=device,
            bank=bank,
            progress=training_progress(progress),
        )
    note(features.origin.warn_of_training(record.valid_matches) if features.origin else "")
    show(run_view(record), record.to_json(), as_json=as_json)
    if not as_json:
        print(f"{out}: finished. Next: bas predict VIDEO-OR-STORE --run {out} --out predictions")
