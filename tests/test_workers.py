"""Workers: a task that fails, or whose process dies, leaves the others alone, and nothing outlives the parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("workers_child.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / ".typing")}


def test_every_task_ends_one_way_or_another() -> None:
    done = subprocess.run(
        [sys.executable, CHILD, "all"], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True
    )
    heard = json.loads(done.stdout)
    results, shares = heard["results"], heard["shares"]
    assert results["well"].startswith("well done by ")
    assert results["last"].startswith("last done by ")
    assert results["input"]["why"] == "the row cannot be trained\n  got:    1\n  wanted: 2"
    assert results["input"]["details"] == ""
    assert results["fault"]["why"] == "RuntimeError: a fault of ours"
    assert "workers_child.py" in results["fault"]["details"]
    assert results["memory"]["why"] == "MemoryError: no room"
    assert "killed by SIGKILL" in results["killed"]["why"]
    assert "memory" in results["killed"]["why"]
    assert results["left"]["why"] == "its process ended with code 3"
    assert all(share == [0.5] for share in shares.values())
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, CHILD, "orphans", tmp_path], env=ENVIRONMENT)
    files = [tmp_path / "a", tmp_path / "b"]
    wait_until(lambda: all(file.exists() for file in files))
    workers = [int(file.read_text()) for file in files]
    parent.send_signal(number)
    parent.wait(timeout=30)
    wait_until(lambda: not any(is_alive(worker) for worker in workers))


def wait_until(condition: object) -> None:
    """Fails after 30 seconds."""
    assert callable(condition)
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return "Z" not in (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
