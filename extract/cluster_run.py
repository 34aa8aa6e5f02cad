"""`bas extract --ray`: one task per match on a Ray cluster, longest first; the store is as of a run on one machine."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..cache.settings import FeatureSettings
from ..cache.store import FeatureStore
from ..cluster.pool import Cluster, Lost, Ready, Slot, Watch, on_cluster
from ..data.sources import DataSet, Match
from ..errors import InputError
from ..events import Split
from ..workers import Failure
from .backbones.weights import load_weights
from .extractor import Extractor
from .options import ExtractOptions, RunOptions
from .run import (
    Extraction,
    MatchResult,
    Reporter,
    RowsDone,
    Summary,
    chosen_matches,
    extract_or_explain,
    header_frames,
    open_for,
    settled,
)

_LINGER_SECONDS = 120.0
"""So long a network file system may hold the lock of a process that is gone."""
_LINGER_POLL_SECONDS = 2.0
_SEEN_SECONDS = 10.0
"""So long a network file system may hide what another node has written."""
_SAME_PLACE = "keep the store, the videos and the weights on a file system that every node mounts at the same path"


@dataclass(frozen=True)
class ClusterReporter:
    """What the command line wants to hear of a cluster; every field may be left out."""

    started: Callable[[FeatureSettings, int, int], None] = lambda *_: None
    """Called once: settings, number of matches to do, their frames as the headers say."""
    joined: Callable[[Slot, str], None] = lambda *_: None
    """A device is ready; the engine on it."""
    progress: Callable[[str, RowsDone], None] = lambda *_: None
    """A place, and how far it is with its match."""
    finished: Callable[[MatchResult], None] = lambda _: None
    """After every match."""
    lost: Callable[[str, str, str], None] = lambda *_: None
    """A match whose worker was lost, the place, and why."""
    note: Callable[[str], None] = lambda _: None
    """What is worth knowing."""


@dataclass(frozen=True)
class _Task:
    """A match with what its extraction needs."""

    match: Match
    data_set: DataSet
    """Of this match alone."""
    lost: tuple[str, ...] = ()
    """Workers that were lost over it, as in a lock file: `pid 12 on host`."""


@dataclass(frozen=True)
class _Setup:
    """What each worker makes ready, and must see as the driver does."""

    store: Path
    settings: FeatureSettings
    weights: str
    """As `load_weights` takes them."""
    run: RunOptions
    videos: tuple[tuple[Path, int], ...]
    """And their bytes."""


def extract_on_cluster(
    data_set: DataSet,
    store_path: Path,
    options: ExtractOptions,
    run: RunOptions,
    cluster: Cluster,
    *,
    split: tuple[Split, ...] = (),
    report: ClusterReporter | None = None,
) -> Summary:
    """As `extract`, with matches side by side on the nodes of a cluster, which see the same files at the same paths.

    Raises:
        InputError: nothing can be extracted with these settings, or the cluster or a node of it cannot be used. A
            match that fails is in the summary instead.
    """
    report, began = report or ClusterReporter(), time.perf_counter()
    store_path = store_path.absolute()
    matches = [_absolute(match) for match in chosen_matches(data_set, split, run)]
    weights, extractor = settled(store_path, options, run)
    store = open_for(extractor, data_set, store_path)
    board = _Board(store, run, report)
    todo = [match for match in matches if not board.enter_known(match)]
    frames = {match.id: header_frames(match) for match in todo}
    report.started(extractor.settings, len(todo), sum(frames.values()))
    todo.sort(key=lambda match: -frames[match.id])
    setup = _Setup(store_path, extractor.settings, _absolute_weights(weights), run, _sizes(todo))
    tasks = [_Task(match, _only(data_set, match)) for match in todo]
    on_cluster(partial(_prepare, setup), tasks, cluster=cluster, watch=board.watch())
    results = tuple(board.results[match.id] for match in matches)
    engine = ", ".join(sorted(board.engines)) or "none used"
    return Summary(store_path, extractor.settings, engine, results, seconds=time.perf_counter() - began)


@dataclass
class _Board:
    """Results as they come in, on the driver."""

    store: FeatureStore
    run: RunOptions
    report: ClusterReporter
    results: dict[str, MatchResult] = field(default_factory=dict)
    engines: set[str] = field(default_factory=set)
    losses: Counter[str] = field(default_factory=Counter)

    def watch(self) -> Watch[_Task, MatchResult]:
        """Who hears what happens on the cluster."""
        return Watch(
            ended=self.ended,
            progress=lambda _, place, done: self.report.progress(place, done),
            joined=self.joined,
            lost=self.lost,
            note=self.report.note,
        )

    def enter_known(self, match: Match) -> bool:
        """Enter a match that is stored already; False where there is work left."""
        if not set(self.run.views) <= set(self.store.views(match.id)):
            return False
        self._enter(MatchResult(match.id, "already there", num_rows=self.store.match(match.id).num_rows))
        return True

    def joined(self, slot: Slot, engine: str) -> None:
        """A worker is ready."""
        if self.engines and engine not in self.engines:
            others = ", ".join(sorted(self.engines))
            self.report.note(f"{slot.place} runs the engine {engine}, others {others}: the store says which made what")
        self.engines.add(engine)
        self.report.joined(slot, engine)

    def lost(self, lost: Lost[_Task]) -> _Task:
        """The match goes to another worker, which knows whose lock may linger."""
        self.losses[lost.task.match.id] += 1
        self.report.lost(lost.task.match.id, lost.place, lost.why)
        return replace(lost.task, lost=(*lost.task.lost, lost.owner))

    def ended(self, task: _Task, place: str, result: MatchResult | Failure) -> None:
        """A match has ended; what is stored must be seen from here."""
        match_id = task.match.id
        if isinstance(result, Failure):
            result = MatchResult(match_id, "failed", message=f"{result.why}\n{result.details}".strip())
        elif result.is_stored and not self._is_seen(match_id):
            message = f"{place} has stored it, and here it is not to be seen: {self.store.path} is another folder there"
            result = MatchResult(match_id, "failed", message=f"{message}\n  cure:   {_SAME_PLACE}")
        self._enter(replace(result, place=place, retries=self.losses[match_id]))

    def _enter(self, result: MatchResult) -> None:
        self.results[result.match_id] = result
        self.report.finished(result)

    def _is_seen(self, match_id: str) -> bool:
        deadline = time.monotonic() + _SEEN_SECONDS
        while not set(self.run.views) <= set(FeatureStore.open(self.store.path).views(match_id)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def _prepare(setup: _Setup, slot: Slot) -> Ready[_Task, MatchResult]:
    """On a worker, once: see what the driver sees, load the same weights, make the engine."""
    _require_same_files(setup)
    settings = setup.settings
    module, record = load_weights(settings.backbone, settings.depth, setup.weights)
    if record.weights_sha256 != settings.weights_sha256:
        raise InputError(
            f"{setup.weights}: other weights than on the driver",
            got=f"tensors SHA-256 {record.weights_sha256[:12]}...",
            wanted=f"{settings.weights_sha256[:12]}...",
            cure=_SAME_PLACE,
        )
    run = replace(setup.run, device=slot.device, decode_threads=setup.run.decode_threads or slot.cores)
    extractor = Extractor(module, settings, run.engine, run.device)
    store = FeatureStore.open(setup.store)
    engine = extractor.engine().name
    return Ready(_Worker(Extraction(_NOTHING, store, extractor, run, Reporter())), engine)


_NOTHING = DataSet(Path(), (), (), (), {})


@dataclass
class _Worker:
    """Extracts one match after the other."""

    shared: Extraction

    def __call__(self, task: _Task, tell: Callable[[RowsDone], None]) -> MatchResult:
        """One match; the lock of a worker that is gone is waited for."""
        self.shared.data_set, self.shared.report = task.data_set, Reporter(progress=tell)
        deadline = time.monotonic() + _LINGER_SECONDS
        while True:
            result = extract_or_explain(self.shared, task.match)
            is_lingering = result.status == "busy elsewhere" and any(owner in result.message for owner in task.lost)
            if not is_lingering or time.monotonic() > deadline:
                return result
            time.sleep(_LINGER_POLL_SECONDS)


def _require_same_files(setup: _Setup) -> None:
    """Raises InputError where this node sees other files than the driver."""
    try:
        key = FeatureStore.open(setup.store).settings.key()
    except InputError as error:
        raise InputError(
            f"{setup.store}: not the store that the driver sees", got=error.what, cure=_SAME_PLACE
        ) from error
    if key != setup.settings.key():
        raise InputError(f"{setup.store}: a store of other settings than the driver sees", cure=_SAME_PLACE)
    for path, num_bytes in setup.videos:
        seen = path.stat().st_size if path.is_file() else None
        if seen != num_bytes:
            got = "no such file" if seen is None else f"{seen} bytes"
            raise InputError(
                f"{path}: not as the driver sees it", got=got, wanted=f"{num_bytes} bytes", cure=_SAME_PLACE
            )


def _sizes(matches: Sequence[Match]) -> tuple[tuple[Path, int], ...]:
    """Videos that are there; of the others their extraction says why not."""
    paths = [match.video for match in matches if match.video is not None and match.video.is_file()]
    return tuple((path, path.stat().st_size) for path in paths)


def _only(data_set: DataSet, match: Match) -> DataSet:
    """The data set with one match: little to send."""
    labels = {path: file for path, file in data_set.label_files.items() if path == match.labels}
    return replace(data_set, matches=(match,), findings=(), label_files=labels)


def _absolute(match: Match) -> Match:
    """Workers have a working folder of their own."""
    return replace(match, video=match.video and match.video.absolute())


def _absolute_weights(weights: str) -> str:
    return str(Path(weights).absolute()) if Path(weights).exists() else weights
