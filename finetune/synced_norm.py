"""BatchNorm over the clips of all processes."""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(backbone: nn.Module, *, device: torch.device) -> nn.Module:
    """The backbone with every BatchNorm over the clips of all processes; its tensors keep their names.

    On CUDA by PyTorch's own layer (timm's, for timm's layers); on a CPU, where there is none, by `SyncedBatchNorm`.
    """
    if device.type == "cuda":
        from ..extract.backbones.torchvision_compat import import_with_torchvision

        converted: nn.Module = import_with_torchvision("timm.layers").convert_sync_batchnorm(backbone)
        return converted
    for module in backbone.modules():
        if type(module) in (nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = SyncedBatchNorm
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
        places = [axis for axis in range(input.ndim) if axis != 1]
        count = torch.tensor([float(input.numel() // input.shape[1])], device=input.device)
        sums = torch.cat([input.float().sum(places), input.float().square().sum(places), count])
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
        total = sums[-1]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp(min=0.0)
        self._follow(mean.detach(), variance.detach(), total)
        shape = [1, -1, *[1] * (input.ndim - 2)]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normed: Tensor = input * scale.view(shape) + shift.view(shape)
        return normed.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        share = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
