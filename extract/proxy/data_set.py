"""A copy of a data set with small videos that are quick to read at random places; resumes, video by video."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...cache.files import file_sha256
from ...errors import InputError
from ...events import read_json, write_json_atomic
from ...workers import Failure, num_cores, remove_stale, side_by_side
from ..datasets.folders import folder_splits, game_id
from ..datasets.sources import DataSet, Match, find_data_set
from ..datasets.splits import CLASSES_NAME, SPLITS_NAME, SplitSources, assign_splits
from ..files import reading
from ..video.reader import probe_video
from .copy import CopyReport, ProxySettings, copy_video

RECORD_NAME = "proxy.json"
VERSION = 1
"""Goes up when the same settings no longer give the same copies."""


@dataclass(frozen=True)
class CopyTask:
    """One video to copy."""

    match_id: str
    source: Path
    target: Path
    num_frames: int
    """By the header."""
    settings: ProxySettings
    max_bad_share: float


@dataclass(frozen=True)
class VideoResult:
    """How one video ended."""

    match_id: str
    is_new: bool
    """False for one that was there already, or that failed."""
    report: CopyReport | None
    """None where it failed."""
    why: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class ProxySummary:
    """How a run ended."""

    root: Path
    settings: ProxySettings
    results: tuple[VideoResult, ...]
    """In order of match id."""

    @property
    def complete(self) -> bool:
        """Whether every video is there."""
        return all(result.report is not None for result in self.results)


@dataclass(frozen=True)
class ProxyReporter:
    """What the command line wants to hear; every field may be left out."""

    started: Callable[[int, int], None] = lambda *_: None
    """Called once: videos in all, frames to copy."""
    progress: Callable[[float], None] = lambda _: None
    """Called with the number of frames done so far, counting both passes of one as half each."""
    finished: Callable[[VideoResult], None] = lambda _: None
    """Called after every video."""


def write_proxies(
    root: Path,
    out: Path,
    settings: ProxySettings,
    *,
    jobs: int = 0,
    max_bad_share: float = 0.05,
    report: ProxyReporter | None = None,
) -> ProxySummary:
    """Copy a data set: labels, splits and classes as they are, each match's video by `copy_video`.

    `out/proxy.json` says what each video was made from. One that is there, of the same source (SHA-256), is left
    alone; of a source that has changed it is made anew. Labels are brought up to date each time.

    Args:
        root: a data set, as `find_data_set` reads it; of several videos of a match the one that it chooses.
        out: a new folder, or one that this function began with the same settings.
        settings: of the copies.
        jobs: videos copied side by side, each by one process with one thread; 0: one per core.
        max_bad_share: of damaged and missing steps that is put up with in a source, 0 to 1.
        report: hears of progress.

    Raises:
        InputError: the data set has errors, or its matches would have other names in `out`; `out` is inside `root`,
            holds anything else, or copies of other settings. A video that cannot be copied is in the summary instead.
    """
    if jobs < 0:
        raise InputError("--jobs is not usable", got=jobs, wanted="1 or more, or 0 for one per core")
    report = report or ProxyReporter()
    data_set = find_data_set(root)
    data_set.raise_errors()
    _require_place(data_set, out)
    made = _claim(out, settings)
    _copy_texts(data_set, out)
    tasks = [_task(match, data_set, out, settings, max_bad_share=max_bad_share) for match in data_set.matches]
    there = {task: done for task in tasks if (done := _report_there(task, made.get(_name(task, out)))) is not None}
    todo = sorted((task for task in tasks if task not in there), key=lambda task: -task.num_frames)
    report.started(len(tasks), sum(task.num_frames for task in todo))
    results = {task: VideoResult(task.match_id, False, done) for task, done in there.items()}
    for result in results.values():
        report.finished(result)
    done_frames = dict.fromkeys(todo, 0.0)

    def progress(task: CopyTask, share: float) -> None:
        done_frames[task] = share * task.num_frames
        report.progress(sum(done_frames.values()))

    def ended(task: CopyTask, outcome: CopyReport | Failure) -> None:
        if isinstance(outcome, CopyReport):
            made[_name(task, out)] = {"match": task.match_id, "source": task.source.name, **asdict(outcome)}
            _write_record(out, settings, made)
        results[task] = _result(task, outcome)
        progress(task, 1.0)
        report.finished(results[task])

    try:
        side_by_side(_copy, todo, jobs=jobs or num_cores(), progress=progress, ended=ended)
    finally:
        for task in todo:
            remove_stale(task.target)
    return ProxySummary(out, settings, tuple(results[task] for task in tasks))


def _copy(task: CopyTask, tell: Callable[[float], None]) -> CopyReport:
    """What a worker does."""
    remove_stale(task.target)
    return copy_video(task.source, task.target, task.settings, max_bad_share=task.max_bad_share, tell=tell)


def _result(task: CopyTask, outcome: CopyReport | Failure) -> VideoResult:
    if isinstance(outcome, CopyReport):
        return VideoResult(task.match_id, True, outcome)
    if outcome.details:  # a fault of ours
        raise RuntimeError(outcome.details)
    return VideoResult(task.match_id, False, None, outcome.why)


def _require_place(data_set: DataSet, out: Path) -> None:
    """Refuse a place where the copy would not be the same data set."""
    ours, theirs = out.resolve(), data_set.root.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise InputError(f"{out}: the copy and the data set cannot lie in each other", got=theirs, wanted="apart")
    if not _keeps_names(data_set, out):
        deeper = (out.joinpath(*theirs.parts[-depth:]) for depth in (1, 2, 3))
        place = next((place for place in deeper if _keeps_names(data_set, place)), None)
        raise InputError(
            f"{out}: matches would have other names or splits here: the names of the folders around them count",
            got=data_set.root,
            cure=f"OUT {place}" if place else f"name the copy's folder as {theirs} is named",
        )


def _keeps_names(data_set: DataSet, out: Path) -> bool:
    """Whether ids and splits would be the same for copies in `out`."""
    sources = []
    for match in data_set.matches:
        video = match.require_video()
        parts = video.parent.relative_to(data_set.root).parts
        if match.game not in (game_id(out, parts), game_id(out, (*parts, video.stem))):
            return False
        sources.append(SplitSources(match.id, match.game, folder_splits(parts)))
    splits, _ = assign_splits(out, sources, file=data_set.root / SPLITS_NAME)
    return all(splits[match.id] == match.split for match in data_set.matches)


def _claim(out: Path, settings: ProxySettings) -> dict[str, Any]:
    """Record the settings, or see that they are those of the record; gives what has been made: name -> entry."""
    path = out / RECORD_NAME
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: not empty, and no proxy of a data set", wanted="a new folder")
        _write_record(out, settings, {})
        return {}
    found, wanted = read_json(path), {"version": VERSION, **settings.to_json()}
    if not isinstance(found, Mapping) or not isinstance(found.get("videos"), dict):
        raise InputError(f"{path}: not usable", got=str(found)[:80], cure="take another folder")
    stored = found.get("settings")
    held = {"version": found.get("version")} | dict(stored if isinstance(stored, Mapping) else {})
    differing = [name for name in wanted if held.get(name) != wanted[name]]
    if differing:
        raise InputError(
            f"{out}: holds copies of other settings",
            got=", ".join(f"{name} {held.get(name)}" for name in differing),
            wanted=", ".join(f"{name} {wanted[name]}" for name in differing),
            cure="take another folder, or give the settings that are there",
        )
    videos: dict[str, Any] = found["videos"]
    return videos


def _write_record(out: Path, settings: ProxySettings, videos: Mapping[str, Any]) -> None:
    record = {"version": VERSION, "settings": settings.to_json(), "videos": dict(sorted(videos.items()))}
    write_json_atomic(out / RECORD_NAME, record)


def _copy_texts(data_set: DataSet, out: Path) -> None:
    """Labels, splits and classes, byte for byte; each whole or absent."""
    names = {data_set.root / name for name in (SPLITS_NAME, CLASSES_NAME)}
    names |= {match.labels for match in data_set.matches if match.labels is not None}
    for source in sorted(name for name in names if name.exists()):
        target = out / source.relative_to(data_set.root)
        with reading(source):
            content = source.read_bytes()
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _task(match: Match, data_set: DataSet, out: Path, settings: ProxySettings, *, max_bad_share: float) -> CopyTask:
    source = match.require_video()
    num_frames = 1
    with contextlib.suppress(InputError):  # the copy will say why
        num_frames = max(1, probe_video(source).num_frames)
    target = (out / source.relative_to(data_set.root)).with_suffix(".mp4")
    return CopyTask(match.id, source, target, num_frames, settings, max_bad_share)


def _name(task: CopyTask, out: Path) -> str:
    return task.target.relative_to(out).as_posix()


def _report_there(task: CopyTask, entry: Any) -> CopyReport | None:
    """The report of a copy that is there and of this very source; None where it is to be made."""
    try:
        report = CopyReport(**{field.name: entry[field.name] for field in fields(CopyReport)})
    except (KeyError, TypeError):
        return None
    with reading(task.source):
        is_there = task.target.is_file() and task.target.stat().st_size == report.proxy_bytes
        is_same = is_there and task.source.stat().st_size == report.source_bytes
        return report if is_same and file_sha256(task.source) == report.source_sha256 else None
