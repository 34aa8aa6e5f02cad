"""The pieces against torch's own where nothing is padded, and against shorter clips where something is."""

import pytest
import torch
from torch.nn import functional

from bas.heads.actionformer import local_attention
from bas.heads.ops import TimeBatchNorm, TimeGroupNorm, coarse_mask, halve_by_max, masked_mean, move_scores, stretch


def masked(num_steps: int, *real: int) -> torch.Tensor:
    return torch.arange(num_steps) < torch.tensor(real).unsqueeze(1)


@pytest.mark.parametrize("real", range(1, 14))
def test_halving_is_adaptive_max_pooling_of_the_real_steps(real: int) -> None:
    x = torch.randn(1, 13, 4)
    expected = functional.adaptive_max_pool1d(x[:, :real].transpose(1, 2), (real + 1) // 2).transpose(1, 2)
    torch.testing.assert_close(halve_by_max(x, masked(13, real))[:, : (real + 1) // 2], expected)


@pytest.mark.parametrize("real", range(1, 14))
def test_stretching_is_interpolation_with_aligned_corners(real: int) -> None:
    x = torch.randn(1, 7, 4)
    coarse = coarse_mask(masked(13, real), factor=2)
    expected = functional.interpolate(
        x[:, : (real + 1) // 2].transpose(1, 2), real, mode="linear", align_corners=True
    ).transpose(1, 2)
    stretched = stretch(x, coarse, num_steps=13, mask_bt=masked(13, real))
    torch.testing.assert_close(stretched[:, :real], expected)


def test_norms_are_those_of_torch() -> None:
    x = torch.randn(3, 9, 32)
    group, ours = torch.nn.GroupNorm(16, 32), TimeGroupNorm(32)
    expected = group(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours(x, None), expected)
    torch.testing.assert_close(ours(x, masked(9, 9, 9, 9)), expected)
    batch, ours_batch = torch.nn.BatchNorm1d(32), TimeBatchNorm(32)
    torch.testing.assert_close(ours_batch(x, None), batch(x.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(ours_batch.running_mean, batch.running_mean)
    torch.testing.assert_close(ours_batch.running_var, batch.running_var)
    torch.testing.assert_close(ours_batch.eval()(x, None), batch.eval()(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize(("dim", "groups"), [(192, 16), (440, 11), (17, 1), (5, 5), (1, 1), (256, 16)])
def test_groups_divide_the_channels(dim: int, groups: int) -> None:
    assert TimeGroupNorm(dim).groups == groups


def test_mean_leaves_padding_out() -> None:
    x = torch.tensor([[1.0, 3, 99], [2, 99, 99]]).unsqueeze(-1)
    assert masked_mean(x, masked(3, 2, 1)).flatten().tolist() == [2, 2]


@pytest.mark.parametrize(("num_steps", "window"), [(1, 19), (7, 19), (37, 19), (38, 19), (100, 19), (23, 3), (9, 1)])
def test_local_attention_is_dense_attention_with_a_band(num_steps: int, window: int) -> None:
    q, k, v = torch.randn(3, 2, num_steps, 2, 4)
    mask = masked(num_steps, num_steps, max(1, num_steps - 5))
    apart = torch.arange(num_steps) - torch.arange(num_steps)[:, None]
    may_see = ((apart.abs() <= window // 2) & mask[:, None, None, :]) | (apart == 0)
    queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))
    dense = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=may_see)
    ours = local_attention(q, k, v, mask, window_steps=window)
    torch.testing.assert_close(ours, dense.transpose(1, 2))


def test_scores_move_and_the_highest_stays() -> None:
    confidence = torch.tensor([0.5, 0.9, 0.3, 0.8, 0.7, 0.6]).reshape(1, 6, 1)
    position = torch.tensor([[2.4, 1.6, -0.9, -3.0, 4.9, torch.nan]])
    moved = move_scores(confidence, position, num_steps=5, mask_bt=None)
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.3, 0, 0.9, 0, 0.7]))
    short = move_scores(confidence, position, num_steps=5, mask_bt=masked(5, 2))
    torch.testing.assert_close(short.flatten(), torch.tensor([0.3, 0.9, 0, 0, 0]))
