"""The only door to timm and pytorchvideo, which both import torchvision.

A torchvision built for another torch cannot load its compiled operators and then fails on import ("operator
torchvision::nms does not exist"), though nothing here uses an operator. Naming the two operators is enough for the
import to succeed. A torchvision that works is left alone.
"""

import importlib
import sys
import warnings
from types import ModuleType

import torch

_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []  # an operator lives only as long as the Library that defined it


def import_with_torchvision(name: str) -> ModuleType:
    """Import a module that needs torchvision, e.g. `timm` or `pytorchvideo.models.x3d`.

    Raises:
        ImportError: the module, or torchvision, is not installed.
    """
    if "torchvision" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            for partial in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
                del sys.modules[partial]
            _define_missing_operators()
            importlib.import_module("torchvision")
    with warnings.catch_warnings():
        # fvcore and timm call torch.jit.script on import, which torch >= 2.10 has deprecated
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        return importlib.import_module(name)


def _define_missing_operators() -> None:
    missing = [schema for name, schema in _OPERATORS.items() if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in missing:
            library.define(schema)  # type: ignore[no-untyped-call]
        _libraries.append(library)
