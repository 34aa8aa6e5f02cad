"""Frames decoded by a GPU's own video engine (NVDEC, through torchcodec), which stay on the GPU.

Which frame stands at which step is decided by PyAV's time table as ever: torchcodec is given the table, so that its
frame k is ours, and the time of every frame that comes is held against it. It says nothing about damaged frames:
what is damaged looks like a good frame here, or ends the match with an error.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Self

import numpy as np
import torch

from ...errors import InputError
from .demux import VideoIndex, open_container
from .timetable import Int64s

MIN_LINES = 720
"""Below, PyAV on a few cores is faster than a backbone."""
MAX_SESSIONS = 4
"""Decoders that run side by side where nobody says how many; devices have 1 to 8 engines for them."""
_FRAMES_PER_CALL = 16


def nvdec_decoders(index: VideoIndex, device: torch.device, *, size: tuple[int, int]) -> "Callable[[], NvdecDecoder]":
    """A function that opens the file for one more decoder.

    Args:
        index: of the file.
        device: `cuda`; `cpu` decodes there, for tests.
        size: width and height that its frames must have.

    Raises:
        InputError: torchcodec is not installed, or the file's packets carry no times.
    """
    if index.by_rate or index.place_of is not None:
        raise _not_usable(index, "packets without times of their own")
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:  # it raises all of these where FFmpeg is missing
        raise InputError(
            "--decoder nvdec needs torchcodec, and FFmpeg's shared libraries",
            got=f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200],
            cure="pip install torchcodec (of the same CUDA as PyTorch) and install FFmpeg, or --decoder pyav",
        ) from None
    container, stream = open_container(index.path)
    with container:
        number = stream.index
    table = index.table
    ends = np.append(table.pts_ticks[1:], table.end_ticks)
    columns = zip(table.pts_ticks.tolist(), (ends - table.pts_ticks).tolist(), table.is_key.tolist(), strict=True)
    frames = [{"pts": pts, "duration": ticks, "key_frame": int(is_key)} for pts, ticks, is_key in columns]
    mappings = json.dumps({"frames": frames})

    def make() -> NvdecDecoder:
        with _decoding(index):
            decoder = VideoDecoder(
                index.path, stream_index=number, dimension_order="NHWC", device=device, custom_frame_mappings=mappings
            )
        return NvdecDecoder(decoder, index, device, size=size)

    return make


class NvdecDecoder:
    """One open file; in place of `decode.Decoder` where frames are wanted whole and on the device."""

    def __init__(self, decoder: Any, index: VideoIndex, device: torch.device, *, size: tuple[int, int]) -> None:
        self._decoder, self._index, self._size = decoder, index, size
        self._on = torch.get_device_module(device)
        self._stream = self._on.Stream()  # beside the kernels of the backbone

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder = None  # torchcodec closes a file with its last reference

    def pictures(self, first: int, last: int, wanted: Int64s) -> Iterator[tuple[int, Any]]:
        """As `Decoder.pictures`, each a tensor (height, width, 3) uint8 on the device, ready to be read."""
        del first, last  # torchcodec finds the key frames by itself
        for start in range(0, len(wanted), _FRAMES_PER_CALL):
            entries = wanted[start : start + _FRAMES_PER_CALL].tolist()
            with _decoding(self._index), self._on.stream(self._stream):
                batch = self._decoder.get_frames_at(indices=entries)
                done = self._on.Event()
                done.record(self._stream)
                done.synchronize()  # the reader has a stream of its own
            if self._decoder.cpu_fallback:
                raise _not_usable(self._index, f"NVDEC does not decode it ({self._decoder.cpu_fallback})")
            if batch.data.shape[1:] != (*self._size[::-1], 3):
                raise _not_usable(self._index, f"frames of shape {tuple(batch.data.shape[1:])}")
            for entry, seconds, picture in zip(entries, batch.pts_seconds.tolist(), batch.data, strict=True):
                ticks = round(Fraction(seconds) / self._index.table.time_base)
                if self._index.entry(ticks) != entry:
                    raise _not_usable(self._index, f"frame {entry} comes at {seconds} s")
                yield entry, picture


@contextmanager
def _decoding(index: VideoIndex) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:  # torchcodec's own, whatever the cause
        raise _not_usable(index, next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]) from error


def _not_usable(index: VideoIndex, got: str) -> InputError:
    return InputError(f"{index.path}: not for NVDEC", got=got, cure="--decoder pyav")
