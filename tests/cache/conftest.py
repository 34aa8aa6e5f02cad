"""Settings, rows and whole-tree comparison for the store's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bas.cache.settings import FeatureSettings


@pytest.fixture
def settings() -> Callable[..., FeatureSettings]:
    """Settings of a store with `dim` channels."""

    def build(dim: int = 6, **changes: object) -> FeatureSettings:
        record = {
            "backbone": "x3d_s",
            "depth": 5,
            "weights": "none",
            "weights_sha256": "0" * 64,
            "dim": dim,
            "width": 398,
            "height": 224,
            "fit": "pad",
            "scaler": "swscale-bicubic",
            "fps": "25",
            "window": 50,
            "hop": 25,
            "blend": "hann",
            "stride": 1,
            "mean": [0.45, 0.45, 0.45],
            "std": [0.225, 0.225, 0.225],
            "dtype": "float16",
        }
        return FeatureSettings.from_json(record | changes)

    return build


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Every file's bytes (None for a folder) by its path within a store."""

    def read(root: Path) -> dict[str, bytes | None]:
        paths = sorted(root.rglob("*"))
        return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}

    return read
