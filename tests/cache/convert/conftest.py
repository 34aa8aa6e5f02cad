"""A finder of match folders for formats, and the way from an import's summary to a store."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from bas.cache.convert.importing import ImportMatch
from bas.cache.convert.request import FindFolders, Found
from bas.events import read_labels


def find(root: Path, holding: Collection[str], splits_file: Path | None, label_names: Collection[str]) -> Found:
    """Folders directly below a root, all of the split train; the first label file that there is."""
    assert splits_file is None
    matches = []
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and set(holding) & {path.name for path in folder.iterdir()}:
            labels = next((folder / name for name in label_names if (folder / name).is_file()), None)
            matches.append(ImportMatch(folder.name, folder, "train", None if labels is None else read_labels(labels)))
    return Found(tuple(matches), ("PASS", "DRIVE"))


@pytest.fixture
def finder() -> FindFolders:
    """Finds match folders without a data set around them."""
    return find


@pytest.fixture
def write_labels() -> Callable[..., None]:
    """Writes a label file: (half, ms, label) each."""

    def write(path: Path, *events: tuple[int, int, str]) -> None:
        records: list[dict[str, Any]] = [
            {"gameTime": f"{half} - 00:00", "label": label, "position": str(ms)} for half, ms, label in events
        ]
        path.write_text(json.dumps({"annotations": records}))

    return write
