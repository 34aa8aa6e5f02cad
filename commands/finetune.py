"""The command `bas finetune`. Nothing here imports torch before it runs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..extract.options import ExtractOptions
from ..heads.training.settings import FinetuneSettings
from .options import AsJson, Classes, ClassesBy, Recipe, Valid, WithValid, parse_classes
from .settings_options import with_options
from .show import ProgressView, say, show
from .train_head import NAMES, run_view, settings_of, training_progress
from .train_head import PANELS as HEAD_PANELS

PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "asked": {"Backbone": ("backbone", "depth", "pool", "weights", "size", "fps")},
    "given": {
        "Backbone": ("unfreeze", "backbone_lr", "norm", "augment", "mixup_of", "side_weight", "accumulate"),
        # views are of stores; the depth is that of the backbone
        **{
            panel: tuple(name for name in names if name not in ("views", "depth"))
            for panel, names in HEAD_PANELS.items()
        },
    },
}


@with_options(panels=PANELS, names=NAMES)
def finetune(
    sources: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Data set folders: videos, labels, splits.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished one goes on.")],
    asked: ExtractOptions,
    given: Annotated[dict[str, Any], FinetuneSettings],
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Begin with the head of this finished run.")
    ] = None,
    recipe: Recipe = None,
    classes: Classes = None,
    classes_by: ClassesBy = "label",
    valid: Valid = None,
    with_valid: WithValid = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Kind of device to train on.")] = "auto",
    devices: Annotated[int, typer.Option(help="Devices of this machine; for several machines use torchrun.")] = 1,
    engine: Annotated[
        Literal["auto", "torch", "openvino"], typer.Option(help="Library that runs the backbone in validation.")
    ] = "auto",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute blocks twice: less memory, more time.")
    ] = False,
    decode_threads: Annotated[int, typer.Option(help="Decoders of each process; 0: one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train backbone and head end to end, straight from videos; resumes exactly. Then `bas extract --weights RUN`.

    The defaults below are those of the head `ed`; a recipe or another head may have its own.
    """
    import torch

    from ..data.sources import find_sources
    from ..finetune.devices import Devices, is_first_process
    from ..finetune.loop import finetune as run_finetune
    from ..finetune.start import Start, model_of
    from ..heads.ensemble import LoadedRun
    from ..heads.recipes import RECIPES

    begun = LoadedRun.load(from_, torch.device("cpu")) if from_ is not None else None
    of_recipe = settings_of(recipe, given if begun is None else {})
    if begun is not None:
        of_recipe = replace(of_recipe, **model_of(begun))
        given = {**given, "options": {**of_recipe.options, **given.get("options", {})}}
    elif "options" in given:
        given = {**given, "options": of_recipe.options}
    if recipe and begun is None:
        asked = with_backbone_of(recipe, asked)
        given = {**RECIPES[recipe].finetuning, **given}
    settings = FinetuneSettings.of(of_recipe, **given, begun_from=begun.weights_sha256 if begun else "")
    data_set = find_sources(sources)
    data_set.raise_errors()
    with ProgressView("training", unit="steps") as progress:
        record = run_finetune(
            data_set,
            out,
            settings,
            Start.of(settings, asked, begun),
            classes=parse_classes(classes),
            valid=valid or (),
            with_valid=with_valid,
            is_by_team=classes_by == "team",
            devices=Devices(place=device, count=devices),
            engine=engine,
            checkpointing=checkpointing,
            decode_threads=decode_threads,
            progress=training_progress(progress),
        )
    if not is_first_process():
        return
    show(run_view(record), record.to_json(), as_json=as_json)
    if not as_json:
        say(f"{out}: finished. Next: bas extract DATASET --weights {out} --out STORE")
        say(f"          or straight away: bas predict VIDEO --run {out} --out predictions")


def with_backbone_of(recipe: str, asked: ExtractOptions) -> ExtractOptions:
    """Backbone and picture size of the recipe where none are asked for."""
    from ..heads.recipes import RECIPES

    known = RECIPES[recipe]
    asked = replace(asked, size=asked.size or known.size)
    is_given = asked.backbone is not None or (asked.weights is not None and Path(asked.weights).is_dir())  # a run's own
    return asked if is_given else replace(asked, backbone=known.backbone, depth=known.depth)
