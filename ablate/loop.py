"""`bas ablate`: recipes by seeds on one data, to one table beside what is published."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from ..cache.layout import METADATA
from ..cache.store import FeatureStore
from ..errors import InputError
from ..events import SOCCERNET_BALL_CLASSES
from ..extract.backbones.registry import backbone_spec
from ..extract.options import Device, ExtractOptions, ExtractRunOptions
from ..extract.run import extract
from ..files import disk_errors, num_cores, write_text_atomic
from ..finetune.devices import Devices
from ..finetune.loop import finetune
from ..finetune.start import Start
from ..heads.recipes import RECIPES
from ..heads.training.checkpoint import RunRecord
from ..heads.training.loop import EpochProgress, TrainingProgress, choose_device, locked_folder
from ..heads.training.settings import FinetuneSettings
from ..workers import SILENT, Failure, Progress, on_ray, ray_cluster, side_by_side
from .options import AblateOptions
from .plan import AblationSources, BackboneStore, make_plan, open_sources, runs_of
from .runs import RunTask, chance_scores, labelled_games, labels_sha256, run_folder, run_seed, run_seed_single_threaded
from .table import TABLE, AblationTable, Row, SeedRun, require_same_settings

MAX_JOBS_ON_GPU = 4
"""Small heads leave a GPU idle between kernels, so several runs share it; each holds a bank of its own there."""
_NUM_SHOWN = 4
ProgressView = Callable[..., AbstractContextManager[Progress]]
"""Called with what is done (`extracting`) and `unit=`; entered, it gives the progress callbacks."""


def ablate(
    sources: Sequence[Path],
    out: Path,
    options: AblateOptions,
    progress_view: ProgressView = lambda *_, **__: nullcontext(SILENT),
) -> AblationTable:
    """Train recipes on several seeds and evaluate them; go on where `out` holds a part of it.

    Args:
        sources: data set folders, from which missing features are extracted, and feature stores.
        out: folder for `ablation.json`, `ablation.csv`, the runs with their predictions, and the stores.
        options: all else.
        progress_view: makes the progress callbacks of each extraction, and those of all trainings together.

    Returns:
        The table; rows that failed say why.

    Raises:
        InputError: the sources cannot be used, or `out` holds something else.
    """
    if options.ray is None:
        choose_device(options.device)  # a device that is not there is better named before hours of work
    inputs = open_sources(sources, options)
    out = out.absolute()  # workers of a cluster have a working folder of their own
    locked = locked_folder(out, record=TABLE, holds="an ablation")
    with ray_cluster(options.ray) if options.ray else nullcontext(), locked:
        writer = TableWriter(inputs, out, options)
        tasks: list[RunTask] = []
        for store in writer.plan.stores:
            problem = _finetune(store, inputs, out, options, progress_view) if store.finetuned_by else None
            if not store.is_given and problem is None:
                problem = _extract_missing(store, inputs, out, options, progress_view)
            tasks += writer.add_features(store, problem)
        left = [task for task in tasks if not writer.add_finished(task)]
        with progress_view("training", unit="%") as progress:
            for note in writer.table.notes:
                progress.note(f"note: {note}")
            if left:
                _train(left, writer, options, progress)
    return writer.table


def _train(tasks: Sequence[RunTask], writer: "TableWriter", options: AblateOptions, progress: Progress) -> None:
    """Train and evaluate the runs side by side; each goes into the table as it ends."""
    jobs = options.jobs or (len(tasks) if options.ray else default_jobs(options.device, len(tasks)))
    progress.note(f"{len(tasks)} run{'s' if len(tasks) > 1 else ''}, {jobs} side by side")
    total = sum(task.cost for task in tasks)
    shares: dict[str, float] = {}  # of the runs that have begun; 1 where training has ended
    num_ended = 0

    def advanced(task: RunTask, share: float) -> None:
        shares[task.run.name] = share
        done = sum(task.cost * shares.get(task.run.name, 0.0) for task in tasks) / total
        under_way = [f"{name} {share:.0%}" for name, share in shares.items() if share < 1]
        progress.advanced("", 100 * done, 100.0, ", ".join(under_way[:_NUM_SHOWN]))

    def ended(task: RunTask, result: SeedRun | Failure) -> None:
        nonlocal num_ended
        num_ended += 1
        writer.add_run(task, result)
        if isinstance(result, Failure):
            text = f"failed: {result.why}"
        else:
            means = [f"{name} {100 * (score['value'] or 0.0):.1f}" for name, score in result.means.items()]
            text = f"{', '.join(means)}, trained in {result.seconds:,.1f} s"
        progress.note(f"{num_ended}/{len(tasks)} {task.run.name}: {text}")
        advanced(task, 1.0)

    longest_first = sorted(tasks, key=lambda task: -task.cost)
    if options.ray is None:
        side_by_side(run_seed_single_threaded, longest_first, jobs=jobs, progress=advanced, ended=ended)
    else:
        on_ray(
            run_seed_single_threaded,
            longest_first,
            address=options.ray,
            device=options.device,
            gpu_share=1 / MAX_JOBS_ON_GPU,
            jobs=options.jobs,
            progress=advanced,
            ended=ended,
        )


def default_jobs(device: Device, num_runs: int) -> int:
    """Runs side by side: one per core, a few per GPU; at least 1."""
    cores = num_cores()
    if choose_device(device).type != "cpu":
        cores = min(cores, MAX_JOBS_ON_GPU)
    return max(1, min(cores, num_runs))


def _finetune(
    store: BackboneStore, inputs: AblationSources, out: Path, options: AblateOptions, progress_view: ProgressView
) -> Failure | None:
    """Finetune the backbone that is to extract a store, or go on with it; why that failed, where it did."""
    assert inputs.data_set is not None
    assert store.finetuned_by is not None
    recipe, seed = store.finetuned_by
    run = run_folder(out, recipe, seed)
    settings = FinetuneSettings.of(options.settings_of(recipe), seed=seed, **RECIPES[recipe].finetuning)
    asked = ExtractOptions(
        backbone=store.backbone,
        depth=store.depth,
        weights=options.weights_of(store.backbone),
        size=options.size or RECIPES[recipe].size,
    )

    with progress_view("finetuning", unit="steps") as progress:
        progress.note(f"finetuning {run}")

        def advanced(now: EpochProgress) -> None:
            done, words = (now.epoch - 1) * now.num_steps + now.step, f"epoch {now.epoch}/{now.epochs}"
            progress.advanced("", done, now.epochs * now.num_steps, f"{words}, loss {now.loss:.4f}")

        try:
            finetune(
                inputs.data_set,
                run,
                settings,
                Start.of(settings, asked, None),
                classes=inputs.classes,
                devices=Devices(place=options.device),
                progress=TrainingProgress(advanced=advanced),
            )
        except Exception as error:  # whatever it is: other rows go on
            failure = Failure.of(error)
            progress.note(f"{run}: not finetuned: {failure.why}")
            return failure
    return None


def _extract_missing(
    store: BackboneStore, inputs: AblationSources, out: Path, options: AblateOptions, progress_view: ProgressView
) -> Failure | None:
    """Bring the features of all matches that are needed into a store; why that failed, where it did."""
    data_set = inputs.data_set
    assert data_set is not None
    wanted = {match.id for match in data_set.matches if match.split in options.splits}
    if (store.path / METADATA).exists():
        stored = FeatureStore.open(store.path)
        if wanted <= set(stored.matches()):
            return _other_settings(stored, options)
    is_3d = backbone_spec(store.backbone).kind == "3d"
    hop = options.hop if is_3d else None
    if store.finetuned_by is not None:  # all else is bound by the run
        asked = ExtractOptions(weights=str(run_folder(out, *store.finetuned_by)), hop=hop)
    else:
        asked = ExtractOptions(
            backbone=store.backbone,
            depth=store.depth,
            weights=options.weights_of(store.backbone),
            size=options.size,
            window=options.window if is_3d else None,
            hop=hop,
        )
    run = ExtractRunOptions(device=options.device, ray=options.ray)
    with progress_view("extracting") as progress:
        progress.note(f"extracting {store.path}")
        try:
            summary = extract(data_set, store.path, asked, run, split=options.splits, progress=progress)
        except Exception as error:  # whatever it is: the rows of other backbones go on
            failure = Failure.of(error)
            progress.note(f"{store.path}: not extracted: {failure.why}")
            return failure
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


class TableWriter:
    """The table as it grows; written to the disk after every change, so that an end by force loses no run."""

    def __init__(self, inputs: AblationSources, out: Path, options: AblateOptions) -> None:
        """Write the table before anything is done.

        Raises:
            InputError: `out` holds a table that was made with other settings.
        """
        self.plan, self._out, self._options = make_plan(inputs, out, options), out, options
        self._labels_sha256 = ""
        notes = self.plan.notes
        if inputs.classes != SOCCERNET_BALL_CLASSES and any(entry.row.published for entry in self.plan.entries):
            notes += ("published figures are SoccerNet's: on other data they are no measure",)
        if options.split == "valid":
            notes += ("evaluated on the matches that choose epoch and peaks: the figures are too high",)
        self.table = AblationTable(
            sources=tuple(map(str, inputs.paths)),
            split=options.split,
            settings=options.to_json(),
            classes=inputs.classes,
            rows=tuple(entry.row for entry in self.plan.entries),
            chance={},
            notes=notes,
        )
        require_same_settings(out, self.table)
        self._write()

    def add_features(self, store: BackboneStore, problem: Failure | None) -> list[RunTask]:
        """Note in the rows of a store that it is there, or why it is not; returns the runs on it."""
        tasks = []
        if not store.is_given:
            self._keep_traceback(store.path, problem)
        for entry in self.plan.entries:
            if store not in entry.stores:
                continue
            row = self._row(entry.row.name)
            seed = entry.seeds_on(store)[0] if len(entry.stores) > 1 else None
            if problem:
                self._put(row.with_failure(problem.why, seed=seed))
                continue
            try:
                found, runs = runs_of(entry, store, self._out, self._options)
            except InputError as error:
                self._put(row.with_failure(str(error), seed=seed))
            else:
                self._put(replace(row, **found))
                tasks += runs
        if not problem:
            self._add_chance(store)
        self._write()
        return tasks

    def add_finished(self, task: RunTask) -> bool:
        """Add a run that was finished another time; False where there is work left."""
        try:
            is_finished = task.scores.is_file() and RunRecord.read(task.run).finished
        except InputError:  # no run, or a damaged one: training it says what is wrong
            is_finished = False
        if not is_finished:
            return False
        try:
            self.add_run(task, run_seed(task))  # reads what is there; evaluates again where the labels have changed
        except InputError as error:
            self.add_run(task, Failure(str(error)))
        return True

    def add_run(self, task: RunTask, result: SeedRun | Failure) -> None:
        """Add how a run ended."""
        row = self._row(task.row)
        if isinstance(result, SeedRun):
            self._put(row.with_run(result))
        else:
            self._put(row.with_failure(result.why, seed=task.settings.seed))
        self._keep_traceback(task.run, result if isinstance(result, Failure) else None)
        self._write()

    def _add_chance(self, store: BackboneStore) -> None:
        """Fill the chance row from the labels of the first store; note where those of another store differ."""
        features = FeatureStore.open(store.path)
        games = labelled_games(features, self._options.split)
        sha256 = labels_sha256(games)
        if not self._labels_sha256:
            self._labels_sha256 = sha256
            self.table = replace(self.table, chance=chance_scores(games, features.classes))
        elif sha256 != self._labels_sha256:
            note = f"{store.path}: evaluated on other matches or labels than the first, so its rows do not compare"
            self.table = replace(self.table, notes=(*self.table.notes, note))

    def _keep_traceback(self, path: Path, problem: Failure | None) -> None:
        """Write the traceback of an unexpected error beside what it kept from being made; else remove an old one."""
        file = path.with_name(f"{path.name}.traceback.txt")
        with disk_errors(self._out):
            if problem is not None and problem.details:
                write_text_atomic(file, problem.details)
            else:
                file.unlink(missing_ok=True)

    def _row(self, name: str) -> Row:
        return next(row for row in self.table.rows if row.name == name)

    def _put(self, row: Row) -> None:
        rows = tuple(row if each.name == row.name else each for each in self.table.rows)
        self.table = replace(self.table, rows=rows)

    def _write(self) -> None:
        with disk_errors(self._out):
            self.table.write(self._out)
