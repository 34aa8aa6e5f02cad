"""The commands `bas cache push`, `pull` and `merge`. Imports nothing heavy before a command needs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_shared import AsJson, Store, show

if TYPE_CHECKING:
    from .cache.share.transfer import Outcome

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="A folder, s3://BUCKET/PATH, hf://datasets/USER/NAME, https://..., gs://, az://."
    ),
]
Match = Annotated[list[str] | None, typer.Option(help="Only this match; may be repeated.")]
Split = Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")]
View = Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")]
Replace = Annotated[bool, typer.Option("--replace", help="Matches that are there with other content are replaced.")]
Jobs = Annotated[int, typer.Option(help="Files under way at a time.")]


def cache_push(
    store: Store,
    url: Url,
    match: Match = None,
    split: Split = None,
    view: View = None,
    replace: Replace = False,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a store to a place that a team shares. Only what is missing there travels; resumes.

    Several people may push different matches at once. Readers see a match whole or not at all.
    """
    from .cache.share.push import push
    from .cache.share.transfer import Selection, Transfer
    from .cache.share.view import TransferView

    selection = Selection(matches=tuple(match or ()), splits=tuple(split or ()), views=tuple(view or ()))
    with TransferView("pushing") as report:
        outcome = push(store, url, selection, Transfer(replace=replace, jobs=jobs), report)
    _end(outcome, as_json=as_json)


def cache_pull(
    url: Url,
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="Made where it does not exist, added to where it does.")
    ],
    match: Match = None,
    split: Split = None,
    view: View = None,
    replace: Replace = False,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a shared store here. Only what is missing travels, and all of it is verified; resumes."""
    from .cache.share.pull import pull
    from .cache.share.transfer import Selection, Transfer
    from .cache.share.view import TransferView

    selection = Selection(matches=tuple(match or ()), splits=tuple(split or ()), views=tuple(view or ()))
    with TransferView("pulling") as report:
        outcome = pull(url, store, selection, Transfer(replace=replace, jobs=jobs), report)
    _end(outcome, as_json=as_json)


def cache_merge(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores of the same settings.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """All matches of several stores in one. A match that two hold with other content is named, and left alone."""
    from .cache.share.pull import merge
    from .cache.share.transfer import Transfer
    from .cache.share.view import TransferView

    with TransferView("merging") as report:
        outcome = merge(stores, out, Transfer(replace=replace), report)
    _end(outcome, as_json=as_json)


def _end(outcome: "Outcome", *, as_json: bool) -> None:
    from .cache.share.view import outcome_view

    show(outcome_view(outcome), outcome.to_json(), as_json=as_json)
    if not outcome.complete:
        raise typer.Exit(2)
