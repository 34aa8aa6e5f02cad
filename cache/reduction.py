"""A reduction of feature rows (PCA, 8 bits per channel, or both) and its file, the same for store, run and share.

Legend: n rows, C channels of the full rows, D channels of the reduced ones.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import disk_errors, parse_json, read_bounded, read_json, write_atomic
from .layout import METADATA, METADATA_BYTES, REDUCTION, attribute, inside
from .settings import FeatureSettings

BLOCK_ROWS = 256
"""Rows that are projected at once. Always so many: BLAS may sum in another order for another shape."""
NUM_LEVELS = 256
ARRAYS = ("mean", "components", "scale", "offset")
REDUCTION_FILE = "reduction.safetensors"
"""In the folder of a store, a run or an export: the arrays, and the record as JSON in the file's header."""
_RECORD = "reduction"
_OLD_RECORD = "bas_reduction"
_FORMAT = 1

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """How full rows become reduced ones; checked on creation.

    Projection: (row - mean) @ components.T. 8 bits: round((value - offset) / scale), clipped to 0..255.
    """

    source: FeatureSettings
    """Of the full rows."""
    mean: FloatArray | None = None
    """(C,) of the rows that it was fitted on; None: no PCA."""
    components: FloatArray | None = None
    """(D, C), rows of length 1 at right angles, the one that explains most first."""
    scale: FloatArray | None = None
    """(D,) > 0, step between two levels; None: rows stay float16."""
    offset: FloatArray | None = None
    """(D,) value of level 0."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What it was fitted on and what it keeps, plain JSON; changes no number."""

    def __post_init__(self) -> None:
        dim, num_channels = self.dim, self.source.dim
        wanted = {"mean": (num_channels,), "components": (dim, num_channels), "scale": (dim,), "offset": (dim,)}
        together = (self.mean is None) == (self.components is None) and (self.scale is None) == (self.offset is None)
        if self.source.reduction is not None or not together or not self.arrays:
            raise InputError("the reduction is not usable", got=", ".join(self.arrays) or "no array")
        for name, array in self.arrays.items():
            if array.shape != wanted[name] or array.dtype != np.float32 or not np.isfinite(array).all():
                raise InputError(
                    f"the reduction's {name} is not usable",
                    got=f"{array.dtype} {array.shape}",
                    wanted=f"float32 {wanted[name]}, finite",
                )
        if self.scale is not None and (self.scale <= 0).any():
            raise InputError("the reduction's scale is not usable", got=self.scale.min(), wanted="numbers > 0")

    @property
    def dim(self) -> int:
        """D."""
        return self.source.dim if self.components is None else len(self.components)

    @property
    def arrays(self) -> dict[str, FloatArray]:
        """Those that there are, by name."""
        return {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}

    @property
    def levels(self) -> tuple[FloatArray, FloatArray] | None:
        """(scale, offset), each (D,), of rows in 8 bits; None where rows are float16."""
        return None if self.scale is None or self.offset is None else (self.scale, self.offset)

    @cached_property
    def name(self) -> str:
        """Tells it from every other: kind, and SHA-256 of the source's key and all arrays."""
        digest = hashlib.sha256(self.source.key_with_name().encode())
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        kinds = ([] if self.components is None else [f"pca-{self.dim}"]) + (["uint8"] if self.levels else [])
        return f"{'+'.join(kinds)}:{digest.hexdigest()}"

    @cached_property
    def settings(self) -> FeatureSettings:
        """Of the reduced rows."""
        dtype = "uint8" if self.levels else "float16"
        return replace(self.source, dim=self.dim, dtype=dtype, reduction=self.name)

    def project(self, rows_nc: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(n, C) rows -> (n, D), before they are rounded."""
        if self.components is None or self.mean is None:
            return rows_nc.astype(np.float64)
        projected_nd = np.empty((len(rows_nc), self.dim))
        for start in range(0, len(rows_nc), BLOCK_ROWS):
            rows = rows_nc[start : start + BLOCK_ROWS]
            block = np.zeros((BLOCK_ROWS, self.source.dim))
            np.subtract(rows, self.mean, out=block[: len(rows)], dtype=np.float64)
            projected_nd[start : start + len(rows)] = (block @ self._turned_cd)[: len(rows)]
        return projected_nd

    def store(self, projected_nd: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """(n, D) as `project` gives them -> as they are stored: float16 (infinite beyond its range) or uint8."""
        if self.scale is None or self.offset is None:
            with np.errstate(over="ignore"):
                return projected_nd.astype(np.float16)
        return np.rint((projected_nd - self.offset) / self.scale).clip(0, NUM_LEVELS - 1).astype(np.uint8)

    def encode(self, rows_nc: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Full rows (n, C) -> reduced rows (n, D) as they are stored, float16 or uint8.

        Row t of a match gives the same bytes in every call whose first row is a multiple of `BLOCK_ROWS`, whatever the
        number of rows.
        """
        return self.store(self.project(rows_nc))

    def decode(self, stored_nd: npt.NDArray[Any]) -> FloatArray:
        """Reduced rows (n, D) as stored -> (n, D) float32, what heads see."""
        rows_nd = stored_nd.astype(np.float32)
        if self.scale is None or self.offset is None:
            return rows_nd
        return rows_nd * self.scale + self.offset

    @cached_property
    def _turned_cd(self) -> npt.NDArray[np.float64]:
        assert self.components is not None
        return np.ascontiguousarray(self.components.T, np.float64)


class RowEncoder:
    """Encodes rows of one match that come in pieces of any length, with the bytes of one call."""

    def __init__(self, reduction: Reduction, stored_rd: npt.NDArray[Any]) -> None:
        """`stored_rd` (R, D) is filled from its first row on."""
        self._reduction, self._stored_rd = reduction, stored_rd
        self._waiting_nc = np.empty((0, reduction.source.dim), np.float16)
        self._num_done = 0

    def add(self, rows_nc: npt.NDArray[np.float16]) -> None:
        """The next rows (n, C); with the last one of the match all are encoded."""
        rows = np.concatenate([self._waiting_nc, rows_nc])
        is_last = self._num_done + len(rows) == len(self._stored_rd)
        count = len(rows) if is_last else len(rows) // BLOCK_ROWS * BLOCK_ROWS
        self._stored_rd[self._num_done : self._num_done + count] = self._reduction.encode(rows[:count])
        self._num_done, self._waiting_nc = self._num_done + count, rows[count:]


def describe_fit(about: Mapping[str, Any]) -> list[str]:
    """What a reduction was fitted on and what it keeps (`Reduction.about`), in lines for people."""
    asked, matches = about.get("asked", {}), about.get("matches", [])
    lines = [f"fitted on {about.get('rows', 0):,} rows of {len(matches)} matches of the split {asked.get('split')!r}"]
    kept, clipped = about.get("kept_variance", {}), about.get("clipped_share", {})
    if kept:
        lines.append("variance kept: " + ", ".join(f"{share:.2%} of {split}" for split, share in kept.items()))
    if asked.get("quantize"):
        lines.append("values clipped: " + ", ".join(f"{share:.3%} of {split}" for split, share in clipped.items()))
    return lines


def write_reduction(folder: Path, reduction: Reduction) -> None:
    """Keep the reduction in the folder of a store, a run or an export, whole or not at all. Raises InputError."""
    from safetensors.numpy import save

    record = {
        "format": _FORMAT,
        "name": reduction.name,
        "source": reduction.source.to_json(),
        "source_key": reduction.source.key(),
        "about": dict(reduction.about),
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in reduction.arrays.items()}  # it writes the raw buffer
    data = save(arrays, {_RECORD: json.dumps(record, sort_keys=True)})
    with disk_errors(folder):
        write_atomic(folder / REDUCTION_FILE, data)


def read_reduction(folder: Path, settings: FeatureSettings) -> Reduction | None:
    """The reduction in the folder of a store, a run or an export, checked against the name that the settings give it;
    None where these are of full rows.

    Raises:
        InputError: missing, damaged, or of other rows.
    """
    if settings.reduction is None:
        return None
    path = inside(folder, REDUCTION_FILE)
    if path.is_file():
        source, about, arrays = _read_file(path, settings)
    elif (folder / REDUCTION / METADATA).is_file():
        source, about, arrays = _read_group(folder, settings)
    else:
        cure = f"fetch all of {folder} again"
        raise InputError(f"{path}: no such file", got="reduced rows without their components", cure=cure)
    try:
        reduction = Reduction(source=source, **arrays, about=about)
        name = reduction.name
    except InputError as error:
        raise _damaged(path, str(error.what)) from None
    if name != settings.reduction or reduction.settings != settings:
        raise _damaged(path, f"{name[:32]}...", wanted=f"{settings.reduction[:32]}...")
    return reduction


_Parts = tuple[FeatureSettings, Mapping[str, Any], dict[str, FloatArray]]


def _read_file(path: Path, settings: FeatureSettings) -> _Parts:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_RECORD, "null").encode()
            if len(text) > METADATA_BYTES:
                raise _damaged(path, f"a record of {len(text):,} bytes", wanted=f"at most {METADATA_BYTES:,}")
            source, about = _parse_record(parse_json(text, where=str(path)), path)
            arrays = {}
            for name in sorted(set(ARRAYS) & set(file.keys())):
                part = file.get_slice(name)  # shape and type are checked before anything is read
                if (tuple(part.get_shape()), part.get_dtype()) != (_shapes(settings, source)[name], "F32"):
                    raise _damaged(path, f"{name} of another shape or type")
                arrays[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from None
    return source, about, arrays


def _read_group(folder: Path, settings: FeatureSettings) -> _Parts:
    """From the Zarr group that stores had before they had the file: raw little-endian float32, one chunk an array."""
    path = inside(folder, f"{REDUCTION}/{METADATA}")
    source, about = _parse_record(attribute(read_json(path, max_bytes=METADATA_BYTES), _OLD_RECORD), path)
    arrays = {}
    for name, shape in _shapes(settings, source).items():
        if (folder / REDUCTION / name).is_dir():
            chunk = inside(folder, "/".join((REDUCTION, name, "c", *("0" * len(shape)))))
            num_bytes = 4 * int(np.prod(shape, dtype=object))
            data = read_bounded(chunk, max_bytes=num_bytes)
            if len(data) != num_bytes:
                raise _damaged(chunk, f"{len(data)} bytes", wanted=f"{num_bytes} bytes")
            arrays[name] = np.frombuffer(data, "<f4").reshape(shape)
    return source, about, arrays


def _parse_record(record: object, path: Path) -> tuple[FeatureSettings, Mapping[str, Any]]:
    """Settings of the full rows, and what is said about the fit."""
    if not isinstance(record, dict) or not {"source", "about"} <= set(record):
        raise _damaged(path, repr(record)[:80])
    if record.get("format") != _FORMAT:
        cure = "use the version of bas that made it"
        raise InputError(f"{path}: another format", got=record.get("format"), wanted=_FORMAT, cure=cure)
    source, about = record["source"], record["about"]
    if not isinstance(source, dict) or not isinstance(about, dict):
        raise _damaged(path, repr(source)[:80])
    return FeatureSettings.from_json(source), about


def _shapes(reduced: FeatureSettings, source: FeatureSettings) -> dict[str, tuple[int, ...]]:
    full, dim = source.dim, reduced.dim
    return {"mean": (full,), "components": (dim, full), "scale": (dim,), "offset": (dim,)}


def _damaged(path: Path, got: str, *, wanted: str | None = None) -> InputError:
    cure = "fetch it again, or reduce the full store again into another --out"
    return InputError(f"{path}: damaged", got=got, wanted=wanted, cure=cure)
