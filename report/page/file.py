"""Fills the page template with a report's data and writes it: one file that needs nothing beside it but the videos."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import write_text_atomic

PAGE = "index.html"
_TEMPLATE = Path(__file__).parent
_SCRIPTS = ("dom", "data", "summary", "charts", "mistakes", "lanes", "timeline", "player", "main")
"""In order: all become one module script."""
_MARK = "<!-- bas report -->"
_HEAD_CHARACTERS = 400


def page_text(data: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        data: as `page_data` makes it. Names in it may hold anything: the page shows them as text only.
    """
    parts = {
        "mark": _MARK,
        "title": html.escape(str(data["title"])),
        "style": _template("page.css"),
        "data": _safe_json(data),
        "script": "\n".join(_template(f"{name}.js") for name in _SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _template("index.html"))


def write_page(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write `index.html` whole or not at all; a page of ours is replaced.

    Raises:
        InputError: there is an `index.html` that is not ours.
        OSError: as the file system says.
    """
    require_own_page(folder)
    path = folder / PAGE
    write_text_atomic(path, page_text(data))
    return path


def require_own_page(folder: Path) -> None:
    """Refuse a folder whose `index.html` was not made here.

    Raises:
        InputError: it would be overwritten.
    """
    path = folder / PAGE
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        is_own = _MARK in file.read(_HEAD_CHARACTERS)
    if not is_own:
        raise InputError(
            f"{path}: would be overwritten", got="a page that `bas report` did not make", cure="name another --out"
        )


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _template(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")
