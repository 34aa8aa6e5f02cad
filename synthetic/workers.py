"""Draws matches side by side, each in a process of its own that ends with this one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..workers import Failure, remove_stale, side_by_side
from .match import VIDEO_NAME, write_match


@dataclass(frozen=True)
class Task:
    """One match to draw."""

    folder: Path
    seconds: float
    seed: int
    variety: float
    url_local: str


def draw_matches(tasks: Sequence[Task], *, jobs: int, drawn: Callable[[Task], None]) -> None:
    """Draw matches; those under way are given up, and leave nothing, if one fails or the caller stops.

    Args:
        tasks: any number.
        jobs: processes side by side, 1 or more; 1 draws in this process.
        drawn: called with each match as soon as it is written.

    Raises:
        InputError: a match could not be written.
    """

    def ended(task: Task, result: Failure | None) -> None:
        if result is None:
            drawn(task)
            return
        if result.details:  # a fault of ours
            raise RuntimeError(result.details)
        cure = "mend that, then run the same command again: what is finished is kept"
        raise InputError(f"{task.folder}: the match could not be drawn", got=result.why, cure=cure)

    if jobs == 1 or len(tasks) <= 1:
        for task in tasks:
            ended(task, _draw(task))
        return
    try:
        side_by_side(_draw, tasks, jobs=jobs, progress=lambda *_: None, ended=ended)
    finally:
        for task in tasks:
            remove_stale(task.folder / VIDEO_NAME)


def _draw(task: Task, _tell: Callable[[float], None] | None = None) -> Failure | None:
    """Write one match; what kept it from being written, where something did."""
    remove_stale(task.folder / VIDEO_NAME)
    try:
        write_match(task.folder, seconds=task.seconds, seed=task.seed, variety=task.variety, url_local=task.url_local)
    except (OSError, InputError) as error:  # no room, no permission
        return Failure(str(error))
    return None
