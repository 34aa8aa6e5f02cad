"""Random clips from long videos, decoded ahead by threads and handed out in the order asked for."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...files import num_cores
from .decode import Decoder
from .picture import Pixels
from .reader import Video

_MAX_IDLE_DECODERS = 16
"""Files kept open while no thread reads them."""


@dataclass(frozen=True)
class ClipPlace:
    """Which steps of which video."""

    video: int
    """Index in the list of videos."""
    first_step: int
    """Grid step of the first picture, >= 0; steps past the end show the video's last step."""
    num_steps: int
    """T, >= 1."""
    stride: int
    """Grid steps per clip step, >= 1."""


class ClipReader:
    """Reads clips of many videos with a few threads. A context manager: it ends its threads and closes its files.

    Args:
        videos: what `ClipPlace.video` counts; only their time tables are held.
        threads: clips decoded side by side; 0 for one per core. The pictures do not depend on it.
        ahead: clips asked for before they are wanted, >= 1. That many, and the one handed out, are in memory.
    """

    def __init__(self, videos: Sequence[Video], *, threads: int = 0, ahead: int = 8) -> None:
        self._videos = videos
        self._ahead = ahead
        self._decoders = _Decoders(videos)
        self._pool = ThreadPoolExecutor(threads or num_cores(), thread_name_prefix="bas-clips")
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)
        self._decoders.close()

    def clips(self, places: Iterable[ClipPlace]) -> "Clips":
        """The clips at `places`, in that order; (T, height, width, 3) uint8 each, as `Video.frames` shows them.

        Takes up to `ahead` places before the first clip is handed out. Iterating raises `InputError` at the clip
        that cannot be read: no frame of its whole video can be decoded.
        """
        return Clips(self, iter(places))

    def _read(self, place: ClipPlace, dropped: threading.Event) -> Pixels | None:
        """One clip; None where nobody wants it any more."""
        video = self._videos[place.video]
        steps = place.first_step + place.stride * np.arange(place.num_steps, dtype=np.int64)
        steps = np.minimum(steps, video.num_steps - 1)
        width, height = video.picture_size
        clip = np.empty((place.num_steps, height, width, 3), np.uint8)
        with self._decoders.use(place.video) as decoder, closing(video.pictures_at(steps, decoder)) as pictures:
            for index, picture in enumerate(pictures):
                if dropped.is_set() or self._closed.is_set():
                    return None
                clip[index] = picture
        return clip


class Clips(Iterator[Pixels]):
    """Clips in order, decoded ahead while the caller works; made by `ClipReader.clips`."""

    def __init__(self, reader: ClipReader, places: Iterator[ClipPlace]) -> None:
        self.waited_seconds = 0.0
        """Time that the caller has stood waiting for clips so far."""
        self._reader = reader
        self._places = places
        self._coming: deque[Future[Pixels | None]] = deque()
        self._dropped = threading.Event()

    def __next__(self) -> Pixels:
        self._ask_ahead()
        if not self._coming:
            raise StopIteration
        start_seconds = time.perf_counter()
        try:
            clip = self._coming.popleft().result()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited_seconds += time.perf_counter() - start_seconds
        assert clip is not None, "the clips were closed in another thread"
        self._ask_ahead()
        return clip

    def close(self) -> None:
        """Drop the clips that are being decoded; no more come. The reader stays good for others."""
        self._dropped.set()
        while self._coming:
            self._coming.pop().cancel()

    def _ask_ahead(self) -> None:
        while not self._dropped.is_set() and len(self._coming) < self._reader._ahead:
            place = next(self._places, None)
            if place is None:
                return
            self._coming.append(self._reader._pool.submit(self._reader._read, place, self._dropped))


class _Decoders:
    """Open decoders that no thread uses at the moment; the one left alone longest is closed first."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self._videos = videos
        self._lock = threading.Lock()
        self._idle: OrderedDict[Decoder, int] = OrderedDict()  # decoder -> video

    @contextmanager
    def use(self, video: int) -> Iterator[Decoder]:
        """A decoder of a video for this thread alone."""
        with self._lock:
            decoder = next((each for each, of in reversed(self._idle.items()) if of == video), None)
            if decoder is not None:
                del self._idle[decoder]
        decoder = decoder or self._videos[video].open_decoder()
        try:
            yield decoder
        except BaseException:
            decoder.close()
            raise
        with self._lock:
            self._idle[decoder] = video
            spare = self._idle.popitem(last=False)[0] if len(self._idle) > _MAX_IDLE_DECODERS else None
        if spare is not None:
            spare.close()

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            while self._idle:
                self._idle.popitem()[0].close()
