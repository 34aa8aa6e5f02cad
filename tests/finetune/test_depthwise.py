"""Depthwise convolutions with a quick gradient do what PyTorch's do."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bas.extract.backbones.weights import load_weights
from bas.finetune.depthwise import FastDepthwise, with_fast_depthwise

pytestmark = pytest.mark.usefixtures("one_thread")
CHANNELS = 6


def depthwise(kernel: tuple[int, int, int], stride: tuple[int, int, int], **others: Any) -> nn.Conv3d:
    padding = tuple(size // 2 for size in kernel)
    given: dict[str, Any] = {"padding": padding, "groups": CHANNELS, "bias": False}
    return nn.Conv3d(CHANNELS, CHANNELS, kernel, stride=stride, **given | others)


def computed(conv: nn.Conv3d, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients of cells and kernel."""
    cells = cells.clone().requires_grad_(True)
    found = conv(cells)
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape).sin()
    of_cells, of_kernel = torch.autograd.grad((found.float() * weights).sum(), [cells, conv.weight])
    return found, of_cells, of_kernel


@pytest.mark.parametrize("size", [(8, 12, 16), (5, 7, 9), (1, 1, 2)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 1, 1), (1, 5, 3)])
def test_output_and_gradients_are_those_of_conv3d(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    plain, cells = depthwise(kernel, stride), torch.randn(2, CHANNELS, *size)
    quick = with_fast_depthwise(copy.deepcopy(plain))
    assert type(quick) is FastDepthwise
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        given = cells.contiguous(memory_format=layout)
        for found, wanted in zip(computed(quick, given), computed(plain, given), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        for found, wanted in zip(computed(quick, cells), computed(plain, cells), strict=True):
            assert found.dtype == wanted.dtype
            torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * float(wanted.detach().abs().max()))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    quick = with_fast_depthwise(depthwise((3, 3, 3), (1, 1, 1)))
    cells = torch.randn(1, CHANNELS, 4, 4, 4)
    quick(cells).sum().backward()
    assert cells.grad is None
    assert quick.weight.grad is not None
    quick.requires_grad_(False)
    cells.requires_grad_(True)
    quick(cells).sum().backward()
    assert cells.grad is not None


def test_other_convolutions_are_left_alone() -> None:
    others = [
        depthwise((3, 3, 3), (1, 1, 1), bias=True),
        depthwise((3, 3, 3), (1, 1, 1), dilation=2, padding=2),
        depthwise((3, 3, 3), (1, 1, 1), padding=0),
        depthwise((3, 3, 3), (1, 1, 1), groups=2),
        depthwise((3, 3, 3), (1, 1, 1), padding_mode="circular"),
        depthwise((2, 3, 3), (1, 1, 1)),
        nn.Conv3d(1, 1, 3, padding=1, bias=False),
    ]
    for conv in others:
        assert type(with_fast_depthwise(conv)) is nn.Conv3d


def test_an_x3d_keeps_its_tensors_and_copies_of_it_are_quick_too() -> None:
    plain, _ = load_weights("x3d_xs", 4, "none")
    quick = copy.deepcopy(with_fast_depthwise(copy.deepcopy(plain)))
    num_quick = sum(isinstance(module, FastDepthwise) for module in quick.modules())
    depthwise_convs = [each for each in plain.modules() if isinstance(each, nn.Conv3d) and each.groups > 1]
    assert num_quick == len(depthwise_convs) > 10
    clips = torch.randn(1, 3, 4, 32, 48)
    torch.testing.assert_close(quick(clips), plain(clips))
    wanted = plain.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in quick.state_dict().items())


def test_elsewhere_than_on_a_cpu_convolutions_stay_as_they_are(tiny: Any, start: Any) -> None:
    from bas.finetune.loop import _network

    settings = tiny()
    for kind, is_quick in (("cpu", True), ("cuda", False)):
        fabric: Any = SimpleNamespace(device=torch.device(kind), world_size=1)
        net = _network(start(settings, "x3d_xs"), settings, ("LEFT", "RIGHT"), fabric, checkpointing=False)
        assert any(isinstance(module, FastDepthwise) for module in net.modules()) == is_quick
