"""The only place that prints: tables, notes, progress. Names may come from anywhere, so all text is made safe here."""

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from ..errors import printable
from ..workers import MatchResult, Progress, Summary

if TYPE_CHECKING:  # rich takes 0.1 s to import, and `bas --help` does without it
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import TaskID
    from rich.segment import Segment
    from rich.table import Table

Cell = str | int | float | None
_MAX_MATCHES = 60
"""Lines of a summary's table; matches with something to say come first."""
_STYLES = {"failed": "bold red", "differs": "bold red", "busy elsewhere": "yellow", "already there": "dim"}
_SPEED_SECONDS = 60.0
"""The speed shown is that of the last so many seconds."""
_QUIET = ContextVar("quiet", default=False)
_VERBOSE = ContextVar("verbose", default=False)


def configure(*, quiet: bool, verbose: bool) -> None:
    """Set what --quiet and --verbose ask for, for the rest of the command."""
    _QUIET.set(quiet)
    _VERBOSE.set(verbose)


@dataclass(frozen=True)
class Printable:
    """A view whose text cannot steer the terminal."""

    view: "RenderableType"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Segment]":
        """Render the view, with every unprintable character as its escape."""
        for segment in console.render(self.view, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def show(
    view: "RenderableType", record: object = None, *, as_json: bool = False, piped_width: int | None = None
) -> None:
    """Print a result on stdout: a view for people, or its record as one JSON document.

    Args:
        view: a table, group or text of rich; square brackets in plain strings are shown as they are.
        record: plain JSON values.
        as_json: whether to print the record.
        piped_width: columns to use where stdout is no terminal; None: rich decides (80).
    """
    from rich.console import Console

    if as_json:
        print(json.dumps(record, indent=1))
    else:
        width = None if sys.stdout.isatty() else piped_width
        Console(highlight=False, markup=False, width=width).print(Printable(view))


def finish(
    summary: Summary,
    *lines: str,
    as_json: bool,
    view: "RenderableType | None" = None,
    piped_width: int | None = None,
) -> None:
    """Show how a command ended, then further lines; exit code 2 where a match is missing."""
    show(view or summary_view(summary), summary.to_json(), as_json=as_json, piped_width=piped_width)
    for line in () if as_json else lines:
        say(line)
    if not summary.complete:
        raise typer.Exit(2)


def say(text: str) -> None:
    """Print lines on stdout as they are: they are never wrapped, so that paths can be copied."""
    print(printable(text))


def note(text: str) -> None:
    """Print a note on stderr; nothing where the text is empty."""
    if text:
        print(f"note: {printable(text)}", file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, styles: dict[str, str] | None = None) -> "Table":
    """A table of plain text; numbers are aligned to the right.

    Args:
        columns: headings.
        rows: one cell per column: text, numbers (thousands are separated, floats have one digit), None: empty.
        styles: text of a cell -> its style, such as `failed` -> `bold red`.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    view = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        is_number = any(isinstance(row[index], int | float) for row in cells)
        view.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        view.add_row(*(Text(cell_text(cell), (styles or {}).get(str(cell), "")) for cell in row))
    return view


def cell_text(cell: Cell) -> str:
    """`1,234`, `12.3`, text as it is, or nothing."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.1f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def size_text(num_bytes: float) -> str:
    """`1.25 GB`, `13.2 MB`."""
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def summary_view(summary: Summary) -> "RenderableType":
    """The table at the end of a command: a line per match, what went wrong, the sum."""
    from rich.console import Group
    from rich.text import Text

    ordered = sorted(summary.results, key=lambda each: (each.is_done, each.status == "already there"))
    if len(ordered) <= _MAX_MATCHES:
        ordered = list(summary.results)
    with_rows = any(result.num_rows for result in ordered)
    names = list(dict.fromkeys(name for result in summary.results for name in result.columns))
    columns = ["match", *(["frames"] if with_rows else []), *names, "status"]
    rows = [
        [
            result.match_id,
            *([result.num_rows or None] if with_rows else []),
            *(result.columns.get(name) for name in names),
            result.status,
        ]
        for result in ordered[:_MAX_MATCHES]
    ]
    parts: list[RenderableType] = [table(columns, rows, styles=_STYLES)]
    if len(ordered) > _MAX_MATCHES:
        parts.append(Text(f"and {len(ordered) - _MAX_MATCHES} more", "dim"))
    parts += [Text(f"{result.match_id}: {result.message}", "red") for result in ordered if not result.is_done]
    return Group(*parts, Text(), Text(summary_line(summary)))


def summary_line(summary: Summary) -> str:
    """`33 extracted; 6,686 frames in 119.2 s, 56.1 frames/s -> store`."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts.items()) or "no match"
    speed = ""
    if summary.amount and summary.seconds:
        amount = cell_text(summary.amount if summary.unit == "MB" else round(summary.amount))
        per_second = summary.amount / summary.seconds
        speed = f"; {amount} {summary.unit} in {summary.seconds:,.1f} s, {per_second:,.1f} {summary.unit}/s"
    return f"{counts}{speed} -> {summary.target}"


class ProgressView:
    """A bar per match under way and one for the whole, on stderr; plain lines where stderr is not a terminal.

    Use it in a `with`, which gives the callbacks.
    """

    def __init__(self, what: str, *, unit: str = "frames") -> None:
        """Name what is done (`extracting`) and the unit that is counted."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        quiet = _QUIET.get()
        self._console = Console(stderr=True, highlight=False, markup=False, quiet=quiet)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal or quiet,
        )
        self._what, self._unit, self._verbose = what, unit, _VERBOSE.get()
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._num_matches, self._num_finished = 0, 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return Progress(started=self._started, note=self._print, advanced=self._advanced, finished=self._finished)

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _started(self, num_matches: int, total: float) -> None:
        self._num_matches, self._num_finished = num_matches, 0
        amount = f", {self._amount(total)}" if total else ""
        self._console.print(printable(f"{self._what} {num_matches} match{'es' if num_matches != 1 else ''}{amount}"))

    def _advanced(self, match_id: str, done: float, total: float, words: str) -> None:
        with self._lock:
            now = time.monotonic()
            if match_id not in self._tasks:
                self._tasks[match_id] = self._bars.add_task(match_id or self._what, total=total, text="")
                self._begun[match_id] = now, done
            begun, before = self._begun[match_id]
            if now - begun > _SPEED_SECONDS:
                self._begun[match_id] = now, done
            speed = f", {self._amount((done - before) / (now - begun))}/s" if now - begun > 0.5 else ""
            place = (
                f"{min(self._num_finished + 1, self._num_matches)}/{self._num_matches} " if self._num_matches else ""
            )
            text = f"{place}{self._amount(done, total)}{speed}{', ' if words else ''}{words}"
            self._bars.update(self._tasks[match_id], completed=done, total=total, text=text)

    def _amount(self, done: float, total: float | None = None) -> str:
        if self._unit == "bytes":
            return size_text(done) + (f" of {size_text(total)}" if total else "")
        return f"{done:,.0f}" + (f"/{total:,.0f}" if total else "") + f" {self._unit}"

    def _finished(self, result: MatchResult) -> None:
        with self._lock:
            self._num_finished += 1
            if result.match_id in self._tasks:
                self._bars.remove_task(self._tasks.pop(result.match_id))
            place = f"{self._num_finished}/{max(self._num_matches, self._num_finished)}"
            if not self._console.is_terminal or result.message:
                self._print(f"{place} {finished_text(result)}")
            if result.message:
                self._print(result.message, style="yellow" if result.is_done else "red")
            if result.details and self._verbose:
                self._print(result.details, style="dim")

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style, soft_wrap=True)


def finished_text(result: MatchResult) -> str:
    """`rally-1: extracted, 264 frames in 3.0 s, limit backbone`."""
    amount = f", {result.num_rows:,} frames in {result.seconds:,.1f} s" if result.num_rows and result.seconds else ""
    more = ", ".join(f"{name} {cell_text(cell)}" for name, cell in result.columns.items() if cell not in ("", None))
    return f"{result.match_id}: {result.status}{amount}{', ' if more else ''}{more}"
