"""The command `report`. Nothing imports torch before it needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..events import Split
from .evaluate import score_cells
from .options import AsJson
from .settings_options import with_options
from .show import Cell, ProgressView, say, show, table

if TYPE_CHECKING:
    from rich.console import Group

    from ..report.make import ReportResult

_NUM_WARNINGS = 3


@with_options()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of bas train-head, bas predict or bas ablate; side by side."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for index.html.")],
    store: Annotated[
        Path | None, typer.Option(help="Features and labels; default: where the runs say that their store is.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Data set folder with the labels to evaluate by; default: those in the store.")
    ] = None,
    videos: Annotated[
        list[Path] | None, typer.Option(help="Data set folder or video files to play; may be repeated.")
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Matches to evaluate on; default: test; for predictions, the games that they hold."),
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page; default: the runs' names.")] = "",
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve page and videos to a browser on this machine, until Ctrl-C.")
    ] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Put short clips beside the page instead of links, to hand the folder on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One page to look at: table, curves, confusion, worst errors, and a timeline that plays the video at each."""
    from ..report.make import report as run_report
    from ..report.sources import ReportOptions

    options = ReportOptions(
        store=store,
        labels=labels,
        videos=tuple(videos or ()),
        split=split,
        title=title,
        bundle=bundle,
    )
    with ProgressView("predicting") as progress:
        made = run_report(runs, out, options, progress)
    show(page_view(made), made.to_json(), as_json=as_json)
    if serve:
        from ..label.server import files_app
        from ..label.server import serve as run_server

        app = files_app(made.page, made.video_files)
        run_server(app, port=0, open_browser=False, started=lambda address: say(f"report at {address}"))


def page_view(made: "ReportResult") -> "Group":
    """Means of every run with interval and chance, then warnings and notes, then where the page is."""
    from rich.console import Group
    from rich.text import Text

    rows: list[list[Cell]] = []
    for run in made.runs:
        report = run.figures.report
        num_events = sum(row.num_events for row in report.classes)
        num_found = sum(row.num_predictions for row in report.classes)
        if not num_events:
            rows.append([run.name, "no labels", "-", "-", "-", 0, num_found])
            continue
        for number, (name, score) in enumerate(report.means.items()):
            counts = (num_events, num_found) if number == 0 else (None, None)
            first = run.name if number == 0 else ""
            rows.append([first, name, *score_cells(score), *counts])
    reports = [run.figures.report for run in made.runs if any(row.num_events for row in run.figures.report.classes)]
    warnings = list(dict.fromkeys(each for report in reports for each in report.warnings))
    lines = [Text(f"warning: {each}", "yellow") for each in warnings[:_NUM_WARNINGS]]
    if len(warnings) > _NUM_WARNINGS:
        lines.append(Text(f"and {len(warnings) - _NUM_WARNINGS} more warnings: they are on the page", "yellow"))
    lines += [Text(f"note: {each}") for each in made.notes]
    videos = f"{made.num_videos} of {len(made.matches)} matches with video"
    view = table(("run", "", "AP", "interval", "chance", "events", "found"), rows)
    for column in view.columns[2:]:
        column.justify = "right"
    return Group(view, Text(), *lines, Text(f"{made.page} ({videos}); open it in a browser"))
