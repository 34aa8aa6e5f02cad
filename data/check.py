"""Checks a data set: opens every video, counts every event, says what is missing or wrong."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..cache.layout import check_id
from ..errors import InputError
from ..events import SPLITS, Event, Split
from ..extract.video.reader import VideoInfo, probe_video
from ..files import JSON_BYTES, read_json, read_text
from .folders import LABELS_NAME
from .labels import Finding, error, event_time, note
from .sources import Match, find_data_set

_NUM_THREADS = 8
_NUM_KEYS, _MAX_SEEN = 6, 120
_SOCCERNET_FRAME_MS = 40


@dataclass(frozen=True)
class MatchReport:
    """One match as it was found."""

    match: Match
    video: VideoInfo | None
    """What its headers say; None where it is missing or unreadable."""
    events: tuple[Event, ...] | None
    """None where it has no label file."""


@dataclass(frozen=True)
class DataReport:
    """The result of a check."""

    root: Path
    classes: tuple[str, ...]
    matches: tuple[MatchReport, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def missing_for_training(self) -> tuple[str, ...]:
        """What a head cannot be trained without: events in the splits train and valid."""
        found = {report.match.split for report in self.matches if report.events}
        return tuple(f"no events in the split {split}" for split in ("train", "valid") if split not in found)

    def splits(self) -> list[Split | None]:
        """Splits that occur, in the usual order; None (matches without a split) last."""
        found = {report.match.split for report in self.matches}
        order: tuple[Split | None, ...] = (*SPLITS, None)
        return [split for split in order if split in found]

    def counts(self) -> dict[str, Counter[Split | None]]:
        """Label -> split -> number of events: the classes in their order, then labels that are no class."""
        table: dict[str, Counter[Split | None]] = {name: Counter() for name in self.classes}
        for report in self.matches:
            for event in report.events or ():
                table.setdefault(event.label, Counter())[report.match.split] += 1
        return table

    def to_json(self) -> dict[str, Any]:
        """Everything in the report as plain JSON values; rates and lengths are fractions as text."""
        return {
            "root": str(self.root),
            "ok": not self.errors,
            "missing_for_training": list(self.missing_for_training),
            "classes": list(self.classes),
            "matches": [_match_json(report) for report in self.matches],
            "events": {
                name: {str(split or "none"): count for split, count in of_class.items()} | {"all": of_class.total()}
                for name, of_class in self.counts().items()
            },
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_data_set(root: Path, *, on_progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Find the matches below `root`, read the headers of their videos and compare them with the labels.

    Args:
        root: the data set.
        on_progress: called after each video with (videos done, videos in all), in the caller's thread.

    Raises:
        InputError: `root` is missing, a file or a feature store. All else is a finding.
    """
    data_set = find_data_set(root)
    videos = _probe_all(data_set.matches, on_progress=on_progress)
    reports, findings = [], list(data_set.findings)
    for match in data_set.matches:
        try:
            check_id(match.id)
        except InputError as reason:  # `bas extract` would refuse it
            findings.append(Finding.from_error(match.id, reason))
        info = videos.get(match.id)
        events = data_set.events(match)
        if isinstance(info, InputError):
            findings.append(Finding.from_error(match.id, info, prefix=f"{match.require_video().parent}/"))
            info = None
        elif info is not None:
            findings += check_video(info, match=match)
            findings += check_events(events or (), info, match=match)
        reports.append(MatchReport(match, info, None if events is None else tuple(events)))
    findings += [_unread(path, root=data_set.root) for path in data_set.unread]
    return DataReport(data_set.root, data_set.classes, tuple(reports), tuple(findings))


def check_video(video: VideoInfo, *, match: Match) -> list[Finding]:
    """Notes about what a person should know of a video that can be read: further streams, no times."""
    findings = []
    if video.other_streams:
        message = f"several video streams: {video.stream} is read, not {', '.join(video.other_streams)}"
        cure = "none needed if that is the match; else copy the right one (ffmpeg -i FILE -map 0:N -c copy NEW.mkv)"
        findings.append(note(match.id, message, cure))
    if not video.has_times:
        message = f"its packets carry no time stamp: frames are laid out at its rate, {float(video.rate):g} per second"
        findings.append(note(match.id, message, "none needed, unless the recording has gaps: those cannot be seen"))
    return findings


def _unread(path: Path, *, root: Path) -> Finding:
    """A note of what is in a file that may be annotations."""
    try:
        if path.suffix.lower() == ".json":
            document = read_json(path)
            keys = ", ".join(repr(key) for key in list(document)[:_NUM_KEYS]) if isinstance(document, dict) else ""
            seen = f"an object with {keys}" if keys else f"JSON, {type(document).__name__}"
        elif path.suffix.lower() in (".csv", ".tsv"):
            seen = f"a table that begins with {read_text(path, max_bytes=JSON_BYTES).partition(chr(10))[0].strip()!r}"
        else:
            seen = path.suffix[1:]
    except InputError as reason:
        seen = reason.what.removeprefix(f"{path}: ")
    message = f"not read, as it is in no format of labels that is known here ({seen[:_MAX_SEEN]})"
    cure = f"if it holds the events: write them as {LABELS_NAME}, one in the folder of each match; else none is needed"
    return note(path.relative_to(root).as_posix(), message, cure)


def check_events(events: Sequence[Event], video: VideoInfo, *, match: Match) -> list[Finding]:
    """Findings about events that do not fit their video: beyond its end, of another half, off SoccerNet's grid."""
    findings = []
    end_ms = math.ceil(1000 * video.end_seconds)
    beyond = [event for event in events if event.position_ms >= end_ms]
    if beyond:
        message = f"{len(beyond)} event(s) beyond the end of the video at {end_ms} ms (first: {event_time(beyond[0])})"
        cure = "fetch the whole video, or the labels of this edition (one file per match, or one per half)"
        findings.append(error(match.id, message, cure))
    second = [event for event in events if event.half == 2 and match.half is None]
    if second:
        message = f"{len(second)} event(s) of half 2, but one video for the whole match"
        findings.append(error(match.id, message, "use the two-halves videos, or labels that count from the kick-off"))
    off = [event for event in events if event.position_ms % _SOCCERNET_FRAME_MS and event.position_ms < end_ms]
    if off and video.rate == 1000 // _SOCCERNET_FRAME_MS:
        message = f"{len(off)} event(s) between two frames of {_SOCCERNET_FRAME_MS} ms (first: {event_time(off[0])})"
        findings.append(note(match.id, message, "none needed: each counts for the frame on screen"))
    return findings


def _probe_all(
    matches: Sequence[Match], *, on_progress: Callable[[int, int], None] | None
) -> Mapping[str, VideoInfo | InputError]:
    videos = {match.id: match.video for match in matches if match.video is not None}
    results: dict[str, VideoInfo | InputError] = {}
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for match_id, result in zip(videos, pool.map(_try_probe, videos.values()), strict=True):
            results[match_id] = result
            if on_progress is not None:
                on_progress(len(results), len(videos))
    return results


def _try_probe(path: Path) -> VideoInfo | InputError:
    try:
        return probe_video(path)
    except InputError as reason:
        return reason


def _match_json(report: MatchReport) -> dict[str, Any]:
    match, video = report.match, report.video
    return {
        "id": match.id,
        "split": match.split,
        "half": match.half,
        "video": None if match.video is None else str(match.video),
        "labels": None if match.labels is None else str(match.labels),
        "num_frames": video.num_frames if video else None,
        "fps": str(video.rate) if video else None,
        "duration_seconds": str(video.end_seconds) if video else None,
        "width": video.display_width if video else None,
        "height": video.display_height if video else None,
        "codec": video.codec if video else None,
        "num_events": None if report.events is None else len(report.events),
    }


def total_seconds(reports: Sequence[MatchReport]) -> Fraction:
    """Length of all readable videos together."""
    return sum((report.video.end_seconds for report in reports if report.video), Fraction())
