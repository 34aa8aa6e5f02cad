"""`bas train-head`: the training loop."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
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
from .judge import Judge, Verdict
from .log import RunLog
from .record import RunRecord
from .settings import TrainSettings
from .updates import Updater, average_decay, learning_rate, update_seed

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
    with _owned(out):
        torch.manual_seed(settings.seed)
        model = settings.build(dim=store.settings.dim, num_classes=len(chosen.classes))
        record = _begun_record(out, RunRecord.new(settings, chosen, store, num_parameters=model.num_parameters), store)
        if record.finished:
            return record
        updater = Updater.of(settings, model, device)
        bank = open_bank(store, chosen.ids, views=settings.views, device=device, place=options.place)
        examples, judge = Examples.of(chosen, bank, settings), Judge.over(chosen, bank, settings)
        state = read_state(out / LAST, updater) or _first_state(updater, examples)
        record = replace(record, num_lost=examples.num_lost).after(state)
        report.started(record, bank, state)
        write_run(out, record.to_json())

        with RunLog.open(out, state, settings) as log:
            while not state.is_over(settings):
                watch = _Watch(state, settings, report, log, save_seconds=options.save_seconds)
                _train_epoch(examples, updater, watch, state, path=out / LAST)
                report.validating()
                verdict = judge.verdict(updater.judged)
                line = watch.line(verdict)
                if state.finish_epoch(line, verdict, settings):
                    write_weights(out / BEST, updater.judged)
                log.epoch(line)  # before the state: what is logged twice is hidden, what is kept is logged
                write_state(out / LAST, updater, state)
                record = record.after(state)
                write_run(out, record.to_json())
                report.epoch(line, state)

        read_weights(out / BEST, updater.judged)
        record = record.finish(judge.choose(updater.judged))
        write_run(out, record.to_json())
    return record


def _begun_record(out: Path, new: RunRecord, store: FeatureStore) -> RunRecord:
    """The record of the run in `out`, which must be of the same settings and data; else the new one."""
    new = replace(new, store_hint=_path_from(out, store.path))
    if not (out / RUN).exists():
        return new
    before = RunRecord.read(out)
    new.require_same(before, out=out)
    return replace(before, store_hint=new.store_hint)


def _path_from(folder: Path, path: Path) -> str:
    """`path` relative to `folder`, with forward slashes; absolute where they are on two drives."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _first_state(updater: Updater, examples: Examples) -> LoopState:
    """The start of a run: the inputs take mean and deviation from the training rows."""
    if updater.model.inputs.is_fitted:
        updater.model.inputs.fit(examples.sample_rows().cpu())
        if updater.average is not None:
            updater.average.inputs.load_state_dict(updater.model.inputs.state_dict())
    return LoopState()


def _train_epoch(examples: Examples, updater: Updater, watch: "_Watch", state: LoopState, *, path: Path) -> None:
    """The updates of an epoch that are left, with the state saved to `path` now and then."""
    settings = updater.settings
    for batch in examples.epoch(state.epoch, first_step=state.step):
        lr, decay = learning_rate(state.update(settings), settings), average_decay(state.update(settings), settings)
        loss = updater.update(batch, lr=lr, seed=update_seed(settings, state.epoch, state.step), decay=decay)
        if watch.count(loss, lr):
            write_state(path, updater, state)


class _Watch:
    """Time and loss of an epoch under way."""

    def __init__(
        self, state: LoopState, settings: TrainSettings, report: Reporter, log: RunLog, *, save_seconds: float
    ) -> None:
        self._state, self._settings, self._report, self._log = state, settings, report, log
        self._save_seconds = save_seconds
        self._began = self._looked = self._saved = self._trained = time.monotonic()
        self._first_update, self._seconds_before = state.update(settings), state.seconds
        self._pending: list[Tensor] = []
        """Losses that are not in the sum yet: reading one waits for the device."""

    def count(self, loss: Tensor, lr: float) -> bool:
        """Count an update; look at the losses now and then. True where the state is due to be saved.

        Raises:
            InputError: a loss is no number.
        """
        state, num_updates = self._state, self._settings.batches_per_epoch
        self._pending.append(loss)
        state.step += 1
        now = self._trained = time.monotonic()
        is_due = now - self._saved > self._save_seconds
        if not is_due and now - self._looked < _LOOK_SECONDS and state.step < num_updates:
            return False
        self._sum_up()
        self._looked, state.seconds = now, self._seconds_before + now - self._began
        update = state.update(self._settings)
        seconds_left = (now - self._began) / (update - self._first_update)
        seconds_left *= self._settings.epochs * num_updates - update
        mean = state.loss_sum / state.step
        self._report.progress(
            Progress(state.epoch + 1, self._settings.epochs, state.step, num_updates, mean, seconds_left)
        )
        self._log.update(update - 1, loss=mean, lr=lr, flush=is_due)
        if is_due:
            self._saved = now
        return is_due

    def line(self, verdict: Verdict) -> EpochLine:
        """The epoch's line in the history, after its validation."""
        now, state = time.monotonic(), self._state
        return EpochLine(
            epoch=state.epoch + 1,
            loss=state.loss_sum / state.step,
            lr=learning_rate(state.update(self._settings) - 1, self._settings),
            headline=verdict.headline,
            mean=verdict.mean,
            seconds=self._seconds_before + now - self._began,
            valid_seconds=now - self._trained,
        )

    def _sum_up(self) -> None:
        """Add the pending losses one by one, so that the sum does not depend on when it is looked at."""
        state, first = self._state, self._state.step - len(self._pending) + 1
        for step, loss in enumerate(torch.stack(self._pending).tolist(), first):
            if not isfinite(loss):
                raise InputError(
                    f"the loss is no number in epoch {state.epoch + 1}, update {step}",
                    got=loss,
                    cure="lower --lr, set --max-grad-norm 1, or look for rows of extreme values: bas cache verify",
                )
            state.loss_sum += loss
        self._pending.clear()


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
