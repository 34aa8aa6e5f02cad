"""`bas cache import`: match folders of a data set, their labels and splits, for `cache.convert`."""

from collections.abc import Collection
from pathlib import Path

from ..cache.convert.formats import import_source
from ..cache.convert.importing import ImportMatch, ImportSummary
from ..cache.convert.request import Found, ImportRequest, Progress
from ..data.sources import find_folders


def import_features(
    request: ImportRequest, *, kind: str | None = None, on_progress: Progress = lambda *_: None
) -> ImportSummary:
    """Import features or scores that another program made, or an export of ours.

    Args:
        request: the source, the store, and what the user says of them.
        kind: a key of `cache.convert.formats.FORMATS`; None: look.
        on_progress: called with (matches done, matches).

    Raises:
        InputError: nothing can be imported. A match that fails beside others is in the summary instead.
    """
    return import_source(request, _find, kind=kind, on_progress=on_progress)


def _find(root: Path, holding: Collection[str], splits_file: Path | None, label_names: Collection[str]) -> Found:
    """Match folders; labels, classes and splits are found as in any data set."""
    data_set, folders = find_folders(root, holding, splits_file=splits_file, label_names=label_names)
    data_set.raise_errors()
    matches = (ImportMatch(each.id, folders[each.id], each.split, data_set.events(each)) for each in data_set.matches)
    return Found(tuple(matches), data_set.classes)
