"""The command `ablate`. Imports nothing heavy before it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..ablate.options import AblateOptions, recipe_names
from ..errors import InputError
from .options import AsJson, Ray, local_stores
from .settings_options import with_options
from .show import say, show

WIDTH_PIPED = 200
"""Columns of the table in a file or pipe."""


PANELS = {
    "Runs": ("num_seeds", "any_backbone", "split", "jobs", "device"),
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
        str, typer.Option(help="NAME,NAME,... of bas train-head --list; seed: the whole published table.")
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
    from .ablate_view import AblationView, table_view

    options = AblateOptions(
        recipes=recipe_names(recipes), weights=_weights(weights or (), list(BACKBONES)), ray=ray, **given
    )
    paths = local_stores(sources, splits=options.splits)
    with AblationView() as progress:
        table = run_ablation(paths, out, options, progress)
    show(table_view(table), table.to_json(), as_json=as_json, piped_width=WIDTH_PIPED)
    if not as_json:
        say(f"\n{out / TABLE}, {SHEET}. Next: bas report {out} --out report")
    if not table.complete:
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
