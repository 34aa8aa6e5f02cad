"""One running `bas label`: matches with their documents, features that are made meanwhile, heads that learn.

Everything here may be called from any thread; what takes long runs in processes of its own.
"""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.layout import METADATA
from ..cache.store import FeatureStore
from ..data.annotations import Annotation, by_video, read_annotations
from ..data.folders import LABELS_NAME, labels_beside
from ..data.settings import ProxySettings
from ..data.sources import DataSet, Match, find_sources
from ..errors import InputError
from ..extract.options import ExtractOptions, ExtractRunOptions
from ..extract.video.demux import file_stamp, read_index
from ..extract.video.reader import VideoInfo, probe_video
from ..files import cache_folder, disk_errors, write_text_atomic
from ..workers import Failure, Progress, ProgressMessage, ResultMessage, Worker
from .document import Document, is_class_name, opened
from .learn import LEAST_SPOTS, LearnTask, Marked, Proposals, Tell, learn, learning_curve, propose_by_runs
from .options import LabelOptions

_WRITE_SECONDS = 0.5
_PLAYABLE = {".mp4": {"h264", "av1", "vp9"}, ".m4v": {"h264"}, ".mov": {"h264"}, ".webm": {"vp8", "vp9", "av1"}}
"""Container -> codecs that browsers play."""
_COPY_SIZE = (1280, 720)
_MOST_NOTES = 50


@dataclass
class LabelMatch:
    """A match that is labelled."""

    match: Match
    document: Document
    info: VideoInfo | None
    problem: str
    """Why its video cannot be read; empty where it can."""
    copy: Path | None = None
    """A copy that browsers play, with the same times."""

    @property
    def half(self) -> int:
        """Of its spots in the label file."""
        return self.match.half or 1

    @property
    def video(self) -> Path | None:
        """The file that the browser is to play."""
        if self.copy is not None:
            return self.copy
        return self.match.video if self.info and not self.cannot_play else None

    @property
    def cannot_play(self) -> str:
        """Why browsers do not play the video; empty where they do."""
        if self.problem or self.info is None or self.match.video is None:
            return self.problem or "no video"
        if self.info.codec not in _PLAYABLE.get(self.match.video.suffix.lower(), set()):
            return f"browsers do not play {self.info.codec} in {self.match.video.suffix.lower() or 'this file'}"
        if self.info.codec == "h264" and self.info.pixel_format not in ("yuv420p", "yuvj420p"):
            return f"browsers do not play h264 in {self.info.pixel_format}"
        return ""

    def ms_of(self, annotation: Annotation) -> int:
        """Where an annotation is, in whole milliseconds.

        Raises:
            InputError: in a frame that the video does not have.
        """
        if annotation.ms is not None:
            return annotation.ms
        frame, times = annotation.frame or 0, self.frame_ms
        if frame >= len(times):
            raise InputError(f"{self.match.id}: no frame {frame}", got=f"{len(times)} frames", wanted="its own video")
        return round(float(times[frame]))

    @functools.cached_property
    def frame_ms(self) -> np.ndarray[Any, Any]:
        """(frames,) float64: when each frame of the video is shown. Empty where it cannot be read."""
        if self.match.video is None or self.info is None:
            return np.zeros(0)
        table = read_index(self.match.video).table
        return (table.pts_ticks - table.origin_ticks).astype(np.float64) * float(1000 * table.time_base)


@dataclass
class Job:
    """How far one of the jobs is that run in processes of their own: training, learning curve, extraction, a copy."""

    state: str = "idle"
    """idle, running or failed."""
    words: str = ""
    done: float = 0.0
    """0 to 1."""
    about: dict[str, Any] = field(default_factory=dict)
    """What the last one that ended well was made from."""

    def begin(self, words: str) -> None:
        """Note that it runs."""
        self.state, self.words, self.done = "running", words, 0.0


class Session:
    """What is labelled, what is learned from it, and the processes that work for it. See `opened_session`."""

    def __init__(
        self,
        data_set: DataSet,
        matches: Sequence[LabelMatch],
        store: Path,
        classes: Sequence[str],
        options: LabelOptions,
        runs: Sequence[Path],
    ) -> None:
        self.data_set, self.matches, self.store_path = data_set, list(matches), store
        self.classes, self.person, self.train_after = list(classes), options.person, options.train_after
        self.notes: list[str] = []
        self.on_note: Callable[[str], None] = lambda _: None
        """Hears of each note, too."""
        self.training, self.curve, self.extraction, self.copying = Job(), Job(), Job(), Job()
        self.copied = -1
        """Match that is copied, or was last."""
        self.points: list[dict[str, float]] = []
        self.version = 0
        """Of the proposals: how often training has ended well."""
        self.proposals: dict[str, Proposals] = {}
        self._lock = threading.RLock()
        self._changes, self._runs = 0, tuple(runs)
        self._learned_classes: tuple[str, ...] = ()
        """Of the task that the learner works on."""
        self._learner, self._extractor, self._copier = _Process(), _Process(), _Process()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    # ---- what is marked

    def change(self, number: int, changes: Sequence[Mapping[str, Any]]) -> int:
        """Make changes in a match; `seq` when they are on the disk. Raises as `Document.change`."""
        match = self.matches[number]
        for each in changes:
            label = (each.get("after") or {}).get("label") if isinstance(each, Mapping) else None
            if label is not None and label not in self.classes:
                raise InputError(
                    "no such class", got=label, wanted=", ".join(self.classes), cure="add it to the classes"
                )
        seq = match.document.change(changes, by=self.person, half=match.half)
        self._count(len(changes))
        return seq

    def undo(self, number: int, *, redo: bool) -> tuple[int, list[dict[str, Any]]]:
        """Undo or redo the person's last change in the label file of a match."""
        match = self.matches[number]
        changes = match.document.undo(by=self.person, half=match.half, redo=redo)
        self._count(len(changes))
        return match.document.seq, changes

    def _count(self, number: int) -> None:
        with self._lock:
            self._changes += number
            is_due = self.train_after and self._changes >= self.train_after and not self._is_learning
        if is_due:
            with contextlib.suppress(InputError):  # the change is made, whatever comes of this
                self.train()

    def set_classes(self, classes: Sequence[str]) -> None:
        """Another list of classes: more, or in another order.

        Raises:
            InputError: a name that cannot be one, or a class with spots is missing.
        """
        if not classes or len(set(classes)) < len(classes) or not all(map(is_class_name, classes)):
            raise InputError(
                "the class list is not usable", got=repr(classes)[:200], wanted="different names, as SERVE,SMASH"
            )
        used = set().union(*(match.document.labels() for match in self.matches))
        if missing := sorted(used - set(classes)):
            raise InputError(
                "a class with spots cannot go", got=", ".join(missing), cure="delete or change its spots first"
            )
        with self._lock:
            self.classes = list(classes)
            self.proposals.clear()  # class numbers are others now
        self._write_classes()

    def rename_class(self, old: str, new: str) -> None:
        """Another name for a class, and for its spots in every match.

        Raises:
            InputError: no such class, or the new name cannot be one.
        """
        if old not in self.classes or not is_class_name(new) or new in self.classes:
            raise InputError(
                "class cannot be renamed", got=f"{old!r} to {new!r}", wanted="a class, and a name that is free"
            )
        for document in {match.document for match in self.matches}:  # two halves share one
            document.rename(old, new, by=self.person)
        with self._lock:
            self.classes[self.classes.index(old)] = new
        self._write_classes()

    def _write_classes(self) -> None:
        """The class lists beside the videos, so that every other command knows the same classes in the same order."""
        for path in self.data_set.class_files:
            with disk_errors(path):
                write_text_atomic(path, "".join(f"{name}\n" for name in self.classes))

    def take_in(self, path: Path) -> list[str]:
        """Add the spots of a file that another program wrote, as one change per match; what came of it, in words.

        Raises:
            InputError: the file is not usable, or none of its spots is about a video here.
        """
        name, annotations = read_annotations(path)
        said, num_taken = [], 0
        of_videos = by_video(path, annotations, [match.match.require_video() for match in self.matches])
        for number, (match, found) in enumerate(zip(self.matches, of_videos, strict=True)):
            if new := [each.label for each in found if each.label not in self.classes]:
                self.set_classes([*self.classes, *dict.fromkeys(new)])
            have = {(item["ms"], item["label"]) for item in match.document.of_kind("spot", half=match.half)}
            spots = sorted({(match.ms_of(each), each.label) for each in found} - have)
            made = []
            for ms, label in spots:
                # the same id for the same spot: one that was moved or deleted since an earlier import stays so
                digest = hashlib.sha256(f"{match.half} {ms} {label}".encode()).hexdigest()
                if (identity := f"import-{digest[:32]}") not in match.document.known_ids:
                    after = {"kind": "spot", "ms": ms, "label": label}
                    made.append({"id": identity, "before": None, "after": after})
            if made:
                self.change(number, made)
            num_taken += len(found)
            said += [f"{match.match.id}: {len(made)} new spot(s) from {path} ({name})"] if found else []
        if not annotations:
            said.append(f"{path}: no spot in it")
        if annotations and not num_taken:
            raise InputError(
                f"{path}: about none of these videos",
                got=", ".join(sorted({each.video for each in annotations})[:4]) or "no video named",
                wanted=", ".join(match.match.require_video().name for match in self.matches[:4]),
            )
        return said

    # ---- learning

    def cannot_train(self) -> str:
        """Why training cannot begin; empty where it can."""
        stored = self._stored()
        if not stored:
            return "no features yet: they are being made" if self.extraction.state == "running" else "no features"
        spots = sum(len(match.document.of_kind("spot", half=match.half)) for match in self._with_rows(stored))
        return (
            "" if spots >= LEAST_SPOTS else f"{spots} spots are marked in matches with features: {LEAST_SPOTS} at least"
        )

    @property
    def _is_learning(self) -> bool:
        return "running" in (self.training.state, self.curve.state)

    def train(self, *, first: int = 0) -> None:
        """Begin to train; proposals of match `first` come first.

        Raises:
            InputError: it runs already, or too little is marked.
        """
        with self._lock:
            self._begin(self.training, "training")
            self._changes = 0
        self._learn(learn, first, self.training, self._trained)

    def propose_by_runs(self) -> None:
        """Begin with what finished runs propose, for the matches whose features are there."""
        if self._runs and self._with_rows(self._stored()) and not self._is_learning:
            self.training.begin("loading the run")
            self._learn(propose_by_runs, 0, self.training, self._trained)

    def measure_curve(self) -> None:
        """Begin to measure the learning curve. Raises as `train`."""

        def measured(points: Any) -> None:
            self.points = points

        self._begin(self.curve, "learning curve")
        self._learn(learning_curve, 0, self.curve, measured)

    def _begin(self, job: Job, words: str) -> None:
        if why := self.cannot_train():
            raise InputError("nothing to learn from yet", got=why)
        with self._lock:  # two windows may ask at once
            if self._is_learning:
                raise InputError("is learning already", cure="wait until it has ended")
            job.begin(words)

    def _learn(self, function: Callable[..., Any], first: int, job: Job, ended: Callable[[Any], None]) -> None:
        task = self._task(first)
        self._learned_classes = task.classes
        self._spawn(self._learner, (function, task), job, ended)

    def _task(self, first: int) -> LearnTask:
        matches = self._with_rows(self._stored())
        matches.sort(key=lambda match: match is not self.matches[first])
        index = {name: number for number, name in enumerate(self.classes)}

        def marked(match: LabelMatch) -> Marked:
            spots, rejects, stretches = (
                match.document.of_kind(kind, half=match.half) for kind in ("spot", "reject", "stretch")
            )
            return Marked(
                match.match.id,
                tuple((item["ms"], index[item["label"]]) for item in spots if item["label"] in index),
                tuple((item["from_ms"], item["to_ms"]) for item in stretches),
                tuple((item["ms"], index[item["label"]]) for item in rejects if item["label"] in index),
            )

        return LearnTask(self.store_path, tuple(self.classes), tuple(map(marked, matches)), runs=self._runs)

    def _heard(self, job: Job, value: Any) -> None:
        kind, what = value
        with self._lock:
            if kind == "done":
                job.done, job.words = what
            elif kind == "note":
                self._note(what)
            elif tuple(self.classes) == self._learned_classes:  # else its class numbers mean others by now
                self.proposals[what.match_id] = what

    def _trained(self, about: Any) -> None:
        self.version += 1
        self.training.about = about

    # ---- features and copies

    def begin_extraction(self) -> None:
        """Make the features that are missing, in a process of its own."""
        stored = self._stored()
        wanted = [match.match for match in self.matches if match.match.id not in stored and match.info is not None]
        if not wanted:
            return
        self.extraction.begin("loading the backbone")
        # without labels: those that are marked come into the store with bas extract, when they are ready
        bare = replace(self.data_set, classes=(), matches=tuple(replace(match, labels=None) for match in wanted))
        self._spawn(self._extractor, (_extract, (bare, self.store_path)), self.extraction, self._extracted)

    def _extracted(self, problems: Any) -> None:
        for each in problems:
            self._note(each)
        if "spots" not in self.training.about:  # nothing has been learned here yet
            self.propose_by_runs()

    def begin_copy(self, number: int) -> None:
        """Make a copy of a match's video that browsers play.

        Raises:
            InputError: one is being made, or there is no video.
        """
        match = self.matches[number]
        if match.info is None:
            raise InputError("no copy can be made", got=match.problem)
        with self._lock:
            if self.copying.state == "running":
                raise InputError("a copy is being made already", cure="wait until it is done")
            self.copying.begin("copying")
            self.copied = number
        source = match.match.require_video()
        target = copy_place(source)

        def ended(_: Any) -> None:
            match.copy = target

        self._spawn(self._copier, (_copy, (source, target)), self.copying, ended)

    def _spawn(self, process: "_Process", task: Any, job: Job, ended: Callable[[Any], None]) -> None:
        """Do a task in a process, in a thread that listens to it."""

        def run() -> None:
            try:
                outcome = process.do(task, lambda value: self._heard(job, value))
                if isinstance(outcome, Failure):
                    job.state, job.words = "failed", outcome.why
                    self._note(outcome.why)
                else:
                    ended(outcome)
                    job.state, job.words, job.done = "idle", "", 1.0
            except Exception as error:  # whatever it is, labelling goes on, and the person is told
                job.state, job.words = "failed", str(error)
                self._note(str(error))

        self._start(run)

    def _start(self, function: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=function, daemon=True))
        self._threads[-1].start()

    # ---- the session

    def news(self, number: int, since: int) -> dict[str, Any]:
        """What a window asks for once a second."""
        match, why = self.matches[number], self.cannot_train()
        made, copied = self.extraction, self.copying
        with self._lock:
            return {
                "seq": match.document.seq,
                "changes": match.document.changes_since(since, half=match.half),
                "classes": list(self.classes),
                "notes": list(self.notes),
                "extract": {"done": made.done, "total": 1, "words": made.words} if made.state == "running" else None,
                "can_train": why,
                "train": {**asdict(self.training), "version": self.version},
                "curve": {"state": self.curve.state, "words": self.curve.words, "points": self.points},
                "copy": {"match": self.copied, "done": copied.done} if copied.state == "running" else None,
                "train_after": self.train_after,
            }

    def run_writer(self) -> None:
        """Begin to write label files half a second after each change, and to look at whether others change them."""
        self._start(self._write_now_and_then)

    def _write_now_and_then(self) -> None:
        said: dict[Path, str] = {}
        while not self._stopping.wait(_WRITE_SECONDS):
            for match in self.matches:
                path = match.document.path
                try:
                    match.document.write_file()
                    said.pop(path, None)
                    self._take_over_classes(match)
                except InputError as error:  # the journal has everything; it is tried again
                    if said.get(path) != str(error):
                        said[path] = str(error)
                        self._note(str(error))

    def _take_over_classes(self, match: LabelMatch) -> None:
        """A class that another program wrote into the label file is one of ours from then on."""
        for text in match.document.notes:
            self._note(text)
        match.document.notes.clear()
        if new := sorted(match.document.labels() - set(self.classes)):
            self.set_classes([*self.classes, *new])
            self._note(f"new in {match.document.path.name}: {', '.join(new)}")

    def close(self) -> None:
        """End processes and threads; documents are closed by who opened them."""
        self._stopping.set()
        # before the threads: they wait for what the processes say
        for process in (self._learner, self._extractor, self._copier):
            process.end()
        for thread in self._threads:
            thread.join(timeout=2)

    def _note(self, text: str) -> None:
        self.on_note(text)
        with self._lock:
            self.notes.append(text)
            del self.notes[:-_MOST_NOTES]

    def _stored(self) -> set[str]:
        if not (self.store_path / METADATA).exists():
            return set()
        return set(FeatureStore.open(self.store_path).matches())

    def _with_rows(self, stored: set[str]) -> list[LabelMatch]:
        return [match for match in self.matches if match.match.id in stored]


@contextlib.contextmanager
def opened_session(
    sources: Sequence[Path], store: Path, options: LabelOptions, runs: Sequence[Path] = ()
) -> Iterator[Session]:
    """A session over videos and data sets; ended with the block, with every label file written.

    Args:
        sources: video files and data set folders.
        store: of their features; made, or added to, in the background.
        options: all else.
        runs: finished runs whose proposals are there to begin with.

    Raises:
        InputError: nothing to label, no classes, or a label file that another process holds.
    """
    data_set = find_sources(sources)
    data_set.raise_errors()
    matches = [match for match in data_set.matches if match.video is not None]
    if not matches:
        raise InputError(
            "no video to label", got=", ".join(map(str, sources)), wanted="video files or data set folders"
        )
    of_runs: list[str] = []
    if runs:
        from ..heads.training.checkpoint import RunRecord  # with it comes torch

        of_runs = [label for run in runs for label, _ in RunRecord.read(run).labels]
    classes = _classes(data_set, (*options.classes, *of_runs))
    paths = {match.id: _label_file(match, options) for match in matches}
    with opened(list(paths.values())) as documents:
        labelled = [_label_match(match, documents[paths[match.id]]) for match in matches]
        session = Session(data_set, labelled, store, classes, options, runs)
        if tuple(classes) != data_set.classes:
            session.set_classes(classes)
        if not options.own_file:  # labels that another program wrote in a format of its own are there to begin with
            for path in dict.fromkeys(match.labels for match in matches if match.labels is not None):
                if not path.name.endswith(LABELS_NAME):
                    session.take_in(path)
        session.run_writer()
        session.propose_by_runs()
        session.begin_extraction()
        try:
            yield session
        finally:
            session.close()


def _classes(data_set: DataSet, asked: Sequence[str]) -> list[str]:
    """The classes of the labels, then those that were asked for."""
    classes = list(dict.fromkeys((*data_set.classes, *asked)))
    bad = [name for name in classes if not is_class_name(name)]
    if bad or not classes:
        raise InputError(
            "no class to mark" if not classes else "a class name is not usable",
            got=", ".join(map(repr, bad)) or "no labels and no --classes",
            wanted="names of what is to be marked",
            cure="--classes SERVE,SMASH",
        )
    return classes


def _label_file(match: Match, options: LabelOptions) -> Path:
    own = match.labels if match.labels is not None and match.labels.name.endswith(LABELS_NAME) else None
    shared = own or labels_beside(match.require_video())
    if not options.own_file:
        return shared
    return shared.with_name(f"{shared.name.removesuffix('.json')}.{options.person}.json")


def _label_match(match: Match, document: Document) -> LabelMatch:
    video = match.require_video()
    try:
        info = probe_video(video)
    except InputError as error:
        return LabelMatch(match, document, None, str(error))
    return LabelMatch(match, document, info, "", copy if (copy := copy_place(video)).is_file() else None)


def copy_place(source: Path) -> Path:
    """Where the playable copy of a video lies: in bas's own folder, under the file's place, size and time."""
    key = hashlib.sha256(repr((str(source.resolve()), file_stamp(source))).encode()).hexdigest()[:20]
    return cache_folder() / "copies" / f"{key}.mp4"


def _extract(task: tuple[DataSet, Path], tell: Tell) -> list[str]:
    """Extract all matches of a data set into a store, in a process; what went wrong with single matches."""
    from ..extract.run import extract_matches, settled

    (data_set, store), run, options = task, ExtractRunOptions(), ExtractOptions()
    is_new = not (store / METADATA).exists()
    try:
        _, extractor = settled(store, options, run)
    except InputError as error:
        if not is_new:
            raise
        why = f"pretrained weights cannot be had ({error.what})"
        tell(("note", f"{why}: random ones are used, from which little is learned"))
        _, extractor = settled(store, ExtractOptions(weights="none"), run)
    tell(("note", f"features by {extractor.settings.backbone}, {extractor.engine().name}"))
    begun = set[str]()

    def advanced(match_id: str, done: float, total: float, _words: str) -> None:
        begun.add(match_id)
        share = (len(begun) - 1 + done / max(total, 1)) / len(data_set.matches)
        tell(("done", (share, f"features of {match_id}: {done:,.0f} of {total:,.0f} frames")))

    progress = Progress(advanced=advanced)
    summary = extract_matches(extractor, data_set, data_set.matches, store, run, progress=progress)
    return [f"{result.match_id}: {result.message}" for result in summary.results if not result.is_done]


def _copy(task: tuple[Path, Path], tell: Tell) -> None:
    """Make a playable copy in a process."""
    from ..data.proxy import copy_video

    settings = ProxySettings(size=_COPY_SIZE, max_bad_share=1.0)
    copy_video(*task, settings, lambda share: tell(("done", (share, "copying"))))


def _do(task: tuple[Callable[[Any, Tell], Any], Any], tell: Tell) -> Any:
    """What a process does: calls a function of a module (which can be pickled) with its task."""
    function, argument = task
    return function(argument, tell)


class _Process:
    """A process that is kept for the next task, as loading PyTorch takes longer than training."""

    def __init__(self) -> None:
        self._worker: Worker[Any] | None = None

    def do(self, task: Any, heard: Callable[[Any], None]) -> Any:
        """Its result, or a `Failure`; `heard` is called with what it reports."""
        worker = self._worker
        if worker is not None and worker.is_alive:
            worker.give(task)
        if worker is None or not worker.is_alive:  # asked again, as `give` finds out that it has died
            worker = self._worker = Worker(_do, task)
        while True:
            message = worker.receive()
            if isinstance(message, ProgressMessage):
                heard(message.value)
            else:
                return message.value if isinstance(message, ResultMessage) else message

    def end(self) -> None:
        """Stop it, whatever it does."""
        if self._worker is not None:
            self._worker.end()
