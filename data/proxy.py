"""`bas data proxy`: a data set copied with small videos in short closed groups, which are quick to read anywhere.

Without B-frames a frame's decoding time is its presentation time, so that mp4 holds any times as they are. x264's
`fastdecode` (no arithmetic coding, no deblocking) is what pays most: at 398x224, crf 18 and 12 frames a group random
clips come 1.6 times as fast as without it, for 6 % more bytes (`benchmarks/seek_speed.py` has the whole).
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import InputError, reading_record
from ..extract.video.demux import file_stamp, reading, require_unchanged
from ..extract.video.picture import SCALERS, PictureFormat, Pixels, colour_of, inner_size, quarter_turns
from ..extract.video.reader import Video, open_video, probe_video
from ..extract.video.timetable import Int64s, TimeTable, require_few_bad
from ..files import (
    begun_folder,
    disk_errors,
    file_sha256,
    num_cores,
    remove_stale,
    whole_or_absent,
    write_atomic,
    write_json_atomic,
)
from ..workers import SILENT, Failure, MatchResult, Progress, Summary, side_by_side
from .folders import folder_splits, game_id
from .labels import SPLITS_NAME, SplitSources, assign_splits
from .settings import X264_PRESET, ProxySettings
from .sources import DataSet, find_data_set

RECORD_NAME, VERSION = "proxy.json", 1
"""The version goes up when the same settings no longer give the same copies."""
MIN_PSNR_DB = 25.0
"""A copy with a sampled frame less like the source is refused: about 8 dB below the worst at the default quality."""
_MAX_PSNR_DB = 99.0
_NUM_COMPARED = 100
_MAX_TIMESCALE = 2**31 - 1
_REPORT_FRAMES = 50


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """What a copy was made from, and how it came out."""

    num_frames: int
    bad_frames: int
    """Frames that are damaged in the source; the copy shows the last good picture in their place."""
    source_bytes: int
    source_sha256: str
    proxy_bytes: int
    mean_psnr_db: float
    """Of a sample of RGB pictures, against the source scaled to the same size; 99 for equal ones."""
    worst_psnr_db: float
    worst_frame: int
    """The frame of `worst_psnr_db`, from 0."""
    seconds: float


@dataclass(frozen=True)
class _CopyTask:
    match_id: str
    source: Path
    target: Path
    entry: Any
    """What the record says of the target; None: nothing."""


def write_proxies(
    root: Path, out: Path, settings: ProxySettings, *, jobs: int = 0, progress: Progress = SILENT
) -> Summary:
    """Copy a data set: labels, splits and classes as they are, each match's video by `copy_video`.

    `out/proxy.json` says what each video was made from. One that is there, of the same source (SHA-256), is left
    alone; of a source that has changed it is made anew. Labels are brought up to date each time.

    Args:
        root: a data set, as `find_data_set` reads it; of several videos of a match the one that it chooses.
        out: a new folder, or one that this function began with the same settings.
        settings: of the copies.
        jobs: videos copied side by side, each by one process with one thread; 0: one per core.
        progress: callbacks; amounts are percent of a video.

    Raises:
        InputError: the data set has errors, or its matches would have other names in `out`; `out` is inside `root`,
            holds anything else, or copies of other settings. A video that cannot be copied is in the summary instead.
    """
    if jobs < 0:
        raise InputError("--jobs is not usable", got=jobs, wanted="1 or more, or 0 for one per core")
    started, data_set, results = time.perf_counter(), find_data_set(root), dict[str, MatchResult]()
    data_set.raise_errors()
    _require_place(data_set, out)
    record = {"version": VERSION, "settings": settings.to_json()}
    begun = begun_folder(out, RECORD_NAME, {"version": VERSION, **settings.to_json()}, holds="copies")
    with reading_record(f"{out / RECORD_NAME}: not usable", cure="take another folder"):
        made = dict(begun.get("videos", {}))
    write_json_atomic(out / RECORD_NAME, {**record, "videos": made})
    _copy_texts(data_set, out)

    def ended(task: _CopyTask, outcome: tuple[str, CopyReport] | Failure) -> None:
        if isinstance(outcome, Failure):
            result = outcome.result(task.match_id)
        else:
            entry = {"match": task.match_id, "source": task.source.name, **asdict(outcome[1])}
            made[task.target.relative_to(out).as_posix()] = entry
            write_json_atomic(out / RECORD_NAME, {**record, "videos": dict(sorted(made.items()))})
            result = _result(task.match_id, *outcome)
        results[task.match_id] = result
        progress.finished(result)

    progress.started(len(data_set.matches), 0)
    tasks = []
    for match in data_set.matches:
        source = match.require_video()
        target = (out / source.relative_to(data_set.root)).with_suffix(".mp4")
        tasks.append(_CopyTask(match.id, source, target, made.get(target.relative_to(out).as_posix())))
    try:
        side_by_side(
            partial(_copy, settings),
            sorted(tasks, key=lambda task: -task.source.stat().st_size),
            jobs=jobs or num_cores(),
            progress=lambda task, share: progress.advanced(task.match_id, 100 * share, 100, ""),
            ended=ended,
        )
    finally:
        for task in tasks:
            remove_stale(task.target)
    return Summary(
        results=tuple(results[match.id] for match in data_set.matches),
        target=str(out),
        seconds=time.perf_counter() - started,
        amount=sum(result.num_rows for result in results.values() if result.status == "copied"),
        record={"settings": settings.to_json()},
    )


def _copy(settings: ProxySettings, task: _CopyTask, report: Callable[[float], None]) -> tuple[str, CopyReport]:
    """What a worker process does: the status and report of a copy that is there, of this very source, or is made."""
    with contextlib.suppress(KeyError, TypeError), reading(task.source):
        there = CopyReport(**{field.name: task.entry[field.name] for field in fields(CopyReport)})
        if task.target.is_file() and task.target.stat().st_size == there.proxy_bytes:
            is_same = task.source.stat().st_size == there.source_bytes
            if is_same and file_sha256(task.source) == there.source_sha256:
                return "already there", there
    remove_stale(task.target)
    return "copied", copy_video(task.source, task.target, settings, report)


def copy_video(
    source: Path, target: Path, settings: ProxySettings, report: Callable[[float], None] = lambda _: None
) -> CopyReport:
    """Write a copy, read it again, compare it with the source, and only then give it its name.

    Args:
        source: any video that `open_video` reads.
        target: an mp4 file; its folder is made.
        settings: size, groups, quality, damage that is accepted.
        report: called with the share that is done, 0 to 1.

    Raises:
        InputError: the source cannot be read, is too damaged, has times that mp4 does not hold, or changes meanwhile;
            no room; the copy is not like the source.
    """
    started, stamp = time.perf_counter(), file_stamp(source)
    video = open_video(source, fps=None, picture=PictureFormat(width=16, height=16), threads=1)
    with disk_errors(target), whole_or_absent(target) as temporary:
        lost = _encode(source, temporary, settings, video, report)
        grid = video.grid
        is_bad = np.isin(grid.frame_of_step, lost) | (~grid.is_covered & (grid.frame_of_step >= 0))
        require_few_bad(int(is_bad.sum()), grid.num_steps, max_bad_share=settings.max_bad_share, what=str(source))
        frames, psnr_db = _compare(source, temporary, lost)
        sha256 = file_sha256(source)
        require_unchanged(source, stamp)
    worst = int(np.argmin(psnr_db))
    return CopyReport(
        num_frames=video.table.num_frames,
        bad_frames=len(lost),
        source_bytes=stamp[1],
        source_sha256=sha256,
        proxy_bytes=target.stat().st_size,
        mean_psnr_db=round(float(np.mean(psnr_db)), 2),
        worst_psnr_db=round(psnr_db[worst], 2),
        worst_frame=frames[worst],
        seconds=round(time.perf_counter() - started, 1),
    )


def _encode(
    source: Path, target: Path, settings: ProxySettings, video: Video, report: Callable[[float], None]
) -> list[int]:
    """Write all frames, each at its own time; gives the table indices of those that are damaged."""
    table, info, lost = video.table, video.info, list[int]()
    ticks, durations = plan_times(source, table)
    duration_at = dict(zip(ticks.tolist(), durations.tolist(), strict=True))
    turns = quarter_turns(info.rotation_degrees)
    shown = info.display_width, info.display_height
    box = PictureFormat(width=settings.size[0], height=settings.size[1])
    width, height = (max(2, 2 * round(side / 2)) for side in min(inner_size(*shown, box), shown))
    width, height = (width, height) if turns % 2 == 0 else (height, width)
    timescale = min(table.time_base.denominator, _MAX_TIMESCALE)  # the source's clock, also before a late start
    clock = {"movie_timescale": str(timescale), "video_track_timescale": str(timescale)}
    # cpu-independent and one thread: equal sources give equal bytes. force-cfr keeps the rate in the header, not times.
    x264 = f"keyint={settings.gop}:bframes=0:open-gop=0:cpu-independent=1:force-cfr=1:log-level=none"
    options = {"preset": X264_PRESET, "tune": "fastdecode", "crf": str(settings.crf), "x264-params": x264}
    reformatter = VideoReformatter()
    with closing(_every_frame(video, source)) as frames, av.open(str(target), "w", "mp4", options=clock) as container:
        stream = container.add_stream("libx264", rate=table.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = table.time_base
        stream.codec_context.color_range = ColorRange.MPEG
        if turns:
            stream.set_display_rotation(90 * turns)

        def write(frame: VideoFrame | None) -> None:
            for packet in stream.encode(frame):
                packet.duration = duration_at[packet.pts]
                container.mux(packet)

        for entry, frame, is_own in frames:
            colour = colour_of(frame)
            if entry == 0:
                stream.codec_context.colorspace = colour.number
            lost += [] if is_own else [entry]
            scaled = reformatter.reformat(
                frame,
                width,
                height,
                "yuv420p",
                src_colorspace=colour.matrix,
                dst_colorspace=colour.matrix or Colorspace.ITU601,
                src_color_range=colour.range,
                dst_color_range=ColorRange.MPEG,
                interpolation=SCALERS["swscale-bicubic"],
                threads=1,
            )
            scaled.pts, scaled.time_base, scaled.pict_type = int(ticks[entry]), table.time_base, PictureType.NONE
            write(scaled)
            if entry % _REPORT_FRAMES == 0:
                report(entry / len(ticks))
        write(None)
    return lost


def plan_times(source: Path, table: TimeTable) -> tuple[Int64s, Int64s]:
    """(N,) start and duration of each frame in ticks after time 0. The last one ends where the header says.

    Raises:
        InputError: a frame is before time 0.
    """
    ticks = table.pts_ticks - table.origin_ticks
    if ticks[0] < 0:
        got = f"the first frame at {float(ticks[0] * table.time_base):.3f} s"
        raise InputError(f"{source}: a copy cannot hold its times", got=got, wanted="0 or later", cure="remux the file")
    return ticks, np.diff(ticks, append=table.header_end_ticks - table.origin_ticks)


def _every_frame(video: Video, path: Path) -> Generator[tuple[int, VideoFrame, bool], None, None]:
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


def _compare(source: Path, proxy: Path, lost: list[int]) -> tuple[list[int], list[float]]:
    """Frames of a sample and their likeness in dB, both files decoded anew; the times of all frames must be equal.

    Raises:
        InputError: a frame of the copy is missing, at another time, or less like than `MIN_PSNR_DB`.
    """
    info = probe_video(proxy)
    picture = PictureFormat(width=info.display_width, height=info.display_height, fit="stretch")
    for fps in (Fraction(25), None):
        ours, theirs = (open_video(path, fps=fps, picture=picture, threads=1) for path in (proxy, source))
        _require_same_times(source, ours, theirs)
    sound = np.flatnonzero(~np.isin(theirs.grid.frame_of_step, lost))
    steps = sound[np.unique(np.linspace(0, len(sound) - 1, _NUM_COMPARED).astype(int))]
    frames = np.maximum(theirs.grid.frame_of_step[steps], 0).tolist()
    with ours.open_decoder() as decoder, theirs.open_decoder() as other:
        pairs = zip(ours.pictures_at(steps, decoder), theirs.pictures_at(steps, other), strict=True)
        psnr_db = [psnr_db_of(*pair) for pair in pairs]
    if min(psnr_db) < MIN_PSNR_DB:
        got, wanted = f"frame {frames[np.argmin(psnr_db)]}: {min(psnr_db):.1f} dB", f"{MIN_PSNR_DB} dB or more"
        cure = "a lower --crf; if that does not help, this is a fault of bas: please report it"
        raise InputError(f"{source}: its copy is not like it", got=got, wanted=wanted, cure=cure)
    return frames, psnr_db


def _require_same_times(source: Path, ours: Video, theirs: Video) -> None:
    """Every frame, and the end, at the same time as exact fractions; and the same frame at each step of the grid."""
    both = []
    for table in (ours.table, theirs.table):
        ticks = [*table.pts_ticks.tolist(), table.header_end_ticks]
        both.append([(tick - table.origin_ticks) * table.time_base for tick in ticks])
    if both[0] != both[1] or not np.array_equal(ours.grid.frame_of_step, theirs.grid.frame_of_step):
        got, wanted = (f"{len(seconds) - 1} frames, {float(seconds[-1]):.6f} s" for seconds in both)
        cure = "remux the source to another container; or use it as it is"
        raise InputError(f"{source}: mp4 does not hold its times", got=got, wanted=wanted, cure=cure)


def psnr_db_of(image: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio of two pictures of one shape, at most 99."""
    difference = np.subtract(image, other, dtype=np.float32).ravel()
    square = float(np.dot(difference, difference)) / difference.size
    return min(_MAX_PSNR_DB, 10 * math.log10(255**2 / square)) if square else _MAX_PSNR_DB


def _result(match_id: str, status: str, report: CopyReport) -> MatchResult:
    columns: dict[str, str | int | float] = {
        **{"damaged": report.bad_frames, "source MB": report.source_bytes / 1e6, "copy MB": report.proxy_bytes / 1e6},
        **{"mean dB": report.mean_psnr_db, "worst dB": report.worst_psnr_db, "at frame": report.worst_frame},
    }
    num_rows, seconds = report.num_frames, report.seconds
    return MatchResult(match_id=match_id, status=status, num_rows=num_rows, seconds=seconds, columns=columns)


def _require_place(data_set: DataSet, out: Path) -> None:
    """Refuse a place where the copy would not be the same data set: folder names above matches count."""
    ours, theirs = out.resolve(), data_set.root.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise InputError(f"{out}: the copy and the data set cannot lie in each other", got=theirs, wanted="apart")
    places = [out, *(out.joinpath(*theirs.parts[-depth:]) for depth in (1, 2, 3))]
    place = next((place for place in places if _keeps_names(data_set, place)), None)
    if place != out:
        what = f"{out}: matches would have other names or splits here: the names of the folders around them count"
        cure = f"OUT {place}" if place else f"name the copy's folder as {theirs} is named"
        raise InputError(what, got=data_set.root, cure=cure)


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


def _copy_texts(data_set: DataSet, out: Path) -> None:
    """Labels, splits and classes, byte for byte; each whole or absent."""
    names = {data_set.root / SPLITS_NAME, *data_set.class_files}
    names |= {match.labels for match in data_set.matches if match.labels is not None}
    for source in sorted(name for name in names if name.exists()):
        target = out / source.relative_to(data_set.root)
        with reading(source):
            text = source.read_bytes()
        if not target.is_file() or target.read_bytes() != text:
            write_atomic(target, text)
