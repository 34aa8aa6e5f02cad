"""The command `bas train-head`, and what a person sees of any training. Nothing imports torch before it runs."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError
from ..events import TimeGrid
from ..heads.training.settings import TrainSettings
from ..workers import Progress
from .options import AsJson, Classes, ClassesBy, Recipe, Valid, WithValid, local_stores, parse_classes
from .settings_options import with_options
from .show import ProgressView, note, say, show, table

if TYPE_CHECKING:
    from rich.console import Group

    from ..heads.recipes import Recipe as HeadRecipe
    from ..heads.training.checkpoint import EpochLine, LoopState, RunRecord
    from ..heads.training.loop import EpochProgress, TrainingProgress

_FORECAST_SECONDS, _MUCH_WAITING = 60.0, 0.2

PANELS = {
    "Head": ("head", "options", "proj", "loss", "dropout", "inputs", "depth"),
    "Windows and labels": ("clip_len", "stride", "hop_rows", "views", "dilate", "sigma", "mixup", "event_share"),
    "Optimisation": (
        *("epochs", "frames_per_epoch", "warmup_epochs", "schedule", "batch", "lr", "weight_decay"),
        *("max_grad_norm", "ema", "precision", "seed"),
    ),
    "Validation": ("tolerance", "patience", "min_improvement", "keep", "score_len", "score_overlap"),
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
    classes_by: ClassesBy = "label",
    valid: Valid = None,
    with_valid: WithValid = False,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the head is trained.")] = "auto",
    bank: Annotated[Literal["auto", "device", "ram", "mapped"], typer.Option(help="Where the features lie.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of PyTorch on the CPU; 0: by the size of the work.")] = 0,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and heads, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on cached features; validates on whole matches every epoch, stops early, resumes exactly.

    The defaults below are those of the head `ed`; a recipe or another head may have its own.
    """
    from ..cache.store import FeatureStore
    from ..heads.recipes import other_features, suited
    from ..heads.training.loop import train

    if list_:
        show(recipes_view(), recipes_json(), as_json=as_json)
        return
    if store is None or out is None:
        raise InputError("STORE and --out are needed", cure="bas train-head x3d_s.zarr --head ed --out runs/ed")
    settings = settings_of(recipe, given)
    [path] = local_stores([store], splits=("train", "valid"), views=settings.views)
    features = FeatureStore.open(path)
    if recipe:
        settings = suited(settings, recipe, features.settings)
        note(other_features(recipe, features.settings))
    with ProgressView("training", unit="steps") as progress:
        record = train(
            features,
            out,
            settings,
            classes=parse_classes(classes),
            valid=valid or (),
            with_valid=with_valid,
            is_by_team=classes_by == "team",
            device=device,
            bank=bank,
            threads=threads,
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


def forecast(latest: "EpochProgress") -> str:
    """How long a run will take, and what it waits for, in one line."""
    waiting = f"{100 * latest.waiting_share:.0f} % of the time so far is spent waiting for clips"
    limit = f"the limit is decoding, {waiting}: more --decode-threads, or small copies by bas data proxy"
    if latest.waiting_share < _MUCH_WAITING:
        limit = f"the limit is the network, {waiting}" if latest.waiting_share else "the limit is the network"
    return f"about {duration(latest.seconds_left)} of training left, should it not stop early; {limit}"


def training_progress(progress: Progress) -> "TrainingProgress":
    """Callbacks of training that show steps on the bar of a `ProgressView`, and a line per epoch."""
    from ..heads.training.loop import TrainingProgress

    now: EpochProgress | None = None
    headline, forecast_at = "mAP", time.monotonic() + _FORECAST_SECONDS

    def started(record: "RunRecord", data: str, state: "LoopState") -> None:
        nonlocal headline
        headline = "mAP-10" if record.is_soccernet else "mAP"
        settings = record.settings
        progress.note(
            f"{settings.head}: {record.num_parameters:,} parameters; {data}; {len(record.train_matches)} matches with "
            f"{sum(record.num_train_events.values()):,} events train, {len(record.valid_matches)} validate"
        )
        if record.num_lost:
            progress.note(f"{record.num_lost} event(s) on the step of a rarer one: softmax labels cannot show them")
        if settings.share_of_rows < 1:
            progress.note(
                f"note: {100 * settings.share_of_rows:.0f} % of the rows are ever seen, as hop {settings.hop_rows} and "
                f"stride {settings.stride} have a common factor"
            )
        for line in rate_notes(record):
            progress.note(f"note: {line}")
        if state.epoch or state.step:
            progress.note(f"goes on at epoch {state.epoch + 1}, step {state.step}")

    def show_bar(words: str) -> None:
        if now is not None:
            done = (now.epoch - 1) * now.num_steps + now.step
            progress.advanced("", done, now.epochs * now.num_steps, f"epoch {now.epoch}/{now.epochs}, {words}")

    def advanced(latest: "EpochProgress") -> None:
        nonlocal now, forecast_at
        now = latest
        if time.monotonic() > forecast_at:
            forecast_at = float("inf")  # once
            progress.note(forecast(latest))
        waiting = f", waiting for clips {100 * latest.waiting_share:.0f} %" if latest.waiting_share else ""
        show_bar(f"loss {latest.loss:.4f}{waiting}, at most {duration(latest.seconds_left)} left")

    def validating(words: str) -> None:
        show_bar(f"validating{': ' if words else ''}{words}")

    def epoch_done(line: "EpochLine", state: "LoopState") -> None:
        mark = " *" if state.best_epoch == line.epoch else ""
        overall = f", mAP-12 {100 * line.mean:.2f}" if headline == "mAP-10" else ""
        waiting = f", {100 * line.waiting_share:.0f} % of training waiting for clips" if line.waiting_share else ""
        progress.note(
            f"epoch {line.epoch}: loss {line.loss:.4f}, {headline} {100 * line.headline:.2f}{overall}, "
            f"{line.seconds:.1f} s, of which {line.valid_seconds:.1f} s validation{waiting}{mark}"
        )

    return TrainingProgress(started=started, advanced=advanced, validating=validating, epoch_done=epoch_done)


def rate_notes(record: "RunRecord") -> list[str]:
    """What rows far apart can reach; nothing for others."""
    grid = TimeGrid(record.fps)
    if not grid.is_coarse:
        return []
    row_seconds = float(grid.seconds(1))
    reach_seconds = row_seconds * record.settings.targets.dilation_steps
    rows = f"{record.fps} row{'s' * (record.fps != 1)} a second"
    notes = [f"{rows}: a spot is put in the middle of its row, so at best within {row_seconds / 2:.2g} s of its event"]
    if reach_seconds > record.settings.tolerance / 2:
        notes.append(f"labels reach {reach_seconds:.2g} s to each side of an event: --dilate 0 makes them one row")
    return notes


def run_view(record: "RunRecord") -> "Group":
    """A finished run: what was chosen, and validation per class."""
    from rich.console import Group
    from rich.text import Text

    assert record.best is not None
    assert record.chosen is not None
    assert record.peaks is not None
    best, chosen = record.best, record.chosen
    num_events = f"{sum(record.num_train_events.values()):,}"
    rows = [["mAP-10", "", _percent(best.headline), _percent(chosen.headline)]] if record.is_soccernet else []
    rows.append(["mAP-12" if record.is_soccernet else "mAP", num_events, _percent(best.mean), _percent(chosen.mean)])
    rows += [
        [
            label,
            f"{record.num_train_events[label]:,}",
            _percent(best.per_class[label]),
            _percent(chosen.per_class[label]),
        ]
        for label in record.classes
    ]
    peaks = record.peaks
    note = (
        f"epoch {record.best_epoch} of {len(record.history)} is kept; peaks: {peaks.kind}, window "
        f"{peaks.window_frames} frames, smoothed by {peaks.sigma_frames:g}; chosen on these matches, so these figures "
        "are a little too high"
    )
    columns = (f"validation AP at {record.settings.tolerance:g} s", "train events", "default peaks", "chosen peaks")
    return Group(table(columns, rows), Text(note, "dim"))


def recipes_view() -> "Group":
    """Recipes with the backbone that they are for and what is published for them, then the heads."""
    from rich.console import Group
    from rich.text import Text

    from ..heads.recipes import RECIPES, SEED_TABLE
    from ..heads.registry import HEADS

    rows = []
    for name, recipe in RECIPES.items():
        figures = recipe.published
        published = ["", ""] if figures is None else [_or_dash(figures.map_10), _or_dash(figures.map_12)]
        rows.append([name, _backbone(recipe), *published, figures.by if figures else "", recipe.about])
    figures_of = {name: recipe.published for name, recipe in RECIPES.items() if recipe.published}
    sources = sorted({(figures.by, figures.source) for figures in figures_of.values()})
    notes = (
        *(f"{by}: {source}" for by, source in sources),
        *(f"{name}: {figures.other_system}" for name, figures in figures_of.items() if figures.other_system),
        f"published: on SoccerNet's test split. `bas ablate --recipes seed` runs the {len(SEED_TABLE)} recipes that "
        "name a backbone.",
        f"heads: {', '.join(HEADS)}; join necks by +, end with +disp; a head of your own: module:Settings",
    )
    columns = ("recipe", "backbone", "published\nmAP-10", "\nmAP-12", "\nby", "about")
    return Group(table(columns, rows), Text(""), *map(Text, notes))


def recipes_json() -> dict[str, Any]:
    """The same as plain JSON: recipes with their settings and what is published, and the names of the heads."""
    from dataclasses import asdict

    from ..heads.recipes import RECIPES
    from ..heads.registry import HEADS

    recipes = {
        name: {
            "backbone": recipe.backbone,
            "depth": recipe.depth,
            "about": recipe.about,
            "published": None if recipe.published is None else asdict(recipe.published),
            "settings": recipe.settings.to_json(),
        }
        for name, recipe in RECIPES.items()
    }
    return {"recipes": recipes, "heads": list(HEADS)}


def _backbone(recipe: "HeadRecipe") -> str:
    from ..cache.settings import depth_text

    blocks = f", {depth_text(recipe.depth)} blocks" if recipe.depth is not None else ""
    return f"{recipe.backbone}{blocks}" if recipe.backbone else "any"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
