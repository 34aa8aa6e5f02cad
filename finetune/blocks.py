"""The blocks of a backbone, from the picture to the row: which of them learn, and which are computed twice to save
memory."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_LISTS = ("blocks", "stages", "layers", "features")
"""Names under which networks keep their blocks one after another."""


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

    X3D has 5 (the stem is one), I3D 12, timm's networks their stem, their stages, and what follows.

    Args:
        backbone: of `extract.backbones.registry`.
        used: see `used_parameters`.
    """
    blocks: list[nn.ModuleList] = []
    for name, child in backbone.get_submodule("trunk").named_children():
        parts = list(child) if name in _LISTS and isinstance(child, nn.Sequential | nn.ModuleList) else [child]
        for part in parts:
            if not any(id(parameter) in used for parameter in part.parameters()):
                continue
            is_norm_only = all(isinstance(each, _BatchNorm | nn.LayerNorm) for each in _with_own_weights(part))
            if is_norm_only and blocks:
                blocks[-1].append(part)
            else:
                blocks.append(nn.ModuleList([part]))
    return blocks


def _with_own_weights(module: nn.Module) -> Iterator[nn.Module]:
    return (each for each in module.modules() if any(True for _ in each.parameters(recurse=False)))


def batch_norms(blocks: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Every BatchNorm in some blocks."""
    return [each for block in blocks for each in block.modules() if isinstance(each, _BatchNorm)]


def checkpoint_blocks(blocks: Sequence[nn.ModuleList]) -> None:
    """Let each block forget what it computed on the way, and compute it again for the gradient."""
    for block in blocks:
        for part in block:
            part.forward = partial(_checkpointed, part.forward, batch_norms([part]))


def _checkpointed(forward: object, norms: Sequence[_BatchNorm], *inputs: object) -> object:
    contexts = partial(_both_times, norms)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _both_times(norms: Sequence[_BatchNorm]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What holds for the first time, and for the second: stored statistics follow a batch once."""
    return nullcontext(), _unmoved(norms)


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
