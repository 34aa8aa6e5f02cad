"""Small synthetic matches for demo and tests: a panning camera, two teams, a ball that is passed around.

Figures measured on them say nothing about real football. Deterministic by seed.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from .events import Event, TimeGrid, write_json_atomic

Image = npt.NDArray[np.uint8]

FPS = 25
WIDTH, HEIGHT = 398, 224
_NUM_PLAYERS = 12
_PITCH_WIDTH = 700  # pixels of the whole pitch; the camera sees WIDTH of them
_TEAM_COLOURS = ((200, 30, 30), (40, 60, 200))


def write_match(folder: Path, *, seconds: float, seed: int) -> list[Event]:
    """Render one match: `folder/224p.mp4` (398x224, 25 fps, H.264) and `folder/Labels-ball.json`, as SoccerNet has it.

    Args:
        folder: made if it does not exist.
        seconds: length of the video, > 0.
        seed: equal seeds give equal pixels and events.

    Returns:
        The events: PASS where the ball leaves a player, DRIVE where the next player moves off with it.
    """
    num_frames = max(1, round(seconds * FPS))
    rng = np.random.default_rng(seed)
    players_tpx = _walks(rng, num_frames)
    ball_tx, events = _play(rng, players_tpx)
    folder.mkdir(parents=True, exist_ok=True)
    _encode(folder / "224p.mp4", _render(rng, players_tpx, ball_tx))
    write_json_atomic(
        folder / "Labels-ball.json",
        {"UrlLocal": folder.name, "annotations": [event.to_json() for event in events]},
    )
    return events


def _walks(rng: np.random.Generator, num_frames: int) -> npt.NDArray[np.float64]:
    """Smooth player paths, pixels on the pitch: (T, players, 2) as x, y."""
    time = np.arange(num_frames)[:, None, None] / FPS
    home = rng.uniform((40, 60), (_PITCH_WIDTH - 40, HEIGHT - 20), (_NUM_PLAYERS, 2))
    rate, phase = rng.uniform(0.1, 0.5, (_NUM_PLAYERS, 2)), rng.uniform(0, 2 * np.pi, (_NUM_PLAYERS, 2))
    paths: npt.NDArray[np.float64] = home + 18 * np.sin(2 * np.pi * rate * time + phase)
    return paths


def _play(
    rng: np.random.Generator, players_tpx: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], list[Event]]:
    """The ball's path (T, 2) and the events: held for 0.5 to 1.5 s, then in flight for 0.4 to 0.9 s."""
    num_frames, num_players, _ = players_tpx.shape
    ball_tx, events, grid = np.empty((num_frames, 2)), [], TimeGrid(Fraction(FPS))
    frame, holder = 0, 0
    while frame < num_frames:
        held = int(rng.integers(12, 38))
        stop = min(frame + held, num_frames)
        ball_tx[frame:stop] = players_tpx[frame:stop, holder] + (5, 5)
        if stop == num_frames:
            break
        receiver = int((holder + rng.integers(1, num_players)) % num_players)
        flight = min(int(rng.integers(10, 23)), num_frames - stop)
        share = (np.arange(flight) + 1)[:, None] / flight
        target = players_tpx[stop + flight - 1, receiver] + (5, 5)
        ball_tx[stop : stop + flight] = ball_tx[stop - 1] * (1 - share) + target * share
        events.append(Event(grid.ms(stop), "PASS", team="home" if holder % 2 else "away"))
        frame, holder = stop + flight, receiver
        if frame < num_frames:
            events.append(Event(grid.ms(frame), "DRIVE", team="home" if holder % 2 else "away"))
    return ball_tx, events


def _render(
    rng: np.random.Generator, players_tpx: npt.NDArray[np.float64], ball_tx: npt.NDArray[np.float64]
) -> Iterator[Image]:
    """Frames (224, 398, 3) RGB: the camera follows the ball, slowly."""
    pitch = np.empty((HEIGHT, _PITCH_WIDTH, 3), np.uint8)
    pitch[:] = np.where((np.arange(_PITCH_WIDTH) // 50 % 2)[:, None], (48, 120, 44), (56, 134, 52))
    pitch[:40] = rng.integers(60, 160, (40, _PITCH_WIDTH, 3))  # the crowd
    pitch[42:44] = pitch[:, _PITCH_WIDTH // 2 - 1 : _PITCH_WIDTH // 2 + 1] = 230
    camera_x = float(np.clip(ball_tx[0, 0] - WIDTH / 2, 0, _PITCH_WIDTH - WIDTH))
    for players_px, ball_x in zip(players_tpx, ball_tx, strict=True):
        image = pitch.copy()
        for player, (x, y) in enumerate(players_px):
            _box(image, x, y, width=6, height=14, colour=_TEAM_COLOURS[player % 2])
        _box(image, ball_x[0], ball_x[1], width=3, height=3, colour=(250, 250, 250))
        camera_x += 0.06 * (float(np.clip(ball_x[0] - WIDTH / 2, 0, _PITCH_WIDTH - WIDTH)) - camera_x)
        left = round(camera_x)
        yield np.ascontiguousarray(image[:, left : left + WIDTH])


def _box(image: Image, x: float, y: float, *, width: int, height: int, colour: tuple[int, int, int]) -> None:
    """Paint a box centred on (x, y), clipped to the picture."""
    left, top = round(x - width / 2), round(y - height / 2)
    image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = colour


def _encode(path: Path, frames: Iterator[Image]) -> None:
    """Write H.264 at 25 fps with a key frame every 2 s; one thread, so that equal frames give equal bytes."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
