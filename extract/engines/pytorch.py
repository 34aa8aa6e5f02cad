"""PyTorch as the engine: plain fp32 on a CPU, fp16 autocast on a CUDA device.

Letters: B clips, T steps, H x W pixels, C channels; N items that the module sees one by one, of I frames.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ..backbones.nets import FrameBackbone
from ..backbones.registry import Rgb
from ..options import VIEWS, View
from ..video.picture import Pixels
from .ring import FrameRing, uploaded

PendingRows = Callable[[], dict[View, npt.NDArray[np.float32]]]
"""Waits for the rows of a call: view -> (B, T, C)."""
Feed = Callable[[Sequence[Pixels], npt.NDArray[np.int64], Sequence[View]], PendingRows]
"""See `engines.Engine.feed`."""

_FRAMES_PER_CALL = {"cpu": 16, "cuda": 256}
"""About as many frames go through the module at once. It is a fixed number of clips (2-D: frames), filled up with any:
a kernel may be chosen, and so round, by the size of its input, and no row may depend on the grouping."""

_CUDA_GROUPS_PER_CALL = 4
"""So many times that number in one call: clips come in multiples of the stride, and would often fill one by half."""


class Normalised(nn.Module):
    """A backbone that takes pictures as they come: (B, T, H, W, 3) -> float (B, T, C), uint8 or float RGB in [0, 255].

    Args:
        module: a backbone.
        mean: subtracted from RGB in [0, 1].
        std: RGB in [0, 1] is divided by it afterwards.
        resize_to: (width, height) to which pictures are resized first (bilinear, antialiased, aspect not kept).
        dtype: of what the module is given; float16 is made of uint8 in one kernel, each pixel read and written once.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Rgb,
        std: Rgb,
        resize_to: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.module, self.resize_to, self.dtype = module, resize_to, dtype
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) * 255.0 * scale
        self.scale = nn.Buffer(scale.float().view(1, 3, 1, 1, 1), persistent=False)
        self.shift = nn.Buffer(shift.float().view(1, 3, 1, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        pixels = clips.permute(0, 4, 1, 2, 3)
        if self.resize_to is not None:
            pixels = _resized(pixels.float(), *self.resize_to)
        if self.dtype == torch.float32:
            normalised = pixels.float() * self.scale + self.shift
        else:  # computed in fp32 and rounded once; it lies as the pictures do, channels last
            normalised = torch.empty_like(pixels, dtype=self.dtype)
            torch.addcmul(self.shift, pixels, self.scale, out=normalised)
        rows: Tensor = self.module(normalised)
        return rows


class TorchEngine:
    """See `engines.Engine`.

    Args:
        module: a backbone; it is never changed. On a CPU one in eval mode is used as it is, so leave it as it is; any
            other is copied.
        mean, std, resize_to: as in `Normalised`.
        device: `cpu`: fp32; `cuda`: fp16 autocast, channels last.
        clip_shape: steps, height and width of every clip, before any resizing.
        note: as in `engines.Engine`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Rgb,
        std: Rgb,
        device: Literal["cpu", "cuda"],
        clip_shape: tuple[int, int, int],
        resize_to: tuple[int, int] | None = None,
        note: str = "",
    ) -> None:
        self.note = note
        self.name = "torch-fp16-cuda" if device == "cuda" else "torch-f32-cpu"
        self.mean, self.std, self.clip_shape, self.resize_to = mean, std, clip_shape, resize_to
        self._device = torch.device(device)
        self._steps = inner_steps(module, clip_shape)
        is_alone = device == "cpu" and self._steps > 1  # a gate's tanh rounds by where in the group an element lies
        self._items = 1 if is_alone else max(_FRAMES_PER_CALL[device] // self._steps, 1)
        num_groups = _CUDA_GROUPS_PER_CALL if device == "cuda" else 1
        self.preferred_clips = max(num_groups * self._items * self._steps // clip_shape[0], 1)
        dtype = torch.float16 if device == "cuda" else torch.float32
        module = copy.deepcopy(module) if device == "cuda" else in_eval_mode(module)
        self._net = Normalised(module, mean=mean, std=std, resize_to=resize_to, dtype=dtype).eval().to(self._device)
        if device == "cuda":
            lay_channels_last(self._net)

    def feed(self) -> Feed:
        """See `engines.Engine`."""
        return partial(self._begin, FrameRing(self._device))

    def describe(self) -> dict[str, Any]:
        """Engine, versions and device, for the provenance record."""
        place = torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"
        return {"engine": self.name, "torch": torch.__version__, "device": place, "items_per_call": self._items}

    def _begin(
        self, ring: FrameRing, images: Sequence[Pixels], frames_bt: npt.NDArray[np.int64], views: Sequence[View]
    ) -> PendingRows:
        """Queue all work of a call on the device; it waits for no kernel, at most for uploads."""
        autocast = torch.autocast("cuda", dtype=torch.float16, enabled=self._device.type == "cuda")
        with computing(self.name), torch.inference_mode(), autocast:
            ring.add(images)
            slots_ni = ring.slots(frames_bt).reshape(-1, self._steps)
            filled_up = np.pad(slots_ni, ((0, -len(slots_ni) % self._items), (0, 0)))
            groups = torch.split(uploaded(filled_up, self._device), self._items)
            rows = {view: torch.cat([self._rows(ring, group, view) for group in groups]) for view in views}
            ring.end_call()
            copied = {view: each[: len(slots_ni)].to("cpu", non_blocking=True) for view, each in rows.items()}
            done = ring.now()

        def wait() -> dict[View, npt.NDArray[np.float32]]:
            with computing(self.name):
                done.synchronize()
            return {view: each.numpy().reshape(*frames_bt.shape, -1) for view, each in copied.items()}

        return wait

    def _rows(self, ring: FrameRing, slots_ni: Tensor, view: View) -> Tensor:
        clips = ring.gather(slots_ni)
        if VIEWS[view]:
            clips = clips.flip(VIEWS[view])
        rows: Tensor = self._net(clips)
        return rows.float()


@contextmanager
def computing(engine: str) -> Iterator[None]:
    """What a library raises while it computes (all of one type, whatever the cause) becomes an `InputError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"{engine} cannot compute these rows",
            got=next(iter(str(error).strip().splitlines()), type(error).__name__)[:200],
            cure="where memory is short: fewer --jobs, a smaller --batch, --window or --size, or another --engine",
        ) from error


def lay_channels_last(net: nn.Module) -> None:
    """Kernels in the order that CUDA is quickest with, and oneDNN when it trains: NDHWC of 3-D nets, NHWC of 2-D ones;
    by rank, so that other tensors are left alone. The pictures lie like that already."""
    for parameter in net.parameters():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def in_eval_mode(module: nn.Module) -> nn.Module:
    """The module itself where it is in eval mode, else a copy that is: one that learns stays as it is."""
    return copy.deepcopy(module).eval() if any(part.training for part in module.modules()) else module


def inner_steps(module: nn.Module, clip_shape: tuple[int, int, int]) -> int:
    """Steps that must go through the module together: a whole clip, or one frame where a 2-D backbone sees no time."""
    return 1 if isinstance(module, FrameBackbone) and not module.shifts else clip_shape[0]


def _resized(pixels: Tensor, width: int, height: int) -> Tensor:
    num_clips, _, num_steps = pixels.shape[:3]
    frames = pixels.transpose(1, 2).flatten(0, 1)
    frames = functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)
    return frames.reshape(num_clips, num_steps, *frames.shape[1:]).transpose(1, 2)
