"""BatchNorm over the clips of all processes."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..extract.backbones.torchvision_compat import import_with_torchvision


def synchronised(backbone: nn.Module, *, device: torch.device) -> nn.Module:
    """The backbone with every BatchNorm over the clips of all processes; its tensors keep their names.

    On CUDA by PyTorch's own layer (timm's, for timm's layers); on a CPU, where there is none, by `SyncedBatchNorm`.

    Raises:
        InputError: a BatchNorm of another kind.
    """
    layers = import_with_torchvision("timm.layers")
    synced = {nn.BatchNorm2d: SyncedBatchNorm, nn.BatchNorm3d: SyncedBatchNorm, layers.BatchNormAct2d: SyncedNormAct}
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    if unknown := {type(norm).__name__ for norm in norms if type(norm) not in synced}:
        raise InputError(
            "this backbone's BatchNorm cannot be shared among processes",
            got=", ".join(sorted(unknown)),
            wanted=", ".join(each.__name__ for each in synced),
            cure="--norm frozen, or --devices 1",
        )
    if device.type == "cuda":
        converted: nn.Module = layers.convert_sync_batchnorm(backbone)
        return converted
    for norm in norms:
        norm.__class__ = synced[type(norm)]
    return backbone


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm of (B, C, ...) whose mean and variance are those of all processes, with their gradient."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        mean, variance, count = _of_all(input.float())
        self._follow(mean.detach(), variance.detach(), count.detach())
        shape = [1, -1, *[1] * (input.ndim - 2)]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normed: Tensor = (input - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        return normed.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


class SyncedNormAct(SyncedBatchNorm):
    """timm's BatchNorm with its activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.drop(super().forward(input))))


def _of_all(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) of (B, C, ...) over all processes, and how many values each is of.

    Each process's own are put together: a mean of squares would lose the small variance of a large mean.
    """
    places = [axis for axis in range(cells.ndim) if axis != 1]
    variance, mean = torch.var_mean(cells, places, correction=0)
    count = mean.new_tensor([cells.numel() / cells.shape[1]])
    mine = torch.cat([mean, variance, count])
    index, num_processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    table = functional.pad(mine[None], (0, 0, index, num_processes - 1 - index))  # others fill the other lines
    table = _Sum.apply(table)  # type: ignore[no-untyped-call]
    counts = table[:, -1:]
    share = counts / counts.sum()
    means, variances = table[:, :-1].chunk(2, dim=1)
    of_all = (share * means).sum(0)
    return of_all, (share * (variances + (means - of_all).square())).sum(0), counts.sum()


class _Sum(torch.autograd.Function):
    """Over all processes, whose losses are added up."""

    @staticmethod
    def forward(_: Any, table: Tensor) -> Tensor:
        table = table.contiguous().clone()
        torch.distributed.all_reduce(table)
        return table

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(gradient)
        return gradient
