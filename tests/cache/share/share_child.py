"""Run by the tests of sharing in a process of its own: forks one process per job, before any thread is started.

Jobs come as a JSON list on stdin: {"do": "push" or "pull", "store": PATH, "url": URL, "options": {...},
"die_after": bytes after which the process vanishes as by kill -9, "die_at": number of the rename that it does not live
to see}. Their ends go to stdout as a JSON list:
{"code": exit code, "statuses": {match: status}, "bytes": ..., "error": ...}.
"""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import obstore.store  # noqa: F401 (imported once, before the forks)

from bas.cache.share.pull import Selection, pull
from bas.cache.share.push import push
from bas.errors import InputError
from bas.workers import Progress


def carry_out(job: dict[str, Any]) -> dict[str, Any]:
    """One job in this process."""
    most = job.get("die_after", 1 << 60)

    def advanced(_: str, num_bytes: float, *__: object) -> None:
        if num_bytes > most:
            os._exit(9)

    if "die_at" in job:
        die_at_rename(job["die_at"])
    options = dict(job.get("options", {}))
    chosen = {name: tuple(options.pop(name)) for name in ("matches", "splits", "views") if name in options}
    options["progress"] = Progress(advanced=advanced)
    try:
        if job["do"] == "push":
            summary = push(Path(job["store"]), job["url"], Selection(**chosen), **options)
        else:
            summary = pull(job["url"], Path(job["store"]), Selection(**chosen), **options)
    except InputError as error:
        return {"code": 2, "statuses": {}, "bytes": 0, "error": str(error)}
    return {
        "code": 0 if summary.complete else 2,
        "statuses": {each.match_id: each.status for each in summary.results},
        "bytes": round(1e6 * summary.amount),
        "error": "\n".join(each.message for each in summary.results),
    }


def die_at_rename(number: int) -> None:
    """Let this process vanish before its n-th rename of a file or folder (0-based)."""
    renames = itertools.count()

    def audit(event: str, _: object) -> None:
        if event == "os.rename" and next(renames) == number:
            os._exit(9)

    sys.addaudithook(audit)


def start(job: dict[str, Any]) -> tuple[int, int]:
    """(process, pipe on which its end comes)."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        end = carry_out(job)
        os.write(write, json.dumps(end).encode())
        os._exit(0)
    os.close(write)
    return process, read


def end_of(process: int, pipe: int) -> dict[str, Any]:
    """How a job ended; code 9 where it vanished."""
    with os.fdopen(pipe, "rb") as file:
        data = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    end: dict[str, Any] = json.loads(data) if data else {"code": code, "statuses": {}, "bytes": 0, "error": "vanished"}
    return end


if __name__ == "__main__":
    os.fsync = lambda fd: None  # noqa: ARG005 (a kill loses nothing that was written)
    jobs = json.load(sys.stdin)
    if sys.argv[1] == "at-once":
        ends = [end_of(*each) for each in [start(job) for job in jobs]]
    else:
        ends = [end_of(*start(job)) for job in jobs]
    json.dump(ends, sys.stdout)
