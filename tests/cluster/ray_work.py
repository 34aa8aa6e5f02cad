"""What the tests give to a cluster: a module that a worker imports in no time."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bas.errors import InputError


def work(task: tuple[str, Path], report: Callable[[Any], None]) -> str:
    """Ends in the way that the task names."""
    name, folder = task
    report({"half": name})
    if name == "input":
        raise InputError("the row cannot be trained", got=1, wanted=2)
    if name == "fault":
        raise RuntimeError("a fault of ours\nwith a second line")
    if name == "killed" or (name == "killed once" and not (folder / "once").exists()):
        (folder / "once").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "queue killed":
        until = time.monotonic() + 30
        while not (folder / "slow was heard").exists() and time.monotonic() < until:
            time.sleep(0.05)
        for process in Path("/proc").glob("[0-9]*"):
            if b"_QueueActor" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    if name == "slow":
        time.sleep(1.5)
    return f"{name} done"
