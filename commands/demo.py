"""`bas demo`: synthetic matches, features, two heads, predictions, scores and the page, from one call, offline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..ablate.loop import Reporter as AblateReporter
from ..ablate.loop import ablate
from ..ablate.plan import AblateOptions
from ..data.synthetic import Settings, write_data_set
from ..eval.ablation import Table
from ..report.make import Made, report
from ..report.make import Reporter as ReportReporter
from ..report.sources import ReportOptions
from .options import progress_bar
from .settings_options import with_options
from .show import show

HEADS = ("demo-fc", "demo")
SIZE = (160, 90)
"""Pictures this small suffice for random weights, and three minutes for all."""
WINDOW_STEPS = 50
VARIETY = 0.1
"""Of looks: nearly one ground and one camera, as eight minutes to learn from teach random features no more."""


@dataclass(frozen=True)
class Reporters:
    """What the command line wants to hear."""

    drawing: Callable[[int, int], None]
    """Called with matches drawn and matches in all."""
    ablating: AblateReporter
    reporting: ReportReporter


@dataclass(frozen=True)
class Demo:
    """What a demo made."""

    matches: Path
    """A data set in SoccerNet's layout."""
    ablation: Path
    """Features, runs, predictions and the table of both heads."""
    table: Table
    page: Made


def run_demo(out: Path, *, minutes: float, seed: int, reporters: Reporters) -> Demo:
    """All of `bas` on synthetic matches; goes on where `out` holds a part of it.

    Args:
        out: folder for everything.
        minutes: of video, seven matches together.
        seed: of the matches.
        reporters: hear how it goes.

    Raises:
        InputError: settings that make no sense, or other ones than `out` was begun with.
    """
    matches, ablation = out / "matches", out / "ablation"
    write_data_set(matches, Settings(minutes, seed=seed, variety=VARIETY), on_progress=reporters.drawing)
    options = AblateOptions(recipes=HEADS, num_seeds=1, weights={"": "none"}, size=SIZE, hop=WINDOW_STEPS)
    table = ablate([matches], ablation, options, reporters.ablating)
    page = report([ablation], out / "report", ReportOptions(title="bas demo"), reporters.reporting)
    return Demo(matches, ablation, table, page)


@with_options()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that it makes; an unfinished one goes on.")] = Path(
        "bas-demo"
    ),
    minutes: Annotated[float, typer.Option(help="Of synthetic video, seven matches together.")] = 14.0,
    seed: Annotated[int, typer.Option(help="Another one gives other matches.")] = 0,
) -> None:
    """From video to a page to look at, on synthetic matches, offline: draw, extract, train two heads, judge, report."""
    from .ablate_view import AblationView, table_view
    from .report_view import made_view, report_reporter

    with progress_bar("drawing matches") as drawing, AblationView() as ablating:
        made = run_demo(out, minutes=minutes, seed=seed, reporters=Reporters(drawing, ablating, report_reporter()))
    show(table_view(made.table), None, as_json=False)
    show(made_view(made.page), None, as_json=False)
    print(f"""
Synthetic matches and random weights: the figures say nothing about real football. Next:
  bas data check {made.matches}
  bas cache info {made.ablation}/stores/x3d_s.zarr
  bas predict MY-MATCH.mp4 --run {made.ablation}/runs/demo-0 --out predictions
  bas ablate {made.matches} --recipes fc,tcn,ed --seeds 1 --weights none --size 160x90 --inputs standard --out mine
  bas extract SN-BAS-2025 --out x3d_s.zarr""")
    if not made.table.complete:
        raise typer.Exit(2)
