"""The pieces over time against torch's own."""

import pytest
import torch
from torch.nn import functional

from bas.heads.actionformer import Tower, local_attention
from bas.heads.gru import TimeGru
from bas.heads.ops import TimeBatchNorm, TimeConv, TimeGroupNorm, move_scores, pool_by_max
from bas.heads.sgp import SgpBranches


def test_norms_are_those_of_torch_over_the_other_axis() -> None:
    x = torch.randn(3, 9, 32)
    expected = torch.nn.GroupNorm(16, 32)(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(TimeGroupNorm(32)(x), expected)
    batch, ours = torch.nn.BatchNorm1d(32), TimeBatchNorm(32)
    torch.testing.assert_close(ours(x), batch(x.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(ours.eval()(x), batch.eval()(x.transpose(1, 2)).transpose(1, 2))
    one = torch.randn(1, 1, 32)
    torch.testing.assert_close(ours.train()(one), ours.eval()(one))  # one value has no variance


@pytest.mark.parametrize(("dim", "groups"), [(192, 16), (440, 11), (17, 1), (5, 5), (1, 1), (256, 16)])
def test_groups_divide_the_channels(dim: int, groups: int) -> None:
    assert TimeGroupNorm(dim).num_groups == groups


@pytest.mark.parametrize("num_steps", [1, 7, 8, 9])
def test_pooling_takes_what_is_left_at_the_end(num_steps: int) -> None:
    x = torch.randn(2, num_steps, 3)
    expected = torch.stack([part.amax(1) for part in torch.split(x, 8, dim=1)], dim=1)
    torch.testing.assert_close(pool_by_max(x, factor=8), expected)


@pytest.mark.parametrize(("num_steps", "window"), [(1, 19), (7, 19), (37, 19), (38, 19), (100, 19), (23, 3), (9, 1)])
def test_local_attention_is_dense_attention_with_a_band(num_steps: int, window: int) -> None:
    q, k, v = torch.randn(3, 2, num_steps, 2, 4)
    apart = torch.arange(num_steps) - torch.arange(num_steps)[:, None]
    queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))
    dense = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=apart.abs() <= window // 2)
    torch.testing.assert_close(local_attention(q, k, v, window_steps=window), dense.transpose(1, 2))


def test_scores_move_and_the_highest_stays() -> None:
    confidence = torch.tensor([0.5, 0.9, 0.3, 0.8, 0.7, 0.6]).reshape(1, 6, 1)
    position = torch.tensor([[2.4, 1.6, -0.9, -3.0, 4.9, torch.nan]])
    moved = move_scores(confidence, position, num_steps=5)
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.3, 0, 0.9, 0, 0.7]))


@pytest.mark.parametrize("shape", [(4, 50, 12), (1, 1, 8), (3, 7, 8)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (9, 1), (41, 1), (3, 2)])
def test_depthwise_convolutions_on_a_cpu_are_those_of_torch(
    shape: tuple[int, int, int], kernel: int, stride: int
) -> None:
    torch.manual_seed(0)
    conv = TimeConv(shape[2], shape[2], kernel, stride=stride, groups=shape[2]).double()
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    found, wanted = conv(x), conv.conv(x.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(found, wanted)
    weight, bias, direction = conv.conv.weight, conv.conv.bias, torch.randn_like(found)
    assert bias is not None
    for mine, theirs in zip(
        torch.autograd.grad(found, (x, weight, bias), direction),
        torch.autograd.grad(wanted, (x, weight, bias), direction),
        strict=True,
    ):
        assert torch.allclose(mine, theirs)


def test_depthwise_convolutions_stay_in_float32_under_autocast() -> None:
    conv, x = TimeConv(8, 8, 9, groups=8), torch.randn(2, 11, 8, requires_grad=True)
    wanted = torch.autograd.grad(conv(x).sum(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.float32
    assert torch.equal(torch.autograd.grad(found.sum(), x)[0], wanted)


@pytest.mark.parametrize(("num_clips", "num_steps", "layers"), [(3, 7, 2), (1, 1, 1)])
def test_a_gru_learns_as_torchs_does(num_clips: int, num_steps: int, layers: int) -> None:
    torch.manual_seed(0)
    options = {"batch_first": True, "bidirectional": True, "dtype": torch.double}
    ours, theirs = TimeGru(5, 4, layers, **options), torch.nn.GRU(5, 4, layers, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(num_clips, num_steps, 5, dtype=torch.double, requires_grad=True)
    found, wanted = ours(x), theirs(x)[0]
    torch.testing.assert_close(found, wanted)
    assert torch.equal(ours.eval()(x), wanted)  # torch's own, where nothing learns
    direction = torch.randn_like(found)
    for mine, its in zip(
        torch.autograd.grad(found, (x, *ours.parameters()), direction),
        torch.autograd.grad(wanted, (x, *theirs.parameters()), direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_a_gru_in_bfloat16_is_near_float32() -> None:
    torch.manual_seed(0)
    gru, x = TimeGru(6, 32, 2, batch_first=True, bidirectional=True), torch.randn(2, 30, 6)
    wanted = gru(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = gru(x)
    assert 0 < float((found - wanted).detach().abs().max()) < 0.02
    ours, exact = (torch.autograd.grad(out.square().sum(), list(gru.parameters())) for out in (found, wanted))
    for mine, its in zip(ours, exact, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - its).norm() / its.norm()) < 0.05


def test_a_tower_sees_each_level_alone() -> None:
    torch.manual_seed(0)
    tower = Tower(6, 2, num_layers=2).double()
    for norm in tower.norms:
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)  # what is beyond an end must be zero for each convolution anew
    levels = [torch.randn(2, num_steps, 6, dtype=torch.double) for num_steps in (9, 5, 3, 1)]
    torch.testing.assert_close(tower(levels), torch.cat([tower([level]) for level in levels], 1))
    alone = levels[0]
    for conv, norm in zip(tower.convs, tower.norms, strict=True):
        alone = functional.relu(norm(conv(alone)))
    torch.testing.assert_close(tower(levels[:1]), tower.out(alone))


@pytest.mark.parametrize("ratio", [4.0, 0.5])
def test_both_windows_of_sgp_are_the_sum_of_two_convolutions(ratio: float) -> None:
    torch.manual_seed(0)
    branches = SgpBranches(12, kernel_steps=9, kernel_ratio=ratio).double()
    y = torch.randn(2, 13, 12, dtype=torch.double)
    _, window = branches(y)
    assert torch.allclose(window, (branches.conv_w(y) + branches.conv_kw(y)) * branches.psi(y))
