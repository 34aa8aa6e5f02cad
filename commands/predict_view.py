"""The tables at the end of `bas predict`."""

from typing import TYPE_CHECKING, Any

from ..eval.prediction_folder import RECORD, SPOTS, clock
from ..workers import Summary
from .show import summary_view, table

if TYPE_CHECKING:
    from rich.console import Group


def prediction_view(summary: Summary) -> "Group":
    """The surest spots, then a line per match, then where everything is."""
    from rich.console import Group
    from rich.text import Text

    best = summary.record["best"]
    num_spots = sum(int(result.columns.get("spots", 0)) for result in summary.results)
    notes = []
    if len(best) < num_spots:
        notes.append(
            f"the surest of each class, {len(best)} of {num_spots:,} spots; all are in "
            f"{summary.target}/<match>/{SPOTS}; --threshold 0.5 writes only surer ones, into another --out"
        )
    how = Text(f"{num_spots:,} spots; {RECORD} says how they were made")
    spots = [_spots_table(best, with_match=len(summary.results) > 1)] if best else []
    return Group(*spots, *(Text(note, "dim") for note in notes), Text(), summary_view(summary), how)


def _spots_table(best: list[dict[str, Any]], *, with_match: bool) -> Any:
    rows = []
    for spot in best:
        half = " (2)" if spot["half"] == 2 and not with_match else ""
        cells = (clock(spot["ms"]) + half, spot["label"], f"{spot['confidence']:.3f}")
        rows.append([*([spot["match"]] if with_match else []), *cells])
    return table([*(["match"] if with_match else []), "time", "class", "confidence"], rows)
