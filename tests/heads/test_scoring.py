"""Scores of whole matches: what goes in step by step comes out row by row, however the match is cut."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bas.errors import InputError
from bas.heads.model import build_model
from bas.heads.scoring import FloatArray, blend_weights, match_scores, window_batches
from bas.heads.training.settings import ModelSettings, ScoringPlan


class Fake(nn.Module):
    """A model whose scores are a function of the windows (B, T, C)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.unused = function, nn.Parameter(torch.zeros(1))

    def forward(self, x_btc: Tensor) -> Tensor:
        return self.function(x_btc)

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs


def rows(num_rows: int, dim: int = 2) -> Tensor:
    return torch.rand(num_rows, dim, generator=torch.Generator().manual_seed(num_rows))


def scored(model: Any, rows_rc: Tensor, plan: ScoringPlan, **changes: Any) -> FloatArray:
    return match_scores(model.eval(), lambda index: rows_rc[index], len(rows_rc), plan, num_classes=2, **changes)


plans = st.builds(
    ScoringPlan,
    window_steps=st.integers(1, 30),
    stride=st.integers(1, 4),
    overlap=st.one_of(st.just(0.0), st.floats(0, 0.99)),
    steps_per_call=st.integers(1, 100),
)


@given(num_rows=st.integers(1, 150), plan=plans)
def test_what_a_window_says_of_a_row_is_that_rows_score(num_rows: int, plan: ScoringPlan) -> None:
    found = scored(Fake(lambda x: x), rows(num_rows), plan)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows(num_rows).numpy(), rtol=2e-6, atol=0)


@given(num_rows=st.integers(1, 150), plan=plans)
def test_windows_hold_equal_steps_of_one_phase_and_end_with_it(num_rows: int, plan: ScoringPlan) -> None:
    seen = np.zeros(num_rows, int)
    for index_bt in window_batches(plan, num_rows):
        assert index_bt.numel() <= max(plan.steps_per_call, index_bt.shape[1])
        assert index_bt.shape[1] <= plan.window_steps
        assert (index_bt.diff(dim=1) == plan.stride).all()
        np.add.at(seen, index_bt.numpy().ravel(), 1)
    assert seen.min() >= 1
    if plan.overlap == 0 and num_rows >= plan.window_steps * plan.stride:
        assert seen.max() <= 2  # only the window that is moved back from the end


@given(num_rows=st.integers(1, 150), plan=plans)
def test_progress_rises_to_all(num_rows: int, plan: ScoringPlan) -> None:
    seen: list[tuple[int, int]] = []
    scored(Fake(lambda x: x), rows(num_rows), plan, on_progress=lambda done, total: seen.append((done, total)))
    assert len({total for _, total in seen}) == 1
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("head", ["tcn", "ed", "bigru"])
def test_a_match_of_one_window_is_scored_as_that_window(head: str) -> None:
    options = {"bigru.hidden": 8} if head == "bigru" else {}
    model = build_model(ModelSettings(head=head, options=options), dim=6, num_classes=2).eval()
    features = rows(30, 6)
    with torch.inference_mode():
        direct = model.scores(model(features[None]))[0]
        phases = [model.scores(model(features[None, phase::3]))[0] for phase in range(3)]
    whole = scored(model, features, ScoringPlan(window_steps=50, stride=1))
    np.testing.assert_allclose(whole, direct.numpy(), rtol=1e-5, atol=1e-6)
    strided = scored(model, features, ScoringPlan(window_steps=10, stride=3))
    for phase, wanted in enumerate(phases):
        np.testing.assert_allclose(strided[phase::3], wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", ["tcn", "ed", "unet_gru"])
def test_steps_at_once_change_nothing(head: str) -> None:
    small: dict[str, int | str] = {"unet_gru.widths": "8,16", "unet_gru.gru.hidden": 8}
    options = small if head == "unet_gru" else {}
    model = build_model(ModelSettings(head=head, options=options), dim=6, num_classes=2)
    found = [
        scored(model, rows(333, 6), ScoringPlan(window_steps=20, stride=2, steps_per_call=steps))
        for steps in (1, 97, 100_000)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-6)


def test_windows_are_blended_by_a_bell_that_trusts_their_middle() -> None:
    """Two windows of 4 over 6 rows: each says its own mean; where both see a row, the nearer middle weighs more."""
    model = Fake(lambda x: x.mean(1, keepdim=True).expand_as(x))
    x = torch.zeros(6, 2)
    x[4:] = 1  # the windows 0..3 and 2..5 say 0 and 0.5
    found = scored(model, x, ScoringPlan(window_steps=4, stride=1))[:, 0]
    bell = np.sin(np.pi * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(found[[0, 1, 4, 5]], [0, 0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(found[2], 0.5 * bell[0] / (bell[0] + bell[2]), rtol=1e-5)
    np.testing.assert_allclose(found[3], 0.5 * bell[1] / (bell[1] + bell[3]), rtol=1e-5)
    weights = blend_weights(9)
    assert weights.min() > 0
    assert weights.argmax() == 4
    torch.testing.assert_close(weights, weights.flip(0))
    assert blend_weights(1).tolist() == pytest.approx([1.0])


def test_the_hop_is_what_the_overlap_leaves() -> None:
    assert ScoringPlan(window_steps=50, stride=2).hop_steps == 25
    assert ScoringPlan(window_steps=50, stride=2, overlap=0.9).hop_steps == 5
    assert ScoringPlan(window_steps=50, stride=2, overlap=0.0).hop_steps == 50
    assert ScoringPlan(window_steps=50, stride=2, overlap=0.999).hop_steps == 1


@pytest.mark.parametrize(
    "changes", [{"window_steps": 0}, {"stride": 0}, {"overlap": 1.0}, {"overlap": -0.1}, {"steps_per_call": 0}]
)
def test_plans_that_cover_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="windows over a match are not usable"):
        ScoringPlan(**({"window_steps": 10, "stride": 1} | changes))
