"""Synthetic football matches for tests and demos: played by chance, filmed by a moving camera, labelled exactly.

Figures measured on them say nothing about real football. Deterministic by seed.
"""

from ..settings import SyntheticSettings
from .data_set import write_data_set, write_match

__all__ = ["SyntheticSettings", "write_data_set", "write_match"]
