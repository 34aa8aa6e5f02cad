"""The commands `bas cache info`, `import`, `export`, `verify` and `pca`. Imports nothing heavy before it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, Store, progress_bar, show

if TYPE_CHECKING:
    from ..cache.share.transfer import Outcome


def cache_info(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Folder, or URL of a shared store.")],
    as_json: AsJson = False,
) -> None:
    """Matches, frames, events and settings of a store; of a shared store no rows travel for it."""
    from ..cache.info import info
    from ..cache.share.info import shared_info
    from ..cache.share.place import folder_of, is_folder
    from ..cache.share.places import open_place
    from ..cache.store import FeatureStore
    from .cache_info_view import info_view

    about = info(FeatureStore.open(folder_of(store))) if is_folder(store) else shared_info(open_place(store))
    show(info_view(about), about.to_json(), as_json=as_json)


def cache_import(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder of features or scores, or one HDF5 file.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    kind: Annotated[
        str | None, typer.Option("--from", help="soccernet, flat, scores or bas; default: by what is in ROOT.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="NAME of 1_NAME.npy and 2_NAME.npy, where folders hold several.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What made the rows; one per store. Default: the store's, NAME, else unknown.")
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(help="Rows per second; flat: frames per second of the videos. Default: by NAME, the store's, 25."),
    ] = None,
    feature_stride: Annotated[int | None, typer.Option(help="flat: frames from row to row; default: 1.")] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="flat: frames that a row has seen; it stands at their centre. Default: 0.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Name of the label files (default: Labels-ball.json, else -v2); flat: annotation file."),
    ] = None,
    instant: Annotated[
        str | None, typer.Option(help="flat: start, centre or end of a segment is its event; default: centre.")
    ] = None,
    offset: Annotated[
        str | None, typer.Option(help="Seconds at which every second half begins; default: --offsets, else derived.")
    ] = None,
    offsets: Annotated[
        Path | None,
        typer.Option(help="JSON that names half1_offset_frames (or _ms) per game; default: the one in ROOT."),
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="A splits.json; default: ROOT's, else SoccerNet's own.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the table in npz and HDF5 files.")] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The files hold (channels, rows).")] = False,
    as_json: AsJson = False,
) -> None:
    """Features or scores of other programs (npy, npz, HDF5), or an export, into a store. Resumes.

    soccernet: 1_NAME.npy and 2_NAME.npy per game. flat: one file per video and an annotation JSON (OpenTAD,
    ActionFormer). scores: 1_scores.npz and 2_scores.npz. bas: what `bas cache export` made. What is stored stays.
    """
    from ..cache.convert.request import ImportRequest, one_instant
    from ..extract.imports import import_features
    from .cache_import_view import summary_json, summary_view

    request = ImportRequest(
        root=root,
        store=out,
        model=model,
        fps=fps,
        splits_file=split_file,
        labels=labels,
        features=features,
        offsets_file=offsets,
        offset_seconds=offset,
        feature_stride=feature_stride,
        num_frames=num_frames,
        instant=one_instant(instant),
        dataset=dataset,
        transpose=transpose or None,
    )
    with progress_bar("importing") as on_progress:
        summary = import_features(request, kind=kind, on_progress=on_progress)
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
    from ..cache.verify import verify
    from .cache_info_view import findings_view

    findings = verify(store, matches=match)
    if videos and not any(finding.severity == "error" for finding in findings):
        from ..data.sources import find_sources
        from ..extract.rows import extract_again

        findings += extract_again(store, find_sources(videos), weights=weights, num_places=sample, matches=match)
    show(findings_view(store, findings), [finding.to_json() for finding in findings], as_json=as_json)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)


def cache_pca(
    store: Store,
    out: Annotated[Path, typer.Option(help="The reduced store; made where it does not exist, added to where it does.")],
    dim: Annotated[
        str | None, typer.Option(help="Channels to keep by PCA, or a share of the variance, such as 0.95.")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="uint8: 256 levels per channel, with or without --dim.")] = None,
    fit_split: Annotated[
        str | None, typer.Option(help="Fit on the matches of this split and no others; default: train.")
    ] = None,
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated. Default: all.")] = None,
    components: Annotated[
        Path | None, typer.Option(help="Take the components of this reduced store; nothing is fitted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Reduce the rows of a store by PCA, to 8 bits, or both, into a new store. Resumes.

    Components and levels are fitted on valid rows of training matches only, and kept in the new store. Where it exists,
    they are used again, and what is missing is added.
    """
    from ..cache.reduce.run import ReduceOptions, parse_fit, reduce_store
    from .cache_reduce_view import summary_view

    options = ReduceOptions(
        fit=parse_fit(dim=dim, quantize=quantize, split=fit_split), components=components, views=tuple(view or ())
    )
    with progress_bar("reducing") as on_progress:
        summary = reduce_store(store, out, options, on_progress=on_progress)
    show(summary_view(summary), summary.to_json(), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)


def cache_export(
    store: Store,
    out: Annotated[Path, typer.Option(help="A new folder, or one that this command began.")],
    container: Annotated[
        str, typer.Option("--format", help="npy (files per match) or h5 (one features.h5 per match).")
    ] = "npy",
    match: Annotated[list[str] | None, typer.Option(help="Only this match; may be repeated.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """A store as NumPy or HDF5 files, with time stamps, labels and settings. Resumes.

    `bas cache import` makes the same store of it again, to the byte.
    """
    from ..cache.convert.exporting import ExportOptions, export_store
    from ..cache.store import FeatureStore
    from .cache_export_view import export_json, export_view

    options = ExportOptions(
        container=container, matches=tuple(match or ()), splits=tuple(split or ()), views=tuple(view or ())
    )
    with progress_bar("exporting") as on_progress:
        summary = export_store(FeatureStore.open(store), out, options, on_progress=on_progress)
    show(export_view(summary), export_json(summary), as_json=as_json)
    if not summary.complete:
        raise typer.Exit(2)


Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="A folder, s3://BUCKET/PATH, hf://datasets/USER/NAME, https://..., gs://, az://."
    ),
]
Match = Annotated[list[str] | None, typer.Option(help="Only this match; may be repeated.")]
Split = Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")]
View = Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")]
Replace = Annotated[bool, typer.Option("--replace", help="Matches that are there with other content are replaced.")]
Jobs = Annotated[int, typer.Option(help="Files under way at a time.")]


def cache_push(
    store: Store,
    url: Url,
    match: Match = None,
    split: Split = None,
    view: View = None,
    replace: Replace = False,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a store to a place that a team shares. Only what is missing there travels; resumes.

    Several people may push different matches at once. Readers see a match whole or not at all.
    """
    from ..cache.share.push import push
    from ..cache.share.transfer import Selection, Transfer
    from .cache_view import TransferView

    selection = Selection(matches=tuple(match or ()), splits=tuple(split or ()), views=tuple(view or ()))
    with TransferView("pushing") as report:
        outcome = push(store, url, selection, Transfer(replace=replace, jobs=jobs), report)
    _end(outcome, as_json=as_json)


def cache_pull(
    url: Url,
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="Made where it does not exist, added to where it does.")
    ],
    match: Match = None,
    split: Split = None,
    view: View = None,
    replace: Replace = False,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a shared store here. Only what is missing travels, and all of it is verified; resumes."""
    from ..cache.share.pull import pull
    from ..cache.share.transfer import Selection, Transfer
    from .cache_view import TransferView

    selection = Selection(matches=tuple(match or ()), splits=tuple(split or ()), views=tuple(view or ()))
    with TransferView("pulling") as report:
        outcome = pull(url, store, selection, Transfer(replace=replace, jobs=jobs), report)
    _end(outcome, as_json=as_json)


def cache_merge(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores of the same settings.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """All matches of several stores in one. A match that two hold with other content is named, and left alone."""
    from ..cache.share.pull import merge
    from ..cache.share.transfer import Transfer
    from .cache_view import TransferView

    with TransferView("merging") as report:
        outcome = merge(stores, out, Transfer(replace=replace), report)
    _end(outcome, as_json=as_json)


def _end(outcome: "Outcome", *, as_json: bool) -> None:
    from .cache_view import outcome_view

    show(outcome_view(outcome), outcome.to_json(), as_json=as_json)
    if not outcome.complete:
        raise typer.Exit(2)
