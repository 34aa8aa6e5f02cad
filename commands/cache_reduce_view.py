"""What `bas cache pca` says at its end."""

from collections import Counter

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..cache.reduce.about import told
from ..cache.reduce.run import ReduceSummary

_COLUMNS = ("match", "split", "rows", "views", "MB before", "MB", "status")
_RIGHT = {"rows", "MB before", "MB"}
_STATUS_STYLES = {"failed": "bold red", "busy elsewhere": "yellow", "already there": "dim"}


def summary_view(summary: ReduceSummary) -> Group:
    """One line per match, the sum, what the reduction keeps, then what went wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold", no_wrap=name != "match")
    for result in summary.results:
        num_views = len(result.views)
        table.add_row(
            Text(result.match),
            result.split,
            f"{result.rows:,}" if result.rows else "",
            " ".join(result.views),
            f"{num_views * result.bytes_before / 1e6:,.1f}" if num_views else "",
            f"{num_views * result.bytes_after / 1e6:,.1f}" if num_views else "",
            Text(result.status, _STATUS_STYLES.get(result.status, "")),
        )
    notes = [Text(f"{each.match}: {each.message}", "yellow") for each in summary.results if each.message]
    return Group(table, "", Text(_sum_line(summary)), *(Text(line) for line in reduction_lines(summary)), *notes)


def reduction_lines(summary: ReduceSummary) -> list[str]:
    """What it was fitted on, and what it keeps."""
    begin = [] if summary.is_fitted else ["nothing was fitted now: its components were there"]
    return begin + told(summary.reduction.about)


def _sum_line(summary: ReduceSummary) -> str:
    counts = Counter(result.status for result in summary.results)
    source, reduced = summary.reduction.source, summary.reduction.settings
    done = ", ".join(f"{count} {status}" for status, count in counts.items())
    before = sum(len(each.views) * each.bytes_before for each in summary.results)
    after = sum(len(each.views) * each.bytes_after for each in summary.results)
    ratio = f"; {before / 1e6:,.1f} MB to {after / 1e6:,.1f} MB, {before / after:.1f} times smaller" if after else ""
    return (
        f"{done}; {source.dim} channels of {source.dtype} to {reduced.dim} of {reduced.dtype}{ratio} -> {summary.store}"
    )
