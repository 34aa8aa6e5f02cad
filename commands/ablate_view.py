"""What a person sees while `bas ablate` runs, and the table at its end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Grid
from rich.text import Text

from ..ablate.loop import Reporter
from ..ablate.plan import Place
from ..ablate.runs import RunTask
from ..ablate.table import SHEET, Judged, Row, Table
from ..heads.recipes import RECIPES
from ..workers import Failure
from ..workers import Progress as Callbacks
from .show import ProgressView
from .train_view import duration

_SPEED_SECONDS = 600.0
"""The time left is guessed from the last so many."""
_NUM_SHOWN = 4


class AblationView:
    """An overall bar with the time left on stderr, and a line per finished run. Use it in a `with`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.fields[done]} runs"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[at]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            speed_estimate_period=_SPEED_SECONDS,
        )
        self._task: TaskID | None = None
        self._tasks: Sequence[RunTask] = ()
        self._shares: dict[str, float] = {}
        """Of the runs under way."""
        self._num_ended, self._cost_ended = 0, 0.0

    def __enter__(self) -> Reporter:
        return Reporter(
            note=self._note,
            extracting=self._extracting,
            begun=self._begun,
            progress=self._progress,
            ended=self._ended,
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _note(self, text: str) -> None:
        self._console.print(f"note: {text}", style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def _extracting(self, place: Place) -> Iterator[Callbacks]:
        self._console.print(f"extracting {place.store}", markup=False, soft_wrap=True)
        with ProgressView("extracting") as progress:
            yield progress

    def _begun(self, tasks: Sequence[RunTask], jobs: int) -> None:
        if not tasks:
            return
        self._tasks = tasks
        self._console.print(f"{len(tasks)} run{'s' if len(tasks) > 1 else ''}, {jobs} side by side")
        self._task = self._bar.add_task("", total=sum(task.cost for task in tasks), done=self._done, at="")
        self._bar.start()

    def _progress(self, task: RunTask, share: float) -> None:
        self._shares[task.name] = share
        self._show()

    def _ended(self, task: RunTask, result: Judged | Failure) -> None:
        self._shares.pop(task.name, None)
        self._num_ended, self._cost_ended = self._num_ended + 1, self._cost_ended + task.cost
        place = f"{self._num_ended}/{len(self._tasks)} {task.name}: "
        if isinstance(result, Judged):
            figures = [f"{name} {_percent(score['value'])}" for name, score in result.means.items()]
            self._console.print(
                f"{place}{', '.join(figures)}, trained in {_time(result.seconds)}", markup=False, soft_wrap=True
            )
        else:
            self._console.print(f"{place}failed: {result.why}", style="red", markup=False, soft_wrap=True)
        self._show()

    @property
    def _done(self) -> str:
        return f"{self._num_ended}/{len(self._tasks)}"

    def _show(self) -> None:
        if self._task is not None:
            at = [f"{name} {f'{share:.0%}' if share < 1 else 'judged'}" for name, share in self._shares.items()]
            cost = {task.name: task.cost for task in self._tasks}
            completed = self._cost_ended + sum(cost[name] * share for name, share in self._shares.items())
            self._bar.update(self._task, completed=completed, done=self._done, at=", ".join(at[:_NUM_SHOWN]))


def table_view(table: Table) -> Group:
    """Ours beside the published figures, the chance row, why rows failed, and what to know when reading it."""
    failed = [row for row in table.rows if row.status == "failed"]
    reasons = [Text(f"{row.name} failed: {row.error}", "red") for row in failed]
    return Group(_Fitted(table), Text(""), *(Text(note, "dim") for note in _notes(table)), *reasons)


@dataclass(frozen=True)
class _Column:
    title: str
    cells: list[str]
    """One per row, the chance row last."""
    rank: int = 0
    """The highest goes first where the terminal is too narrow; 0: never."""
    is_text: bool = False


@dataclass(frozen=True)
class _Fitted:
    """The grid with as many columns as fit."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = _columns(self.table)
        while True:
            grid = _grid(columns)
            width = Measurement.get(console, options.update(width=10_000), grid).maximum
            worst = max(column.rank for column in columns)
            if width <= options.max_width or not worst:
                break
            columns = [column for column in columns if column.rank < worst]
        yield grid
        if len(columns) < len(_columns(self.table)):
            yield Text(f"a wider terminal shows more; {SHEET} holds all", "dim")


def _grid(columns: Sequence[_Column]) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column.title, justify="left" if column.is_text else "right", no_wrap=True)
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for cells in rows[:-1]:
        grid.add_row(*map(Text, cells))
    grid.add_row(*map(Text, rows[-1]), style="dim")
    return grid


def _columns(table: Table) -> list[_Column]:
    """Every column; those that say nothing are left out."""
    rows = table.rows
    columns = [
        _Column("recipe", [*(row.name for row in rows), "chance"], is_text=True),
        _Column("backbone", [*map(_backbone, rows), ""], rank=4, is_text=True),
        _Column("head", [*(row.head for row in rows), ""], rank=5, is_text=True),
        _Column("seeds", [*(f"{len(row.runs)}/{row.num_seeds}" for row in rows), ""], rank=2),
    ]
    for number, name in enumerate(table.measures):
        columns.append(_Column(name, [*(_mean(row, name) for row in rows), _percent(table.chance.get(name))]))
        if number == 0:
            columns.append(_Column("interval", [*(_interval(row, name) for row in rows), ""], rank=1))
    if any(RECIPES[row.recipe].published for row in rows):
        published = list(zip(*map(_published, rows), strict=True))
        for title, cells, rank in zip(("published\nmAP-10", "\nmAP-12", "\nby"), published, (0, 0, 6), strict=True):
            columns.append(_Column(title, [*cells, ""], rank, is_text=title.endswith("by")))
    columns += [
        _Column(
            "parameters", [*("-" if row.parameters is None else f"{row.parameters:,}" for row in rows), ""], rank=3
        ),
        _Column("trained in", [*(_time(row.seconds) for row in rows), ""], rank=3),
    ]
    return columns


def _mean(row: Row, measure: str) -> str:
    value, sd = row.over_seeds("value").get(measure), (row.sd() or {}).get(measure)
    return _percent(value) if sd is None else f"{_percent(value)} ± {_percent(sd)}"


def _interval(row: Row, measure: str) -> str:
    low, high = row.over_seeds("low").get(measure), row.over_seeds("high").get(measure)
    return "-" if low is None else f"{_percent(low)} to {_percent(high)}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _published(row: Row) -> tuple[str, str, str]:
    """mAP-10, mAP-12 and whose."""
    by = row.published
    if by is not None:
        return _given(by["map_10"]), _given(by["map_12"]), str(by["source"]).split(",", maxsplit=1)[0]
    return "-", "-", "other backbone" if RECIPES[row.recipe].published else "-"


def _notes(table: Table) -> Iterator[str]:
    if any(row.runs for row in table.rows):
        yield (
            f"AP in % at 1 s, split {table.split}; mean ± standard deviation over seeds; interval: mean ends of the "
            "seeds' 95 % bootstrap intervals; trained in: mean seconds of the epochs, one thread a run on a CPU"
        )
    shorter = [row for row in table.rows if 0 < row.frames_per_epoch < RECIPES[row.recipe].settings.frames_per_epoch]
    if shorter and table.settings.get("frames_per_epoch") is None:
        steps = sorted({row.frames_per_epoch for row in shorter})
        text = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        yield f"epochs of {text} steps, shorter than the recipes': {len(shorter)} row(s) see each window once an epoch"
    yield from table.notes


def _backbone(row: Row) -> str:
    return row.backbone if row.depth is None else f"{row.backbone}, {row.depth} blocks"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _given(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
