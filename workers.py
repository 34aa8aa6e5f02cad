"""Work match by match: results, progress callbacks, and tasks side by side in processes or on a Ray cluster."""

import contextlib
import io
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from . import __version__
from .errors import InputError, raise_if_stopped
from .files import num_cores

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T, Callable[[Any], None]], R]
"""Does a task, and is given a function to report how far it is. A function of a module, as other processes import it;
tasks, results and reports are pickled."""
_END_SECONDS = 10.0
_POLL_SECONDS = 0.5
_REACH_SECONDS = 5.0
RAY_AUTO = "auto"
_RAY_NEW = "local"
"""Ray's word for a cluster that is started for this process alone."""


@dataclass(frozen=True, kw_only=True)
class MatchResult:
    """How one match ended. Every command that works match by match returns these; its own figures are `columns`."""

    match_id: str
    status: str
    """What happened, in the words of the table: extracted, predicted, sent, already there, busy elsewhere, failed."""
    is_done: bool = True
    """False where what was asked for is not there: the command then ends with exit code 2."""
    message: str = ""
    """Why it failed, or what a person should know all the same."""
    details: str = ""
    """The traceback, where a fault of ours or of a library ended it; shown with -v."""
    num_rows: int = 0
    """Rows (frames) that the match has."""
    seconds: float = 0.0
    """Wall time spent on it in this run."""
    columns: Mapping[str, str | int | float] = field(default_factory=dict)
    """Further columns of this command's table and fields of its JSON: name -> value."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        record = {"match": self.match_id, "status": self.status, "done": self.is_done, "message": self.message}
        return {**record, "rows": self.num_rows, "seconds": round(self.seconds, 3), **self.columns}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a command ended: its matches, and where they are now."""

    results: tuple[MatchResult, ...]
    target: str
    """Path or address of what was made."""
    seconds: float = 0.0
    """Wall time of the whole run."""
    unit: str = "frames"
    """What the closing line counts: frames, spots, MB."""
    amount: float = 0.0
    """So many of them were done in this run."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs in the JSON: settings, engine, versions."""

    @property
    def complete(self) -> bool:
        """Whether everything asked for is there."""
        return all(result.is_done for result in self.results)

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of matches, in order of appearance."""
        return dict(Counter(result.status for result in self.results))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        head = {"target": self.target, "complete": self.complete, "seconds": round(self.seconds, 3), **self.record}
        return {**head, "matches": [result.to_json() for result in self.results]}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Callbacks that a command calls while it works; every field may be left out. They may come from any thread."""

    started: Callable[[int, float], None] = lambda *_: None
    """(matches, units in all or 0 where nobody knows), once."""
    note: Callable[[str], None] = lambda _: None
    """A line for people: settings, the engine, a warning."""
    advanced: Callable[[str, float, float, str], None] = lambda *_: None
    """(match id, units done, units in all, a few words such as `decode-bound`); match id "" is the whole."""
    finished: Callable[[MatchResult], None] = lambda _: None
    """After every match."""


SILENT = Progress()
"""Tells nobody."""


def each_match(match_ids: Iterable[T], work: Callable[[T], MatchResult], progress: Progress) -> list[MatchResult]:
    """Work on matches one after the other; whatever ends one becomes its result, and the others go on.

    Args:
        match_ids: ids, or what `work` takes in their place (with an `id`).
        work: does one match. An exception of any kind is caught here, and nowhere else.
        progress: hears of each result.
    """
    results = []
    for match in match_ids:
        started = time.perf_counter()
        try:
            result = work(match)
        except Exception as error:
            match_id = match if isinstance(match, str) else str(getattr(match, "id", match))
            result = failed(match_id, error, seconds=time.perf_counter() - started)
        results.append(result)
        progress.finished(result)
    return results


def failed(match_id: str, error: Exception, *, seconds: float = 0.0) -> MatchResult:
    """The result of a match that an exception ended."""
    return Failure.of(error).result(match_id, status=getattr(error, "status", "failed"), seconds=seconds)


@dataclass(frozen=True)
class Failure:
    """A task without a result."""

    why: str
    """For people."""
    details: str = ""
    """The traceback where it was no `InputError`."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """What an exception says. Raises `Stopped` where a signal came: then it may be that signal in disguise."""
        raise_if_stopped()
        if isinstance(error, InputError):
            return cls(str(error))
        return cls(f"{type(error).__name__}: {error}".splitlines()[0], "".join(traceback.format_exception(error)))

    def result(self, match_id: str, *, status: str = "failed", seconds: float = 0.0) -> MatchResult:
        """The result of a match whose task it is."""
        message, details = self.why, self.details
        return MatchResult(
            match_id=match_id, status=status, is_done=False, message=message, details=details, seconds=seconds
        )


@dataclass(frozen=True)
class ProgressMessage:
    """How far a task is, in the words of its work."""

    value: Any


@dataclass(frozen=True)
class ResultMessage(Generic[R]):
    value: R


def side_by_side(
    work: Work[T, R],
    tasks: Sequence[T],
    *,
    jobs: int,
    progress: Callable[[T, Any], None],
    ended: Callable[[T, R | Failure], None],
) -> None:
    """Do tasks in processes; returns when all have ended, one way or another.

    No pool of the standard library: there, one process that dies takes the tasks of the others with it.

    Args:
        work: does one task.
        tasks: in the order in which they begin.
        jobs: processes at a time, >= 1; each does one task after the other.
        progress: called with a task and what its work reports.
        ended: called with each task and its result, or why there is none.
    """
    left, workers = list(reversed(tasks)), list[Worker[T]]()
    try:
        while left or workers:
            while left and len(workers) < jobs:
                workers.append(Worker(work, left.pop()))
            ready = wait([worker.connection for worker in workers])
            for worker in [each for each in workers if each.connection in ready]:
                message = worker.receive()
                if isinstance(message, ProgressMessage):
                    progress(worker.task, message.value)
                    continue
                ended(worker.task, message.value if isinstance(message, ResultMessage) else message)
                if left and worker.is_alive:
                    worker.give(left.pop())
                else:
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


class Worker(Generic[T]):
    """A process and the task that it works on."""

    def __init__(self, work: Work[T, Any], task: T) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()  # so that the process's end is the end of the connection
        self.is_alive = True
        self.give(task)

    def give(self, task: T) -> None:
        """Let it do a task; `receive` then says so of a process that is dead by now."""
        self.task = task
        try:
            self.connection.send(task)
        except OSError:
            self.is_alive = False

    def receive(self) -> Any:
        """Its next message: `ProgressMessage`, `ResultMessage`, or `Failure`, which may be its death."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.is_alive = False
            self._process.join(_END_SECONDS)
            return Failure(_death(self._process.exitcode))

    def end(self) -> None:
        """Stop the process, whatever it does; another run goes on from what it last saved."""
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _death(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"its process ended with code {exit_code}"
    name = signal.Signals(-exit_code).name
    guess = ": is there too little memory? --jobs 1 needs least" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{guess}"


def _serve(connection: Connection, work: Work[Any, Any]) -> None:
    """Do tasks that come through the connection, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(value: Any) -> None:
        connection.send(ProgressMessage(value))

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            message: Any = ResultMessage(work(task, report))
        except Exception as error:  # whatever it is, other tasks go on
            message = Failure.of(error)
        connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def on_ray(
    work: Work[T, R],
    tasks: Sequence[T],
    *,
    address: str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    gpu_share: float = 1.0,
    jobs: int = 0,
    retries: int = 2,
    progress: Callable[[T, Any], None],
    ended: Callable[[T, R | Failure], None],
) -> None:
    """Do tasks on a Ray cluster, as `side_by_side` does them in processes; Ray alone decides where each runs.

    Ray gives a task whose worker or node died to another one. What a worker prepares it may keep for the next task of
    the same work: processes are used again.

    Args:
        work, tasks, progress, ended: as in `side_by_side`; reports come about twice a second.
        address: as `ray_cluster`.
        device: what a task needs; auto: a GPU where the cluster has any, else a CPU.
        gpu_share: part of a GPU per task, above 0 to 1.
        jobs: tasks at a time; 0: as many as fit.
        retries: how often a task is begun again whose worker died.

    Raises:
        InputError: the cluster cannot be used, or has nothing of the device.
    """
    if not tasks:
        return
    with ray_cluster(address) as ray:
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs = _needs(ray.cluster_resources(), device, gpu_share)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        reports.size()  # once it is there: behind the tasks it might not start until they have ended
        # Ray ends the process of a GPU task by default; max_calls=0 keeps it, and with it the loaded backbone
        remote = ray.remote(max_retries=retries, max_calls=0, **needs)(_ray_task)
        left, running = list(range(len(tasks) - 1, -1, -1)), dict[Any, T]()
        try:
            while left or running:
                while left and len(running) < (jobs or len(tasks)):
                    index = left.pop()
                    running[remote.remote(work, tasks[index], index, reports, __version__)] = tasks[index]
                ready, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                with contextlib.suppress(ray.exceptions.RayError):  # without news of it the work goes on all the same
                    for index, value in reports.get_nowait_batch(reports.size()):
                        progress(tasks[index], value)
                for ref in ready:
                    try:
                        result = ray.get(ref)
                    except ray.exceptions.RayError as error:  # its workers died, or cannot import bas
                        result = Failure(" ".join(f"{type(error).__name__}: {error}".split())[:500])
                    ended(running.pop(ref), result)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)
            with contextlib.suppress(ray.exceptions.RayError):  # it may be dead
                reports.shutdown(force=True)


def _needs(resources: Mapping[str, float], device: str, gpu_share: float) -> dict[str, float]:
    """What Ray reserves for a task. Without this look it would wait for ever for what no node has."""
    if device == "cuda" or (device == "auto" and resources.get("GPU")):
        if not resources.get("GPU"):
            cure = "--device cpu, or ray start --num-gpus on the nodes that have GPUs"
            raise InputError("no GPU in the Ray cluster", wanted="--device cuda", cure=cure)
        return {"num_gpus": gpu_share, "num_cpus": 0}
    if not resources.get("CPU"):
        cure = "ray start --address HOST:6379 --num-cpus N on a node that is to work"
        raise InputError("no CPU in the Ray cluster", got="nodes with 0 CPUs", wanted="at least 1", cure=cure)
    return {"num_cpus": 1}


def _ray_task(work: Work[T, R], task: T, index: int, reports: Any, version: str) -> R | Failure:
    """Do a task on whatever node this is."""
    reported = 0.0

    def report(value: Any) -> None:
        nonlocal reported
        if time.monotonic() - reported > _POLL_SECONDS:
            reported = time.monotonic()
            with contextlib.suppress(Exception):  # as in `on_ray`
                reports.put_nowait((index, value))

    try:
        if version != __version__:
            raise InputError(
                f"{socket.gethostname()} has another version of bas than the driver",
                got=__version__,
                wanted=version,
                cure="install the same bas and Python on every node, and start its ray from that environment",
            )
        return work(task, report)
    except Exception as error:  # whatever it is, other tasks go on; Ray is to begin again after deaths only
        return Failure.of(error)


def ray_place() -> tuple[Literal["cpu", "cuda"], int]:
    """Device of the Ray task that calls this, and how many of the node's cores it may use."""
    import ray

    if not ray.get_gpu_ids():
        return "cpu", 1
    here = ray.get_runtime_context().get_node_id()
    num_gpus = next(int(node["Resources"]["GPU"]) for node in ray.nodes() if node["NodeID"] == here)
    return "cuda", max(1, num_cores() // num_gpus)


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; one that was started for this is stopped again.

    Args:
        address: `host:port` of the cluster's head; `auto`: RAY_ADDRESS, else a cluster that runs on this machine, else
            one is started.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached or joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by default; it warns otherwise
    try:
        import ray
    except ImportError:
        cure = 'pip install "ball-action-spotting[ray]" (in a checkout: -e ".[ray]")'
        raise InputError("Ray is not installed", cure=cure) from None
    if ray.is_initialized():
        yield ray
        return
    address = ray_address_here() if address == RAY_AUTO else address
    if address != _RAY_NEW:
        _require_reachable(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the Ray cluster ({address}) cannot be used from here",
            got=" ".join(str(error).split())[:500] or type(error).__name__,
            wanted="the same Ray and Python on every node, this machine one of them, and its token",
            cure="ray start --address HOST:6379 --num-cpus 0 joins it; ray stop clears what a dead cluster has left; "
            "RAY_AUTH_MODE=token with the head's ~/.ray/auth_token where it asks for one",
        ) from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray has put its own in their place
    try:
        yield ray
    finally:
        with contextlib.redirect_stderr(io.StringIO()):  # it repeats what it said of workers that died
            ray.shutdown()


def ray_address_here() -> str:
    """The address in RAY_ADDRESS, else of a cluster that runs on this machine, else the word to start one.

    Ray's own search believes what a killed cluster has left, and tries for minutes to reach it.
    """
    if os.environ.get("RAY_ADDRESS", RAY_AUTO) != RAY_AUTO:
        return os.environ["RAY_ADDRESS"]
    record = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    try:
        address = record.read_text().strip()
        _require_reachable(address)
    except (OSError, ValueError):
        return _RAY_NEW
    return address


def _require_reachable(address: str) -> None:
    """Knock at the head first: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise InputError(
            "--ray is not usable",
            got=address,
            wanted="auto, or host:port of the cluster's head, such as 10.0.0.1:6379",
            cure="join the cluster on this machine (ray start --address HOST:6379 --num-cpus 0), then --ray auto",
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster can be reached at {address}",
            got=error,
            cure="ray start --head there, or --ray auto to start one on this machine",
        ) from error
