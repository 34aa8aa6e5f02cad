"""Ball action spotting: features of every frame once, temporal heads in minutes.

`import bas` gives the names below without importing torch; each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import evaluate as evaluate
    from .api import open_store as open_store
    from .cache.store import FeatureStore as FeatureStore
    from .errors import InputError as InputError
    from .heads.registry import HEADS as HEADS
    from .heads.training.loop import train as train
    from .heads.training.settings import TrainSettings as TrainSettings
    from .heads.window_dataset import WindowDataset as WindowDataset
    from .predict import PredictOptions as PredictOptions
    from .predict import predict as predict

__version__ = "0.1.0"
_EXPORTS = {
    "evaluate": "api",
    "open_store": "api",
    "FeatureStore": "cache.store",
    "InputError": "errors",
    "HEADS": "heads.registry",
    "train": "heads.training.loop",
    "TrainSettings": "heads.training.settings",
    "WindowDataset": "heads.window_dataset",
    "PredictOptions": "predict",
    "predict": "predict",
}
"""Name -> module."""
__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604 (names, all of them text)


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first used."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
