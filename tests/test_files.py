"""Files of every part: locks between processes, whole-or-absent writes, memory that a container allows."""

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bas import files
from bas.files import FileLock, free_memory_bytes, write_atomic

SPAWN = multiprocessing.get_context("spawn")


def hold(path: Path, pipe: Connection) -> None:
    """Take the lock, tell so, and hold it until told to end."""
    lock = FileLock.acquire(path, wait_seconds=5)
    pipe.send(lock is not None)
    pipe.recv()


def test_a_lock_has_one_owner_who_is_named_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(path, theirs))
    process.start()
    assert ours.recv() is True
    assert FileLock.acquire(path, wait_seconds=0.05) is None
    assert FileLock.owner(path).startswith(f"pid {process.pid} on ")
    process.kill()
    process.join()
    assert path.exists()  # a kill leaves the file behind, and that locks nobody out
    lock = FileLock.acquire(path, wait_seconds=1)
    assert lock is not None
    assert FileLock.owner(path).startswith(f"pid {os.getpid()} on ")
    assert FileLock.acquire(path, wait_seconds=0) is None, "a second one in the same process"
    lock.release()
    lock.release()
    assert not path.parent.exists()


def test_never_two_owners_while_many_come_and_go(tmp_path: Path) -> None:
    """The lock file is removed by each owner, while others wait for it or open it."""
    inside, most, taken = 0, 0, 0

    def come_and_go() -> None:
        nonlocal inside, most, taken
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            lock = FileLock.acquire(tmp_path / "locks" / "a.lock", wait_seconds=0.02)
            if lock is not None:
                inside += 1
                most, taken = max(most, inside), taken + 1
                time.sleep(0.0005)
                inside -= 1
                lock.release()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 20


def test_a_write_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def write_all(folder: Path, **texts: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_memory_is_bounded_by_every_cgroup_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = free_memory_bytes()
    assert 1 << 20 < here < 1 << 62
    monkeypatch.setattr(files, "_CGROUPS", tmp_path)
    monkeypatch.setattr(files, "_PROC_CGROUP", tmp_path / "self")
    (tmp_path / "self").write_text("0::/pod/box\n")
    write_all(tmp_path / "pod" / "box", memory__max="max", memory__current=0, memory__stat="inactive_file 0")
    write_all(tmp_path / "pod", memory__max=3000, memory__current=2500, memory__stat="anon 1\ninactive_file 400")
    assert free_memory_bytes() == 900, "version 2: a limit further up, without pages that can be dropped"
    (tmp_path / "self").write_text("0::/somewhere/on/the/host\n")
    write_all(tmp_path, memory__max=5000, memory__current=1000, memory__stat="inactive_file 0")
    assert free_memory_bytes() == 4000, "inside a container its own group is the root"
    (tmp_path / "self").write_text("5:cpu:/x\n4:memory:/x\n")
    one = tmp_path / "memory" / "x"
    write_all(one, memory__limit_in_bytes=800, memory__usage_in_bytes=600, memory__stat="total_inactive_file 50")
    assert free_memory_bytes() == 250, "version 1"
    (tmp_path / "self").unlink()
    assert free_memory_bytes() > 1 << 20
