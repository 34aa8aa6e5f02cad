"""One synthetic match: played, filmed and written in SoccerNet's layout."""

import os
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..events import Event, write_json_atomic
from .camera import HEIGHT, WIDTH, follow, make_camera
from .draw import Painter
from .look import draw_look
from .panorama import draw_panorama
from .play import play_match
from .script import FPS, Script
from .tracks import make_tracks

VIDEO_NAME, LABELS_NAME = "224p.mp4", "Labels-ball.json"


def write_match(folder: Path, *, seconds: float, seed: int, variety: float = 1.0, url_local: str = "") -> list[Event]:
    """Render one match: `folder/224p.mp4` (398x224, 25 fps, H.264) and `folder/Labels-ball.json`, as SoccerNet has it.

    Args:
        folder: made if it does not exist. The video comes first, the labels last; each is whole or absent.
        seconds: length of the video, > 0.
        seed: >= 0; equal seeds give equal bytes (with the same versions of numpy and of the encoder).
        variety: of looks, 0 to 1; see `draw_look`.
        url_local: what the labels call the match; the folder's name by default.

    Returns:
        The events in time order; `team` is `left` (attacks to the right) or `right`.

    Raises:
        InputError: a length, a seed or a variety that cannot be used.
    """
    if not 0 < seconds < float("inf"):
        raise InputError("length of a match is not usable", got=seconds, wanted="seconds > 0")
    if seed < 0:
        raise InputError("seed is not usable", got=seed, wanted="a whole number >= 0")
    if not 0 <= variety <= 1:
        raise InputError("variety of looks is not usable", got=variety, wanted="0 to 1")
    script = script_of(seed, num_frames=max(1, round(seconds * FPS)))
    folder.mkdir(parents=True, exist_ok=True)
    painter, crf = make_painter(script, seed, variety=variety)
    _encode(folder / VIDEO_NAME, painter.frames(), crf=crf)
    write_json_atomic(
        folder / LABELS_NAME,
        {"UrlLocal": url_local or folder.name, "annotations": [event.to_json() for event in script.events]},
    )
    return list(script.events)


def script_of(seed: int, *, num_frames: int) -> Script:
    """What happens in the match of this seed; quick, as nothing is drawn."""
    return play_match(np.random.default_rng((seed, 0)), num_frames)


def make_painter(script: Script, seed: int, *, variety: float = 1.0) -> tuple[Painter, int]:
    """What draws the match of this seed, and the quality (crf) of its video."""
    look = draw_look(np.random.default_rng((seed, 1)), variety=variety)
    rng = np.random.default_rng((seed, 2))
    tracks = make_tracks(script, rng)
    camera = make_camera(look)
    views = follow(camera, look, ball=tracks.ball, rng=rng)
    panorama = draw_panorama(camera, look, rng)
    return Painter(look, camera, panorama=panorama, tracks=tracks, views=views, rng=rng), look.crf


def _encode(path: Path, frames: Iterable[npt.NDArray[np.uint8]], *, crf: int) -> None:
    """Write H.264 at 25 fps with a key frame every 2 s; equal frames give equal bytes.

    One thread is not enough for that: x264's fast macroblock tree gives now these bytes, now others, for equal frames
    (seen with core 165). Its `cpu-independent` code does not, and is as fast.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    options = {"crf": str(crf), "preset": "veryfast", "g": "50", "x264-params": "cpu-independent=1"}
    try:
        with av.open(temporary, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.thread_count = 1
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
            container.mux(stream.encode(None))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
