"""Runs that come from elsewhere: whatever `run.json` and the weights say, an `InputError` or a network of that size."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.extract.backbones.weights import FinetunedRun
from bas.heads.ensemble import LoadedRun
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings
from bas.report.sources import ReportOptions, find_sources

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
Damage = Callable[[Path, int], None]
QUICK = hypothesis_settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, store: FeatureStore, tiny: Callable[..., TrainSettings]) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "fc"
    train(store, folder, tiny(epochs=1, head="bigru", options={"bigru.hidden": 4}), device="cpu")
    return folder


def read(folder: Path) -> None:
    """What predict, extract and report read of a run."""
    with contextlib.suppress(InputError):
        LoadedRun.load(folder, CPU)
    with contextlib.suppress(InputError):
        find_sources([folder], ReportOptions())
    with pytest.raises(InputError):  # it has no backbone
        FinetunedRun.read(folder)


@QUICK
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["run.json", "run.json", "best.safetensors"]))
def test_damaged_runs_are_refused_or_loaded(run: Path, damage: Damage, seed: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for each in ("run.json", "best.safetensors"):
            shutil.copy(run / each, folder)
        damage(Path(folder) / name, seed)
        begun = time.monotonic()
        read(Path(folder))
        assert time.monotonic() - begun < 5


NETWORKS = [
    *({"options": {"bigru.hidden": value}} for value in (10**18, -1, "x")),
    *({"options": {name: 1}} for name in ("__class__.x", "bigru", "tcn.num_layers")),
    *({"proj": 65_000}, {"head": "+".join(["bigru"] * 50)}, {"inputs": "scores"}),
]


@pytest.mark.parametrize("changes", NETWORKS)
def test_a_claim_of_another_network_takes_no_memory(
    run: Path, tmp_path: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["settings"] |= changes
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr("bas.heads.ensemble.read_weights", lambda *_: pytest.fail("the network was built"))
    with pytest.raises(InputError):
        LoadedRun.load(tmp_path / "run", CPU)


def test_predictions_are_not_written_through_a_link(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "predictions", ignore_errors=True)
    (tmp_path / "run" / "predictions").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of"):
        find_sources([tmp_path / "run"], ReportOptions())
