"""Makes small video clips whose frames carry their own number, so that a test can read which frame it got."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]
ClipMaker = Callable[..., Path]

BITS_WIDE, BITS_HIGH = 5, 2
QUIET = {"libx264": {"x264-params": "log-level=none:scenecut=0"}, "libx265": {"x265-params": "log-level=none"}}


def numbered_picture(number: int, width: int, height: int) -> Pixels:
    """(height, width, 3): ten grey blocks, light for 1 and dark for 0, over moving texture in small amplitude."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS_WIDE * BITS_HIGH)]).reshape(BITS_HIGH, BITS_WIDE)
    rows = np.arange(height) * BITS_HIGH // height
    columns = np.arange(width) * BITS_WIDE // width
    texture = np.random.default_rng(number).integers(0, 40, (height, width), dtype=np.uint8)
    grey = 40 + 140 * bits[rows][:, columns].astype(np.uint8) + texture
    return np.repeat(grey[:, :, None], 3, axis=2)


def number_of(image: Pixels) -> int:
    """The number in a picture of any size."""
    blocks = np.array_split(image.mean(axis=2), BITS_HIGH, axis=0)
    means = [block.mean() for row in blocks for block in np.array_split(row, BITS_WIDE, axis=1)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 128)


@pytest.fixture(scope="session")
def read_number() -> Callable[[Pixels], int]:
    """Reads the number of a picture."""
    return number_of


@pytest.fixture
def make_clip(tmp_path: Path) -> ClipMaker:
    """Writes a clip of numbered frames."""

    def make(
        name: str,
        *,
        num_frames: int = 60,
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 12800),
        rate: Fraction = Fraction(25),
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        size: tuple[int, int] = (160, 96),
        gop: int = 12,
        options: dict[str, str] | None = None,
        pixel_aspect: Fraction | None = None,
        rotation: int = 0,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        ticks = round(1 / (rate * time_base))
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = cast(VideoStream, container.add_stream(codec, rate=rate))
            stream.width, stream.height, stream.pix_fmt = *size, pixel_format
            stream.codec_context.gop_size = gop
            stream.codec_context.time_base = time_base
            stream.options = dict(QUIET.get(codec, {}) | (options or {}))
            if pixel_aspect:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation:
                stream.set_display_rotation(rotation)
            for number in range(num_frames):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), "rgb24")
                frame = frame.reformat(format=pixel_format, dst_colorspace="itu601")
                frame.pts, frame.time_base = (pts[number] if pts else number * ticks), time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(offset, size) in bytes of each packet, in file order."""
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size) for p in container.demux(container.streams.video[0]) if p.size]


@pytest.fixture(scope="session")
def damage() -> Callable[..., Path]:
    """Writes a copy of a clip with random bytes at spots inside its packets, or whole packets of zeros (`None`)."""

    def make(
        clip: Path,
        target: Path,
        *,
        num_spots: int,
        num_bytes: int | None,
        seed: int = 0,
        num_packets: int | None = None,
    ) -> Path:
        rng = np.random.default_rng(seed)
        content, places = bytearray(clip.read_bytes()), packet_places(clip)[:num_packets]
        for _ in range(num_spots):
            position, size = places[int(rng.integers(len(places)))]
            if num_bytes is None:
                content[position : position + size] = bytes(size)
                continue
            start = position + int(rng.integers(max(1, size - num_bytes)))
            content[start : start + num_bytes] = rng.integers(0, 256, num_bytes, dtype=np.uint8).tobytes()
        target.write_bytes(content)
        return target

    return make
