"""Writes small sources, and imports them as the command does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.cache.convert.formats import import_source
from bas.cache.convert.importing import ImportOptions
from bas.commands.cache import _find_folders
from bas.workers import Summary


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Summary]:
    """Imports a root into the store `s`."""
    return lambda root, **options: import_source(root, tmp_path / "s", ImportOptions(**options), _find_folders)


@pytest.fixture
def write_labels() -> Callable[..., None]:
    """Writes a label file: (half, ms, label) each."""

    def write(path: Path, *events: tuple[int, int, str]) -> None:
        records: list[dict[str, Any]] = [
            {"gameTime": f"{half} - 00:00", "label": label, "position": str(ms)} for half, ms, label in events
        ]
        path.write_text(json.dumps({"annotations": records}))

    return write
