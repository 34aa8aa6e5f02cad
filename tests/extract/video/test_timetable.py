"""The time table and the grid, against a slow and obvious computation."""

from fractions import Fraction

import numpy as np
import pytest

from bas.errors import InputError
from bas.extract.video.timetable import UNKNOWN_TICKS, GroupPlan, TimeTable, fill_times, plan_grid, require_few_bad


def table_of(
    pts: list[int],
    *,
    time_base: Fraction = Fraction(1, 12800),
    rate: Fraction = Fraction(25),
    duration: int = 512,
    keys: set[int] | None = None,
    hidden: set[int] | None = None,
    origin: int = 0,
    header_end: int = 0,
) -> TimeTable:
    """A table of packets in file order; `keys` and `hidden` are file positions."""
    num = len(pts)
    return TimeTable.from_packets(
        pts_ticks=np.array(pts, dtype=np.int64),
        is_key=np.array([i in (keys or {0}) for i in range(num)]),
        is_shown=np.array([i not in (hidden or set()) for i in range(num)]),
        duration_ticks=np.full(num, duration, dtype=np.int64),
        time_base=time_base,
        rate=rate,
        origin_ticks=origin,
        header_end_ticks=header_end,
    )


@pytest.mark.parametrize("num_frames", [1, 2, 25, 1000])
@pytest.mark.parametrize(
    ("rate", "time_base", "ticks"),
    [
        (Fraction(25), Fraction(1, 12800), 512),
        (Fraction(25), Fraction(1, 25), 1),
        (Fraction(25), Fraction(1, 1000), 40),
        (Fraction(30000, 1001), Fraction(1, 30000), 1001),
        (Fraction(25), Fraction(1, 90000), 3600),
    ],
)
def test_constant_rate_gives_one_step_per_frame(
    num_frames: int, rate: Fraction, time_base: Fraction, ticks: int
) -> None:
    table = table_of([i * ticks for i in range(num_frames)], time_base=time_base, rate=rate, duration=ticks)
    for fps in (None, rate):
        grid = plan_grid(table, fps)
        assert grid.frame_of_step.tolist() == list(range(num_frames))
        assert grid.is_covered.all()
        assert grid.pts_ticks.tolist() == [i * ticks for i in range(num_frames)]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)])
def test_times_rounded_to_milliseconds_do_not_slip(rate: Fraction) -> None:
    pts = [round(i * 1000 / rate) for i in range(20000)]
    table = table_of(pts, time_base=Fraction(1, 1000), rate=rate, duration=round(1000 / rate))
    assert plan_grid(table, rate).frame_of_step.tolist() == list(range(20000))


def test_any_rate_shows_the_last_frame_that_has_begun() -> None:
    rng = np.random.default_rng(5)
    pts = np.cumsum(rng.integers(1, 3000, 80)).tolist()
    table = table_of(pts)
    for fps in (Fraction(25), Fraction(12), Fraction(50), Fraction(30000, 1001)):
        grid = plan_grid(table, fps)
        for step in range(grid.num_steps):
            begun = [i for i, time in enumerate(pts) if Fraction(time) <= step * 12800 / fps + Fraction(1, 2)]
            assert grid.frame_of_step[step] == (begun[-1] if begun else -1)
            assert grid.is_covered[step] == bool(begun)
        assert (grid.num_steps - 1) / fps < Fraction(table.end_ticks, 12800) <= (grid.num_steps + 1) / fps


def test_delayed_start_gap_and_origin() -> None:
    late = plan_grid(table_of([1280 + 512 * i for i in range(4)]), Fraction(25))
    assert late.frame_of_step.tolist() == [-1, -1, -1, 0, 1, 2, 3]
    assert late.is_covered.tolist() == [False] * 3 + [True] * 4
    assert late.pts_ticks.tolist()[:4] == [1280] * 4
    gap = plan_grid(table_of([0, 512, 5 * 512, 6 * 512]), Fraction(25))
    assert gap.frame_of_step.tolist() == [0, 1, 1, 1, 1, 2, 3]
    assert gap.is_covered.all()
    transport = plan_grid(table_of([9000 + 512 * i for i in range(3)], origin=9000), Fraction(25))
    assert transport.frame_of_step.tolist() == [0, 1, 2]


def test_header_that_promises_more_adds_uncovered_steps() -> None:
    table = table_of([0, 512, 1024], header_end=5 * 512)
    grid = plan_grid(table, Fraction(25))
    assert grid.frame_of_step.tolist() == [0, 1, 2, 2, 2]
    assert grid.is_covered.tolist() == [True] * 3 + [False] * 2
    assert plan_grid(table_of([0, 512], header_end=7), Fraction(25)).is_covered.all()


def test_frames_torn_off_at_the_cut_do_not_count() -> None:
    order = [0, 2, 1, 3, 6]  # 4 and 5 came after 6
    assert table_of([512 * i for i in order], header_end=100 * 512).end_ticks == 4 * 512
    assert table_of([512 * i for i in order]).end_ticks == 7 * 512


def test_packets_are_sorted_and_hidden_ones_left_out() -> None:
    table = table_of([-512, 0, 1536, 512, 1024, 1024], hidden={0})
    assert table.pts_ticks.tolist() == [0, 512, 1024, 1536]
    assert table.rank.tolist() == [1, 3, 4, 2]
    assert table.end_ticks == 2048
    with pytest.raises(InputError, match="no frame"):
        table_of([0, 1], hidden={0, 1})


def test_huge_numbers_stay_exact() -> None:
    tick = Fraction(1, 10**12)
    table = table_of([i * 40 * 10**9 for i in range(50)], time_base=tick, duration=40 * 10**9)
    assert plan_grid(table, Fraction(25 * 10**9 + 1, 10**9)).frame_of_step.tolist()[:3] == [0, 0, 1]


def test_groups_open_and_closed() -> None:
    # file order: I0 P2 b1 | I5 b3 b4 P6 | I7 P8   (an open group, then a closed one)
    order = [0, 2, 1, 5, 3, 4, 6, 7, 8]
    plan = GroupPlan.of(table_of([512 * i for i in order], keys={0, 3, 7}))
    assert plan.starts.tolist() == [0, 5, 7]
    assert plan.group_of.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert np.flatnonzero(plan.is_leading).tolist() == [3, 4]
    assert plan.settled_by.tolist() == [0, 2, 2, 5, 5, 5, 6, 7, 8]


def test_a_key_frame_shown_before_earlier_packets_starts_nothing() -> None:
    plan = GroupPlan.of(table_of([0, 3 * 512, 512, 2 * 512], keys={0, 2}))
    assert plan.starts.tolist() == [0]


def test_bad_share() -> None:
    require_few_bad(5, 100, max_bad_share=0.05, what="x.mp4")
    with pytest.raises(InputError, match="6 of 100 steps") as caught:
        require_few_bad(6, 100, max_bad_share=0.05, what="x.mp4")
    assert "--max-bad-share 0.06" in caught.value.cure


def test_bad_rate_is_an_error() -> None:
    with pytest.raises(InputError, match="frame rate"):
        plan_grid(table_of([0]), Fraction(0))
    with pytest.raises(InputError, match="ends before"):
        plan_grid(table_of([0], origin=5000), Fraction(25))


@pytest.mark.parametrize("num_ahead", [0, 1, 2])
def test_missing_times_come_from_decoding_times_then_from_the_rate(num_ahead: int) -> None:
    times = np.array([*range(10), *range(60, 70)]) * 40
    order = np.arange(20)
    for start in range(1, 18, num_ahead + 1):  # each reference frame before those that are shown before it
        order[start : start + num_ahead + 1] = np.roll(np.arange(start, min(20, start + num_ahead + 1)), -1)
    pts = times[np.argsort(order)]
    lag = max(0, int((order - np.arange(20)).max()))
    dts = np.concatenate([times[0] - 40 * np.arange(lag, 0, -1), times[: 20 - lag]])
    for missing in ([4], [0], [9, 10], [10, 11, 12], list(range(20))):
        known = pts.copy()
        known[missing] = UNKNOWN_TICKS
        filled = fill_times(known, dts, order, frame_ticks=Fraction(40))
        if len(missing) < 20:
            assert filled.tolist() == pts.tolist()
        assert (np.diff(filled[order]) > 0).all()
    alone = fill_times(
        np.array([0, UNKNOWN_TICKS, 80]), np.full(3, UNKNOWN_TICKS), np.arange(3), frame_ticks=Fraction(40)
    )
    assert alone.tolist() == [0, 40, 80]
