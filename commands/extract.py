"""The command `bas extract`. Nothing here imports torch before it runs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..extract.options import ExtractOptions, ExtractRunOptions, parse_shard
from .options import AsJson, OnlySplit, Ray, known_splits
from .settings_options import with_options
from .show import ProgressView, finish

PANELS = {
    "Backbone": ("backbone", "depth", "pool", "weights", "size", "fit", "scaler", "views"),
    "Rows": ("fps", "window", "hop", "blend", "stride"),
    "Run": ("engine", "device", "decoder", "batch", "decode_threads", "max_bad_share"),
    "Sharing": ("licence", "origin"),
}


@with_options(panels=PANELS)
def extract(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Data set folders, or video files.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    options: ExtractOptions,
    run: ExtractRunOptions,
    split: OnlySplit = None,
    resume: Annotated[bool, typer.Option(help="Go on with matches that were cut off, or begin them anew.")] = True,
    shard: Annotated[
        str, typer.Option(help="i/n: take part i (0 to n-1) of n of the matches; auto: as torchrun, srun, mpirun say.")
    ] = "0/1",
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Compute one feature per frame of every match, into a feature store. Resumes; what is stored is left alone.

    Settings that are left out follow the store where it exists, then the weights' own record, then the default.
    """
    from ..data.sources import find_sources
    from ..extract.run import extract as run_extract

    run = replace(run, resume=resume, shard=parse_shard(shard, os.environ), ray=ray)
    data_set = find_sources(sources)
    data_set.raise_errors()
    with ProgressView("extracting") as progress:
        summary = run_extract(data_set, out, options, run, split=known_splits(split), progress=progress)
    finish(summary, as_json=as_json)
