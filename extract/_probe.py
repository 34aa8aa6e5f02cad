"""Length, rate and size of a video from its headers. Stands in until `extract.video.probe_video` is merged."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from ..errors import InputError


@dataclass(frozen=True)
class VideoInfo:
    """What the headers of a video say; nothing is decoded."""

    num_frames: int | None
    """Frames, where the header has them."""
    duration_seconds: Fraction
    """Length of the video stream (of the file, where the stream has none)."""
    fps: Fraction
    """Mean frame rate."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    codec: str


def probe(path: Path) -> VideoInfo:
    """Headers of the first video stream.

    Raises:
        InputError: zero bytes, not a video, no video stream, or no length in the headers.
    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path.name}: zero bytes", cure="fetch the file again")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path.name}: no video stream", got="audio only", cure="fetch the file again")
            stream = container.streams.video[0]
            fps = stream.average_rate or stream.guessed_rate
            length = Fraction(container.duration, av.time_base) if container.duration else None
            if stream.duration and stream.time_base:
                length = stream.duration * stream.time_base
            if not fps or not length:
                raise InputError(f"{path.name}: the headers have no frame rate or no length", cure="remux it to mp4")
            return VideoInfo(
                stream.frames or None, length, Fraction(fps), stream.width, stream.height, stream.codec_context.name
            )
    except (av.FFmpegError, OSError) as reason:
        raise InputError(
            f"{path.name}: unreadable video", got=reason.strerror, cure="fetch the file again, or re-encode it"
        ) from None
