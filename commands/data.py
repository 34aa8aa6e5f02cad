"""The commands `bas data check`, `ls`, `synthetic` and `proxy`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, progress_bar
from .settings_options import with_options
from .show import ProgressView, note, show, summary_view

DataRoot = Annotated[
    Path, typer.Argument(metavar="ROOT", help="Folder in the SoccerNet layout, or any folder of <match>/<video>.")
]


@with_options()
def data_check(
    root: DataRoot,
    as_json: AsJson = False,
) -> None:
    """Open every video, count every event, say what is missing or wrong; exit code 2 on errors."""
    from ..data.check import check_data_set
    from .data_view import report_view

    with progress_bar("reading videos") as on_progress:
        report = check_data_set(root, on_progress=on_progress)
    show(report_view(report), report.to_json(), as_json=as_json)
    if report.errors:
        raise typer.Exit(2)


@with_options()
def data_ls(root: DataRoot, as_json: AsJson = False) -> None:
    """List the matches without opening a video; tab-separated where the output is not a terminal."""
    from ..data.sources import find_data_set
    from .data_view import listing_json, listing_lines, listing_view

    data_set = find_data_set(root)
    if as_json or sys.stdout.isatty():
        show(listing_view(data_set), listing_json(data_set), as_json=as_json)
    else:
        print("\n".join(listing_lines(data_set)))
    num_errors = sum(finding.severity == "error" for finding in data_set.findings)
    note(f"{num_errors} error(s) in the data: bas data check '{root}' says which" if num_errors else "")


@with_options()
def data_synthetic(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that this command began.")],
    minutes: Annotated[float, typer.Option(help="Length of all matches together.")] = 20.0,
    matches: Annotated[int, typer.Option(help="3 or more; about 4/7 train, 1/7 valid, 2/7 test.")] = 7,
    seed: Annotated[int, typer.Option(help="Another one gives other matches.")] = 0,
    variety: Annotated[float, typer.Option(help="How different the matches look, 0 to 1.")] = 1.0,
    jobs: Annotated[int, typer.Option(help="Matches drawn side by side; 0: one per core.")] = 0,
) -> None:
    """Draw synthetic football matches with labels, in SoccerNet's layout. Resumes.

    Test and demo data: figures measured on it say nothing about real football.
    """
    from ..data.synthetic import SyntheticSettings, write_data_set

    with progress_bar("drawing matches") as on_progress:
        planned = write_data_set(
            out, SyntheticSettings(minutes, matches, seed, variety), jobs=jobs, on_progress=on_progress
        )
    for match in planned:
        print(f"{match.split}\t{match.seconds / 60:.1f} min\t{out / match.folder}")
    print(f"{len(planned)} synthetic matches in {out}; next: bas data check '{out}'")


@with_options()
def data_proxy(
    root: DataRoot,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that this command began.")],
    size: Annotated[str, typer.Option(help="Width x height that a picture takes at most.")] = "398x224",
    gop: Annotated[int, typer.Option(help="Frames from one key frame to the next at most.")] = 12,
    crf: Annotated[int, typer.Option(help="Quality of x264, 0 (lossless) to 51; 6 more halve the size.")] = 18,
    jobs: Annotated[int, typer.Option(help="Videos copied side by side; 0: one per core.")] = 0,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of undecodable frames with which a video is accepted, 0 to 1.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Copy a data set with small videos that are quick to read at random places, for training on clips. Resumes.

    Labels and times stay as they are; each copy is read again: all times, and a sample of frames, must be the source's.
    """
    from ..data.proxy import ProxySettings, write_proxies
    from ..extract.options import parse_pair

    width_height = parse_pair(size, option="--size", separator="x", example="398x224")
    settings = ProxySettings(size=width_height, gop=gop, crf=crf)
    with ProgressView("copying", unit="%") as progress:
        summary = write_proxies(root, out, settings, jobs=jobs, max_bad_share=max_bad_share, progress=progress)
    show(summary_view(summary), summary.to_json(), as_json=as_json, piped_width=120)
    if not summary.complete:
        raise typer.Exit(2)
