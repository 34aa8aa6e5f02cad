"""`bas cache info` and `bas cache verify` as a person sees them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..cache.info import StoreInfo
from ..cache.origin import WeightsOrigin
from ..cache.reduction import describe_fit
from ..cache.settings import IMPORTED
from ..cache.verify import Finding

_COLUMNS = ("match", "split", "frames", "minutes", "events", "views", "MB", "invalid")
_RIGHT = {"frames", "minutes", "events", "MB", "invalid"}


def info_view(about: StoreInfo) -> Group:
    """One line per match, the sums, then the settings."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    lines = about.matches
    sums = {
        "match": f"{len(lines)} match{'es' if len(lines) != 1 else ''}",
        "frames": f"{sum(line.rows for line in lines):,}",
        "minutes": f"{sum(line.minutes or 0 for line in lines):,.1f}",
        "events": f"{sum(line.events or 0 for line in lines):,}",
        "MB": f"{sum(line.megabytes for line in lines):,.1f}",
    }
    for name in _COLUMNS:
        footer = Text(sums.get(name, ""), "bold")
        table.add_column(name, footer=footer, justify="right" if name in _RIGHT else "left", overflow="fold")
    for line in lines:
        events = "-" if line.events is None else f"{line.events:,}"
        table.add_row(
            Text(line.match),
            Text(line.split),
            f"{line.rows:,}",
            "-" if line.minutes is None else f"{line.minutes:.1f}",
            events,
            Text(" ".join(line.views)),
            f"{line.megabytes:,.1f}",
            "-" if line.invalid_share is None else f"{line.invalid_share:.2%}",
        )
    return Group(table, "", _settings_table(about))


def _settings_table(about: StoreInfo) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    settings = {name: value for name, value in about.settings.items() if value is not None}
    if str(settings["backbone"]).startswith(IMPORTED):  # the other fields say nothing there
        shown = ("backbone", "weights", "dim", "fps", "dtype", "reduction")
        settings = {name: settings[name] for name in shown if name in settings}
    for name, value in settings.items():
        table.add_row(name, Text(" ".join(map(str, value)) if isinstance(value, list) else str(value)))
    if about.weights_origin is not None:
        origin = WeightsOrigin.from_json(about.weights_origin, where="weights_origin")
        table.add_row("weights from", Text(origin.told()))
    if about.reduction is not None:
        table.add_row("reduced", Text("\n".join(describe_fit(about.reduction))))
    table.add_row("key", about.settings_key)
    table.add_row("classes", Text(", ".join(about.classes)))
    table.add_row("software", Text(", ".join(f"{name} {version}" for name, version in about.software.items())))
    return table


def findings_view(store: Path, findings: Sequence[Finding]) -> Group:
    """One paragraph per finding, worst first; one line where all is well."""
    ranks = {"error": 0, "warning": 1, "note": 2}
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    lines = []
    for finding in sorted(findings, key=lambda finding: ranks[finding.severity]):
        place = " ".join(part for part in (finding.match, finding.view) if part)
        lines.append(
            Text.assemble(
                (finding.severity, styles[finding.severity]), f" {place}: " if place else " ", finding.message
            )
        )
    errors = sum(finding.severity == "error" for finding in findings)
    lines.append(Text(f"{store}: {errors} error{'s' if errors != 1 else ''}" if errors else f"{store}: all is well"))
    return Group(*lines)
