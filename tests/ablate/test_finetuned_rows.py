"""`bas ablate --finetune`: each recipe end to end, and its head alone on cached features of the finetuned backbone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.ablate.loop import ablate
from bas.ablate.options import AblateOptions
from bas.ablate.plan import make_plan, open_sources
from bas.cache.store import FeatureStore
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.extract.backbones.weights import FinetunedRun
from bas.finetune.loop import finetune

pytestmark = pytest.mark.usefixtures("one_thread", "without_openvino", "in_this_process")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "valid", "test"):
        write_match(root / split / f"game-{split}", seconds=5, seed=0)  # one seed: the same classes in each
    return root


def options(**changes: Any) -> AblateOptions:
    base: dict[str, Any] = {"recipes": ("regnety_002-fc",), "num_seeds": 1, "weights": {"": "none"}, "size": (64, 36)}
    base |= {"finetune": True, "epochs": 1, "frames_per_epoch": 200, "device": "cpu", "jobs": 1}
    return AblateOptions(**(base | changes))


def test_a_system_end_to_end_and_on_its_cached_features(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "out", options(num_seeds=2)

    def faulty(data_set: Any, out: Path, settings: Any, *rest: Any, **more: Any) -> Any:
        if settings.seed == 1:
            raise RuntimeError("a fault of ours")
        return finetune(data_set, out, settings, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("bas.ablate.loop.finetune", faulty)
        table = ablate([data], out, asked)
    for row in table.rows:
        assert [run.seed for run in row.runs] == [0]
        assert row.failures == {"seed 1": "RuntimeError: a fault of ours"}
    whole, cached = table.rows
    assert (whole.name, cached.name) == ("regnety_002-fc", "regnety_002-fc-cached")
    run = FinetunedRun.read(out / "runs" / "regnety_002-fc-0")
    store = FeatureStore.open(out / "stores" / "regnety_002-fc-0.zarr")
    assert store.settings.weights_sha256 == run.features.weights_sha256
    assert (store.settings.backbone, store.settings.width, store.settings.height) == ("regnety_002", 64, 36)
    assert whole.runs[0].run == "runs/regnety_002-fc-0"
    assert cached.runs[0].run == "runs/regnety_002-fc-cached-0"
    assert whole.parameters is not None
    assert cached.parameters is not None
    assert whole.parameters > cached.parameters + 2_000_000  # it has the backbone as well

    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = ablate([data], out, asked)
    assert again.complete, [row.error for row in again.rows]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert [row.runs[0] for row in again.rows] == [row.runs[0] for row in table.rows]


def test_a_published_figure_of_another_size_says_so(data: Path) -> None:
    plan = make_plan(open_sources([data], options()), Path("out"), options(recipes=("t-deed",)))
    whole, cached = [entry.row.published for entry in plan.entries]
    assert whole is not None
    assert cached is not None
    assert whole["map_12"] == 53.59
    assert whole["other_system"].endswith("; pictures of 796x448, here 64x36")
    assert cached["other_system"].endswith("; the head was trained anew on cached features")


def test_stores_are_not_finetuned(pulse_store: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it takes data sets only"):
        open_sources([pulse_store(tmp_path / "x3d.zarr")], options())
    with pytest.raises(InputError, match="exclude each other"):
        options(any_backbone=True)
