"""Tasks on a Ray cluster: each slot has an actor that does one task after the other; those of a lost one are redone."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from ..errors import InputError
from ..workers import Failure
from .join import AUTO, connected, make_look, wrong_versions
from .member import Member

T = TypeVar("T")
R = TypeVar("R")
Device = Literal["auto", "cpu", "cuda"]

_POLL_SECONDS = 0.5
"""Between two answers about the progress of a task."""
_START_SECONDS = 20.0
"""A slot that has not begun by then is held by other work, so others are tried as well."""
_NODES_SECONDS = 2.0
"""Between two looks for nodes that came or went."""
_ALONE_SECONDS = 60.0
"""So long a run whose last node is gone waits for another one."""
_REST_SECONDS = 3.0
"""So long times its losses a node gets no new worker after a loss."""
_MAX_DEATHS = 3
"""A slot whose actors die so often in a row, without a task done, is used no more."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster, and what of it."""

    address: str = AUTO
    """`host:port` of its head; auto: RAY_ADDRESS, else a cluster that runs on this machine, else one is started."""
    device: Device = "auto"
    """What a slot is: a GPU or a CPU; auto: GPUs where the cluster has any."""
    gpu_share: float = 1.0
    """Of a GPU per slot, above 0 to 1."""
    max_slots: int = 0
    """0: all."""
    retries: int = 2
    """So many times a task is given again whose actor was lost."""


@dataclass(frozen=True)
class Slot:
    """A GPU or a CPU of a node, with its share of the node."""

    place: str
    """`host gpu 0`; a second node of one host is `host#2`."""
    device: Literal["cpu", "cuda"]
    cores: int
    """Its share of the node's cores, >= 1."""


@dataclass(frozen=True)
class Lost(Generic[T]):
    """A task whose actor was lost."""

    task: T
    place: str
    owner: str
    """`pid 12 on host`, as in a lock file."""
    why: str
    is_redone: bool
    """Whether another actor gets it."""


@dataclass(frozen=True)
class Watch(Generic[T, R]):
    """Who hears what happens; every field but the first may be left out."""

    ended: Callable[[T, str, R | Failure], None]
    """A task, the place where it was done, and its result, or why there is none."""
    progress: Callable[[T, str, Any], None] = lambda *_: None
    """A task, its place, and the last that its work told."""
    joined: Callable[[Slot, str], None] = lambda *_: None
    """A slot is ready for tasks; what its preparation said of it."""
    lost: Callable[[Lost[T]], T] = lambda lost: lost.task
    """An actor was lost; returns what is to be done in the task's place where that is redone."""
    note: Callable[[str], None] = lambda _: None
    """What is worth knowing."""


@dataclass(frozen=True)
class Ready(Generic[T, R]):
    """An actor's preparation."""

    work: Callable[[T, Callable[[Any], None]], R]
    """Does a task, and is given a function to tell how far it is; see `workers.Work`."""
    about: str = ""
    """For people: what the slot works with."""


Prepare = Callable[[Slot], Ready[T, R]]
"""Called once in each actor before its first task: a function of a module, or a `partial` of one, as it is pickled.
An `InputError` says that the node cannot be used."""


def on_cluster(prepare: Prepare[T, R], tasks: Sequence[T], *, cluster: Cluster, watch: Watch[T, R]) -> None:
    """Do tasks on a cluster; returns when all have ended, one way or another.

    Nodes that join are used, those that leave are not missed: a task whose actor is lost is given to another one. An
    exception in a task is its result.

    Args:
        prepare: makes a slot ready.
        tasks: in the order in which they begin; pickled, as are their results.
        cluster: where.
        watch: hears how it goes.

    Raises:
        InputError: the cluster cannot be used, or a node that was there at the start says that it cannot.
    """
    if not tasks:
        return
    with connected(cluster.address) as ray:
        crew = _Crew(ray, prepare, deque(map(_Given, tasks)), cluster, watch)
        try:
            crew.work()
        finally:
            crew.end()


@dataclass
class _Given(Generic[T]):
    """A task, and how many actors were lost over it."""

    task: T
    losses: int = 0


@dataclass
class _Node:
    """A node and what is known of it."""

    id: str
    num_slots: int
    was_first: bool
    """There when the run began."""
    host: str = ""
    cores: int = 1
    is_usable: bool = False
    rests_until: float = -math.inf
    """Until then it gets no new worker: it may be gone, which Ray notices late."""
    deaths: Counter[int] = field(default_factory=Counter)
    """Slot -> actors that died there since the last task that was done."""


@dataclass
class _Actor(Generic[T]):
    handle: Any
    node: _Node
    index: int
    slot: Slot
    started: float = field(default_factory=time.monotonic)
    owner: str = ""
    is_ready: bool = False
    given: _Given[T] | None = None


class _Crew(Generic[T, R]):
    """The actors of a run. Every answer that is waited for has a function that hears it."""

    def __init__(
        self, ray: Any, prepare: Prepare[T, R], left: deque[_Given[T]], cluster: Cluster, watch: Watch[T, R]
    ) -> None:
        self._ray, self._prepare, self._left, self._cluster, self._watch = ray, prepare, left, cluster, watch
        groups = {"look": 1}
        self._class = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(Member)
        self._look = ray.remote(max_retries=0, num_cpus=0)(make_look())
        self._hears: dict[Any, Callable[[], None]] = {}
        self._nodes: dict[str, _Node] = {}
        self._actors: list[_Actor[T]] = []
        self._device: Literal["cpu", "cuda"] = "cpu"
        self._looked, self._alone_since = -math.inf, math.inf

    def work(self) -> None:
        """Until no task is left."""
        self._device = self._choose_device()
        self._meet_nodes(are_first=True)
        while self._left or any(actor.given for actor in self._actors):
            if time.monotonic() - self._looked > _NODES_SECONDS:
                self._meet_nodes(are_first=False)
            self._fill_slots()
            for actor in self._actors:
                if self._left and actor.is_ready and actor.given is None:
                    self._give(actor, self._left.popleft())
            if self._is_alone():
                return
            ready, _ = self._ray.wait(list(self._hears), timeout=_POLL_SECONDS) if self._hears else ([], [])
            if not self._hears:
                time.sleep(_POLL_SECONDS)
            for ref in ready:
                self._hears.pop(ref, lambda: None)()

    def end(self) -> None:
        """Stop every actor, whatever it does."""
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor.handle)
        self._actors.clear()

    def _choose_device(self) -> Literal["cpu", "cuda"]:
        """Raises InputError where the cluster has no slot of the kind asked for."""
        totals = Counter[str]()
        for node in self._alive():
            totals.update({name: int(node["Resources"].get(name, 0)) for name in ("GPU", "CPU")})
        wants_gpu = self._cluster.device == "cuda" or (self._cluster.device == "auto" and totals["GPU"] > 0)
        if wants_gpu and not totals["GPU"]:
            cure = "--device cpu, or ray start --num-gpus on the nodes that have GPUs"
            raise InputError(
                "no GPU in the Ray cluster", got=f"{totals['CPU']} CPUs", wanted="--device cuda", cure=cure
            )
        if not wants_gpu and not totals["CPU"]:
            cure = "ray start --address HOST:6379 --num-cpus N on a node that is to work"
            raise InputError("no CPU in the Ray cluster", got="nodes with 0 CPUs", wanted="at least 1", cure=cure)
        return "cuda" if wants_gpu else "cpu"

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _meet_nodes(self, *, are_first: bool) -> None:
        """Look at nodes that are new, forget those that left."""
        self._looked = time.monotonic()
        kind, share = ("GPU", self._cluster.gpu_share) if self._device == "cuda" else ("CPU", 1.0)
        alive = {node["NodeID"]: node for node in self._alive()}
        self._nodes = {id: node for id, node in self._nodes.items() if id in alive}
        for id in alive.keys() - self._nodes.keys():
            num_slots = int(alive[id]["Resources"].get(kind, 0) / share)
            self._nodes[id] = node = _Node(id, num_slots, are_first)
            if num_slots:
                ref = self._look.options(scheduling_strategy=self._at(node)).remote()
                self._hears[ref] = partial(self._meet, node, ref)

    def _meet(self, node: _Node, ref: Any) -> None:
        """Hear what a node is."""
        try:
            facts = self._ray.get(ref)
        except self._ray.exceptions.RayError:  # it left again
            self._nodes.pop(node.id, None)
            return
        wrong = wrong_versions(facts)
        if wrong:
            self._refuse(node, wrong)
            return
        hosts = {other.host for other in self._nodes.values()}
        names = (facts["host"] + (f"#{number}" if number > 1 else "") for number in range(1, len(hosts) + 2))
        node.host = next(name for name in names if name not in hosts)
        node.cores, node.is_usable = facts["cores"], True

    def _refuse(self, node: _Node, error: InputError) -> None:
        """A node that was there at the start must be usable; one that came later is left alone."""
        if node.was_first:
            raise error
        node.is_usable = False
        self._watch.note(f"a node that joined is not used: {error}")

    def _fill_slots(self) -> None:
        """Start actors where slots are free and tasks wait; slots that other work holds are not counted on."""
        now = time.monotonic()
        counted = sum(
            actor.given is None and (actor.is_ready or now - actor.started < _START_SECONDS) for actor in self._actors
        )
        taken = {(actor.node.id, actor.index) for actor in self._actors}
        usable = [node for node in self._nodes.values() if node.is_usable and node.rests_until < now]
        slots = sorted((index, order) for order, node in enumerate(usable) for index in range(node.num_slots))
        for index, order in slots:
            node = usable[order]
            is_full = self._cluster.max_slots and len(self._actors) >= self._cluster.max_slots
            if counted >= len(self._left) or is_full:
                return
            if (node.id, index) not in taken and node.deaths[index] < _MAX_DEATHS:
                self._start(node, index)
                counted += 1

    def _start(self, node: _Node, index: int) -> None:
        is_gpu = self._device == "cuda"
        place = f"{node.host} {'gpu' if is_gpu else 'cpu'} {index}"
        slot = Slot(place, self._device, max(1, node.cores // node.num_slots) if is_gpu else 1)
        handle = self._class.options(
            num_gpus=self._cluster.gpu_share if is_gpu else 0,
            num_cpus=0 if is_gpu else 1,
            scheduling_strategy=self._at(node),
        ).remote()
        actor = _Actor[T](handle, node, index, slot)
        self._actors.append(actor)
        self._when(actor, handle.who.remote(), partial(setattr, actor, "owner"))
        self._when(actor, handle.begin.remote(self._prepare, slot), partial(self._begun, actor))

    def _begun(self, actor: _Actor[T], about: str | Failure) -> None:
        if isinstance(about, Failure):
            self._drop(actor)
            what = about.why if not about.details else f"{about.why}\n{about.details}"
            self._refuse(actor.node, InputError(f"node {actor.node.host} cannot be used: {what}"))
            return
        actor.is_ready = True
        self._watch.joined(actor.slot, about)

    def _give(self, actor: _Actor[T], given: _Given[T]) -> None:
        actor.given = given
        self._when(actor, actor.handle.do.remote(given.task), partial(self._done, actor))
        self._ask(actor, given)

    def _ask(self, actor: _Actor[T], given: _Given[T]) -> None:
        """Ask how far it is, for as long as it is at that task."""

        def hear(value: Any) -> None:
            if actor.given is not given:
                return
            if value is not None:
                self._watch.progress(given.task, actor.slot.place, value)
            self._ask(actor, given)

        self._when(actor, actor.handle.told.options(concurrency_group="look").remote(_POLL_SECONDS), hear)

    def _done(self, actor: _Actor[T], result: R | Failure) -> None:
        assert actor.given is not None
        task, actor.given = actor.given.task, None
        actor.node.deaths.pop(actor.index, None)
        self._watch.ended(task, actor.slot.place, result)

    def _when(self, actor: _Actor[T], ref: Any, then: Callable[[Any], None]) -> None:
        """Call a function with an actor's answer, once it is there; an actor without one is lost."""

        def hear() -> None:
            try:
                value = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # what cannot be pickled
                value = Failure.of(error)
            except self._ray.exceptions.RayError as error:
                self._lose(actor, str(error))
                return
            if actor in self._actors:
                then(value)

        self._hears[ref] = hear

    def _lose(self, actor: _Actor[T], why: str) -> None:
        if actor not in self._actors:
            return
        self._drop(actor)
        actor.node.deaths[actor.index] += 1
        actor.node.rests_until = time.monotonic() + _REST_SECONDS * actor.node.deaths[actor.index]
        given, place = actor.given, actor.slot.place
        line = next((line.strip() for line in why.splitlines()[1:] if "died because" in line), why.splitlines()[0])
        if given is None:
            if any(node["NodeID"] == actor.node.id for node in self._alive()):
                self._watch.note(f"{place}: the worker was lost before it had a task: {line}")
            return
        given.losses += 1
        is_redone = given.losses <= self._cluster.retries
        given.task = self._watch.lost(Lost(given.task, place, actor.owner, line, is_redone))
        if is_redone:
            self._left.appendleft(given)
        else:
            why = f"its worker was lost {given.losses} times, at last on {place}: {line}"
            self._watch.ended(given.task, place, Failure(why))

    def _drop(self, actor: _Actor[T]) -> None:
        self._actors.remove(actor)
        with suppress(Exception):
            self._ray.kill(actor.handle)

    def _is_alone(self) -> bool:
        """Whether no node has been left for a minute: the tasks then end without a result."""
        if self._actors or self._hears:
            self._alone_since = math.inf
            return False
        self._alone_since = min(self._alone_since, time.monotonic())
        if time.monotonic() - self._alone_since < _ALONE_SECONDS:
            return False
        while self._left:
            self._watch.ended(self._left.popleft().task, "", Failure("no node of the Ray cluster is left"))
        return True

    def _at(self, node: _Node) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node.id, soft=False)
