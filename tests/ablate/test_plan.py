"""Which recipe runs on which features: given stores first, then extraction, else a reason."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bas.ablate.options import AblateOptions, recipe_names
from bas.ablate.plan import AblationPlan, AblationSources, make_plan, open_sources, runs_of
from bas.commands.ablate import _weights
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.heads.recipes import RECIPES, SEED_TABLE, named_recipe

Pulses = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, pulse_store: Pulses) -> Path:
    return pulse_store(tmp_path_factory.mktemp("store") / "mine.zarr")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One short match in each split, and one of the split challenge."""
    root = tmp_path_factory.mktemp("data")
    write_match(root / "train" / "a", seconds=4, seed=0)
    for split in ("valid", "test", "challenge"):
        shutil.copytree(root / "train" / "a", root / split / split)
    return root


def options(recipes: str = "seed", **changes: Any) -> AblateOptions:
    base: dict[str, Any] = {"recipes": recipe_names(recipes), "num_seeds": 2}
    return AblateOptions(**(base | changes))


def planned(*sources: Path, asked: AblateOptions) -> AblationPlan:
    return make_plan(open_sources(sources, asked), Path("out"), asked)


def stores(plan: AblationPlan) -> dict[str, str | None]:
    """Row -> its store, as text; None where it failed."""
    return {entry.row.name: str(entry.stores[0].path) if entry.stores else None for entry in plan.entries}


def test_names_of_recipes_in_the_order_of_the_table() -> None:
    assert recipe_names("seed") == SEED_TABLE
    assert recipe_names("small, ed,tcn,ed") == ("tcn", "ed", "small")
    assert recipe_names("seed,small") == (*SEED_TABLE, "small")


def test_a_data_set_needs_each_backbone_once(data: Path) -> None:
    plan = planned(data, asked=options())
    assert [entry.row.name for entry in plan.entries] == list(SEED_TABLE)
    assert {str(each.path): (each.backbone, each.depth) for each in plan.stores} == {
        "out/stores/regnety_002.zarr": ("regnety_002", None),
        "out/stores/efficientnet_b0.zarr": ("efficientnet_b0", None),
        "out/stores/i3d.zarr": ("i3d", None),
        "out/stores/x3d_s-4.zarr": ("x3d_s", 4),
        "out/stores/x3d_s.zarr": ("x3d_s", 5),
        "out/stores/x3d_m-2,3,4,5.zarr": ("x3d_m", (2, 3, 4, 5)),
    }
    assert stores(plan)["x3d_m-fc"] == stores(plan)["x3d_m-unet_gru"] == "out/stores/x3d_m-2,3,4,5.zarr"
    assert not any(each.is_given for each in plan.stores)
    assert stores(planned(data, asked=options("small"))) == {"small": "out/stores/x3d_s.zarr"}


def test_a_given_store_wins_over_extraction(data: Path, store: Path, pulse_store: Pulses, tmp_path: Path) -> None:
    asked = options("fc,x3d_s4-fc,small")
    alone = planned(store, asked=asked)
    assert stores(alone) == {"x3d_s4-fc": None, "fc": str(store), "small": str(store)}
    assert alone.entries[0].row.error == "no store of x3d_s with 4 blocks; give the data set, or --any-backbone"
    given = pulse_store(tmp_path / "given.zarr", classes=open_sources([data], asked).classes)
    both = planned(data, given, asked=asked)
    assert stores(both) == {"x3d_s4-fc": "out/stores/x3d_s-4.zarr", "fc": str(given), "small": str(given)}


def test_a_recipe_for_any_backbone_runs_on_every_given_store(store: Path, pulse_store: Pulses, tmp_path: Path) -> None:
    other = pulse_store(tmp_path / "other.zarr", backbone="i3d", depth=None)
    plan = planned(store, other, asked=options("fc,small"))
    assert stores(plan) == {"fc": str(store), "small@mine": str(store), "small@other": str(other)}
    unused = planned(store, other, asked=options("fc"))
    assert unused.notes == (f"{other}: not used, no recipe is for its backbone",)


def test_twins_are_one_and_a_changed_one_is_none(store: Path) -> None:
    plan = planned(store, asked=options("regnety_002-fc,transformer,i3d-transformer,x3d_m-fc,fc", any_backbone=True))
    assert list(stores(plan)) == ["i3d-transformer", "transformer", "fc"]
    assert len(plan.notes) == 2
    plan = planned(store, asked=options("x3d_m-ed,ed-focal,x3d_m-bigru,bigru", any_backbone=True))
    assert list(stores(plan)) == ["x3d_m-ed", "ed-focal", "x3d_m-bigru", "bigru"]
    assert plan.entries[0].row.published is None
    assert plan.entries[1].row.published is not None


def test_a_run_per_seed_with_epochs_of_one_pass_at_most(store: Path) -> None:
    asked = options("tcn", device="cpu")
    [entry] = planned(store, asked=asked).entries
    found, tasks = runs_of(entry, entry.stores[0], Path("out"), asked)
    assert found == {"frames_per_epoch": 24 * 50, "weights": "none"}  # 300 rows: starts 0, 9, ... 198, and 201
    assert [task.run.name for task in tasks] == ["tcn-0", "tcn-1"]
    assert [task.settings for task in tasks] == [
        replace(named_recipe("tcn"), frames_per_epoch=1200, seed=seed) for seed in (0, 1)
    ]
    assert tasks[0].run == Path("out/runs/tcn-0")
    _, [task, _] = runs_of(entry, entry.stores[0], Path("out"), replace(asked, frames_per_epoch=77_000, epochs=7))
    assert (task.settings.frames_per_epoch, task.settings.epochs) == (77_000, 7)


def test_a_head_setting_goes_to_the_heads_that_have_it(store: Path) -> None:
    asked = options("bigru,fc,anchor", head_options={"bigru.hidden": 24})
    settings = {name: asked.settings_of(name) for name in asked.recipes}
    assert settings["bigru"].options == {"bigru.hidden": 24}
    assert settings["fc"] == named_recipe("fc")
    assert settings["anchor"].options == named_recipe("anchor").options
    wrong = replace(asked, head_options={"bigru.size": 24})
    entries = {entry.row.name: entry for entry in planned(store, asked=wrong).entries}
    with pytest.raises(InputError, match="no such setting of a head"):
        runs_of(entries["bigru"], entries["bigru"].stores[0], Path("out"), wrong)


def test_weights_by_backbone_and_for_all(tmp_path: Path) -> None:
    file = tmp_path / "a=b.pth"
    file.touch()
    assert _weights(["none", "i3d=kinetics"], ["i3d"]) == {"": "none", "i3d": "kinetics"}
    assert _weights([str(file)], ["i3d"]) == {"": str(file)}
    asked = options(weights={"": "none", "i3d": "kinetics"})
    assert (asked.weights_of("i3d"), asked.weights_of("x3d_s")) == ("kinetics", "none")
    assert options().weights_of("i3d") is None


def test_what_decides_a_figure_is_plain_json() -> None:
    record = options(size=(64, 36), weights={"": "none"}, head_options={"bigru.hidden": 9}).to_json()
    assert json.loads(json.dumps(record)) == record
    assert record["size"] == [64, 36]
    assert {"recipes", "num_seeds", "jobs", "device"}.isdisjoint(record)


def refused(*sources: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        open_sources(sources, options("fc", **changes))
    return str(error.value)


def test_sources_that_cannot_be_used(data: Path, store: Path, pulse_store: Pulses, tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "none")
    assert "--any-backbone takes feature stores only" in refused(data, any_backbone=True)
    untested = pulse_store(tmp_path / "untested.zarr", splits=("train", "valid"))
    assert "no match in the split 'test'" in refused(untested)
    untrained = pulse_store(tmp_path / "untrained.zarr", splits=("valid", "test"))
    assert "no match in the split 'train'" in refused(untrained)
    others = pulse_store(tmp_path / "others.zarr", classes=("PASS", "SHOT"))
    assert "PASS, DRIVE" in (message := refused(store, others))
    assert "PASS, SHOT" in message
    (tmp_path / "b").mkdir()
    assert "two stores of one name" in refused(store, pulse_store(tmp_path / "b" / "mine.zarr"))


def test_two_stores_of_one_backbone_are_two_rows(store: Path, pulse_store: Pulses, tmp_path: Path) -> None:
    again = pulse_store(tmp_path / "again.zarr")
    assert stores(planned(store, again, asked=options("fc"))) == {"fc@mine": str(store), "fc@again": str(again)}


def test_a_data_set_without_labels_is_refused_before_the_work(data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    (bare / "test" / "test" / "Labels-ball.json").unlink()
    assert "no labels of test" in refused(bare)
    shutil.rmtree(bare / "valid")
    assert "the split 'valid' cannot be used" in refused(bare)


def test_every_recipe_has_features_to_run_on(data: Path) -> None:
    asked = options(",".join(RECIPES))
    found: AblationSources = open_sources([data], asked)
    assert all(entry.stores for entry in make_plan(found, Path("out"), asked).entries)


def test_inputs_replace_those_of_every_recipe() -> None:
    options = AblateOptions(recipes=("fc", "small"), inputs="standard")
    assert [options.settings_of(name).inputs for name in options.recipes] == ["standard", "standard"]
