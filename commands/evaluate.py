"""The command `bas eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..eval.report import Calibration, Metric, Report, Score, Timing
from .options import AsJson, OnlySplit, known_splits
from .settings_options import with_options
from .show import Cell, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..eval.players import PlayerScore, PlayersReport

MetricOption = Literal[Metric, "players"]

_COLUMNS = ("events", "found", "AP", "interval", "chance", "late", "sd", "med")


@with_options()
def evaluate(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Data set folder, store, or one Labels-ball.json.")],
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Folder with results_spotting.json per game, or one file.")
    ],
    metric: Annotated[
        MetricOption,
        typer.Option(
            help="SoccerNet's (at1 ... at5 s, tight, loose; team: at 1 s, each class of each team), E2E-Spot's (e2e: "
            "within 0, 1, 2, 4 frames), or F1 of events with their player (players: two files as FOOTPASS has them)."
        ),
    ] = "at1",
    delta: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECONDS",
            help="Full width of the tolerance, such as 0.5, in place of the metric's; may be repeated.",
        ),
    ] = None,
    fps: Annotated[str, typer.Option(help="Cells of the metric's grid per second.")] = "25",
    classes: Annotated[str | None, typer.Option(help="A,B,...: the class list; default: the data set's own.")] = None,
    split: OnlySplit = None,
    calibrate: Annotated[
        Calibration, typer.Option(help="rank: spread scores over the metric's thresholds first, order kept.")
    ] = "none",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples for the intervals; 0: none.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Score predictions: mAP, per class, with intervals, a chance row and warnings about what misleads."""
    if metric == "players":
        from ..eval.players import evaluate_players

        players = evaluate_players(labels, predictions)
        show(players_view(players), players.to_json(), as_json=as_json)
        return
    from .. import api

    report = api.evaluate(
        labels,
        predictions,
        metric=metric,
        deltas=delta or (),
        fps=fps,
        classes=classes.split(",") if classes is not None else (),
        splits=known_splits(split),
        calibrate=calibrate,
        num_resamples=resamples,
    )
    show(report_view(report), report.to_json(), as_json=as_json)


def players_view(report: "PlayersReport") -> "RenderableType":
    """F1 of all classes together and their mean, then a line per class."""
    from rich.console import Group
    from rich.text import Text

    def cells(score: "PlayerScore") -> list[Cell]:
        rates = (score.precision, score.recall, score.f1)
        return [score.label, score.num_events, score.num_predictions, *(f"{100 * rate:.1f}" for rate in rates)]

    rows: list[list[Cell]] = [
        cells(report.total),
        ["mean of classes", None, None, None, None, f"{100 * report.macro_f1:.1f}"],
    ]
    view = table(("", "events", "found", "precision", "recall", "F1"), [*rows, *map(cells, report.classes)])
    about = "of the same team, jersey and class, within 12 frames, from confidence 0.15 on"
    return Group(view, Text(), Text(about), *(Text(f"warning: {each}", "yellow") for each in report.warnings))


def report_view(report: Report) -> "RenderableType":
    """Means first, then one line per class, the tolerances, what the columns mean, and warnings."""
    from rich.console import Group
    from rich.text import Text

    num_events = sum(row.num_events for row in report.classes)
    num_predictions = sum(row.num_predictions for row in report.classes)
    means: list[list[Cell]] = [
        [name, None, None, *score_cells(score), None, None, None] for name, score in report.means.items()
    ]
    means[-1] = [means[-1][0], num_events, num_predictions, *means[-1][3:6], *_times(report.timing)]  # all classes
    classes: list[list[Cell]] = [
        [row.label, row.num_events, row.num_predictions, *score_cells(row.score), *_times(row.timing)]
        for row in report.classes
    ]
    view = table(("", *_COLUMNS), [*means, *classes])
    for line in view.rows[: len(means)]:
        line.style = "bold"
    for column in view.columns[1:]:
        column.justify = "right"
    notes = [Text(note, "dim") for note in _notes(report)]
    return Group(view, Text(), *notes, *(Text(f"warning: {warning}", "yellow") for warning in report.warnings))


def score_cells(score: Score) -> tuple[str, str, str]:
    """AP, interval and chance; what there is none of is NaN, and shown as a dash."""
    interval = f"{100 * score.low:.1f}-{100 * score.high:.1f}" if score.low == score.low else "-"
    return _percent(score.value), interval, _percent(score.chance)


def _times(timing: Timing) -> tuple[str, str, str]:
    if not timing.num_matched:
        return "-", "-", "-"
    return f"{timing.mean_ms:+.0f}", f"{timing.std_ms:.0f}", f"{timing.median_abs_ms:.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if value == value else "-"


def _notes(report: Report) -> list[str]:
    settings, resampling = report.settings, report.settings.resampling
    metric = f"tolerance {', '.join(settings.deltas)}," if settings.deltas_seconds else settings.metric
    names = ", ".join(row.label for row in report.classes)
    how = ", the teams of an action by their numbers of events" if settings.metric == "team" else ""
    notes = [f"averaged over {len(report.classes)} class{'es' if len(report.classes) != 1 else ''}{how}: {names}"]
    notes += [f"{metric} at {settings.fps} frames a second, {report.num_games} game(s) or half(s)"]
    if settings.calibrate != "none":
        notes.append("CALIBRATED: scores spread by rank before scoring; not comparable with results that are not")
    if len(report.per_delta) > 1:
        notes.append("by tolerance: " + ", ".join(f"{name} {_percent(v)}" for name, v in report.per_delta.items()))
    if report.visible == report.visible:
        notes.append(f"mean over all classes, visible: {_percent(report.visible)}, unshown: {_percent(report.unshown)}")
    if any(score.low == score.low for score in report.means.values()):
        notes.append(
            f"interval: {resampling.level:.0%} of {resampling.num_resamples} resamples (seed {resampling.seed}) of "
            f"games, and of blocks of {resampling.block_seconds} s within each"
        )
    if settings.num_chance_draws:
        notes.append(
            f"chance: random scores at random instants, one a second for each class, mean of "
            f"{settings.num_chance_draws} draws"
        )
    notes.append(
        f"late, sd, med: mean, standard deviation and median size of prediction minus event in ms, matched within "
        f"{report.timing_delta}"
    )
    return notes
