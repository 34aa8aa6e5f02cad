"""Run by the tests of the workers in a process of its own, whose functions the workers can import.

workers_child.py all|orphans FOLDER
    `all` does one task of each kind, two at a time, and prints what was heard as JSON. `orphans` starts two tasks that
    never end, each of which writes its process id into FOLDER.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bas.errors import InputError
from bas.workers import Failure, side_by_side

TASKS = ("well", "input", "fault", "memory", "killed", "left", "last")


def work(task: str, tell: Callable[[float], None]) -> object:
    """Ends in the way that the task names."""
    tell(0.5)
    if task == "input":
        raise InputError("the row cannot be trained", got=1, wanted=2)
    if task == "fault":
        raise RuntimeError("a fault of ours\nwith a second line")
    if task == "memory":
        raise MemoryError("no room")
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "left":
        os._exit(3)
    return f"{task} done by {os.getpid()}"


def wait_for_ever(task: str, tell: Callable[[float], None]) -> None:
    """Writes its process id, and never ends."""
    path = Path(task)
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    while True:
        tell(0.0)
        time.sleep(0.05)


def do_all() -> None:
    """Writes results and shares by task."""
    results: dict[str, object] = {}
    shares: dict[str, list[float]] = {task: [] for task in TASKS}

    def ended(task: str, result: object) -> None:
        results[task] = {"why": result.why, "details": result.details} if isinstance(result, Failure) else result

    side_by_side(work, TASKS, jobs=2, progress=lambda task, share: shares[task].append(share), ended=ended)
    sys.stdout.write(json.dumps({"results": results, "shares": shares}))


def leave_orphans(folder: Path) -> None:
    """Two tasks that never end."""
    tasks = [str(folder / "a"), str(folder / "b")]
    side_by_side(wait_for_ever, tasks, jobs=2, progress=lambda *_: None, ended=lambda *_: None)


if __name__ == "__main__":
    if sys.argv[1] == "all":
        do_all()
    else:
        leave_orphans(Path(sys.argv[2]))
