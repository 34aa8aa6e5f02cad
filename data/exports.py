"""Spots as other programs read them: SoccerNet and OSL JSON, CSV, and edit lists and chapters of chosen classes."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..cache.layout import METADATA
from ..errors import InputError
from ..eval.files import find_predictions
from ..eval.players import CLASSES, FPS, SIDES, game_of, read_rows
from ..eval.prediction_folder import RECORD
from ..events import Event, Split, TimeGrid, read_events, read_labels
from ..extract.video.reader import VideoInfo, probe_video
from ..files import disk_errors, write_text_atomic
from ..workers import SILENT, MatchResult, Summary, each_match
from .clips import AFTER_MS, BEFORE_MS, write_clips
from .folders import is_usual_name
from .games import find_labels, game_of_folder
from .sources import find_data_set

CLIPS, FOOTPASS = "clips", "footpass"
"""The formats that are no text per match: an mp4 file per spot, and one file of all matches."""
_CLASS_OF = {
    **{name: name for name in CLASSES},
    **{"HIGH PASS": "PASS", "PLAYER SUCCESSFUL TACKLE": "TACKLE", "BALL PLAYER BLOCK": "BLOCK"},
}
"""Label -> FOOTPASS's class; spots of all other labels are left out there."""


@dataclass(frozen=True)
class Labels:
    """What is exported."""

    match_id: str
    video_name: str
    fps: Fraction
    seconds: float
    size: tuple[int, int]
    events: tuple[Event, ...]
    """In time order."""
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        match_id: str,
        events: Sequence[Event],
        classes: Sequence[str],
        *,
        video: Path | None,
        info: VideoInfo | None,
    ) -> "Labels":
        """Spots of some classes of a match, with what is known of its video."""
        name = video.name if video else ""
        if video and is_usual_name(video):  # of matches whose videos are all called 224p.mp4 the folder tells which
            name = f"{video.resolve().parent.name}/{name}"
        return cls(
            match_id=match_id,
            video_name=name,
            fps=info.rate if info else Fraction(25),
            seconds=float(info.end_seconds) if info else 0.0,
            size=(info.display_width, info.display_height) if info else (0, 0),
            events=tuple(sorted(event for event in events if event.label in classes)),
            classes=tuple(classes),
        )

    @property
    def file_name(self) -> str:
        """Without its ending."""
        return self.match_id.replace("/", "_")

    @property
    def clips_ms(self) -> list[tuple[int, int, str]]:
        """(from, to, name) of a clip around each spot, inside the video."""
        end = round(1000 * self.seconds) or 24 * 3600 * 1000
        return [
            (max(0, event.position_ms - BEFORE_MS), min(end, event.position_ms + AFTER_MS), event.label)
            for event in self.events
        ]


def export(labels: Labels, format_name: str) -> tuple[str, str, str]:
    """(text, media type, file name) of a match's spots.

    Raises:
        InputError: no such format.
    """
    if format_name not in FORMATS:
        raise InputError("no such format", got=repr(format_name)[:40], wanted=", ".join(FORMATS))
    write, media_type, ending = FORMATS[format_name]
    return write(labels), media_type, f"{labels.file_name}{ending}"


def export_all(
    source: Path, out: Path, format_name: str, *, splits: Sequence[Split] = (), halves: Path | None = None
) -> Summary:
    """Write the spots of every match of a data set, store, label file or folder of predictions; a file per match.

    Args:
        source: what holds the spots.
        out: a folder.
        format_name: of `FORMATS`, or one of those that are apart.
        splits: only matches of these; empty: all.
        halves: a file of the same games that says where their second halves begin; `footpass` needs it.

    Raises:
        InputError: no such format, or nothing to write. A match that fails is in the summary instead.
    """
    if format_name not in (*FORMATS, CLIPS, FOOTPASS):
        raise InputError("no such format", got=format_name, wanted=", ".join((*FORMATS, CLIPS, FOOTPASS)))
    started = time.perf_counter()
    games, classes, videos = _spots(source, splits)
    if format_name == FOOTPASS:
        text = _footpass(games, _second_halves(halves) if halves else {})
        with disk_errors(out):
            write_text_atomic(out / f"{FOOTPASS}.json", text)

    def one(game: str) -> MatchResult:
        if format_name == FOOTPASS:
            name = f"{FOOTPASS}.json"
            num_spots = sum(event.label in _CLASS_OF for event in games[game])
            return MatchResult(match_id=game, status="written", columns={"spots": num_spots, "file": name})
        video = videos.get(game)
        labels = Labels.of(game, games[game], classes, video=video, info=probe_video(video) if video else None)
        if format_name == CLIPS:
            if video is None:
                raise InputError(f"{game}: no video to cut clips from", cure="name the data set that holds it")
            clips = write_clips(video, labels.events, out / labels.file_name)
            return MatchResult(match_id=game, status="written", columns={"spots": len(clips), "file": labels.file_name})
        text, _, name = export(labels, format_name)
        with disk_errors(out):
            write_text_atomic(out / name, text)
        return MatchResult(match_id=game, status="written", columns={"spots": len(labels.events), "file": name})

    results = each_match(sorted(games), one, SILENT)
    return Summary(results=tuple(results), target=str(out), seconds=time.perf_counter() - started)


def _spots(source: Path, splits: Sequence[Split]) -> tuple[dict[str, list[Event]], Sequence[str], Mapping[str, Path]]:
    """Spots by game, their classes, and videos by game."""
    if source.is_dir() and (source / RECORD).exists():
        paths = find_predictions(source, game_id=game_of_folder(source))
        games = {game: [*read_events(path, key="predictions")] for game, path in paths.items()}
        return games, sorted({event.label for events in games.values() for event in events}), {}
    found = find_labels(source, splits=splits)
    games = {game: read_labels(each) if isinstance(each, Path) else [*each] for game, each in found.files.items()}
    videos = {}
    if source.is_dir() and not (source / METADATA).exists():
        videos = {match.game: match.video for match in find_data_set(source).matches if match.video is not None}
    return games, found.classes, videos


def _soccernet(labels: Labels) -> str:
    key = "predictions" if any(event.confidence is not None for event in labels.events) else "annotations"
    document = {"UrlLocal": labels.match_id, key: [event.to_json() for event in labels.events]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _osl(labels: Labels) -> str:
    """OpenSportsLab's JSON, version 2."""
    events = []
    for event in labels.events:
        record: dict[str, Any] = {"head": "action", "label": event.label, "position_ms": str(event.position_ms)}
        record |= {name: value for name, value in (("team", event.team), ("player", event.player)) if value}
        events.append(record if event.confidence is None else {**record, "confidence": float(event.confidence)})
    document = {
        "version": "2.0",
        "task": "action_spotting",
        "dataset_name": labels.match_id,
        "labels": {"action": {"type": "single_label", "labels": list(labels.classes)}},
        "data": [
            {
                "id": labels.match_id,
                "inputs": [{"type": "video", "path": labels.video_name, "fps": float(labels.fps)}],
                "events": events,
            }
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _csv(labels: Labels) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_team = any(event.team for event in labels.events)
    writer.writerow(("video", "position_ms", "time", "label", *(["team"] if has_team else [])))
    for event in labels.events:
        name = f"'{event.label}" if event.label[:1] in "=+-@" else event.label  # a spreadsheet would compute it
        row = (labels.video_name, event.position_ms, _clock(event.position_ms, "."), name)
        writer.writerow((*row, event.team) if has_team else row)
    return text.getvalue()


def _edl(labels: Labels) -> str:
    """CMX 3600: source in and out, record in and out, in frames of a whole rate."""
    rate = max(1, round(labels.fps))
    lines, at = [f"TITLE: {_line(labels.match_id)}", "FCM: NON-DROP FRAME", ""], 0
    for number, (from_ms, to_ms, name) in enumerate(labels.clips_ms, 1):
        first, stop = map(TimeGrid(labels.fps).frame, (from_ms, to_ms))
        times = (_timecode(frame, rate) for frame in (first, stop, at, at + stop - first))
        lines += [
            f"{number:03d}  AX       V     C        {' '.join(times)}",
            f"* FROM CLIP NAME: {_line(labels.video_name)}",
            f"* COMMENT: {_line(name)}",
            "",
        ]
        at += stop - first
    return "\n".join(lines) + "\n"


def _fcpxml(labels: Labels) -> str:
    """Final Cut Pro XML 1.9: one clip after the other, its marker where the spot is."""
    fps = labels.fps
    frame = f"{fps.denominator}/{fps.numerator}s"

    def time(frames: int) -> str:
        return f"{frames * fps.denominator}/{fps.numerator}s"

    root = ElementTree.Element("fcpxml", version="1.9")
    resources = ElementTree.SubElement(root, "resources")
    width, height = map(str, labels.size)
    ElementTree.SubElement(resources, "format", id="r1", frameDuration=frame, width=width, height=height)
    length = time(max(1, int(labels.seconds * fps)))
    asset = ElementTree.SubElement(
        resources, "asset", id="r2", name=labels.video_name, start="0s", duration=length, hasVideo="1", format="r1"
    )
    ElementTree.SubElement(asset, "media-rep", kind="original-media", src=labels.video_name)
    event = ElementTree.SubElement(ElementTree.SubElement(root, "library"), "event", name=labels.match_id)
    sequence = ElementTree.SubElement(
        ElementTree.SubElement(event, "project", name=labels.match_id), "sequence", format="r1"
    )
    spine, at = ElementTree.SubElement(sequence, "spine"), 0
    for spot, (from_ms, to_ms, name) in zip(labels.events, labels.clips_ms, strict=True):
        first, stop = map(TimeGrid(fps).frame, (from_ms, to_ms))
        clip = ElementTree.SubElement(
            spine, "asset-clip", ref="r2", name=name, offset=time(at), start=time(first), duration=time(stop - first)
        )
        ElementTree.SubElement(
            clip, "marker", start=time(TimeGrid(fps).frame(spot.position_ms)), duration=frame, value=name
        )
        at += stop - first
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _vtt(labels: Labels) -> str:
    """WebVTT cues, which players show as subtitles or chapters."""
    parts = ["WEBVTT\n"]
    for from_ms, to_ms, name in labels.clips_ms:
        text = _line(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        parts.append(f"{_clock(from_ms, '.')} --> {_clock(to_ms, '.')}\n{text}\n")
    return "\n".join(parts)


def _ffmetadata(labels: Labels) -> str:
    """Chapters for `ffmpeg -i VIDEO -i FILE -map_metadata 1 -codec copy OUT`."""
    lines = [";FFMETADATA1"]
    starts = [*(event.position_ms for event in labels.events), round(1000 * labels.seconds)]
    for event, stop in zip(labels.events, starts[1:], strict=True):
        name = "".join(f"\\{letter}" if letter in "=;#\\" else letter for letter in _line(event.label))
        end = max(stop, event.position_ms + 1)
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={event.position_ms}", f"END={end}", f"title={name}"]
    return "\n".join(lines) + "\n"


def _second_halves(path: Path) -> dict[str, int]:
    """Game -> first frame of its second half, from a file of the same games in this format."""
    halves = read_rows(path)
    return {game_of(half): int(min(rows)[0]) for half, rows in halves.items() if half.endswith("_H2") and rows}


def _footpass(games: Mapping[str, Sequence[Event]], first_frames: Mapping[str, int]) -> str:
    """Spots of games as one document, in time order.

    Args:
        games: id, whose last part is FOOTPASS's name such as `game_18` -> its spots, all on the clock of one video.
        first_frames: game -> first frame of its second half.

    Raises:
        InputError: a game whose second half is not known, or a spot that names no side.
    """
    found: dict[str, list[list[int | float]]] = {}
    for game, events in games.items():
        name = game.rsplit("/", 1)[-1]
        if name not in first_frames:
            raise InputError(
                f"{game}: nobody says where its second half begins",
                got=", ".join(list(first_frames)[:3]) or "no games",
                wanted="a file of the same games",
                cure="--halves playbyplay_TAAD_val.json, or another file of FOOTPASS that holds them",
            )
        halves: tuple[list[list[int | float]], list[list[int | float]]] = [], []
        for event in sorted(events, key=lambda event: event.position_ms):
            if event.label in _CLASS_OF:
                cells = _cells(event, game)
                halves[cells[0] >= first_frames[name]].append(cells)
        found |= {f"{name}_H{number}": rows for number, rows in enumerate(halves, 1)}
    return json.dumps({"keys": list(found), "events": found}) + "\n"


def _cells(event: Event, game: str) -> list[int | float]:
    """Frame, team, jersey (0 where nobody knows it), class, and for a prediction its confidence."""
    if event.team not in SIDES:
        raise InputError(
            f"{game}: a spot names no side",
            got=event.team or "no team",
            wanted=" or ".join(SIDES),
            cure="predict with a run of bas train-head --classes-by team, whose labels name left and right",
        )
    jersey = int(event.player) if event.player.isdecimal() and len(event.player) < 4 else 0
    frame, number = TimeGrid(FPS).frame(event.position_ms), CLASSES.index(_CLASS_OF[event.label]) + 1
    return [frame, SIDES.index(event.team), jersey, number, *([] if event.confidence is None else [event.confidence])]


def _clock(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _timecode(frame: int, rate: int) -> str:
    seconds = frame // rate
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame % rate:02d}"


def _line(text: str) -> str:
    """Text that stays on its line."""
    return " ".join(text.split())


Write = Callable[[Labels], str]
FORMATS: Mapping[str, tuple[Write, str, str]] = {
    "soccernet": (_soccernet, "application/json", "-Labels-ball.json"),
    "osl": (_osl, "application/json", "-osl.json"),
    "csv": (_csv, "text/csv", ".csv"),
    "edl": (_edl, "text/plain", ".edl"),
    "fcpxml": (_fcpxml, "application/xml", ".fcpxml"),
    "vtt": (_vtt, "text/vtt", ".vtt"),
    "ffmetadata": (_ffmetadata, "text/plain", ".ffmeta"),
}
"""Name -> (writer, media type, ending)."""
