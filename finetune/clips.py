"""Training batches straight from videos: the windows of stage two, as pictures.

Shapes: B clips of all processes, b of this one, T steps, H x W pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..extract.video.clips import ClipPlace, ClipReader, Clips
from ..heads.ops import Mask
from ..heads.targets import Targets
from ..heads.training.data import Chosen
from ..heads.training.data import Windows
from ..heads.training.data import IntArray
from ..heads.training.settings import FinetuneSettings
from .net import num_processes, process_index
from .source import VideoSource

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Part:
    """What goes through the network at once."""

    pixels: Tensor
    """(b, T, H, W, 3) uint8 on the CPU, the clips of this process."""
    seeds: tuple[int, ...]
    """Of the augmentation, one per clip of this process."""
    mask_bt: Mask
    """(B, T) bool of all processes; None where no window is padded."""
    targets: Targets
    """(B, T, ...) of all processes."""


class TrainingClips:
    """All training windows of a data set's videos.

    Args:
        chosen: which matches train.
        source: their videos.
        settings: windows, batches, order.
        threads: of the decoders; 0: one per core.
        device: where targets are wanted.
    """

    def __init__(
        self, chosen: Chosen, source: VideoSource, settings: FinetuneSettings, *, threads: int, device: torch.device
    ) -> None:
        self.windows = Windows.of(chosen, settings, device=device)
        self._settings = settings
        self._videos = [source.video(match.id) for match in chosen.train]
        self._threads = threads
        self._clips: Clips | None = None
        self._waited_before = 0.0

    @property
    def waited_seconds(self) -> float:
        """Time so far that training stood waiting for clips."""
        return self._waited_before + (self._clips.waited_seconds if self._clips else 0.0)

    def batches(self, epoch: int, *, first_step: int) -> Iterator[tuple[Part, ...]]:
        """Batches of an epoch (from 0) from update `first_step` on, each in `accumulate` parts."""
        batches = self.windows.batches(epoch)[first_step:]
        mine = [window for batch in batches for part in self._parts(batch) for window in _own(part)]
        size = self._settings.batch // num_processes()
        with self._reader(_BATCHES_AHEAD * size) as reader, closing(reader.clips(map(self._place, mine))) as clips:
            self._clips = clips
            try:
                for step, batch in enumerate(batches, first_step):
                    yield self._batch(batch, clips, first_clip=step * self._settings.batch, epoch=epoch)
            finally:
                self._waited_before, self._clips = self.waited_seconds, None

    def spread(self, count: int) -> Iterator[Tensor]:
        """Clips (1, T, H, W, 3) uint8 of up to `count` windows, evenly spread over all, the same in every process."""
        numbers = np.unique(np.linspace(0, self.windows.num_windows - 1, count).round().astype(np.int64))
        with self._reader(_BATCHES_AHEAD) as reader, closing(reader.clips(map(self._place, numbers))) as clips:
            for pixels in clips:
                yield torch.from_numpy(pixels)[None]

    def _reader(self, ahead: int) -> ClipReader:
        return ClipReader(self._videos, threads=self._threads, ahead=ahead)

    def _place(self, window: int) -> ClipPlace:
        row = int(self.windows.first_row_w[window])
        match = int(np.searchsorted(self.windows.first_row_m, row, side="right")) - 1
        first_step = row - int(self.windows.first_row_m[match])
        return ClipPlace(match, first_step, self._settings.clip_len, self._settings.stride)

    def _parts(self, batch: IntArray) -> Sequence[IntArray]:
        return np.split(batch, self._settings.accumulate)

    def _batch(self, batch: IntArray, clips: Clips, *, first_clip: int, epoch: int) -> tuple[Part, ...]:
        parts, clip = [], first_clip
        for windows in self._parts(batch):
            numbers = _own(np.arange(clip, clip + len(windows)))
            seeds = tuple(clip_seed(self._settings.seed, epoch, int(number)) for number in numbers)
            pixels = torch.from_numpy(np.stack([next(clips) for _ in seeds]))
            parts.append(Part(pixels, seeds, *self.windows.mask_and_targets(*self.windows.index(windows))))
            clip += len(windows)
        return tuple(parts)


def clip_seed(seed: int, epoch: int, clip: int) -> int:
    """Seed of the augmentation of one clip of an epoch, whoever reads it."""
    return int(np.random.SeedSequence([seed, epoch, clip, 3]).generate_state(1, np.uint64)[0])


def _own(part: IntArray) -> IntArray:
    """This process's share of what all processes do together."""
    size = len(part) // num_processes()
    return part[process_index() * size : (process_index() + 1) * size]
