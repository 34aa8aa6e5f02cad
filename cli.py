"""The command line `bas`. Nothing here imports torch before a command needs it."""

import sys

import typer

from .errors import InputError

app = typer.Typer(name="bas", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)


@app.callback()
def root() -> None:
    """Ball action spotting in football video: features once, heads in minutes."""


def main() -> None:
    """Entry point: errors in input end with exit code 2, Ctrl-C with 130, never a traceback."""
    try:
        app()
    except InputError as error:
        print(f"bas: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bas: stopped; what was finished is stored, run the same command again to go on", file=sys.stderr)
        sys.exit(130)
