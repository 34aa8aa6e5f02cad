"""Every recipe builds, and survives its way through JSON."""

import json

import pytest
import torch

from bas.errors import InputError
from bas.heads.recipes import RECIPES, default_recipe, named_recipe
from bas.heads.registry import HEADS
from bas.heads.training.settings import TrainSettings

every_recipe = pytest.mark.parametrize("name", RECIPES)


@every_recipe
def test_settings_survive_json(name: str) -> None:
    settings = RECIPES[name].settings
    record = json.loads(json.dumps(settings.to_json()))
    again = TrainSettings.from_json(record, where="here")
    assert again == settings
    assert again.differing(settings) == []


@every_recipe
@pytest.mark.parametrize("dim", [2, 192, 440, 1280])
def test_every_recipe_builds_for_every_width(name: str, dim: int) -> None:
    settings = RECIPES[name].settings
    model = settings.build(dim=dim, num_classes=12).eval()
    with torch.inference_mode():
        scores = model.scores(model(torch.randn(1, settings.clip_len, dim)))
    assert scores.shape == (1, settings.clip_len, 12)
    assert scores.isfinite().all()


def test_every_head_has_a_recipe_of_its_name() -> None:
    for head in HEADS:
        assert RECIPES[head].settings.head == head
        assert default_recipe(head) == named_recipe(head)


def test_recipes_keep_what_their_heads_need() -> None:
    """Decided with the sources at hand: the seed's recipe, a lower rate for attention, clipping for recurrent heads."""
    seed = named_recipe("ed")
    assert (seed.clip_len, seed.stride, seed.hop_rows, seed.batch, seed.lr) == (50, 2, 10, 4, 8e-4)
    assert seed.batches_per_epoch == 2500
    assert named_recipe("ed-focal").loss == "focal"
    assert named_recipe("ed+disp").targets.dilation_steps == 2
    assert named_recipe("transformer").lr == 1e-4
    assert named_recipe("bigru").max_grad_norm == 1.0


def test_heads_without_a_recipe_take_that_of_their_first_part() -> None:
    assert default_recipe("bigru+disp").max_grad_norm == 1.0
    assert default_recipe("bigru+disp").head == "bigru+disp"
    assert default_recipe("ed+disp") == named_recipe("ed+disp")
    assert default_recipe("nothing").head == "nothing"  # the builder says what there is


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="no such recipe") as error:
        named_recipe("sota")
    assert str(error.value.wanted).startswith("regnety_002-fc, efficientnet_b0-fc")
