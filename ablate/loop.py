"""`bas ablate`: recipes by seeds on one data, to one table beside what is published."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache.layout import METADATA
from ..cache.store import FeatureStore
from ..errors import InputError
from ..events import SOCCERNET_BALL_CLASSES
from ..extract.backbones.registry import backbone_spec
from ..extract.options import Device, ExtractOptions
from ..extract.options import ExtractRunOptions as ExtractRun
from ..extract.run import extract
from ..files import FileLock, disk_errors, num_cores, write_text_atomic
from ..heads.training.loop import choose_device
from ..workers import SILENT, Failure, Progress, on_ray, ray_cluster, side_by_side
from .options import AblateOptions
from .plan import Inputs, Place, Plan, make_plan, open_inputs, runs_of
from .runs import RunTask, carry_out, carry_out_alone, chance_of, judged_games, labels_sha256
from .table import TABLE, Judged, Row, Table, require_same_settings

MAX_JOBS_ON_GPU = 4
"""Small heads leave a GPU idle between kernels, so several runs share it; each holds a bank of its own there."""


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear; every field may be left out."""

    note: Callable[[str], None] = lambda _: None
    """Called with what is worth knowing before the work."""
    extracting: Callable[[Place], AbstractContextManager[Progress]] = lambda _: nullcontext(SILENT)
    """Called before every extraction; gives its progress callbacks."""
    begun: Callable[[Sequence[RunTask], int], None] = lambda *_: None
    """Called once, with the runs that are left and how many go side by side."""
    progress: Callable[[RunTask, float], None] = lambda *_: None
    """Called with the share of a run that is done, about twice a second."""
    ended: Callable[[RunTask, Judged | Failure], None] = lambda *_: None
    """Called after every run that this call worked on."""


def ablate(sources: Sequence[Path], out: Path, options: AblateOptions, report: Reporter | None = None) -> Table:
    """Train recipes on several seeds and judge them; go on where `out` holds a part of it.

    Args:
        sources: data set folders, from which missing features are extracted, and feature stores.
        out: folder for `ablation.json`, `ablation.csv`, the runs with their predictions, and the stores.
        options: all else.
        report: hears how it goes.

    Returns:
        The table; rows that failed say why.

    Raises:
        InputError: the sources cannot be used, or `out` holds something else.
    """
    report = report or Reporter()
    if options.ray is None:
        choose_device(options.device)  # what is not there is better said before hours of work
    inputs = open_inputs(sources, options)
    out = out.absolute()  # workers of a cluster have a working folder of their own
    with ray_cluster(options.ray) if options.ray else nullcontext(), _owned(out):
        board = _Board.begin(inputs, out, options)
        tasks: list[RunTask] = []
        for place in board.plan.places:
            problem = None if place.is_given else _extract_missing(place, inputs, options, report)
            if problem:
                report.note(f"{place.store}: not extracted: {problem.why}")
            tasks += board.settle(place, options, problem)
        for note in board.table.notes:
            report.note(note)

        left = [task for task in tasks if not board.enter_known(task)]
        jobs = options.jobs or (len(left) if options.ray else default_jobs(options.device, len(left)))
        report.begun(left, jobs)

        def ended(task: RunTask, result: Judged | Failure) -> None:
            board.enter(task, result)
            report.ended(task, result)

        longest_first = sorted(left, key=lambda task: -task.cost)
        if options.ray is None:
            side_by_side(carry_out_alone, longest_first, jobs=jobs, progress=report.progress, ended=ended)
        else:
            on_ray(
                carry_out_alone,
                longest_first,
                address=options.ray,
                device=options.device,
                gpu_share=1 / MAX_JOBS_ON_GPU,
                jobs=options.jobs,
                progress=report.progress,
                ended=ended,
            )
    return board.table


def default_jobs(device: Device, num_runs: int) -> int:
    """Runs side by side: one per core, a few per GPU; at least 1."""
    cores = num_cores()
    if choose_device(device).type != "cpu":
        cores = min(cores, MAX_JOBS_ON_GPU)
    return max(1, min(cores, num_runs))


def _extract_missing(place: Place, inputs: Inputs, options: AblateOptions, report: Reporter) -> Failure | None:
    """Bring the features of all matches that are needed into a store; why that failed, where it did."""
    data_set = inputs.data_set
    assert data_set is not None
    wanted = {match.id for match in data_set.matches if match.split in options.splits}
    if (place.store / METADATA).exists():
        stored = FeatureStore.open(place.store)
        if wanted <= set(stored.matches()):
            return _other_settings(stored, options)
    is_3d = backbone_spec(place.backbone).kind == "3d"
    asked = ExtractOptions(
        backbone=place.backbone,
        depth=place.depth,
        weights=options.weights_of(place.backbone),
        size=options.size,
        window=options.window if is_3d else None,
        hop=options.hop if is_3d else None,
    )
    run = ExtractRun(device=options.device, ray=options.ray)
    try:
        with report.extracting(place) as progress:
            summary = extract(data_set, place.store, asked, run, split=options.splits, progress=progress)
    except Exception as error:  # whatever it is: the rows of other backbones go on
        return Failure.of(error)
    failed = [result for result in summary.results if not result.is_done]
    if not failed:
        return None
    return Failure(f"{len(failed)} match(es) not extracted; {failed[0].match_id}: {failed[0].message}")


def _other_settings(store: FeatureStore, options: AblateOptions) -> Failure | None:
    """Why features that are there are not those asked for: somebody put them into the ablation's folder by hand."""
    made, is_3d = store.settings, backbone_spec(store.settings.backbone).kind == "3d"
    pairs: dict[str, tuple[object, object]] = {"size": (options.size, (made.width, made.height))}
    if is_3d:
        pairs |= {"window": (options.window, made.window), "hop": (options.hop, made.hop)}
    wrong = [f"{name} {got}, asked for {asked}" for name, (asked, got) in pairs.items() if asked not in (None, got)]
    return Failure(f"{store.path}: extracted with other settings: {', '.join(wrong)}") if wrong else None


class _Board:
    """The table as it grows; on the disk after every change."""

    def __init__(self, out: Path, plan: Plan, table: Table) -> None:
        self.plan = plan
        self.table = table
        self._out = out
        self._labels_sha256 = ""

    @classmethod
    def begin(cls, inputs: Inputs, out: Path, options: AblateOptions) -> "_Board":
        """The table before anything is done.

        Raises:
            InputError: `out` holds a table that was made with other settings.
        """
        plan = make_plan(inputs, out, options)
        notes = plan.notes
        if inputs.classes != SOCCERNET_BALL_CLASSES and any(entry.row.published for entry in plan.entries):
            notes += ("published figures are SoccerNet's: on other data they are no measure",)
        if options.split == "valid":
            notes += ("judged on the matches that choose epoch and peaks: the figures flatter",)
        table = Table(
            sources=tuple(map(str, inputs.paths)),
            split=options.split,
            settings=options.to_json(),
            classes=inputs.classes,
            rows=tuple(entry.row for entry in plan.entries),
            chance={},
            notes=notes,
        )
        require_same_settings(out, table)
        board = cls(out, plan, table)
        board._write()
        return board

    def settle(self, place: Place, options: AblateOptions, problem: Failure | None) -> list[RunTask]:
        """Note of features that they are there, or why they are not; the runs on them."""
        tasks = []
        if not place.is_given:
            self._keep_details(place.store, problem)
        for entry in self.plan.entries:
            if entry.place != place:
                continue
            if problem:
                self._put(entry.row.with_failure(problem.why))
                continue
            try:
                row, runs = runs_of(entry, self._out, options)
            except InputError as error:
                self._put(entry.row.with_failure(str(error)))
            else:
                self._put(row)
                tasks += runs
        if not problem:
            self._judge_alike(place, options)
        self._write()
        return tasks

    def enter_known(self, task: RunTask) -> bool:
        """Enter a run that was finished another time; False where there is work left."""
        if not task.is_trained or not task.judged.is_file():
            return False
        try:
            self.enter(task, carry_out(task))
        except InputError as error:
            self.enter(task, Failure(str(error)))
        return True

    def enter(self, task: RunTask, result: Judged | Failure) -> None:
        """Enter how a run ended."""
        row = next(row for row in self.table.rows if row.name == task.row)
        if isinstance(result, Judged):
            self._put(row.with_run(result))
        else:
            self._put(row.with_failure(result.why, seed=task.settings.seed))
        self._keep_details(task.run, result if isinstance(result, Failure) else None)
        self._write()

    def _judge_alike(self, place: Place, options: AblateOptions) -> None:
        """The chance row, from the labels of the first features; a note where others are judged by other labels."""
        store = FeatureStore.open(place.store)
        games = judged_games(store, options.split)
        sha256 = labels_sha256(games)
        if not self._labels_sha256:
            self._labels_sha256 = sha256
            self.table = replace(self.table, chance=chance_of(games, store.classes))
        elif sha256 != self._labels_sha256:
            note = f"{place.store}: judged by other matches or labels than the first, so its rows do not compare"
            self.table = replace(self.table, notes=(*self.table.notes, note))

    def _keep_details(self, place: Path, problem: Failure | None) -> None:
        """The traceback of a fault of ours, beside what it kept from being made."""
        file = place.with_name(f"{place.name}.traceback.txt")
        with disk_errors(self._out):
            if problem is not None and problem.details:
                write_text_atomic(file, problem.details)
            else:
                file.unlink(missing_ok=True)

    def _put(self, row: Row) -> None:
        rows = tuple(row if each.name == row.name else each for each in self.table.rows)
        self.table = replace(self.table, rows=rows)

    def _write(self) -> None:
        with disk_errors(self._out):
            self.table.write(self._out)


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """The ablation's folder, with nobody else at work in it."""
    lock_file = out / ".lock"
    with disk_errors(out):
        is_ours = (out / TABLE).exists() or lock_file.exists()
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not is_ours)):
            got = "a folder with other things in it" if out.is_dir() else "a file"
            raise InputError(f"{out}: not an ablation", got=got, cure="name another --out")
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock.acquire(lock_file, wait_seconds=0.0)
    if lock is None:
        raise InputError(f"{out}: in use", got=FileLock.owner(lock_file), cure="wait for it, or name another --out")
    with lock:
        yield
