"""`bas cache import`: the matches of a folder, their labels and splits, handed to `cache.importing`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..cache.convert.importing import ImportMatch, ImportOptions, ImportSummary, import_matches
from ..cache.convert.score_files import SCORE_NAMES, load_scores, read_offsets
from .datasets.sources import find_folders


def import_scores(
    root: Path,
    store_path: Path,
    *,
    model: str | None = None,
    fps: str | None = None,
    offsets_file: Path | None = None,
    splits_file: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> ImportSummary:
    """Import every folder of score files below `root`.

    Args:
        root: folder of the matches; labels, classes and splits are found as in any data set.
        store_path: the store; made where it does not exist, added to where it does.
        model: what made the scores; None: follow the store, else unknown.
        fps: scores per second; None: follow the store, else 25.
        offsets_file: names where second halves begin; None: the file at the root, else derived.
        splits_file: in the place of the root's `splits.json`.
        on_progress: called with (matches done, matches).

    Raises:
        InputError: nothing can be imported. A match that fails beside others is in the summary instead.
    """
    data_set, folders = find_folders(root, SCORE_NAMES, splits_file=splits_file)
    data_set.raise_errors()
    return import_matches(
        [ImportMatch(each.id, folders[each.id], each.split, data_set.events(each)) for each in data_set.matches],
        partial(load_scores, offsets=read_offsets(root, offsets_file, folders)),
        store_path,
        ImportOptions(kind="scores", model=model, fps=fps),
        classes=data_set.classes,
        on_progress=on_progress,
    )
