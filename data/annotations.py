"""Spots as other programs and data sets write them: CSV, JSON of several makers, CVAT's time lines."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..errors import InputError
from ..eval import players
from ..events import SOCCERNET_BALL_CLASSES, TimeGrid, parse_event
from ..files import decode_text, parse_json, read_bounded

MAX_BYTES = 256 << 20
_MAX_MS = 24 * 3600 * 1000
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,9})?)", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(?:[.,]\d{1,9})?", re.ASCII)
_TABLES = (".csv", ".tsv", ".txt")
_TIMES = ("time", "seconds", "second", "position", "start", "timestamp", "position_ms", "ms", "milliseconds", "frame")
_COUNTS = ("position_ms", "ms", "milliseconds", "frame")
"""Of these the columns of whole numbers."""
_COLUMNS: Mapping[str, Sequence[str]] = {
    "video": ("video", "file", "filename", "match", "game", "path", "video_path"),
    "time": _TIMES,
    "label": ("label", "class", "event", "action", "name", "tag"),
    "team": ("team", "side"),
}
"""Column names of a CSV file, in lower case; the first that it has is read."""


class NotAnnotations(InputError):  # noqa: N818 (an InputError by nature)
    """A file that is of no format of spots that is known here."""


@dataclass(frozen=True)
class Annotation:
    """A spot in a file of another program."""

    label: str
    video: str
    """Name or path of its video as the file gives it; empty where the file is about one video."""
    ms: int | None = None
    """From the start of the video; None: `frame` says where."""
    frame: int | None = None
    """From 0, in the order of the video's frames."""
    team: str = ""
    half: int = 1
    player: str = ""


def read_annotations(path: Path) -> tuple[str, list[Annotation]]:
    """(name of the format, spots in the order of the file).

    Raises:
        NotAnnotations: unreadable, or of no format that is known.
        InputError: a spot in it is not usable (names the line or entry).
    """
    suffix = path.suffix.lower()
    try:
        data = read_bounded(path, max_bytes=MAX_BYTES)
        text = decode_text(data, where=str(path)) if suffix in _TABLES else ""
        document = parse_json(data, where=str(path)) if suffix not in (*_TABLES, ".xml") else None
    except InputError as error:
        raise NotAnnotations(error.what, got=error.got, wanted=error.wanted, cure=error.cure) from None
    if suffix == ".xml":
        return "CVAT", list(_cvat(data, path))
    if suffix in _TABLES:
        return "CSV", list(_csv(text, path))
    name = _format_of(document)
    if name is None:
        keys = f"keys {', '.join(map(str, list(document)[:6]))}" if isinstance(document, Mapping) else ""
        raise NotAnnotations(
            f"{path}: annotations of a format that is not known",
            got=f"JSON with {keys or f'a {type(document).__name__}'}",
            wanted=f"CSV, CVAT for video's XML, {', '.join(_JSON)}",
            cure="export it as CSV: a line per spot with its time in seconds (or mm:ss.cc) and its label",
        )
    return name, list(_JSON[name](document, path))


def by_video(path: Path, annotations: Sequence[Annotation], videos: Sequence[Path]) -> list[list[Annotation]]:
    """The spots of a file that are about each video, by the video's name or path as the file gives it.

    A spot without a video's name is about the only video that there is, or that lies beside the file, or the one that
    has the file's own name. Of videos with one name, as `224p.mp4` in a folder per match, a spot must name the folder,
    too, unless the file lies beside its video.

    Args:
        path: the file.
        annotations: its spots.
        videos: all that it may be about.
    """
    names = Counter(video.stem.casefold() for video in videos)
    beside = [video for video in videos if video.parent == path.parent]

    def is_own(video: Path) -> bool:
        has_its_name = path.stem.casefold() == video.stem.casefold()
        return len(videos) == 1 or (video in beside and (len(beside) == 1 or has_its_name))

    return [
        [each for each in annotations if _is_about(each.video, video, is_own(video), names[video.stem.casefold()] > 1)]
        for video in videos
    ]


def _is_about(name: str, video: Path, is_own: bool, is_ambiguous: bool) -> bool:
    parts = [part.casefold() for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return is_own
    last = re.sub(r"^[0-9a-f]{8}-", "", parts[-1])  # Label Studio puts this before the name of an upload
    if last not in (video.name.casefold(), video.stem.casefold()):
        return False
    folders = [part.casefold() for part in video.resolve().parts[:-1]]
    return is_own or not is_ambiguous or (len(parts) > 1 and folders[1 - len(parts) :] == parts[:-1])


def parse_time_ms(text: str) -> int | None:
    """Whole milliseconds of `83.5`, `1:23.5` or `1:01:23,5` (seconds, minutes, hours); None where it is no time."""
    text = text.strip()
    if found := _CLOCK.fullmatch(text):
        hours, minutes, seconds = int(found[1] or 0), int(found[2]), Fraction(found[3].replace(",", "."))
        ms = round(1000 * (3600 * hours + 60 * minutes + seconds))
    elif _NUMBER.fullmatch(text):
        ms = round(1000 * Fraction(text.replace(",", ".")))
    else:
        return None
    return ms if 0 <= ms < _MAX_MS else None


def _csv(text: str, path: Path) -> Iterator[Annotation]:
    first = text.split("\n", 1)[0]
    delimiter = max((";", "\t", ","), key=first.count)
    rows = [(n, row) for n, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1) if any(row)]
    if not rows:
        return
    names = [cell.strip().lower() for cell in rows[0][1]]
    columns = {
        what: next((names.index(name) for name in known if name in names), None) for what, known in _COLUMNS.items()
    }
    if columns["label"] is None or columns["time"] is None:  # no header
        times = [parse_time_ms(cell) for cell in rows[0][1][:2]]
        start = next((place for place, ms in enumerate(times) if ms is not None), None)
        if start is None or len(rows[0][1]) <= start + 1 or parse_time_ms(rows[0][1][start + 1]) is not None:
            wanted = (
                f"a column of {', '.join(_TIMES)} and one of {', '.join(_COLUMNS['label'])}; or lines such as 83.5,PASS"
            )
            raise NotAnnotations(f"{path}: no table of spots", got=", ".join(rows[0][1])[:80], wanted=wanted)
        columns = {"video": 0 if start else None, "time": start, "label": start + 1, "team": start + 2}
        unit = "time"
    else:
        unit, rows = names[columns["time"]], rows[1:]
    for number, row in rows:
        cells = {
            what: row[place].strip() if place is not None and place < len(row) else ""
            for what, place in columns.items()
        }
        yield _of_cells(cells, unit, where=f"{path}: line {number}")


def _of_cells(cells: Mapping[str, str], unit: str, *, where: str) -> Annotation:
    time = cells["time"]
    if unit in _COUNTS:
        count, wanted = int(time) if time.isdigit() and len(time) < 10 else None, "a whole number"
    else:
        count, wanted = parse_time_ms(time), "seconds or mm:ss.cc"
    if count is None or not cells["label"]:
        got = f"{time!r}, {cells['label']!r}"
        raise InputError(f"{where}: no spot", got=got[:80], wanted=f"{unit} ({wanted}) and a label")
    # our own CSV puts an apostrophe before what a spreadsheet would compute
    label = cells["label"].removeprefix("'") if cells["label"][:2] in ("'=", "'+", "'-", "'@") else cells["label"]
    ms, frame = (None, count) if unit == "frame" else (count, None)
    return Annotation(label, cells["video"], ms=ms, frame=frame, team=cells["team"])


def _format_of(document: object) -> str | None:
    """Name of the format of a JSON document. SoccerNet's is asked for last: others have `annotations`, too."""
    if isinstance(document, list):
        is_tasks = all(isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in document)
        return "Label Studio" if document and is_tasks else None
    if not isinstance(document, Mapping):
        return None
    data = document.get("data")
    if isinstance(data, list) and all(isinstance(each, Mapping) and "inputs" in each for each in data):
        return "OSL JSON"
    if _soccertrack_records(document) is not None:
        return "SoccerTrack-v2 JSON"
    if isinstance(document.get("events"), Mapping) and "keys" in document:
        return "FOOTPASS JSON"
    return "SoccerNet JSON" if isinstance(document.get("annotations"), list) else None


def _osl(document: Mapping[str, Any], path: Path) -> Iterator[Annotation]:
    for number, sample in enumerate(document["data"]):
        inputs = [each for each in sample["inputs"] if isinstance(each, Mapping)]
        video = next((str(each.get("path", "")) for each in inputs if each.get("type", "video") == "video"), "")
        for place, event in enumerate(sample.get("events") or ()):
            where = f"{path}: data[{number}].events[{place}]"
            record = {**event, "position": event.get("position_ms")} if isinstance(event, Mapping) else event
            parsed = parse_event(record, where=where)
            yield Annotation(parsed.label, video, ms=parsed.position_ms, team=parsed.team)


def _label_studio(document: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Annotation]:
    """Time-line labels in frames from 1, or labels with a start in seconds."""
    for number, task in enumerate(document):
        video = str(task["data"].get("video") or task["data"].get("audio") or "")
        for made in task.get("annotations") or ():
            for result in made.get("result") or ():
                value = result.get("value") or {}
                labels = value.get("timelinelabels") or value.get("labels") or ()
                where = f"{path}: task {number + 1}, result {result.get('id', '')}"
                for label in labels:
                    for span in value.get("ranges") or ():
                        frame = span.get("start")
                        if type(frame) is not int or frame < 1:
                            raise InputError(f"{where}: no usable frame", got=repr(frame)[:40], wanted="1 or more")
                        yield Annotation(str(label), video, frame=frame - 1)
                    if "start" in value:
                        ms = parse_time_ms(str(value["start"]))
                        if ms is None:
                            got = repr(value["start"])[:40]
                            raise InputError(f"{where}: no usable start", got=got, wanted="seconds")
                        yield Annotation(str(label), video, ms=ms)


_HALF_MS, _LATEST_MS = 45 * 60_000, 60 * 60_000
_PERIODS = {"1": "1st_half", "2": "2nd_half"}


def _soccertrack_records(document: Mapping[str, Any]) -> list[Any] | None:
    """Records of SoccerTrack-v2, which calls them `actions` in its files and `annotations` in its documentation."""
    for key in ("actions", "annotations"):
        records = document.get(key)
        if isinstance(records, list) and (
            key == "actions" or any(isinstance(each, Mapping) and "player_id" in each for each in records)
        ):
            return records
    return None


def _soccertrack(document: Mapping[str, Any], path: Path) -> Iterator[Annotation]:
    """SoccerTrack-v2's `MATCH_12_class_events.json`: of the videos `MATCH_panorama_1st_half` and `..._2nd_half`.

    Labels differ from SoccerNet's in case only. Positions of the second half count from its start, as documented, or
    from 45 minutes on, as in the released files. Some matches have a third period without a video: its events, some of
    which name a half, are of no video here.
    """
    events = []
    for number, record in enumerate(_soccertrack_records(document) or ()):
        event = parse_event(record, where=f"{path}: [{number}]")
        period, dash, _ = str(record.get("gameTime", "")).partition(" - ")
        events.append((event, _PERIODS.get(period.strip() if dash else "", ""), str(record.get("player_id") or "")))
    second = [event.position_ms for event, period, _ in events if period == _PERIODS["2"]]
    starts_ms = {_PERIODS["2"]: _HALF_MS if second and min(second) > _HALF_MS // 2 else 0}
    match, label_of = path.name.split("_")[0], {name.casefold(): name for name in SOCCERNET_BALL_CLASSES}
    for event, period, player in events:
        ms, label = max(0, event.position_ms - starts_ms.get(period, 0)), label_of.get(event.label.casefold())
        video = f"{match}_panorama_{period if period and ms < _LATEST_MS else 'without_video'}"
        yield Annotation(label or event.label, video, ms=ms, team=event.team, player=player)


def _footpass(document: Mapping[str, Any], path: Path) -> Iterator[Annotation]:
    for half, rows in players.rows_of(document, path).items():
        for frame, side, jersey, number, _ in rows:
            label, team = players.CLASSES[int(number) - 1], players.SIDES[int(side)]
            ms = TimeGrid(players.FPS).ms(int(frame))
            yield Annotation(label, players.game_of(half), ms=ms, team=team, player=str(int(jersey)))


def _soccernet(document: Mapping[str, Any], path: Path) -> Iterator[Annotation]:
    for number, record in enumerate(document["annotations"]):
        event = parse_event(record, where=f"{path}: annotations[{number}]")
        yield Annotation(event.label, "", ms=event.position_ms, team=event.team, half=event.half)


_JSON: Mapping[str, Callable[[Any, Path], Iterator[Annotation]]] = {
    "OSL JSON": _osl,
    "Label Studio": _label_studio,
    "SoccerTrack-v2 JSON": _soccertrack,
    "FOOTPASS JSON": _footpass,
    "SoccerNet JSON": _soccernet,
}


def _cvat(data: bytes, path: Path) -> Iterator[Annotation]:
    """CVAT for video: the first frame of each track; CVAT for images: the tags of each frame."""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise NotAnnotations(f"{path}: not valid XML", got=error, cure="export it again") from None
    if root.tag != "annotations":
        raise NotAnnotations(f"{path}: not from CVAT", got=f"<{root.tag}>", wanted="<annotations>")
    video = next((each.text or "" for each in root.iterfind(".//meta//source")), "")
    for track in root.iterfind("track"):
        frames = [shape.get("frame", "") for shape in track if shape.get("outside", "0") != "1"]
        if frames:
            yield Annotation(track.get("label", ""), video, frame=_frame(frames[0], path))
    for image in root.iterfind("image"):
        for tag in image.iterfind("tag"):
            yield Annotation(tag.get("label", ""), video, frame=_frame(image.get("id", ""), path))
    for tag in root.iterfind("tag"):
        yield Annotation(tag.get("label", ""), video, frame=_frame(tag.get("frame", ""), path))


def _frame(text: str, path: Path) -> int:
    if not text.isdigit() or len(text) > 9:
        raise InputError(f"{path}: no usable frame", got=repr(text)[:40], wanted="a whole number")
    return int(text)
