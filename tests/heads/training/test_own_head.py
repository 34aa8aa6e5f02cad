"""A head from outside the package: by import path or put into `HEADS`, through the command line and back."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.heads.ensemble import LoadedRun
from bas.heads.registry import HEADS, build_head, require_own_modules
from bas.heads.tcn import TcnSettings
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings

Cli = Callable[..., int]
CODE = """
from dataclasses import dataclass
from torch import nn
from bas.heads.contract import Neck

@dataclass(frozen=True)
class Mine:
    width: int = 6

    def build(self, dim):
        return Net(self, dim)

class Net(Neck):
    def __init__(self, settings, dim):
        super().__init__()
        self.dim = settings.width
        self.linear = nn.Linear(dim, settings.width)

    def forward(self, x_btc):
        return self.linear(x_btc).relu()

class NoHead:
    pass
"""
TINY = ("--clip-len", 16, "--hop", 4, "--frames-per-epoch", 384, "--epochs", 1, "--device", "cpu")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the module `own_heads`."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "own_heads.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("own_heads", None)


@pytest.mark.parametrize("head", ["own_heads:Mine", "tcn+own_heads:Mine", "own_heads:Mine+disp"])
def test_a_head_by_import_path_is_trained_and_predicts(
    bas: Cli, store: FeatureStore, module: Path, tmp_path: Path, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    own = ("--head", head, "--set", "own_heads:Mine.width=5")
    assert bas("train-head", store.path, "--out", run, *own, *TINY) == 0
    assert RunRecord.read(run).settings.options == {"own_heads:Mine.width": 5}
    assert bas("predict", store.path, "--run", run, "--out", tmp_path / "found", "--device", "cpu") == 0
    assert len(list((tmp_path / "found").rglob("spots.csv"))) == 3
    sys.modules.pop("own_heads")
    (module / "own_heads.py").unlink()
    sys.path_importer_cache.clear()
    assert bas("predict", store.path, "--run", run, "--out", tmp_path / "again", "--device", "cpu") == 2
    shown = capsys.readouterr().err
    assert "its head 'own_heads:Mine' cannot be imported" in shown
    assert "Traceback" not in shown


def test_a_head_put_into_the_table_is_one_like_any_other(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "mine", TcnSettings(num_layers=1))
    settings = TrainSettings(head="mine+fc", clip_len=16, epochs=1, frames_per_epoch=384)
    train(store.path, tmp_path / "run", settings, device="cpu")
    assert LoadedRun.load(tmp_path / "run", torch.device("cpu")).record.settings.head == "mine+fc"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing:Mine", "cannot be imported"),
        ("own_heads:Other", "cannot be imported"),
        ("own_heads:NoHead", "builds no"),
    ],
)
def test_what_cannot_be_imported_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_head(name, dim=4, num_classes=2)


@pytest.mark.parametrize("place", ["module", "package", "namespace"])
def test_a_run_never_brings_its_own_code(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A hostile run names a module inside its own folder, and the working directory is on the path."""
    run, mark = tmp_path / "hostile", tmp_path / "mark"
    train(store, run, TrainSettings(head="fc", clip_len=16, epochs=1, frames_per_epoch=384), device="cpu")
    code = f"import pathlib; pathlib.Path({str(mark)!r}).write_text('ran')"
    (run / "evil.py").write_text(code)
    if place == "package":
        (run / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(run if place == "module" else tmp_path))
    head = "evil:X" if place == "module" else "hostile.evil:X"
    record = json.loads((run / "run.json").read_text())
    record["settings"]["head"] = head
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="cannot be imported"):
        LoadedRun.load(run, torch.device("cpu"))
    with pytest.raises(InputError):
        require_own_modules(head, run)
    assert not mark.exists()
