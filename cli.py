"""The command line `bas`. Nothing here imports torch before a command needs it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from .commands import ablate as cli_ablate
from .commands import cache as cli_cache
from .commands import cache as cli_share
from .commands import data as cli_proxy
from .commands import finetune as cli_finetune
from .commands import report as cli_report
from .commands import train_head as cli_heads
from .commands.options import AsJson, Ray, progress_bar
from .commands.show import show
from .errors import InputError, printable

if TYPE_CHECKING:
    from .data.sources import DataSet
    from .events import Split
    from .extract.options import ExtractOptions, RunOptions
    from .extract.run import Summary

app = typer.Typer(name="bas", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data set before spending hours on it.")
cache_app = typer.Typer(no_args_is_help=True, help="Feature stores: look into them, check, share and convert them.")
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")


@app.callback()
def root() -> None:
    """Ball action spotting in football video: features once, heads in minutes."""


DataRoot = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder in the SoccerNet layout, or any folder of <match>/<video>.")
]


@data_app.command("check", epilog="Example: bas data check SN-BAS-2025")
def data_check(
    root: DataRoot,
    as_json: AsJson = False,
) -> None:
    """Open every video, count every event, say what is missing or wrong; exit code 2 on errors."""
    from .commands.data_view import report_view
    from .data.check import check_data_set

    with progress_bar("reading videos") as on_progress:
        report = check_data_set(root, on_progress=on_progress)
    show(report_view(report), report.to_json(), as_json=as_json)
    if report.errors:
        raise typer.Exit(2)


@data_app.command("ls", epilog="Example: bas data ls SN-BAS-2025 | cut -f1,2")
def data_ls(root: DataRoot) -> None:
    """List the matches without opening a video; tab-separated where the output is not a terminal."""
    from rich.console import Console

    from .commands.data_view import listing_lines, listing_view
    from .data.sources import find_data_set

    data_set = find_data_set(root)
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(listing_view(data_set))
    else:
        print("\n".join(listing_lines(data_set)))
    num_errors = sum(finding.severity == "error" for finding in data_set.findings)
    if num_errors:
        print(f"bas: {num_errors} error(s) in the data: bas data check '{root}' says which", file=sys.stderr)


@data_app.command("synthetic", epilog="Example: bas data synthetic matches --minutes 20 --matches 7")
def data_synthetic(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that this command began.")],
    minutes: Annotated[float, typer.Option(help="Length of all matches together.")] = 20.0,
    matches: Annotated[int, typer.Option(help="3 or more; about 4/7 train, 1/7 valid, 2/7 test.")] = 7,
    seed: Annotated[int, typer.Option(help="Another one gives other matches.")] = 0,
    variety: Annotated[float, typer.Option(help="How different the matches look, 0 to 1.")] = 1.0,
    jobs: Annotated[int, typer.Option(help="Matches drawn side by side; 0: one per core.")] = 0,
) -> None:
    """Draw football matches with labels, in SoccerNet's layout. Resumes.

    Test and demo data: figures measured on it say nothing about real football.
    """
    from .data.synthetic import Settings, write_data_set

    with progress_bar("drawing matches") as on_progress:
        planned = write_data_set(out, Settings(minutes, matches, seed, variety), jobs=jobs, on_progress=on_progress)
    for match in planned:
        print(f"{match.split}\t{match.seconds / 60:.1f} min\t{out / match.folder}")
    print(f"{len(planned)} synthetic matches in {out}; next: bas data check '{out}'")


@app.command(epilog="Example: bas extract SN-BAS-2025 --out x3d_s.zarr --views identity,hflip")
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
    from .commands.extract_view import ExtractionView, summary_json, summary_view
    from .data.sources import find_sources
    from .extract.options import ExtractOptions, RunOptions, parse_choice, parse_pair, parse_shard, parse_views
    from .extract.run import extract as run_extract

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
    from .cluster.pool import Cluster
    from .commands.extract_view import ClusterView
    from .extract.cluster_run import extract_on_cluster

    cluster = Cluster(address=address, device=run.device)
    with ClusterView() as report:
        return extract_on_cluster(data_set, out, options, run, cluster, split=splits, report=report)


@app.command(epilog="Example: bas weights x3d_s --fetch")
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="[BACKBONE...]", help="All by default.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Put their weights into the cache now.")] = False,
) -> None:
    """Backbones that are known by name: channels, stride, and where their weights come from."""
    from rich.console import Console

    from .commands.weights_view import weights_view
    from .extract.backbones.registry import BACKBONES, backbone_spec

    specs = {name: backbone_spec(name) for name in names or BACKBONES}
    if fetch:
        from .extract.backbones.weights import load_weights

        for name, spec in specs.items():
            _, record = load_weights(name, None, next(iter(spec.urls)))
            print(f"{name}: {record.source}, file SHA-256 {record.file_sha256 or 'kept by its own loader'}")
    else:
        Console(highlight=False).print(weights_view(specs, with_addresses=bool(names)))


@app.command(epilog="Example: bas demo --minutes 30 --out longer-demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that it makes; an unfinished one goes on.")] = Path(
        "bas-demo"
    ),
    minutes: Annotated[float, typer.Option(help="Of synthetic video, seven matches together.")] = 14.0,
    seed: Annotated[int, typer.Option(help="Another one gives other matches.")] = 0,
) -> None:
    """From video to a page to look at, on synthetic matches, offline: draw, extract, train two heads, judge, report."""
    from .commands.ablate_view import AblationView, table_view
    from .commands.demo import Reporters
    from .commands.demo import demo as run_demo
    from .commands.report_view import made_view, report_reporter

    with progress_bar("drawing matches") as drawing, AblationView() as ablating:
        made = run_demo(out, minutes=minutes, seed=seed, reporters=Reporters(drawing, ablating, report_reporter()))
    show(table_view(made.table), None, as_json=False)
    show(made_view(made.page), None, as_json=False)
    print(f"""
Synthetic matches and random weights: the figures say nothing about real football. Next:
  bas data check {made.matches}
  bas cache info {made.ablation}/stores/x3d_s.zarr
  bas predict MY-MATCH.mp4 --run {made.ablation}/runs/demo-0 --out predictions
  bas ablate {made.matches} --recipes fc,tcn,ed --seeds 1 --weights none --size 160x90 --inputs standard --out mine
  bas extract SN-BAS-2025 --out x3d_s.zarr""")
    if not made.table.complete:
        raise typer.Exit(2)


cache_app.command("info", epilog="Example: bas cache info x3d_s.zarr")(cli_cache.cache_info)
cache_app.command("import", epilog="Example: bas cache import other-model --out scores.zarr --model NAME")(
    cli_cache.cache_import
)
cache_app.command("push", epilog="Example: bas cache push x3d_s.zarr s3://team/x3d_s.zarr")(cli_share.cache_push)
cache_app.command("pull", epilog="Example: bas cache pull s3://team/x3d_s.zarr x3d_s.zarr --split train")(
    cli_share.cache_pull
)
cache_app.command("merge", epilog="Example: bas cache merge mine.zarr yours.zarr --out all.zarr")(cli_share.cache_merge)
cache_app.command("verify", epilog="Example: bas cache verify x3d_s.zarr --videos SN-BAS-2025")(cli_cache.cache_verify)
cache_app.command("pca", epilog="Example: bas cache pca x3d_s.zarr --out small.zarr --dim 64")(cli_cache.cache_pca)
cache_app.command("export", epilog="Example: bas cache export x3d_s.zarr --out features --format h5")(
    cli_cache.cache_export
)
data_app.command("proxy", epilog="Example: bas data proxy SN-BAS-2025 SN-BAS-2025-small")(cli_proxy.data_proxy)
app.command("train-head", epilog="Example: bas train-head x3d_s.zarr --head ed --out runs/ed")(cli_heads.train_head)
app.command("ablate", epilog="Example: bas ablate SN-BAS-2025 --recipes seed --seeds 3 --out ablation")(
    cli_ablate.ablate
)
app.command("finetune", epilog="Example: bas finetune SN-BAS-2025 --backbone x3d_s --head ed --out runs/ed-x3d_s")(
    cli_finetune.finetune
)
app.command("predict", epilog="Example: bas predict MY-MATCH.mp4 --run runs/ed --out predictions")(cli_heads.predict)
app.command("eval", epilog="Example: bas eval SN-BAS-2025 predictions --split test --metric at1")(cli_heads.evaluate)
app.command("report", epilog="Example: bas report runs/ed --videos SN-BAS-2025 --out report")(cli_report.report)


class _Stopped(BaseException):
    """SIGINT or SIGTERM came. No KeyboardInterrupt: typer ends on that one without a word."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise `_Stopped` on Ctrl-C and SIGTERM, so that everything is closed; a second one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Stopped(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in heard:  # a shell's background job is not to hear Ctrl-C
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point: errors in input end with exit code 2, Ctrl-C with 130, SIGTERM with 143, never a traceback."""
    try:
        with _stop_signals():
            try:
                app()
            finally:
                sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:  # `| head`: nobody reads any more, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        print(printable(f"bas: error: {error}"), file=sys.stderr)
        sys.exit(2)
    except _Stopped as stopped:
        print("bas: stopped; what was finished is stored, run the same command again to go on", file=sys.stderr)
        _end_now(stopped.exit_code)


def _end_now(exit_code: int) -> None:
    """End with other threads still waiting for a slow server; every write is whole or absent, so that they may go."""
    deadline = time.monotonic() + 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(exit_code)
    sys.exit(exit_code)
