"""Work on a Ray cluster of a head without CPUs and two nodes, one of which is killed: nothing is missing afterwards."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bas import __version__, workers
from bas.cache.layout import PARTIAL
from bas.cache.partial import JOURNAL
from bas.data.sources import find_sources
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.extract import run
from bas.extract.options import ExtractOptions, ExtractRunOptions
from bas.extract.run import extract
from bas.workers import Failure, on_ray, ray_address_here, ray_cluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets and files of Ray's own processes
Cli = Callable[..., int]
OPTIONS = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=4, stride=2)
RUN = ExtractRunOptions(engine="openvino", device="cpu", batch=1)
LONG_FRAMES = 2500
NODE_BYTES = 80 * 2**20
QUICK = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
"""A killed node is dead after 5 s; Ray's own default takes 15 s or more. With less than that a busy one was too."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster; `add_node` and `remove_node` as Ray has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        root = Path(__file__).resolve().parents[2]
        patch.setenv("PYTHONPATH", f"{root / '.typing'}:{Path(__file__).parent}")
        pytest.importorskip("ray", reason="RAY MISSING: pip install ray to test many machines")
        from ray.cluster_utils import Cluster as Nodes

        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": NODE_BYTES, "_system_config": QUICK}
        started = Nodes(initialize_head=True, head_node_args=head)
        for _ in range(2):
            started.add_node(num_cpus=1, object_store_memory=NODE_BYTES)
        yield started
        started.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A match that outlives a node, and two small ones."""
    root = tmp_path_factory.mktemp("data")
    for number, seconds in enumerate((LONG_FRAMES / 25, 3, 2)):
        write_match(root / f"m{number}", seconds=seconds, seed=number)
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def kill_node(nodes: Any, owner: int) -> None:
    """SIGKILL to the node of a worker: raylet and all."""
    node = next(node for node in nodes.worker_nodes if raylet_of(node) == parent_of(owner))
    os.kill(owner, signal.SIGKILL)
    nodes.remove_node(node, allow_graceful=False)


def kill_midway(nodes: Any, store: Path, killed: list[int]) -> None:
    """Kill the node that has saved some rows of the long match."""
    partial_ = store / PARTIAL / hashlib.sha256(b"m0").hexdigest()
    deadline = time.monotonic() + 120  # a worker imports torch first
    while time.monotonic() < deadline and not killed:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((partial_ / JOURNAL).read_text())["rows_done"]:
                killed.append(int(partial_.with_suffix(".lock").read_text().split()[1]))
                kill_node(nodes, killed[0])
        time.sleep(0.02)


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def parent_of(process: int) -> int:
    return int((Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_node_is_killed_midway_and_the_store_is_that_of_a_single_run(nodes: Any, data: Path, tmp_path: Path) -> None:
    data_set, store = find_sources([data]), tmp_path / "s.zarr"
    assert extract(data_set, tmp_path / "single.zarr", OPTIONS, RUN).complete
    killed: list[int] = []
    killer = threading.Thread(target=kill_midway, args=(nodes, store, killed), daemon=True)
    killer.start()
    summary = extract(data_set, store, OPTIONS, replace(RUN, ray=nodes.address))
    killer.join()
    nodes.add_node(num_cpus=1, object_store_memory=NODE_BYTES)
    assert killed
    assert summary.complete, summary.results
    assert tree(store) == tree(tmp_path / "single.zarr")
    assert [result.status for result in summary.results] == ["resumed", "extracted", "extracted"]
    assert all(result.columns["on"] for result in summary.results)


def test_every_task_ends_one_way_or_another(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    work = import_module("ray_work").work
    results: dict[str, Any] = {}
    reports: list[Any] = []

    def heard(task: tuple[str, Path], value: object) -> None:
        reports.append((task[0], value))
        (tmp_path / f"{task[0]} was heard").touch()

    on_ray(
        work,
        [(name, tmp_path) for name in ("slow", "input", "fault", "killed", "killed once", "queue killed", "last")],
        address=nodes.address,
        retries=1,
        progress=heard,
        ended=lambda task, result: results.update({task[0]: result}),
    )
    assert results["slow"] == "slow done"
    assert results["last"] == "last done"  # though its reports had nowhere to go
    assert results["killed once"] == "killed once done"
    assert results["input"] == Failure("the row cannot be trained\n  got:    1\n  wanted: 2")
    assert results["fault"].why == "RuntimeError: a fault of ours"
    assert "WorkerCrashedError" in results["killed"].why
    assert ("slow", {"half": "slow"}) in reports


def test_a_node_that_sees_another_video_fails_that_match(data: Path, tmp_path: Path) -> None:
    """The video changes between the look of the driver and the task."""
    data_set = find_sources([data / "m2"])
    real, changed = data_set.matches[0].require_video(), tmp_path / "224p.mp4"
    changed.write_bytes(real.read_bytes())
    match = replace(data_set.matches[0], video=changed)
    seen = run._task(run._Setup(tmp_path / "none.zarr", None, "none", RUN), data_set, match)  # type: ignore[arg-type]
    result = workers._ray_task(run._extract_task, seen, 0, None, __version__)
    assert isinstance(result, Failure)
    assert "none.zarr: not as the driver sees it" in result.why


def test_a_gpu_is_asked_for_where_there_is_none(nodes: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no GPU in the Ray cluster"):
        extract(find_sources([data]), tmp_path / "s.zarr", OPTIONS, replace(RUN, device="cuda", ray=nodes.address))


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "127.0.0.1:1"])
def test_an_address_that_leads_nowhere_is_said_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="RAY MISSING: pip install ray to test many machines")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"--ray is not usable|no Ray cluster can be reached"), ray_cluster(address):
        pass
    assert time.monotonic() - began < 6


def test_without_ray_it_is_said_what_to_install(
    bas: Cli, monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    small = ["--backbone", "x3d_xs", "--depth", 4, "--weights", "none", "--size", "64x36"]
    assert bas("extract", data, "--out", tmp_path / "s.zarr", *small, "--ray", "auto") == 2
    assert 'pip install "ball-action-spotting[ray]"' in capsys.readouterr().err


def test_another_version_on_a_node_is_said() -> None:
    result = workers._ray_task(lambda *_: pytest.fail("it was begun"), "a task", 0, None, "0.0.0")
    assert isinstance(result, Failure)
    assert "has another version of bas than the driver" in result.why


def test_what_a_killed_cluster_has_left_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_address_here() == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_address_here() == "10.0.0.1:6379"


def test_ablate_trains_on_the_cluster(
    bas: Cli,
    nodes: Any,
    pulse_store: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    store, out = pulse_store(tmp_path / "x3d.zarr"), tmp_path / "out"
    call = [store, "--recipes", "fc", "--seeds", 1, "--epochs", 1, "--device", "cpu"]
    assert bas("ablate", *call, "--out", out, "--ray", nodes.address, "--json") == 0
    there = json.loads(capsys.readouterr().out)
    request.getfixturevalue("in_this_process")
    assert bas("ablate", *call, "--out", tmp_path / "here", "--json") == 0
    here = json.loads(capsys.readouterr().out)
    assert [run["means"] for row in there["rows"] for run in row["runs"]] == [
        run["means"] for row in here["rows"] for run in row["runs"]
    ]
    assert [row["status"] for row in there["rows"]] == ["done"]
