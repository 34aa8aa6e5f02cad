"""PyTorch as the engine: plain fp32 on a CPU, fp16 autocast on a CUDA device."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ..backbones.nets import FrameBackbone
from ..backbones.registry import Rgb

_FRAMES_PER_CALL = {"cpu": 16, "cuda": 256}
"""About as many frames go through the module in one call. It is a fixed number of clips (2-D: frames), filled up with
black: a kernel may be chosen, and so round, by the size of its input, and no row may depend on the grouping."""

_CUDA_GROUPS_PER_CALL = 4
"""Such groups in one call: while the device works on one, the next is copied to it."""


class Normalised(nn.Module):
    """A backbone that takes pictures as they come: (B, T, H, W, 3) -> float (B, T, C), uint8 or float RGB in [0, 255].

    Args:
        module: a backbone.
        mean: subtracted from RGB in [0, 1].
        std: RGB in [0, 1] is divided by it afterwards.
        resize_to: (width, height) to which pictures are resized first (bilinear, antialiased, aspect not kept).
    """

    def __init__(self, module: nn.Module, *, mean: Rgb, std: Rgb, resize_to: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.module, self.resize_to = module, resize_to
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) * 255.0 * scale
        self.scale = nn.Buffer(scale.float().view(1, 3, 1, 1, 1), persistent=False)
        self.shift = nn.Buffer(shift.float().view(1, 3, 1, 1, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        pixels = clips.permute(0, 4, 1, 2, 3).float()
        if self.resize_to is not None:
            pixels = _resized(pixels, *self.resize_to)
        rows: Tensor = self.module(pixels * self.scale + self.shift)
        return rows


class TorchEngine:
    """See `engines.Engine`.

    Args:
        module: a backbone in eval mode; it is copied.
        mean: as in `Normalised`.
        std: as in `Normalised`.
        device: `cpu`: fp32; `cuda`: fp16 autocast, channels last.
        clip_shape: steps, height and width of every clip, before any resizing.
        resize_to: as in `Normalised`.
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
        net = Normalised(copy.deepcopy(module).eval(), mean=mean, std=std, resize_to=resize_to).to(self._device)
        if device == "cuda":
            lay_channels_last(net)
        self._net = net
        self._staged: list[Tensor] = []

    def __call__(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        check_clips(clips, self.clip_shape)
        num_clips, num_steps = clips.shape[:2]
        items = np.ascontiguousarray(clips).reshape(-1, self._steps, *clips.shape[2:])
        with computing(self.name), torch.inference_mode():
            groups = self._uploaded(items) if self._device.type == "cuda" else self._filled_up(items)
            rows = torch.cat([self._run(group) for group in groups])[: len(items)]
        return rows.cpu().numpy().reshape(num_clips, num_steps, -1)

    def describe(self) -> dict[str, Any]:
        """Engine, versions and device, for the provenance record."""
        place = torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"
        return {"engine": self.name, "torch": torch.__version__, "device": place, "items_per_call": self._items}

    def _run(self, group: Tensor) -> Tensor:
        if self._device.type == "cpu":
            rows: Tensor = self._net(group)
            return rows
        with torch.autocast("cuda", dtype=torch.float16):
            rows = self._net(group)
        return rows.float()

    def _filled_up(self, items: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
        for start in range(0, len(items), self._items):
            group = torch.from_numpy(items[start : start + self._items])
            yield functional.pad(group, (0, 0) * 4 + (0, self._items - len(group)))

    def _uploaded(self, items: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
        """Groups on the device, the last filled up; one is staged while the device works on the one before."""
        if not self._staged:  # pinning costs more than a copy: once per engine
            shape = (self._items, *items.shape[1:])
            self._staged = [torch.zeros(shape, dtype=torch.uint8).pin_memory() for _ in range(2)]
        staged = self._staged
        sent = [torch.cuda.Event() for _ in staged]  # type: ignore[no-untyped-call]
        for turn, start in enumerate(range(0, len(items), self._items)):
            pinned, event = staged[turn % 2], sent[turn % 2]
            event.synchronize()  # the upload that last used this buffer is over
            group = items[start : start + self._items]
            pinned[: len(group)].copy_(torch.from_numpy(group))
            uploaded = pinned.to(self._device, non_blocking=True)
            event.record()
            yield uploaded


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


def inner_steps(module: nn.Module, clip_shape: tuple[int, int, int]) -> int:
    """Steps that must go through the module together: a whole clip, or one frame of a network that sees no time."""
    return 1 if isinstance(module, FrameBackbone) and not module.shifts else clip_shape[0]


def check_clips(clips: npt.NDArray[np.uint8], clip_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless clips are uint8 (B >= 1, T, H, W, 3)."""
    wanted = (*clip_shape, 3)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != wanted or len(clips) < 1:
        raise ValueError(f"clips must be uint8 (B, {', '.join(map(str, wanted))}), got {clips.dtype} {clips.shape}")


def _resized(pixels: Tensor, width: int, height: int) -> Tensor:
    num_clips, _, num_steps = pixels.shape[:3]
    frames = pixels.transpose(1, 2).flatten(0, 1)
    frames = functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)
    return frames.reshape(num_clips, num_steps, *frames.shape[1:]).transpose(1, 2)
