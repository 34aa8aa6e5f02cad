"""The command `bas predict`. Nothing here imports torch before it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..predict import PredictOptions
from ..workers import Summary
from .options import AsJson, known_splits, local_stores
from .settings_options import with_options
from .show import ProgressView, finish, summary_view, table

if TYPE_CHECKING:
    from rich.console import Group

PANELS = {
    "Spots": ("nms", "calibrate", "threshold"),
    "Features": ("views", "keep", "weights", "engine", "device", "fast", "max_bad_share"),
}


@with_options(panels=PANELS, names={"keep": "--store"})
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Video files, data set folders, stores of `bas extract`, or URLs of shared stores.",
        ),
    ],
    run: Annotated[
        list[Path],
        typer.Option(
            help="Folder of a finished run, or hub:NAME of a published one. Repeated: confidences are averaged; peaks "
            "and calibration are the first's."
        ),
    ],
    given: Annotated[dict[str, Any], PredictOptions],
    out: Annotated[Path, typer.Option(help="Folder for results_spotting.json and spots.csv of each match.")],
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    match: Annotated[
        list[str] | None, typer.Option(help="Only this match (id or part of it); may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find actions in any video with a trained head: SoccerNet's results file and a table per match."""
    from ..predict import predict as run_prediction

    splits = known_splits(split)
    options = PredictOptions(splits=splits, matches=tuple(match or ()), **given)
    paths = local_stores(sources, splits=splits, views=options.views or ("identity",))
    with ProgressView("predicting") as progress:
        summary = run_prediction(paths, run, out, options, progress=progress)
    finish(summary, as_json=as_json, view=prediction_view(summary))


def prediction_view(summary: Summary) -> "Group":
    """The surest spots, then a line per match, then where everything is."""
    from rich.console import Group
    from rich.text import Text

    from ..eval.prediction_folder import RECORD, SPOTS, clock

    best, with_match = summary.record["best"], len(summary.results) > 1
    num_spots = sum(int(result.columns.get("spots", 0)) for result in summary.results)
    rows = []
    for spot in best:
        half = " (2)" if spot["half"] == 2 and not with_match else ""
        label = f"{spot['label']} {spot.get('team', '')}".strip()
        cells = (clock(spot["ms"]) + half, label, f"{spot['confidence']:.3f}")
        rows.append([*([spot["match"]] if with_match else []), *cells])
    columns = [*(["match"] if with_match else []), "time", "class", "confidence"]
    note = (
        f"the surest of each class, {len(best)} of {num_spots:,} spots; all are in {summary.target}/<match>/{SPOTS}; "
        "--threshold 0.5 writes only surer ones, into another --out"
    )
    how = Text(f"{num_spots:,} spots; {RECORD} says how they were made")
    warnings = [Text(f"warning: {each}", "yellow") for each in summary.record["warnings"]]
    return Group(
        *([table(columns, rows)] if best else []),
        *([Text(note, "dim")] if len(best) < num_spots else []),
        Text(),
        summary_view(summary),
        how,
        *warnings,
    )
