"""What a person sees while `bas extract --ray` runs: one line of the whole, one per device."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..cache.settings import FeatureSettings
from ..cluster.pool import Slot
from .cluster_run import ClusterReporter
from .progress_view import describe_settings, finished_text, result_style
from .run import MatchResult, RowsDone

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
