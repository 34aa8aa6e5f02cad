"""What several tests of networks with temporal modules share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def lively_shifts() -> Callable[[nn.Module], nn.Module]:
    """Takes residual branches and gates away from their first zeros; gives the backbone back in eval mode."""

    def changed(backbone: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(2)
        for name, tensor in backbone.state_dict().items():
            is_first_zero = ".shift." in name or name.endswith(("bn2.weight", "bn3.weight"))
            if is_first_zero and tensor.dim() and "running" not in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
        return backbone.eval()

    return changed
