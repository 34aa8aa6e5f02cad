"""What commands share: options, and how a result is shown. Nothing imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import InputError
from ..events import SPLITS, Split, split_named

Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder that `bas extract --out` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|auto",
        help="Work on a Ray cluster; auto: RAY_ADDRESS, else the one that runs here, else one is started here.",
    ),
]
OnlySplit = Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")]
Recipe = Annotated[
    str | None, typer.Option(help="Named settings that the other options change; default: that of the head, or ed.")
]
Classes = Annotated[str | None, typer.Option(help="A,B,...: learn only these; default: all that are labelled.")]
ClassesBy = Annotated[
    Literal["label", "team"],
    typer.Option(help="team: learn each class once for each team of the labels, as PASS-left and PASS-right."),
]
Valid = Annotated[
    list[str] | None,
    typer.Option(help="Validate on this match, in place of the split valid; may be repeated."),
]
WithValid = Annotated[
    bool, typer.Option("--with-valid", help="With --valid: the other matches of the split valid train too.")
]


def known_splits(names: Sequence[str] | None) -> tuple[Split, ...]:
    """Splits that were typed. Raises InputError for one that there is not."""
    if unknown := [name for name in names or () if split_named(name) is None]:
        raise InputError("--split is not known", got=", ".join(unknown), wanted=", ".join(SPLITS))
    typed = {split_named(name) for name in names or ()}
    return tuple(split for split in SPLITS if split in typed)


def local_stores(sources: Sequence[str], *, splits: Sequence[str], views: Sequence[str] = ()) -> list[Path]:
    """Sources as paths on this machine; of shared stores (URLs) what is needed is pulled into the local cache.

    Args:
        sources: paths or URLs.
        splits: matches that are needed of a shared store; empty: all.
        views: their views; empty: all.

    Raises:
        InputError: a shared store cannot be had.
    """
    paths = []
    for source in sources:
        if "://" not in source:
            paths.append(Path(source))
            continue
        from ..cache.share.local_copy import local_copy
        from ..cache.share.places import folder_of, is_folder
        from ..cache.share.pull import Selection
        from .show import ProgressView

        if is_folder(source):
            paths.append(folder_of(source))
            continue
        selection = Selection(splits=tuple(splits), views=tuple(views))
        with ProgressView("pulling", unit="bytes") as progress:
            paths.append(local_copy(source, selection, progress=progress))
    return paths


def parse_classes(text: str | None) -> tuple[str, ...] | None:
    """Class names from `A,B,...`; None where nothing was typed.

    Raises:
        InputError: none, an empty one or one twice.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError("--classes is not usable", got=repr(text), wanted="different names, such as PASS,DRIVE")
    return names
