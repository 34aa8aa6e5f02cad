"""The command `bas demo`: synthetic matches, features, two heads, predictions, scores and the page, offline."""

from pathlib import Path
from typing import Annotated

import typer

from .settings_options import with_options
from .show import ProgressView, say, show

HEADS = ("demo-fc", "demo")
SIZE = (160, 90)
"""Pictures this small suffice for random weights, and three minutes for all."""
WINDOW_STEPS = 50
VARIETY = 0.1
"""Of looks: nearly one ground and one camera, as eight minutes to learn from teach random features no more."""


@with_options()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that it makes; an unfinished one goes on.")] = Path(
        "bas-demo"
    ),
    minutes: Annotated[float, typer.Option(help="Minutes of synthetic video, seven matches together.")] = 14.0,
    seed: Annotated[int, typer.Option(help="Seed of the matches: another one gives others.")] = 0,
) -> None:
    """From video to a page to look at, offline, on synthetic matches: draw, extract, train, evaluate, report."""
    from ..ablate.loop import ablate
    from ..ablate.options import AblateOptions
    from ..data.synthetic import SyntheticSettings, write_data_set
    from ..report.make import report
    from ..report.sources import ReportOptions
    from .ablate import table_view
    from .report import page_view

    matches, ablation = out / "matches", out / "ablation"
    options = AblateOptions(recipes=HEADS, num_seeds=1, weights={"": "none"}, size=SIZE, hop=WINDOW_STEPS)
    with ProgressView("drawing", unit="matches") as progress:
        drawing = SyntheticSettings(minutes, seed=seed, variety=VARIETY)
        write_data_set(matches, drawing, on_progress=lambda done, total: progress.advanced("", done, total, ""))
    table = ablate([matches], ablation, options, ProgressView)
    with ProgressView("predicting") as progress:
        page = report([ablation], out / "report", ReportOptions(title="bas demo"), progress)
    show(table_view(table))
    show(page_view(page))
    say(f"""
Synthetic matches and random weights: the figures say nothing about real football. Look further into what was made:
  bas data check {matches}
  bas cache info {ablation}/stores/x3d_s.zarr
  bas ablate {matches} --recipes fc,tcn,ed --seeds 1 --weights none --size 160x90 --inputs standard --out mine
Mark spots in one of them, train, and correct what is proposed:
  bas label {matches} --store {ablation}/stores/x3d_s.zarr
These heads know no real match. What spots actions in your own video learns from labelled ones, with pretrained weights:
  bas data check SN-BAS-2025
  bas extract SN-BAS-2025 --out x3d_s.zarr
  bas train-head x3d_s.zarr --out runs/ed
  bas predict MY-MATCH.mp4 --run runs/ed --out predictions""")
    if not table.complete:
        raise typer.Exit(2)
