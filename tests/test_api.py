"""The Python API: the example of the documentation runs, and `import bas` stays light."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import bas
from bas.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_of_the_documentation(pulse_store: Callable[..., Path], tmp_path: Path) -> None:
    store = pulse_store(tmp_path / "store.zarr", num_rows=600)
    command = [sys.executable, str(ROOT / "docs" / "example.py"), str(store), str(tmp_path / "out")]
    environment = {"PYTHONPATH": str(ROOT / ".typing"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "a batch: (4, 50, 4)" in done.stdout
    assert "mAP" in done.stdout


def test_what_needs_no_torch_imports_none() -> None:
    """The package and a store are light; so are settings, their help and the table of backbones."""
    code = "import sys, bas, bas.cache.store; bas.InputError; print([m for m in ('zarr', 'av') if m in sys.modules])\n"
    code += "import bas.heads.training.settings, bas.predict, bas.extract.backbones.registry\n"
    code += "print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT / ".typing"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_windows_are_rows_of_the_store_with_the_classes_at_events(
    pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = bas.open_store(pulse_store(tmp_path / "store.zarr"))
    windows = bas.WindowDataset(store, clip_len=20, stride=2, hop_rows=9)
    seen = np.zeros(300, bool)
    for index in range(len(windows)):
        item = windows[index]
        first = int(item["first_row"])
        rows = np.arange(first, first + 40, 2)
        seen[rows] = True
        wanted = np.asarray(store.rows("m-train")[:], np.float32)[rows]
        np.testing.assert_array_equal(item["features"].numpy(), wanted)
        events = {20 + 25 * number: number % 2 + 1 for number in range(11)}  # as `pulse_store` places them
        at = [next((c for row, c in events.items() if row - row_of_step in (0, 1)), 0) for row_of_step in rows]
        assert item["classes"].tolist() == at
        assert item["presence"].sum() == (item["classes"] > 0).sum()
        assert item["is_real"].all()
    assert seen[20:-20].all()  # an odd hop sees both phases of the stride
    short = bas.WindowDataset(store, clip_len=200, stride=2)
    assert short[0]["is_real"].sum() == 150
    last = torch.from_numpy(np.asarray(store.rows("m-train")[299:300], np.float32))
    assert torch.equal(short[0]["features"][150:], last.expand(50, -1))


def test_what_cannot_be_used_is_told(pulse_store: Callable[..., Path], tmp_path: Path) -> None:
    store = pulse_store(tmp_path / "store.zarr")
    with pytest.raises(InputError, match="no windows"):
        bas.WindowDataset(store, split="challenge")
    with pytest.raises(InputError):
        bas.open_store(tmp_path / "absent")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bas.nothing
