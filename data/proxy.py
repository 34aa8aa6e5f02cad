"""Copies one video: small, H.264 in short closed groups without B-frames, every frame at its own time.

Without B-frames a frame's decoding time is its presentation time, so that mp4 holds any times as they are. x264's
`fastdecode` (no arithmetic coding, no deblocking) is what pays most: at 398x224, crf 18 and 12 frames a group random
clips come 1.6 times as fast as without it, for 6 % more bytes (`benchmarks/seek_speed.py` has the whole).
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container.output import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from ..errors import InputError
from ..extract.video.demux import file_stamp, reading, require_unchanged
from ..extract.video.picture import SCALERS, PictureFormat, Pixels, colour_of, inner_size, quarter_turns
from ..extract.video.reader import Video, open_video, probe_video
from ..extract.video.timetable import Int64s, TimeTable, plan_grid, require_few_bad
from ..files import file_sha256, num_cores, read_json, remove_stale, write_json_atomic
from ..workers import Failure, side_by_side
from .folders import folder_splits, game_id
from .labels import CLASSES_NAME, SPLITS_NAME, SplitSources, assign_splits
from .sources import DataSet, Match, find_data_set

Float64s = npt.NDArray[np.float64]
MIN_PSNR_DB = 25.0
"""A copy with a frame less like the source is refused: about 8 dB below the worst at the default quality."""
_MAX_PSNR_DB = 99.0
_MAX_TIMESCALE = 2**31 - 1
_REPORT_FRAMES = 50


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """What decides the bytes of a copy."""

    width: int = 398
    """Pixels that the picture may take at most; its aspect is kept, without bars, and none is made larger."""
    height: int = 224
    """Pixels that the picture may take at most."""
    gop: int = 12
    """Frames from one key frame to the next at most, >= 1."""
    crf: int = 18
    """x264's constant rate factor, 0 (lossless) to 51; 6 more halve the size."""
    preset: str = "veryfast"

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 16:
            raise InputError("--size is not usable", got=f"{self.width}x{self.height}", wanted="16x16 or more")
        if self.gop < 1:
            raise InputError("--gop is not usable", got=self.gop, wanted="1 or more frames")
        if not 0 <= self.crf <= 51:
            raise InputError("--crf is not usable", got=self.crf, wanted="0 (lossless) to 51 (worst)")

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """How a copy came out, over all of its frames."""

    num_frames: int
    bad_frames: int
    """Frames that are damaged in the source; the copy shows the last good picture in their place."""
    width: int
    """Pixels as stored."""
    height: int
    """Pixels as stored."""
    source_bytes: int
    source_sha256: str
    proxy_bytes: int
    mean_psnr_db: float
    """Of RGB pictures, against the source scaled to the same size; 99 for equal ones."""
    worst_psnr_db: float
    worst_frame: int
    """The frame of `worst_psnr_db`, from 0."""
    seconds: float


def copy_video(
    source: Path,
    target: Path,
    settings: ProxySettings,
    *,
    max_bad_share: float,
    tell: Callable[[float], None] = lambda _: None,
) -> CopyReport:
    """Write a copy, read it again, hold every frame against the source, and only then give it its name.

    Args:
        source: any video that `open_video` reads.
        target: an mp4 file; its folder is made.
        settings: size, groups, quality.
        max_bad_share: of damaged and missing steps that is put up with, 0 to 1.
        tell: hears the share that is done, 0 to 1.

    Raises:
        InputError: the source cannot be read, is too damaged, has times that mp4 does not hold, or changes meanwhile;
            no room; the copy is not like the source.
    """
    started, stamp = time.perf_counter(), file_stamp(source)
    video = open_video(source, fps=None, picture=PictureFormat(width=16, height=16), threads=1)
    size = _stored_size(video, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        lost = _encode(source, temporary, settings, video=video, size=size, tell=lambda share: tell(0.6 * share))
        _require_sound(source, video, lost, max_bad_share=max_bad_share)
        psnr_db = _compare(source, temporary, video=video, tell=lambda share: tell(0.6 + 0.4 * share))
        sha256 = file_sha256(source)
        require_unchanged(source, stamp)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{target}: cannot be written", got=error, cure="is there room, and permission?") from error
    finally:
        temporary.unlink(missing_ok=True)
    worst = int(np.argmin(psnr_db))
    return CopyReport(
        num_frames=len(psnr_db),
        bad_frames=len(lost),
        width=size[0],
        height=size[1],
        source_bytes=stamp[1],
        source_sha256=sha256,
        proxy_bytes=target.stat().st_size,
        mean_psnr_db=round(float(np.mean(psnr_db)), 2),
        worst_psnr_db=round(float(psnr_db[worst]), 2),
        worst_frame=worst,
        seconds=round(time.perf_counter() - started, 1),
    )


def _stored_size(video: Video, settings: ProxySettings) -> tuple[int, int]:
    """Width and height of the copy as stored: even, square pixels, not yet turned upright."""
    info = video.info
    wanted = PictureFormat(width=settings.width, height=settings.height)
    shown = info.display_width, info.display_height
    width, height = (max(2, 2 * round(side / 2)) for side in min(inner_size(*shown, wanted), shown))
    return (width, height) if quarter_turns(info.rotation_degrees) % 2 == 0 else (height, width)


def _encode(
    source: Path,
    target: Path,
    settings: ProxySettings,
    *,
    video: Video,
    size: tuple[int, int],
    tell: Callable[[float], None],
) -> list[int]:
    """Write all frames; gives the table indices of those that are damaged."""
    ticks, durations = _times(source, video.table)
    duration_at = dict(zip(ticks.tolist(), durations.tolist(), strict=True))
    scale, lost = _Scaler(*size), list[int]()
    frames = every_frame(video, source)
    head = next(frames)
    with closing(frames), _open_target(target, video=video) as container:
        stream = _add_stream(container, settings, video=video, size=size, colour_number=colour_of(head[1]).number)

        def write(frame: VideoFrame | None) -> None:
            for packet in stream.encode(frame):
                packet.duration = duration_at[packet.pts]
                container.mux(packet)

        for entry, frame, is_own in chain([head], frames):
            lost += [] if is_own else [entry]
            scaled = scale(frame)
            scaled.pts, scaled.time_base, scaled.pict_type = int(ticks[entry]), video.table.time_base, PictureType.NONE
            write(scaled)
            if entry % _REPORT_FRAMES == 0:
                tell(entry / len(ticks))
        write(None)
    return lost


def every_frame(video: Video, path: Path) -> Generator[tuple[int, VideoFrame, bool], None, None]:
    """(table index, frame, whether it is its own) of all frames in order; the last good one stands in for a damaged
    one (the first one, before any).

    Raises:
        InputError: no frame can be decoded.
    """
    num_frames, held, place = video.table.num_frames, None, 0
    with video.open_decoder() as decoder, closing(decoder.sound_frames(0, num_frames)) as frames:
        for entry, frame in frames:
            yield from ((lost, held or frame, False) for lost in range(place, entry))
            yield entry, frame, True
            held, place = frame, entry + 1
    if held is None:
        raise InputError(f"{path}: no frame can be decoded", got="only damaged packets", cure="fetch the file again")
    yield from ((lost, held, False) for lost in range(place, num_frames))


class _Scaler:
    """Brings frames to 8-bit limited-range 4:2:0 of one size, in the colour matrix that they have."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        colour = colour_of(frame)
        return self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "yuv420p",
            src_colorspace=colour.matrix,
            dst_colorspace=colour.matrix or Colorspace.ITU601,
            src_color_range=colour.range,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALERS["swscale-bicubic"],
            threads=1,
        )


def _times(source: Path, table: TimeTable) -> tuple[Int64s, Int64s]:
    """(N,) start and duration of each frame in ticks after time 0. The last one ends where the header says.

    Raises:
        InputError: a frame is before time 0.
    """
    ticks = table.pts_ticks - table.origin_ticks
    if ticks[0] < 0:
        got = f"the first frame at {float(ticks[0] * table.time_base):.3f} s"
        raise InputError(f"{source}: a copy cannot hold its times", got=got, wanted="0 or later", cure="remux the file")
    return ticks, np.diff(ticks, append=table.header_end_ticks - table.origin_ticks)


def _open_target(target: Path, *, video: Video) -> OutputContainer:
    """An mp4 file whose clock is the source's (also in the empty edit before a late start), no finer and no coarser:
    the grid's tolerance for rounded times is half a tick.
    """
    timescale = min(video.table.time_base.denominator, _MAX_TIMESCALE)  # beyond it the comparison of times fails
    options = {"movie_timescale": str(timescale), "video_track_timescale": str(timescale)}
    return av.open(str(target), "w", format="mp4", options=options)


def _add_stream(
    container: OutputContainer,
    settings: ProxySettings,
    *,
    video: Video,
    size: tuple[int, int],
    colour_number: int,
) -> VideoStream:
    """One encoder thread and no code for one kind of processor only: equal sources give equal bytes.

    `force-cfr` concerns what x264 says of the rate, not the times: without it the header's rate is lost.
    """
    options = {
        "preset": settings.preset,
        "tune": "fastdecode",
        "crf": str(settings.crf),
        "x264-params": f"keyint={settings.gop}:bframes=0:open-gop=0:cpu-independent=1:force-cfr=1:log-level=none",
    }
    stream = container.add_stream("libx264", rate=video.table.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.thread_count = 1
    stream.codec_context.time_base = video.table.time_base
    stream.codec_context.colorspace = colour_number
    stream.codec_context.color_range = ColorRange.MPEG
    turns = quarter_turns(video.info.rotation_degrees)
    if turns:
        stream.set_display_rotation(90 * turns)
    return stream


def _require_sound(source: Path, video: Video, lost: list[int], *, max_bad_share: float) -> None:
    """Refuse a source of which too much is damaged, or missing at its end."""
    grid = video.grid
    is_bad = np.isin(grid.frame_of_step, lost) | (~grid.is_covered & (grid.frame_of_step >= 0))
    require_few_bad(int(is_bad.sum()), grid.num_steps, max_bad_share=max_bad_share, what=str(source))


def _compare(source: Path, proxy: Path, *, video: Video, tell: Callable[[float], None]) -> Float64s:
    """(N,) likeness of every frame in dB, both decoded anew; the times are compared exactly.

    Raises:
        InputError: a frame of the copy does not decode, is at another time, or is less like than `MIN_PSNR_DB`.
    """
    info = open_video(proxy, fps=None, picture=PictureFormat(width=16, height=16), threads=1).info
    picture = PictureFormat(width=info.display_width, height=info.display_height, fit="stretch")
    ours, theirs = (open_video(path, fps=None, picture=picture, threads=1) for path in (proxy, source))
    _require_same_times(source, ours.table, video.table)
    psnr_db = np.empty(ours.table.num_frames)
    with ours.open_decoder() as decoder, theirs.open_decoder() as other:
        pairs = zip(every_frame(ours, proxy), every_frame(theirs, source), strict=True)
        for (entry, frame, is_own), (_, wanted, _) in pairs:
            psnr_db[entry] = psnr_db_of(decoder.picture(frame), other.picture(wanted)) if is_own else 0
            if psnr_db[entry] < MIN_PSNR_DB:
                got = f"frame {entry} does not decode" if not is_own else f"frame {entry}: {psnr_db[entry]:.1f} dB"
                cure = "a lower --crf; if that does not help, this is a fault of bas: please report it"
                raise InputError(
                    f"{source}: its copy is not like it", got=got, wanted=f"{MIN_PSNR_DB} dB or more", cure=cure
                )
            if entry % _REPORT_FRAMES == 0:
                tell(entry / len(psnr_db))
    return psnr_db


def _require_same_times(source: Path, ours: TimeTable, theirs: TimeTable) -> None:
    """Every frame, and the end, at the same time after time 0, as exact fractions; and the same frame at each step."""
    scale = theirs.time_base / ours.time_base
    got, end = ours.pts_ticks - ours.origin_ticks, ours.end_ticks - ours.origin_ticks
    wanted, wanted_end = _times(source, theirs)[0], theirs.header_end_ticks - theirs.origin_ticks
    same_times = scale.denominator == 1 and np.array_equal(got, wanted * scale.numerator) and end == wanted_end * scale
    same_steps = [
        np.array_equal(plan_grid(ours, fps).frame_of_step, plan_grid(theirs, fps).frame_of_step)
        for fps in (None, Fraction(25))
    ]
    if not (same_times and all(same_steps)):
        raise InputError(
            f"{source}: mp4 does not hold its times",
            got=f"{len(got)} frames at {ours.rate} a second, {float(end * ours.time_base):.6f} s",
            wanted=f"{len(wanted)} frames at {theirs.rate} a second, {float(wanted_end * theirs.time_base):.6f} s",
            cure="remux the source to another container; or use it as it is",
        )


def psnr_db_of(image: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio of two pictures of one shape, at most 99."""
    difference = np.subtract(image, other, dtype=np.float32).ravel()
    square = float(np.dot(difference, difference)) / difference.size
    return min(_MAX_PSNR_DB, 10 * math.log10(255**2 / square)) if square else _MAX_PSNR_DB


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
