"""The command `ablate`. Imports nothing heavy before it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import AsJson, Ray, head_options, local_stores
from .settings_options import with_options
from .show import show

WIDTH_PIPED = 200
"""Columns of the table in a file or pipe."""


@with_options()
def ablate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Data set folders (missing features are extracted), stores, or URLs of stores."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the table, runs, predictions and stores; goes on where it is.")],
    recipes: Annotated[
        str, typer.Option(help="NAME,NAME,... of bas train-head --list; seed: the whole published table.")
    ] = "seed",
    seeds: Annotated[int, typer.Option(help="Train each with seeds 0 to N - 1.")] = 3,
    any_backbone: Annotated[
        bool, typer.Option("--any-backbone", help="Every recipe on every store, whatever backbone it is for.")
    ] = False,
    split: Annotated[str, typer.Option(help="Judged: test or valid.")] = "test",
    weights: Annotated[
        list[str] | None,
        typer.Option(help="BACKBONE=kinetics, imagenet, none or FILE; without BACKBONE= for all. May be repeated."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Width x height to extract at; default: 398x224.")] = None,
    window: Annotated[int | None, typer.Option(help="Steps in one clip of a 3-D backbone; default: 50.")] = None,
    hop: Annotated[int | None, typer.Option(help="Steps between clip starts; default: half the window.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many, in place of each recipe's own.")] = None,
    epoch_steps: Annotated[
        int | None,
        typer.Option(help="Steps of an epoch; default: the recipe's, at most one pass over the training windows."),
    ] = None,
    inputs: Annotated[str | None, typer.Option(help="raw, standard or scores, in place of each recipe's own.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a head, as bigru.hidden=96; may be repeated.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Runs side by side, one thread each; 0: one per core, up to 4 on a GPU.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Recipes by seeds to one table: ours with spread and interval beside what is published. Resumes.

    Each backbone is extracted once. A row that fails says why and does not stop the others; exit code 2 then.
    """
    from ..ablate.loop import ablate as run_ablation
    from ..ablate.plan import AblateOptions, recipe_names
    from ..ablate.table import SHEET, TABLE
    from ..extract.backbones.registry import BACKBONES
    from ..extract.options import parse_choice, parse_pair
    from .ablate_view import AblationView, table_view

    options = AblateOptions(
        recipes=recipe_names(recipes),
        num_seeds=seeds,
        split=parse_choice(split, option="--split"),
        any_backbone=any_backbone,
        weights=_weights(weights or (), list(BACKBONES)),
        size=parse_pair(size, option="--size", separator="x", example="398x224") if size else None,
        window=window,
        hop=hop,
        epochs=epochs,
        epoch_steps=epoch_steps,
        inputs=inputs,
        head_options=head_options(set_),
        device=parse_choice(device, option="--device"),
        jobs=jobs,
        ray=ray,
    )
    with local_stores(sources, splits=options.splits) as paths, AblationView() as report:
        table = run_ablation(paths, out, options, report)
    show(table_view(table), table.to_json(), as_json=as_json, piped_width=WIDTH_PIPED)
    if not as_json:
        print(f"\n{out / TABLE}, {SHEET}. Next: bas report {out} --out report")
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
