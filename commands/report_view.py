"""What a person sees of `bas report`: a line per run while it works, and the headline table."""

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..eval.report import Score
from ..report.make import Made, Reporter
from .show import ProgressView

_NUM_WARNINGS = 3


def report_reporter() -> Reporter:
    """Lines on stderr: what is predicted first, and which run is judged."""
    console = Console(stderr=True, highlight=False)

    def judging(name: str, number: int, total: int) -> None:
        console.print(f"{number}/{total} {name}: judging", markup=False, soft_wrap=True)

    return Reporter(predicting=lambda: ProgressView("predicting"), judging=judging)


def made_view(made: Made) -> Group:
    """Means of every run with interval and chance, then notes, then where the page is."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("")
    for name in ("AP", "interval", "chance", "events", "found"):
        table.add_column(name, justify="right", no_wrap=True)
    for subject in made.subjects:
        report = subject.figures.report
        rows = report.classes
        counts = (f"{sum(row.num_events for row in rows):,}", f"{sum(row.num_predictions for row in rows):,}")
        for number, (name, score) in enumerate(report.means.items()):
            first = number == 0
            table.add_row(Text(subject.name if first else ""), name, *_cells(score), *(counts if first else ("", "")))
    warnings = list(dict.fromkeys(each for subject in made.subjects for each in subject.figures.report.warnings))
    lines = [Text(f"warning: {each}", "yellow") for each in warnings[:_NUM_WARNINGS]]
    if len(warnings) > _NUM_WARNINGS:
        lines.append(Text(f"and {len(warnings) - _NUM_WARNINGS} more warnings: they are on the page", "yellow"))
    lines += [Text(f"note: {each}") for each in made.notes]
    videos = f"{made.num_videos} of {len(made.matches)} matches with video"
    return Group(table, Text(""), *lines, Text(f"{made.page} ({videos}); open it in a browser"))


def _cells(score: Score) -> tuple[str, str, str]:
    interval = f"{100 * score.low:.1f}-{100 * score.high:.1f}" if score.low == score.low else "-"
    return f"{100 * score.value:.2f}", interval, f"{100 * score.chance:.2f}" if score.chance == score.chance else "-"


def made_json(made: Made) -> dict[str, Any]:
    """The report as plain JSON: where the page is, and the table of every run."""
    return {
        "page": str(made.page),
        "num_matches": len(made.matches),
        "num_videos": made.num_videos,
        "runs": [{"name": each.name, **each.figures.report.to_json()} for each in made.subjects],
        "notes": list(made.notes),
    }
