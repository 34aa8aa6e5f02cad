"""Every recipe builds; that it survives the disk is tested with the records of runs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bas.cache.settings import FeatureSettings
from bas.errors import InputError
from bas.heads.classifier import ClassifierHead
from bas.heads.model import build_model
from bas.heads.recipes import RECIPES, SEED_TABLE, default_recipe, named_recipe, other_features
from bas.heads.registry import HEADS
from bas.heads.training.data import window_index, window_starts

every_recipe = pytest.mark.parametrize("name", RECIPES)


def width(name: str, dim: int) -> int:
    """Channels of a recipe's rows: `dim`, but for recipes that take the stages of X3D."""
    return 360 if RECIPES[name].settings.head.startswith("stage_unet") else dim


@every_recipe
@pytest.mark.parametrize("dim", [2, 440])
def test_every_recipe_builds_for_every_width(name: str, dim: int) -> None:
    settings = RECIPES[name].settings
    dim = width(name, dim)
    model = build_model(settings, dim=dim, num_classes=12).eval()
    with torch.inference_mode():
        scores = model.scores(model(torch.randn(1, settings.clip_len, dim)))
    assert scores.shape == (1, settings.clip_len, 12)
    assert scores.isfinite().all()


@every_recipe
def test_an_epoch_of_every_recipe_may_see_every_row(name: str) -> None:
    """The union of all windows of a match is all its rows: nothing that is stored is never trained on."""
    settings, num_rows = RECIPES[name].settings, 3000
    starts = window_starts(num_rows, clip_len=settings.clip_len, stride=settings.stride, hop_rows=settings.hop_rows)
    last = np.full(len(starts), num_rows - 1)
    rows, is_real = window_index(starts, last, clip_len=settings.clip_len, stride=settings.stride)
    seen = np.unique(rows[is_real])
    edge = settings.stride * settings.clip_len  # a match's ends lie in fewer windows
    assert np.isin(np.arange(edge, num_rows - edge), seen).all()
    assert settings.share_of_rows == 1
    assert replace(settings, hop_rows=10, stride=2).share_of_rows == 0.5


@pytest.mark.parametrize(
    ("name", "dim", "count"),
    [
        *(("tcn+sgp", 192, 1_075_117), ("efficientnet_b0-tcn", 1280, 9_849_613), ("ed", 192, 2_636_557)),
        ("x3d_m-unet_gru", 360, 7_093_709),
    ],
)
def test_recipes_have_the_parameters_of_their_source(name: str, dim: int, count: int) -> None:
    assert build_model(RECIPES[name].settings, dim=dim, num_classes=12).num_parameters == count


@every_recipe
def test_dropout_stands_before_the_classifier_but_where_the_source_has_none(name: str) -> None:
    settings = RECIPES[name].settings
    dim = width(name, 192)
    head = build_model(settings, dim=dim, num_classes=12).head
    if isinstance(head, ClassifierHead):
        without = settings.head in ("tpn", "transformer", "ed_conv")
        wanted = settings.dropout if settings.dropout is not None else 0.0 if without else 0.5
        assert head.dropout.p == wanted
        asked = build_model(replace(settings, dropout=0.25), dim=dim, num_classes=12).head
        assert isinstance(asked, ClassifierHead)
        assert asked.dropout.p == 0.25


def test_every_head_has_a_recipe_of_its_name() -> None:
    for head in HEADS:
        assert RECIPES[head].settings.head == head
        assert default_recipe(head) == named_recipe(head)


def test_recipes_keep_what_their_heads_need() -> None:
    """Decided with the sources at hand: the seed's recipe, a lower rate for attention, clipping for recurrent heads."""
    seed = named_recipe("ed")
    assert (seed.clip_len, seed.stride, seed.hop_rows, seed.batch, seed.lr) == (50, 2, 9, 4, 8e-4)
    assert seed.steps_per_epoch == 2500
    assert named_recipe("ed-focal").loss == "focal"
    assert named_recipe("ed+disp").targets.dilation_steps == 2
    assert named_recipe("transformer").lr == 1e-4
    assert named_recipe("bigru").max_grad_norm == 1.0


def test_heads_without_a_recipe_take_that_of_their_first_part() -> None:
    assert default_recipe("bigru+disp").max_grad_norm == 1.0
    assert default_recipe("bigru+disp").head == "bigru+disp"
    assert default_recipe("ed+disp") == replace(named_recipe("ed"), head="ed+disp")
    assert default_recipe("nothing").head == "nothing"  # the builder says what there is


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="no such recipe") as error:
        named_recipe("sota")
    assert str(error.value.wanted).startswith("regnety_002-fc, efficientnet_b0-fc")


PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "HEADS.md"
BACKBONES = {"RegNetY-002": "regnety_002", "EfficientNet-B0": "efficientnet_b0", "I3D": "i3d"}
BACKBONES |= {"X3D-S": "x3d_s", "X3D-M": "x3d_m"}


def published_rows() -> list[tuple[str, float | None, float | None]]:
    """(backbone, mAP-12, mAP-10) of the table of HEADS.md."""
    table = PUBLISHED.read_text().split("| backbone | head | mAP-12 | mAP-10 | note |\n")[1].split("\n\n")[0]
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    return [(backbone, number(map_12), number(map_10)) for backbone, _, map_12, map_10, *_ in lines]


def number(text: str) -> float | None:
    """The first number of a cell."""
    found = re.findall(r"[0-9]+\.[0-9]+", text)
    return float(found[0]) if found else None


def test_every_published_figure_is_one_of_the_table_for_that_backbone() -> None:
    if not PUBLISHED.is_file():
        pytest.skip(f"PUBLISHED TABLE MISSING: no file {PUBLISHED}")
    rows = published_rows()
    num_found = 0
    for name in SEED_TABLE:
        recipe = RECIPES[name]
        if recipe.published is None:
            continue
        own = [row for row in rows if any(BACKBONES[each] == recipe.backbone for each in BACKBONES if each in row[0])]
        for column, figure in ((1, recipe.published.map_12), (2, recipe.published.map_10)):
            assert figure is None or figure in [row[column] for row in own], name
            num_found += figure is not None
    assert num_found == 38


def test_features_of_another_backbone_are_told() -> None:
    x3d = replace(FeatureSettings.imported(kind="x", model="m", dim=8, fps="25"), backbone="x3d_s", depth=5)
    assert other_features("ed", x3d) == ""
    assert other_features("small", x3d) == ""
    assert "for x3d_s with 4 blocks, the store holds x3d_s with 5 blocks" in other_features("x3d_s4-fc", x3d)
    assert "for i3d, the store holds x3d_s with 5 blocks" in other_features("i3d-transformer", x3d)
