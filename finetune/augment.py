"""Augmentation of clips on their device: what a clip gets is a pure function of its own seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..extract.backbones.torchvision_compat import import_with_torchvision

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How likely a clip is changed, and how much. All its frames are changed alike, in the order of the fields."""

    flip: float = 0.0
    """Probability of a mirror image, left for right."""
    jitter: float = 0.0
    """Probability of each of the next four, one by one."""
    hue: Range = (-0.2, 0.2)
    """Turns of the colour circle, -0.5 to 0.5."""
    saturation: Range = (0.7, 1.2)
    """Factor, >= 0, as the next two."""
    brightness: Range = (0.7, 1.2)
    contrast: Range = (0.7, 1.2)
    """About the mean grey of each frame."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_kernel: int = 5
    """Pixels, odd."""
    blur_sigma: Range = (0.1, 2.0)
    """Pixels, > 0."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "blur"):
            self._require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        self._require("hue", self.hue, -0.5 <= self.hue[0] <= self.hue[1] <= 0.5, "two numbers, -0.5 to 0.5")
        for name in ("saturation", "brightness", "contrast"):
            low, high = getattr(self, name)
            self._require(name, (low, high), 0 <= low <= high, "two numbers >= 0, the lower first")
        self._require(
            "blur_kernel", self.blur_kernel, self.blur_kernel >= 1 and self.blur_kernel % 2 == 1, "an odd number"
        )
        self._require("blur_sigma", self.blur_sigma, 0 < self.blur_sigma[0] <= self.blur_sigma[1], "two numbers > 0")

    @staticmethod
    def _require(name: str, value: object, holds: bool, wanted: str) -> None:
        if not holds:
            raise InputError(f"augmentation: {name} is not usable", got=str(value), wanted=wanted)


AUGMENTS: Mapping[str, Augment] = {
    "none": Augment(),
    "flip": Augment(flip=0.5),
    "seed": Augment(flip=0.5, jitter=0.25, blur=0.25),
}
"""By name; `seed` is that of the best published system of this kind."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one clip gets; None: that is left out."""

    flip: bool = False
    hue: float | None = None
    saturation: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    blur_sigma: float | None = None


def named_augment(name: str) -> Augment:
    """The settings of that name.

    Raises:
        InputError: no such name.
    """
    if name not in AUGMENTS:
        raise InputError("no such augmentation", got=repr(name), wanted=", ".join(AUGMENTS))
    return AUGMENTS[name]


def drawn_change(settings: Augment, seed: int) -> Change:
    """What the clip of a seed gets.

    Numpy draws, as for the order of an epoch: PyTorch's generator looks at the low 32 bits of a seed only.

    Args:
        settings: how likely, and how much.
        seed: >= 0, of any size.
    """
    happens, amount = np.random.default_rng(seed).random((2, 6))  # all are drawn, so that none depends on another

    def drawn(place: int, probability: float, limits: Range) -> float | None:
        low, high = limits
        return float(low + (high - low) * amount[place]) if happens[place] < probability else None

    return Change(
        flip=bool(happens[0] < settings.flip),
        hue=drawn(1, settings.jitter, settings.hue),
        saturation=drawn(2, settings.jitter, settings.saturation),
        brightness=drawn(3, settings.jitter, settings.brightness),
        contrast=drawn(4, settings.jitter, settings.contrast),
        blur_sigma=drawn(5, settings.blur, settings.blur_sigma),
    )


def augment(pixels: Tensor, settings: Augment, *, seeds: Sequence[int]) -> Tensor:
    """Clips as the backbone shall see them in training; neither batch, place in it nor device choose what a clip gets.

    Args:
        pixels: (B, T, H, W, 3) RGB in [0, 255], uint8 or float, on any device.
        settings: of `AUGMENTS`, or others.
        seeds: one per clip, >= 0, such as a hash of (seed, epoch, index).

    Returns:
        (B, T, H, W, 3) float32 in [0, 255] on the same device, contiguous, without gradient. A clip that is left as it
        is, or flipped only, keeps its values exactly.
    """
    if pixels.ndim != 5 or pixels.shape[-1] != 3 or len(seeds) != len(pixels):
        raise ValueError(f"{len(seeds)} seeds and clips {tuple(pixels.shape)}: one per clip of (B, T, H, W, 3)")
    out = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        for into, clip, seed in zip(out, pixels, seeds, strict=True):
            frames_tchw = clip.permute(0, 3, 1, 2)
            frames_tchw = changed(frames_tchw, drawn_change(settings, seed), blur_kernel=settings.blur_kernel)
            into.copy_(frames_tchw.permute(0, 2, 3, 1))
    return out


def changed(frames: Tensor, change: Change, *, blur_kernel: int) -> Tensor:
    """Frames of one clip, changed alike.

    Args:
        frames: (T, 3, H, W) RGB in [0, 255], uint8 or float.
        change: what is done.
        blur_kernel: pixels, odd.

    Returns:
        (T, 3, H, W) of float32, or of the type given where nothing is done to the values.
    """
    if change.flip:
        frames = frames.flip(-1)
    frames = _jittered(frames, change)
    if change.blur_sigma is not None:
        vision = import_with_torchvision("torchvision.transforms.v2.functional")
        frames = vision.gaussian_blur(frames.float(), [blur_kernel] * 2, [change.blur_sigma] * 2)
    return frames


def _jittered(frames: Tensor, change: Change) -> Tensor:
    factors = {
        "hue": change.hue,
        "saturation": change.saturation,
        "brightness": change.brightness,
        "contrast": change.contrast,
    }
    if all(factor is None for factor in factors.values()):
        return frames
    vision = import_with_torchvision("torchvision.transforms.v2.functional")
    unit = frames.float() / 255  # torchvision takes the colours of floats to lie in [0, 1]
    for name, factor in factors.items():
        if factor is not None:
            unit = getattr(vision, f"adjust_{name}")(unit, factor)
    scaled: Tensor = unit * 255
    return scaled
