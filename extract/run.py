"""`bas extract`: videos into a feature store. The match is the unit of work, and a lock gives it one owner."""

import functools
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..cache.layout import METADATA
from ..cache.match import MatchMeta, Terms
from ..cache.settings import FeatureSettings
from ..cache.store import FeatureStore
from ..data.sources import DataSet, Match
from ..errors import InputError
from ..events import Split
from ..files import MatchBusy, file_sha256
from ..workers import SILENT, Failure, MatchResult, Progress, Summary, each_match, failed, on_ray, ray_place
from .backbones.nets import require_rows
from .backbones.registry import backbone_spec, weights_licence
from .backbones.weights import load_weights, weights_origin
from .extractor import Extractor, choose_weights, describe_settings, follow_run, resolve_settings
from .options import ExtractOptions, ExtractRunOptions
from .stream import Waits
from .video.demux import file_stamp, reading, require_unchanged
from .video.reader import Video
from .video.timetable import require_few_bad

_BUSY_SECONDS = 60.0
"""How long a task on a cluster waits for a lock: a network file system may hold that of a dead process for a while."""
_SAME_PATHS = "keep the store, the videos and the weights on a file system that every node mounts at the same path"


@dataclass
class Extraction:
    """What all matches of one run share."""

    data_set: DataSet
    store: FeatureStore
    extractor: Extractor
    run: ExtractRunOptions
    progress: Progress = SILENT
    engine_checked: bool = False


def extract(
    data_set: DataSet,
    store_path: Path,
    options: ExtractOptions,
    run: ExtractRunOptions,
    *,
    split: tuple[Split, ...] = (),
    progress: Progress = SILENT,
) -> Summary:
    """Extract features of every match of a data set into a store; matches that are there are left alone.

    The store is made where it does not exist. Options that are left out follow the store, the weights, the default;
    without a `split` all matches are meant.

    Raises:
        InputError: nothing can be extracted with these settings. A match that fails is in the summary instead.
    """
    matches = chosen_matches(data_set, split, run)
    if options == ExtractOptions() and (stored := _whole_store(store_path, matches, run)) is not None:
        return _bring_labels(stored, data_set, matches, run, progress)
    weights, extractor = settled(store_path, options, run)
    progress.note(describe_settings(extractor.settings))
    if run.ray is not None:
        return _extract_on_ray(extractor, data_set, matches, store_path.absolute(), run, weights, progress)
    engine = extractor.engine()
    progress.note(f"engine {engine.name}" + (f" ({engine.note})" if engine.note else ""))
    return extract_matches(extractor, data_set, matches, store_path, run, progress=progress)


def extract_matches(
    extractor: Extractor,
    data_set: DataSet,
    matches: Sequence[Match],
    store_path: Path,
    run: ExtractRunOptions,
    *,
    progress: Progress = SILENT,
) -> Summary:
    """Extract features of some matches of a data set with an extractor of settled settings; see `extract`.

    Raises:
        InputError: the store is of other settings or classes. A match that fails is in the summary instead.
    """
    started = time.perf_counter()
    shared = Extraction(data_set, open_for(extractor, data_set, store_path, run), extractor, run, progress)
    progress.started(len(matches), 0)
    results = each_match(matches, lambda match: extract_match(shared, match), progress)
    return _summary(store_path, extractor.settings, extractor.engine().name, results, started)


def extract_match(shared: Extraction, match: Match) -> MatchResult:
    """One match: open, plan, stream rows from where the store left off, commit."""
    store, extractor, run = shared.store, shared.extractor, shared.run
    views = tuple(view for view in run.views if view not in store.views(match.id))
    if not views:
        return _already_there(store, match, shared.data_set)
    path = match.require_video()
    stamp = file_stamp(path)
    video = extractor.open(path, threads=run.decode_threads)
    video.require_few_missing(path, max_bad_share=run.max_bad_share)
    _check_engine(shared, video)
    started, waits = time.perf_counter(), Waits()  # from here, so that the speed is that of this match alone
    num_rows, match_meta = video.num_steps, _match_meta(shared.data_set, match, video)
    require_unchanged(path, stamp)
    with store.writer(
        match.id,
        views=views,
        num_rows=num_rows,
        pts_ticks=video.grid.pts_ticks,
        match_meta=match_meta,
        provenance=extractor.engine(video.picture_size).describe() | ({} if video.is_by_pyav else {"decoder": "nvdec"}),
        resume=run.resume,
    ) as writer:
        first_row = writer.rows_done
        rows = extractor.rows(video, views=views, first_row=first_row, groups_per_call=run.batch, waits=waits)
        with closing(rows) as blocks:  # so that its threads end here, whatever happens
            for block in blocks:
                writer.append(block.rows, valid=block.valid)
                done = block.start + len(block.valid)
                shared.progress.advanced(match.id, done, num_rows, f"{waits.bottleneck} is the limit")
        num_invalid, restarted = writer.num_invalid, writer.restarted_because
        num_damaged = num_invalid - video.num_steps_before_start  # a late start is no damage
        require_few_bad(num_damaged, num_rows, max_bad_share=run.max_bad_share, what=str(path))
        require_unchanged(path, stamp)
        writer.commit()
    seconds = time.perf_counter() - started
    messages = [f"begun anew, unfinished work was not used: {restarted}"] if restarted else []
    messages += ["no time stamps: its frames are laid out by their rate"] if video.is_laid_out_by_rate else []
    others = ", ".join(video.info.other_streams)
    messages += [f"{video.info.stream} is read, not {others}"] if others else []
    return MatchResult(
        match_id=match.id,
        status="resumed" if first_row else "extracted",
        num_rows=num_rows,
        seconds=seconds,
        message="; ".join(messages),
        columns={"frames/s": (num_rows - first_row) / seconds, "limit": waits.bottleneck, "invalid": num_invalid},
    )


def chosen_matches(data_set: DataSet, split: tuple[Split, ...], run: ExtractRunOptions) -> list[Match]:
    """Matches of the splits asked for, of this worker's share.

    Shares are dealt out by the order of ids alone: what a worker can read or has stored must not shift them, or a match
    would have no owner.

    Raises:
        InputError: no match is of these splits.
    """
    matches = [match for match in data_set.matches if not split or match.split in split]
    if not matches:
        have = sorted({str(match.split) for match in data_set.matches})
        raise InputError("no match to extract", got=f"splits {', '.join(have)}", wanted=", ".join(split) or "a match")
    index, count = run.shard
    return sorted(matches, key=lambda match: match.id)[index::count]


def settled(store_path: Path, options: ExtractOptions, run: ExtractRunOptions) -> tuple[str, Extractor]:
    """What to extract with: the weights as `load_weights` takes them, and the extractor with its full settings.

    Raises:
        InputError: the options contradict the store, the weights or each other.
    """
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    options = follow_run(options)
    name, depth, weights, pool = choose_weights(options, stored.settings if stored else None)
    module, record = load_weights(name, depth, weights, pool)
    spec = backbone_spec(record.backbone, record.pool)
    settings = resolve_settings(options, record, spec, stored.settings if stored else None)
    if record.backbone.startswith("timm:"):
        require_rows(module, name=record.backbone, width=settings.width, height=settings.height, dim=settings.dim)
    return weights, Extractor(module, settings, run.engine, run.device, weights_origin(weights, record), run.decoder)


def open_for(extractor: Extractor, data_set: DataSet, store_path: Path, run: ExtractRunOptions) -> FeatureStore:
    """The store, made where it does not exist. InputError where it is of other settings or classes."""
    weights = weights_licence(extractor.settings.backbone, extractor.settings.weights)
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    return FeatureStore.create_or_open(
        store_path,
        extractor.settings,
        classes=data_set.classes or (stored.classes if stored else ()),
        software=software_versions(),
        origin=extractor.origin,
        terms=Terms(run.licence, run.origin, weights),
    )


def software_versions() -> dict[str, str]:
    """Versions of what decides a feature's bits, for the store's root attributes."""
    versions = {"bas": __version__}
    for name in ("torch", "timm", "transformers", "pytorchvideo", "openvino", "av", "numpy", "zarr"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _whole_store(path: Path, matches: Sequence[Match], run: ExtractRunOptions) -> FeatureStore | None:
    """The store, where it has the rows of every match: then no weights are needed."""
    if not (path / METADATA).exists():
        return None
    store = FeatureStore.open(path)
    if store.settings.reduction is not None:
        return None
    return store if all(set(run.views) <= set(store.views(match.id)) for match in matches) else None


def _bring_labels(
    store: FeatureStore, data_set: DataSet, matches: Sequence[Match], run: ExtractRunOptions, progress: Progress
) -> Summary:
    """Bring labels and splits of matches whose rows are all there up to date."""
    started, classes = time.perf_counter(), data_set.classes or store.classes
    terms = Terms(run.licence, run.origin)
    settings, software = store.settings, store.software
    store = FeatureStore.create_or_open(store.path, settings, classes=classes, software=software, terms=terms)
    progress.started(len(matches), 0)
    results = each_match(matches, lambda match: _already_there(store, match, data_set), progress)
    return _summary(store.path, store.settings, "none used", results, started)


def _already_there(store: FeatureStore, match: Match, data_set: DataSet) -> MatchResult:
    """The rows stay; labels and split follow the data set, where it has labels of the match."""
    events, stored, status = data_set.events(match), store.match(match.id), "already there"
    split = match.split if match.split is not None else stored.meta.split
    if events is not None and store.set_labels(match.id, [event.to_json() for event in events], split=split):
        status = "labels updated"
    return MatchResult(match_id=match.id, status=status, num_rows=stored.num_rows)


def _summary(
    store_path: Path, settings: FeatureSettings, engine: str, results: Sequence[MatchResult], started: float
) -> Summary:
    extracted = sum(float(each.columns.get("frames/s", 0)) * each.seconds for each in results)
    record = {"settings": settings.to_json(), "settings_key": settings.key(), "engine": engine}
    return Summary(
        results=tuple(results),
        target=str(store_path),
        seconds=time.perf_counter() - started,
        amount=extracted,
        record={**record, "rows_extracted": round(extracted)},
    )


def _check_engine(shared: Extraction, video: Video) -> None:
    """Hold the engine against plain PyTorch, once per run; with another decoder for each video."""
    if not shared.engine_checked or not video.is_by_pyav:
        fidelity = shared.extractor.check(video)
        if fidelity is not None:
            shared.progress.note(str(fidelity))
        shared.engine_checked = True


def _match_meta(data_set: DataSet, match: Match, video: Video) -> MatchMeta:
    """What the store keeps of a match beside its rows."""
    events, path, info = data_set.events(match), match.require_video(), video.info
    with reading(path):
        num_bytes, sha256 = path.stat().st_size, file_sha256(path)
    return MatchMeta(
        fps=video.grid.fps,
        time_base=video.grid.time_base,
        origin_ticks=video.table.origin_ticks,
        split=match.split,
        labels=None if events is None else tuple(event.to_json() for event in events),
        video={
            "name": path.name,
            "bytes": num_bytes,
            "sha256": sha256,
            "width": info.display_width,
            "height": info.display_height,
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "colour": info.colour,
        },
    )


@dataclass(frozen=True)
class _Setup:
    """What a task on a cluster extracts with; the same for all of them, so that a process prepares it once."""

    store_path: Path
    settings: FeatureSettings
    weights: str
    """As `load_weights` takes them."""
    run: ExtractRunOptions


@dataclass(frozen=True)
class _MatchTask:
    """A match to extract on a cluster."""

    setup: _Setup
    match: Match
    num_bytes: int
    """Size of the video as the driver sees it; 0 where it sees none."""
    data_set: DataSet
    """Of this match alone."""


def _extract_on_ray(
    extractor: Extractor,
    data_set: DataSet,
    matches: Sequence[Match],
    store_path: Path,
    run: ExtractRunOptions,
    weights: str,
    progress: Progress,
) -> Summary:
    """As `extract_matches`, with one Ray task per match, the largest video first."""
    started, store = time.perf_counter(), open_for(extractor, data_set, store_path, run)
    weights = str(Path(weights).absolute()) if Path(weights).exists() else weights  # tasks have a folder of their own
    setup = _Setup(store_path, extractor.settings, weights, replace(run, ray=None))
    results: dict[str, MatchResult] = {}
    engines = set[str]()

    def finished(result: MatchResult) -> None:
        results[result.match_id] = result
        progress.finished(result)

    def ended(task: _MatchTask, result: MatchResult | Failure) -> None:
        if isinstance(result, Failure):
            result = result.result(task.match.id)
        else:
            engines.add(str(result.columns.get("engine", "")))
            columns = {name: value for name, value in result.columns.items() if name != "engine"}
            result = replace(result, columns=columns)
        finished(result)

    progress.started(len(matches), 0)
    tasks = []
    for match in matches:
        if set(run.views) <= set(store.views(match.id)):
            finished(_already_there(store, match, data_set))
        else:
            tasks.append(_task(setup, data_set, match))
    on_ray(
        _extract_task,
        sorted(tasks, key=lambda task: -task.num_bytes),
        address=run.ray or "auto",
        device=run.device,
        progress=lambda task, value: progress.advanced(task.match.id, *value),
        ended=ended,
    )
    ordered = [results[match.id] for match in matches]
    return _summary(store_path, extractor.settings, ", ".join(sorted(engines)) or "none used", ordered, started)


def _task(setup: _Setup, data_set: DataSet, match: Match) -> _MatchTask:
    labels = {game: file for game, file in data_set.label_files.items() if game == match.game}
    match = replace(match, video=match.video and match.video.absolute())
    num_bytes = match.video.stat().st_size if match.video is not None and match.video.is_file() else 0
    alone = replace(data_set, matches=(match,), findings=(), label_files=labels)
    return _MatchTask(setup, match, num_bytes, alone)


def _extract_task(task: _MatchTask, tell: Callable[[Any], None]) -> MatchResult:
    """One match, on a worker."""
    shared = _prepared(task.setup)
    shared.data_set = task.data_set
    shared.progress = Progress(advanced=lambda _, *value: tell(value))
    path = task.match.require_video()
    with reading(path):
        num_bytes = path.stat().st_size
    if num_bytes != task.num_bytes:
        raise InputError(f"{path}: not as the driver sees it", got=num_bytes, wanted=task.num_bytes, cure=_SAME_PATHS)
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            result = extract_match(shared, task.match)
        except MatchBusy as error:
            if time.monotonic() > deadline:
                return failed(task.match.id, error)
            time.sleep(1.0)
        else:
            engine = shared.extractor.engine().name
            return replace(result, columns={**result.columns, "engine": engine, "on": socket.gethostname()})


@functools.lru_cache(maxsize=1)
def _prepared(setup: _Setup) -> Extraction:
    """What a worker keeps from match to match: it must see the driver's store and weights.

    Raises:
        InputError: it sees others.
    """
    try:
        store = FeatureStore.open(setup.store_path)
    except InputError as error:
        raise InputError(f"{setup.store_path}: not as the driver sees it", got=error.what, cure=_SAME_PATHS) from error
    settings = setup.settings
    module, record = load_weights(settings.backbone, settings.depth, setup.weights, settings.pool)
    if store.settings.key() != settings.key() or record.weights_sha256 != settings.weights_sha256:
        raise InputError(f"{setup.store_path}: other settings or weights than the driver sees", cure=_SAME_PATHS)
    device, cores = ray_place()
    run = replace(setup.run, device=device, decode_threads=setup.run.decode_threads or cores)
    extractor = Extractor(module, settings, run.engine, run.device, decoder=run.decoder)
    return Extraction(DataSet(Path(), (), (), (), {}), store, extractor, run)
