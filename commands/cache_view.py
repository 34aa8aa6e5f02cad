"""What a person sees while stores travel, and the table at the end."""

from collections import Counter
from threading import Lock

from rich.console import Console, Group
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from ..cache.share.transfer import BAD, MatchOutcome, Outcome, Reporter, size_text

_STYLES = {"already there": "dim", **dict.fromkeys(BAD, "bold red")}
_SHOWN = 40
"""Matches in the table; those with something to say come first."""


class TransferView:
    """A progress bar of bytes on stderr; plain lines where stderr is not a terminal. Use it in a `with`."""

    def __init__(self, what: str) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._what, self._num_matches, self._num_finished = what, 0, 0
        self._lock = Lock()
        self._task = self._bar.add_task(what, total=None)

    def __enter__(self) -> Reporter:
        self._bar.start()
        return Reporter(planned=self._planned, on_bytes=self._on_bytes, waiting=self._waiting, finished=self._finished)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _planned(self, num_matches: int, num_bytes: int) -> None:
        self._num_matches, self._num_finished = num_matches, 0
        self._bar.reset(self._task, total=num_bytes, description=self._what)
        self._console.print(
            f"{self._what} {num_matches} match{'es' if num_matches != 1 else ''}, {size_text(num_bytes)}"
        )

    def _on_bytes(self, num_bytes: int) -> None:
        self._bar.advance(self._task, num_bytes)

    def _waiting(self, owner: str) -> None:
        self._console.print(f"another bas fills the cache ({owner}): waiting for it")

    def _finished(self, outcome: MatchOutcome) -> None:
        if outcome.status == "already there":
            return
        with self._lock:
            self._num_finished += 1
            place = f"{self._num_finished}/{self._num_matches}"
        self._bar.update(self._task, description=f"{self._what} {place}")
        if outcome.message or not self._console.is_terminal:
            self._console.print(f"{place} {outcome.match}: {outcome.status}", markup=False, soft_wrap=True)


def outcome_view(outcome: Outcome) -> Group:
    """One line per match, the sum, then what went wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("match", "split", "views", "MB", "status"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    ordered = sorted(outcome.results, key=lambda each: (each.status not in BAD, each.status == "already there"))
    for each in ordered[:_SHOWN]:
        size = f"{each.bytes / 1e6:,.1f}" if each.bytes else ""
        status = Text(each.status, _STYLES.get(each.status, ""))
        table.add_row(Text(each.match), each.split, Text(" ".join(each.views)), size, status)
    more = [Text(f"and {len(ordered) - _SHOWN} more", "dim")] if len(ordered) > _SHOWN else []
    messages = [Text(f"{each.match}: {each.message}", "red") for each in outcome.results if each.message]
    return Group(table, *more, "", Text(outcome_line(outcome)), *messages)


def outcome_line(outcome: Outcome) -> str:
    """`2 sent, 40 already there; 1.2 MB in 0.3 s, 4.0 MB/s: x3d_s.zarr -> s3://team/x3d_s.zarr`."""
    counts = Counter(each.status for each in outcome.results)
    speed = f"; {size_text(outcome.bytes)} in {outcome.seconds:,.1f} s, {size_text(outcome.bytes / outcome.seconds)}/s"
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{told}{speed if outcome.bytes else ''}: {outcome.source} -> {outcome.target}"
