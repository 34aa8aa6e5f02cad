"""The command `report`. Nothing imports torch before it needs it."""

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson
from .settings_options import with_options
from .show import show


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
        Path | None, typer.Option(help="Data set folder whose labels judge; default: those in the store.")
    ] = None,
    videos: Annotated[
        list[Path] | None, typer.Option(help="Data set folder or video files to play; may be repeated.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Judged matches; default: test; for predictions, the games that they hold.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page; default: the runs' names.")] = "",
    as_json: AsJson = False,
) -> None:
    """One page to look at: table, curves, confusion, worst errors, and a timeline that plays the video at each."""
    from ..extract.options import parse_choice
    from ..report.make import report as run_report
    from ..report.sources import ReportOptions
    from .report_view import made_json, made_view, report_reporter

    options = ReportOptions(
        store=store,
        labels=labels,
        videos=tuple(videos or ()),
        split=parse_choice(split, option="--split") if split is not None else None,
        title=title,
    )
    made = run_report(runs, out, options, report_reporter())
    show(made_view(made), made_json(made), as_json=as_json)
