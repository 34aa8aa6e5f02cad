"""The command `bas label`. Nothing here imports torch: learning has a process of its own."""

import getpass
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..label.options import LabelOptions
from .settings_options import with_options
from .show import note, say

PANELS = {"Labelling": ("classes", "person", "own_file", "train_after")}


@with_options(panels=PANELS)
def label(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Video files, or data set folders.")],
    options: LabelOptions,
    store: Annotated[
        Path, typer.Option(help="Features of the videos; those that are missing are made while you label.")
    ] = Path("bas-label.zarr"),
    run: Annotated[
        list[Path] | None, typer.Option(help="Begin with the proposals of this finished run; repeated: of their mean.")
    ] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", help="Spots from CSV, OSL JSON, Label Studio or CVAT to begin with; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page on this machine; 0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in your browser.")] = True,
) -> None:
    """Mark a few spots in a browser, train in seconds, and correct what the model proposes for the rest.

    Labels lie beside the videos, and every change is on the disk at once. Ctrl-C ends it; the same command goes on.
    """
    from ..label.server import key_file, label_app, serve
    from ..label.session import opened_session
    from ..report.page.data import label_page

    options = replace(options, person=options.person or _user())
    with opened_session(sources, store, options, run or ()) as session:
        session.on_note = note
        for match in session.matches:
            say(f"{match.match.id}: labels in {match.document.path}")
            note(match.problem)
        for path in imports or ():
            say("\n".join(session.take_in(path)))

        def started(address: str) -> None:
            say(f"label at {address}\n(Ctrl-C ends it; everything is saved)")

        key = key_file([match.document.path for match in session.matches])
        serve(label_app(session, label_page()), port=port, open_browser=browser, started=started, key=key)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody in a container
        return "me"
