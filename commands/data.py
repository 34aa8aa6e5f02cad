"""The command `bas data proxy`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson
from .show import show


def data_proxy(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder in the SoccerNet layout, or any folder of <match>/<video>.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one that this command began.")],
    size: Annotated[str, typer.Option(help="Width x height that a picture takes at most.")] = "398x224",
    gop: Annotated[int, typer.Option(help="Frames from one key frame to the next.")] = 12,
    crf: Annotated[int, typer.Option(help="x264's quality: 0 (lossless) to 51; 6 more halve the size.")] = 18,
    jobs: Annotated[int, typer.Option(help="Videos copied side by side; 0: one per core.")] = 0,
    max_bad_share: Annotated[
        float, typer.Option(help="Share of undecodable frames that is put up with, 0 to 1.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Copy a data set with small videos that are quick to read at random places, for training on clips. Resumes.

    Labels and times stay as they are; each copy is read again and compared with its source, frame for frame.
    """
    from ..data.proxy import ProxySettings, write_proxies
    from ..extract.options import parse_pair
    from .data_view import ProxyView, summary_json, summary_view

    width, height = parse_pair(size, option="--size", separator="x", example="398x224")
    settings = ProxySettings(width=width, height=height, gop=gop, crf=crf)
    with ProxyView() as report:
        summary = write_proxies(root, out, settings, jobs=jobs, max_bad_share=max_bad_share, report=report)
    show(summary_view(summary), summary_json(summary), as_json=as_json, piped_width=110)
    if not summary.complete:
        raise typer.Exit(2)
