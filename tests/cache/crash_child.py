"""Run by the crash tests in a process of its own: writes a small store, and may be killed anywhere.

crash_child.py write STORE ROWS     prints `match views rows_done` after each append; carries on what is there
crash_child.py points STORE STEP    dies (os._exit) before each STEP-th operation on files in turn, carries on, compares
"""

import os
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.cache.verify import verify

DIM = 4
JOBS = (("liga/2019/ä - b", ("identity", "hflip")), ("liga/d", ("identity",)), ("liga/d", ("hflip", "third")))
SETTINGS = FeatureSettings.imported(kind="example", model="none", dim=DIM, fps="25")


def write(path: Path, num_rows: int, report: Callable[[str], object]) -> None:
    """Write all of `JOBS`, or what is missing of them; the bytes do not depend on where it begins."""
    store = FeatureStore.create_or_open(path, SETTINGS, classes=("PASS",), software={"bas": "0"})
    rows = np.random.default_rng(1).normal(size=(num_rows, DIM)).astype(np.float32)
    meta = MatchMeta(fps=Fraction(25), time_base=Fraction(1, 12800), origin_ticks=0, labels=(), video={"bytes": 1})
    for match_id, views in JOBS:
        missing = [view for view in views if view not in store.views(match_id)]
        if not missing:
            continue
        pts = np.arange(num_rows) * 512
        with store.writer(
            match_id,
            views=missing,
            num_rows=num_rows,
            pts_ticks=pts,
            match_meta=meta,
            provenance={"engine": "test"},
            journal_seconds=0.0,
        ) as writer:
            report(f"{match_id}\t{','.join(missing)}\t{writer.rows_done}\t{writer.restarted_because}")
            for start in range(writer.rows_done, num_rows, 100):
                block = rows[start : start + 100]
                writer.append(
                    {view: block + len(view) for view in missing}, np.arange(start, start + len(block)) % 7 > 0
                )
                report(f"{match_id}\t{','.join(missing)}\t{writer.rows_done}\t{writer.restarted_because}")
            writer.commit()


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file's bytes (None for a folder) by its path within a store."""
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


def die_before(operation: int) -> None:
    """Let this process vanish, as by kill -9, before its n-th operation on files (0-based)."""
    left = [operation]
    real_write = os.write

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)

    def audit(event: str, _: object) -> None:
        if event == "open" or event.startswith(("os.", "shutil.")):
            count()

    def torn_write(handle: int, data: memoryview) -> int:
        if left[0] == 0:
            real_write(handle, data[: len(data) // 2])
        count()
        return real_write(handle, data)

    os.write, os.fsync = torn_write, count  # type: ignore[assignment]
    sys.addaudithook(audit)


def every_point(folder: Path, step: int) -> int:
    """Number of points tried. Raises AssertionError where a carried-on store differs."""
    write(folder / "whole", 600, lambda _: None)
    whole, operation = tree(folder / "whole"), 0
    assert not any(name.startswith(".partial") for name in whole)
    while True:
        path = folder / "cut"
        child = os.fork()
        if child == 0:
            die_before(operation)
            write(path, 600, lambda _: None)
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if path.exists() and (path / "zarr.json").exists():
            errors = [
                finding
                for finding in verify(path)
                if finding.severity == "error" and "zarr.json" not in finding.message
            ]
            assert not errors, (operation, errors)
        write(path, 600, lambda _: None)
        now = tree(path)
        assert now == whole, (operation, sorted(now.keys() ^ whole.keys()))
        shutil.rmtree(path)
        if finished:
            return operation
        operation += step


if __name__ == "__main__":
    os.fsync = lambda fd: None  # noqa: ARG005 (a kill loses nothing that was written; only the machine's end does)
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]), lambda line: os.write(1, f"{line}\n".encode()))
    else:
        os.write(1, b"%d\n" % every_point(Path(sys.argv[2]), int(sys.argv[3])))
