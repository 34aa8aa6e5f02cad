"""The SoccerNet package, and the command line in this process."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bas import cli


@pytest.fixture(scope="session")
def package() -> Any:
    """The module SoccerNet.Evaluation.ActionSpotting; skips loudly without it."""
    with np.errstate(), warnings.catch_warnings():  # the package switches numpy's warnings off for everybody
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "SoccerNet.Evaluation.ActionSpotting",
            reason="PARITY WITH THE OFFICIAL METRIC NOT TESTED: pip install SoccerNet",
        )


@pytest.fixture
def bas(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process: arguments -> exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["bas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    return call
