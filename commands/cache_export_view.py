"""The table at the end of `bas cache export`."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..cache.convert.containers import CONTAINERS
from ..cache.convert.exporting import ExportSummary

_STATUS_STYLES = {"failed": "bold red", "busy elsewhere": "yellow", "already there": "dim"}


def export_view(summary: ExportSummary) -> Group:
    """One line per match, the sum, then what went wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("match", "rows", "views", "status"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold", no_wrap=name == "rows")
    for result in summary.results:
        status = Text(result.status, _STATUS_STYLES.get(result.status, ""))
        rows = f"{result.rows:,}" if result.rows else ""
        table.add_row(Text(result.match), rows, Text(", ".join(result.views)), status)
    messages = [Text(f"{each.match}: {each.message}", "yellow") for each in summary.results if each.message]
    return Group(table, "", Text(_line(summary)), *messages)


def _line(summary: ExportSummary) -> str:
    """`42 exported; 7,821 rows -> features (npy: ...)`."""
    counts = Counter(result.status for result in summary.results)
    rows, kind = sum(result.rows for result in summary.results), summary.root.container
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{told}; {rows:,} rows -> {summary.folder} ({CONTAINERS[kind].told})"


def export_json(summary: ExportSummary) -> dict[str, Any]:
    """The summary as plain JSON."""
    return {
        "folder": str(summary.folder),
        "format": summary.root.container,
        "settings_key": summary.root.settings.key(),
        "complete": summary.complete,
        "matches": [asdict(result) for result in summary.results],
    }
