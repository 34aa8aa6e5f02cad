"""What a person sees while `bas extract` runs, and the table at its end."""

import time
from collections import Counter
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..cache.settings import FeatureSettings
from ..cluster.pool import Slot
from ..extract.cluster_run import ClusterReporter
from ..extract.engines.choose import Fidelity
from ..extract.run import MatchResult, Reporter, RowsDone, Summary

_STATUS_STYLES = {"failed": "bold red", "busy elsewhere": "yellow", "already there": "dim"}


class ExtractionView:
    """A progress bar on stderr; plain lines where stderr is not a terminal. Use it in a `with`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.fields[place]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[bottleneck]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._num_matches = 0
        self._num_finished = 0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return Reporter(
            started=self._started, fidelity=self._fidelity, progress=self._progress, finished=self._finished
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _started(self, settings: FeatureSettings, engine: str, num_matches: int) -> None:
        self._num_matches = num_matches
        self._console.print(describe_settings(settings))
        self._console.print(f"engine {engine}, {num_matches} match{'es' if num_matches != 1 else ''}")

    def _fidelity(self, fidelity: Fidelity) -> None:
        standardised = f"; standardised {fidelity.standardised_cosine:.6f}"
        self._console.print(f"engine against plain fp32: worst row's cosine {fidelity.cosine:.6f}{standardised}")

    def _progress(self, done: RowsDone) -> None:
        if self._task is None:
            self._task = self._bar.add_task(
                done.match_id, total=done.num_rows, completed=done.first_row, place="", speed="", bottleneck=""
            )
        speed = (done.rows_done - done.first_row) / max(done.seconds, 1e-9)
        self._bar.update(
            self._task,
            completed=done.rows_done,
            place=f"{self._num_finished + 1}/{self._num_matches}",
            speed=f"{speed:,.0f} frames/s",
            bottleneck=f"{done.bottleneck} is the limit",
        )

    def _finished(self, result: MatchResult) -> None:
        self._num_finished += 1
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if not self._console.is_terminal or result.message:
            place = f"{self._num_finished}/{self._num_matches}"
            self._console.print(f"{place} {finished_text(result)}", markup=False, soft_wrap=True)
        if result.message:
            self._console.print(result.message, style=result_style(result), markup=False, soft_wrap=True)


def finished_text(result: MatchResult) -> str:
    """`rally-1: extracted, 264 frames at 87.6 frames/s, backbone-bound`."""
    text = f"{result.match_id}: {result.status}"
    if not result.rows_extracted:
        return text
    return (
        f"{text}, {result.rows_extracted:,} frames at {result.rows_per_second:,.1f} frames/s, {result.bottleneck}-bound"
    )


def result_style(result: MatchResult) -> str:
    """Colour of a result's message."""
    return "yellow" if result.is_stored else "red"


def describe_settings(settings: FeatureSettings) -> str:
    """Settings in one line."""
    depth = f" depth {settings.depth}" if settings.depth is not None else ""
    plan = "each frame by itself"
    if settings.window > 1:
        plan = f"window {settings.window} hop {settings.hop} {settings.blend} stride {settings.stride}"
    return (
        f"{settings.backbone}{depth}, weights {settings.weights}: {settings.dim} channels, "
        f"{settings.width}x{settings.height} at {settings.fps} fps, {plan}"
    )


def summary_view(summary: Summary) -> Group:
    """The table at the end: one line per match that this run worked on, then the sum."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    on_cluster = any(result.place for result in summary.results)
    for name in ("match", "frames", "frames/s", "limit", "invalid", "status", *(["on"] if on_cluster else [])):
        is_text = name in ("match", "limit", "status", "on")
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for result in summary.results:
        speed = f"{result.rows_per_second:,.1f}" if result.rows_extracted else ""
        style = _STATUS_STYLES.get(result.status, "")
        rows = f"{result.num_rows:,}" if result.num_rows else ""
        bad = f"{result.bad_rows:,}" if result.rows_extracted else ""
        table.add_row(
            result.match_id,
            rows,
            speed,
            result.bottleneck,
            bad,
            f"[{style}]{result.status}" if style else result.status,
            *([_where(result)] if on_cluster else []),
        )
    return Group(table, "", summary_line(summary))


def _where(result: MatchResult) -> str:
    if not result.retries:
        return result.place
    return f"{result.place}, after {result.retries} lost worker{'s' if result.retries > 1 else ''}"


def summary_line(summary: Summary) -> str:
    """`33 extracted; 6,686 frames in 119.2 s, 56.1 frames/s -> store`."""
    counts = Counter(result.status for result in summary.results)
    rows, seconds = sum(r.rows_extracted for r in summary.results), sum(r.seconds for r in summary.results)
    seconds = seconds if summary.seconds is None else summary.seconds
    speed = f"; {rows:,} frames in {seconds:,.1f} s, {rows / seconds:,.1f} frames/s" if rows else ""
    return f"{', '.join(f'{count} {status}' for status, count in counts.items())}{speed} -> {summary.store}"


def summary_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON."""
    return {
        "store": str(summary.store),
        "settings": summary.settings.to_json(),
        "settings_key": summary.settings.key(),
        "engine": summary.engine,
        "complete": summary.complete,
        "matches": [
            {
                "match": result.match_id,
                "status": result.status,
                "rows": result.num_rows,
                "rows_extracted": result.rows_extracted,
                "seconds": round(result.seconds, 3),
                "rows_per_second": round(result.rows_per_second, 2),
                "invalid_rows": result.bad_rows,
                "bottleneck": result.bottleneck,
                "message": result.message,
                "place": result.place,
                "retries": result.retries,
            }
            for result in summary.results
        ],
    }


_SPEED_SECONDS = 120.0
"""The speed of the whole is that of the last so many."""


class ClusterView:
    """Bars on stderr; plain lines where stderr is not a terminal. Use it in a `with`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._whole: TaskID | None = None
        self._devices: dict[str, TaskID] = {}
        self._num_matches, self._num_frames, self._num_finished = 0, 0, 0
        self._frames_of_finished = 0
        self._under_way: dict[str, RowsDone] = {}
        """By match."""
        self._skipped: dict[str, int] = {}
        """Match -> rows that were there before this run began with it."""
        self._seen: list[tuple[float, int]] = []
        """Times, and frames done by then in this run."""

    def __enter__(self) -> ClusterReporter:
        self._bar.start()
        return ClusterReporter(
            started=self._started,
            joined=self._joined,
            progress=self._progress,
            finished=self._finished,
            lost=self._lost,
            note=self._note,
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _started(self, settings: FeatureSettings, num_matches: int, num_frames: int) -> None:
        self._num_matches, self._num_frames, self._num_finished = num_matches, num_frames, 0
        self._console.print(describe_settings(settings))
        self._console.print(f"{num_matches} match{'es' if num_matches != 1 else ''}, {num_frames:,} frames")
        self._whole = self._bar.add_task("all", total=max(num_frames, 1), text="")

    def _joined(self, slot: Slot, engine: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{slot.place}: ready, engine {engine}", markup=False, soft_wrap=True)
        if slot.place not in self._devices:
            self._devices[slot.place] = self._bar.add_task(slot.place, total=1.0, text=engine)

    def _progress(self, place: str, done: RowsDone) -> None:
        self._under_way[done.match_id] = done
        self._skipped[done.match_id] = done.first_row
        speed = (done.rows_done - done.first_row) / max(done.seconds, 1e-9)
        text = f"{done.match_id} {speed:,.0f} frames/s, {done.bottleneck} is the limit"
        self._bar.update(self._devices[place], total=done.num_rows, completed=done.rows_done, text=text)
        self._show()

    def _finished(self, result: MatchResult) -> None:
        self._num_finished += 1
        self._under_way.pop(result.match_id, None)
        self._frames_of_finished += result.num_rows if result.rows_extracted else 0
        self._skipped[result.match_id] = result.num_rows - result.rows_extracted
        if result.place in self._devices:
            self._bar.update(self._devices[result.place], completed=0, text="")
        if not self._console.is_terminal or result.message:
            text = finished_text(result) + (f", {result.place}" if result.place else "")
            self._console.print(f"{self._place} {text}", markup=False, soft_wrap=True)
        if result.message:
            self._console.print(result.message, style=result_style(result), markup=False, soft_wrap=True)
        self._show()

    def _lost(self, match_id: str, place: str, why: str) -> None:
        self._under_way.pop(match_id, None)
        self._console.print(
            f"{match_id}: its worker on {place} was lost: {why}", style="yellow", markup=False, soft_wrap=True
        )
        if place in self._devices:
            self._bar.update(self._devices[place], completed=0, text="lost")

    def _note(self, text: str) -> None:
        self._console.print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)

    @property
    def _place(self) -> str:
        return f"{self._num_finished}/{max(self._num_matches, self._num_finished)}"

    def _show(self) -> None:
        if self._whole is None:
            return
        done = self._frames_of_finished + sum(each.rows_done for each in self._under_way.values())
        here, now = done - sum(self._skipped.values()), time.monotonic()
        self._seen = [each for each in self._seen if now - each[0] < _SPEED_SECONDS] + [(now, here)]
        seconds, frames = now - self._seen[0][0], here - self._seen[0][1]
        text = f"{self._place} matches, {done:,}/{self._num_frames:,} frames"
        if seconds > 0 and frames > 0:
            left = max(self._num_frames - done, 0) * seconds / frames
            text += f", {frames / seconds:,.0f} frames/s, {_clock(left)} left"
        self._bar.update(self._whole, completed=done, text=text)


def _clock(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
