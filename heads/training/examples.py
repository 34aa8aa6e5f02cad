"""Training batches straight from the bank: windows gathered by index, no worker processes.

Legend: W windows, B clips, T steps, C channels, N = K + 1 outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ..ops import Mask
from ..targets import Targets
from .data import Chosen, concatenate, row_targets, window_index
from .sampler import IntArray, all_window_starts, epoch_order, epoch_views
from .settings import TrainSettings

_FIT_ROWS = 200_000
"""Rows that the inputs' mean and deviation are taken from, at most, evenly spread."""


@dataclass(frozen=True)
class Batch:
    """What one update learns from."""

    features_btc: Tensor
    """(B, T, C) float32."""
    mask_bt: Mask
    """(B, T) bool; None where no window is padded."""
    targets: Targets
    """(B, T, ...)."""


@dataclass(frozen=True)
class Windows:
    """All training windows with their targets; rows count over the training matches, one after the other."""

    targets: Targets
    """(rows, ...) of all training rows."""
    first_row_m: IntArray
    """First row of each match."""
    first_row_w: IntArray
    """First row of each window."""
    last_row_w: IntArray
    """Last row of its match."""
    num_lost: int
    """Events that softmax labels cannot show, as another event has their step."""
    settings: TrainSettings

    @classmethod
    def of(cls, chosen: Chosen, settings: TrainSettings, *, device: torch.device) -> "Windows":
        """Windows of the training matches, their targets on a device."""
        parts = [
            row_targets(
                match,
                stride=settings.stride,
                num_classes=len(chosen.classes),
                settings=settings.targets,
                class_counts=chosen.class_counts,
            )
            for match in chosen.train
        ]
        lengths = [match.num_rows for match in chosen.train]
        first_m = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        first_w, last_w = all_window_starts(
            list(zip(first_m.tolist(), lengths, strict=True)),
            clip_len=settings.clip_len,
            stride=settings.stride,
            hop_rows=settings.hop_rows,
        )
        targets = concatenate([part for part, _ in parts]).to(device)
        return cls(targets, first_m, first_w, last_w, sum(lost for _, lost in parts), settings)

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.first_row_w)

    def batches(self, epoch: int) -> IntArray:
        """(updates, B) window of each clip of an epoch (from 0): a pure function of (seed, epoch)."""
        settings = self.settings
        order = epoch_order(self.num_windows, num_clips=settings.clips_per_epoch, seed=settings.seed, epoch=epoch)
        return order.reshape(settings.batches_per_epoch, settings.batch)

    def index(self, windows_b: IntArray) -> tuple[Tensor, Tensor]:
        """(B, T) rows of windows, and (B, T) which of them are real."""
        first, last = self.first_row_w[windows_b], self.last_row_w[windows_b]
        return window_index(first, last, clip_len=self.settings.clip_len, stride=self.settings.stride)

    def mask_and_targets(self, index_bt: Tensor, mask_bt: Tensor) -> tuple[Mask, Targets]:
        """What `index` gave, on the targets' device; no mask where all is real."""
        device = self.targets.mask_bt.device
        targets = self.targets.select(index_bt.to(device, non_blocking=True))
        if bool(mask_bt.all()):
            return None, targets
        mask = mask_bt.to(device)
        return mask, replace(targets, mask_bt=mask)


@dataclass(frozen=True)
class Examples:
    """All training windows with their features. The bank begins with the training matches."""

    bank: FeatureBank
    windows: Windows

    @classmethod
    def of(cls, chosen: Chosen, bank: FeatureBank, settings: TrainSettings) -> "Examples":
        """Windows of the training matches."""
        return cls(bank, Windows.of(chosen, settings, device=bank.device))

    def sample_rows(self) -> Tensor:
        """(R, C) float32 training rows, evenly spread over each match, on the bank's device."""
        num_rows = len(self.windows.targets.mask_bt)
        step = -(-num_rows // _FIT_ROWS)
        matches = [match for match in self.bank.matches if match.first_row < num_rows]
        spread = (torch.arange(each.first_row, each.first_row + each.num_rows, step) for each in matches)
        return torch.cat([self.bank.gather(index_t[None])[0] for index_t in spread])

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (from 0), from update `first_step` on: a pure function of (seed, epoch)."""
        settings, num_batches = self.windows.settings, self.windows.settings.batches_per_epoch
        views = epoch_views(len(settings.views), num_batches=num_batches, seed=settings.seed, epoch=epoch)
        batches = self.windows.batches(epoch)
        ahead = self.windows.index(batches[first_step]) if first_step < num_batches else None
        for step in range(first_step, num_batches):
            assert ahead is not None
            index_bt, mask_bt = ahead
            if step + 1 < num_batches:
                ahead = self.windows.index(batches[step + 1])
                self.bank.will_need(ahead[0], view=int(views[step + 1]))
            yield self._batch(index_bt, mask_bt, view=int(views[step]))

    def _batch(self, index_bt: Tensor, mask_bt: Tensor, *, view: int) -> Batch:
        return Batch(self.bank.gather(index_bt, view=view), *self.windows.mask_and_targets(index_bt, mask_bt))


def one_pass_at_most(settings: TrainSettings, chosen: Chosen) -> TrainSettings:
    """The settings with epochs of at most one pass over the training windows: recipes are made for days of video."""
    places = [(0, match.num_rows) for match in chosen.train]
    first_row_w, _ = all_window_starts(
        places, clip_len=settings.clip_len, stride=settings.stride, hop_rows=settings.hop_rows
    )
    return replace(settings, epoch_steps=min(settings.epoch_steps, len(first_row_w) * settings.clip_len))
