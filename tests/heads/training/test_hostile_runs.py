"""Runs that come from elsewhere: whatever `run.json` and the weights say, an `InputError` or a network of that size."""

import contextlib
import json
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.eval.calibrate import FittedCalibration
from bas.eval.peaks import PeakSettings
from bas.extract.backbones.weights import FinetunedRun
from bas.heads.ensemble import LoadedRun
from bas.heads.training.checkpoint import RunRecord
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


@pytest.mark.parametrize(
    "options",
    [
        *({"bigru.hidden": value} for value in (10**9, 10**18, -1, 1e9, "x", [1])),
        *({"bigru.num_layers": value} for value in (10**9, 1000)),
        *({name: 1} for name in ("__class__.x", "bigru.__class__", "bigru", "tcn.num_layers")),
    ],
)
def test_networks_that_the_weights_do_not_hold_are_never_built(
    run: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["settings"]["options"] = options
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError):
        LoadedRun.load(tmp_path / "run", CPU)


@pytest.mark.parametrize("changes", [{"proj": 65_000}, {"head": "+".join(["bigru"] * 50)}, {"inputs": "scores"}])
def test_a_claim_of_another_network_takes_no_memory(
    run: Path, tmp_path: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["settings"] |= changes
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr("bas.heads.ensemble.read_weights", lambda *_: pytest.fail("the network was built"))
    with pytest.raises(InputError, match="weights of another network"):
        LoadedRun.load(tmp_path / "run", CPU)


def tensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LIES: dict[str, bytes] = {
    "header longer than the file": tensors({}, length=2**63 - 1),
    "header of all bits": tensors({}, length=2**64 - 1),
    "tensor of 10**12 numbers": tensors({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 0]}}),
    "sizes that overflow": tensors({"x": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}}),
    "offsets beyond the end": tensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
    "offsets that go back": tensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
    "offsets below zero": tensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, bytes(8)),
    "unknown type": tensors({"x": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "nothing of 10**18": tensors({"x": {"dtype": "F32", "shape": [0, 10**18], "data_offsets": [0, 0]}}),
    "bytes of no tensor": tensors({}) + b"xx",
    "no header": b"",
}


@pytest.mark.parametrize("name", LIES)
def test_weights_that_lie_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best.safetensors").write_bytes(LIES[name])
    with pytest.raises(InputError):
        LoadedRun.load(tmp_path / "run", CPU)


@pytest.mark.parametrize("changes", [{"window_frames": 10**18}, {"sigma_frames": 1e9}, {"sigma_frames": float("nan")}])
def test_hostile_peaks_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PeakSettings.from_json(PeakSettings().to_json() | changes)


@pytest.mark.parametrize("record", [5, {}, {"scores": 5, "values": 5}, {"scores": [[10**400]], "values": [[0.5]]}])
def test_hostile_calibrations_are_refused(record: Any) -> None:
    with pytest.raises(InputError):
        FittedCalibration.from_json(record)


def test_predictions_are_not_written_through_a_link(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "predictions", ignore_errors=True)
    (tmp_path / "run" / "predictions").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of"):
        find_sources([tmp_path / "run"], ReportOptions())


def test_a_record_reads_back(run: Path) -> None:
    record = RunRecord.read(run)
    assert record.finished
    assert RunRecord.read(run) == record
    assert LoadedRun.load(run, CPU).record == record
