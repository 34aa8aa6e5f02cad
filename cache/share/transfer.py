"""What travels, how, and how it ended: shared by push, pull and merge."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...errors import InputError

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
    """Called with the bytes that have just travelled, from any thread."""
    waiting: Callable[[str], None] = lambda _: None
    """Called once where another process has to end first, with who it is."""
    finished: Callable[[MatchOutcome], None] = lambda _: None
    """Called after every match, from any thread."""


def size_text(num_bytes: float) -> str:
    """`1.25 GB`, `13.2 MB`."""
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
