"""The command line `bas`: the app, errors, signals. Nothing here imports torch before a command needs it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from . import __version__
from .commands import ablate, cache, data, demo, evaluate, extract, finetune, predict, report, train_head, weights
from .errors import InputError, printable

_HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(name="bas", no_args_is_help=True, pretty_exceptions_enable=False, context_settings=_HELP)
data_app = typer.Typer(no_args_is_help=True, help="Look at data sets, copy them, draw synthetic ones.")
cache_app = typer.Typer(no_args_is_help=True, help="Look into feature stores, check, share, reduce and convert them.")
_FEATURES, _HEADS, _RESULTS = "Videos to features", "Training", "Results"
_COMMANDS: tuple[tuple[typer.Typer, str | None, Callable[..., None], str], ...] = (
    (app, _FEATURES, extract.extract, "extract SN-BAS-2025 --out x3d_s.zarr --views identity,hflip"),
    (app, _FEATURES, weights.weights, "weights x3d_s --fetch"),
    (app, _HEADS, train_head.train_head, "train-head x3d_s.zarr --head ed --out runs/ed"),
    (app, _HEADS, ablate.ablate, "ablate SN-BAS-2025 --recipes seed --seeds 3 --out ablation"),
    (app, _HEADS, finetune.finetune, "finetune SN-BAS-2025 --backbone x3d_s --head ed --out runs/ed-x3d_s"),
    (app, _RESULTS, predict.predict, "predict MY-MATCH.mp4 --run runs/ed --out predictions"),
    (app, _RESULTS, evaluate.evaluate, "eval SN-BAS-2025 predictions --split test --metric at1"),
    (app, _RESULTS, report.report, "report runs/ed --videos SN-BAS-2025 --out report"),
    (app, _RESULTS, demo.demo, "demo --minutes 30 --out longer-demo"),
    (data_app, None, data.data_check, "data check SN-BAS-2025"),
    (data_app, None, data.data_ls, "data ls SN-BAS-2025 --json"),
    (data_app, None, data.data_proxy, "data proxy SN-BAS-2025 SN-BAS-2025-small"),
    (data_app, None, data.data_synthetic, "data synthetic matches --minutes 20 --matches 7"),
    (cache_app, None, cache.cache_info, "cache info x3d_s.zarr"),
    (cache_app, None, cache.cache_verify, "cache verify x3d_s.zarr --videos SN-BAS-2025"),
    (cache_app, None, cache.cache_push, "cache push x3d_s.zarr s3://team/x3d_s.zarr"),
    (cache_app, None, cache.cache_pull, "cache pull s3://team/x3d_s.zarr x3d_s.zarr --split train"),
    (cache_app, None, cache.cache_merge, "cache merge mine.zarr yours.zarr --out all.zarr"),
    (cache_app, None, cache.cache_pca, "cache pca x3d_s.zarr --out small.zarr --dim 64"),
    (cache_app, None, cache.cache_import, "cache import other-model --out scores.zarr --model NAME"),
    (cache_app, None, cache.cache_export, "cache export x3d_s.zarr --out features --format h5"),
)
"""Where a command stands, its heading in `bas --help`, what runs it, and an example of it."""
for _app, _panel, _command, _example in _COMMANDS:
    _words = _example.split()
    _name = _words[0] if _app is app else _words[1]
    _app.command(_name, epilog=f"Example: bas {_example}", rich_help_panel=_panel, context_settings=_HELP)(_command)
app.add_typer(data_app, name="data", rich_help_panel=_FEATURES, context_settings=_HELP)
app.add_typer(cache_app, name="cache", rich_help_panel=_FEATURES, context_settings=_HELP)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"bas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Spot ball actions in football video: extract features of every frame once, then train temporal heads in minutes.

    A first look, without data or network: bas demo
    """


class _Stopped(BaseException):
    """SIGINT or SIGTERM came. No KeyboardInterrupt: typer ends on that one without a word."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise `_Stopped` on Ctrl-C and SIGTERM, so that everything is closed; a second one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in heard:  # a shell's background job is not to hear Ctrl-C
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point: errors in input end with exit code 2, Ctrl-C with 130, SIGTERM with 143, never a traceback."""
    try:
        with _stop_signals():
            try:
                app(prog_name="bas")
            finally:
                sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:  # `| head`: nobody reads any more, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        print(printable(f"bas: error: {error}"), file=sys.stderr)
        sys.exit(2)
    except _Stopped as stopped:
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
