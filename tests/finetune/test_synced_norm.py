"""BatchNorm over all processes: with one process it is PyTorch's; with several `test_processes.py` tests it."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from bas.errors import InputError
from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.extract.backbones.weights import load_weights
from bas.finetune.synced_norm import SyncedBatchNorm, synchronised

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_alone_it_is_that_of_pytorch(momentum: float | None) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm3d(5, momentum=momentum)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    synced = synchronised(copy.deepcopy(plain), device=CPU)
    assert type(synced) is SyncedBatchNorm
    for _ in range(3):
        cells = torch.randn(2, 5, 3, 4, 6)
        inputs = [cells.clone().requires_grad_(True) for _ in range(2)]
        outputs = [norm(each) for norm, each in zip((plain, synced), inputs, strict=True)]
        torch.testing.assert_close(outputs[1], outputs[0])
        for norm, output in zip((plain, synced), outputs, strict=True):
            norm.zero_grad()
            (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(synced.weight.grad, plain.weight.grad)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], tensor)
    torch.testing.assert_close(synced.eval()(cells), plain.eval()(cells))


@pytest.mark.usefixtures("group")
def test_a_small_variance_of_a_large_mean_is_not_lost() -> None:
    synced = synchronised(nn.BatchNorm2d(1), device=CPU)
    cells = 1000 + 0.01 * torch.randn(4, 1, 16, 16, dtype=torch.float64)
    wanted = nn.BatchNorm2d(1, dtype=torch.float64)(cells.float().double())
    torch.testing.assert_close(synced(cells.float()).double(), wanted, rtol=0.05, atol=0.05)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "timm:test_resnet.r160_in1k", "x3d_xs"])
def test_backbones_are_converted_whole_and_keep_their_tensors(name: str) -> None:
    plain, _ = load_weights(name, None, "none")
    synced = synchronised(copy.deepcopy(plain), device=CPU)
    norms = [module for module in synced.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, SyncedBatchNorm) for norm in norms)
    assert list(synced.state_dict()) == list(plain.state_dict())
    clips = torch.randn(2, 3, 2, 64, 64)
    torch.testing.assert_close(synced.train()(clips), plain.train()(clips), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(synced.eval()(clips), plain.eval()(clips), rtol=1e-3, atol=1e-3)


def test_on_cuda_it_is_the_layer_of_pytorch_and_timm() -> None:
    plain, _ = load_weights("timm:mobilenetv3_small_050", None, "none")
    synced = synchronised(copy.deepcopy(plain), device=torch.device("cuda"))
    kinds = {type(module) for module in synced.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {import_with_torchvision("timm.layers").SyncBatchNormAct}
    assert list(synced.state_dict()) == list(plain.state_dict())


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be shared among processes\n  got:    BatchNorm1d") as error:
        synchronised(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2)), device=CPU)
    assert "--norm frozen" in error.value.cure
