"""What a check found: errors and notes, each with its cure."""

from dataclasses import dataclass
from typing import Literal

from ...errors import InputError

Severity = Literal["error", "note"]
ROOT_PLACE = "."
"""`where` of a finding about the whole data set."""


@dataclass(frozen=True)
class Finding:
    """One thing to repair (error) or to know (note)."""

    severity: Severity
    """`error` stops a run; `note` does not."""
    where: str
    """Match id, or file name relative to the data set's root."""
    message: str
    """What is wrong, with what was found."""
    cure: str = ""
    """What to do; may be empty."""

    @classmethod
    def from_error(cls, where: str, error: InputError, *, prefix: str = "") -> "Finding":
        """An `InputError` as an error finding; `prefix` (such as a path) is cut off the front of its text."""
        message = error.what.removeprefix(prefix)
        details = [str(error.got)] if error.got is not None else []
        details += [f"wanted {error.wanted}"] if error.wanted is not None else []
        return cls("error", where, f"{message} ({'; '.join(details)})" if details else message, error.cure)


def error(where: str, message: str, cure: str = "") -> Finding:
    """An error finding."""
    return Finding("error", where, message, cure)


def note(where: str, message: str, cure: str = "") -> Finding:
    """A note."""
    return Finding("note", where, message, cure)
