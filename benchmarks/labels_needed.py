"""How many labels, and how much of a person's time, until a head is as good: `python benchmarks/labels_needed.py STORE`.

The true labels of a store stand in for the person. One match is labelled, others (unseen) judge. Ways to label:
  order      everything from the start on, without help
  assisted   likewise, but the heads' proposals for the next stretch are there: keys only where they are wrong
  teach, confidence   a first stretch in order, then proposals from anywhere in the match, by that order
A person's seconds: a stretch is watched at its own speed; each mark, correction or answer is one key of `KEY_SECONDS`;
an answer to a proposal also watches `LOOK_SECONDS` around it. Training is not counted: it runs while one goes on.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bas.cache.store import FeatureStore
from bas.eval.metric import MetricSettings, average_map
from bas.eval.peaks import default_peaks, find_spots
from bas.eval.spots import Game, Spots
from bas.label.learn import LearnTask, Marked, Proposals, _Data
from bas.workers import num_cores

KEY_SECONDS, LOOK_SECONDS, NEAR_MS = 1.0, 2.0, 500
WAYS = ("order", "assisted", "teach", "confidence")


@dataclass
class Person:
    """Knows the true events of a match, and says what is asked."""

    truth: list[tuple[int, int]]
    """(ms, class) in time order."""
    spots: set[tuple[int, int]] = field(default_factory=set)
    rejects: set[tuple[int, int]] = field(default_factory=set)
    until_ms: int = 0
    seconds: float = 0.0

    def marked(self, match_id: str) -> Marked:
        """What has been said so far."""
        stretches = ((0, self.until_ms),) if self.until_ms else ()
        return Marked(match_id, tuple(sorted(self.spots)), stretches, tuple(sorted(self.rejects)))

    def goes_on(self, to_ms: int, proposals: list[tuple[int, int]]) -> None:
        """Mark the next stretch; of proposals that are there those that are right cost no key."""
        events = [each for each in self.truth if self.until_ms <= each[0] < to_ms]
        here = [each for each in proposals if self.until_ms <= each[0] < to_ms]
        free, right = list(events), 0
        for ms, c in here:
            near = [each for each in free if each[1] == c and abs(each[0] - ms) <= NEAR_MS // 2]
            if near:
                free.remove(min(near, key=lambda each: abs(each[0] - ms)))
                right += 1
        num_keys = len(events) - right + (len(here) - right)
        self.seconds += (to_ms - self.until_ms) / 1000 + KEY_SECONDS * num_keys
        self.spots |= set(events)
        self.until_ms = to_ms

    def answers(self, ms: int, c: int) -> None:
        """Look at a proposal: mark what there is, or say that there is nothing."""
        near = [each for each in self.truth if abs(each[0] - ms) <= NEAR_MS]
        new = set(near) - self.spots
        self.seconds += LOOK_SECONDS + KEY_SECONDS * max(1, len(new))
        self.spots |= new
        if not any(each[1] == c for each in near):
            self.rejects.add((ms, c))


def truth_of(store: FeatureStore, match_id: str) -> list[tuple[int, int]]:
    """(ms, class) of a match's events."""
    events = store.match(match_id).meta.events() or []
    return sorted((event.position_ms, store.classes.index(event.label)) for event in events)


def judged(data: _Data, models: list, store: FeatureStore, match_ids: list[str], num_classes: int) -> float:  # type: ignore[type-arg]
    """Mean AP at 1 s over the first classes, on matches behind the labelled one."""
    games, fps = [], data.fps
    for number, match_id in enumerate(match_ids, 1):
        scores = np.mean([data.scores(model, number) for model in models], axis=0)
        true = truth_of(store, match_id)
        rows = [int(ms * fps / 1000) for ms, _ in true]
        events = Spots.collect(rows, [c for _, c in true], [1.0] * len(true), num_classes=len(store.classes))
        games.append(Game(events, find_spots(scores, default_peaks(fps))))
    per_class = average_map(games, MetricSettings.named("at1", fps=fps)).per_class[:num_classes]
    held = np.sum([game.events.counts for game in games], axis=0)[:num_classes] > 0
    return float(per_class[held].mean())


def run(store: FeatureStore, labelled: str, unseen: list[str], way: str, args: argparse.Namespace) -> list[list[float]]:
    """Rounds of labelling: [spots, answers, seconds, mAP] after each."""
    person, rows = Person(truth_of(store, labelled)), []
    end_ms = int(1000 * store.match(labelled).num_rows / store.match(labelled).meta.fps)
    proposals: Proposals | None = None
    for number in range(args.rounds):
        if number == 0 or way in ("order", "assisted"):
            there = []
            if way == "assisted" and proposals is not None:
                sure = proposals.confidence >= 0.3
                there = list(zip(proposals.ms[sure].tolist(), proposals.classes[sure].tolist(), strict=True))
            minutes = args.first_minutes if number == 0 else args.step_minutes
            person.goes_on(min(end_ms, person.until_ms + int(60_000 * minutes)), there)
        else:
            assert proposals is not None
            value = proposals.teach if way == "teach" else proposals.confidence
            asked = 0
            for n in np.argsort(-value, kind="stable"):
                ms, c = int(proposals.ms[n]), int(proposals.classes[n])
                if (ms, c) in person.rejects or any(abs(at - ms) <= NEAR_MS and k == c for at, k in person.spots):
                    continue
                person.answers(ms, c)
                asked += 1
                if asked >= args.answers:
                    break
        marked = (person.marked(labelled), *(Marked(each, (), (), ()) for each in unseen))
        data = _Data.open(LearnTask(store.path, store.classes, marked, seed=args.seed))
        models = [data.train(data.known, seed=args.seed + head) for head in range(2)]
        proposals = data.propose(models, 0)
        score = judged(data, models, store, unseen, args.classes or len(store.classes))
        rows.append([len(person.spots), len(person.rejects), round(person.seconds, 1), round(100 * score, 2)])
        print(f"{labelled[-24:]:24s} {way:10s} {rows[-1]}", flush=True)
        if person.until_ms >= end_ms:
            break
    return rows


def needed(rows: list[list[float]], column: int, wanted: float) -> float | None:
    """Labels (0) or seconds (2) at which a way first reaches an mAP, interpolated between rounds."""
    for before, after in zip([rows[0], *rows], rows, strict=False):
        if after[3] >= wanted:
            rise = after[3] - before[3]
            share = 1.0 if rise <= 0 else (wanted - before[3]) / rise
            return before[column] + share * (after[column] - before[column])
    return None


def main() -> None:
    """Print what each way needs for the mAP that labelling in order ends with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument(
        "--labelled", nargs="+", required=True, help="parts of ids of matches to label, one after the other"
    )
    parser.add_argument("--unseen", nargs="+", required=True, help="parts of ids of matches that judge")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--first-minutes", type=float, default=3.0)
    parser.add_argument("--step-minutes", type=float, default=4.0)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--classes", type=int, default=0, help="mean over the first so many classes; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    args = parser.parse_args()
    store = FeatureStore.open(args.store)
    unseen = [match_id for match_id in store.matches() if any(name in match_id for name in args.unseen)]
    found: dict[str, dict[str, list[list[float]]]] = {}
    for name in args.labelled:
        (labelled,) = (match_id for match_id in store.matches() if name in match_id)
        found[name] = {way: run(store, labelled, unseen, way, args) for way in args.ways}
    print(json.dumps(found))
    print(
        f"{num_cores()} cores; labels and seconds until the mAP of `order` at its end, as a share of those of `order`"
    )
    for name, ways in found.items():
        wanted = ways["order"][-1][3]
        base = ways["order"][-1]
        for way, rows in ways.items():
            shares = [needed(rows, column, wanted) for column in (0, 2)]
            cells = [
                f"{value / base[c]:.2f}" if value is not None else "not reached"
                for value, c in zip(shares, (0, 2), strict=True)
            ]
            best = max(row[3] for row in rows)
            print(
                f"{name:16s} {way:10s} mAP {wanted:.1f}: labels {cells[0]}, seconds {cells[1]}; best {best:.1f} at {rows[-1][2]:.0f} s"
            )


if __name__ == "__main__":
    main()
