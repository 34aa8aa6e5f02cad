"""The table at the end of `bas cache import`."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..cache.convert.importing import DERIVED, ImportResult, ImportSummary

_LEFT = ("match", "split", "status")
_COLUMNS = ("match", "split", "rows", "events", "channels", "offset", "no row", "status")
_STATUS_STYLES = {"failed": "bold red", "busy elsewhere": "yellow", "already there": "dim"}


def summary_view(summary: ImportSummary) -> Group:
    """One line per match, the sum, where the offsets are from, then what went wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right", overflow="fold", no_wrap=name != "match")
    for result in summary.results:
        cells = [""] * 5
        if result.rows:
            cells = [
                f"{result.rows:,}",
                "-" if result.events is None else f"{result.events:,}",
                str(summary.settings.dim),
                "-" if result.half1_offset_frames is None else f"{result.half1_offset_frames:,} {_way(result)}",
                f"{result.unscored_share:.3%}",
            ]
        status = Text(result.status, _STATUS_STYLES.get(result.status, ""))
        table.add_row(Text(result.match), result.split, *map(Text, cells), status)
    messages = [f"{each.match}: {each.message}" for each in summary.results if each.message]
    notes = [Text(text, "yellow") for text in (*summary.notes, *messages)]
    return Group(table, "", *map(Text, (summary_line(summary), *_offset_lines(summary))), *notes)


def _way(result: ImportResult) -> str:
    return DERIVED if result.offset_from == DERIVED else "named"


def _offset_lines(summary: ImportSummary) -> list[str]:
    """Which way the offsets were got."""
    sources = Counter(result.offset_from for result in summary.results if result.half1_offset_frames is not None)
    lines = [f"{count} offset(s) named by {name}" for name, count in sorted(sources.items()) if name != DERIVED]
    if sources[DERIVED]:
        lines.append(f"{sources[DERIVED]} offset(s) derived: the length of half 1, as its rows tell it")
    return lines


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
