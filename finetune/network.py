"""Backbone and head as one network; the blocks of a backbone, from the picture to the row.

Shapes: B clips of all processes, b clips of this one, T steps, H x W pixels, C channels of a row.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..cache.settings import FeatureSettings
from ..errors import InputError
from ..extract.engines.pytorch import Normalised
from ..heads.losses import mixup
from ..heads.model import SpottingModel
from ..heads.targets import Targets
from ..heads.training.loop import blended_loss
from ..heads.training.settings import FinetuneSettings
from .devices import num_processes, process_index

_BLOCK_LISTS = ("blocks", "stages", "layers", "layer", "features", "conv3d_encoder")
"""Names under which networks keep their blocks one after another."""


class NetworkInput:
    """What one forward pass takes. A plain class, so that DDP and Fabric, which wrap a network, do not look into it."""

    def __init__(self, pixels: Tensor, targets: Targets, *, seed: int) -> None:
        self.pixels = pixels
        """(b, T, H, W, 3) RGB in [0, 255], of this process."""
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
        self._mixup_alpha = {"rows": 0.0, "pictures": 0.0, settings.mixup_of: settings.mixup}
        self._side_names: tuple[str, ...] = getattr(backbone, "side_rows", ()) if settings.side_weight else ()
        self._side_weight = settings.side_weight
        if settings.side_weight and not self._side_names:
            raise InputError(
                "--side-weight needs a backbone of several networks",
                got=f"{settings.side_weight:g}, {features.backbone}",
                wanted="a backbone with +adaspot",
                cure="--side-weight 0",
            )
        self.sides = nn.ModuleList(copy.deepcopy(spotting) for _ in self._side_names)
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

    def forward(self, batch: NetworkInput) -> Tensor:
        """The loss of the whole batch, a scalar, the same in every process."""
        pixels, parts = mixup(batch.pixels, batch.targets, seed=batch.seed, alpha=self._mixup_alpha["pictures"])
        torch.manual_seed(batch.seed ^ process_index())  # clips of two processes do not drop alike
        with self._side_rows() as sides:
            rows_btc = self.rows(pixels)
        losses = []
        for head, found in zip((self.spotting, *self.sides), (rows_btc, *sides), strict=True):
            features_btc = _of_all(found.reshape(rows_btc.shape).contiguous())  # dropout draws in the order of memory
            torch.manual_seed(batch.seed)  # the head drops alike in all, whatever their backbones drew
            if alpha := self._mixup_alpha["rows"]:
                features_btc, parts = mixup(features_btc, batch.targets, seed=batch.seed, alpha=alpha)
            losses.append(blended_loss(head, features_btc, parts))
        weight = self._side_weight
        return (losses[0] + weight * sum(losses[1:])) / (1 + weight * (len(losses) - 1))

    @contextmanager
    def _side_rows(self) -> Iterator[list[Tensor]]:
        """Gathers the rows (N, C) that each of the backbone's networks gives meanwhile."""
        found: list[Tensor] = []
        parts = [self.backbone.get_submodule(f"trunk.{name}") for name in self._side_names]
        hooks = [part.register_forward_hook(lambda _module, _inputs, rows: found.append(rows)) for part in parts]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def rows(self, pixels: Tensor) -> Tensor:
        """(b, T, H, W, 3) in [0, 255] -> (b, T, C), as `bas extract` computes them of a clip."""
        rows: Tensor = self.seen(pixels)
        return rows

    def learning(self, module: nn.Module) -> list[nn.Parameter]:
        """The parameters of a part that learn."""
        return [parameter for parameter in module.parameters() if parameter.requires_grad]


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


def used_parameters(backbone: nn.Module, clips_bcthw: Tensor) -> set[int]:
    """Ids of the parameters that rows depend on: some networks carry a last layer that only their classifier sees.

    Args:
        backbone: in eval mode, every parameter with its gradient.
        clips_bcthw: (B, 3, T, H, W), of any content.
    """
    parameters = list(backbone.parameters())
    with torch.enable_grad():
        gradients = torch.autograd.grad(backbone(clips_bcthw).sum(), parameters, allow_unused=True)
    return {id(each) for each, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def trunk_blocks(backbone: nn.Module, used: set[int]) -> list[nn.ModuleList]:
    """The trunk's blocks in the order of the pictures' way; what stands between two belongs to the one before.

    X3D has 5 (the stem is one), I3D 12, timm's networks their stem, their stages, and what follows; AdaSpot
    those of both networks, then the two projections; stacks of frames those of the 2-D network, then 7 more.

    Args:
        backbone: of `extract.backbones.registry`.
        used: see `used_parameters`.
    """
    blocks: list[nn.ModuleList] = []
    trunk = backbone.get_submodule("trunk")
    inner: tuple[str, ...] = getattr(backbone, "inner_networks", ())
    children = [each for name in inner for each in trunk.get_submodule(name).named_children()]
    children += [(name, child) for name, child in trunk.named_children() if name not in inner]
    for name, child in children:
        parts = list(child) if name in _BLOCK_LISTS and isinstance(child, nn.Sequential | nn.ModuleList) else [child]
        for part in parts:
            if not any(id(parameter) in used for parameter in part.parameters()):
                continue
            with_weights = [each for each in part.modules() if any(True for _ in each.parameters(recurse=False))]
            is_norm_only = all(isinstance(each, _BatchNorm | nn.LayerNorm) for each in with_weights)
            if is_norm_only and blocks:
                blocks[-1].append(part)
            else:
                blocks.append(nn.ModuleList([part]))
    return blocks


def batch_norms(blocks: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Every BatchNorm in some blocks."""
    return [each for block in blocks for each in block.modules() if isinstance(each, _BatchNorm)]


def checkpoint_blocks(blocks: Sequence[nn.ModuleList]) -> None:
    """Let each block forget what it computed on the way, and compute it again for the gradient."""
    for block in blocks:
        for part in block:
            # no closure: a deep copy of the network, as for averaged weights, copies a partial's arguments with it
            part.forward = partial(_checkpointed, part.forward, batch_norms([part]))


def _checkpointed(forward: object, norms: Sequence[_BatchNorm], *inputs: object) -> object:
    # one context for the first time and one for the second, in which stored statistics do not follow the batch again
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _unmoved(norms)))


@contextmanager
def _unmoved(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, copy.deepcopy(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
