"""What a person sees while `bas data proxy` runs, and the table at its end."""

import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .data_set import ProxyReporter, ProxySummary, VideoResult


class ProxyView:
    """A progress bar on stderr; plain lines where stderr is not a terminal. Use it in a `with`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("copying", total=1, speed="")
        self._num_videos = self._num_finished = 0
        self._started_seconds = 0.0

    def __enter__(self) -> ProxyReporter:
        self._bar.start()
        return ProxyReporter(started=self._started, progress=self._progress, finished=self._finished)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _started(self, num_videos: int, num_frames: int) -> None:
        self._num_videos, self._started_seconds = num_videos, time.perf_counter()
        self._bar.update(self._task, total=num_frames)

    def _progress(self, num_frames: float) -> None:
        speed = num_frames / max(time.perf_counter() - self._started_seconds, 1e-9)
        place = f"copying, {self._num_finished} of {self._num_videos} done"
        self._bar.update(self._task, description=place, completed=num_frames, speed=f"{speed:,.0f} frames/s")

    def _finished(self, result: VideoResult) -> None:
        self._num_finished += 1
        if result.report is None:
            self._console.print(f"{result.match_id}: {result.why}", style="red", markup=False, soft_wrap=True)
        elif not self._console.is_terminal:
            place = f"{self._num_finished}/{self._num_videos} {result.match_id}"
            self._console.print(f"{place}: {_status(result)}", markup=False, soft_wrap=True)


def _status(result: VideoResult) -> str:
    return "failed" if result.report is None else "copied" if result.is_new else "already there"


def summary_view(summary: ProxySummary) -> Table:
    """One line per video, and what they come to."""
    settings, reports = summary.settings, [result.report for result in summary.results if result.report is not None]
    size = f"{settings.width}x{settings.height}, a key frame every {settings.gop}, crf {settings.crf}"
    table = Table(title=f"{summary.root}: {size}", title_justify="left", show_footer=bool(reports))
    source, proxy = (sum(r.source_bytes for r in reports) / 1e6, sum(r.proxy_bytes for r in reports) / 1e6)
    table.add_column("match", footer=f"{len(reports)} of {len(summary.results)} videos", overflow="fold")
    table.add_column("frames", footer=f"{sum(r.num_frames for r in reports):,}", justify="right")
    table.add_column("damaged", footer=f"{sum(r.bad_frames for r in reports):,}", justify="right")
    table.add_column("source MB", footer=f"{source:,.1f}", justify="right")
    table.add_column("copy MB", footer=f"{proxy:,.1f}", justify="right")
    table.add_column("mean dB", justify="right")
    worst = min(reports, key=lambda r: r.worst_psnr_db, default=None)
    table.add_column("worst dB (frame)", footer=f"{worst.worst_psnr_db:.1f}" if worst else "", justify="right")
    table.add_column("")
    for result in summary.results:
        report = result.report
        row = (
            ["", "", "", "", "", ""]
            if report is None
            else [
                f"{report.num_frames:,}",
                f"{report.bad_frames:,}",
                f"{report.source_bytes / 1e6:,.1f}",
                f"{report.proxy_bytes / 1e6:,.1f}",
                f"{report.mean_psnr_db:.1f}",
                f"{report.worst_psnr_db:.1f} ({report.worst_frame:,})",
            ]
        )
        table.add_row(result.match_id, *row, _status(result))
    return table


def summary_json(summary: ProxySummary) -> dict[str, Any]:
    """All of it, for programs."""
    videos = [
        {"match": result.match_id, "status": _status(result), "why": result.why}
        | (asdict(result.report) if result.report else {})
        for result in summary.results
    ]
    return {"out": str(summary.root), "settings": summary.settings.to_json(), "videos": videos}
