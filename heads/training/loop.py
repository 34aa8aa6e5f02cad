"""`bas train-head`: the training loop."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from ...cache.bank import PLACES, FeatureBank, Place, open_bank
from ...cache.reduction import write_reduction
from ...cache.store import FeatureStore
from ...errors import InputError
from ...files import FileLock, disk_errors
from .checkpoint import BEST, LAST, RUN, LoopState, read_state, read_weights, write_weights
from .data import choose_matches
from .epochs import Reporter, RunFiles, run_epochs
from .examples import Batch, Examples
from .judge import Choice, Judge, Verdict
from .record import RunRecord
from .settings import TrainSettings
from .updates import Updater

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; on one kind of device none of it changes a number."""

    device: Device = "auto"
    place: Place = "auto"
    """Where the feature bank lies."""
    save_seconds: float = 60.0
    """Least time between two savings within an epoch."""

    @classmethod
    def parse(cls, *, device: str, place: str) -> "RunOptions":
        """From the command line.

        Raises:
            InputError: no such device or place.
        """
        for option, value, allowed in (("--device", device, get_args(Device)), ("--bank", place, PLACES)):
            if value not in allowed:
                raise InputError(f"{option} is not usable", got=value, wanted=", ".join(allowed))
        return cls(device=cast(Device, device), place=cast(Place, place))


def train(
    store: FeatureStore,
    out: Path,
    settings: TrainSettings,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    with_valid: bool = False,
    options: RunOptions | None = None,
    report: Reporter | None = None,
) -> RunRecord:
    """Train a head on a feature store, to a finished run; go on where `out` holds one of the same settings.

    Args:
        store: features with labels and splits.
        out: the run's folder.
        settings: the recipe.
        classes, valid, with_valid: which labels and matches, see `choose_matches`.
        options: device and the like.
        report: hears how it goes.

    Raises:
        InputError: the store cannot be trained on, `out` holds another run, or the loss is no number.
    """
    options, report = options or RunOptions(), report or Reporter()
    device = choose_device(options.device)
    chosen = choose_matches(store, classes=classes, valid=valid, with_valid=with_valid, stride=settings.stride)
    with owned(out):
        torch.manual_seed(settings.seed)
        model = settings.build(dim=store.settings.dim, num_classes=len(chosen.classes))
        new = RunRecord.new(
            settings, chosen, store.settings, num_parameters=model.num_parameters, store_hint=path_from(out, store.path)
        )
        record = begun_record(out, new)
        if record.finished:
            return record
        updater = Updater.of(settings, model, device)
        bank = open_bank(store, chosen.ids, views=settings.views, device=device, place=options.place)
        learner = HeadLearner(Examples.of(chosen, bank, settings), updater, Judge.over(chosen, bank, settings))
        state = read_state(out / LAST, updater) or _first_state(learner, alike=store.settings.is_principal)
        record = replace(record, num_lost=learner.examples.windows.num_lost).after(state)
        report.started(record, _in_words(bank), state)
        if store.reduction is not None:
            write_reduction(out, store.reduction)
        files = RunFiles(out)
        files.record(record)

        record = run_epochs(learner, record, state, files, report, save_seconds=options.save_seconds)

        learner.restore(out)
        record = record.finish(learner.choose())
        files.record(record)
    return record


@dataclass(frozen=True)
class HeadLearner:
    """A head on cached features, see `epochs.Learner`."""

    examples: Examples
    updater: Updater
    judge: Judge
    waited_seconds: float = 0.0
    """Windows are gathered, not waited for."""
    bad_loss_cure: str = "lower --lr, set --max-grad-norm 1, or look for rows of extreme values: bas cache verify"
    looks_always: bool = False

    @property
    def settings(self) -> TrainSettings:
        """The recipe."""
        return self.updater.settings

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Batch]:
        """Windows of features."""
        return self.examples.epoch(epoch, first_step=first_step)

    def verdict(self) -> Verdict:
        """Validation of the weights, or of their average."""
        return self.judge.verdict(self.updater.judged)

    def choose(self) -> Choice:
        """The best peaks, and a calibration fitted on them."""
        return self.judge.choose(self.updater.judged)

    def keep(self, folder: Path) -> None:
        """Write `best.safetensors`."""
        write_weights(folder / BEST, self.updater.judged)

    def restore(self, folder: Path) -> None:
        """Read it."""
        read_weights(folder / BEST, self.updater.judged)


def _in_words(bank: FeatureBank) -> str:
    return f"{bank.num_rows:,} rows of {bank.dim} ({bank.num_bytes / 1e6:,.0f} MB, {bank.place}) on {bank.device}"


def begun_record(out: Path, new: RunRecord) -> RunRecord:
    """The record of the run in `out`, which must be of the same settings and data as `new`; else `new`.

    Raises:
        InputError: the run there is another; names what differs.
    """
    if not (out / RUN).exists():
        return new
    before = RunRecord.read(out)
    if not before.history and not (out / LAST).exists():  # nothing is trained yet, as where the memory ran out
        return new
    new.require_same(before, out=out)
    return replace(before, store_hint=new.store_hint)


def path_from(folder: Path, path: Path) -> str:
    """`path` relative to `folder`, with forward slashes; absolute where they are on two drives."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _first_state(learner: HeadLearner, *, alike: bool) -> LoopState:
    """The start of a run: the inputs take mean and deviation from the training rows, see `Inputs.fit`."""
    model = learner.updater.model
    if model.inputs.is_fitted:
        model.inputs.fit(learner.examples.sample_rows().cpu(), alike=alike)
        learner.updater.start_average()
    return LoopState()


def choose_device(name: Device) -> torch.device:
    """The device by name; `auto`: CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, False):
        raise InputError(
            "--device is not usable", got=name, wanted=", ".join(["auto", *(each for each in there if there[each])])
        )
    return torch.device(name)


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """The run's folder, with nobody else at work in it."""
    with disk_errors(out):
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_run(out))):
            raise InputError(
                f"{out}: not a run",
                got="a file" if out.is_file() else "a folder with other things in it",
                cure="name another --out",
            )
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock.acquire(out / ".lock", wait_seconds=0.0)
    if lock is None:
        raise InputError(f"{out}: in use", got=FileLock.owner(out / ".lock"), cure="wait for it, or name another --out")
    with lock:
        yield


def _is_run(out: Path) -> bool:
    return (out / RUN).exists() or (out / ".lock").exists()
