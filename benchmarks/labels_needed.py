"""How many labels, and how much of a person's time, until a head is as good, by `bas label`'s proposals or without.

`python benchmarks/labels_needed.py STORE --labelled MATCH... --unseen MATCH...`

The true labels of a store stand in for the person. Some matches are labelled one after the other, others judge.
  order      everything from the start on, without help
  assisted   likewise, but the heads' proposals are there: a key only where they are wrong
  teach, unsure, confidence   a first stretch in order, then proposals from anywhere, by that order
A person's seconds: a stretch is watched at its own speed; each mark, correction or answer is one key of `KEY_SECONDS`;
an answer to a proposal also watches `LOOK_SECONDS` around it. Training is not counted: it runs while one goes on.
"""

import argparse
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bas.cache.store import FeatureStore
from bas.eval.metric import MetricSettings, average_map
from bas.eval.peaks import default_peaks, find_spots
from bas.eval.spots import Game, Spots
from bas.label.learn import LearnData, LearnTask, Marked

KEY_SECONDS, LOOK_SECONDS, NEAR_MS = 1.0, 2.0, 500
CLASSES: list[str] = []
"""That are labelled."""
WAYS = ("order", "assisted", "teach", "unsure", "confidence")
Mark = tuple[int, int]
"""Milliseconds on the clock of all matches, one after the other, and class."""


@dataclass
class Clock:
    """Matches one after the other."""

    ids: list[str]
    starts_ms: list[int]
    """Of each match, and the end of the last."""

    @classmethod
    def of(cls, store: FeatureStore, ids: list[str]) -> "Clock":
        """The matches' own lengths."""
        starts = [0]
        for match_id in ids:
            info = store.match(match_id)
            starts.append(starts[-1] + int(1000 * info.num_rows / info.meta.fps))
        return cls(ids, starts)

    def place(self, ms: int) -> int:
        """Number of the match at a time."""
        return min(bisect_right(self.starts_ms, ms) - 1, len(self.ids) - 1)


@dataclass
class Person:
    """Knows the true events, and says what is asked."""

    clock: Clock
    truth: list[Mark]
    spots: set[Mark] = field(default_factory=set)
    rejects: set[Mark] = field(default_factory=set)
    until_ms: int = 0
    seconds: float = 0.0
    num_answers: int = 0

    def marked(self) -> list[Marked]:
        """What has been said so far, of each match."""
        found = []
        for number, match_id in enumerate(self.clock.ids):
            start, stop = self.clock.starts_ms[number : number + 2]
            own = [
                tuple(sorted((ms - start, c) for ms, c in marks if start <= ms < stop))
                for marks in (self.spots, self.rejects)
            ]
            until = min(self.until_ms, stop) - start
            found.append(Marked(match_id, own[0], ((0, until),) if until > 0 else (), own[1]))
        return found

    def goes_on(self, to_ms: int, proposals: list[tuple[int, int, float]]) -> None:
        """Mark the next stretch; proposals that are right, and sure enough to be shown, cost no key."""
        events = [each for each in self.truth if self.until_ms <= each[0] < to_ms]
        there = [each for each in proposals if self.until_ms <= each[0] < to_ms]
        thresholds = {c: 0.5 for _, c, _ in there}
        free, right, shown = list(events), 0, 0
        for ms, c, confidence in there:
            if confidence < thresholds[c]:
                continue
            shown += 1
            near = [each for each in free if each[1] == c and abs(each[0] - ms) <= NEAR_MS // 2]
            if near:
                free.remove(min(near, key=lambda each: abs(each[0] - ms)))
                right += 1
        self.seconds += (to_ms - self.until_ms) / 1000 + KEY_SECONDS * (len(events) - right + shown - right)
        self.spots |= set(events)
        self.until_ms = to_ms

    def answers(self, ms: int, c: int) -> None:
        """Look at a proposal: mark what there is, or say that there is nothing."""
        near = [each for each in self.truth if abs(each[0] - ms) <= NEAR_MS]
        new = set(near) - self.spots
        self.seconds += LOOK_SECONDS + KEY_SECONDS * max(1, len(new))
        self.spots |= new
        self.num_answers += 1
        if not any(each[1] == c for each in near):
            self.rejects.add((ms, c))

    def is_said(self, ms: int, c: int) -> bool:
        """Whether a proposal has been answered."""
        return (ms, c) in self.rejects or any(abs(at - ms) <= NEAR_MS and k == c for at, k in self.spots)


def truth_of(store: FeatureStore, match_id: str) -> list[Mark]:
    """(ms, class) of a match's events."""
    events = store.match(match_id).meta.events() or []
    return sorted((event.position_ms, CLASSES.index(event.label)) for event in events if event.label in CLASSES)


def judged(data: LearnData, models: list[Any], store: FeatureStore, first: int, args: argparse.Namespace) -> float:
    """Mean AP over the first classes, on the matches of the data from number `first` on."""
    games, fps = [], data.chosen.fps
    for number in range(first, len(data.task.marked)):
        scores = np.mean([data.scores(model, number) for model in models], axis=0)
        true = truth_of(store, data.task.marked[number].match_id)
        rows = [int(ms * fps / 1000) for ms, _ in true]
        events = Spots.collect(rows, [c for _, c in true], [1.0] * len(true), num_classes=len(CLASSES))
        games.append(Game(events, find_spots(scores, default_peaks(fps))))
    size = args.classes or len(CLASSES)
    per_class = average_map(games, MetricSettings((args.delta,), fps=fps)).per_class[:size]
    held = np.sum([game.events.counts for game in games], axis=0)[:size] > 0
    return float(per_class[held].mean())


def run(store: FeatureStore, labelled: list[str], unseen: list[str], way: str, args: argparse.Namespace) -> list[Any]:
    """Rounds of labelling: [spots, answers, seconds, mAP] after each."""
    clock = Clock.of(store, labelled)
    truth = [
        (start + ms, c)
        for start, match_id in zip(clock.starts_ms, labelled, strict=False)
        for ms, c in truth_of(store, match_id)
    ]
    person, rows, end_ms = Person(clock, truth), [], clock.starts_ms[-1]
    proposals: list[tuple[int, int, float, float]] = []
    """(ms, class, confidence, what the way orders by)"""
    for number in range(args.rounds):
        if number == 0 or way in ("order", "assisted"):
            seconds = args.first_seconds if number == 0 else args.step_seconds
            there = [(ms, c, sure) for ms, c, sure, _ in proposals] if way == "assisted" else []
            person.goes_on(min(end_ms, person.until_ms + round(1000 * seconds)), there)
        else:
            asked = 0
            for ms, c, _, _ in sorted(proposals, key=lambda each: -each[3]):
                if asked < args.answers and not person.is_said(ms, c):
                    person.answers(ms, c)
                    asked += 1
        marked = (*person.marked(), *(Marked(each, (), (), ()) for each in unseen))
        data = LearnData.open(LearnTask(store.path, tuple(CLASSES), marked, seed=args.seed))
        models = [data.train(data.known, seed=args.seed + head) for head in range(2)]
        proposals = []
        for place, start in enumerate(clock.starts_ms[:-1]):
            p = data.propose(models, place)
            proposals += [
                (start + int(ms), int(c), float(sure), float(value))
                for ms, c, sure, value in zip(p.ms, p.classes, p.confidence, getattr(p, way, p.confidence), strict=True)
            ]
        score = judged(data, models, store, len(labelled), args)
        rows.append([len(person.spots), person.num_answers, round(person.seconds, 1), round(100 * score, 2)])
        print(f"{labelled[0][-24:]:24s} {way:10s} {rows[-1]}", flush=True)
        if person.until_ms >= end_ms:
            break
    return rows


def needed(rows: list[Any], column: int, wanted: float) -> float | None:
    """Labels (0) or seconds (2) at which a way first reaches an mAP, interpolated between rounds."""
    for before, after in zip([rows[0], *rows], rows, strict=False):
        if after[3] >= wanted:
            rise = after[3] - before[3]
            share = 1.0 if rise <= 0 else (wanted - before[3]) / rise
            return float(before[column] + share * (after[column] - before[column]))
    return None


def main() -> None:
    """Print what each way needs for the best mAP that labelling in order reaches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--labelled", nargs="+", required=True, help="parts of ids of matches to label, in order")
    parser.add_argument("--unseen", nargs="+", required=True, help="parts of ids of matches that judge")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--first-seconds", type=float, default=180)
    parser.add_argument("--step-seconds", type=float, default=240)
    parser.add_argument("--answers", type=int, default=60, help="per round")
    parser.add_argument("--classes", type=int, default=0, help="mean over the first so many classes; 0: all")
    parser.add_argument("--only", default="", help="A,B,...: label these classes alone")
    parser.add_argument("--delta", type=Fraction, default=Fraction(1), help="full width of the tolerance in seconds")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    args = parser.parse_args()
    store = FeatureStore.open(args.store)
    CLASSES.extend(args.only.split(",") if args.only else store.classes)
    labelled, unseen = (
        [next(match_id for match_id in store.matches() if name in match_id) for name in names]
        for names in (args.labelled, args.unseen)
    )
    found: dict[str, list[Any]] = {way: [] for way in args.ways}
    for seed in range(args.seeds):
        args.seed = seed
        for way in args.ways:
            found[way].append(run(store, labelled, unseen, way, args))
    print(json.dumps(found))
    means = {way: np.mean([rows[: min(map(len, runs))] for rows in runs], axis=0) for way, runs in found.items()}
    best = means["order"][np.argmax(means["order"][:, 3])]
    for wanted in (0.9 * best[3], best[3]):
        base = [needed(means["order"].tolist(), column, wanted) or 1.0 for column in (0, 2)]
        for way, rows in means.items():
            shares = [needed(rows.tolist(), column, wanted) for column in (0, 2)]
            cells = ["-" if s is None else f"{s:.0f} ({s / b:.2f})" for s, b in zip(shares, base, strict=True)]
            print(
                f"mAP {wanted:5.1f}  {way:10s} labels {cells[0]:14s} seconds {cells[1]:16s} best {rows[:, 3].max():.1f}"
            )


if __name__ == "__main__":
    main()
