"""A reduction of feature rows: PCA, 8 bits per channel, or both. Pure.

Legend: n rows, C channels of the full rows, D channels of the reduced ones.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..settings import FeatureSettings

BLOCK_ROWS = 256
"""Rows that are projected at once. Always so many: BLAS may sum in another order for another shape."""
NUM_LEVELS = 256
ARRAYS = ("mean", "components", "scale", "offset")

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
        """Full rows -> reduced rows as they are stored.

        Row t of a match gives the same bytes in every call whose first row is a multiple of `BLOCK_ROWS`, whatever the
        number of rows.

        Args:
            rows_nc: (n, C) as the full store holds them.

        Returns:
            (n, D) float16 or uint8.
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
