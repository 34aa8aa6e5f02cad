"""Short clips of the worst errors and the surest hits, for a report that is handed on without its videos."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from ..data.clips import MOST_CLIPS, open_small, write_clip
from ..errors import InputError
from ..eval.mistakes import OutcomeKind
from ..events import TimeGrid
from ..files import disk_errors
from ..workers import Progress
from .page.data import Clip, EvaluatedRun

FOLDER = "clips"
MOST_HITS = 50
"""How many of the clips may be of hits."""
_EITHER_WAY_MS, _LEAST_MS = 2000, 1000
"""What a clip shows around its spot; of a spot that is that far inside another clip none is made."""
_Spot = tuple[str, int]
"""Match and milliseconds."""


def cut_clips(
    runs: Sequence[EvaluatedRun], videos: Mapping[str, Path], out: Path, fps: Fraction, progress: Progress
) -> tuple[dict[str, tuple[Clip, ...]], list[str]]:
    """Write the clips into a folder, in place of those of a report before; match -> clips in order, and problems.

    Args:
        runs: whose errors and hits are shown.
        videos: match name -> file; spots of other matches are passed over.
        out: folder of the page.
        fps: frames per second of the page, which the clips have as well.
        progress: hears of every match.
    """
    folder, made, notes = out / FOLDER, dict[str, tuple[Clip, ...]](), list[str]()
    with disk_errors(folder):
        for old in folder.glob("*.mp4"):
            if re.fullmatch(r"\d{3}", old.stem):
                old.unlink()
    number = 0
    for name, spots_ms in _windows(_spots(runs), videos).items():
        progress.note(f"{name}: {len(spots_ms)} clip(s)")
        try:
            video = open_small(videos[name], fps)
            of_match = []
            for from_ms, to_ms in spots_ms:
                steps = [min(video.num_steps, TimeGrid(fps).frame(ms)) for ms in (from_ms, to_ms)]
                if steps[0] < steps[1]:
                    number += 1
                    address = f"{FOLDER}/{number:03d}.mp4"
                    write_clip(out / address, video, steps[0], steps[1], fps)
                    first_ms, last_ms = (float(1000 * step / fps) for step in steps)
                    of_match.append(Clip(first_ms, last_ms, address))
            made[name] = tuple(of_match)
        except InputError as error:
            notes.append(f"{name}: no clips: {error}")
    return made, notes


def _spots(runs: Sequence[EvaluatedRun]) -> Iterator[_Spot]:
    """The worst errors of every run and kind in turn, then the surest hits."""
    hits = list(_in_turn([_hits(run) for run in runs]))[:MOST_HITS]
    kinds = {mistake.kind: None for run in runs for mistake in run.figures.mistakes}
    mistakes = _in_turn([_mistakes(run, kind) for run in runs for kind in kinds])
    yield from list(dict.fromkeys(mistakes))[: MOST_CLIPS - len(hits)]
    yield from hits


def _in_turn(lists: Sequence[Sequence[_Spot]]) -> Iterable[_Spot]:
    """The first of each list, then the second of each, and so on."""
    return (each for each in chain.from_iterable(zip_longest(*lists)) if each is not None)


def _mistakes(run: EvaluatedRun, kind: OutcomeKind) -> list[_Spot]:
    found = []
    for each in run.figures.mistakes:
        times, matched = run.loaded.times[each.game], run.figures.matched[each.game]
        if each.event >= 0:
            ms = times.events_ms[matched.events.order][each.event]
        else:
            ms = times.predictions_ms[matched.predictions.order][each.prediction]
        if each.kind == kind:
            found.append((run.loaded.names[each.game], int(ms)))
    return found


def _hits(run: EvaluatedRun) -> list[_Spot]:
    found: list[tuple[float, str, int]] = []
    for name, times, matched, outcome in zip(
        run.loaded.names, run.loaded.times, run.figures.matched, run.figures.outcomes, strict=True
    ):
        ms, values = times.predictions_ms[matched.predictions.order], matched.predictions.values
        hits = np.flatnonzero(outcome.prediction_kinds == OutcomeKind.HIT)
        found += [(-float(values[p]), name, int(ms[p])) for p in hits]
    return [(name, ms) for _, name, ms in sorted(found)]


def _windows(spots: Iterable[_Spot], videos: Mapping[str, Path]) -> dict[str, list[tuple[int, int]]]:
    """Match -> (from, to) of its clips, in order of time."""
    windows: dict[str, list[tuple[int, int]]] = {}
    for name, ms in spots:
        held = windows.setdefault(name, []) if name in videos else []
        least = max(0, ms - _LEAST_MS)
        if name in videos and not any(first <= least and ms + _LEAST_MS <= last for first, last in held):
            held.append((max(0, ms - _EITHER_WAY_MS), ms + _EITHER_WAY_MS))
    return {name: sorted(held) for name, held in windows.items()}
