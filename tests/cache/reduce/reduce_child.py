"""Reduces a store and ends itself by SIGKILL at a given call of fsync: python reduce_child.py STORE OUT NUMBER."""

import os
import signal
import sys
from itertools import count
from pathlib import Path

from bas.cache import shard
from bas.cache.reduce import run
from bas.cache.reduce.fit import FitSettings

store, out, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls = count(1)


def fsync(_handle: int) -> None:
    if next(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)


os.fsync = fsync  # type: ignore[assignment]
setattr(run, "READ_ROWS", shard.CHUNK_ROWS)  # noqa: B010 (not exported from there); so that a match is saved many times
run.reduce_store(store, out, run.ReduceOptions(fit=FitSettings(dim=3, quantize=True)))
