"""What a person sees while `bas predict` runs, and the tables at its end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..eval.prediction_folder import RECORD, SPOTS, clock
from ..extract.extractor import describe_settings
from ..heads.ensemble import Ensemble
from ..predict import NUM_BEST, GameResult, Prediction, Reporter, best_spots


class PredictionView:
    """A progress bar on stderr; plain lines where stderr is not a terminal. Use it in a `with`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.fields[place]}"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what = ("", "")
        self._num_games = 0
        self._num_finished = 0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return Reporter(
            started=self._started,
            fidelity=self._fidelity,
            extracting=self._extracting,
            scoring=self._scoring,
            finished=self._finished,
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _started(self, ensemble: Ensemble, engine: str, num_games: int) -> None:
        self._num_games = num_games
        for member in ensemble.members:
            record = member.record
            self._console.print(
                f"{member.folder}: {record.settings.head}, {record.num_parameters:,} parameters, epoch "
                f"{record.best_epoch}, {len(record.classes)} class{'es' if len(record.classes) != 1 else ''}",
                markup=False,
            )
        if engine:
            self._console.print(describe_settings(ensemble.features), markup=False, soft_wrap=True)
        place = f"engine {engine}, " if engine else ""
        self._console.print(f"{place}heads on {ensemble.device}, {num_games} match{'es' if num_games != 1 else ''}")

    def _fidelity(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _extracting(self, match_id: str, done: float, total: float, words: str) -> None:
        self._show(match_id, "features", int(done), int(total), note=words)

    def _scoring(self, match_id: str, done: int, total: int) -> None:
        self._show(match_id, "confidences", done, total)

    def _show(self, match_id: str, stage: str, done: int, total: int, *, note: str = "") -> None:
        if self._task is None or self._what != (match_id, stage):
            self._hide()
            self._what = (match_id, stage)
            self._task = self._bar.add_task(f"{match_id}: {stage}", total=total, place="", note="")
        place = f"{min(self._num_finished + 1, self._num_games)}/{self._num_games}"
        self._bar.update(self._task, completed=done, total=total, place=place, note=note)

    def _hide(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _finished(self, result: GameResult) -> None:
        self._num_finished += 1
        self._hide()
        if not self._console.is_terminal or result.message:
            told = f"{result.num_spots:,} spots in {result.seconds:.1f} s" if not result.message else result.status
            self._console.print(
                f"{self._num_finished}/{self._num_games} {result.id}: {told}", markup=False, soft_wrap=True
            )
        if result.message:
            self._console.print(result.message, style="red", markup=False, soft_wrap=True)


def prediction_view(prediction: Prediction) -> Group:
    """Spots, then one line per match, then where everything is."""
    results, out = prediction.results, prediction.folder.path
    num_spots = sum(result.num_spots for result in results)
    best = best_spots([spot for result in results for spot in result.best], NUM_BEST)
    parts: list[Table | Text] = [_spots_table(best, with_match=len(results) > 1)] if best else []
    if len(best) < num_spots:
        note = (
            f"the surest of each class, {len(best)} of {num_spots:,} spots; all are in {out}/<match>/{SPOTS}; "
            "--threshold 0.5 writes only surer ones, into another --out"
        )
        parts += [Text(note, "dim")]
    parts += [Text(""), _results_table(results), Text("")]
    made = [f"{sum(result.status == 'predicted' for result in results)} predicted"]
    made += [f"{failed} failed"] if (failed := sum(result.status == "failed" for result in results)) else []
    parts += [Text(f"{', '.join(made)}; {num_spots:,} spots -> {out} ({RECORD} says how they were made)")]
    return Group(*parts)


def _spots_table(spots: Sequence[tuple[str, Any]], *, with_match: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    if with_match:
        table.add_column("match", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("class")
    table.add_column("confidence", justify="right")
    for match_id, event in spots:
        half = " (2)" if event.half == 2 and not with_match else ""
        cells = (Text(clock(event.position_ms) + half), Text(event.label), f"{event.confidence:.3f}")
        table.add_row(*((Text(match_id),) if with_match else ()), *cells)
    return table


def _results_table(results: Sequence[GameResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("match", "frames", "spots", "seconds", "frames/s", "status"):
        table.add_column(name, justify="left" if name in ("match", "status") else "right", overflow="fold")
    for result in results:
        is_done = result.status == "predicted"
        numbers = (
            f"{result.num_rows:,}",
            f"{result.num_spots:,}",
            f"{result.seconds:.1f}",
            f"{result.rows_per_second:,.1f}",
        )
        style = "" if is_done else "bold red"
        table.add_row(Text(result.id), *(numbers if is_done else ("", "", "", "")), Text(result.status, style))
    return table


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """The prediction as plain JSON: how it was made, and what became of each match."""
    folder = prediction.folder
    return {
        "out": str(folder.path),
        **folder.record,
        "complete": prediction.complete,
        "matches": [
            {
                "match": result.id,
                "status": result.status,
                "rows": result.num_rows,
                "spots": result.num_spots,
                "seconds": round(result.seconds, 3),
                "rows_per_second": round(result.rows_per_second, 2),
                "files": folder.files(result.id) if result.status == "predicted" else [],
                "message": result.message,
            }
            for result in prediction.results
        ],
    }
