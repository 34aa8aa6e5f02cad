"""The commands `bas cache info`, `import`, `export`, `verify` and `pca`. Imports nothing heavy before it is needed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..cache.convert.importing import ImportOptions
from ..events import Split
from .options import AsJson, OnlySplit, Store, known_splits
from .settings_options import with_options
from .show import Cell, ProgressView, finish, show, table

if TYPE_CHECKING:
    from rich.console import Group

    from ..cache.convert.importing import SourceMatch
    from ..cache.match import StoreInfo
    from ..cache.share.pull import Selection
    from ..cache.verify import StoreFinding


Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="A folder, s3://BUCKET/PATH, hf://datasets/USER/NAME, https://..., gs://, az://."
    ),
]
Match = Annotated[list[str] | None, typer.Option(help="Only this match; may be repeated.")]
View = Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")]
Replace = Annotated[bool, typer.Option("--replace", help="Matches that are there with other content are replaced.")]
Jobs = Annotated[int, typer.Option(help="Files under way at a time.")]


@with_options()
def cache_info(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Folder, or URL of a shared store.")],
    as_json: AsJson = False,
) -> None:
    """Show matches, frames, events and settings of a store; of a shared store no rows travel for it."""
    from ..cache.share.source import source_info

    about = source_info(store)
    show(info_view(about), about.to_json(), as_json=as_json)
    if about.problems:
        raise typer.Exit(2)


@with_options(names={"kind": "--from"})
def cache_import(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder of features or scores, or one HDF5 file.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    options: ImportOptions,
    as_json: AsJson = False,
) -> None:
    """Import features or scores of other programs (npy, npz, HDF5) into a store. Resumes; what is stored stays."""
    from ..cache.convert.formats import import_source

    with ProgressView("importing", unit="rows") as progress:
        summary = import_source(root, out, options, _find_folders, progress=progress)
    finish(summary, *summary.record["notes"], as_json=as_json)


def _find_folders(
    root: Path, holding: Collection[str], split_file: Path | None, label_names: Collection[str]
) -> "tuple[list[SourceMatch], tuple[str, ...]]":
    """Match folders of a source; labels, classes and splits are found as in any data set."""
    from ..cache.convert.importing import SourceMatch
    from ..data.sources import find_folders

    data_set, folders = find_folders(root, holding, splits_file=split_file, label_names=label_names)
    data_set.raise_errors()
    matches = [SourceMatch(each.id, folders[each.id], each.split, data_set.events(each)) for each in data_set.matches]
    return matches, data_set.classes


@with_options()
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

    findings = verify(store, matches=match)
    if videos and not any(finding.severity == "error" for finding in findings):
        from ..data.sources import find_sources
        from ..extract.rows import extract_again

        findings += extract_again(store, find_sources(videos), weights=weights, num_places=sample, matches=match)
    show(findings_view(store, findings), [finding.to_json() for finding in findings], as_json=as_json)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)


@with_options()
def cache_pca(
    store: Store,
    out: Annotated[Path, typer.Option(help="The reduced store; made where it does not exist, added to where it does.")],
    dim: Annotated[
        str | None, typer.Option(help="Channels to keep by PCA, or a share of the variance, such as 0.95.")
    ] = None,
    quantize: Annotated[
        Literal["uint8"] | None, typer.Option(help="Keep 256 levels per channel, with or without --dim.")
    ] = None,
    fit_split: Annotated[
        Split | None, typer.Option(help="Fit on the matches of this split and no others; default: train.")
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
    from ..cache.reduce import parse_fit, reduce_store
    from ..cache.reduction import describe_fit

    with ProgressView("reducing", unit="rows") as progress:
        summary = reduce_store(
            store,
            out,
            asked=parse_fit(dim=dim, quantize=quantize, split=fit_split),
            components=components,
            views=view or (),
            progress=progress,
        )
    finish(summary, *describe_fit(summary.record["reduction"]), as_json=as_json)


@with_options()
def cache_split(
    store: Store,
    out: Annotated[
        Path, typer.Option(help="The store of parts; made where it does not exist, added to where it does.")
    ],
    by_time: Annotated[str, typer.Option(help="Shares of train, valid and test, in this order.")] = "0.7/0.15/0.15",
    gap: Annotated[float, typer.Option(metavar="SECONDS", help="Left out between two parts.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Cut each labelled match by time into parts that train, validate and test: for those with one labelled video."""
    from ..cache.split import TimeSplit, split_store

    with ProgressView("splitting", unit="rows") as progress:
        summary = split_store(store, out, TimeSplit.parse(by_time, gap_seconds=gap), progress=progress)
    finish(summary, as_json=as_json)


@with_options()
def cache_export(
    store: Store,
    out: Annotated[Path, typer.Option(help="A new folder, or one that this command began.")],
    container: Annotated[
        Literal["npy", "h5"], typer.Option("--format", help="Files per match: one per array, or one features.h5.")
    ] = "npy",
    match: Match = None,
    split: OnlySplit = None,
    view: View = None,
    as_json: AsJson = False,
) -> None:
    """Write a store as NumPy or HDF5 files for other programs, with time stamps and labels. Resumes."""
    from ..cache.convert.exporting import export_store
    from ..cache.store import FeatureStore

    with ProgressView("exporting", unit="rows") as progress:
        summary = export_store(
            FeatureStore.open(store),
            out,
            container=container,
            matches=match or (),
            splits=known_splits(split),
            views=view or (),
            progress=progress,
        )
    finish(summary, as_json=as_json)


@with_options()
def cache_push(
    store: Store,
    url: Url,
    match: Match = None,
    split: OnlySplit = None,
    view: View = None,
    replace: Replace = False,
    licence: Annotated[str, typer.Option(help="Of videos and labels; kept in the store. The hub asks for it.")] = "",
    origin: Annotated[str, typer.Option(help="Where they came from; likewise.")] = "",
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a store to a place that a team shares. Only what is missing there travels; resumes.

    Several people may push different matches at once. Readers see a match whole or not at all.
    """
    from ..cache.match import Terms
    from ..cache.share.push import push

    chosen, terms = _selection(match, split, view), Terms(licence, origin)
    with ProgressView("pushing", unit="bytes") as progress:
        summary = push(store, url, chosen, replace=replace, terms=terms, jobs=jobs, progress=progress)
    finish(summary, as_json=as_json)


@with_options()
def cache_pull(
    url: Url,
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="Made where it does not exist, added to where it does.")
    ],
    match: Match = None,
    split: OnlySplit = None,
    view: View = None,
    replace: Replace = False,
    jobs: Jobs = 8,
    as_json: AsJson = False,
) -> None:
    """Bring matches of a shared store here. Only what is missing travels, and all of it is verified; resumes."""
    from ..cache.share.pull import pull

    with ProgressView("pulling", unit="bytes") as progress:
        summary = pull(url, store, _selection(match, split, view), replace=replace, jobs=jobs, progress=progress)
    finish(summary, as_json=as_json)


@with_options()
def cache_merge(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores of the same settings.")],
    out: Annotated[Path, typer.Option(help="The store; made where it does not exist, added to where it does.")],
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Bring all matches of several stores into one; one that two hold with other content is named and left alone."""
    from ..cache.share.pull import merge

    with ProgressView("merging", unit="bytes") as progress:
        summary = merge(stores, out, replace=replace, progress=progress)
    finish(summary, as_json=as_json)


def _selection(match: Sequence[str] | None, split: Sequence[str] | None, view: Sequence[str] | None) -> "Selection":
    """What --match, --split and --view choose of a store. Raises InputError for a split that there is not."""
    from ..cache.share.pull import Selection

    return Selection(matches=tuple(match or ()), splits=known_splits(split), views=tuple(view or ()))


def info_view(about: "StoreInfo") -> "Group":
    """One line per match and their sums, the settings, then what cannot be read."""
    from rich.console import Group
    from rich.text import Text

    from ..cache.match import WeightsOrigin
    from ..cache.reduction import describe_fit
    from ..cache.settings import IMPORTED

    lines = about.matches
    rows: list[list[Cell]] = [
        [
            line.match,
            line.split,
            line.rows,
            "-" if line.minutes is None else line.minutes,
            "-" if line.events is None else line.events,
            " ".join(line.views),
            line.megabytes,
            "-" if line.invalid_share is None else f"{line.invalid_share:.2%}",
        ]
        for line in lines
    ]
    num_rows, minutes = sum(line.rows for line in lines), sum(line.minutes or 0.0 for line in lines)
    events, megabytes = sum(line.events or 0 for line in lines), sum(line.megabytes for line in lines)
    total = f"{len(lines)} match{'es' if len(lines) != 1 else ''}"
    rows.append([total, "", num_rows, minutes, events, "", megabytes, ""])
    matches = table(("match", "split", "frames", "minutes", "events", "views", "MB", "invalid"), rows)
    matches.rows[-1].style = "bold"

    settings = {name: value for name, value in about.settings.items() if value is not None}
    if str(settings["backbone"]).startswith(IMPORTED):  # imported rows have no video size, window or backbone depth
        shown = ("backbone", "weights", "dim", "fps", "dtype", "reduction")
        settings = {name: settings[name] for name in shown if name in settings}
    pairs = {name: " ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in settings.items()}
    if about.weights_origin is not None:
        origin = WeightsOrigin.from_json(about.weights_origin, where="weights_origin")
        pairs["weights from"] = origin.describe()
    pairs |= {name.replace("_", " "): text for name, text in vars(about.terms).items() if text}
    if about.reduction is not None:
        pairs["reduced"] = "\n".join(describe_fit(about.reduction))
    pairs |= {"key": about.settings_key, "classes": ", ".join(about.classes)}
    pairs["software"] = ", ".join(f"{name} {version}" for name, version in about.software.items())
    view = table(("", ""), pairs.items())
    view.show_header, view.columns[0].style = False, "bold"
    problems = [Text.assemble(("error", "bold red"), f" {name}: {why}") for name, why in about.problems.items()]
    return Group(matches, "", view, *problems)


def findings_view(store: Path, findings: "Sequence[StoreFinding]") -> "Group":
    """One paragraph per finding, worst first; one line where there is none."""
    from rich.console import Group
    from rich.text import Text

    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}  # worst first
    lines = []
    for finding in sorted(findings, key=lambda finding: list(styles).index(finding.severity)):
        place = " ".join(part for part in (finding.match, finding.view) if part)
        severity = (finding.severity, styles[finding.severity])
        lines.append(Text.assemble(severity, f" {place}: " if place else " ", finding.message))
    errors = sum(finding.severity == "error" for finding in findings)
    lines.append(Text(f"{store}: {errors} error{'s' if errors != 1 else ''}" if errors else f"{store}: all is well"))
    return Group(*lines)
