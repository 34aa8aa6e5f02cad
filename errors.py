"""The one error that a user can cause, and the end that a user can ask for."""

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

_MOST = 160
"""Characters of a value that are shown."""


class InputError(ValueError):
    """Input that cannot be used. The command line prints it and exits with code 2.

    Args:
        what: what is wrong, with the file or option it is about.
        got: what was found.
        wanted: what would have been right.
        cure: what to do, as a command or an option where there is one.
    """

    def __init__(self, what: str, *, got: object = None, wanted: object = None, cure: str = "") -> None:
        self.what, self.got, self.wanted, self.cure = what, got, wanted, cure
        lines = [what]
        lines += [f"  got:    {got}"] if got is not None else []
        lines += [f"  wanted: {wanted}"] if wanted is not None else []
        lines += [f"  cure:   {cure}"] if cure else []
        super().__init__("\n".join(lines))


class Stopped(BaseException):
    """SIGINT or SIGTERM came. No KeyboardInterrupt: typer ends on that one without a word."""

    heard: ClassVar[int] = 0
    """Number of the signal that came; 0: none."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def raise_if_stopped() -> None:
    """Raise `Stopped` where a signal came, whatever a library that was called meanwhile has made of it.

    An exception that passes through C++ (OpenVINO's conversion calls Python) comes out as a RuntimeError or not at all.
    """
    if Stopped.heard:
        raise Stopped(Stopped.heard)


def cure_for(error: OSError, otherwise: str) -> str:
    """What to do about an error of the system; `otherwise` where it is not about a limit of this process."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "let the process open more files (ulimit -n 4096), or fewer at once (--jobs, --decode-threads)"
    return "use less memory: fewer --jobs, --decode-threads" if error.errno == errno.ENOMEM else otherwise


@contextmanager
def reading_record(what: str, *, cure: str = "") -> Iterator[None]:
    """Turn what plain Python says about a value that is not what it should be into an error about the file.

    Args:
        what: the file, and that it is damaged.
        cure: what to do.

    Raises:
        InputError: any lookup, type, value or arithmetic error inside; an InputError passes as it is.
    """
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(what, got=repr(error)[:120], cure=cure) from None


def printable(text: str) -> str:
    """The text with what is no printable character (but the end of a line) as its escape: safe for a terminal."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def named_values(names: Iterable[str], values: Mapping[str, object]) -> str:
    """`width=398, hop=25`: some of the values by name, for what was got and wanted; long ones are cut."""
    texts = {name: str(values.get(name)) for name in names}
    return ", ".join(f"{name}={text if len(text) <= _MOST else text[:_MOST] + '...'}" for name, text in texts.items())


def refuse_differing(
    names: Collection[str], what: str, *, got: Mapping[str, object], wanted: Mapping[str, object], cure: str
) -> None:
    """Refuse settings that differ from those that are there.

    Args:
        names: of the settings that differ; empty: nothing is refused.
        what: file or folder, and what it holds.
        got: the settings that were asked for, by name.
        wanted: the settings that are there.
        cure: what to do.

    Raises:
        InputError: names each setting that differs, with both values.
    """
    if names:
        raise InputError(
            f"{what}; these differ: {', '.join(names)}",
            got=named_values(names, got),
            wanted=named_values(names, wanted),
            cure=cure,
        )
