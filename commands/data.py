"""The commands `bas data check`, `ls`, `convert`, `synthetic` and `proxy`."""

import posixpath
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.settings import ExportFormat, ProxySettings, SyntheticSettings
from ..errors import printable
from .options import AsJson, OnlySplit, known_splits
from .settings_options import with_options
from .show import Cell, ProgressView, finish, note, say, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..data.check import DataReport, MatchReport
    from ..data.labels import Finding, Severity
    from ..data.sources import DataSet

_MAX_PLACES = 10

DataRoot = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder in the SoccerNet layout, or any folder of <match>/<video>.")
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that this command began.")]


@with_options()
def data_check(
    root: DataRoot,
    as_json: AsJson = False,
) -> None:
    """Open every video, count every event, say what is missing or wrong; exit code 2 on errors."""
    from ..data.check import check_data_set

    with ProgressView("reading", unit="videos") as progress:
        report = check_data_set(root, on_progress=lambda done, total: progress.advanced("", done, total, ""))
    show(check_view(report), report.to_json(), as_json=as_json)
    if report.errors:
        raise typer.Exit(2)


@with_options()
def data_ls(root: DataRoot, as_json: AsJson = False) -> None:
    """List the matches without opening a video; tab-separated where the output is not a terminal."""
    from ..data.sources import find_data_set

    data_set = find_data_set(root)
    records = _listing(data_set)
    if as_json or sys.stdout.isatty():
        prefix = _common_folder([record["match"] for record in records])
        rows: list[list[Cell]] = [
            [
                record["match"][len(prefix) :],
                record["split"] or "-",
                Path(record["video"]).name if record["video"] else "missing",
                "-" if record["events"] is None else record["events"],
            ]
            for record in records
        ]
        view = table((_id_heading(prefix), "split", "video", "events"), rows, styles={"missing": "red"})
        show(view, records, as_json=as_json)
    else:
        for record in records:  # for scripts
            _print_cells(*(record[name] for name in ("match", "split", "video", "events")))
    num_errors = sum(finding.severity == "error" for finding in data_set.findings)
    note(f"{num_errors} error(s) in the data: bas data check '{root}' says which" if num_errors else "")


@with_options()
def data_convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Data set, feature store, label file, or a folder of bas predict.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for a file per match.")],
    to: Annotated[ExportFormat, typer.Option("--format", help="What the files are for.")],
    split: OnlySplit = None,
    halves: Annotated[
        Path | None, typer.Option(help="footpass: a file of the same games, which says where second halves begin.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write labels or predictions as other programs read them: OSL JSON, CSV, edit lists, subtitles, chapters."""
    from ..data.exports import export_all

    summary = export_all(source, out, to, splits=known_splits(split), halves=halves)
    finish(summary, as_json=as_json)


@with_options()
def data_synthetic(
    out: Out,
    settings: SyntheticSettings,
    jobs: Annotated[int, typer.Option(help="Matches drawn side by side; 0: one per core.")] = 0,
) -> None:
    """Draw synthetic football matches with labels, in SoccerNet's layout. Resumes.

    Test and demo data: figures measured on it say nothing about real football.
    """
    from ..data.synthetic import write_data_set

    with ProgressView("drawing", unit="matches") as progress:
        planned = write_data_set(
            out, settings, jobs=jobs, on_progress=lambda done, total: progress.advanced("", done, total, "")
        )
    for match in planned:
        _print_cells(match.split, f"{match.seconds / 60:.1f} min", out / match.folder)
    say(f"{len(planned)} synthetic matches in {out}; next: bas data check '{out}'")


@with_options()
def data_proxy(
    root: DataRoot,
    out: Out,
    settings: ProxySettings,
    jobs: Annotated[int, typer.Option(help="Videos copied side by side; 0: one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Copy a data set with small videos that are quick to read at random places, for training on clips. Resumes.

    Labels and times stay as they are; each copy is read again: all times, and a sample of frames, must be the source's.
    """
    from ..data.proxy import write_proxies

    with ProgressView("copying", unit="%") as progress:
        summary = write_proxies(root, out, settings, jobs=jobs, progress=progress)
    finish(summary, as_json=as_json, piped_width=120)


def _print_cells(*cells: object) -> None:
    print("\t".join("-" if cell is None else printable(str(cell)) for cell in cells))  # `say` escapes tabs


def _listing(data_set: "DataSet") -> list[dict[str, Any]]:
    """Id, split, half, video, labels and number of events of each match, as plain JSON; opens no video."""
    records = []
    for match in data_set.matches:
        events = data_set.events(match)
        video, labels = (None if path is None else str(path) for path in (match.video, match.labels))
        record = {"match": match.id, "split": match.split, "half": match.half, "video": video, "labels": labels}
        records.append({**record, "events": None if events is None else len(events)})
    return records


def _id_heading(prefix: str) -> str:
    return f"match  in {prefix}" if prefix else "match"


def _common_folder(ids: Sequence[str]) -> str:
    """The folder, with its slash, that all ids begin with; empty for one id or none in common."""
    shared = posixpath.commonpath([posixpath.dirname(each) for each in ids]) if len(ids) > 1 else ""
    return f"{shared}/" if shared else ""


def check_view(report: "DataReport") -> "RenderableType":
    """Tables of matches and events, findings grouped by what to do, and whether the data are ready."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if report.matches:
        parts += [_matches_table(report), Text()]
    if report.counts():
        parts += [_events_table(report), Text()]
    for severity in ("error", "note"):
        parts += _findings(report.findings, severity=severity)
    num_errors = len(report.errors)
    num_notes = len(report.findings) - num_errors
    notes = f", {num_notes} {'note' if num_notes == 1 else 'notes'}" if num_notes else ""
    if num_errors:
        parts.append(Text(f"{num_errors} {'error' if num_errors == 1 else 'errors'}{notes}", style="bold red"))
    elif report.missing_for_training:
        missing = ", ".join(report.missing_for_training)
        parts.append(Text.assemble(("ready to extract, not to train", "bold yellow"), f": {missing}{notes}"))
    else:
        parts.append(Text.assemble(("ready", "bold green"), f": no errors{notes}"))
    return Group(*parts)


def _matches_table(report: "DataReport") -> "RenderableType":
    from ..data.check import total_seconds

    prefix = _common_folder([each.match.id for each in report.matches])
    rows = [[each.match.id[len(prefix) :], each.match.split or "-", *_video_cells(each)] for each in report.matches]
    if len(rows) > 1:
        frames = [each.video.num_frames for each in report.matches if each.video]
        num_frames = sum(number or 0 for number in frames) if frames and None not in frames else "-"
        minutes = _minutes(float(total_seconds(report.matches))) if frames else "-"
        events = sum(len(each.events or ()) for each in report.matches)
        rows.append([f"{len(report.matches)} matches", "", num_frames, "", "", minutes, events])
    columns = (_id_heading(prefix), "split", "frames", "fps", "size", "minutes", "events")
    view = table(columns, rows, styles={"missing": "red", "unreadable": "red"})
    if len(rows) > 1:
        view.rows[-1].style = "bold"
    return view


def _video_cells(report: "MatchReport") -> list[Cell]:
    """Frames, frames per second, size, minutes and number of events."""
    video, events = report.video, "-" if report.events is None else len(report.events)
    if video is None:
        return ["-", "-", "unreadable" if report.match.video else "missing", "-", events]
    fps = str(video.rate) if video.rate.denominator == 1 else f"{float(video.rate):.3f}"
    size = f"{video.display_width}x{video.display_height}"
    num_frames = "-" if video.num_frames is None else video.num_frames
    return [num_frames, fps, size, _minutes(float(video.end_seconds)), events]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds >= 60 else f"{seconds / 60:.2f}"


def _events_table(report: "DataReport") -> "RenderableType":
    """Events of each class in each split; a class that is not in the class list is red."""
    splits, counts = report.splits(), report.counts()
    rows: list[list[Cell]] = [
        [label, *(of_class[split] for split in splits), of_class.total()] for label, of_class in counts.items()
    ]
    totals = [sum(of_class[split] for of_class in counts.values()) for split in splits]
    rows.append(["all", *totals, sum(totals)])
    foreign = {label: "red" for label in counts if label not in report.classes}
    view = table(("events of class", *(split or "no split" for split in splits), "all"), rows, styles=foreign)
    view.rows[-1].style = "bold"
    return view


def _findings(findings: "Sequence[Finding]", *, severity: "Severity") -> "list[RenderableType]":
    """One block per message and cure, with the places where it holds."""
    from rich.table import Table
    from rich.text import Text

    from ..data.labels import ROOT_PLACE

    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.severity == severity:
            groups.setdefault((finding.message, finding.cure), []).append(finding.where)
    grid = Table.grid(padding=(0, 1))
    for (message, cure), places in groups.items():
        shown = places[:_MAX_PLACES] if len(places) > _MAX_PLACES + 1 else places
        inline = f"{places[0]}: " if len(places) == 1 and places[0] != ROOT_PLACE else ""
        grid.add_row(Text(severity, "bold red" if severity == "error" else "bold cyan"), Text(inline + message))
        for place in shown if len(places) > 1 else ():
            grid.add_row("", Text(f"  {place}"))
        if len(shown) < len(places):
            grid.add_row("", Text(f"  and {len(places) - len(shown)} more", style="dim"))
        if cure:
            grid.add_row("", Text.assemble("cure: ", Text(cure), style="dim"))
    return [grid, Text()] if groups else []
