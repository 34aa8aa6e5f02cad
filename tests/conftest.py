"""Fixtures of all tests: the command line, the real data beside the checkout, and the real weights, where they are."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bas import cli

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WEIGHTS_DIR = os.environ.get("BAS_WEIGHTS_DIR", "")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data; the test is skipped, loudly, without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"REAL DATA MISSING: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of real weights (`BAS_WEIGHTS_DIR`), from `shared/tools/get_weights.py`; skipped, loudly, without it."""
    if not WEIGHTS_DIR or not Path(WEIGHTS_DIR).is_dir():
        pytest.skip("REAL WEIGHTS MISSING: set BAS_WEIGHTS_DIR to a folder made by shared/tools/get_weights.py")
    return Path(WEIGHTS_DIR)


@pytest.fixture
def bas(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process: arguments -> exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return call
