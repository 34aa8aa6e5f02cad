"""What became of events and predictions, on games small enough to sort out by hand."""

import numpy as np
import pytest

from bas.eval.mistakes import Matched, OutcomeKind, Outcomes, confusion, find_outcomes, match_game, worst
from bas.eval.spots import Game, Spots

Found = tuple[int, int, float]
HALF, WIDE = 12, 62
BELOW, HIT, WRONG, TIMED, MISSED, DOUBLE, FALSE = OutcomeKind


def game(events: list[Found], predictions: list[Found], *, num_classes: int = 3) -> Game:
    """From (frame, class, value)."""

    def spots(found: list[Found]) -> Spots:
        frames, classes, values = zip(*found, strict=True) if found else ((), (), ())
        return Spots.collect(frames, classes, values, num_classes=num_classes)

    return Game(spots(events), spots(predictions))


def sorted_out(each: Game, threshold: int = 20) -> tuple[Matched, Outcomes]:
    matched = match_game(each, HALF)
    return matched, find_outcomes(matched, [threshold] * each.num_classes, half_width_frames=HALF, wide_frames=WIDE)


def test_each_kind_where_it_belongs() -> None:
    events = [(100, 0, 1.0), (200, 1, 1.0), (400, 0, 1.0), (600, 2, -1.0)]
    predictions = [
        (95, 0, 0.9),  # the first event
        (106, 0, 0.5),  # once more
        (205, 0, 0.8),  # the second, of another class
        (440, 0, 0.7),  # the third, 40 frames late
        (601, 2, 0.05),  # the fourth, but too unsure
        (800, 1, 0.6),  # nothing there
    ]
    matched, outcome = sorted_out(game(events, predictions))
    assert outcome.event_kinds.tolist() == [HIT, WRONG, TIMED, MISSED]
    assert outcome.event_partners.tolist() == [0, 2, 3, -1]
    assert outcome.prediction_kinds.tolist() == [HIT, DOUBLE, WRONG, TIMED, BELOW, FALSE]
    assert outcome.prediction_partners.tolist() == [0, 0, 1, 2, -1, -1]
    assert matched.prediction_of.tolist() == [0, -1, -1, 4]  # whatever the score


def test_a_lower_threshold_finds_more_and_never_another_pair() -> None:
    each = game([(100, 0, 1), (110, 1, 1)], [(101, 0, 0.3), (108, 1, 0.9), (104, 1, 0.2)])
    kinds = {t: sorted_out(each, threshold=t)[1].event_kinds.tolist() for t in (0, 40, 100)}
    assert kinds == {0: [HIT, HIT], 40: [HIT, HIT], 100: [MISSED, HIT]}
    assert sorted_out(each, threshold=0)[1].prediction_kinds.tolist() == [HIT, DOUBLE, HIT]
    assert sorted_out(each, threshold=100)[1].prediction_kinds.tolist() == [BELOW, BELOW, HIT]


LEFT_OVER = {
    "one serves one event, the earlier": ([(100, 0, 1), (104, 0, 1)], [(102, 1, 0.9)], [WRONG, MISSED], [WRONG], [0]),
    "the surest wins, of equal ones the earlier": (
        *([(100, 0, 1)], [(98, 1, 0.5), (99, 2, 0.7), (101, 1, 0.7)]),
        *([WRONG], [FALSE, WRONG, FALSE], [-1, 0, -1]),
    ),
    "doubles belong to the nearest found event": (
        *([(100, 0, 1), (120, 0, 1)], [(100, 0, 0.9), (109, 0, 0.3), (111, 0, 0.3), (120, 0, 0.9), (133, 0, 0.3)]),
        *([HIT, HIT], [HIT, DOUBLE, DOUBLE, HIT, FALSE], [0, 0, 1, 1, -1]),
    ),
}


@pytest.mark.parametrize(
    ("events", "predictions", "event_kinds", "prediction_kinds", "events_of"), LEFT_OVER.values(), ids=LEFT_OVER
)
def test_predictions_that_are_left_over(
    events: list[Found],
    predictions: list[Found],
    event_kinds: list[OutcomeKind],
    prediction_kinds: list[OutcomeKind],
    events_of: list[int],
) -> None:
    _, outcome = sorted_out(game(events, predictions))
    assert outcome.event_kinds.tolist() == event_kinds
    assert outcome.prediction_kinds.tolist() == prediction_kinds
    assert outcome.prediction_partners.tolist() == events_of


@pytest.mark.parametrize(
    ("distance", "kind"), [(12, HIT), (13, TIMED), (-12, HIT), (-62, TIMED), (62, TIMED), (63, MISSED)]
)
def test_borders_of_the_tolerances_belong_to_them(distance: int, kind: OutcomeKind) -> None:
    _, outcome = sorted_out(game([(100, 0, 1)], [(100 + distance, 0, 0.9)]))
    assert outcome.event_kinds.tolist() == [kind]


def test_empty_sides_are_fine() -> None:
    for each in (game([], []), game([(5, 0, 1)], []), game([], [(5, 0, 0.5)])):
        matched, outcome = sorted_out(each)
        assert set(outcome.event_kinds.tolist()) <= {MISSED}
        assert set(outcome.prediction_kinds.tolist()) <= {FALSE}
        assert confusion([matched], [outcome], 3).sum() == len(outcome.event_kinds) + len(outcome.prediction_kinds)


def test_confusion_counts_every_event_and_every_sure_prediction_once() -> None:
    events = [(100, 0, 1.0), (200, 1, 1.0), (400, 0, 1.0), (600, 2, 1.0)]
    predictions = [(95, 0, 0.9), (106, 0, 0.5), (205, 0, 0.8), (440, 0, 0.7), (601, 2, 0.05), (800, 1, 0.6)]
    matched, outcome = sorted_out(game(events, predictions))
    table = confusion([matched, matched], [outcome, outcome], 3)
    assert table.tolist() == [[2, 0, 0, 2], [2, 0, 0, 0], [0, 0, 0, 2], [4, 2, 0, 0]]
    generator = np.random.default_rng(1)
    for seed in range(5):
        each = _random_game(np.random.default_rng(seed))
        matched, outcome = sorted_out(each, threshold=int(generator.integers(0, 200)))
        table = confusion([matched], [outcome], 3)
        assert table[:3].sum(axis=1).tolist() == each.events.counts.tolist()
        is_sure = outcome.prediction_kinds != BELOW
        assert (
            table[:, :3].sum(axis=0).tolist() == np.bincount(matched.predictions.classes[is_sure], minlength=3).tolist()
        )
        assert np.diag(table)[:3].sum() == np.count_nonzero(outcome.event_kinds == HIT)


def test_worst_lists_the_surest_and_the_blindest_first() -> None:
    events = [(100, 0, 1.0), (300, 0, 1.0), (500, 0, -1.0), (700, 0, 1.0)]
    predictions = [(101, 0, 0.08), (301, 0, 0.02), (900, 0, 0.4), (1100, 0, 0.9), (1300, 0, 0.5)]
    matched, outcome = sorted_out(game(events, predictions))
    found = worst([matched, matched], [outcome, outcome], count=5)
    missed = [(each.event, each.game, each.confidence) for each in found if each.kind == MISSED]
    assert missed == [(3, 0, 0.0), (3, 1, 0.0), (1, 0, 0.02), (1, 1, 0.02), (0, 0, 0.08)]
    alarms = [(each.prediction, each.game, each.confidence) for each in found if each.kind == FALSE]
    assert alarms == [(3, 0, 0.9), (3, 1, 0.9), (4, 0, 0.5), (4, 1, 0.5), (2, 0, 0.4)]
    hidden = worst([matched], [outcome], count=9)
    assert [each.event for each in hidden if each.kind == MISSED] == [3, 1, 0, 2]  # not shown: last


def test_predictions_can_be_left_out_without_changing_pairs() -> None:
    matched = match_game(_random_game(np.random.default_rng(7)), HALF)
    is_kept = np.zeros(len(matched.predictions.frames), dtype=bool)
    is_kept[matched.prediction_of[matched.prediction_of >= 0]] = True
    fewer = matched.keep(is_kept)
    assert len(fewer.predictions.frames) < len(matched.predictions.frames)
    has = matched.prediction_of >= 0
    assert (fewer.prediction_of >= 0).tolist() == has.tolist()
    before, after = (
        matched.predictions.frames[matched.prediction_of[has]],
        fewer.predictions.frames[fewer.prediction_of[has]],
    )
    assert before.tolist() == after.tolist()


def _random_game(generator: np.random.Generator) -> Game:
    events = [
        (int(f), int(c), 1.0) for f, c in zip(generator.integers(0, 900, 40), generator.integers(0, 3, 40), strict=True)
    ]
    found = zip(generator.integers(0, 900, 200), generator.integers(0, 3, 200), generator.random(200), strict=True)
    return game(events, [(int(f), int(c), float(v)) for f, c, v in found])
