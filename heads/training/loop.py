"""`bas train-head`: the training loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from ...cache.bank import PLACES, FeatureBank, Place, open_bank
from ...cache.files import FileLock, disk_errors
from ...cache.store import FeatureStore
from ...errors import InputError
from .checkpoint import (
    BEST,
    LAST,
    RUN,
    EpochLine,
    LoopState,
    read_state,
    read_weights,
    write_run,
    write_state,
    write_weights,
)
from .data import choose_matches
from .examples import Examples
from .judge import Judge
from .log import RunLog
from .record import RunRecord
from .settings import TrainSettings
from .updates import Updater, learning_rate, update_seed

Device = Literal["auto", "cpu", "cuda", "mps"]
_LOOK_SECONDS = 0.5


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


@dataclass(frozen=True)
class Progress:
    """One look at an epoch under way."""

    epoch: int
    """From 1."""
    epochs: int
    updates: int
    """Done in this epoch."""
    num_updates: int
    loss: float
    """Mean so far in this epoch."""
    seconds_left: float
    """Until the last epoch is done, should training not stop early; validation is not counted."""


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear; every field may be left out."""

    started: Callable[[RunRecord, FeatureBank, LoopState], None] = lambda *_: None
    """Called once: what is trained, on what, and where it goes on."""
    progress: Callable[[Progress], None] = lambda _: None
    """Called about twice a second."""
    validating: Callable[[], None] = lambda: None
    """Called before every validation."""
    epoch: Callable[[EpochLine, LoopState], None] = lambda *_: None
    """Called after every epoch."""


def train(
    store: FeatureStore,
    out: Path,
    settings: TrainSettings,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    options: RunOptions | None = None,
    report: Reporter | None = None,
) -> RunRecord:
    """Train a head on a feature store; go on where `out` holds unfinished work of the same settings.

    Args:
        store: features with labels and splits.
        out: the run's folder.
        settings: the recipe.
        classes: the class list; by default the store's.
        valid: matches that validate, in place of the split of that name.
        options: device and the like.
        report: hears how it goes.

    Returns:
        The finished run, as in its `run.json`.

    Raises:
        InputError: the store cannot be trained on, `out` holds another run, or the loss is no number.
    """
    options, report = options or RunOptions(), report or Reporter()
    device = choose_device(options.device)
    chosen = choose_matches(store, classes=classes, valid=valid, stride=settings.stride)
    with _owned(out):
        ids = [match.id for match in (*chosen.train, *chosen.valid)]
        bank = open_bank(store, ids, views=settings.views, device=device, place=options.place)
        examples, judge = Examples.of(chosen, bank, settings), Judge.over(chosen, bank, settings)
        torch.manual_seed(settings.seed)
        model = settings.build(dim=bank.dim, num_classes=len(chosen.classes))
        model.inputs.fit(examples.sample_rows().cpu())
        updater = Updater.of(settings, model, device)

        parts = {"num_parameters": model.num_parameters, "num_lost": examples.num_lost}
        record = RunRecord.new(settings, chosen, store, **parts)
        if (out / RUN).exists():
            before = RunRecord.read(out)
            record.require_same(before, out=out)
            record = before
        state = read_state(out / LAST, updater) or LoopState()
        report.started(record, bank, state)
        write_run(out, record.to_json())
        log = RunLog(out, state.history, updates_per_epoch=settings.batches_per_epoch)

        while not (record.finished or state.is_over(settings)):
            watch = _Watch(state, settings, report, log)
            for batch in examples.epoch(state.epoch, first_step=state.step):
                lr = learning_rate(state.update(settings), settings)
                loss = updater.update(batch, lr=lr, seed=update_seed(settings, state.epoch, state.step))
                if watch.count(loss, lr) > options.save_seconds:
                    write_state(out / LAST, updater, state)
            report.validating()
            verdict = judge.verdict(updater.judged)
            line = watch.line(verdict.headline, verdict.mean, lr)
            if state.finish_epoch(line, settings):
                write_weights(out / BEST, updater.judged)
            write_state(out / LAST, updater, state)
            record = record.after(state, verdict)
            write_run(out, record.to_json())
            log.epoch(line)
            report.epoch(line, state)

        log.close()
        if not record.finished:
            read_weights(out / BEST, updater.judged)
            record = record.finish(judge.choose(updater.judged))
            write_run(out, record.to_json())
    return record


class _Watch:
    """Time and loss of an epoch under way."""

    def __init__(self, state: LoopState, settings: TrainSettings, report: Reporter, log: RunLog) -> None:
        self._state, self._settings, self._report, self._log = state, settings, report, log
        self._began = self._looked = self._saved = time.monotonic()
        self._first_update, self._seconds_before = state.update(settings), state.seconds
        self._loss_sum: Tensor | float = state.loss_sum
        self._trained = self._began

    def count(self, loss: Tensor, lr: float) -> float:
        """Count an update; look at the loss now and then. Returns the seconds since the state was last saved.

        Raises:
            InputError: the loss is no number.
        """
        state, num_updates = self._state, self._settings.batches_per_epoch
        self._loss_sum = loss.double() + self._loss_sum
        state.step += 1
        now = self._trained = time.monotonic()
        since_saved = now - self._saved
        if now - self._looked < _LOOK_SECONDS and state.step < num_updates:
            return 0.0
        self._looked, state.seconds, state.loss_sum = now, self._seconds_before + now - self._began, self._mean_input()
        update = state.update(self._settings)
        seconds_left = (now - self._began) / (update - self._first_update)
        seconds_left *= self._settings.epochs * num_updates - update
        mean = state.loss_sum / state.step
        self._report.progress(
            Progress(state.epoch + 1, self._settings.epochs, state.step, num_updates, mean, seconds_left)
        )
        self._log.update(update - 1, loss=mean, lr=lr)
        return since_saved

    def line(self, headline: float, mean: float, lr: float) -> EpochLine:
        """The epoch's line in the history, after its validation."""
        now, state = time.monotonic(), self._state
        return EpochLine(
            epoch=state.epoch + 1,
            loss=state.loss_sum / state.step,
            lr=lr,
            headline=headline,
            mean=mean,
            seconds=self._seconds_before + now - self._began,
            valid_seconds=now - self._trained,
        )

    def _mean_input(self) -> float:
        total = float(self._loss_sum)
        if total - total != 0:  # infinite or NaN
            raise InputError(
                f"the loss is no number in epoch {self._state.epoch + 1}, update {self._state.step}",
                got=total,
                cure="lower --lr, set --max-grad-norm 1, or look for rows of extreme values: bas cache verify",
            )
        return total


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
def _owned(out: Path) -> Iterator[None]:
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
