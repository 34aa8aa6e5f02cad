"""The frames of a video that clips still need, on the device that makes rows of them; each is uploaded once.

Uploads have a stream of their own, so that they run beside the kernels of the call before. Page-locked memory comes
from PyTorch's cache, which gives a block out again only when the copy from it is over.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..video.picture import Pixels

_FRAMES_PER_UPLOAD = 16
_UPLOADS_AHEAD = 4
"""Blocks of page-locked memory that wait for their upload."""


class FrameRing:
    """Frames by number, counted from the first that was added; the newest stay, and the oldest are written over.

    It is for calls that go through a video: none needs more frames, from its first to the newest, than the first call
    added, nor one before the first frame of the call before. There is room for twice as many, so that the frames of a
    call can be uploaded while the call before still reads its own.

    Args:
        device: one that PyTorch has streams for; those of a CPU do nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on = torch.get_device_module(device)
        self._uploads = self._on.Stream()
        self._sent: deque[Any] = deque()  # (event, frames that must not be freed before) of each block on its way
        self._read: deque[Any] = deque(maxlen=2)  # an event at the end of each of the last calls
        self._ring_nhwc: Tensor | None = None
        self._num_added = 0

    def add(self, images: Sequence[Pixels]) -> None:
        """Upload frames (H, W, 3) that follow those added before; what is queued from here on finds them there."""
        kernels = self._on.current_stream()
        if self._ring_nhwc is None:
            self._ring_nhwc = torch.empty((2 * len(images), *images[0].shape), dtype=torch.uint8, device=self._device)
            self._uploads.wait_stream(kernels)  # the memory may have been that of a tensor which is still read
        assert 2 * len(images) <= len(self._ring_nhwc), "the first call adds the most frames"
        if len(self._read) == 2:
            self._uploads.wait_event(self._read[0])
        with self._on.stream(self._uploads):
            rest = list(images)
            while rest:
                slot = self._num_added % len(self._ring_nhwc)
                block = rest[: min(_FRAMES_PER_UPLOAD, len(self._ring_nhwc) - slot)]
                if len(self._sent) == _UPLOADS_AHEAD:
                    self._sent.popleft()[0].synchronize()
                if isinstance(block[0], Tensor):  # decoded on the device
                    staged = torch.stack(block)
                else:
                    staged = page_locked((len(block), *block[0].shape), torch.uint8, self._device)
                    np.stack(block, out=staged.numpy())
                self._ring_nhwc[slot : slot + len(block)].copy_(staged, non_blocking=True)
                self._sent.append((self.now(), block if isinstance(block[0], Tensor) else None))
                self._num_added += len(block)
                del rest[: len(block)]
        kernels.wait_stream(self._uploads)

    def slots(self, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where in the ring frames of these numbers lie."""
        assert self._ring_nhwc is not None
        oldest = self._num_added - len(self._ring_nhwc) // 2
        assert oldest <= frames.min(), "a frame is no longer there"
        assert frames.max() < self._num_added, "a frame is not there yet"
        return frames % len(self._ring_nhwc)

    def gather(self, slots_ni: Tensor) -> Tensor:
        """Frames of N clips of I steps, in one kernel: (N, I, H, W, 3) uint8."""
        assert self._ring_nhwc is not None
        return torch.unflatten(self._ring_nhwc.index_select(0, slots_ni.flatten()), 0, slots_ni.shape)

    def end_call(self) -> None:
        """All that reads the frames of this call is queued."""
        self._read.append(self.now())

    def now(self) -> Any:
        """An event of the current stream: it is there when all that was queued so far is done."""
        event = self._on.Event()
        event.record(self._on.current_stream())
        return event


def page_locked(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host memory that a device copies from by itself; plain memory for a CPU."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


def uploaded(array: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """An array on a device; the call does not wait for the copy."""
    staged = page_locked(array.shape, torch.int64, device)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)
