"""The command `bas extract`. Nothing here imports torch before it runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, Ray
from .settings_options import with_options
from .show import show

if TYPE_CHECKING:
    from ..data.sources import DataSet
    from ..events import Split
    from ..extract.options import ExtractOptions, RunOptions
    from ..extract.run import Summary


@with_options()
def extract(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Data set folders, or video files.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    backbone: Annotated[
        str | None, typer.Option(help="x3d_s, i3d, tf_efficientnet_lite0, ..., timm:NAME; default: x3d_s.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="X3D: trunk blocks kept, 4 (96-d) or 5 (192-d); default: 5.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="kinetics, imagenet, none (random), a FILE, or the folder of a finetuned run, whose settings it "
            "follows; default: what the backbone is known by."
        ),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height fed to the backbone; default: 398x224.")] = None,
    fit: Annotated[str | None, typer.Option(help="Other aspects: pad (black bars) or stretch; default: pad.")] = None,
    scaler: Annotated[
        str | None,
        typer.Option(help="swscale-bicubic (default), -bilinear, -area, -lanczos; torch-bilinear (on the device)."),
    ] = None,
    fps: Annotated[
        str | None, typer.Option(help="Frames a second of the grid, or `source` for the video's own; default: 25.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Steps in one clip of a 3-D backbone; default: 50.")] = None,
    hop: Annotated[int | None, typer.Option(help="Steps between clip starts; default: half the window.")] = None,
    blend: Annotated[
        str | None, typer.Option(help="How clips that overlap are averaged: hann, mean, centre; default: hann.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Frames per step; default: the weights' own; X3D 2, others 1.")
    ] = None,
    views: Annotated[str, typer.Option(help="Views to cache side by side: identity,hflip.")] = "identity",
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[
        int | None, typer.Option(help="Groups of clips per call; changes memory, never a feature.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with matches that were cut off, or begin them anew.")] = True,
    shard: Annotated[
        str,
        typer.Option(
            help="i/n: this worker takes part i (0..n-1) of n, balanced by length; auto: as torchrun, srun, mpirun say."
        ),
    ] = "0/1",
    ray: Ray = None,
    decode_threads: Annotated[int, typer.Option(help="Decoders side by side; 0: one per core.")] = 0,
    max_bad_share: Annotated[
        float, typer.Option(help="Share of undecodable frames that is put up with, 0 to 1.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """One feature per frame of every match, into a feature store. Resumes; what is stored is left alone.

    Settings that are left out follow the store where it exists, then the weights' own record, then the default.
    """
    from ..data.sources import find_sources
    from ..extract.options import ExtractOptions, RunOptions, parse_choice, parse_pair, parse_shard, parse_views
    from ..extract.run import extract as run_extract
    from .extract_view import ExtractionView, summary_json, summary_view

    options = ExtractOptions(
        backbone=backbone,
        depth=depth,
        weights=weights,
        size=parse_pair(size, option="--size", separator="x", example="398x224") if size else None,
        fit=parse_choice(fit, option="--fit"),
        scaler=parse_choice(scaler, option="--scaler"),
        fps=fps,
        window=window,
        hop=hop,
        blend=parse_choice(blend, option="--blend"),
        stride=stride,
    )
    run = RunOptions(
        views=parse_views(views),
        engine=parse_choice(engine, option="--engine"),
        device=parse_choice(device, option="--device"),
        batch=batch,
        resume=resume,
        shard=parse_shard(shard, os.environ),
        decode_threads=decode_threads,
        max_bad_share=max_bad_share,
    )
    data_set = find_sources(sources)
    data_set.raise_errors()
    splits = tuple(parse_choice(name, option="--split") for name in split or ())
    if ray is None:
        with ExtractionView() as report:
            summary = run_extract(data_set, out, options, run, split=splits, report=report)
    else:
        summary = _extract_on_cluster(data_set, out, options, run, splits, address=ray)
    show(summary_view(summary), summary_json(summary), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)


def _extract_on_cluster(
    data_set: "DataSet",
    out: Path,
    options: "ExtractOptions",
    run: "RunOptions",
    splits: "tuple[Split, ...]",
    *,
    address: str,
) -> "Summary":
    from ..cluster.pool import Cluster
    from ..extract.cluster_run import extract_on_cluster
    from .extract_view import ClusterView

    cluster = Cluster(address=address, device=run.device)
    with ClusterView() as report:
        return extract_on_cluster(data_set, out, options, run, cluster, split=splits, report=report)
