"""How far two people agree on a stretch that both have marked: Cohen's kappa and the difference in time."""

import glob
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .document import Document, Item, journal_of, read_journal

NEAR_MS = 1000
"""Two marks are of one event where they are at most this far apart."""
_NOTHING = "-"


def agreements(path: Path, document: Document, *, half: int) -> list[dict[str, Any]]:
    """Every two people who labelled this match into files of their own, on the time that both have marked.

    Args:
        path: the label file that is open here.
        document: what it holds.
        half: of the match.
    """
    shared = path.name.partition("Labels-ball")[0] + "Labels-ball"
    people = {_name(path, shared): (document.of_kind("spot", half=half), document.of_kind("stretch", half=half))}
    for other in sorted(path.parent.glob(f"{glob.escape(shared)}*.json")):
        if other == path or not journal_of(other).exists():
            continue
        items = [item for item in read_journal(other).values() if item["half"] == half]
        people[_name(other, shared)] = tuple([i for i in items if i["kind"] == kind] for kind in ("spot", "stretch"))  # type: ignore[assignment]
    return [
        {"a": a, "b": b, **found}
        for (a, of_a), (b, of_b) in combinations(people.items(), 2)
        if (found := agreement(*of_a, *of_b))
    ]


def agreement(
    spots_a: Sequence[Item], stretches_a: Sequence[Item], spots_b: Sequence[Item], stretches_b: Sequence[Item]
) -> dict[str, Any] | None:
    """Seconds that both have marked, spots of each there, kappa over classes ("nothing" is one), median difference.

    Marks are paired from the nearest on, at most `NEAR_MS` apart, of one class before those of two. None where no time
    is marked by both.
    """
    from sklearn.metrics import cohen_kappa_score

    both = [(max(x, u), min(y, v)) for x, y in _merged(stretches_a) for u, v in _merged(stretches_b)]
    common = [(start, stop) for start, stop in both if start < stop]
    if not common:
        return None
    marks_a, marks_b = (
        sorted(
            (item["ms"], item["label"]) for item in spots if any(start <= item["ms"] < stop for start, stop in common)
        )
        for spots in (spots_a, spots_b)
    )
    pairs = _pairs(marks_a, marks_b)
    taken_a, taken_b = {a for a, _ in pairs}, {b for _, b in pairs}
    said_a = [marks_a[a][1] for a, _ in pairs] + [label for n, (_, label) in enumerate(marks_a) if n not in taken_a]
    said_a += [_NOTHING] * (len(marks_b) - len(taken_b))
    said_b = [marks_b[b][1] for _, b in pairs] + [_NOTHING] * (len(marks_a) - len(taken_a))
    said_b += [label for n, (_, label) in enumerate(marks_b) if n not in taken_b]
    differences = [abs(marks_a[a][0] - marks_b[b][0]) for a, b in pairs if marks_a[a][1] == marks_b[b][1]]
    kappa = float(cohen_kappa_score(said_a, said_b)) if len(set(said_a) | set(said_b)) > 1 else float(said_a == said_b)
    return {
        "seconds": sum(stop - start for start, stop in common) / 1000,
        "spots_a": len(marks_a),
        "spots_b": len(marks_b),
        "kappa": round(kappa, 3),
        "median_ms": float(np.median(differences)) if differences else None,
    }


def _pairs(marks_a: Sequence[tuple[int, str]], marks_b: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
    times_b = [ms for ms, _ in marks_b]
    near = [
        (label_a != marks_b[b][1], abs(ms_a - times_b[b]), a, b)
        for a, (ms_a, label_a) in enumerate(marks_a)
        for b in range(bisect_left(times_b, ms_a - NEAR_MS), bisect_right(times_b, ms_a + NEAR_MS))
    ]
    free_a, free_b, pairs = set(range(len(marks_a))), set(range(len(marks_b))), []
    for _, _, a, b in sorted(near):
        if a in free_a and b in free_b:
            free_a.remove(a)
            free_b.remove(b)
            pairs.append((a, b))
    return pairs


def _merged(stretches: Sequence[Item]) -> list[tuple[int, int]]:
    """Time that is in any of them, without overlaps."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((item["from_ms"], item["to_ms"]) for item in stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    return merged


def _name(path: Path, shared: str) -> str:
    """Who labelled into a file: `anna` of `Labels-ball.anna.json`."""
    return path.name.removeprefix(shared).removesuffix(".json").strip(".") or path.name
