"""Work match by match: how each ended, who hears of it, and tasks side by side in processes."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from .errors import InputError

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T, Callable[[float], None]], R]
"""Does a task, and is given a function to tell which share of it is done. A function of a module, as other processes
import it; tasks and results are pickled."""
_END_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class MatchResult:
    """How one match ended. Every command that works match by match returns these; its own figures are `columns`."""

    match_id: str
    status: str
    """What happened, in the words of the table: extracted, predicted, sent, already there, busy elsewhere, failed."""
    is_done: bool = True
    """False where what was asked for is not there: the command then ends with exit code 2."""
    message: str = ""
    """Why it failed, or what a person should know all the same."""
    details: str = ""
    """The traceback, where a fault of ours or of a library ended it; shown with -v."""
    num_rows: int = 0
    """Rows (frames) that the match has."""
    seconds: float = 0.0
    """Wall time spent on it in this run."""
    columns: Mapping[str, str | int | float] = field(default_factory=dict)
    """Further columns of this command's table and fields of its JSON: name -> value."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        record = {"match": self.match_id, "status": self.status, "done": self.is_done, "message": self.message}
        return {**record, "rows": self.num_rows, "seconds": round(self.seconds, 3), **self.columns}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a command ended: its matches, and where they are now."""

    results: tuple[MatchResult, ...]
    target: str
    """Path or address of what was made."""
    seconds: float = 0.0
    """Wall time of the whole run."""
    unit: str = "frames"
    """What the closing line counts: frames, spots, MB."""
    amount: float = 0.0
    """So many of them were done in this run."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs in the JSON: settings, engine, versions."""

    @property
    def complete(self) -> bool:
        """Whether everything asked for is there."""
        return all(result.is_done for result in self.results)

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of matches, in order of appearance."""
        return dict(Counter(result.status for result in self.results))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        head = {"target": self.target, "complete": self.complete, "seconds": round(self.seconds, 3), **self.record}
        return {**head, "matches": [result.to_json() for result in self.results]}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Callbacks that a command calls while it works; every field may be left out. They may come from any thread."""

    started: Callable[[int, float], None] = lambda *_: None
    """(matches, units in all or 0 where nobody knows), once."""
    note: Callable[[str], None] = lambda _: None
    """A line for people: settings, the engine, a warning."""
    advanced: Callable[[str, float, float, str], None] = lambda *_: None
    """(match id, units done, units in all, a few words such as `decode-bound`); match id "" is the whole."""
    finished: Callable[[MatchResult], None] = lambda _: None
    """After every match."""


SILENT = Progress()
"""Tells nobody."""


def each_match(match_ids: Iterable[T], work: Callable[[T], MatchResult], progress: Progress) -> list[MatchResult]:
    """Work on matches one after the other; whatever ends one becomes its result, and the others go on.

    Args:
        match_ids: ids, or what `work` takes in their place (with an `id`).
        work: does one match. An exception of any kind is caught here, and nowhere else.
        progress: hears of each result.
    """
    results = []
    for match in match_ids:
        started = time.perf_counter()
        try:
            result = work(match)
        except Exception as error:
            match_id = match if isinstance(match, str) else str(getattr(match, "id", match))
            result = failed(match_id, error, seconds=time.perf_counter() - started)
        results.append(result)
        progress.finished(result)
    return results


def failed(match_id: str, error: Exception, *, seconds: float = 0.0) -> MatchResult:
    """The result of a match that an exception ended."""
    failure = Failure.of(error)
    status = getattr(error, "status", "failed")
    return MatchResult(
        match_id=match_id,
        status=status,
        is_done=False,
        message=failure.why,
        details=failure.details,
        seconds=seconds,
    )


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
