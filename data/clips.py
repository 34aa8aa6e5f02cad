"""Short clips of a video as small mp4 files that any browser and phone plays."""

import io
import zipfile
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av

from ..errors import InputError
from ..events import Event, TimeGrid
from ..extract.video.picture import PictureFormat
from ..extract.video.reader import GridFrame, Video, open_video
from ..files import disk_errors, whole_or_absent

MOST_CLIPS = 200
BEFORE_MS, AFTER_MS = 3000, 3000
"""What a clip shows around a spot."""
_HEIGHT, _CRF = 360, 27


def open_small(path: Path, fps: Fraction | None = None) -> Video:
    """A video in small pictures of even size, on a grid of its own rate or another."""
    shown = open_video(path, fps=fps, picture=PictureFormat(width=16, height=16), threads=1).info
    height = min(_HEIGHT, shown.display_height) // 2 * 2
    width = round(shown.display_width * height / shown.display_height / 2) * 2
    return open_video(path, fps=fps, picture=PictureFormat(width=max(2, width), height=max(2, height)), threads=1)


def write_clip(path: Path, video: Video, start_step: int, stop_step: int, fps: Fraction) -> None:
    """Write steps [start, stop) of a video, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    options = {"crf": str(_CRF), "preset": "veryfast", "g": "25", "x264-params": "cpu-independent=1:log-level=none"}
    with (
        disk_errors(path),
        whole_or_absent(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
        closing(video.frames(start_step, stop_step)) as frames,
    ):
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = video.picture_size
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for each in frames:
            container.mux(stream.encode(_frame(each)))
        container.mux(stream.encode(None))


def write_clips(path: Path, events: Sequence[Event], out: Path) -> list[Path]:
    """A clip of three seconds to each side of every event, named by number, class and time.

    Args:
        path: the video.
        events: in time order, at most `MOST_CLIPS`.
        out: folder.

    Raises:
        InputError: too many, the video cannot be read, or the disk refuses.
    """
    if len(events) > MOST_CLIPS:
        got = f"{len(events)} spots"
        raise InputError("too many clips", got=got, wanted=f"at most {MOST_CLIPS}", cure="choose fewer classes")
    video, written = open_small(path), []
    grid = TimeGrid(video.grid.fps)
    for number, event in enumerate(events, 1):
        first = grid.frame(max(0, event.position_ms - BEFORE_MS))
        stop = min(video.num_steps, grid.frame(event.position_ms + AFTER_MS))
        if first < stop:
            label = "".join(letter if letter.isalnum() else "-" for letter in event.label)
            written.append(out / f"{number:03d}-{label}-{event.position_ms}.mp4")
            write_clip(written[-1], video, first, stop, grid.fps)
    return written


def zipped(files: Sequence[Path]) -> bytes:
    """Files in one zip, as they are."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    return data.getvalue()


def _frame(each: GridFrame) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(each.image, "rgb24").reformat(format="yuv420p", dst_colorspace="itu601")
