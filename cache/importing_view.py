"""The table at the end of `bas cache import`."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .importing import ImportSummary

_COLUMNS = ("match", "split", "rows", "events", "channels", "offset", "from", "unscored", "status")
_RIGHT = {"rows", "events", "channels", "offset", "unscored"}
_STATUS_STYLES = {"failed": "bold red", "busy elsewhere": "yellow", "already there": "dim"}


def summary_view(summary: ImportSummary) -> Group:
    """One line per match, the sum, then what went wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for result in summary.results:
        cells = ["", "", "", "", "", ""]
        if result.rows:
            cells = [
                f"{result.rows:,}",
                "-" if result.events is None else f"{result.events:,}",
                str(summary.settings.dim),
                "-" if result.half1_offset_frames is None else f"{result.half1_offset_frames:,}",
                result.offset_from,
                f"{result.unscored_share:.3%}",
            ]
        status = Text(result.status, _STATUS_STYLES.get(result.status, ""))
        table.add_row(Text(result.match), result.split, *map(Text, cells), status)
    messages = [Text(f"{each.match}: {each.message}", "yellow") for each in summary.results if each.message]
    return Group(table, "", Text(summary_line(summary)), *messages)


def summary_line(summary: ImportSummary) -> str:
    """`5 imported; 733,469 rows -> store`."""
    counts = Counter(result.status for result in summary.results)
    rows = sum(result.rows for result in summary.results)
    return f"{', '.join(f'{count} {status}' for status, count in counts.items())}; {rows:,} rows -> {summary.store}"


def summary_json(summary: ImportSummary) -> dict[str, Any]:
    """The summary as plain JSON."""
    return {
        "store": str(summary.store),
        "settings": summary.settings.to_json(),
        "settings_key": summary.settings.key(),
        "complete": summary.complete,
        "notes": list(summary.notes),
        "matches": [asdict(result) | {"channels": summary.settings.dim} for result in summary.results],
    }
