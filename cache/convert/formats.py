"""The kinds of source of `bas cache import`. A new one is a module as `Format` describes, and one line of `FORMATS`."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from ...errors import InputError
from ...workers import SILENT, Progress, Summary
from ..layout import METADATA
from ..store import FeatureStore
from . import flat, halves, scores
from .importing import FindFolders, ImportOptions, ImportSource, Kind, files_below, import_matches


class Format(Protocol):
    """What the module of a kind of source has."""

    DESCRIPTION: str
    """What it looks like, for errors."""
    OPTIONS: frozenset[str]
    """Fields of `ImportOptions` that it takes, beside kind, model and fps."""

    def is_here(self, names: Collection[str]) -> bool:
        """Whether files of these names are of the kind."""

    def find(
        self, root: Path, options: ImportOptions, find_folders: FindFolders, stored_fps: str | None
    ) -> ImportSource:
        """What is below a root; `stored_fps`: rows a second of the store, where there is one."""


FORMATS: dict[Kind, Format] = {"scores": scores, "soccernet": halves, "flat": flat}
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
    options.require_only(FORMATS[kind].OPTIONS, kind)
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
    raise InputError(f"{root}: nothing to import", wanted="; ".join(each.DESCRIPTION for each in FORMATS.values()))
