"""The command line `bas`. Nothing here imports torch before a command needs it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError

app = typer.Typer(name="bas", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data set before spending hours on it.")
app.add_typer(data_app, name="data")


@app.callback()
def root() -> None:
    """Ball action spotting in football video: features once, heads in minutes."""


DataRoot = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder in the SoccerNet layout, or any folder of <match>/<video>.")
]


@data_app.command("check")
def data_check(
    root: DataRoot,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Open every video, count every event, say what is missing or wrong; exit code 2 on errors."""
    from rich.console import Console

    from .extract.check import check_data_set
    from .extract.check_view import report_view

    with _progress("reading videos") as on_progress:
        report = check_data_set(root, on_progress=on_progress)
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        Console(highlight=False).print(report_view(report))
    if report.errors:
        raise typer.Exit(2)


@data_app.command("ls")
def data_ls(root: DataRoot) -> None:
    """List the matches without opening a video; tab-separated where the output is not a terminal."""
    from rich.console import Console

    from .extract.check_view import listing_lines, listing_view
    from .extract.sources import find_data_set

    data_set = find_data_set(root)
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(listing_view(data_set))
    else:
        print("\n".join(listing_lines(data_set)))
    num_errors = sum(finding.severity == "error" for finding in data_set.findings)
    if num_errors:
        print(f"bas: {num_errors} error(s) in the data: bas data check '{root}' says which", file=sys.stderr)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr, gone at the end; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def main() -> None:
    """Entry point: errors in input end with exit code 2, Ctrl-C with 130, never a traceback."""
    try:
        app()
    except InputError as error:
        print(f"bas: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bas: stopped; what was finished is stored, run the same command again to go on", file=sys.stderr)
        sys.exit(130)
