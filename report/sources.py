"""What `bas report` looks at: finished runs, folders of predictions, the rows of an ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..ablate.table import TABLE, AblationTable
from ..cache.layout import METADATA
from ..errors import InputError, reading_record
from ..eval.files import PREDICTIONS_NAME
from ..eval.prediction_folder import RECORD
from ..events import Split, TimeGrid
from ..files import read_json
from ..heads.training.checkpoint import RUN, RunRecord

DEFAULT_SPLIT: Split = "test"
DEFAULT_FPS = Fraction(25)
_PREDICTIONS = "predictions"
_CURE = "predict again into another --out"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What is asked for beside the runs."""

    store: Path | None = None
    """Features and labels; None: where the runs say that their store is."""
    labels: Path | None = None
    """A data set's root; None: the labels of the store."""
    videos: tuple[Path, ...] = ()
    """Data set roots or files; empty: the data sets that are known."""
    split: Split | None = None
    """Split to evaluate on; None: `test` for runs, an ablation's own, and for predictions the games that they hold."""
    title: str = ""
    """Of the page; empty: the runs' names."""
    bundle: bool = False
    """Whether short clips are put beside the page, instead of links to the videos: to hand the folder on."""


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """One set of predictions to look at, or a run that makes them."""

    name: str
    predictions: Path
    """A folder; for a run it may have to be made."""
    run: Path | None = None
    """A finished run; None: the predictions are there."""
    store: Path | None = None
    """Its features and labels, where that is known; of a finetuned run the data set."""
    split: str | None = None
    """That it is evaluated on; None: the games that the predictions hold."""
    classes: tuple[str, ...] = ()
    """That it can find; empty where it is not known."""
    fps: Fraction = DEFAULT_FPS
    about: Mapping[str, str] = field(default_factory=dict)
    videos: tuple[Path, ...] = ()
    """Data sets that it was made from."""
    ablation: AblationTable | None = None
    """That it is a row of."""


def find_sources(paths: Sequence[Path], options: ReportOptions) -> list[ReportSource]:
    """What the folders hold, by different names.

    Raises:
        InputError: a folder that holds nothing to report on, is damaged or unfinished, or sources that are
            evaluated on different splits.
    """
    sources = _named_apart([source for path in paths for source in _sources(path, options)])
    splits = sorted({source.split for source in sources if source.split is not None})
    if len(splits) > 1:
        raise InputError(
            "these are evaluated on different splits", got=", ".join(splits), wanted="one", cure="name it with --split"
        )
    return sources


def _sources(path: Path, options: ReportOptions) -> list[ReportSource]:
    if (path / TABLE).is_file():
        return _of_ablation(path, AblationTable.read(path), options)
    if (path / RUN).is_file():
        return [_of_run(path, options)]
    if (path / RECORD).is_file() or (path.is_dir() and any(path.rglob(PREDICTIONS_NAME))):
        return [_of_predictions(path, options)]
    raise InputError(
        f"{path}: nothing to report on",
        got="no such folder" if not path.exists() else "a folder without run, predictions or ablation",
        wanted="a folder of bas train-head, bas predict or bas ablate",
    )


def _of_run(path: Path, options: ReportOptions, *, split: str = DEFAULT_SPLIT) -> ReportSource:
    record = RunRecord.read(path)
    if not record.finished:
        raise InputError(
            f"{path}: the run is not finished", cure=f"give the same `bas {record.command}` again: it goes on"
        )
    chosen = options.split or split
    store = options.store or _hinted_store(path, record) or (options.labels if record.is_finetuned else None)
    return ReportSource(
        name=path.resolve().name,
        predictions=_within(path, f"{_PREDICTIONS}/{chosen}"),
        run=path,
        store=store,
        videos=(store,) if record.is_finetuned and store is not None else (),
        split=chosen,
        classes=tuple(dict.fromkeys(label for label, _ in record.labels)),
        fps=record.fps,
        about={
            "head": record.settings.head,
            "parameters": f"{record.num_parameters:,}",
            "features": f"{record.features.backbone}, {record.features.dim} channels",
            "epoch kept": f"{record.best_epoch} of {len(record.history)}",
            "seed": str(record.settings.seed),
            "training": f"{sum(line.seconds for line in record.history):,.0f} s",
        },
    )


def _within(folder: Path, name: str, *, or_in: Path | None = None) -> Path:
    """A part of a folder (or of `or_in`), which may come from elsewhere: predictions are written there.

    Raises:
        InputError: it lies elsewhere.
    """
    path = folder / name
    if not any(path.resolve().is_relative_to(each.resolve()) for each in (folder, or_in or folder)):
        raise InputError(
            f"{path}: leads out of {folder}", got=str(path.resolve()), cure="do not trust where the folder came from"
        )
    return path


def _hinted_store(path: Path, record: RunRecord) -> Path | None:
    """Where the run says that its store is, if there is anything."""
    store = path / record.store_hint
    return store if record.store_hint and store.is_dir() else None


def _of_predictions(path: Path, options: ReportOptions) -> ReportSource:
    source = ReportSource(name=path.resolve().name, predictions=path, store=options.store, split=options.split)
    record = read_record(path)
    if not record:
        return replace(source, about={"made by": f"unknown: no {RECORD}"})
    with reading_record(f"{path / RECORD}: damaged", cure=_CURE):
        runs = [Path(run["folder"]) for run in record["runs"]]
        classes, fps = tuple(map(str, record["made_with"]["classes"])), TimeGrid.parse(record["fps"]).fps
    stores = (_hinted_store(run, RunRecord.read(run)) for run in runs if (run / RUN).is_file())
    store = source.store or next((store for store in stores if store is not None), None)
    return replace(source, classes=classes, fps=fps, store=store, about=about_predictions(record))


def _of_ablation(path: Path, table: AblationTable, options: ReportOptions) -> list[ReportSource]:
    """The first seed of every recipe that has one."""
    there = [path / source for source in table.sources if (path / source).exists()]
    videos = tuple(source for source in there if not (source / METADATA).exists())  # a feature store has none
    found = []
    for row in table.rows:
        if not row.runs:
            continue
        first = row.runs[0]
        source = _of_run(
            path / first.run, replace(options, store=options.store or path / first.store), split=table.split
        )
        predictions = source.predictions
        if source.split == table.split:
            predictions = _within(path, first.predictions, or_in=path / first.run)
        found.append(replace(source, name=row.name, predictions=predictions, videos=videos, ablation=table))
    if not found:
        raise InputError(f"{path}: no finished run", cure="let bas ablate finish one recipe first")
    return found


def _named_apart(sources: Sequence[ReportSource]) -> list[ReportSource]:
    """With a number behind names that are taken."""
    taken: dict[str, int] = {}
    named = []
    for source in sources:
        taken[source.name] = taken.get(source.name, 0) + 1
        again = taken[source.name] > 1
        named.append(replace(source, name=f"{source.name} ({taken[source.name]})") if again else source)
    return named


def read_record(path: Path) -> dict[str, Any]:
    """What `prediction.json` in a folder says, `games` included; empty where there is none.

    Raises:
        InputError: damaged.
    """
    if not (path / RECORD).is_file():
        return {}
    record = read_json(path / RECORD)
    with reading_record(f"{path / RECORD}: damaged", cure=_CURE):
        if not all(isinstance(about, Mapping | None) for about in record["games"].values()):
            raise TypeError("games")
        return {**record, "made_with": dict(record["made_with"])}


def about_predictions(record: Mapping[str, Any]) -> dict[str, str]:
    """What `prediction.json` says that is worth showing."""
    made, about = record["made_with"], {}
    if isinstance(peaks := made.get("peaks"), Mapping):
        window, sigma = peaks.get("window_frames"), peaks.get("sigma_frames")
        about["peaks"] = f"{peaks.get('kind')}, window {window} frames, smoothed by {sigma}"
    if isinstance(calibration := made.get("calibration"), Mapping) and calibration.get("kind") != "none":
        about["calibration"] = str(calibration.get("kind"))
    if made.get("threshold") is not None:
        about["threshold"] = str(made["threshold"])
    if record.get("confidences"):
        about["confidences"] = str(record["confidences"])
    return about
