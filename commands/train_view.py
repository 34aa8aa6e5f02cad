"""What a person sees of training: a line per epoch, and the tables of a finished run and of all recipes."""

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from ..events import TimeGrid
from ..workers import Progress
from .show import table

if TYPE_CHECKING:
    from ..heads.recipes import Recipe
    from ..heads.training.checkpoint import EpochLine, LoopState, RunRecord
    from ..heads.training.loop import EpochProgress, TrainingProgress

_TOLERANCE_SECONDS = 0.5
"""To either side, of the metric at 1 s."""


def training_progress(progress: Progress) -> "TrainingProgress":
    """Callbacks of training that show steps on the bar of a `ProgressView`, and a line per epoch."""
    from ..heads.training.loop import TrainingProgress

    now: EpochProgress | None = None
    headline = "mAP"

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
        for line in rate_notes(record):
            progress.note(f"note: {line}")
        if state.epoch or state.step:
            progress.note(f"goes on at epoch {state.epoch + 1}, step {state.step}")

    def show_bar(words: str) -> None:
        if now is not None:
            done = (now.epoch - 1) * now.num_steps + now.step
            progress.advanced("", done, now.epochs * now.num_steps, f"epoch {now.epoch}/{now.epochs}, {words}")

    def advanced(latest: "EpochProgress") -> None:
        nonlocal now
        now = latest
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
    if reach_seconds > _TOLERANCE_SECONDS:
        notes.append(f"labels reach {reach_seconds:.2g} s to each side of an event: --dilate 0 makes them one row")
    return notes


def run_view(record: "RunRecord") -> Group:
    """A finished run: what was chosen, and validation per class."""
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
    columns = ("validation AP at 1 s", "train events", "default peaks", "chosen peaks")
    return Group(table(columns, rows), Text(note, "dim"))


def recipes_view() -> Group:
    """Recipes with the backbone that they are for and what is published for them, then the heads."""
    from ..heads.recipes import RECIPES, SEED_TABLE
    from ..heads.registry import HEADS

    rows = []
    for name, recipe in RECIPES.items():
        figures = recipe.published
        published = ["", ""] if figures is None else [_or_dash(figures.map_10), _or_dash(figures.map_12)]
        source = "" if figures is None else figures.source.split(",", maxsplit=1)[0]
        rows.append([name, _backbone(recipe), *published, source, recipe.about])
    notes = (
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


def _backbone(recipe: "Recipe") -> str:
    blocks = f", {recipe.depth} blocks" if recipe.depth is not None else ""
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
