"""One synthetic match: played, filmed and written in SoccerNet's layout."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...events import SOCCERNET_BALL_CLASSES, Event, Split
from ...files import begun_folder, num_cores, remove_stale, whole_or_absent, write_json_atomic, write_text_atomic
from ...workers import Failure, side_by_side
from ..settings import SyntheticSettings
from .draw import Painter
from .look import HEIGHT, WIDTH
from .play import play_match
from .script import FPS, Script

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
    painter = Painter(script, seed, variety=variety)
    _encode(folder / VIDEO_NAME, painter.frames(), crf=painter.crf)
    annotations = [event.to_json() for event in script.events]
    write_json_atomic(folder / LABELS_NAME, {"UrlLocal": url_local or folder.name, "annotations": annotations})
    return list(script.events)


def script_of(seed: int, *, num_frames: int) -> Script:
    """What happens in the match of this seed; quick, as nothing is drawn."""
    return play_match(np.random.default_rng((seed, 0)), num_frames)


def _encode(path: Path, frames: Iterable[npt.NDArray[np.uint8]], *, crf: int) -> None:
    """Write H.264 at 25 fps with a key frame every 2 s; equal frames give equal bytes.

    One thread is not enough for that: x264's fast macroblock tree gives now these bytes, now others, for equal frames
    (seen with core 165). Its `cpu-independent` code does not, and is as fast.
    """
    options = {"crf": str(crf), "preset": "veryfast", "g": "50", "x264-params": "cpu-independent=1"}
    with whole_or_absent(path) as temporary, av.open(temporary, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
        container.mux(stream.encode(None))


RECORD_NAME = "synthetic.json"
VERSION = 8
"""Goes up when the same settings no longer give the same matches."""
_TOWNS = (
    *("Alderwick", "Bramford", "Castleby", "Dunmore", "Eastmere", "Fallowfield", "Grenmouth", "Harrowgate", "Ivelston"),
    *("Kestrel Bay", "Larkhill", "Marlowe", "Northam", "Oakhaven", "Penrose", "Quenby", "Ravensworth", "Stonebridge"),
    *("Thornbury", "Ulverton", "Vexford", "Westmarch", "Yarrowdale", "Zennor"),
)
_SURNAMES = ("Albion", "Athletic", "City", "County", "Rangers", "Rovers", "Town", "United", "Wanderers")


@dataclass(frozen=True)
class PlannedMatch:
    """One match of a data set."""

    folder: str
    """Relative to the root: `<split>/synthetic/2026/<date - home - away>`."""
    split: Split
    seconds: float
    seed: int

    @property
    def url_local(self) -> str:
        """The folder without the split, as the labels name it."""
        return self.folder.split("/", 1)[1]


def plan(settings: SyntheticSettings) -> list[PlannedMatch]:
    """The matches that these settings mean, in the order of their folders in each split."""
    rng = np.random.default_rng((settings.seed, 3))
    num_valid, num_test = max(1, round(settings.matches / 7)), max(1, round(2 * settings.matches / 7))
    counts: dict[Split, int] = {"train": settings.matches - num_valid - num_test, "valid": num_valid, "test": num_test}
    splits = [split for split, count in counts.items() for _ in range(count)]  # as in SoccerNet: 4, 1 and 2 of 7
    seconds, matches = settings.minutes * 60 / settings.matches, []
    for index, split in enumerate(splits):
        towns, surnames = rng.choice(len(_TOWNS), 2, replace=False), rng.choice(len(_SURNAMES), 2)
        home, away = (f"{_TOWNS[town]} {_SURNAMES[name]}" for town, name in zip(towns, surnames, strict=True))
        date = f"2026-{index // 28 % 12 + 1:02d}-{index % 28 + 1:02d}"
        folder = f"{split}/synthetic/{2026 + index // 336}/{date} - {home} - {away}"
        digest = hashlib.sha256(f"{settings.seed}/{index}".encode()).digest()
        matches.append(PlannedMatch(folder, split, seconds, int.from_bytes(digest[:6], "big")))
    return matches


def write_data_set(
    root: Path, settings: SyntheticSettings, *, jobs: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> list[PlannedMatch]:
    """Matches in SoccerNet's layout, with splits and `classes.txt`; those that are there already are left alone.

    Args:
        root: `<root>/<split>/synthetic/2026/<date - home - away>/{224p.mp4,Labels-ball.json}`; made.
        settings: equal ones give equal bytes. Train, valid and test get about 4/7, 1/7 and 2/7 of the matches, none
            of them nothing.
        jobs: matches drawn side by side, each in a process of its own; 0: one per core.
        on_progress: called before the first and after each match with (matches done, matches in all).

    Returns:
        The matches.

    Raises:
        InputError: a folder that holds anything else, or other settings, or a match that could not be written.
    """
    if jobs < 0:
        raise InputError("--jobs is not usable", got=jobs, wanted="1 or more, or 0 for one per core")
    record = {"version": VERSION, **asdict(settings)}
    begun_folder(root, RECORD_NAME, record, holds="synthetic matches")
    write_json_atomic(root / RECORD_NAME, record)
    write_text_atomic(root / "classes.txt", "\n".join(SOCCERNET_BALL_CLASSES) + "\n")
    planned = plan(settings)
    todo = [match for match in planned if not (root / match.folder / LABELS_NAME).exists()]
    done = len(planned) - len(todo)
    if on_progress is not None:
        on_progress(done, len(planned))

    def ended(match: PlannedMatch, failure: Failure | None) -> None:
        nonlocal done
        if failure is not None:
            cure = "mend that, then run the same command again: what is finished is kept"
            raise InputError(f"{root / match.folder}: the match could not be drawn", got=failure.why, cure=cure)
        done += 1
        if on_progress is not None:
            on_progress(done, len(planned))

    try:
        work = partial(_draw, root, settings.variety)
        side_by_side(work, todo, jobs=jobs or num_cores(), progress=lambda *_: None, ended=ended)
    finally:
        for match in todo:
            remove_stale(root / match.folder / VIDEO_NAME)
    return planned


def _draw(root: Path, variety: float, match: PlannedMatch, _report: Callable[[float], None]) -> None:
    """What a worker process does."""
    folder = root / match.folder
    remove_stale(folder / VIDEO_NAME)
    write_match(folder, seconds=match.seconds, seed=match.seed, variety=variety, url_local=match.url_local)
