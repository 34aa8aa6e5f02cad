"""The command `bas ablate` and the table at its end. Imports nothing heavy before it runs."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ablate.options import AblateOptions, recipe_names
from ..errors import InputError
from .options import AsJson, Ray, local_stores
from .settings_options import with_options
from .show import ProgressView, say, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..ablate.table import AblationTable, Row

WIDTH_PIPED = 200
"""Columns of the table in a file or pipe."""
_WIDE = 140
"""Columns of a terminal from which on all of the table is shown."""

PANELS = {
    "Runs": ("num_seeds", "finetune", "any_backbone", "split", "jobs", "device"),
    "Features": ("size", "window", "hop"),
    "Training": ("epochs", "frames_per_epoch", "inputs", "head_options"),
}


@with_options(panels=PANELS, names={"num_seeds": "--seeds", "head_options": "--set"})
def ablate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Data set folders (missing features are extracted), stores, or URLs of stores."
        ),
    ],
    given: Annotated[dict[str, Any], AblateOptions],
    out: Annotated[Path, typer.Option(help="Folder of the table, runs, predictions and stores; goes on where it is.")],
    recipes: Annotated[
        str,
        typer.Option(
            help="NAME,NAME,... of bas train-head --list; seed: the whole published table; systems: for --finetune."
        ),
    ] = "seed",
    weights: Annotated[
        list[str] | None,
        typer.Option(help="BACKBONE=kinetics, imagenet, none or FILE; without BACKBONE= for all. May be repeated."),
    ] = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Recipes by seeds to one table: ours with spread and interval beside what is published. Resumes.

    Each backbone is extracted once. A row that fails says why and does not stop the others; exit code 2 then.
    """
    from ..ablate.loop import ablate as run_ablation
    from ..ablate.table import SHEET, TABLE
    from ..extract.backbones.registry import BACKBONES

    options = AblateOptions(
        recipes=recipe_names(recipes), weights=_weights(weights or (), list(BACKBONES)), ray=ray, **given
    )
    paths = local_stores(sources, splits=options.splits)
    made = run_ablation(paths, out, options, ProgressView)
    show(table_view(made), made.to_json(), as_json=as_json, piped_width=WIDTH_PIPED)
    if not as_json:
        say(f"\n{out / TABLE}, {SHEET}. Next: bas report {out} --out report")
    if not made.complete:
        raise typer.Exit(2)


def _weights(texts: Sequence[str], backbones: Sequence[str]) -> dict[str, str]:
    """`none` -> for all; `i3d=FILE` -> for one.

    Raises:
        InputError: no such backbone, or one twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or Path(text).exists():
            name, value = "", text
        elif name not in backbones:
            raise InputError("--weights names no backbone", got=name, wanted=", ".join(backbones))
        if not value or name in found:
            raise InputError("--weights is not usable", got=text, wanted="BACKBONE=WEIGHTS, each backbone once")
        found[name] = value
    return found


def table_view(ablation: "AblationTable", *, width: int | None = None) -> "RenderableType":
    """Ours beside the published figures, the chance row, what to know when reading it, and why rows failed.

    Args:
        ablation: finished or under way.
        width: columns to fill; None: those of the terminal. The narrow table leaves out what is not a score.
    """
    from rich.console import Group
    from rich.text import Text

    from ..ablate.table import SHEET
    from ..cache.settings import depth_text
    from ..heads.recipes import RECIPES

    is_wide = (width or shutil.get_terminal_size((WIDTH_PIPED, 0)).columns) >= _WIDE
    rows = ablation.rows
    columns: dict[str, Sequence[str]] = {"recipe": [row.name for row in rows]}
    if is_wide:
        depths = ["" if row.depth is None else f", {depth_text(row.depth)} blocks" for row in rows]
        columns["backbone"] = [row.backbone + depth for row, depth in zip(rows, depths, strict=True)]
        columns["head"] = [row.head for row in rows]
    columns["seeds"] = [f"{len(row.runs)}/{row.num_seeds}" for row in rows]
    for number, name in enumerate(ablation.measures):
        columns[name] = [_mean(row, name) for row in rows]
        if number == 0:
            columns["interval"] = [_interval(row, name) for row in rows]
    if any(RECIPES[row.recipe].published for row in rows):
        map_10, map_12, source = zip(*map(_published, rows), strict=True)
        columns |= {"published\nmAP-10": map_10, "\nmAP-12": map_12, **({"\nby": source} if is_wide else {})}
    if is_wide:
        columns["parameters"] = ["-" if row.parameters is None else f"{row.parameters:,}" for row in rows]
        columns["trained in"] = [_time(row.seconds) for row in rows]
    chance = {"recipe": "chance", **{name: _percent(ablation.chance.get(name)) for name in ablation.measures}}
    view = table(list(columns), [*zip(*columns.values(), strict=True), [chance.get(title, "") for title in columns]])
    notes = [*_notes(ablation), *([] if is_wide else [f"a wider terminal shows more; {SHEET} holds all"])]
    failed = [Text(f"{row.name} failed: {row.error}", "red") for row in rows if row.status == "failed"]
    return Group(view, Text(), *(Text(note, "dim") for note in notes), *failed)


def _mean(row: "Row", measure: str) -> str:
    value, sd = row.over_seeds("value").get(measure), (row.sd() or {}).get(measure)
    return _percent(value) if sd is None else f"{_percent(value)} ± {_percent(sd)}"


def _interval(row: "Row", measure: str) -> str:
    low, high = row.over_seeds("low").get(measure), row.over_seeds("high").get(measure)
    return "-" if low is None else f"{_percent(low)} to {_percent(high)}"


def _time(seconds: float | None) -> str:
    from .train_head import duration

    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _published(row: "Row") -> tuple[str, str, str]:
    """mAP-10, mAP-12 and whose."""
    from ..heads.recipes import RECIPES

    by = row.published
    if by is not None:
        return _given(by["map_10"]), _given(by["map_12"]), _by(by)
    return "-", "-", "other backbone" if RECIPES[row.recipe].published else "-"


def _by(published: "Mapping[str, Any]") -> str:
    """Who; tables until November 2026 hold one text."""
    if "team" in published:
        return f"{published['team']}, {published['year']}{'*' if published['other_system'] else ''}"
    return str(published["source"]).split(",", maxsplit=1)[0]


def _notes(ablation: "AblationTable") -> Iterator[str]:
    from ..heads.recipes import RECIPES

    if any(row.runs for row in ablation.rows):
        yield (
            f"AP in % at 1 s, split {ablation.split}; mean ± standard deviation over seeds; interval: mean ends of the "
            "seeds' 95 % bootstrap intervals; trained in: mean seconds of the epochs, one thread a run on a CPU"
        )
    shorter = [row for row in ablation.rows if 0 < row.frames_per_epoch < RECIPES[row.recipe].settings.frames_per_epoch]
    if shorter and ablation.settings.get("frames_per_epoch") is None:
        steps = sorted({row.frames_per_epoch for row in shorter})
        text = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        yield f"epochs of {text} steps, shorter than the recipes': {len(shorter)} row(s) see each window once an epoch"
    for row in ablation.rows:
        if row.published and row.published.get("other_system"):
            yield f"* {row.name}: {row.published['other_system']}"
    yield from ablation.notes


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _given(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
