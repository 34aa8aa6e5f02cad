"""The command `finetune`. Nothing here imports torch before it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import InputError
from .options import (
    AsJson,
    Classes,
    ClipLen,
    Dilate,
    Ema,
    Epochs,
    EpochSteps,
    Head,
    HeadSettings,
    Hop,
    Inputs,
    Keep,
    Loss,
    MaxGradNorm,
    MixupAlpha,
    Patience,
    Precision,
    Projection,
    Recipe,
    Seed,
    Sigma,
    Stride,
    Valid,
    WarmupEpochs,
    WeightDecay,
    WithValid,
    changed,
)
from .settings_options import with_options
from .show import ProgressView, show


@with_options()
def finetune(
    sources: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Data set folders: videos, labels, splits.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished one goes on.")],
    backbone: Annotated[str | None, typer.Option(help="Backbone; default: that of --from, or x3d_s.")] = None,
    depth: Annotated[int | None, typer.Option(help="X3D: trunk blocks kept, 4 or 5; default: 5.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="kinetics, imagenet, none (from scratch), a FILE, or a finetuned RUN to begin with."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Begin with the head of this finished run.")
    ] = None,
    recipe: Recipe = None,
    head: Head = None,
    set_: HeadSettings = None,
    unfreeze: Annotated[
        str, typer.Option(help="Blocks that learn, from the backbone's end: all, or a number.")
    ] = "all",
    norm: Annotated[
        str | None,
        typer.Option(
            help="BatchNorm of blocks that learn: batch (its own statistics), frozen (the stored ones), auto (batch "
            "where all blocks learn)."
        ),
    ] = None,
    augment: Annotated[str | None, typer.Option(help="Of pictures, per clip: seed, flip or none.")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height fed to the backbone; default: 398x224.")] = None,
    fps: Annotated[str | None, typer.Option(help="Frames a second of the grid; default: 25.")] = None,
    proj: Projection = None,
    inputs: Inputs = None,
    loss: Loss = None,
    clip_len: ClipLen = None,
    stride: Stride = None,
    hop: Hop = None,
    dilate: Dilate = None,
    sigma: Sigma = None,
    mixup_alpha: MixupAlpha = None,
    epochs: Epochs = None,
    frames_per_epoch: EpochSteps = None,
    warmup_epochs: WarmupEpochs = None,
    patience: Patience = None,
    batch: Annotated[int | None, typer.Option(help="Clips per update, over all devices.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Parts that a batch is cut into: less memory.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of the head.")] = None,
    backbone_lr: Annotated[float | None, typer.Option(help="That of the backbone, as a multiple of --lr.")] = None,
    weight_decay: WeightDecay = None,
    max_grad_norm: MaxGradNorm = None,
    ema: Ema = None,
    keep: Keep = None,
    precision: Precision = None,
    seed: Seed = None,
    classes: Classes = None,
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
    """Train backbone and head end to end, straight from videos; resumes exactly. Then `bas extract --weights RUN`."""
    options = dict(locals())
    from dataclasses import replace

    import torch

    from ..data.sources import find_sources
    from ..eval.files import parse_classes
    from ..extract.options import ExtractOptions, parse_pair
    from ..finetune.devices import Devices, is_first_process
    from ..finetune.loop import finetune as run_finetune
    from ..finetune.start import Start, model_of
    from ..heads.ensemble import LoadedRun
    from ..heads.recipes import default_recipe, named_recipe
    from ..heads.training.settings import FinetuneSettings
    from .train_view import run_view, training_progress

    begun = LoadedRun.load(from_, torch.device("cpu")) if from_ is not None else None
    chosen = named_recipe(recipe) if recipe else default_recipe(head or "ed")
    if begun is not None:
        chosen = replace(chosen, **model_of(begun))
    settings = changed(
        FinetuneSettings.of(chosen),
        options,
        unfreeze=_blocks(unfreeze),
        begun_from=begun.weights_sha256 if begun else None,
    )
    asked = ExtractOptions(
        backbone=backbone,
        depth=depth,
        weights=weights,
        size=parse_pair(size, option="--size", separator="x", example="398x224") if size else None,
        fps=fps,
    )
    data_set = find_sources(sources)
    data_set.raise_errors()
    with ProgressView("training", unit="steps") as progress:
        record = run_finetune(
            data_set,
            out,
            settings,
            Start.of(settings, asked, begun),
            classes=parse_classes(classes) if classes is not None else None,
            valid=valid or (),
            with_valid=with_valid,
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
        print(f"{out}: finished. Next: bas extract DATASET --weights {out} --out STORE")
        print(f"          or straight away: bas predict VIDEO --run {out} --out predictions")


def _blocks(text: str) -> int | None:
    """Blocks that learn; None: all.

    Raises:
        InputError: neither `all` nor a whole number.
    """
    if text == "all":
        return None
    if not text.isdigit():
        raise InputError("--unfreeze is not usable", got=text, wanted="all, or a whole number >= 0")
    return int(text)
