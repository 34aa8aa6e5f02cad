"""Shows a check and a listing with rich: tables of matches and events, findings grouped by what to do."""

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..data.check import DataReport, MatchReport, total_seconds
from ..data.labels import ROOT_PLACE, Finding, Severity
from ..data.proxy import ProxyReporter, ProxySummary, VideoResult
from ..data.sources import DataSet, Match

_MAX_PLACES = 10
_STYLES: dict[Severity, str] = {"error": "bold red", "note": "bold cyan"}
_ABSENT = "-"


def plain(text: str, *, style: str = "") -> Text:
    """`text` without markup and without control characters, which a file name or a label may hold."""
    shown = "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)
    return Text(shown, style=style)


def report_view(report: DataReport) -> Group:
    """The whole report of `bas data check`, for a terminal of 80 columns or more."""
    parts: list[RenderableType] = []
    if report.matches:
        parts += [_matches_table(report), Text()]
    if report.counts():
        parts += [_events_table(report), Text()]
    for severity in ("error", "note"):
        parts += _findings(report.findings, severity=severity)
    parts.append(_summary(report))
    return Group(*parts)


def listing_view(data_set: DataSet) -> Table:
    """Table of `bas data ls`: one row per match; opens no video."""
    prefix = _common_folder([match.id for match in data_set.matches])
    table = _table(_id_heading(prefix), "split", "video", "events")
    for match in data_set.matches:
        events = data_set.events(match)
        table.add_row(
            plain(match.id[len(prefix) :]),
            _split(match),
            plain(match.video.name) if match.video else Text("missing", style="red"),
            _number(None if events is None else len(events)),
        )
    return table


def listing_lines(data_set: DataSet) -> list[str]:
    """The listing for a script: id, split, video and number of events, tab-separated, `-` where there is none."""
    lines = []
    for match in data_set.matches:
        events = data_set.events(match)
        video = "-" if match.video is None else str(match.video)
        lines.append("\t".join([match.id, match.split or "-", video, "-" if events is None else str(len(events))]))
    return lines


def _table(first: Text, *headings: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column(first, overflow="fold")
    for heading in headings:
        left = heading in ("split", "size", "video")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    return table


def _id_heading(prefix: str) -> Text:
    return Text.assemble("match", (f"  in {plain(prefix)}", "dim not bold") if prefix else "")


def _common_folder(ids: Sequence[str]) -> str:
    """The folder, with its slash, that all ids begin with; empty for one id or none in common."""
    if len(ids) < 2:
        return ""
    folders = [match_id.split("/")[:-1] for match_id in ids]
    shared = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0] + "/")
    return "".join(shared)


def _matches_table(report: DataReport) -> Table:
    prefix = _common_folder([each.match.id for each in report.matches])
    table = _table(_id_heading(prefix), "split", "frames", "fps", "size", "minutes", "events")
    table.show_footer = len(report.matches) > 1
    for each in report.matches:
        table.add_row(plain(each.match.id[len(prefix) :]), _split(each.match), *_video_cells(each), _events_cell(each))
    frames = [each.video.num_frames for each in report.matches if each.video]
    footers = [
        f"{len(report.matches)} matches",
        "",
        f"{sum(number or 0 for number in frames):,}" if frames and None not in frames else _ABSENT,
        "",
        "",
        _minutes(float(total_seconds(report.matches))) if frames else _ABSENT,
        f"{sum(len(each.events or ()) for each in report.matches):,}",
    ]
    for column, footer in zip(table.columns, footers, strict=True):
        column.footer, column.footer_style = footer, "bold"
    return table


def _split(match: Match) -> Text:
    return Text(match.split or _ABSENT, style="" if match.split else "dim")


def _video_cells(report: MatchReport) -> list[Text]:
    if report.video is None:
        absent = Text(_ABSENT, style="dim")
        return [absent, absent, Text("unreadable" if report.match.video else "missing", style="red"), absent]
    video = report.video
    fps = str(video.rate) if video.rate.denominator == 1 else f"{float(video.rate):.3f}"
    size = f"{video.display_width}x{video.display_height}"
    return [_number(video.num_frames), Text(fps), Text(size), Text(_minutes(float(video.end_seconds)))]


def _events_cell(report: MatchReport) -> Text:
    return _number(None if report.events is None else len(report.events))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds >= 60 else f"{seconds / 60:.2f}"


def _number(value: int | None) -> Text:
    return Text(_ABSENT, style="dim") if value is None else Text(f"{value:,}", style="" if value else "dim")


def _events_table(report: DataReport) -> Table:
    splits, counts = report.splits(), report.counts()
    table = _table(Text("events of class"), *(split or "no split" for split in splits), "all")
    for label, of_class in counts.items():
        style = "" if label in report.classes else "red"
        table.add_row(
            plain(label, style=style), *(_number(of_class[split]) for split in splits), _number(of_class.total())
        )
    table.show_footer = True
    totals = [sum(of_class[split] for of_class in counts.values()) for split in splits]
    for column, footer in zip(table.columns, ["all", *(f"{n:,}" for n in [*totals, sum(totals)])], strict=True):
        column.footer, column.footer_style = footer, "bold"
    return table


def _findings(findings: Sequence[Finding], *, severity: Severity) -> list[RenderableType]:
    """One block per message and cure, with the places where it holds."""
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.severity == severity:
            groups.setdefault((finding.message, finding.cure), []).append(finding.where)
    grid = Table.grid(padding=(0, 1))
    for (message, cure), places in groups.items():
        shown = places[:_MAX_PLACES] if len(places) > _MAX_PLACES + 1 else places
        inline = f"{places[0]}: " if len(places) == 1 and places[0] != ROOT_PLACE else ""
        grid.add_row(Text(severity, _STYLES[severity]), plain(inline + message))
        for place in shown if len(places) > 1 else ():
            grid.add_row("", plain(f"  {place}"))
        if len(shown) < len(places):
            grid.add_row("", Text(f"  and {len(places) - len(shown)} more", style="dim"))
        if cure:
            grid.add_row("", Text.assemble("cure: ", plain(cure), style="dim"))
    return [grid, Text()] if groups else []


def _summary(report: DataReport) -> Text:
    num_errors = len(report.errors)
    num_notes = len(report.findings) - num_errors
    notes = f", {num_notes} {'note' if num_notes == 1 else 'notes'}" if num_notes else ""
    if num_errors:
        return Text(f"{num_errors} {'error' if num_errors == 1 else 'errors'}{notes}", style="bold red")
    return Text.assemble(("ready", "bold green"), f": no errors{notes}")


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
