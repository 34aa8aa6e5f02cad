"""The command line `bas`: the app, errors, signals. A command is imported when it is typed."""

import ast
import functools
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from . import __version__
from .errors import InputError, Stopped, printable, raise_if_stopped
from .files import unreadable

_HELP = {"help_option_names": ["-h", "--help"]}
_FEATURES, _TRAINING, _RESULTS = "Videos to features", "Training", "Results"
_GROUPS = {
    "data": "Look at data sets, copy them, draw synthetic ones.",
    "cache": "Look into feature stores, check, share, reduce and convert them.",
}
_COMMANDS = (
    ("extract:extract", _FEATURES, "extract SN-BAS-2025 --out x3d_s.zarr --views identity,hflip"),
    ("weights:weights", _FEATURES, "weights x3d_s --fetch"),
    ("label:label", _FEATURES, "label MY-MATCH.mp4 --classes SERVE,SMASH"),
    ("train_head:train_head", _TRAINING, "train-head x3d_s.zarr --head ed --out runs/ed"),
    ("ablate:ablate", _TRAINING, "ablate SN-BAS-2025 --recipes seed --seeds 3 --out ablation"),
    ("finetune:finetune", _TRAINING, "finetune SN-BAS-2025 --backbone x3d_s --head ed --out runs/ed-x3d_s"),
    ("predict:predict", _RESULTS, "predict MY-MATCH.mp4 --run runs/ed --out predictions"),
    ("evaluate:evaluate", _RESULTS, "eval SN-BAS-2025 predictions --split test --metric at1"),
    ("report:report", _RESULTS, "report runs/ed --videos SN-BAS-2025 --out report"),
    ("demo:demo", _RESULTS, "demo --minutes 30 --out longer-demo"),
    ("data:data_check", None, "data check SN-BAS-2025"),
    ("data:data_ls", None, "data ls SN-BAS-2025 --json"),
    ("data:data_convert", None, "data convert predictions converted --format osl"),
    ("data:data_proxy", None, "data proxy SN-BAS-2025 SN-BAS-2025-small"),
    ("data:data_synthetic", None, "data synthetic matches --minutes 20 --matches 7"),
    ("cache:cache_info", None, "cache info x3d_s.zarr"),
    ("cache:cache_verify", None, "cache verify x3d_s.zarr --videos SN-BAS-2025"),
    ("cache:cache_push", None, "cache push x3d_s.zarr s3://team/x3d_s.zarr"),
    ("cache:cache_pull", None, "cache pull s3://team/x3d_s.zarr x3d_s.zarr --split train"),
    ("cache:cache_merge", None, "cache merge mine.zarr yours.zarr --out all.zarr"),
    ("cache:cache_pca", None, "cache pca x3d_s.zarr --out small.zarr --dim 64"),
    ("cache:cache_split", None, "cache split mine.zarr --by-time 0.7/0.15/0.15 --out parts.zarr"),
    ("cache:cache_import", None, "cache import other-model --out scores.zarr --model NAME"),
    ("cache:cache_export", None, "cache export x3d_s.zarr --out features --format h5"),
)
"""Module of `commands/` and function, heading in `bas --help`, and an example, which begins with the command's name."""


def make_app(typed: Sequence[str] | None = None) -> typer.Typer:
    """Make the app.

    Args:
        typed: the arguments. Only the command that they name is imported; the others stand there with their help line.
            That makes `bas --help` four times faster. None: all are imported.
    """
    app = typer.Typer(name="bas", no_args_is_help=True, pretty_exceptions_enable=False, context_settings=_HELP)
    app.callback()(root)
    groups = {name: typer.Typer(no_args_is_help=True, help=text) for name, text in _GROUPS.items()}
    words = [word for word in typed or () if not word.startswith("-")]
    for place, panel, example in _COMMANDS:
        path = example.split()[: 2 if example.split()[0] in groups else 1]
        is_named = typed is None or words[: len(path)] == path
        command = _imported(place) if is_named else _stand_in(place)
        options = {"epilog": f"Example: bas {example}", "rich_help_panel": panel, "context_settings": _HELP}
        groups.get(path[0], app).command(path[-1], **options)(command)  # type: ignore[arg-type]  # each of its own type
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=_FEATURES, context_settings=_HELP)
    return app


def _imported(place: str) -> Callable[..., None]:
    module, _, name = place.partition(":")
    command: Callable[..., None] = getattr(import_module(f".commands.{module}", __package__), name)
    return command


def _stand_in(place: str) -> Callable[..., None]:
    """A function with the docstring of a command, read from its source."""
    module, _, name = place.partition(":")

    def stand_in() -> None:
        raise AssertionError(f"{place} is not imported")

    stand_in.__doc__ = _docstrings(module)[name]
    return stand_in


@functools.cache
def _docstrings(module: str) -> dict[str, str | None]:
    """Docstrings of the functions of a module of `commands/`, which is read but not imported."""
    tree = ast.parse((Path(__file__).parent / "commands" / f"{module}.py").read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def __getattr__(name: str) -> typer.Typer:
    """The whole app as `app`, for completion and documentation."""
    if name == "app":
        return make_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names, with `app`: where Typer's own tools look for it."""
    return [*globals(), "app"]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"bas {__version__}")
        raise typer.Exit


def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Spot ball actions in football video: extract features of every frame once, then train temporal heads in minutes.

    A first look, without data or network: bas demo
    """


_AGAIN_SECONDS = 0.5


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise `Stopped` on Ctrl-C and SIGTERM, so that everything is closed; a second one ends the process at once.

    A library can swallow what is raised while it runs, or make another error of it: it is raised anew as long as it is
    gone, and in any case at the end.
    """
    raised: weakref.ref[Stopped] | None = None

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        Stopped.heard = number
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, raise_anew)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        raise_anew()

    def raise_anew(*_: object) -> None:
        nonlocal raised
        if raised is not None and raised() is not None:
            return  # on its way
        error = Stopped(Stopped.heard)
        raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # or its own traceback would keep it

    Stopped.heard = 0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in heard:  # a shell's background job is not to hear Ctrl-C
        signal.signal(number, stop)
    try:
        yield
    finally:
        if Stopped.heard and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in heard.items():
            signal.signal(number, handler)
        raise_if_stopped()


def main() -> None:
    """Entry point: errors in input end with exit code 2, Ctrl-C with 130, SIGTERM with 143, never a traceback."""
    try:
        with _stop_signals():
            try:
                is_completing = "_BAS_COMPLETE" in os.environ  # the shell asks, and may ask for any command
                make_app(None if is_completing else sys.argv[1:])(prog_name="bas")
            finally:
                sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:  # `| head`: nobody reads any more, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        print(printable(f"bas: error: {error}"), file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # of a file that nobody thought of: the system names it, and a traceback adds nothing
        if error.filename is None:
            raise
        print(printable(f"bas: error: {unreadable(error)}"), file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print("bas: stopped; what was finished is stored, run the same command again to go on", file=sys.stderr)
        _end_now(stopped.exit_code)


def _end_now(exit_code: int) -> None:
    """End with other threads still waiting for a slow server; every write is whole or absent, so that they may go."""
    deadline = time.monotonic() + 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(exit_code)
    sys.exit(exit_code)
