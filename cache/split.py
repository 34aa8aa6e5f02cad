"""`bas cache split`: each match of a store cut by time into matches that train, validate and test.

For people with one labelled video. Everything after it (training, prediction, evaluation) sees ordinary matches.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..events import Event, Split
from ..workers import SILENT, MatchResult, Progress, Summary, each_match
from .store import FeatureStore

_WRITE_ROWS = 8192
_ORDER: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class TimeSplit:
    """Shares of a match's time."""

    shares: tuple[Fraction, ...]
    """Of train, valid and (where there are three) test, in this order in time; they sum to 1."""
    gap_seconds: float
    """Left out between two parts: windows over the features of one would see the other, and play goes on across."""

    @classmethod
    def parse(cls, text: str, *, gap_seconds: float) -> "TimeSplit":
        """From such as `0.7/0.15/0.15`.

        Raises:
            InputError: it is no split.
        """
        try:
            shares = tuple(map(Fraction, text.split("/")))
        except (ValueError, ZeroDivisionError):
            shares = ()
        if len(shares) not in (2, 3) or min(shares) <= 0 or sum(shares) != 1 or not 0 <= gap_seconds < 1e6:
            raise InputError(
                "shares of time are not usable",
                got=f"{text!r}, gap {gap_seconds:g} s",
                wanted="two or three shares above 0 that sum to 1 (train/valid/test), and a gap of 0 s or more",
                cure="--by-time 0.7/0.15/0.15 --gap 10",
            )
        return cls(shares, gap_seconds)

    def parts(self, num_rows: int, fps: Fraction) -> list[tuple[Split, int, int]]:
        """(split, first row, row after the last) of each part of a match; they begin at whole seconds.

        Raises:
            InputError: a part has no row, as the match is short.
        """
        cuts = [0, *(int(num_rows / fps * sum(self.shares[: number + 1])) for number in range(len(self.shares) - 1))]
        starts = [round((cut + (self.gap_seconds if cut else 0)) * fps) for cut in cuts]
        stops = [*(round(cut * fps) for cut in cuts[1:]), num_rows]
        parts = list(zip(_ORDER, starts, stops, strict=False))
        if any(start >= stop for _, start, stop in parts):
            raise InputError(
                "match is too short to be split",
                got=f"{float(num_rows / fps):.0f} s",
                wanted=f"more than the gap of {self.gap_seconds:g} s in each part",
                cure="a smaller --gap, or larger shares",
            )
        return parts


def split_store(store_path: Path, out: Path, by_time: TimeSplit, *, progress: Progress = SILENT) -> Summary:
    """Cut every labelled match of a store into parts, each a match of a new store; what is there is left alone.

    Raises:
        InputError: not a store, or `out` holds other features. A match that fails is in the summary instead.
    """
    started, store = time.perf_counter(), FeatureStore.open(store_path)
    if out.resolve() == store.path.resolve():
        raise InputError(f"{out}: a store cannot be split in place", cure="name another --out")
    target = store.create_like(out, store.settings, store.reduction)
    ids = store.matches()
    progress.started(len(ids), 0)
    results = each_match(ids, lambda match_id: _split(store, target, match_id, by_time), progress)
    return Summary(
        results=tuple(results),
        target=str(out),
        seconds=time.perf_counter() - started,
        amount=sum(result.num_rows for result in results if result.status == "split"),
    )


def _split(store: FeatureStore, target: FeatureStore, match_id: str, by_time: TimeSplit) -> MatchResult:
    started, match = time.perf_counter(), store.match(match_id)
    events = match.meta.events()
    if events is None or any(event.half != 1 for event in events):
        raise InputError(
            f"{store.path}: match {match_id!r} cannot be split by time",
            got="no labels" if events is None else "labels that begin again in the second half",
            wanted="labels that count from the start of its video",
            cure="label it, and extract again (rows are kept)",
        )
    counts, done = {}, 0
    for split, first, stop in by_time.parts(match.num_rows, match.meta.fps):
        grid = match.meta.grid
        own = [event for event in events if first <= grid.frame(event.position_ms) < stop]
        counts[split] = len(own)
        done += _write(store, target, match_id, split, range(first, stop), own)
    return MatchResult(
        match_id=match_id,
        status="split" if done else "already there",
        num_rows=match.num_rows,
        seconds=time.perf_counter() - started,
        columns={f"{split} events": count for split, count in counts.items()},
    )


def _write(
    store: FeatureStore, target: FeatureStore, match_id: str, split: Split, span: range, events: Sequence[Event]
) -> int:
    """Write the views of a part that are missing; how many they were."""
    meta, part_id = store.match(match_id).meta, f"{match_id}-{split}"
    if target.views(part_id):
        there = target.match(part_id)
        if (there.meta.extra.get("first_row"), there.num_rows) != (span.start, len(span)):
            raise InputError(
                f"{target.path}: holds another split of {match_id!r}",
                got=f"{split} from row {there.meta.extra.get('first_row')}, {there.num_rows} rows",
                wanted=f"from row {span.start}, {len(span)} rows",
                cure="name another --out, or remove that store",
            )
    start_ms = meta.grid.ms(span.start)
    labels = [replace(event, position_ms=max(0, event.position_ms - start_ms)).to_json() for event in events]
    part = replace(
        meta,
        split=split,
        origin_ticks=meta.origin_ticks + round(meta.grid.seconds(span.start) / meta.time_base),
        labels=tuple(labels),
        extra={**meta.extra, "part_of": match_id, "first_row": span.start},
    )
    missing = [view for view in store.views(match_id) if view not in target.views(part_id)]
    here = slice(span.start, span.stop)
    valid, pts = store.valid(match_id)[here], store.pts(match_id)[here]
    for view in missing:
        rows = store.rows(match_id, view)
        with target.writer(
            part_id,
            views=(view,),
            num_rows=len(span),
            pts_ticks=pts,
            match_meta=part,
            provenance={"engine": "split", "source": store.source_of(match_id, view)},
        ) as writer:
            for first in range(writer.rows_done, len(span), _WRITE_ROWS):
                stop = min(first + _WRITE_ROWS, len(span))
                writer.append({view: np.asarray(rows[span.start + first : span.start + stop])}, valid[first:stop])
            writer.commit()
    return len(missing)
