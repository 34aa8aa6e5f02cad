"""`bas extract`: videos into a feature store. The match is the unit of work; each has one owner."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from .. import __version__
from ..cache.layout import METADATA
from ..cache.match import MatchMeta
from ..cache.settings import FeatureSettings
from ..cache.store import FeatureStore
from ..data.sources import DataSet, Match
from ..errors import InputError
from ..events import Split
from ..files import MatchBusy, file_sha256
from .backbones.registry import backbone_spec
from .backbones.weights import load_weights, weights_origin
from .engines.choose import Fidelity
from .extractor import Extractor, choose_weights, follow_run, resolve_settings
from .options import ExtractOptions, RunOptions, share_out
from .stream import Waits
from .video.demux import file_stamp, reading, require_unchanged
from .video.reader import Video, probe_video
from .video.timetable import require_few_bad

Status = Literal["extracted", "resumed", "already there", "busy elsewhere", "failed"]


@dataclass(frozen=True)
class RowsDone:
    """One look at a match under way."""

    match_id: str
    rows_done: int
    num_rows: int
    first_row: int
    """Where this run began: the rows before it were already stored."""
    seconds: float
    """Since this run began with the match."""
    bottleneck: Literal["decode", "backbone"]


@dataclass(frozen=True)
class MatchResult:
    """How one match ended."""

    match_id: str
    status: Status
    num_rows: int = 0
    rows_extracted: int = 0
    """Rows that this run computed, per view."""
    seconds: float = 0.0
    bad_rows: int = 0
    """Rows whose own frame could not be decoded (`valid` = 0)."""
    bottleneck: str = ""
    message: str = ""
    """Why it failed or was left alone; or, of a match that is stored, why its unfinished rows were not used."""
    place: str = ""
    """Of several on a cluster: the one that ended it."""
    retries: int = 0
    """Workers of a cluster that were lost over it."""

    @property
    def is_stored(self) -> bool:
        """Whether the match is in the store now."""
        return self.status not in ("failed", "busy elsewhere")

    @property
    def rows_per_second(self) -> float:
        """Speed of this run, 0 where nothing was computed."""
        return self.rows_extracted / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Summary:
    """How an extraction ended."""

    store: Path
    settings: FeatureSettings
    engine: str
    results: tuple[MatchResult, ...]
    seconds: float | None = None
    """Of the whole run, where matches were worked on side by side."""

    @property
    def complete(self) -> bool:
        """True where every match asked for is in the store."""
        return all(result.is_stored for result in self.results)


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear; every field may be left out."""

    started: Callable[[FeatureSettings, str, int], None] = lambda *_: None
    """Called once: settings, the engine's description, number of matches."""
    fidelity: Callable[[Fidelity], None] = lambda _: None
    """Called once, where the engine is not plain fp32: how close it is."""
    progress: Callable[[RowsDone], None] = lambda _: None
    """Called after every block of rows."""
    finished: Callable[[MatchResult], None] = lambda _: None
    """Called after every match."""


@dataclass
class Extraction:
    """What all matches of one run share."""

    data_set: DataSet
    store: FeatureStore
    extractor: Extractor
    run: RunOptions
    report: Reporter
    engine_checked: bool = False


def extract(
    data_set: DataSet,
    store_path: Path,
    options: ExtractOptions,
    run: RunOptions,
    *,
    split: tuple[Split, ...] = (),
    report: Reporter | None = None,
) -> Summary:
    """Extract features of every match of a data set into a store; matches that are there are left alone.

    Args:
        data_set: matches with their videos, labels and splits.
        store_path: the store; made where it does not exist.
        options: settings asked for; what is left out follows the store, the weights, the default.
        run: how to run.
        split: only matches of these splits; empty: all.
        report: hears of progress.

    Raises:
        InputError: nothing can be extracted with these settings. A match that fails is in the summary instead.
    """
    matches = chosen_matches(data_set, split, run)
    _, extractor = settled(store_path, options, run)
    return extract_matches(extractor, data_set, matches, store_path, run, report=report)


def settled(store_path: Path, options: ExtractOptions, run: RunOptions) -> tuple[str, Extractor]:
    """What to extract with: the weights as `load_weights` takes them, and the extractor with its full settings.

    Raises:
        InputError: the options contradict the store, the weights or each other.
    """
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    options = follow_run(options)
    name, depth, weights = choose_weights(options, stored.settings if stored else None)
    module, record = load_weights(name, depth, weights)
    settings = resolve_settings(options, record, backbone_spec(record.backbone), stored.settings if stored else None)
    return weights, Extractor(module, settings, run.engine, run.device, weights_origin(weights, record))


def open_for(extractor: Extractor, data_set: DataSet, store_path: Path) -> FeatureStore:
    """The store, made where it does not exist. InputError where it is of other settings or classes."""
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    return FeatureStore.create_or_open(
        store_path,
        extractor.settings,
        classes=data_set.classes or (stored.classes if stored else ()),
        software=software_versions(),
        origin=extractor.origin,
    )


def extract_matches(
    extractor: Extractor,
    data_set: DataSet,
    matches: Sequence[Match],
    store_path: Path,
    run: RunOptions,
    *,
    report: Reporter | None = None,
) -> Summary:
    """Extract features of some matches of a data set with an extractor of settled settings; see `extract`.

    Raises:
        InputError: the store is of other settings or classes. A match that fails is in the summary instead.
    """
    report, settings = report or Reporter(), extractor.settings
    store = open_for(extractor, data_set, store_path)
    engine = extractor.engine().name
    report.started(settings, engine, len(matches))
    shared = Extraction(data_set, store, extractor, run, report)
    results = []
    for match in matches:
        result = extract_or_explain(shared, match)
        results.append(result)
        report.finished(result)
    return Summary(store_path, settings, engine, tuple(results))


def extract_or_explain(shared: Extraction, match: Match) -> MatchResult:
    """A match that cannot be extracted does not stop the others."""
    try:
        return extract_match(shared, match)
    except MatchBusy as error:
        return MatchResult(match.id, "busy elsewhere", message=str(error))
    except InputError as error:
        return MatchResult(match.id, "failed", message=str(error))


def extract_match(shared: Extraction, match: Match) -> MatchResult:
    """One match: open, plan, stream rows from where the store left off, commit."""
    store, extractor, run = shared.store, shared.extractor, shared.run
    views = tuple(view for view in run.views if view not in store.views(match.id))
    if not views:
        return MatchResult(match.id, "already there", num_rows=store.match(match.id).num_rows)
    path = match.require_video()
    stamp = file_stamp(path)
    video = extractor.open(path, threads=run.decode_threads)
    _check_engine(shared, video)
    num_rows, started, waits = video.num_steps, time.perf_counter(), Waits()
    match_meta = _match_meta(shared.data_set, match, video)
    require_unchanged(path, stamp)
    with store.writer(
        match.id,
        views=views,
        num_rows=num_rows,
        pts_ticks=video.grid.pts_ticks,
        match_meta=match_meta,
        provenance=extractor.engine(video.picture_size).describe(),
        resume=run.resume,
    ) as writer:
        first_row = writer.rows_done
        rows = extractor.rows(video, views=views, first_row=first_row, groups_per_call=run.batch, waits=waits)
        with closing(rows) as blocks:  # whatever happens: its threads end here
            for block in blocks:
                writer.append(block.rows, valid=block.valid)
                seconds, done = time.perf_counter() - started, block.start + len(block.valid)
                shared.report.progress(RowsDone(match.id, done, num_rows, first_row, seconds, waits.bottleneck))
        bad_rows, restarted = writer.num_invalid, writer.restarted_because
        num_damaged = bad_rows - video.num_steps_before_start  # a late start is no damage
        require_few_bad(num_damaged, num_rows, max_bad_share=run.max_bad_share, what=str(path))
        require_unchanged(path, stamp)
        writer.commit()
    return MatchResult(
        match.id,
        "resumed" if first_row else "extracted",
        num_rows=num_rows,
        rows_extracted=num_rows - first_row,
        seconds=time.perf_counter() - started,
        bad_rows=bad_rows,
        bottleneck=waits.bottleneck,
        message=f"begun anew, unfinished work was not used: {restarted}" if restarted else "",
    )


def chosen_matches(data_set: DataSet, split: tuple[Split, ...], run: RunOptions) -> list[Match]:
    """Matches with a video, of the splits asked for, of this worker's share.

    Raises:
        InputError: none is left.
    """
    matches = [match for match in data_set.matches if not split or match.split in split]
    if not matches:
        have = sorted({str(match.split) for match in data_set.matches})
        raise InputError("no match to extract", got=f"splits {', '.join(have)}", wanted=", ".join(split) or "a match")
    index, count = run.shard
    if count == 1:
        return matches
    return [matches[i] for i in share_out([header_frames(match) for match in matches], index=index, count=count)]


def header_frames(match: Match) -> int:
    """Frames by the header, 0 where the video cannot be read (the extraction says why)."""
    try:
        return probe_video(match.require_video()).num_frames
    except InputError:
        return 0


def _check_engine(shared: Extraction, video: Video) -> None:
    """Hold the engine against plain PyTorch, once per run."""
    if not shared.engine_checked:
        fidelity = shared.extractor.check(video)
        if fidelity is not None:
            shared.report.fidelity(fidelity)
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


def software_versions() -> dict[str, str]:
    """Versions of what decides a feature's bits, for the store's root attributes."""
    versions = {"bas": __version__}
    for name in ("torch", "timm", "pytorchvideo", "openvino", "av", "numpy", "zarr"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
