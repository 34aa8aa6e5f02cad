"""MkDocs hook: writes the command reference from the app itself, so that it cannot go stale."""

import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent


def on_pre_build(config: Any) -> None:  # noqa: ARG001 (MkDocs passes it by name)
    """Write `commands.md`."""
    command = [sys.executable, "-m", "typer", "bas.cli", "utils", "docs", "--name", "bas", "--title", "Commands"]
    text = subprocess.run(command, cwd=DOCS.parent / ".typing", capture_output=True, text=True, check=True).stdout
    path = DOCS / "commands.md"
    if not path.exists() or path.read_text() != text:  # a new time stamp would make `mkdocs serve` build for ever
        path.write_text(text)
