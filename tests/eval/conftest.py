"""The SoccerNet package."""

import warnings
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def package() -> Any:
    """The module SoccerNet.Evaluation.ActionSpotting; skips loudly without it."""
    with np.errstate(), warnings.catch_warnings():  # the package switches numpy's warnings off for everybody
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "SoccerNet.Evaluation.ActionSpotting",
            reason="PARITY WITH THE OFFICIAL METRIC NOT TESTED: pip install SoccerNet",
        )
