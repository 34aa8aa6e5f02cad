"""Manifests of a store in a folder, so that a web server can serve it."""

import os
from pathlib import Path

from ...errors import InputError
from ...files import disk_errors, replace_synced
from ..layout import MANIFESTS
from ..store import FeatureStore
from .index import update_index
from .manifest import MAX_DOCUMENT_BYTES, MatchManifest, is_manifest
from .place import TooLarge
from .source import StoreSource


def write_manifests(path: Path) -> None:
    """Say of every match of a store what it holds; what was said before and still holds is kept.

    Args:
        path: the store's folder.

    Raises:
        InputError: a match is damaged, or the disk refuses.
    """
    source, folder = StoreSource(FeatureStore.open(path)), _Folder(path)
    said = _said(folder)
    with disk_errors(path / MANIFESTS):
        for outline in source.manifests():
            old = said.pop(outline.match_id, None)
            if old is not None and old.views == outline.views and not old.differing(outline):
                continue
            new = source.whole(outline)
            folder.write(f"{MANIFESTS}/{new.name}", new.document)
            if old is not None and old.name != new.name:
                said[outline.match_id] = old
        for old in said.values():  # of matches that are gone or changed
            (path / MANIFESTS / old.name).unlink(missing_ok=True)
        update_index(folder)


def _said(folder: "_Folder") -> dict[str, MatchManifest]:
    """Manifests there by match id; damaged ones are removed."""
    found = {}
    for name in folder.manifests():
        try:
            data = folder.read(f"{MANIFESTS}/{name}", max_bytes=MAX_DOCUMENT_BYTES)
            made = MatchManifest.parse(data or b"", name=name, where=folder.url)
        except InputError:
            (folder.path / MANIFESTS / name).unlink(missing_ok=True)
        else:
            found[made.match_id] = made
    return found


class _Folder:
    """What the index needs of a place."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        try:
            with (self.path / path).open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        if len(data) > max_bytes:
            raise TooLarge(f"{self.path / path}: too large", wanted=f"at most {max_bytes} bytes")
        return data

    def write(self, path: str, data: bytes) -> None:
        target = self.path / path
        target.parent.mkdir(exist_ok=True)
        replace_synced(target.with_name(f".{target.name}.{os.getpid()}"), target, data)

    def manifests(self) -> list[str]:
        if not (self.path / MANIFESTS).is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.path / MANIFESTS) if is_manifest(entry.name))
