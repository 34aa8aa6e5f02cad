"""Backbone and head as one network.

Shapes: B clips of all processes, b clips of this one, T steps, H x W pixels, C channels of a row.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from ..cache.settings import FeatureSettings
from ..extract.engines.pytorch import Normalised
from ..heads.model import SpottingModel
from ..heads.ops import Mask
from ..heads.targets import Targets
from ..heads.training.data import Batch
from ..heads.training.settings import FinetuneSettings
from ..heads.training.loop import batch_loss
from .blocks import batch_norms, checkpoint_blocks, trunk_blocks, used_parameters

Found = TypeVar("Found")


class Lesson:
    """What one forward pass learns from. A plain class: what wraps a network must not look into it."""

    def __init__(self, pixels: Tensor, mask_bt: Mask, targets: Targets, *, seed: int) -> None:
        self.pixels = pixels
        """(b, T, H, W, 3) RGB in [0, 255], of this process."""
        self.mask_bt = mask_bt
        """(B, T) bool of all processes; None where no window is padded."""
        self.targets = targets
        """(B, T, ...) of all processes."""
        self.seed = seed
        """Of mixup and dropout in the head."""


class FinetuneNet(nn.Module):
    """Pixels to a loss. The head is the very class that learns on cached features.

    Args:
        backbone: of `extract.backbones`.
        spotting: the head with its inputs.
        features: mean and deviation of the pictures.
        settings: what learns.
        checkpointing: compute blocks twice to save memory.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spotting: SpottingModel,
        *,
        features: FeatureSettings,
        settings: FinetuneSettings,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.seen = Normalised(backbone, mean=features.mean, std=features.std)
        self.spotting = spotting
        self._mixup_alpha = settings.mixup
        backbone.eval().requires_grad_(True)
        used = used_parameters(backbone, torch.zeros(1, 3, 1, features.height, features.width))
        blocks = trunk_blocks(backbone, used)
        first = 0 if settings.unfreeze is None else max(0, len(blocks) - settings.unfreeze)
        self.num_blocks, self.num_learning = len(blocks), len(blocks) - first
        learning = [part for block in blocks[first:] for part in block]
        backbone.requires_grad_(first == 0)  # also what belongs to no block, such as a transformer's positions
        for part in learning:
            part.requires_grad_(True)
        for parameter in backbone.parameters():
            parameter.requires_grad &= id(parameter) in used
        kept = {id(norm) for norm in batch_norms(learning)} if settings.uses_batch_statistics else set()
        self._unmoved = [part for block in blocks[:first] for part in block]
        self._unmoved += [norm for norm in batch_norms([backbone]) if id(norm) not in kept]
        self.checkpointing = checkpointing
        if checkpointing:
            checkpoint_blocks(blocks[first:])
        self.train()

    @property
    def backbone(self) -> nn.Module:
        """Normalised pictures to rows."""
        return self.seen.module

    def train(self, mode: bool = True) -> "FinetuneNet":
        """Training mode, but for what does not learn: that uses its stored statistics and drops nothing."""
        super().train(mode)
        for module in self._unmoved:
            module.eval()
        return self

    def forward(self, lesson: Lesson) -> Tensor:
        """The loss of the whole batch, a scalar, the same in every process."""
        torch.manual_seed(lesson.seed ^ process_index())  # clips of two processes do not drop alike
        features_btc = _of_all(self.rows(lesson.pixels).contiguous())  # dropout draws in the order of memory
        torch.manual_seed(lesson.seed)  # the head drops alike in all, whatever their backbones drew
        batch = Batch(features_btc, lesson.mask_bt, lesson.targets)
        return batch_loss(self.spotting, batch, mixup_alpha=self._mixup_alpha, seed=lesson.seed)

    def rows(self, pixels: Tensor) -> Tensor:
        """(b, T, H, W, 3) in [0, 255] -> (b, T, C), as `bas extract` computes them of a clip."""
        rows: Tensor = self.seen(pixels)
        return rows

    def learning(self, module: nn.Module) -> list[nn.Parameter]:
        """The parameters of a part that learn."""
        return [parameter for parameter in module.parameters() if parameter.requires_grad]


def num_processes() -> int:
    """Processes that train together; 1 where there is one only."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _of_all(features_btc: Tensor) -> Tensor:
    """Rows of all processes (B, T, C), each process's own with its gradient.

    The head then sees the whole batch in every process, so its loss, mixup, norms and dropout are those of one
    process; it is light. Each process's loss is the whole one, and the processes' gradients will be averaged:
    that of the rows is multiplied by their number, so that the average of the backbone's gradients is their sum.
    """
    count = num_processes()
    if count == 1:
        return features_btc
    parts = [torch.empty_like(features_btc) for _ in range(count)]
    torch.distributed.all_gather(parts, features_btc.detach().contiguous())
    parts[process_index()] = features_btc + (count - 1) * (features_btc - features_btc.detach())
    return torch.cat(parts)


def gathered(found: Sequence[Found]) -> list[list[Found]]:
    """What each process found, in the order of the processes, in every process."""
    if num_processes() == 1:
        return [list(found)]
    parts: list[list[Found]] = [[] for _ in range(num_processes())]
    torch.distributed.all_gather_object(parts, list(found))
    return parts
