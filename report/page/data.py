"""Fills the page template with a report's data, one JSON object: figures as numbers, spots as packed columns.

Legend: E events and P predictions of a match in order of time, C classes, H thresholds.
"""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError
from ...eval.figures import METRIC, RARE_EVENTS, Figures, tolerances_frames
from ...eval.files import LoadedGames
from ...eval.metric import NUM_THRESHOLDS
from ...eval.mistakes import MISTAKES, OutcomeKind
from ...eval.report import finite
from ...files import write_text_atomic

FORMAT = "bas-report-1"
MAX_PER_EVENT = 20
"""Predictions of a class that a page holds, per event of it."""
MIN_PER_CLASS = 200
MAX_IN_ALL = 1_500_000
"""Predictions of all runs together that a page may hold, about."""
_COLUMNS = {"ms": "<u4", "cls": "<u1", "shown": "<u1", "bin": "<u1", "conf": "<f4", "taken": "<i4"}


@dataclass(frozen=True)
class EvaluatedRun:
    """One run on the page."""

    name: str
    about: Mapping[str, str]
    """What is worth knowing, by name."""
    loaded: LoadedGames
    figures: Figures


@dataclass(frozen=True)
class Clip:
    """A short piece of a match's video, in a file of its own."""

    from_ms: float
    to_ms: float
    address: str
    """Relative to the page."""


@dataclass(frozen=True)
class PageMatch:
    """One match (or half) on the page."""

    name: str
    seconds: float
    """At least; 0 where it is not known."""
    video: str | None
    """Where the page finds it: a relative or absolute address."""
    clips: tuple[Clip, ...] = ()
    """That are played where there is no whole video."""


def page_data(
    runs: Sequence[EvaluatedRun],
    matches: Sequence[PageMatch],
    classes: Sequence[str],
    *,
    title: str,
    fps: Fraction,
    ablation: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The page as plain JSON.

    Args:
        runs: runs, evaluated on the same games.
        matches: one per game of any run, in order.
        classes: (C,) names.
        title: headline.
        fps: frames per second of the videos' grid and cells per second of the metric.
        ablation: the content of `ablation.json`, where there is one.
        notes: what was noticed while the report was made.
    """
    half_width_frames, wide_frames = tolerances_frames(fps)
    per_event = _share(runs)
    return {
        "format": FORMAT,
        "title": title,
        "fps": float(fps),
        "metric": METRIC,
        "half_width_frames": half_width_frames,
        "wide_frames": wide_frames,
        "num_thresholds": NUM_THRESHOLDS,
        "rare_events": RARE_EVENTS,
        "kinds": {kind.name.lower(): int(kind) for kind in OutcomeKind},
        "classes": list(classes),
        "matches": [_match(match, runs) for match in matches],
        "runs": [_run(run, [match.name for match in matches], per_event) for run in runs],
        "ablation": finite(ablation),
        "notes": list(notes),
    }


def _share(runs: Sequence[EvaluatedRun]) -> int:
    """Predictions per event that each run may show."""
    events = sum(len(game.events.frames) for game in runs[0].figures.matched)
    return max(2, min(MAX_PER_EVENT, MAX_IN_ALL // max(events * len(runs), 1)))


def _match(match: PageMatch, runs: Sequence[EvaluatedRun]) -> dict[str, Any]:
    """Its events, which are the same for every run that has it."""
    for run in runs:
        if match.name in run.loaded.names:
            index = run.loaded.names.index(match.name)
            events, times = run.figures.matched[index].events, run.loaded.times[index]
            columns = {"ms": times.events_ms[events.order], "cls": events.classes, "shown": events.values > 0}
            clips = [[clip.from_ms, clip.to_ms, clip.address] for clip in match.clips]
            about = {"name": match.name, "seconds": match.seconds, "video": match.video, "clips": clips}
            return about | {"events": _pack(columns)}
    raise AssertionError(f"{match.name} is of no run")


def _run(run: EvaluatedRun, names: Sequence[str], per_event: int) -> dict[str, Any]:
    figures = run.figures
    kept = _kept(figures, per_event)
    places = [np.cumsum(each) - 1 for each in kept]  # index among all predictions -> among those that are kept
    where = [names.index(name) for name in run.loaded.names]
    nothing = _pack({"ms": (), "cls": (), "bin": (), "conf": ()}) | {"taken": ""}  # a match that only others have
    matches: list[dict[str, Any]] = [{"predictions": nothing} for _ in names]
    for place, matched, times, is_kept in zip(where, figures.matched, run.loaded.times, kept, strict=True):
        shown = matched.keep(is_kept)
        found = shown.predictions
        columns = {
            "ms": times.predictions_ms[found.order],
            "cls": found.classes,
            "bin": shown.bins,
            "conf": found.values,
        }
        matches[place] = {"predictions": _pack(columns) | {"taken": _packed("taken", shown.prediction_of)}}
    return {
        "name": run.name,
        "about": dict(run.about),
        "report": figures.report.to_json(),
        "curves": [
            {"hits": curve.hits.tolist(), "kept": curve.kept.tolist(), "events": curve.num_events, "best": best}
            for curve, best in zip(figures.curves, figures.thresholds, strict=True)
        ],
        "late": dict(zip(("sure", "other"), figures.lateness.tolist(), strict=True)),
        "confusion": figures.confusion.tolist(),
        "mistakes": [
            [
                int(each.kind),
                where[each.game],
                each.event,
                int(places[each.game][each.prediction]) if each.prediction >= 0 else -1,
            ]
            for each in figures.mistakes
        ],
        "mistake_counts": {kind.name.lower(): _times(figures, kind) for kind in MISTAKES},
        "num_left_out": sum(int(np.count_nonzero(~each)) for each in kept),
        "matches": matches,
    }


def _times(figures: Figures, kind: OutcomeKind) -> int:
    """How often a mistake was made, over all games."""
    kinds = [each.event_kinds if kind == OutcomeKind.MISSED else each.prediction_kinds for each in figures.outcomes]
    return sum(int(np.count_nonzero(each == kind)) for each in kinds)


def _kept(figures: Figures, per_event: int) -> list[NDArray[np.bool_]]:
    """Per game (P,) which predictions the page holds: the surest of each class, and all that matter elsewhere on it."""
    scores = np.concatenate([game.predictions.values for game in figures.matched])
    classes = np.concatenate([game.predictions.classes for game in figures.matched])
    bins = np.concatenate([game.bins for game in figures.matched])
    # all that reach their threshold stay (the tables count them), then the surest of each class, then those of pairs
    is_kept = bins >= np.array(figures.thresholds)[classes]
    for c, curve in enumerate(figures.curves):
        of_class = np.nonzero(classes == c)[0]
        most = max(MIN_PER_CLASS, per_event * curve.num_events)
        is_kept[of_class[np.argsort(-scores[of_class], kind="stable")[:most]]] = True
    ends = np.cumsum([len(game.predictions.values) for game in figures.matched])
    parts = np.split(is_kept, ends[:-1])
    for part, game in zip(parts, figures.matched, strict=True):
        part[game.prediction_of[game.prediction_of >= 0]] = True
    return parts


def _pack(columns: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Columns of one length."""
    return {"count": len(np.asarray(columns["ms"]))} | {name: _packed(name, values) for name, values in columns.items()}


def _packed(name: str, values: ArrayLike) -> str:
    """Base64 of the values in the column's type, little-endian."""
    return base64.b64encode(np.asarray(values).astype(_COLUMNS[name]).tobytes()).decode()


PAGE = "index.html"
_TEMPLATE = Path(__file__).parent
_SHARED = ("dom", "span", "lanes", "player", "pointer", "address")
_SCRIPTS = (*_SHARED, "data", "summary", "charts", "mistakes", "marks", "timeline", "board", "main")
_LABEL_SCRIPTS = (*_SHARED, "spots", "server", "proposals", "panels", "label_lanes", "label", "label_main")
"""In order: all become one module script."""
_MARK = "<!-- bas report -->"
_HEAD_CHARACTERS = 400


def page_text(data: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        data: as `page_data` makes it. Names in it may hold anything: the page shows them as text only.
    """
    parts = {
        "mark": _MARK,
        "title": html.escape(str(data["title"])),
        "style": _template("page.css"),
        # no "<": nothing in it can end the script element that holds it
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": _script(_SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _template("index.html"))


def label_page() -> dict[str, tuple[str, str]]:
    """The files of the label page: address -> (media type, text). There is no data in them."""
    return {
        "/": ("text/html", _template("label.html")),
        "/page.css": ("text/css", _template("page.css")),
        "/page.js": ("text/javascript", _script(_LABEL_SCRIPTS)),
    }


def write_page(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write `index.html` whole or not at all; a page of ours is replaced.

    Raises:
        InputError: there is an `index.html` that is not ours.
        OSError: as the file system says.
    """
    require_own_page(folder)
    path = folder / PAGE
    write_text_atomic(path, page_text(data))
    return path


def require_own_page(folder: Path) -> None:
    """Refuse a folder whose `index.html` was not made here.

    Raises:
        InputError: it would be overwritten.
    """
    path = folder / PAGE
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        is_own = _MARK in file.read(_HEAD_CHARACTERS)
    if not is_own:
        raise InputError(
            f"{path}: would be overwritten", got="a page that `bas report` did not make", cure="name another --out"
        )


def _script(names: Sequence[str]) -> str:
    return "\n".join(_template(f"{name}.js") for name in names)


def _template(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")
