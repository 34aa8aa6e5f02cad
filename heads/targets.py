"""What a head learns from: events on the step grid as class, displacement and presence per step. Pure.

Shapes: B clips, T steps, K classes (ids 1..K), N = K + 1 with background 0. A step is one row of features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import InputError
from .training.settings import TargetSettings

NO_EVENT_STEPS = 1.0e6
"""Offset where there is no event: farther away than any clip is long, and finite, so that it never makes a NaN."""


@dataclass(frozen=True)
class Targets:
    """Labels of one clip (T, ...) or of a batch (B, T, ...)."""

    label_btn: Tensor
    """(..., T, N) float32, sums to 1: what softmax losses learn. One-hot, or Gaussian towards background."""
    presence_btk: Tensor
    """(..., T, K) float32 in [0, 1]: every class by itself, so that two events on one step both stay."""
    displacement_bt: Tensor
    """(..., T) float32, steps: nearest event minus this step (> 0: the event is to come). See `NO_EVENT_STEPS`."""
    offset_btk: Tensor
    """(..., T, K) float32, steps: the same to the nearest event of each class."""
    mask_bt: Tensor
    """(..., T) bool, False at padded steps: they give no loss."""

    @property
    def class_bt(self) -> Tensor:
        """(..., T) int64: class id, 0 background; where labels are soft, the likelier."""
        return self.label_btn.argmax(-1)

    def select(self, index: Tensor) -> "Targets":
        """Rows `index` of the first axis: windows (B, T) of a whole match, or clips (B,) of a batch."""
        return Targets(*(getattr(self, field.name)[index] for field in fields(self)))

    def mirrored(self, classes: Sequence[int], is_mirrored_b: Tensor) -> "Targets":
        """The labels (B, T, ...) of clips some of which are mirrored.

        Args:
            classes: (K,) index of the class that each one is in a mirrored picture; the same twice gives the class.
            is_mirrored_b: (B,) bool.
        """
        device, outputs = self.mask_bt.device, [0, *(index + 1 for index in classes)]
        is_mirrored_b11 = is_mirrored_b.to(device)[:, None, None]

        def swapped(values: Tensor, order: Sequence[int]) -> Tensor:
            return torch.where(is_mirrored_b11, values[..., torch.tensor(order, device=device)], values)

        return replace(
            self,
            label_btn=swapped(self.label_btn, outputs),
            presence_btk=swapped(self.presence_btk, classes),
            offset_btk=swapped(self.offset_btk, classes),
        )

    def to(self, device: torch.device | str) -> "Targets":
        """The same on another device."""
        return Targets(*(getattr(self, field.name).to(device) for field in fields(self)))


def clip_targets(
    events: Iterable[tuple[int, int]],
    *,
    num_steps: int,
    num_classes: int,
    settings: TargetSettings | None = None,
    class_counts: Sequence[int] = (),
) -> tuple[Targets, int]:
    """Events of a clip -> targets (T, ...), all real, and the number of events that softmax labels cannot show.

    Those have their step taken by another event; presence keeps them, unless both are of one class.

    A step belongs to its nearest event; at equal distance (two events on one step) to the rarer class.

    Args:
        events: (step from the clip's start, class id 1..K), any order. Events outside the clip are allowed: their
            dilated labels and displacements reach in.
        num_steps: T >= 1.
        num_classes: K >= 1.
        settings: width of the labels; by default neither dilated nor soft.
        class_counts: events of each class in the training set, to tell the rarer; without it the later id is.

    Raises:
        InputError: a class id outside 1..K, T or K below 1, or counts of another number of classes.
    """
    settings = settings or TargetSettings()
    steps_by_class = _steps_by_class(events, num_steps=num_steps, num_classes=num_classes)
    grid = torch.arange(num_steps)
    offset_tk = torch.stack([_nearest(grid, steps) for steps in steps_by_class], dim=1)
    distance_tk = offset_tk.abs()
    weight_tk = _weight(distance_tk, settings)
    # whole distances, so that a rank below the number of classes decides only between events that are as near
    winner_t1 = (distance_tk.double() * num_classes + _rarity(class_counts, num_classes)).argmin(1, keepdim=True)
    label_tk = torch.zeros(num_steps, num_classes).scatter(1, winner_t1, weight_tk.gather(1, winner_t1))
    targets = Targets(
        label_btn=torch.cat([1 - label_tk.sum(1, keepdim=True), label_tk], dim=1),
        presence_btk=weight_tk,
        displacement_bt=offset_tk.gather(1, winner_t1).squeeze(1),
        offset_btk=offset_tk,
        mask_bt=torch.ones(num_steps, dtype=torch.bool),
    )
    inside = [step for steps in steps_by_class for step in steps if 0 <= step < num_steps]
    return targets, len(inside) - len(set(inside))


def stack_targets(clips: Sequence[Targets]) -> Targets:
    """Clips (T, ...) of one length -> a batch (B, T, ...)."""
    return Targets(*(torch.stack([getattr(clip, field.name) for clip in clips]) for field in fields(Targets)))


def _steps_by_class(events: Iterable[tuple[int, int]], *, num_steps: int, num_classes: int) -> list[list[int]]:
    if num_steps < 1 or num_classes < 1:
        raise InputError("clip is not usable", got=f"{num_steps} steps, {num_classes} classes", wanted=">= 1 of each")
    steps: list[list[int]] = [[] for _ in range(num_classes)]
    for step, class_id in events:
        if not 1 <= class_id <= num_classes:
            raise InputError("class id is not usable", got=class_id, wanted=f"1 to {num_classes} (0 is background)")
        steps[class_id - 1].append(step)
    return [sorted(each) for each in steps]


def _nearest(grid: Tensor, steps: list[int]) -> Tensor:
    """(T,) signed distance in steps from each point of the grid to the nearest of the sorted `steps`."""
    if not steps:
        return torch.full(grid.shape, NO_EVENT_STEPS)
    events = torch.tensor(steps)
    after = torch.searchsorted(events, grid).clamp(max=len(steps) - 1)
    before = (after - 1).clamp(min=0)
    ahead, behind = events[after] - grid, events[before] - grid
    return torch.where(ahead.abs() <= behind.abs(), ahead, behind).float()


def _weight(distance_tk: Tensor, settings: TargetSettings) -> Tensor:
    if settings.sigma_steps == 0:
        return (distance_tk <= settings.dilation_steps).float()
    soft = torch.exp(-0.5 * (distance_tk / settings.sigma_steps) ** 2)
    return soft * (distance_tk <= 3 * settings.sigma_steps)


def _rarity(class_counts: Sequence[int], num_classes: int) -> Tensor:
    """(K,) rank of each class, 0 is the rarest."""
    if class_counts and len(class_counts) != num_classes:
        raise InputError(
            "counts do not fit the classes", got=f"{len(class_counts)} counts", wanted=f"{num_classes}, one per class"
        )
    counts = list(class_counts) or [0] * num_classes
    order = sorted(range(num_classes), key=lambda index: (counts[index], -index))
    return torch.tensor([order.index(index) for index in range(num_classes)])
