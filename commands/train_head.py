"""The command `bas train-head`. Nothing here imports torch before it runs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError
from ..heads.training.settings import TrainSettings
from .options import AsJson, Classes, Recipe, Valid, WithValid, local_stores, parse_classes
from .settings_options import with_options
from .show import ProgressView, note, say, show

PANELS = {
    "Head": ("head", "options", "proj", "loss", "inputs"),
    "Windows and labels": ("clip_len", "stride", "hop_rows", "views", "dilate", "sigma", "mixup"),
    "Optimisation": (
        *("epochs", "frames_per_epoch", "warmup_epochs", "batch", "lr", "weight_decay"),
        *("max_grad_norm", "ema", "precision", "seed"),
    ),
    "Validation": ("patience", "min_improvement", "keep", "score_len", "score_overlap"),
}
NAMES = {"hop_rows": "--hop", "options": "--set"}


@with_options(panels=PANELS, names=NAMES)
def train_head(
    given: Annotated[dict[str, Any], TrainSettings],
    store: Annotated[
        str | None,
        typer.Argument(metavar="STORE", help="Folder that `bas extract --out` made, or the URL of a shared store."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; an unfinished one goes on.")] = None,
    recipe: Recipe = None,
    classes: Classes = None,
    valid: Valid = None,
    with_valid: WithValid = False,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the head is trained.")] = "auto",
    bank: Annotated[Literal["auto", "device", "ram", "mapped"], typer.Option(help="Where the features lie.")] = "auto",
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and heads, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on cached features; validates on whole matches every epoch, stops early, resumes exactly.

    The defaults below are those of the head `ed`; a recipe or another head may have its own.
    """
    from ..cache.store import FeatureStore
    from ..heads.recipes import other_features
    from ..heads.training.loop import train
    from .train_view import recipes_json, recipes_view, run_view, training_progress

    if list_:
        show(recipes_view(), recipes_json(), as_json=as_json)
        return
    if store is None or out is None:
        raise InputError("STORE and --out are needed", cure="bas train-head x3d_s.zarr --head ed --out runs/ed")
    settings = settings_of(recipe, given)
    [path] = local_stores([store], splits=("train", "valid"), views=settings.views)
    features = FeatureStore.open(path)
    note(other_features(recipe, features.settings) if recipe else "")
    with ProgressView("training", unit="steps") as progress:
        record = train(
            features,
            out,
            settings,
            classes=parse_classes(classes),
            valid=valid or (),
            with_valid=with_valid,
            device=device,
            bank=bank,
            progress=training_progress(progress),
        )
    note(features.origin.warn_of_training(record.valid_matches) if features.origin else "")
    show(run_view(record), record.to_json(), as_json=as_json)
    if not as_json:
        say(f"{out}: finished. Next: bas predict VIDEO-OR-STORE --run {out} --out predictions")


def settings_of(recipe: str | None, given: dict[str, Any]) -> TrainSettings:
    """The recipe (by default that of the head, or `ed`) with the settings that were typed in its place."""
    from ..heads.recipes import default_recipe, named_recipe

    chosen = named_recipe(recipe) if recipe else default_recipe(given.get("head") or "ed")
    changes = {name: value for name, value in given.items() if name in vars(chosen)}
    if "options" in changes:
        changes["options"] = {**chosen.options, **changes["options"]}
    return replace(chosen, **changes)
