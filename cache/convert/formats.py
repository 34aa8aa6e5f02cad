"""The kinds of source that `bas cache import` reads. A new one is a file with a `FORMAT`, and one line here."""

from ...errors import InputError
from . import archive, flat, halves, score_files
from .importing import ImportSummary
from .request import FindFolders, ImportRequest, Progress, SourceFormat, files_below

FORMATS: dict[str, SourceFormat] = {
    "bas": archive.FORMAT,
    "scores": score_files.FORMAT,
    "soccernet": halves.FORMAT,
    "flat": flat.FORMAT,
}
"""In the order in which they are looked for."""


def import_source(
    request: ImportRequest, find: FindFolders, *, kind: str | None = None, on_progress: Progress = lambda *_: None
) -> ImportSummary:
    """Import what another program made.

    Args:
        request: what the user says of it.
        find: finds match folders of a data set with their labels.
        kind: a key of `FORMATS`; None: look.
        on_progress: called with (matches done, matches).

    Raises:
        InputError: nothing can be imported. A match that fails beside others is in the summary instead.
    """
    kind = kind or find_kind(request)
    if kind not in FORMATS:
        raise InputError("--from is not known", got=kind, wanted=", ".join(FORMATS))
    request.only(FORMATS[kind].options, kind=kind)
    return FORMATS[kind].run(request, find, on_progress)


def find_kind(request: ImportRequest) -> str:
    """Which kind of source a root is.

    Raises:
        InputError: none.
    """
    if not request.root.exists():
        raise InputError(f"{request.root}: no such folder or file")
    names = {path.name for path in files_below(request.root)}
    for kind, each in FORMATS.items():
        if (kind != "scores" or request.features is None) and each.is_here(request.root, names):
            return kind
    told = "; ".join(each.told for each in FORMATS.values())
    raise InputError(f"{request.root}: nothing to import", wanted=told)
