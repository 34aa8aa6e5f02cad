"""Events to labels, against a plain loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.errors import InputError
from bas.heads.targets import NO_EVENT_STEPS, clip_targets, stack_targets
from bas.heads.training.settings import TargetSettings

NUM_CLASSES = 3
EVENTS = st.lists(st.tuples(st.integers(-6, 26), st.integers(1, NUM_CLASSES)), max_size=8)


def labels(events: list[tuple[int, int]], num_steps: int, *, dilation_steps: int = 0) -> list[int]:
    targets, _ = clip_targets(
        events, num_steps=num_steps, num_classes=NUM_CLASSES, settings=TargetSettings(dilation_steps=dilation_steps)
    )
    return [int(class_id) for class_id in targets.class_bt]


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, num_steps=st.integers(1, 20), dilation_steps=st.integers(0, 4))
def test_as_a_plain_loop_would(events: list[tuple[int, int]], num_steps: int, dilation_steps: int) -> None:
    targets, num_lost = clip_targets(
        events, num_steps=num_steps, num_classes=NUM_CLASSES, settings=TargetSettings(dilation_steps=dilation_steps)
    )
    for step in range(num_steps):
        for class_id in range(1, NUM_CLASSES + 1):
            distances = [abs(event - step) for event, each in events if each == class_id]
            nearest = min(distances, default=NO_EVENT_STEPS)
            assert abs(targets.offset_btk[step, class_id - 1]) == nearest
            assert targets.presence_btk[step, class_id - 1] == (nearest <= dilation_steps)
        distance, rarest = min(((abs(event - step), -each) for event, each in events), default=(NO_EVENT_STEPS, 0))
        assert abs(targets.displacement_bt[step]) == distance
        assert targets.class_bt[step] == (-rarest if distance <= dilation_steps else 0)
    inside = [event for event, _ in events if 0 <= event < num_steps]
    assert num_lost == len(inside) - len(set(inside))


def test_displacement_points_at_the_event() -> None:
    targets = clip_targets([(3, 1)], num_steps=6, num_classes=1)[0]
    assert targets.displacement_bt.tolist() == [3, 2, 1, 0, -1, -2]


def test_dilated_labels_meet_halfway_and_reach_in_from_outside() -> None:
    assert labels([(2, 1), (5, 2), (-1, 3), (99, 1)], 9, dilation_steps=2) == [3, 1, 1, 1, 2, 2, 2, 2, 0]


def test_the_rarer_class_has_the_step_and_the_loss_is_counted() -> None:
    events = [(4, 1), (4, 2)]
    by_counts, num_lost = clip_targets(events, num_steps=8, num_classes=3, class_counts=[5, 900, 0])
    assert by_counts.class_bt[4] == 1
    assert num_lost == 1
    assert by_counts.presence_btk[4].tolist() == [1, 1, 0]
    assert labels(events, 8)[4] == 2


def test_soft_labels_fall_off_as_a_gaussian() -> None:
    targets = clip_targets([(5, 2)], num_steps=11, num_classes=2, settings=TargetSettings(sigma_steps=1.0))[0]
    expected = torch.tensor([0, 0, *[torch.tensor(-0.5 * d * d).exp() for d in (3, 2, 1, 0, 1, 2, 3)], 0, 0])
    torch.testing.assert_close(targets.label_btn[:, 2], expected)
    torch.testing.assert_close(targets.presence_btk[:, 1], expected)
    torch.testing.assert_close(targets.label_btn.sum(1), torch.ones(11))


def test_clips_are_stacked_and_select_takes_windows() -> None:
    clip = clip_targets([(6, 1)], num_steps=9, num_classes=2)[0]
    assert stack_targets([clip, clip]).label_btn.shape == (2, 9, 3)
    windows = clip.select(torch.tensor([[0, 1, 2], [5, 6, 7]]))
    assert windows.class_bt.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert windows.to("cpu").offset_btk.shape == (2, 3, 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="class id"):
        clip_targets([(1, 0)], num_steps=3, num_classes=2)
    with pytest.raises(InputError, match="class id"):
        clip_targets([(1, 3)], num_steps=3, num_classes=2)
    with pytest.raises(InputError, match="clip is not usable"):
        clip_targets([], num_steps=0, num_classes=2)
    with pytest.raises(InputError, match="counts do not fit"):
        clip_targets([], num_steps=3, num_classes=2, class_counts=[1])
    with pytest.raises(InputError, match="width of the labels"):
        TargetSettings(dilation_steps=-1)
    with pytest.raises(InputError, match="either dilated or soft"):
        TargetSettings(dilation_steps=1, sigma_steps=1.0)
