"""Stands in for the lead's `cache/reduction.py` until both are merged."""

from pathlib import Path

from .reduce.files import BESIDE_NAME as REDUCTION_FILE
from .reduce.files import read_beside as read_reduction
from .reduce.files import write_beside as write_reduction
from .reduce.reduction import Reduction

__all__ = ["REDUCTION_FILE", "Path", "Reduction", "read_reduction", "write_reduction"]
from .reduce.about import told as describe_fit

__all__ += ["describe_fit"]
