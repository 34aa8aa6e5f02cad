"""The feature bank: all rows of some matches where training can gather windows of them by index.

Legend: R rows of all matches one after the other, V views, B clips, T steps, C channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..files import free_memory_bytes
from .layout import DTYPES
from .rows import MappedRows
from .store import FeatureStore

Place = Literal["auto", "device", "ram", "mapped"]
PLACES: tuple[Place, ...] = get_args(Place)
Levels = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""(C,) step and lowest value of rows in 8 bits, see `Reduction.levels`."""
_BLOCK_ROWS = 65_536
_SHARE_OF_FREE = 0.6
"""A bank may take this share of the free memory of a device or machine; beyond, the next slower place serves."""


@dataclass(frozen=True)
class BankMatch:
    """Where a match lies in the bank."""

    id: str
    first_row: int
    """Index of its row 0 among all rows."""
    num_rows: int


class FeatureBank:
    """Rows of matches, gathered as windows. Made by `open_bank`."""

    def __init__(
        self,
        matches: Sequence[BankMatch],
        *,
        shape_vrc: tuple[int, int, int],
        device: torch.device,
        tables: Sequence[Tensor] = (),
        files: Sequence[Sequence[MappedRows]] = (),
        dtype: np.dtype[Any],
        levels: Levels | None = None,
    ) -> None:
        self.matches = tuple(matches)
        """In the order given."""
        self.num_views, self.num_rows, self.dim = shape_vrc
        self.device = device
        """Where `gather` puts its result."""
        self._tables = tables
        self._files = files
        self._dtype = dtype
        self._levels = None if levels is None else tuple(torch.tensor(array, device=device) for array in levels)
        self._starts = np.array([match.first_row for match in matches], np.int64)

    @property
    def place(self) -> Place:
        """`device`, `ram` or `mapped`."""
        if not self._tables:
            return "mapped"
        return "ram" if self._tables[0].device.type == "cpu" else "device"

    @property
    def num_bytes(self) -> int:
        """Size of the rows of all views as they are kept."""
        return self.num_views * self.num_rows * self.dim * self._dtype.itemsize

    def gather(self, index_bt: Tensor, *, view: int = 0) -> Tensor:
        """Windows of rows of a view, (B, T, C) float32 on `device`.

        `index_bt` is (B, T) int64 on the CPU, 0..R-1; the indices of one clip never descend and are of one match.
        """
        shape = (*index_bt.shape, self.dim)
        if self._tables:
            table = self._tables[view]
            rows = table.index_select(0, index_bt.to(table.device, non_blocking=True).flatten())
            return self._decoded(rows.to(self.device, non_blocking=True)).view(shape)
        rows_btc = np.empty(shape, self._dtype)
        for clip, index_t in zip(rows_btc, index_bt.numpy(), strict=True):
            mapped, first_row = self._file(int(index_t[0]), view)
            steps = np.diff(index_t)
            if len(steps) and steps[0] > 0 and (steps == steps[0]).all():  # a slice: faster than row by row
                clip[:] = mapped[index_t[0] - first_row : index_t[-1] - first_row + 1 : steps[0]]
            else:  # one row, or repeats at an end
                clip[:] = mapped.take(index_t - first_row)
        return self._decoded(torch.from_numpy(rows_btc).to(self.device, non_blocking=True))

    def will_need(self, index_bt: Tensor, *, view: int = 0) -> None:
        """Ask for the rows of windows to be read ahead; does nothing where they are in memory already."""
        if self._tables:
            return
        for first, last in index_bt[:, [0, -1]].tolist():  # indices of a clip never descend
            rows, first_row = self._file(first, view)
            rows.willneed(first - first_row, last - first_row + 1)

    def _decoded(self, stored: Tensor) -> Tensor:
        """(..., C) float32 of rows as they are kept."""
        if self._levels is None:
            return stored.float()
        scale, offset = self._levels
        return stored.float().mul_(scale).add_(offset)

    def _file(self, row: int, view: int) -> tuple[MappedRows, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._files[number][view], self.matches[number].first_row


def open_bank(
    store: FeatureStore,
    match_ids: Sequence[str],
    *,
    views: Sequence[str] = ("identity",),
    device: torch.device | str = "cpu",
    place: Place = "auto",
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> FeatureBank:
    """Bring the rows of matches into one contiguous table per view, on the device where they fit, else in memory;
    where neither has room they stay in the mapped files.

    Args:
        store: the feature store.
        match_ids: at least one.
        views: each match has all of them.
        device: where gathered windows are wanted.
        place: one of the places; `auto` takes the fastest with room.
        on_progress: called with rows read and rows in all.

    Raises:
        InputError: no match, a view that a match lacks, or damaged rows.
    """
    if not match_ids or place not in PLACES:
        raise InputError("feature bank is not usable", got=f"{len(match_ids)} matches, place {place!r}", wanted=PLACES)
    device = torch.device(device)
    files = [[store.rows(match_id, view) for view in views] for match_id in match_ids]
    matches, num_rows = [], 0
    for match_id, rows in zip(match_ids, files, strict=True):
        matches.append(BankMatch(match_id, num_rows, len(rows[0])))
        num_rows += len(rows[0])
    shape = (len(views), num_rows, store.settings.dim)
    dtype = DTYPES[store.settings.dtype]
    levels = store.reduction.levels if store.reduction else None
    if place == "auto":
        place = _fitting_place(math.prod(shape) * dtype.itemsize, device)
    if place == "mapped":
        return FeatureBank(matches, shape_vrc=shape, device=device, files=files, dtype=dtype, levels=levels)
    home = device if place == "device" else torch.device("cpu")
    tables = [torch.empty(shape[1:], dtype=getattr(torch, dtype.name), device=home) for _ in views]
    for match, rows in zip(matches, files, strict=True):
        for table, of_view in zip(tables, rows, strict=True):
            for start in range(0, len(of_view), _BLOCK_ROWS):
                block = np.array(of_view[start : start + _BLOCK_ROWS], dtype)  # a copy: torch takes no read-only array
                first = match.first_row + start
                table[first : first + len(block)].copy_(torch.from_numpy(block))
        on_progress(match.first_row + match.num_rows, num_rows)
    return FeatureBank(matches, shape_vrc=shape, device=device, tables=tables, dtype=dtype, levels=levels)


def bank_of_rows(
    rows_rc: npt.NDArray[Any], *, match_id: str, device: torch.device | str = "cpu", levels: Levels | None = None
) -> FeatureBank:
    """A bank of one view of one match from its rows in memory: float16, or uint8 with their levels. The array must not
    change afterwards."""
    device, table = torch.device(device), torch.from_numpy(rows_rc)
    if _fitting_place(rows_rc.nbytes, device) == "device":
        table = table.to(device)
    match, shape = BankMatch(match_id, 0, len(rows_rc)), (1, *rows_rc.shape)
    return FeatureBank([match], shape_vrc=shape, device=device, tables=[table], dtype=rows_rc.dtype, levels=levels)


def fits_in_memory(num_bytes: int) -> bool:
    """Whether so many bytes of rows may be held in the memory that is free."""
    return _fitting_place(num_bytes, torch.device("cpu")) == "ram"


def _fitting_place(num_bytes: int, device: torch.device) -> Place:
    if device.type == "cuda" and num_bytes <= _SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "ram" if num_bytes <= _SHARE_OF_FREE * free_memory_bytes() else "mapped"
