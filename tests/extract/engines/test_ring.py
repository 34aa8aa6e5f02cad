"""Frames on the device: each uploaded once, the right ones read, nothing written while it may still be read.

On a CPU, with streams that keep vector clocks in place of a device's: an access must come after those that it depends
on by what streams and the host have waited for, whatever the order in which a device would get to it.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bas.extract.backbones.nets import ClipBackbone
from bas.extract.engines.pytorch import TorchEngine
from bas.extract.engines.ring import FrameRing, uploaded
from bas.extract.stream import _calls
from bas.extract.video.reader import GridFrame
from bas.extract.windows import WindowPlan

CPU = torch.device("cpu")
Stamp = tuple[int, int]  # a stream, and how manieth of its operations


class Clock:
    """How much of each stream is surely done."""

    def __init__(self) -> None:
        self.done: dict[int, int] = defaultdict(int)

    def merge(self, other: "Clock") -> None:
        for stream, count in other.done.items():
            self.done[stream] = max(self.done[stream], count)


class Device:
    """In place of `torch.cuda`: what the ring uses of it."""

    def __init__(self) -> None:
        device, self.host = self, Clock()

        class Stream(Clock):
            def wait_event(self, event: Clock) -> None:
                self.merge(event)

            def wait_stream(self, other: Clock) -> None:
                self.merge(other)

            def operate(self) -> Stamp:
                self.merge(device.host)
                self.done[id(self)] += 1
                return id(self), self.done[id(self)]

        class Event(Clock):
            def record(self, stream: Clock) -> None:
                self.merge(stream)

            def synchronize(self) -> None:
                device.host.merge(self)

        self.Stream, self.Event = Stream, Event
        self.kernels = self.current = Stream()

    def current_stream(self) -> Any:
        return self.current

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


class Accesses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the ring's slots; an access that something may still disturb is an error."""

    def __init__(self, device: Device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.num_uploaded = device, 0
        self.written: dict[int, Stamp] = {}
        self.read: dict[int, list[Stamp]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stream = self.device.current
        if func is torch.ops.aten.copy_.default:
            stamp, slot = stream.operate(), args[0].storage_offset() // args[0][0].numel()
            for written in range(slot, slot + len(args[0])):
                self.require(stream, [*self.read.pop(written, []), self.written.get(written, stamp)])
                self.written[written] = stamp
                self.num_uploaded += 1
        if func is torch.ops.aten.index_select.default:
            stamp = stream.operate()
            for read in args[2].tolist():
                self.require(stream, [self.written[read]])
                self.read[read].append(stamp)
        return func(*args, **(kwargs or {}))

    def require(self, stream: Any, stamps: list[Stamp]) -> None:
        assert all(stream.done[other] >= count for other, count in stamps), "a race"


def frames_from(first: int, num_frames: int) -> Iterator[list[GridFrame]]:
    """As the decoder gives them, in lists; every picture says which one it is."""
    block = [GridFrame(step, picture(step), True) for step in range(first, num_frames)]
    yield from (block[start : start + 5] for start in range(0, len(block), 5))


def picture(step: int) -> npt.NDArray[np.uint8]:
    return np.array([[[step % 256, step // 256, 7]]], np.uint8)


def walked(plan: WindowPlan, *, first_row: int, groups_per_call: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Walk all calls of a plan through a ring, look at every clip; gives the ring's size."""
    device, first_group = Device(), plan.first_group(first_row)
    first_frame = first_group * plan.hop * plan.stride
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    ring, valid_t = FrameRing(CPU), np.zeros(plan.num_frames, bool)
    groups, kernels, done = iter(range(first_group, plan.num_groups)), id(device.kernels), 1
    with Accesses(device) as accesses:
        for images, frames_bt in _calls(
            frames_from(first_frame, plan.num_frames), plan, first_group, groups_per_call, valid_t
        ):
            ring.add(images)
            assert ring._uploads.done[kernels] < done, "the upload waits for the call before"
            wanted = np.concatenate([plan.group_frames(next(groups)) for _ in range(len(frames_bt) // plan.stride)])
            parts = min(2, len(wanted))  # as the engine does: some clips at a time
            for clips, frames in zip(np.array_split(frames_bt, parts), np.array_split(wanted, parts), strict=True):
                found: Tensor = ring.gather(uploaded(ring.slots(clips), CPU))
                assert found.shape == (*frames.shape, 1, 1, 3)
                assert np.array_equal(found[..., 0, 0, 0] + 256 * found[..., 0, 0, 1].int(), frames)
            ring.end_call()
            done = device.kernels.done[kernels]
    assert next(groups, None) is None
    assert accesses.num_uploaded == plan.num_frames - first_frame
    assert valid_t[first_frame:].all()
    assert not valid_t[:first_frame].any()
    return len(accesses.written)


@given(
    st.integers(1, 400),
    st.integers(1, 20),
    st.integers(0, 19),
    st.integers(1, 3),
    st.integers(0, 399),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=100)
def test_every_frame_is_uploaded_once_and_every_clip_has_its_own(
    num_frames: int, window: int, hop: int, stride: int, row: int, groups: int
) -> None:
    plan = WindowPlan(num_frames, window, 1 + hop % window, stride, "hann")
    with pytest.MonkeyPatch.context() as patch:
        walked(plan, first_row=row % num_frames, groups_per_call=groups, monkeypatch=patch)


def test_the_ring_is_as_large_for_a_long_video_as_for_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_frames, first_row in ((500, 0), (5000, 0), (5000, 2500)):
        plan = WindowPlan(num_frames, 10, 5, 2, "hann")
        assert walked(plan, first_row=first_row, groups_per_call=3, monkeypatch=monkeypatch) == 2 * (2 * 5 + 10) * 2


def test_rows_are_looked_at_when_their_call_is_done_and_not_waited_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    device, images = Device(), [picture(step) for step in range(6)]
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    options: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "device": "cpu", "clip_shape": (2, 1, 1)}
    feed, kernels = TorchEngine(ClipBackbone(nn.Identity()), **options).feed(), id(device.kernels)
    with Accesses(device):
        first = feed(images[:4], np.array([[0, 1], [2, 3]]), ("identity",))
        num_done = device.kernels.done[kernels]
        second = feed(images[4:], np.array([[2, 3], [4, 5]]), ("identity",))
    assert device.host.done[kernels] == 0 < num_done
    assert np.allclose(first()["identity"][:, :, 0] * 255, [[0, 1], [2, 3]])
    assert device.host.done[kernels] == num_done < device.kernels.done[kernels]
    assert np.allclose(second()["identity"][:, :, 0] * 255, [[2, 3], [4, 5]])
    assert device.host.done[kernels] == device.kernels.done[kernels]


def test_without_waiting_for_the_reader_there_is_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks do see one: the ring forgets that frames were read."""
    monkeypatch.setattr(FrameRing, "end_call", lambda _: None)
    with pytest.raises(AssertionError, match="a race"):
        walked(WindowPlan(500, 10, 5, 2, "hann"), first_row=0, groups_per_call=3, monkeypatch=monkeypatch)
