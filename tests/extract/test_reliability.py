"""`bas extract` as a process: killed, stopped, twice at once, without its video, on a full disk, with a bug inside."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.data.synthetic import write_match

ROOT = Path(__file__).resolve().parents[2]
CHILD = [sys.executable, str(Path(__file__).with_name("reliability_child.py"))]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT / ".typing"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "",  # as with most people: a closed pipe then shows at the end only
    "COLUMNS": "500",
}
OPTIONS = "--backbone x3d_xs --depth 4 --weights none --size 64x36 --window 16 --hop 12 --stride 2 --engine openvino"
HELD = {"hold": [300, "/never"]}
"""More than 256 rows of the first match are saved, and no more follow."""
SAVED, SAVED_BYTES = ".partial/*/match/features/identity/c/0/0", 2 * 96 * 280
Tree = dict[str, bytes | None]


@dataclass
class Bas:
    """One `bas` under way, a fork of the warm process."""

    pid: int
    output: Path
    errors: Path
    ask: Callable[[dict[str, Any]], int]

    def wait(self) -> int:
        """Its exit code; -9 after kill -9."""
        return self.ask({"wait": self.pid})

    def stop(self, number: int) -> int:
        """Send a signal; its exit code."""
        os.kill(self.pid, number)
        return self.wait()

    @property
    def statuses(self) -> dict[str, str]:
        """Match -> status, from the JSON at the end."""
        return {match["match"]: match["status"] for match in self.matches}

    @property
    def matches(self) -> list[dict[str, Any]]:
        """The matches in the JSON at the end."""
        matches: list[dict[str, Any]] = json.loads(self.output.read_text())["matches"]
        return matches

    @property
    def said(self) -> str:
        """What a person was told; checked for a traceback."""
        text = self.errors.read_text()
        assert "Traceback" not in text, text
        return text


Start = Callable[..., Bas]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts `bas extract DATA --out STORE ...`, with faults."""
    folder = tmp_path_factory.mktemp("output")
    server = subprocess.Popen(
        [*CHILD, "fork"], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    sent, got, count = server.stdin, server.stdout, [0]

    def ask(request: dict[str, Any]) -> int:
        sent.write(json.dumps(request) + "\n")
        sent.flush()
        return int(got.readline())

    def begin(data: Path, store: Path, *more: object, **faults: Any) -> Bas:
        count[0] += 1
        output, errors = folder / f"{count[0]}.out", folder / f"{count[0]}.err"
        arguments = [*map(str, ["extract", data, "--out", store, *more]), *OPTIONS.split()]
        arguments += ["--views", "identity,hflip", "--json"]
        request = {"arguments": arguments, "output": str(output), "errors": str(errors), "faults": faults}
        return Bas(ask(request), output, errors, ask)

    assert got.readline() == "1\n"  # it is warm, and has one thread
    yield begin
    sent.close()
    assert server.wait(30) == 0
    got.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matches of 14 and 4 s: 350 and 100 frames."""
    root = tmp_path_factory.mktemp("data")
    write_match(root / "long", seconds=14, seed=1)
    write_match(root / "short", seconds=4, seed=2)
    return root


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data, to be changed."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def whole_store(data: Path, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run; the file `steps` beside it holds how many appends and fsyncs it took."""
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert start(data, store, kill_after=(-1, 0, str(store.with_name("steps")))).wait() == 0
    assert verify(store) == []
    return store


@pytest.fixture
def whole(whole_store: Path) -> Tree:
    """All that is in the store of an uninterrupted run."""
    return tree(whole_store)


def tree(root: Path) -> Tree:
    """Every file's bytes, None for a folder, by its path within a store."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def wait_for(store: Path, pattern: str, *, num_bytes: int = 0) -> None:
    """Return once the store has a file like this, of so many bytes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if any(path.stat().st_size >= num_bytes for path in store.glob(pattern)):
                return
        time.sleep(0.005)
    raise AssertionError(f"{pattern} never came")


@pytest.mark.parametrize("num_kills", [7, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_then_resumed(
    num_kills: int, data: Path, whole_store: Path, start: Start, tmp_path: Path
) -> None:
    """A tenth of the moments is in the start; of the others one each is in equal parts of all appends and fsyncs."""
    source, count_file, num_starts = random.Random(num_kills), tmp_path / "steps", math.ceil(num_kills / 10)
    whole, num_steps = tree(whole_store), int(whole_store.with_name("steps").read_text())
    codes: list[int] = []
    statuses: list[str] = []
    for turn in range(num_kills):
        store = tmp_path / f"{turn}.zarr"
        part = (turn - num_starts + source.random()) / (num_kills - num_starts)
        step = 0 if turn < num_starts else 1 + int(part * num_steps)
        seconds = source.uniform(0, 0.01 if step else 0.5)
        codes.append(start(data, store, kill_after=(step, seconds, str(count_file))).wait())
        again = start(data, store)
        assert again.wait() == 0, again.said
        assert tree(store) == whole, f"killed {seconds} s after step {step}"
        statuses += again.statuses.values()
    counts = {status: statuses.count(status) for status in ("extracted", "resumed", "already there")}
    print(f"{codes.count(-9)} of {num_kills} killed, within {num_steps} steps; matches then {counts}")  # noqa: T201
    assert codes.count(-9) >= 0.7 * num_kills
    assert sum(counts.values()) == 2 * num_kills
    if num_kills >= 50:  # seven may all miss the steps from which a match is resumed
        assert min(counts.values()) >= 0.1 * num_kills


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_keeps_what_is_saved(
    number: int, code: int, data: Path, whole: Tree, start: Start, tmp_path: Path
) -> None:
    run = start(data, tmp_path / "s.zarr", **HELD)
    wait_for(tmp_path / "s.zarr", SAVED, num_bytes=SAVED_BYTES)
    began = time.monotonic()
    assert run.stop(number) == code
    assert time.monotonic() - began < 5
    assert "bas: stopped" in run.said
    assert "run the same command again" in run.said
    assert run.output.read_text() == ""
    assert not list((tmp_path / "s.zarr").rglob("*.lock"))
    again = start(data, tmp_path / "s.zarr")
    assert again.wait() == 0
    assert again.statuses == {"long": "resumed", "short": "extracted"}
    assert tree(tmp_path / "s.zarr") == whole


def test_two_processes_on_one_match(data: Path, whole: Tree, start: Start, tmp_path: Path) -> None:
    first = start(data, tmp_path / "s.zarr", hold=[20, str(tmp_path / "go on")])
    wait_for(tmp_path / "s.zarr", ".partial/*/journal.json")
    second = start(data, tmp_path / "s.zarr")
    assert second.wait() == 2
    assert second.statuses == {"long": "busy elsewhere", "short": "extracted"}
    assert f"pid {first.pid} on " in second.said
    (tmp_path / "go on").touch()
    assert first.wait() == 0, first.said
    assert first.statuses == {"long": "extracted", "short": "already there"}
    assert tree(tmp_path / "s.zarr") == whole


@pytest.mark.parametrize("step", ["find_sources", "check", "writer"])
def test_a_vanished_video_fails_alone(
    step: str, own_data: Path, data: Path, whole: Tree, start: Start, tmp_path: Path
) -> None:
    video = own_data / "long" / "224p.mp4"
    run = start(own_data, tmp_path / "s.zarr", remove_after=[step, str(video)])
    assert run.wait() == 2, run.said
    assert run.statuses == {"long": "failed", "short": "extracted"}
    assert f"{video}: cannot be read" in run.said
    assert "No such file" in run.said
    assert FeatureStore.open(tmp_path / "s.zarr").matches() == ["short"]
    shutil.copy(data / "long" / "224p.mp4", video)
    assert start(own_data, tmp_path / "s.zarr").wait() == 0
    assert tree(tmp_path / "s.zarr") == whole


def test_another_video_under_the_same_name_is_begun_anew_and_says_so(
    own_data: Path, start: Start, tmp_path: Path
) -> None:
    run = start(own_data, tmp_path / "s.zarr", **HELD)
    wait_for(tmp_path / "s.zarr", SAVED, num_bytes=SAVED_BYTES)
    assert run.stop(signal.SIGKILL) == -9
    for file in (own_data / "short").iterdir():
        shutil.copy(file, own_data / "long")
    again = start(own_data, tmp_path / "s.zarr")
    assert again.wait() == 0
    assert again.statuses == {"long": "extracted", "short": "extracted"}
    assert "begun anew" in again.matches[0]["message"]
    assert "video was" in again.said
    assert start(own_data, tmp_path / "other.zarr").wait() == 0
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "other.zarr")


def test_a_video_that_changes_while_it_is_read_is_not_stored(
    own_data: Path, whole: Tree, start: Start, tmp_path: Path
) -> None:
    run = start(own_data, tmp_path / "s.zarr", touch_after_append=str(own_data / "short" / "224p.mp4"))
    assert run.wait() == 2
    assert run.statuses == {"long": "extracted", "short": "failed"}
    assert "changed while it was read" in run.said
    assert start(own_data, tmp_path / "s.zarr").wait() == 0
    assert tree(tmp_path / "s.zarr") == whole


def test_a_full_disk_loses_nothing(data: Path, whole: Tree, start: Start, tmp_path: Path) -> None:
    """Files of 60 kB: enough for the short match (19 kB a view), not for the long one (67 kB)."""
    store = tmp_path / "s.zarr"
    run = start(data, store, limit_files=60_000)
    assert run.wait() == 2
    assert run.statuses == {"long": "failed", "short": "extracted"}
    assert "no space left" in run.said or "file size limit reached" in run.said
    assert "free some space and run the same command again" in run.said
    assert FeatureStore.open(store).matches() == ["short"]
    assert [(finding.match, finding.severity) for finding in verify(store)] == [("long", "note")]
    assert start(data, store).wait() == 0
    assert tree(store) == whole


@pytest.mark.parametrize("where", ["decode", "engine"])
def test_a_bug_in_a_thread_ends_its_match_alone(
    where: str, data: Path, whole: Tree, start: Start, tmp_path: Path
) -> None:
    began = time.monotonic()
    run = start(data, tmp_path / "s.zarr", break_worker=where)
    assert run.wait() == 2
    assert time.monotonic() - began < 20
    assert run.statuses["long"] == "failed"
    assert f"RuntimeError: bug in {where}" in run.said
    assert start(data, tmp_path / "s.zarr").wait() == 0
    assert tree(tmp_path / "s.zarr") == whole


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_stops_reading_is_no_error(more: list[str], whole_store: Path) -> None:
    nobody_reads, output = os.pipe()
    os.close(nobody_reads)
    command = [*CHILD, "bas", "cache", "info", str(whole_store), *more]
    run = subprocess.run(command, env=ENVIRONMENT, stdout=output, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(output)
    assert run.stderr == b""
    assert run.returncode == 1
