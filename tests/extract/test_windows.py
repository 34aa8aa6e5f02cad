"""The window plan against a brute-force definition."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.cache.settings import Blend
from bas.errors import InputError
from bas.extract.windows import Blender, WindowPlan

plans = st.builds(
    lambda frames, window, hop_share, stride, blend: WindowPlan(frames, window, 1 + hop_share % window, stride, blend),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(0, 39),
    st.integers(1, 4),
    st.sampled_from(["hann", "mean", "centre"]),
)


def fake_backbone(plan: WindowPlan, group: int, stream_tc: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A 'network' whose rows depend on the whole clip, as squeeze-excitation makes them: (S, W, C)."""
    clips_swc: npt.NDArray[np.float32] = stream_tc[plan.group_frames(group)]
    mixed_swc: npt.NDArray[np.float32] = clips_swc + clips_swc.mean(1, keepdims=True)
    return mixed_swc


def brute_force(plan: WindowPlan, stream_tc: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Every row as the weighted mean over all clips that hold it, straight from the definition, in float64."""
    total = np.zeros(stream_tc.shape)
    weight = np.zeros(len(stream_tc))
    for group in range(plan.num_groups):
        rows_swc = fake_backbone(plan, group, stream_tc)
        for phase in range(plan.stride):
            for step in range(plan.window):
                frame = phase + (group * plan.hop + step) * plan.stride
                if frame < plan.num_frames:
                    total[frame] += plan.weights(group)[step].astype(float) * rows_swc[phase, step]
                    weight[frame] += plan.weights(group)[step]
    assert (weight > 0).all()
    return total / weight[:, None]


def run(plan: WindowPlan, stream_tc: npt.NDArray[np.float32], *, first_row: int = 0) -> npt.NDArray[np.float32]:
    blender = Blender(plan, first_row=first_row)
    groups = range(plan.first_group(first_row), plan.num_groups)
    return np.concatenate([blender.add(fake_backbone(plan, group, stream_tc)) for group in groups])


def stream(num_frames: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(num_frames).standard_normal((num_frames, 3)).astype(np.float32)


@given(plans)
@settings(max_examples=200)
def test_blended_rows_are_the_weighted_mean_of_all_clips_that_hold_them(plan: WindowPlan) -> None:
    stream_tc = stream(plan.num_frames)
    rows = run(plan, stream_tc)
    assert rows.shape == stream_tc.shape
    np.testing.assert_allclose(rows, brute_force(plan, stream_tc), rtol=2e-5, atol=2e-5)


@given(plans, st.integers(0, 299))
@settings(max_examples=200)
def test_resume_at_any_row_changes_no_bit(plan: WindowPlan, row: int) -> None:
    row %= plan.num_frames
    stream_tc = stream(plan.num_frames)
    whole, rest = run(plan, stream_tc), run(plan, stream_tc, first_row=row)
    assert rest.tobytes() == whole[row:].tobytes()


@given(plans)
@settings(max_examples=100)
def test_groups_cover_all_rows_and_none_is_idle(plan: WindowPlan) -> None:
    covered = np.zeros(plan.num_frames, bool)
    for group in range(plan.num_groups):
        start, stop = plan.group_span(group)
        assert not covered[start:stop].all(), "a group that adds no row is work for nothing"
        covered[start:stop] = True
        assert plan.rows_done_after(group) <= stop or group == plan.num_groups - 1
    assert covered.all()
    for row in range(plan.num_frames):
        first = plan.first_group(row)
        contributes = [g for g in range(plan.num_groups) if plan.group_span(g)[0] <= row < plan.group_span(g)[1]]
        assert first == contributes[0]


def test_phases_interleave_at_stride_2() -> None:
    plan = WindowPlan(12, window=3, hop=3, stride=2, blend="mean")
    assert plan.group_frames(0).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert plan.group_frames(1).tolist() == [[6, 8, 10], [7, 9, 11]]
    assert plan.num_groups == 2


def test_past_the_end_the_last_frame_is_repeated() -> None:
    assert WindowPlan(4, window=6, hop=3, stride=1, blend="hann").group_frames(0).tolist() == [[0, 1, 2, 3, 3, 3]]


def test_cost_of_half_overlap_is_two_and_of_ninety_percent_ten() -> None:
    for hop, cost in ((50, 1), (25, 2), (5, 10)):
        plan = WindowPlan(135_000, window=50, hop=hop, stride=2, blend="hann")
        frames_seen = plan.num_groups * plan.window * plan.stride
        assert frames_seen / plan.num_frames == pytest.approx(cost, rel=0.01)


@pytest.mark.parametrize("blend", ["hann", "mean", "centre"])
def test_without_overlap_rows_are_the_clips_own(blend: Blend) -> None:
    plan = WindowPlan(40, window=10, hop=10, stride=2, blend=blend)
    stream_tc = stream(40)
    rows = run(plan, stream_tc)
    clip = fake_backbone(plan, 1, stream_tc)
    np.testing.assert_allclose(rows[21:40:2], clip[1], rtol=1e-6)


@pytest.mark.parametrize(("window", "hop", "stride"), [(10, 0, 1), (10, 11, 1), (10, 5, 0)])
def test_plans_that_leave_rows_out_are_refused(window: int, hop: int, stride: int) -> None:
    with pytest.raises(InputError, match="window plan"):
        WindowPlan(100, window, hop, stride, "hann")
