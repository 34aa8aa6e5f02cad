"""What is to be written as one match, checked before a byte is written.

C: channels of a feature row.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .layout import FEATURES, PARTIAL, PTS, canonical_json, inside, partial_name
from .match import MatchMeta, read_match
from .rows import first_not_finite, read_plain
from .settings import FeatureSettings
from .shard import DTYPES, ShardLayout


@dataclass(frozen=True, kw_only=True)
class MatchJob:
    """What is to be written; checked on creation. The fields are those of `FeatureStore.writer`."""

    root: Path
    match_id: str
    views: tuple[str, ...]
    num_rows: int
    pts: npt.NDArray[Any]
    meta: MatchMeta
    provenance: Mapping[str, Any]
    settings: FeatureSettings

    def __post_init__(self) -> None:
        where = f"match {self.match_id!r}"
        if self.num_rows < 1:
            raise InputError(f"{where}: nothing to write", got=f"{self.num_rows} rows", wanted="at least one frame")
        if not self.views or len(set(self.views)) != len(self.views):
            raise InputError(f"{where}: views are not usable", got=self.views, wanted="different names, at least one")
        if self.pts.shape != (self.num_rows,) or self.pts.dtype.kind not in "iu":
            got = f"{self.pts.dtype} {self.pts.shape}"
            raise InputError(f"{where}: pts do not fit the rows", got=got, wanted=f"whole numbers ({self.num_rows},)")
        if (np.diff(self.pts) < 0).any():
            row = int(np.argmax(np.diff(self.pts) < 0)) + 1
            raise InputError(f"{where}: pts go back", got=f"{self.pts[row - 1]}, {self.pts[row]} at row {row}")
        canonical_json(self.attributes(""), where=f"{where}, provenance")
        canonical_json(self.record, where=f"{where}, meta")

    @cached_property
    def layout(self) -> ShardLayout:
        """Geometry of each view's shard."""
        return ShardLayout(self.num_rows, self.settings.dim, DTYPES[self.settings.dtype])

    @cached_property
    def pts_bytes(self) -> bytes:
        """`pts` as stored."""
        return self.pts.astype("<i8").tobytes()

    @property
    def record(self) -> dict[str, Any]:
        """The match's attributes."""
        return {"bas_match": self.meta.to_json(num_rows=self.num_rows)}

    def attributes(self, sha256: str) -> dict[str, Any]:
        """Attributes of a view's array."""
        return {"sha256": sha256, "engine": dict(self.provenance)}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that must be equal for unfinished work to be carried on, as plain JSON."""
        record = {
            "settings_key": self.settings.key(),
            "num_rows": self.num_rows,
            "views": list(self.views),
            "pts_sha256": hashlib.sha256(self.pts_bytes).hexdigest(),
            "video": {name: self.meta.video.get(name) for name in ("bytes", "sha256")},
            "provenance": dict(self.provenance),
        }
        copy: dict[str, Any] = json.loads(json.dumps(record))
        return copy

    @property
    def partial(self) -> Path:
        """Folder of the unfinished work."""
        return self.root / PARTIAL / partial_name(self.match_id)

    def check_place(self) -> bool:
        """Whether the store has the match already, so that this job adds views to it.

        Raises:
            InputError: a view is there already, the match's id is the folder of other matches or lies inside a match,
                a link leads out of the store, or the stored match has other frames or another video.
        """
        require_own_place(self.root, self.match_id)
        target = inside(self.root, self.match_id)
        if not (target / FEATURES).is_dir():
            return False
        there = [view for view in self.views if (target / FEATURES / view).exists()]
        if there:
            cure = "nothing to do; to extract it again, delete the match's folder first"
            raise InputError(f"match {self.match_id!r} is in the store already", got=", ".join(there), cure=cure)
        self._check_same_match()
        return True

    def _check_same_match(self) -> None:
        stored = read_match(self.root, self.match_id).meta.video
        mine = {name: self.meta.video.get(name) for name in ("bytes", "sha256")}
        theirs = {name: stored.get(name) for name in mine}
        cure = "add views from the same video file, or delete the match's folder and extract all views again"
        if any(mine[name] != theirs[name] for name in mine if None not in (mine[name], theirs[name])):
            raise InputError(f"match {self.match_id!r}: another video", got=mine, wanted=theirs, cure=cure)
        if read_plain(self.root, f"{self.match_id}/{PTS}").tobytes() != self.pts_bytes:
            raise InputError(f"match {self.match_id!r}: stored with other frames (pts differ)", cure=cure)


def require_own_place(root: Path, match_id: str) -> None:
    """Refuse a match that would lie inside another match, or around others.

    Raises:
        InputError: as said.
    """
    for folder in list((root / match_id).parents)[: match_id.count("/")]:
        if (folder / FEATURES).exists():
            raise InputError(f"match {match_id!r} lies inside a match", got=folder, cure="rename one of them")
    target = root / match_id
    if not (target / FEATURES).is_dir() and target.is_dir() and any(entry.is_dir() for entry in target.iterdir()):
        raise InputError(f"match id {match_id!r} is a folder of other matches", cure="rename one of them")


def cast_rows(
    values: npt.ArrayLike, shape: tuple[int, int], dtype: np.dtype[Any], *, where: str, first_row: int
) -> npt.NDArray[Any]:
    """Rows in the type of the store.

    Args:
        values: (n, C) float; uint8 where the store is.
        shape: (n, C) as it must be.
        dtype: float16 or uint8.
        where: match and view, for the error.
        first_row: row of values[0] in the match, for the error.

    Raises:
        InputError: another shape or type, or a value that is not finite once it is cast.
    """
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind != dtype.kind:
        got = f"{array.dtype} {array.shape}"
        raise InputError(f"{where}: rows do not fit", got=got, wanted=f"{dtype} {shape}, or a wider float")
    if dtype.kind != "f":
        return array.astype(dtype, casting="equiv", copy=False)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    row = first_not_finite(cast)
    if row >= 0:
        channel = int(np.argmin(np.isfinite(cast[row])))
        raise InputError(
            f"{where}: row {first_row + row}, channel {channel} is not finite as {dtype}",
            got=array[row, channel],
            wanted=f"a number within +-{np.finfo(dtype).max}",
            cure="check weights and precision of the backbone (extract in float32)",
        )
    return cast
