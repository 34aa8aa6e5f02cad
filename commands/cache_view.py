"""`bas cache info` and `bas cache verify` as a person sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..cache.match import StoreInfo, WeightsOrigin
from ..cache.reduction import describe_fit
from ..cache.settings import IMPORTED
from ..cache.verify import StoreFinding
from .show import Cell, cell_text, table

if TYPE_CHECKING:
    from ..cache.match import MatchLine

_COLUMNS = ("match", "split", "frames", "minutes", "events", "views", "MB", "invalid")


def info_view(about: StoreInfo) -> Group:
    """One line per match, the sums, then the settings."""
    lines = about.matches
    sums: list[Cell] = [
        f"{len(lines)} match{'es' if len(lines) != 1 else ''}",
        "",
        sum(line.rows for line in lines),
        sum(line.minutes or 0.0 for line in lines),
        sum(line.events or 0 for line in lines),
        "",
        sum(line.megabytes for line in lines),
        "",
    ]
    matches = table(_COLUMNS, [_cells(line) for line in lines])
    matches.show_footer = True
    for column, cell in zip(matches.columns, sums, strict=True):
        column.footer = Text(cell_text(cell), "bold")
    return Group(matches, "", _settings_table(about))


def _cells(line: "MatchLine") -> list[Cell]:
    invalid = "-" if line.invalid_share is None else f"{line.invalid_share:.2%}"
    events = "-" if line.events is None else line.events
    minutes = "-" if line.minutes is None else line.minutes
    return [line.match, line.split, line.rows, minutes, events, " ".join(line.views), line.megabytes, invalid]


def _settings_table(about: StoreInfo) -> Table:
    settings = {name: value for name, value in about.settings.items() if value is not None}
    if str(settings["backbone"]).startswith(IMPORTED):  # the other fields say nothing there
        shown = ("backbone", "weights", "dim", "fps", "dtype", "reduction")
        settings = {name: settings[name] for name in shown if name in settings}
    rows = [
        (name, " ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in settings.items()
    ]
    if about.weights_origin is not None:
        rows.append(("weights from", WeightsOrigin.from_json(about.weights_origin, where="weights_origin").describe()))
    if about.reduction is not None:
        rows.append(("reduced", "\n".join(describe_fit(about.reduction))))
    rows.append(("key", about.settings_key))
    rows.append(("classes", ", ".join(about.classes)))
    rows.append(("software", ", ".join(f"{name} {version}" for name, version in about.software.items())))
    view = table(("", ""), rows)
    view.show_header = False
    view.columns[0].style = "bold"
    return view


def findings_view(store: Path, findings: Sequence[StoreFinding]) -> Group:
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
