"""A data set of synthetic matches in SoccerNet's layout; resumes, and never mixes two settings in one folder."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..events import SOCCERNET_BALL_CLASSES, Split, read_json, write_json_atomic, write_text_atomic
from .match import LABELS_NAME
from .workers import Task, draw_matches

RECORD_NAME = "synthetic.json"
VERSION = 8
"""Goes up when the same settings no longer give the same matches."""
_MAX_MATCHES = 1000
_TOWNS = (
    *("Alderwick", "Bramford", "Castleby", "Dunmore", "Eastmere", "Fallowfield", "Grenmouth", "Harrowgate", "Ivelston"),
    *("Kestrel Bay", "Larkhill", "Marlowe", "Northam", "Oakhaven", "Penrose", "Quenby", "Ravensworth", "Stonebridge"),
    *("Thornbury", "Ulverton", "Vexford", "Westmarch", "Yarrowdale", "Zennor"),
)
_SURNAMES = ("Albion", "Athletic", "City", "County", "Rangers", "Rovers", "Town", "United", "Wanderers")

Progress = Callable[[int, int], None]
"""Called with (matches done, matches in all)."""


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


@dataclass(frozen=True)
class Settings:
    """What decides every byte of a data set."""

    minutes: float
    """Length of all matches together."""
    matches: int = 7
    seed: int = 0
    variety: float = 1.0
    """How different the matches look, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise InputError("--minutes is not usable", got=self.minutes, wanted="a number > 0")
        if not 3 <= self.matches <= _MAX_MATCHES:
            wanted = f"3 to {_MAX_MATCHES}: each split needs a match of its own"
            raise InputError("--matches is not usable", got=self.matches, wanted=wanted)
        if self.seed < 0:
            raise InputError("--seed is not usable", got=self.seed, wanted="a whole number >= 0")
        if not 0 <= self.variety <= 1:
            raise InputError("--variety is not usable", got=self.variety, wanted="0 to 1")
        if self.minutes * 60 / self.matches < 2:
            raise InputError(
                "the matches would be too short",
                got=f"{self.minutes * 60 / self.matches:.2f} s each",
                wanted="2 s or more",
                cure="more --minutes, or fewer --matches",
            )


def plan(settings: Settings) -> list[PlannedMatch]:
    """The matches that these settings mean, in the order of their folders in each split."""
    rng = np.random.default_rng((settings.seed, 3))
    splits = _share_out(settings.matches)
    matches = []
    for index, split in enumerate(splits):
        towns, surnames = rng.choice(len(_TOWNS), 2, replace=False), rng.choice(len(_SURNAMES), 2)
        home, away = (f"{_TOWNS[town]} {_SURNAMES[name]}" for town, name in zip(towns, surnames, strict=True))
        date = f"2026-{index // 28 % 12 + 1:02d}-{index % 28 + 1:02d}"
        folder = f"{split}/synthetic/{2026 + index // 336}/{date} - {home} - {away}"
        seconds = settings.minutes * 60 / settings.matches
        matches.append(PlannedMatch(folder, split, seconds, _seed(settings.seed, index)))
    return matches


def _share_out(num_matches: int) -> list[Split]:
    """Splits as in SoccerNet: 4, 1 and 2 of 7; at least one match in each."""
    num_valid, num_test = max(1, round(num_matches / 7)), max(1, round(2 * num_matches / 7))
    train: list[Split] = ["train"] * (num_matches - num_valid - num_test)
    valid: list[Split] = ["valid"] * num_valid
    test: list[Split] = ["test"] * num_test
    return train + valid + test


def _seed(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def write_data_set(
    root: Path, settings: Settings, *, jobs: int = 0, on_progress: Progress | None = None
) -> list[PlannedMatch]:
    """Matches in SoccerNet's layout, with splits and `classes.txt`; those that are there already are left alone.

    Args:
        root: `<root>/<split>/synthetic/2026/<date - home - away>/{224p.mp4,Labels-ball.json}`; made.
        settings: equal ones give equal bytes. Train, valid and test get about 4/7, 1/7 and 2/7 of the matches, none
            of them nothing.
        jobs: matches drawn side by side, each in a process of its own; 0: one per core.
        on_progress: told before the first and after each match.

    Returns:
        The matches.

    Raises:
        InputError: a folder that holds anything else, or other settings, or a match that could not be written.
    """
    if jobs < 0:
        raise InputError("--jobs is not usable", got=jobs, wanted="1 or more, or 0 for one per core")
    _claim(root, settings)
    planned = plan(settings)
    todo = [
        Task(root / match.folder, match.seconds, match.seed, settings.variety, match.url_local)
        for match in planned
        if not (root / match.folder / LABELS_NAME).exists()
    ]
    done = len(planned) - len(todo)

    def tell(num_drawn: int) -> None:
        nonlocal done
        done += num_drawn
        if on_progress is not None:
            on_progress(done, len(planned))

    tell(0)
    draw_matches(todo, jobs=jobs or os.cpu_count() or 1, drawn=lambda _: tell(1))
    return planned


def _claim(root: Path, settings: Settings) -> None:
    """Record the settings, or see that they are those of the record."""
    record = {"version": VERSION, **asdict(settings)}
    path = root / RECORD_NAME
    if path.exists():
        found = read_json(path)
        if found != record:
            raise InputError(
                f"{root}: holds synthetic matches of other settings",
                got=found,
                wanted=record,
                cure="take another folder",
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: not empty, and not a synthetic data set", wanted="a new folder")
    write_json_atomic(path, record)
    write_text_atomic(root / "classes.txt", "\n".join(SOCCERNET_BALL_CLASSES) + "\n")
