"""Clips for finetuning: the videos of a data set, the training windows of stage two as pictures, and augmentation.

Shapes: B clips of all processes, b of this one, T steps, H x W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data.sources import DataSet, Match
from ..errors import InputError
from ..events import TimeGrid, own_classes, teams_of
from ..extract.backbones.torchvision_compat import import_with_torchvision
from ..extract.extractor import Extractor
from ..extract.video.clips import ClipPlace, ClipReader, Clips
from ..extract.video.reader import Video
from ..heads.targets import Targets
from ..heads.training.data import Chosen, IntArray, Matches, MatchLabels, Windows
from ..heads.training.settings import Augment, FinetuneSettings
from .devices import num_processes, process_index

_BATCHES_AHEAD = 2
_JITTER = {"hue": (-0.2, 0.2), "saturation": (0.7, 1.2), "brightness": (0.7, 1.2), "contrast": (0.7, 1.2)}
_JITTER_PROBABILITY, _BLUR_PROBABILITY, _FLIP_PROBABILITY = 0.25, 0.25, 0.5
_CAMERA_PROBABILITY, _ROTATION_PROBABILITY, _CROP_PROBABILITY, _AFFINE_PROBABILITY = 0.2, 0.3, 0.8, 0.25
_MOST_DEGREES, _MOST_SHIFT, _MOST_ZOOM, _LEAST_AREA = 2.5, (0.1, 0.05), 0.05, 0.9


@dataclass
class VideoSource:
    """Videos by match id, opened when they are first asked for."""

    data_set: DataSet
    extractor: Extractor
    """Says on which grid and at which size they are read."""
    may_be_coarse: bool = False
    """Whether rows may be as few a second as they are: the head that is begun with learned on such."""
    _videos: dict[str, Video] = field(default_factory=dict, repr=False)

    def matches(self) -> Matches:
        """The data set's matches, to choose from."""
        split_of = {match.id: match.split for match in self.data_set.matches}
        root, again = str(self.data_set.root), "run the same command again"
        events = [event for file in self.data_set.label_files.values() for event in file.events]
        labels, teams = {event.label for event in events}, teams_of(events)
        classes = self.data_set.classes
        is_listed = all(path.is_file() for path in self.data_set.class_files)
        own = () if is_listed else own_classes(classes, split_of, labels)
        return Matches(root, classes, split_of, self._labels, again, self.may_be_coarse, own=own, teams=teams)

    def video(self, match_id: str) -> Video:
        """The video of a match.

        Raises:
            InputError: missing, or not readable.
        """
        if match_id not in self._videos:
            self._videos[match_id] = self.extractor.open(self._match(match_id).require_video())
        return self._videos[match_id]

    def _labels(self, match_id: str) -> MatchLabels:
        events = self.data_set.events(self._match(match_id))
        if events is None:  # before its video is read, which may take a while
            raise InputError(
                f"{self.data_set.root}: match {match_id!r} has no labels",
                got="a video alone",
                wanted="Labels-ball.json beside it",
                cure="label it, or move it out of the splits train and valid (splits.json)",
            )
        grid = self.video(match_id).grid
        return MatchLabels(grid.num_steps, TimeGrid(grid.fps), events)

    def _match(self, match_id: str) -> Match:
        return next(match for match in self.data_set.matches if match.id == match_id)


@dataclass(frozen=True)
class ClipBatch:
    """What goes through the network at once: a batch, or one of the parts that it is cut into."""

    pixels: Tensor
    """(b, T, H, W, 3) uint8 on the CPU, the clips of this process."""
    seeds: tuple[int, ...]
    """Of the augmentation, one per clip of this process."""
    targets: Targets
    """(B, T, ...) of all processes."""


class TrainingClips:
    """All training windows of a data set's videos.

    Args:
        chosen: which matches train.
        source: their videos.
        settings: windows, batches, order.
        threads: of the decoders; 0: one per core.
        device: where targets are wanted.
    """

    def __init__(
        self, chosen: Chosen, source: VideoSource, settings: FinetuneSettings, *, threads: int, device: torch.device
    ) -> None:
        self.windows = Windows.of(chosen, settings, device=device)
        self._settings = settings
        self._videos = [source.video(match.id) for match in chosen.train]
        self._threads = threads
        self._clips: Clips | None = None
        self._waited_before = 0.0

    @property
    def waited_seconds(self) -> float:
        """Time so far that training stood waiting for clips."""
        return self._waited_before + (self._clips.waited_seconds if self._clips else 0.0)

    def batches(self, epoch: int, *, first_step: int) -> Iterator[tuple[ClipBatch, ...]]:
        """Batches of an epoch (from 0) from step `first_step` on, each in `accumulate` parts."""
        batches = self.windows.batches(epoch)[first_step:]
        mine = [window for batch in batches for part in self._parts(batch) for window in _own(part)]
        size = self._settings.batch // num_processes()
        with self._reader(_BATCHES_AHEAD * size) as reader, closing(reader.clips(map(self._place, mine))) as clips:
            self._clips = clips
            try:
                for step, batch in enumerate(batches, first_step):
                    yield self._batch(batch, clips, first_clip=step * self._settings.batch, epoch=epoch)
            finally:
                self._waited_before, self._clips = self.waited_seconds, None

    def spread(self, count: int) -> Iterator[Tensor]:
        """Clips (1, T, H, W, 3) uint8 of up to `count` windows, evenly spread over all, the same in every process."""
        numbers = np.unique(np.linspace(0, self.windows.num_windows - 1, count).round().astype(np.int64))
        with self._reader(_BATCHES_AHEAD) as reader, closing(reader.clips(map(self._place, numbers))) as clips:
            for pixels in clips:
                yield torch.from_numpy(pixels)[None]

    def _reader(self, ahead: int) -> ClipReader:
        return ClipReader(self._videos, threads=self._threads, ahead=ahead)

    def _place(self, window: int) -> ClipPlace:
        row = int(self.windows.first_row_w[window])
        match = int(np.searchsorted(self.windows.first_row_m, row, side="right")) - 1
        first_step = row - int(self.windows.first_row_m[match])
        return ClipPlace(match, first_step, self._settings.clip_len, self._settings.stride)

    def _parts(self, batch: IntArray) -> Sequence[IntArray]:
        return np.split(batch, self._settings.accumulate)

    def _batch(self, batch: IntArray, clips: Clips, *, first_clip: int, epoch: int) -> tuple[ClipBatch, ...]:
        parts, clip = [], first_clip
        for windows in self._parts(batch):
            all_seeds = [clip_seed(self._settings.seed, epoch, clip + number) for number in range(len(windows))]
            seeds = tuple(all_seeds[number] for number in _own(np.arange(len(windows))))
            pixels = torch.from_numpy(np.stack([next(clips) for _ in seeds]))
            is_mirrored = [self._settings.augment != "none" and is_flipped(seed) for seed in all_seeds]
            targets = self.windows.targets_of(*self.windows.index(windows), is_mirrored=is_mirrored)
            parts.append(ClipBatch(pixels, seeds, targets))
            clip += len(windows)
        return tuple(parts)


def clip_seed(seed: int, epoch: int, clip: int) -> int:
    """Seed of the augmentation of one clip of an epoch, the same in whichever process reads it."""
    return int(np.random.SeedSequence([seed, epoch, clip, 3]).generate_state(1, np.uint64)[0])


def is_flipped(seed: int) -> bool:
    """Whether `augment` mirrors the clip of this seed, where it mirrors any: the flip is the first that it draws."""
    return bool(torch.rand(1, generator=torch.Generator().manual_seed(seed)) < _FLIP_PROBABILITY)


def _own(part: IntArray) -> IntArray:
    """This process's share of what all processes do together."""
    size = len(part) // num_processes()
    return part[process_index() * size : (process_index() + 1) * size]


def augmentation(name: Augment) -> Callable[[Tensor], Tensor]:
    """A random change of one clip (T, 3, H, W) uint8, the same for all its frames but where a camera moves; draws from
    torch's generator on the CPU. `seed` is that of the best published system of this kind; in `strong` place and size
    change as in the winner of Ball Action Spotting 2023 (lRomul/ball-action-spotting), colours as in `seed`."""
    transforms = import_with_torchvision("torchvision.transforms.v2")
    flip = [transforms.RandomHorizontalFlip(_FLIP_PROBABILITY)] if name != "none" else []
    view = []
    if name == "affine":  # as AdaSpot's
        affine = transforms.RandomAffine(15, (0.05, 0.05), (0.95, 1.05), (-5, 5, -5, 5))
        view = [transforms.RandomApply([affine], _AFFINE_PROBABILITY)]
    if name == "strong":
        rotation = transforms.RandomRotation(_MOST_DEGREES, transforms.InterpolationMode.BILINEAR)
        view = [
            transforms.RandomApply([transforms.Lambda(_with_moving_camera)], _CAMERA_PROBABILITY),
            transforms.RandomApply([rotation], _ROTATION_PROBABILITY),
            transforms.RandomApply([transforms.Lambda(_cropped)], _CROP_PROBABILITY),
        ]
    colour = []
    if name in ("seed", "affine", "strong"):  # each by itself: a ColorJitter of all four would change all or none
        jitters = [transforms.ColorJitter(**{kind: limits}) for kind, limits in _JITTER.items()]
        colour = [transforms.RandomApply([jitter], _JITTER_PROBABILITY) for jitter in jitters]
        colour.append(transforms.RandomApply([transforms.GaussianBlur(5, (0.1, 2.0))], _BLUR_PROBABILITY))
    change: Callable[[Tensor], Tensor] = transforms.Compose([transforms.Identity(), *flip, *view, *colour])
    return change


def _with_moving_camera(clip: Tensor) -> Tensor:
    """Turned, shifted and zoomed a little, from one random view at the first frame evenly to another at the last."""
    transforms = import_with_torchvision("torchvision.transforms.v2")
    height, width = clip.shape[-2:]
    most = torch.tensor([_MOST_DEGREES, _MOST_SHIFT[0] * width, _MOST_SHIFT[1] * height, _MOST_ZOOM])
    first, last = (2 * torch.rand(2, 4) - 1) * most
    moved, bilinear = torch.empty_like(clip), transforms.InterpolationMode.BILINEAR
    for into, frame, share in zip(moved, clip, torch.linspace(0, 1, len(clip)), strict=True):
        degrees, right, down, zoom = torch.lerp(first, last, share).tolist()
        view = transforms.functional.affine(frame, degrees, [right, down], 1 + zoom, [0.0], interpolation=bilinear)
        into.copy_(view)
    return moved


def _cropped(clip: Tensor) -> Tensor:
    """A random part of nearly all of the picture and nearly its shape, brought to its size."""
    transforms = import_with_torchvision("torchvision.transforms.v2")
    height, width = clip.shape[-2:]
    ratio = (0.9 * width / height, 1.1 * width / height)
    crop: Tensor = transforms.RandomResizedCrop((height, width), scale=(_LEAST_AREA, 1.0), ratio=ratio)(clip)
    return crop


def augment(pixels: Tensor, change: Callable[[Tensor], Tensor], *, seeds: Sequence[int]) -> Tensor:
    """Clips as the backbone shall see them in training; neither batch, place in it nor device choose what a clip gets.

    Args:
        pixels: (B, T, H, W, 3) RGB uint8, on any device.
        change: of `augmentation`.
        seeds: one per clip, >= 0, such as a hash of (seed, epoch, index).

    Returns:
        (B, T, H, W, 3) uint8 on the same device.
    """
    out = torch.empty_like(pixels)
    with torch.random.fork_rng(devices=[]), torch.autocast(pixels.device.type, enabled=False):
        for into, clip, seed in zip(out, pixels, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            into.copy_(change(clip.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    return out
