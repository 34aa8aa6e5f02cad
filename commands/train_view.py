"""What a person sees while `bas finetune` runs: as `bas train-head`, and how far the validation matches are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..events import TimeGrid
from ..extract.run import RowsDone
from ..finetune.devices import is_first_process
from ..heads.recipes import RECIPES, SEED_TABLE, Recipe
from ..heads.registry import HEADS
from ..heads.training.checkpoint import EpochLine, LoopState
from ..heads.training.loop import Progress as Look
from ..heads.training.loop import Reporter
from ..heads.training.checkpoint import RunRecord


@contextmanager
def finetune_view() -> Iterator[tuple[Reporter, Callable[[RowsDone], None]]]:
    """A progress bar on stderr and a line per epoch, in a `with`: what hears of the run, and of validation's rows.

    Of several processes one shows anything.
    """
    if not is_first_process():
        yield Reporter(), lambda _: None
        return
    view = TrainingView("opening videos")

    def rows(done: RowsDone) -> None:
        view.note(f"validating: {done.match_id}, {100 * done.rows_done / done.num_rows:.0f} % of its rows")

    with view as report:
        yield report, rows


_TOLERANCE_SECONDS = 0.5
"""To either side, of the metric at 1 s."""


class TrainingView:
    """A progress bar on stderr and a line per epoch. Use it in a `with`.

    Args:
        first: what is done before the first update.
    """

    def __init__(self, first: str = "reading features") -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(first, total=None, note="")
        self._headline = "mAP"
        self._last = ""
        self._left = ""

    def __enter__(self) -> Reporter:
        self._bar.start()
        return Reporter(started=self._started, progress=self._progress, validating=self._validating, epoch=self._epoch)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _started(self, record: RunRecord, data: str, state: LoopState) -> None:
        self._headline = "mAP-10" if record.is_soccernet else "mAP"
        settings = record.settings
        self._console.print(
            f"{settings.head}: {record.num_parameters:,} parameters; {data}; {len(record.train_matches)} matches with "
            f"{sum(record.num_train_events.values()):,} events train, {len(record.valid_matches)} validate"
        )
        if record.num_lost:
            self._console.print(
                f"{record.num_lost} event(s) on the step of a rarer one: softmax labels cannot show them",
                style="yellow",
            )
        for line in rate_notes(record):
            self._console.print(f"note: {line}", style="yellow")
        if state.epoch or state.step:
            self._console.print(f"goes on at epoch {state.epoch + 1}, update {state.step}")

    def _progress(self, look: Look) -> None:
        self._left = duration(look.seconds_left)
        waiting = f"waiting for clips {100 * look.waiting_share:.0f} %, " if look.waiting_share else ""
        self._bar.update(
            self._task,
            description=f"epoch {look.epoch}/{look.epochs}",
            completed=look.updates,
            total=look.num_updates,
            note=f"loss {look.loss:.4f}, {self._last}{waiting}at most {self._left} left",
        )

    def note(self, text: str) -> None:
        """Show something at the bar's end."""
        self._bar.update(self._task, note=text)

    def _validating(self) -> None:
        self._bar.update(self._task, note=f"validating; at most {self._left} left")

    def _epoch(self, line: EpochLine, state: LoopState) -> None:
        mark = " *" if state.best_epoch == line.epoch else ""
        self._last = f"{self._headline} {100 * line.headline:.2f}, "
        overall = f", mAP-12 {100 * line.mean:.2f}" if self._headline == "mAP-10" else ""
        waiting = f", {100 * line.waiting_share:.0f} % of training waiting for clips" if line.waiting_share else ""
        self._console.print(
            f"epoch {line.epoch}: loss {line.loss:.4f}, {self._headline} {100 * line.headline:.2f}{overall}, "
            f"{line.seconds:.1f} s, of which {line.valid_seconds:.1f} s validation{waiting}{mark}"
        )


def rate_notes(record: RunRecord) -> list[str]:
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


def run_view(record: RunRecord) -> Group:
    """A finished run: what was chosen, and validation per class."""
    assert record.best is not None
    assert record.chosen is not None
    assert record.peaks is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("validation AP at 1 s", "train events", "default peaks", "chosen peaks"):
        table.add_column(name, justify="left" if name.startswith("validation") else "right")
    if record.is_soccernet:
        table.add_row("mAP-10", "", _percent(record.best.headline), _percent(record.chosen.headline), style="bold")
    table.add_row(
        "mAP-12" if record.is_soccernet else "mAP",
        f"{sum(record.num_train_events.values()):,}",
        _percent(record.best.mean),
        _percent(record.chosen.mean),
        style="bold",
    )
    for label in record.classes:
        table.add_row(
            Text(label),
            f"{record.num_train_events[label]:,}",
            _percent(record.best.per_class[label]),
            _percent(record.chosen.per_class[label]),
        )
    peaks = record.peaks
    note = (
        f"epoch {record.best_epoch} of {len(record.history)} is kept; peaks: {peaks.kind}, window "
        f"{peaks.window_frames} frames, smoothed by {peaks.sigma_frames:g}; chosen on these matches, so their "
        "figures flatter"
    )
    return Group(table, Text(note, "dim"))


def recipes_view() -> Group:
    """Recipes with the backbone that they are for and what is published for them, then the heads."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("recipe", "backbone", "published\nmAP-10", "\nmAP-12", "\nby"):
        table.add_column(name, justify="right" if "mAP" in name else "left", no_wrap=True)
    table.add_column("about")
    for name, recipe in RECIPES.items():
        figures = recipe.published
        table.add_row(
            name,
            _backbone(recipe),
            *(["", ""] if figures is None else [_or_dash(figures.map_10), _or_dash(figures.map_12)]),
            "" if figures is None else figures.source.split(",", maxsplit=1)[0],
            recipe.about,
        )
    notes = (
        f"published: on SoccerNet's test split. `bas ablate --recipes seed` runs the {len(SEED_TABLE)} recipes that "
        "name a backbone.",
        f"heads: {', '.join(HEADS)}; join necks by +, end with +disp",
    )
    return Group(table, Text(""), *map(Text, notes))


def _backbone(recipe: Recipe) -> str:
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
