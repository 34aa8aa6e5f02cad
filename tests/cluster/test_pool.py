"""Work on a Ray cluster of a head without CPUs and two nodes, one of which is killed: nothing is missing afterwards."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bas.cache.layout import PARTIAL
from bas.cache.partial import JOURNAL
from bas.cluster import join
from bas.cluster.join import connected
from bas.cluster.pool import Cluster, Lost, Ready, Slot, Watch, on_cluster
from bas.commands.extract_view import summary_json
from bas.data.sources import find_sources
from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.extract.cluster_run import ClusterReporter, extract_on_cluster
from bas.extract.options import ExtractOptions, RunOptions
from bas.extract.run import extract
from bas.workers import Failure

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets and files of Ray's own processes
Cli = Callable[..., int]
OPTIONS = ExtractOptions(backbone="x3d_xs", depth=4, weights="none", size=(64, 36), window=8, hop=2, stride=2)
RUN = RunOptions(engine="openvino", device="cpu", batch=1)
LONG_FRAMES = 800
NODE_BYTES = 80 * 2**20
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
"""A node that does not answer for a second is dead; Ray's own default takes 15 s or more."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster; `add_node` and `remove_node` as Ray has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        root = Path(__file__).resolve().parents[1]
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
    deadline = time.monotonic() + 40
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


def test_a_node_is_killed_midway_and_the_store_is_that_of_a_single_run(
    nodes: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set, store = find_sources([data]), tmp_path / "s.zarr"
    assert extract(data_set, tmp_path / "single.zarr", OPTIONS, RUN).complete
    lost: list[tuple[str, str]] = []
    killed: list[int] = []
    report = ClusterReporter(lost=lambda match, place, _: lost.append((match, place)))
    killer = threading.Thread(target=kill_midway, args=(nodes, store, killed), daemon=True)
    killer.start()
    summary = extract_on_cluster(data_set, store, OPTIONS, RUN, Cluster(address=nodes.address), report=report)
    killer.join()
    nodes.add_node(num_cpus=1, object_store_memory=NODE_BYTES)
    assert [match for match, _ in lost].count("m0") == 1
    assert summary.complete
    assert tree(store) == tree(tmp_path / "single.zarr")
    records = {record["match"]: record for record in summary_json(summary)["matches"]}
    assert records["m0"]["retries"] == 1
    assert records["m0"]["status"] == "resumed"
    assert records["m0"]["place"] not in ("", dict(lost)["m0"])
    assert killed
    assert capsys.readouterr() == ("", "")


def work_of(folder: Path, _: Slot) -> Ready[str, str]:
    """Prepares a worker of the tests."""
    return Ready(partial(work, folder), "ready to test")


def work(folder: Path, task: str, tell: Callable[[Any], None]) -> str:
    """Ends in the way that the task names."""
    tell({"half": task})
    if task == "input":
        raise InputError("the row cannot be trained", got=1, wanted=2)
    if task == "fault":
        raise RuntimeError("a fault of ours\nwith a second line")
    if task == "killed" or (task == "killed once" and not (folder / "once").exists()):
        (folder / "once").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "slow":
        time.sleep(1.5)
    return f"{task} done"


def unusable(_: Slot) -> Ready[str, str]:
    """Says that the node cannot be used."""
    raise InputError("/data/v.mp4: not as the driver sees it", cure="mount it")


def test_every_task_ends_one_way_or_another(nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: dict[str, Any] = {}
    lost: list[Lost[str]] = []
    told: list[Any] = []
    joined: list[tuple[str, str]] = []

    def ended(task: str, _: str, result: str | Failure) -> None:
        results[task] = result

    def hear(each: Lost[str]) -> str:
        lost.append(each)
        return each.task

    watch = Watch[str, str](
        ended=ended,
        progress=lambda task, _, value: told.append((task, value)),
        joined=lambda slot, about: joined.append((slot.device, about)),
        lost=hear,
    )
    tasks = ("slow", "input", "fault", "killed", "killed once", "last")
    on_cluster(partial(work_of, tmp_path), tasks, cluster=Cluster(address=nodes.address, retries=1), watch=watch)
    assert results["slow"] == "slow done"
    assert results["last"] == "last done"
    assert results["killed once"] == "killed once done"
    assert results["input"] == Failure("the row cannot be trained\n  got:    1\n  wanted: 2")
    assert results["fault"].why == "RuntimeError: a fault of ours"
    assert "lost 2 times" in results["killed"].why
    assert [(each.task, each.is_redone) for each in lost if each.task == "killed"] == [
        ("killed", True),
        ("killed", False),
    ]
    assert all(each.owner.startswith("pid ") for each in lost)
    assert ("slow", {"half": "slow"}) in told
    assert set(joined) == {("cpu", "ready to test")}
    assert capsys.readouterr() == ("", "")


def test_a_node_that_sees_other_files_stops_the_run_before_the_work(nodes: Any) -> None:
    with pytest.raises(InputError, match=r"node .* cannot be used: /data/v.mp4: not as the driver sees it"):
        on_cluster(unusable, ["a"], cluster=Cluster(address=nodes.address), watch=Watch(ended=lambda *_: None))


def test_a_gpu_is_asked_for_where_there_is_none(nodes: Any) -> None:
    cluster = Cluster(address=nodes.address, device="cuda")
    with pytest.raises(InputError, match="no GPU in the Ray cluster"):
        on_cluster(unusable, ["a"], cluster=cluster, watch=Watch(ended=lambda *_: None))


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "127.0.0.1:1"])
def test_an_address_that_leads_nowhere_is_said_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="RAY MISSING: pip install ray to test many machines")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"--ray is not usable|no Ray cluster can be reached"), connected(address):
        pass
    assert time.monotonic() - began < 6


def test_without_ray_it_is_said_what_to_install(
    bas: Cli, monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    small = ["--backbone", "x3d_xs", "--depth", 4, "--weights", "none", "--size", "64x36"]
    assert bas("extract", data, "--out", tmp_path / "s.zarr", *small, "--ray", "auto") == 2
    assert 'pip install "ball-action-spotting[ray]"' in capsys.readouterr().err


def test_other_versions_of_a_node_are_named() -> None:
    facts = join.make_look()()
    assert join.wrong_versions(facts) is None
    facts["versions"]["bas"] = "0.0.0"
    assert f"node {socket.gethostname()} has other versions" in str(join.wrong_versions(facts))


def test_what_a_killed_cluster_has_left_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert join.running_here() == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert join.running_here() == "10.0.0.1:6379"


def test_ablate_trains_on_the_cluster(
    bas: Cli, nodes: Any, pulse_store: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = pulse_store(tmp_path / "x3d.zarr"), tmp_path / "out"
    call = [store, "--recipes", "fc", "--seeds", 1, "--epochs", 1, "--device", "cpu"]
    assert bas("ablate", *call, "--out", out, "--ray", nodes.address, "--json") == 0
    there = json.loads(capsys.readouterr().out)
    assert bas("ablate", *call, "--out", tmp_path / "here", "--jobs", 1, "--json") == 0
    here = json.loads(capsys.readouterr().out)
    assert [run["means"] for row in there["rows"] for run in row["runs"]] == [
        run["means"] for row in here["rows"] for run in row["runs"]
    ]
    assert [row["status"] for row in there["rows"]] == ["done"]
