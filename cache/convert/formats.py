"""The kinds of source of `bas cache import`. A new one is a file with `OPTIONS`, `is_here` and `find`, and one line."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...workers import SILENT, Progress, Summary
from ..layout import METADATA
from ..store import FeatureStore
from . import flat, halves, scores
from .importing import FindFolders, ImportOptions, ImportSource, Kind, files_below, import_matches


@dataclass(frozen=True)
class Format:
    """A kind of source."""

    description: str
    """What it looks like, for errors."""
    is_here: Callable[[Collection[str]], bool]
    """Whether files of these names are of the kind."""
    find: Callable[[Path, ImportOptions, FindFolders, str | None], ImportSource]
    """(root, options, finder of match folders, rows a second of the store or None) -> what is there."""
    options: frozenset[str]
    """Fields of `ImportOptions` that it takes, beside kind, model and fps."""


FORMATS: dict[Kind, Format] = {
    "scores": Format(
        "folders with 1_scores.npz and 2_scores.npz, or scores.npz (confidences per frame)",
        scores.is_here,
        scores.find,
        scores.OPTIONS,
    ),
    "soccernet": Format(
        "folders with 1_NAME.npy and 2_NAME.npy (SoccerNet's ResNET and Baidu features)",
        halves.is_here,
        halves.find,
        halves.OPTIONS,
    ),
    "flat": Format(
        "a folder with VIDEO.npy, .npz or .h5 per video, or one HDF5 file (OpenTAD, ActionFormer)",
        flat.is_here,
        flat.find,
        flat.OPTIONS,
    ),
}
"""In the order in which they are looked for."""


def import_source(
    root: Path,
    store_path: Path,
    options: ImportOptions,
    find_folders: FindFolders,
    *,
    progress: Progress = SILENT,
) -> Summary:
    """Import what another program made at a root (a folder; a file where the format is one) into a store, old or new.

    `find_folders` finds match folders of a data set with their labels and splits.

    Raises:
        InputError: nothing can be imported. A match that fails beside others is in the summary instead.
    """
    kind = options.kind or find_kind(root, options)
    options.require_only(FORMATS[kind].options, kind)
    stored_fps = FeatureStore.open(store_path).settings.fps if (store_path / METADATA).exists() else None
    source = FORMATS[kind].find(root, options, find_folders, stored_fps)
    return import_matches(source, store_path, options, progress=progress)


def find_kind(root: Path, options: ImportOptions) -> Kind:
    """Which kind of source a root is.

    Raises:
        InputError: none.
    """
    if not root.exists():
        raise InputError(f"{root}: no such folder or file")
    names = {path.name for path in files_below(root)}
    for kind, each in FORMATS.items():
        if (kind != "scores" or options.features is None) and each.is_here(names):
            return kind
    raise InputError(f"{root}: nothing to import", wanted="; ".join(each.description for each in FORMATS.values()))
