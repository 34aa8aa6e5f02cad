"""What travels, how, and how it ended: shared by push, pull and merge."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from ...errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
_WAKE_SECONDS = 0.2
Status = Literal["sent", "received", "views added", "replaced", "already there", "busy elsewhere", "differs", "failed"]
BAD: tuple[Status, ...] = ("failed", "busy elsewhere", "differs")
"""The match is not there, or not with this content."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which part of a store travels; empty: all."""

    matches: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How it travels."""

    replace: bool = False
    """Matches that are there with other content are replaced."""
    jobs: int = 8
    """Files under way at a time, >= 1."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError("--jobs is not usable", got=self.jobs, wanted="a whole number >= 1")


@dataclass(frozen=True)
class MatchOutcome:
    """How one match ended."""

    match: str
    split: str
    status: Status
    views: tuple[str, ...] = ()
    """Views that travelled."""
    bytes: int = 0
    """Size of the files that were needed."""
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a transfer ended."""

    source: str
    """Path or URL."""
    target: str
    """Path or URL."""
    results: tuple[MatchOutcome, ...]
    """In order of id."""
    bytes: int
    """That travelled, those of an earlier run that was cut off left out."""
    seconds: float

    @property
    def complete(self) -> bool:
        """True where every match asked for is there."""
        return all(result.status not in BAD for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "complete": self.complete}


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear."""

    planned: Callable[[int, int], None] = lambda *_: None
    """Called once: (matches that travel, bytes)."""
    on_bytes: Callable[[int], None] = lambda _: None
    """Called with the bytes that have just travelled, from any thread; what an earlier run has brought is left out."""
    waiting: Callable[[str], None] = lambda _: None
    """Called once where another process has to end first, with who it is."""
    finished: Callable[[MatchOutcome], None] = lambda _: None
    """Called after every match, from any thread."""


def size_text(num_bytes: float) -> str:
    """`1.25 GB`, `13.2 MB`."""
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


class Stopped(InputError):  # noqa: N818 (an InputError by nature)
    """The command was stopped (Ctrl-C): nothing more is to travel."""


class Journey:
    """Threads for what is under way, and the bytes that have travelled. Use it in a `with`.

    Left by an error, it starts nothing more, and what is under way ends at its next bytes. Left by Ctrl-C it does not
    even wait for those: a slow server may hold them for minutes, and a process may end at any point.
    """

    def __init__(self, report: Reporter, *, matches: int, files: int = 1) -> None:
        """Make room for so many matches and files at a time."""
        self.report, self.num_bytes = report, 0
        self.matches, self.files = ThreadPoolExecutor(matches), ThreadPoolExecutor(files)
        self._stopped, self._lock = False, Lock()

    def each(self, act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results of `act` on matches side by side, in order.

        It wakes up now and then: a signal that another thread was given is heard only while this one runs.
        """
        futures = [self.matches.submit(act, item) for item in items]
        while wait(futures, timeout=_WAKE_SECONDS).not_done:
            pass
        return [future.result() for future in futures]

    def on_bytes(self, num_bytes: int) -> None:
        """Count bytes that have just travelled. Raises Stopped where no more are to come."""
        if self._stopped:
            raise Stopped("stopped")
        with self._lock:
            self.num_bytes += num_bytes
        self.report.on_bytes(num_bytes)

    def finished(self, outcome: MatchOutcome) -> None:
        """Tell how a match has ended, unless it was stopped."""
        if not self._stopped:
            self.report.finished(outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = error is not None
        patient = error is None or isinstance(error, Exception)
        for pool in (self.matches, self.files):
            pool.shutdown(wait=patient, cancel_futures=self._stopped)
