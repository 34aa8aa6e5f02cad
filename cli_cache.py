"""The commands `bas cache info`, `import` and `verify`. Imports nothing heavy before a command needs it."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_shared import AsJson, Store, progress_bar, show


def cache_info(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Folder, or URL of a shared store.")],
    as_json: AsJson = False,
) -> None:
    """Matches, frames, events and settings of a store; of a shared store no rows travel for it."""
    from .cache.info import info
    from .cache.info_view import info_view
    from .cache.share.info import shared_info
    from .cache.share.place import folder_of, is_folder, open_place
    from .cache.store import FeatureStore

    about = info(FeatureStore.open(folder_of(store))) if is_folder(store) else shared_info(open_place(store))
    show(info_view(about), about.to_json(), as_json=as_json)


def cache_import(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder of <match>/1_scores.npz and 2_scores.npz.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    offsets: Annotated[
        Path | None,
        typer.Option(help="JSON that names half1_offset_frames per game; default: the one in ROOT, else derived."),
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="A splits.json; default: ROOT's, else SoccerNet's own.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What made the scores; one per store. Default: the store's, else unknown.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Scores per second; default: the store's, else 25.")] = None,
    as_json: AsJson = False,
) -> None:
    """Per-frame scores of another model into a feature store. Resumes; what is stored is left alone.

    <match>/scores.npz is a match in one piece. Labels and splits are found as `bas data ls ROOT` finds them.
    """
    from .cache.importing_view import summary_json, summary_view
    from .extract.imports import import_scores

    with progress_bar("importing") as on_progress:
        summary = import_scores(
            root, out, model=model, fps=fps, offsets_file=offsets, splits_file=split_file, on_progress=on_progress
        )
    show(summary_view(summary), summary_json(summary), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)


def cache_verify(
    store: Store,
    match: Annotated[list[str] | None, typer.Option(help="Only this match; may be repeated.")] = None,
    videos: Annotated[list[Path] | None, typer.Option(help="Extract a sample of rows again from these videos.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="The weights file or finetuned run that the store was made with.")
    ] = None,
    sample: Annotated[int, typer.Option(help="Places per match that are extracted again.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Check hashes, shapes, values and, with --videos, the features themselves; exit code 2 on errors."""
    from .cache.info_view import findings_view
    from .cache.verify import verify

    findings = verify(store, matches=match)
    if videos and not any(finding.severity == "error" for finding in findings):
        from .extract.again import extract_again
        from .extract.datasets.sources import find_sources

        findings += extract_again(store, find_sources(videos), weights=weights, num_places=sample, matches=match)
    show(findings_view(store, findings), [finding.to_json() for finding in findings], as_json=as_json)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)
