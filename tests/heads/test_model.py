"""The model as training and prediction hold it, and `--set` options in all their forms."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bas.errors import InputError
from bas.heads.actionformer import ActionFormerSettings, LocalBlock
from bas.heads.anchor import AnchorSettings
from bas.heads.gru import BiGruSettings, UnetGruSettings
from bas.heads.model import build_model, head_settings
from bas.heads.registry import build_head
from bas.heads.targets import clip_targets, stack_targets
from bas.heads.training.settings import ModelSettings, default_targets

TINY_ACTIONFORMER = ActionFormerSettings(width=8, num_heads=2)


def test_a_model_is_the_head_on_treated_inputs() -> None:
    model = build_model(ModelSettings(head="tcn", inputs="standard"), dim=6, num_classes=2).eval()
    x = torch.randn(2, 9, 6)
    model.inputs.fit(x.flatten(0, 1) * 3 + 1)
    wanted = model.head(model.inputs(x))
    torch.testing.assert_close(model(x).logits, wanted.logits)
    torch.testing.assert_close(model.scores(model(x)), model.head.scores(wanted))
    targets = stack_targets([clip_targets([(4, 1)], num_steps=9, num_classes=2)[0]] * 2)
    torch.testing.assert_close(model.loss(model(x), targets), model.head.loss(wanted, targets))


def test_displacement_is_learned_at_every_step() -> None:
    """0 where no label is: a head that points at far events from the background is wrong there, as in T-DEED."""
    head = build_head("fc+disp", dim=4, num_classes=2, dropout=0.0)
    targets = stack_targets(
        [clip_targets([(6, 1)], num_steps=9, num_classes=2, settings=default_targets("fc+disp"))[0]]
    )
    outputs = head(torch.zeros(1, 9, 4))
    plain = head.loss(replace(outputs, offsets=None), targets)
    offsets = torch.tensor([[3.0, 0, 0, 0, 2, 1, 0, -1, -2]])  # right but for the first step, in the background
    torch.testing.assert_close(head.loss(replace(outputs, offsets=offsets), targets) - plain, torch.tensor(1.0))


def test_the_actionformer_divides_its_loss_by_an_average_of_positive_points_in_training() -> None:
    torch.manual_seed(0)
    head = build_head("actionformer", dim=4, num_classes=2, settings={"actionformer": TINY_ACTIONFORMER})
    targets = stack_targets([clip_targets([(6, 1)], num_steps=32, num_classes=2)[0]])
    with torch.no_grad():
        outputs = head(torch.randn(1, 32, 4))
        now = float(head.eval().loss(outputs, targets))
        first, second = (float(head.train().loss(outputs, targets)) for _ in range(2))
    count = 90 * first / (now - 0.1 * first)
    assert count == pytest.approx(round(count), abs=1e-3)
    assert second == pytest.approx(now * count / (81 + 0.19 * count))


def test_a_block_of_the_actionformer_adds_little_at_first_and_nothing_to_some_clips_in_training() -> None:
    torch.manual_seed(0)
    block = LocalBlock(replace(TINY_ACTIONFORMER, drop_path=0.5), stride=1)
    x_btw = torch.randn(64, 8, 8)
    added_btw = (block.eval()(x_btw) - x_btw).abs()
    assert 0 < added_btw.max() < 1e-3
    unchanged = (block.train()(x_btw) == x_btw).all(dim=2).all(dim=1).sum()
    assert 6 <= unchanged <= 26  # both branches left out: a quarter of 64


def test_the_same_seed_builds_the_head_that_the_builder_builds() -> None:
    torch.manual_seed(3)
    head = build_head("sgp", dim=8, num_classes=2)
    torch.manual_seed(3)
    model = build_model(ModelSettings(head="sgp"), dim=8, num_classes=2)
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(model.head.state_dict()[name], tensor, rtol=0, atol=0)


def test_parameters_are_what_is_learned() -> None:
    model = build_model(ModelSettings(head="fc", inputs="standard"), dim=5, num_classes=2)
    assert model.num_parameters == 5 * 3 + 3  # the statistics of the inputs are no parameters
    projected = build_model(ModelSettings(head="fc", proj=4), dim=5, num_classes=2)
    assert projected.num_parameters == 5 * 4 + 4 + 4 * 3 + 3


def test_scores_as_inputs_double_the_width() -> None:
    model = build_model(ModelSettings(head="fc", inputs="scores"), dim=5, num_classes=2)
    assert model.num_parameters == 10 * 3 + 3


def test_options_reach_nested_settings_and_leave_the_rest() -> None:
    found = head_settings({"unet_gru.gru.hidden": 8, "unet_gru.widths": "16,32,48", "unet_gru.gru.num_layers": 1})
    assert found == {"unet_gru": UnetGruSettings(widths=(16, 32, 48), gru=BiGruSettings(hidden=8, num_layers=1))}
    assert head_settings({"bigru.hidden": 96}) == {"bigru": BiGruSettings(hidden=96)}
    assert head_settings({}) == {}


@pytest.mark.parametrize("value", ["4,8", "4, 8", [4, 8], (4, 8)])
def test_tuples_may_be_written_in_several_ways(value: Any) -> None:
    assert head_settings({"anchor.lengths_steps": value}) == {"anchor": AnchorSettings(lengths_steps=(4, 8))}
    assert head_settings({"anchor.lengths_steps": 4}) == {"anchor": AnchorSettings(lengths_steps=(4,))}


def test_whole_numbers_do_for_fractions() -> None:
    found = head_settings({"anchor.smooth_l1_beta": 1})["anchor"]
    assert found == AnchorSettings(smooth_l1_beta=1.0)
    assert isinstance(found, AnchorSettings)
    assert type(found.smooth_l1_beta) is float


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("bigru", 1, "no such setting of a head"),
        ("gru.hidden", 1, "no such setting of a head"),
        ("bigru.width", 1, "wanted: hidden, num_layers"),
        ("bigru.hidden.more", 1, "wanted: no further part"),
        ("unet_gru.gru", 3, "setting unet_gru.gru is not usable"),
        ("bigru.hidden", "many", "wanted: int, such as 512"),
        ("bigru.hidden", 3.5, "setting bigru.hidden is not usable"),
        ("bigru.hidden", True, "setting bigru.hidden is not usable"),
        ("bigru.hidden", None, "setting bigru.hidden is not usable"),
        ("bigru.hidden", 0, "size is not usable"),
        ("anchor.lengths_steps", "4,long", "wanted: numbers such as 4,8,16"),
        ("anchor.lengths_steps", "", "setting anchor.lengths_steps is not usable"),
        ("anchor.lengths_steps", [4.5], "setting anchor.lengths_steps is not usable"),
        ("anchor.lengths_steps", {"a": 1}, "setting anchor.lengths_steps is not usable"),
        ("anchor.lengths_steps", True, "setting anchor.lengths_steps is not usable"),
    ],
)
def test_options_that_cannot_be_used_are_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        head_settings({path: value})


def test_options_change_the_network() -> None:
    small = build_model(ModelSettings(head="bigru", options={"bigru.hidden": 8}), dim=6, num_classes=2)
    assert small.num_parameters < 5_000 < build_model(ModelSettings(head="bigru"), dim=6, num_classes=2).num_parameters


def test_options_of_another_head_are_refused() -> None:
    with pytest.raises(InputError, match="setting of a head that is not in 'ed\\+disp'") as error:
        build_model(ModelSettings(head="ed+disp", options={"bigru.hidden": 8}), dim=6, num_classes=2)
    assert error.value.got == "bigru.hidden"
    build_model(ModelSettings(head="tcn+bigru", options={"bigru.hidden": 8}), dim=6, num_classes=2)
