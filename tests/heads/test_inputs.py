"""Treatment of inputs: pointwise functions, and mean and deviation of the training rows."""

import pytest
import torch

from bas.errors import InputError
from bas.heads.inputs import INPUTS, Inputs


def rows(num_rows: int = 400) -> torch.Tensor:
    return torch.rand(num_rows, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.2, 1.0, 0.5])


def test_raw_rows_pass_untouched_and_fit_does_nothing() -> None:
    inputs = Inputs("raw", 3)
    inputs.fit(rows())
    assert not inputs.is_fitted
    assert inputs.dim == 3
    torch.testing.assert_close(inputs(rows()[None]), rows()[None], rtol=0, atol=0)
    assert inputs.mean_d.tolist() == [0, 0, 0]


def test_standard_rows_have_mean_0_and_deviation_1() -> None:
    inputs = Inputs("standard", 3)
    inputs.fit(3 + 5 * rows())
    out = inputs(3 + 5 * rows()[None])[0]
    torch.testing.assert_close(out.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), rtol=0, atol=1e-5)
    assert inputs(torch.full((1, 1, 3), 100.0)).min() > 9  # the training rows' own statistics, not the clip's


def test_scores_bring_their_logits_along() -> None:
    inputs = Inputs("scores", 3)
    assert inputs.dim == 6
    inputs.fit(rows())
    raw = torch.cat([rows(), torch.logit(rows().clamp(1e-3, 1 - 1e-3))], dim=1)
    wanted = (raw - raw.mean(0)) / raw.std(0, correction=0)
    torch.testing.assert_close(inputs(rows()[None])[0], wanted, rtol=1e-3, atol=1e-4)
    assert inputs(torch.tensor([[[0.0, 1.0, 0.5]]])).isfinite().all()


@pytest.mark.parametrize("name", [name for name, (_, _, is_fitted) in INPUTS.items() if is_fitted])
def test_a_channel_that_never_changes_does_no_harm(name: str) -> None:
    inputs = Inputs(name, 3)
    constant = rows()
    constant[:, 1] = 0.5
    inputs.fit(constant)
    out = inputs(constant[None])
    assert out.isfinite().all()
    assert out[..., 1].abs().max() < 1e-5
    assert inputs.std_d[1] == 1


def test_channels_that_hardly_fire_do_not_blow_up_on_other_video() -> None:
    inputs, generator = Inputs("standard", 5), torch.Generator().manual_seed(0)
    seen = torch.randn(500, 5, generator=generator)
    seen[:, 4] *= 1e-4
    inputs.fit(seen)
    assert inputs.std_d[4] == pytest.approx(0.1 * float(seen[:, :4].std(0, correction=0).median()), rel=0.05)
    assert inputs(torch.tensor([[[0.0, 0.0, 0.0, 0.0, 1.0]]]))[0, 0, 4].item() == pytest.approx(10, abs=0.1)
    assert inputs(torch.full((1, 1, 5), -1e6)).min() == -10
    assert inputs(seen[None])[0, :, :4].abs().max() < 5


def test_half_precision_rows_are_summed_in_double() -> None:
    inputs = Inputs("standard", 1)
    many = (torch.full((210_000, 1), 1000.0) + (torch.arange(210_000)[:, None] % 3 > 0)).half()
    inputs.fit(many)
    assert inputs.mean_d.item() == pytest.approx(1000 + 2 / 3, abs=1e-3)
    assert inputs.std_d.item() == pytest.approx(2**0.5 / 3, abs=1e-3)


def test_statistics_travel_with_the_weights() -> None:
    inputs, other = Inputs("standard", 3), Inputs("standard", 3)
    inputs.fit(rows())
    other.load_state_dict(inputs.state_dict())
    torch.testing.assert_close(other(rows()[None]), inputs(rows()[None]), rtol=0, atol=0)


def test_an_unknown_treatment_is_refused() -> None:
    with pytest.raises(InputError, match="no such treatment of inputs") as error:
        Inputs("logits", 3)
    assert error.value.wanted == ", ".join(INPUTS)


def test_channels_alike_keep_their_proportions() -> None:
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1.0, 0.01]) + 2
    inputs = Inputs("standard", 3)
    inputs.fit(rows, alike=True)
    wanted = rows.double().std(0, correction=0).square().mean().sqrt()
    torch.testing.assert_close(inputs.std_d, wanted.float().expand(3))
    found = inputs(rows[None])[0]
    torch.testing.assert_close(found[:, 0].std() / found[:, 2].std(), rows[:, 0].std() / rows[:, 2].std())
    assert found.square().mean() == pytest.approx(1, abs=0.01)
