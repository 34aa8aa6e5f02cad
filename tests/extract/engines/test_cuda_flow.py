"""The engine on a CUDA device: seen without one, by tensors that have a device but no memory, and, `gpu`, on one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.engines.choose import Engine, clip_rows, make_engine
from bas.extract.engines.pytorch import Normalised, TorchEngine
from bas.extract.options import View
from bas.extract.stream import stream_rows
from bas.extract.video.reader import GridFrame
from bas.extract.windows import WindowPlan

CUDA = torch.device("cuda:0")
SHAPE = (5, 48, 64)
NAMES = ["x3d_xs", "regnety_002"]
VIEWS: tuple[View, ...] = ("identity", "hflip")


class WithoutGuards(TorchFunctionMode):
    """Calls whose Python side wants a real device or memory, even of fake tensors, by their operators."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.copy_:
            assert kwargs == {"non_blocking": True}
            return torch.ops.aten.copy_.default(*args, **kwargs)
        if func is Tensor.__getitem__ and isinstance(args[1], slice):
            return torch.ops.aten.slice.Tensor(args[0], 0, args[1].start, args[1].stop)
        if func is Tensor.to and args[1:] == (CUDA,):
            assert kwargs == {"non_blocking": True}
            return torch.empty_like(args[0], device=CUDA)
        if func is Tensor.to and args[1:] == ("cpu",):
            assert kwargs == {"non_blocking": True}
        if func is Tensor.numpy:
            return np.empty(args[0].shape, {torch.uint8: np.uint8, torch.int64: np.int64}[args[0].dtype])
        return func(*args, **kwargs)


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator, with what came out of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.seen.append((str(func.overloadpacket).removeprefix("aten."), out))
        return out

    def of(self, name: str) -> list[Tensor]:
        return [out for operator, out in self.seen if operator == name]


def moved_without_memory(net: nn.Module) -> None:
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fake = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device=CUDA)
            setattr(module, name, nn.Parameter(fake, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by a convolution, to choose its kernel
@pytest.mark.parametrize("name", NAMES)
def test_everything_between_upload_and_rows_is_on_the_device_in_half_precision(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, module = backbone_spec(name), build_backbone(name).eval()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_device_module", lambda _: torch.cpu)  # streams that do nothing
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "to", lambda self, _: self)
        engine = TorchEngine(module, mean=spec.mean, std=spec.std, device="cuda", clip_shape=SHAPE)
    engine._device = CUDA
    frames = [np.zeros((*SHAPE[1:], 3), np.uint8)] * 30
    with FakeTensorMode():
        moved_without_memory(engine._net)
        feed = engine.feed()
        with WithoutGuards(), Operators() as first:
            feed(frames[:20], np.arange(20).reshape(4, 5), VIEWS)
        with WithoutGuards(), Operators() as second:
            feed(frames[20:], np.arange(10, 30).reshape(4, 5), VIEWS)

    for operators, num_new in ((first, 20), (second, 10)):
        assert sum(len(out) for out in operators.of("copy_")) == num_new  # each frame once, two views or not
        on_cpu = [out for _, out in operators.seen if out.device.type == "cpu"]
        rows = [out for out in on_cpu if out.dtype == torch.float32]
        assert {(out.dtype, out.ndim) for out in on_cpu if out.dtype != torch.float32} == {
            (torch.uint8, 4),  # pictures on their way up
            (torch.int64, 2),  # where they lie in the ring
        }
        assert [out.shape[-1] for out in rows] == [spec.output(None).dim] * 2  # nothing else comes back: one per view
        for pixels in operators.of("addcmul"):  # uint8 to fp16, as the pictures lie: channels last
            assert (pixels.device, pixels.dtype, pixels.stride(1)) == (CUDA, torch.float16, 1)
        convolved = operators.of("conv2d") + operators.of("conv3d")
        assert convolved
        assert {(out.device, out.dtype) for out in convolved} == {(CUDA, torch.float16)}
        large = [out for _, out in operators.seen if out.dtype == torch.float32 and out.numel() >= frames[0].size]
        assert all(out.ndim <= 3 for out in large)  # rows, but no pictures, in fp32


def test_half_precision_is_rounded_once() -> None:
    spec = backbone_spec("x3d_xs")
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 3)
    full, half = (
        Normalised(nn.Identity(), mean=spec.mean, std=spec.std, dtype=dtype)(pixels)
        for dtype in (torch.float32, torch.float16)
    )
    assert half.dtype == torch.float16
    assert (half.float() - full).abs().max() <= 2**-11 * full.abs().max()


class Still:
    """A video that lies in memory."""

    def __init__(self, frames: npt.NDArray[np.uint8]) -> None:
        self.images = frames

    def frames(self, start: int) -> Iterator[GridFrame]:
        yield from (GridFrame(step, self.images[step], True) for step in range(start, len(self.images)))


def made(name: str, device: Any, resize_to: tuple[int, int] | None = None) -> Engine:
    spec = backbone_spec(name)
    torch.manual_seed(0)
    module = build_backbone(name).eval()
    options: dict[str, Any] = {"clip_shape": SHAPE, "kind": "torch", "device": device, "resize_to": resize_to}
    return make_engine(module, mean=spec.mean, std=spec.std, **options)


def streamed(engine: Engine, video: Still, first_row: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    plan = WindowPlan(len(video.images), SHAPE[0], 2, 2, "hann")
    blocks = list(stream_rows(video, plan, engine, views=VIEWS, first_row=first_row, groups_per_call=3))  # type: ignore[arg-type]
    return {view: np.concatenate([block.rows[view] for block in blocks]) for view in VIEWS}


def pictures(num_frames: int) -> Still:
    return Still(np.random.default_rng(0).integers(0, 256, (num_frames, *SHAPE[1:], 3), np.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_a_mirrored_view_is_that_of_mirrored_pictures(name: str) -> None:
    engine, video = made(name, "cpu"), pictures(70)
    rows, mirrored = (
        streamed(engine, Still(np.ascontiguousarray(each))) for each in (video.images, video.images[:, :, ::-1])
    )
    assert np.array_equal(rows["hflip"], mirrored["identity"])
    assert np.array_equal(rows["identity"], mirrored["hflip"])
    assert not np.array_equal(rows["hflip"], rows["identity"])


@pytest.fixture
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("NO CUDA DEVICE")


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("resize_to", [None, (32, 24)])
@pytest.mark.parametrize("name", NAMES)
def test_streamed_rows_are_those_of_the_cpu(name: str, resize_to: tuple[int, int] | None) -> None:
    video = pictures(300)
    wanted, engine = streamed(made(name, "cpu", resize_to), video), made(name, "cuda", resize_to)
    rows, rest = streamed(engine, video), streamed(engine, video, first_row=120)
    for view, each in wanted.items():
        cosines = (each * rows[view]).sum(1) / np.linalg.norm(each, axis=1) / np.linalg.norm(rows[view], axis=1)
        assert cosines.min() > 0.9999
        assert np.array_equal(rest[view], rows[view][120:])
    assert np.array_equal(streamed(engine, video)["hflip"], rows["hflip"])


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", NAMES)
def test_a_call_queues_its_work_without_a_synchronisation(name: str) -> None:
    """PyTorch itself raises where one would be."""
    engine, frames = made(name, "cuda"), pictures(40).images
    clip_rows(engine, frames[:5][None])  # kernels are loaded and chosen
    feed, images = engine.feed(), list(frames)
    torch.cuda.set_sync_debug_mode("error")
    try:
        waits = [feed(images[:20], np.arange(20).reshape(4, 5), VIEWS)]
        waits += [feed(images[end - 10 : end], np.arange(end - 20, end).reshape(4, 5), VIEWS) for end in (30, 40)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    rows = [wait()["identity"] for wait in waits]
    for start, each in zip((0, 10, 20), rows, strict=True):
        assert np.array_equal(each, clip_rows(engine, frames[start : start + 20].reshape(4, 5, *frames.shape[1:])))
