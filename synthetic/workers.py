"""Draws matches side by side, each in a process of its own that ends with this one."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ..errors import InputError
from .match import VIDEO_NAME, write_match


@dataclass(frozen=True)
class Task:
    """One match to draw."""

    folder: Path
    seconds: float
    seed: int
    variety: float
    url_local: str


def draw_matches(tasks: Sequence[Task], *, jobs: int) -> Iterator[Task]:
    """Each match as soon as it is written; those under way are given up, and leave nothing, if the caller stops.

    Args:
        tasks: any number.
        jobs: processes side by side, 1 or more; 1 draws in this process.

    Raises:
        InputError: a match could not be written.
    """
    if jobs == 1 or len(tasks) <= 1:
        for task in tasks:
            _draw(task)
            yield task
        return
    waiting, running = list(reversed(tasks)), dict[Connection, tuple[SpawnProcess, Task]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                _start(waiting.pop(), running)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, task = running.pop(connection)
                _finish(process, connection, task)
                yield task
    finally:
        for process, task in running.values():
            process.terminate()
            process.join()
            _remove_stale(task.folder)


def _start(task: Task, running: dict[Connection, tuple[SpawnProcess, Task]]) -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the child is the end of the pipe
    running[ours] = (process, task)


def _finish(process: SpawnProcess, connection: Connection, task: Task) -> None:
    with connection:
        try:
            problem = str(connection.recv())
        except EOFError:
            problem = ""
    process.join()
    if process.exitcode or problem:
        got = problem or f"the process that drew it ended with code {process.exitcode}"
        cure = "mend that, then run the same command again: what is finished is kept"
        raise InputError(f"{task.folder}: the match could not be drawn", got=got, cure=cure)


def _child(task: Task, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _draw(task)
    except InputError as error:
        connection.send(error.got or error.what)
    else:
        connection.send("")


def _end_with_parent() -> None:
    """Also where the parent is killed, and can end nobody."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw(task: Task) -> None:
    _remove_stale(task.folder)
    try:
        write_match(task.folder, seconds=task.seconds, seed=task.seed, variety=task.variety, url_local=task.url_local)
    except OSError as error:  # no room, no permission
        raise InputError(f"{task.folder}: the match could not be drawn", got=str(error)) from None


def _remove_stale(folder: Path) -> None:
    """Remove what a process that was killed left here."""
    for path in folder.glob(f".{VIDEO_NAME}.*"):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(path.suffix[1:]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
