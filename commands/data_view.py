"""Shows a check and a listing with rich: tables of matches and events, findings grouped by what to do."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..data.check import DataReport, MatchReport, total_seconds
from ..data.labels import ROOT_PLACE, Finding, Severity
from ..data.sources import DataSet, Match
from ..errors import printable

_MAX_PLACES = 10
_STYLES: dict[Severity, str] = {"error": "bold red", "note": "bold cyan"}
_ABSENT = "-"


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
            Text(match.id[len(prefix) :]),
            _split(match),
            Text(match.video.name) if match.video else Text("missing", style="red"),
            _number(None if events is None else len(events)),
        )
    return table


def listing_lines(data_set: DataSet) -> list[str]:
    """The listing for a script: id, split, video and number of events, tab-separated, `-` where there is none."""
    lines = []
    for match in data_set.matches:
        events = data_set.events(match)
        video = "-" if match.video is None else str(match.video)
        cells = [match.id, match.split or "-", video, "-" if events is None else str(len(events))]
        lines.append("\t".join(map(printable, cells)))
    return lines


def listing_json(data_set: DataSet) -> list[dict[str, Any]]:
    """The listing as plain JSON: id, split, half, video, labels and number of events of each match."""
    records = []
    for match in data_set.matches:
        events = data_set.events(match)
        video, labels = (None if path is None else str(path) for path in (match.video, match.labels))
        record = {"match": match.id, "split": match.split, "half": match.half, "video": video, "labels": labels}
        records.append({**record, "events": None if events is None else len(events)})
    return records


def _table(first: Text, *headings: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column(first, overflow="fold")
    for heading in headings:
        left = heading in ("split", "size", "video")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    return table


def _id_heading(prefix: str) -> Text:
    return Text.assemble("match", (f"  in {Text(prefix)}", "dim not bold") if prefix else "")


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
        table.add_row(Text(each.match.id[len(prefix) :]), _split(each.match), *_video_cells(each), _events_cell(each))
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
        table.add_row(Text(label, style), *(_number(of_class[split]) for split in splits), _number(of_class.total()))
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
        grid.add_row(Text(severity, _STYLES[severity]), Text(inline + message))
        for place in shown if len(places) > 1 else ():
            grid.add_row("", Text(f"  {place}"))
        if len(shown) < len(places):
            grid.add_row("", Text(f"  and {len(places) - len(shown)} more", style="dim"))
        if cure:
            grid.add_row("", Text.assemble("cure: ", Text(cure), style="dim"))
    return [grid, Text()] if groups else []


def _summary(report: DataReport) -> Text:
    num_errors = len(report.errors)
    num_notes = len(report.findings) - num_errors
    notes = f", {num_notes} {'note' if num_notes == 1 else 'notes'}" if num_notes else ""
    if num_errors:
        return Text(f"{num_errors} {'error' if num_errors == 1 else 'errors'}{notes}", style="bold red")
    return Text.assemble(("ready", "bold green"), f": no errors{notes}")
