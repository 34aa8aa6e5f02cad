"""Runs side by side, each worker a process of its own: one that dies fails its run, and the others go on."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from .errors import InputError

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T, Callable[[float], None]], R]
"""Does a task, and is given a function to tell which share of it is done. A function of a module, as other processes
import it; tasks and results are pickled."""
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Failure:
    """A task without a result."""

    why: str
    """For people."""
    details: str = ""
    """The traceback where it was no `InputError`."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """What an exception says."""
        if isinstance(error, InputError):
            return cls(str(error))
        return cls(f"{type(error).__name__}: {error}".splitlines()[0], "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class _Share:
    """Part of a task that is done, 0 to 1."""

    value: float


@dataclass(frozen=True)
class _Result(Generic[R]):
    value: R


def side_by_side(
    work: Work[T, R],
    tasks: Sequence[T],
    *,
    jobs: int,
    progress: Callable[[T, float], None],
    ended: Callable[[T, R | Failure], None],
) -> None:
    """Do tasks in processes; returns when all have ended, one way or another.

    Args:
        work: does one.
        tasks: in the order in which they begin.
        jobs: processes at a time, >= 1; each does one task after the other.
        progress: hears the share of a task that is done, 0 to 1.
        ended: hears the result of each task, or why there is none.
    """
    left, workers = list(reversed(tasks)), list[_Worker[T]]()
    try:
        while left or workers:
            while left and len(workers) < jobs:
                workers.append(_Worker(work, left.pop()))
            heard = wait([worker.connection for worker in workers])
            for worker in [each for each in workers if each.connection in heard]:
                message = worker.hear()
                if isinstance(message, _Share):
                    progress(worker.task, message.value)
                    continue
                ended(worker.task, message.value if isinstance(message, _Result) else message)
                if left and worker.is_alive:
                    worker.give(left.pop())
                else:
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[T]):
    """A process and the task that it is at."""

    def __init__(self, work: Work[T, Any], task: T) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is the end of the connection
        self.is_alive = True
        self.give(task)

    def give(self, task: T) -> None:
        """Let it do a task; a process that is dead by now says so to `hear`."""
        self.task = task
        try:
            self.connection.send(task)
        except OSError:
            self.is_alive = False

    def hear(self) -> Any:
        """Its next message: `_Share`, `_Result`, or `Failure`, which may be its death."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.is_alive = False
            self._process.join(_END_SECONDS)
            return Failure(_death(self._process.exitcode))

    def end(self) -> None:
        """Stop the process, whatever it does; what it trains goes on from its last saving another time."""
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _death(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"its process ended with code {exit_code}"
    name = signal.Signals(-exit_code).name
    guess = ": is there too little memory? --jobs 1 needs least" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{guess}"


def _serve(connection: Connection, work: Work[Any, Any]) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; ours are told
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(share: float) -> None:
        connection.send(_Share(share))

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            message: Any = _Result(work(task, tell))
        except Exception as error:  # input, a fault of ours, or no memory: the other runs go on
            message = Failure.of(error)
        connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
