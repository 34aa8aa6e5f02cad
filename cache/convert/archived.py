"""What an export of ours says of itself: `bas-export.json` at its root, `match.json` in each match's folder.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...files import read_json
from ..layout import FEATURES, PTS, VALID, check_id, check_view
from ..match import MatchInfo, WeightsOrigin
from ..reduce.files import read_beside
from ..reduce.reduction import Reduction
from ..rows import array_metadata
from ..settings import FeatureSettings
from ..store import FeatureStore

ROOT_NAME, MATCH_NAME = "bas-export.json", "match.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ArchiveRoot:
    """What is kept of a store besides its matches."""

    container: str
    """A key of `CONTAINERS`: how arrays lie in files."""
    settings: FeatureSettings
    classes: tuple[str, ...]
    software: dict[str, str]
    origin: WeightsOrigin | None
    reduction: Reduction | None
    """How the rows were made from full ones, in a file of its own; None where they are full rows."""

    @classmethod
    def of(cls, store: FeatureStore, container: str) -> "ArchiveRoot":
        """Of a store."""
        return cls(container, store.settings, store.classes, store.software, store.origin, store.reduction)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the reduction."""
        return {
            "format": FORMAT_VERSION,
            "container": self.container,
            "settings": self.settings.to_json(),
            "settings_key": self.settings.key(),
            "classes": list(self.classes),
            "software": self.software,
            "weights_origin": self.origin.to_json() if self.origin else None,
        }

    @classmethod
    def read(cls, folder: Path) -> "ArchiveRoot":
        """The root of an export, with its reduction where it has one.

        Raises:
            InputError: missing, damaged, or of another format.
        """
        path = folder / ROOT_NAME
        record = read_json(path)
        try:
            if record["format"] != FORMAT_VERSION:
                raise InputError(f"{path}: another format", got=record["format"], wanted=FORMAT_VERSION)
            settings = FeatureSettings.from_json(record["settings"])
            origin = record["weights_origin"]
            root = cls(
                str(record["container"]),
                settings,
                tuple(_text(name) for name in record["classes"]),
                {_text(name): _text(version) for name, version in record["software"].items()},
                None if origin is None else WeightsOrigin.from_json(origin, where=str(path)),
                None,
            )
            key = record["settings_key"]
        except (AttributeError, LookupError, TypeError) as error:
            raise InputError(f"{path}: damaged", got=repr(error)[:120], cure="export the store again") from None
        if key != settings.key():
            raise InputError(f"{path}: the settings do not fit their hash", got=key, wanted=settings.key())
        return replace(root, reduction=read_beside(folder, settings))


@dataclass(frozen=True)
class ArchivedView:
    """One view of a match."""

    sha256: str | None
    """Of all its rows as they lie in the store; None where the store does not say."""
    engine: Mapping[str, Any]
    """What is kept with the array, plain JSON."""


@dataclass(frozen=True)
class ArchivedMatch:
    """One match of an export."""

    info: MatchInfo
    views: Mapping[str, ArchivedView]
    sha256: Mapping[str, str | None]
    """Of `pts` (int64) and `valid` (uint8) as they lie in the store; None where the store does not say."""

    @classmethod
    def of(cls, store: FeatureStore, match_id: str, views: tuple[str, ...]) -> "ArchivedMatch":
        """Of a store.

        Args:
            store: has the match.
            match_id: see `check_id`.
            views: only these; empty: all.

        Raises:
            InputError: a view is not there, or the match is damaged.
        """
        info, there = store.match(match_id), store.views(match_id)
        missing = [view for view in views if view not in there]
        if missing:
            raise InputError(f"{match_id}: no view {', '.join(missing)}", got=", ".join(there), cure="leave out --view")
        found = {}
        for view in views or there:
            attributes = array_metadata(store.path, f"{match_id}/{FEATURES}/{check_view(view)}")["attributes"]
            found[view] = ArchivedView(attributes.get("sha256"), attributes.get("engine", {}))
        hashes = {
            name: array_metadata(store.path, f"{match_id}/{name}")["attributes"].get("sha256") for name in (PTS, VALID)
        }
        return cls(info, found, hashes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": FORMAT_VERSION,
            "id": self.info.id,
            "views": {name: {"sha256": view.sha256, "engine": dict(view.engine)} for name, view in self.views.items()},
            "sha256": dict(self.sha256),
            "match": self.info.meta.to_json(num_rows=self.info.num_rows),
        }

    @classmethod
    def read(cls, path: Path) -> "ArchivedMatch":
        """Inverse of `to_json`, from a `match.json`.

        Raises:
            InputError: missing, damaged, of another format, or an id, view or label that cannot be used.
        """
        record = read_json(path)
        try:
            if record["format"] != FORMAT_VERSION:
                raise InputError(f"{path}: another format", got=record["format"], wanted=FORMAT_VERSION)
            info = MatchInfo.from_json(check_id(_text(record["id"])), record["match"], where=str(path))
            views = {
                check_view(name): ArchivedView(_text_or_none(view["sha256"]), view["engine"])
                for name, view in record["views"].items()
            }
            hashes = {name: _text_or_none(record["sha256"][name]) for name in (PTS, VALID)}
            if not views or not all(isinstance(view.engine, dict) for view in views.values()):
                raise TypeError("views")
        except (AttributeError, LookupError, TypeError) as error:
            raise InputError(f"{path}: damaged", got=repr(error)[:120], cure="export the store again") from None
        info.meta.events()
        return cls(info, views, hashes)


@dataclass(frozen=True)
class Times:
    """When each row's picture was on screen, and whether the row has one."""

    pts: npt.NDArray[np.int64]
    """(T,) ticks."""
    valid: npt.NDArray[np.bool_]
    """(T,)"""

    @classmethod
    def of(cls, store: FeatureStore, match_id: str) -> "Times":
        """Of a store's match, checked against the hashes there."""
        return cls(store.pts(match_id), store.valid(match_id))

    def seconds(self, info: MatchInfo) -> npt.NDArray[np.float64]:
        """(T,) from the match's beginning."""
        base = info.meta.time_base
        return (self.pts - info.meta.origin_ticks).astype(np.float64) * base.numerator / base.denominator

    def check(self, match: ArchivedMatch, where: object) -> "Times":
        """The same, where they fit the match.

        Raises:
            InputError: another number of rows, or other values than the match was made with.
        """
        for name, values in ((PTS, self.pts.astype("<i8")), (VALID, self.valid.astype(np.uint8))):
            if values.shape != (match.info.num_rows,):
                raise InputError(f"{where}: {name} does not fit", got=values.shape, wanted=f"({match.info.num_rows},)")
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            if match.sha256[name] not in (None, digest):
                raise InputError(f"{where}: {name} does not fit its sha256", got=digest, wanted=match.sha256[name])
        return self


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text"[:120])
    return value
