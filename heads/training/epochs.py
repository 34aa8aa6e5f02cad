"""The epochs of a run, whatever it learns from: updates, validation, choice of weights, early stopping, exact resume.

`bas train-head` learns from cached features (`loop.py`), `bas finetune` from videos (`finetune/`); both go through it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import InputError
from .checkpoint import LAST, EpochLine, LoopState, Trained, write_run, write_state
from .judge import Choice, Verdict
from .log import RunLog, SilentLog
from .record import RunRecord
from .settings import TrainSettings
from .updates import average_decay, learning_rate, update_seed

_LOOK_SECONDS = 0.5


class Updates(Trained, Protocol):
    """The weights and all that changes them."""

    def update(self, batch: Any, *, lr: float, seed: int, decay: float | None = None) -> Tensor:
        """Change the weights by one batch; the loss, a scalar on the device."""


class Learner(Protocol):
    """What is trained, what it learns from, and who judges it."""

    @property
    def settings(self) -> TrainSettings:
        """The recipe."""

    @property
    def updater(self) -> Updates:
        """The weights."""

    @property
    def waited_seconds(self) -> float:
        """Time so far that updates stood waiting for their batch."""

    @property
    def bad_loss_cure(self) -> str:
        """What to try where the loss is no number."""

    @property
    def looks_always(self) -> bool:
        """Whether the loss is looked at after every update, as several processes must stop at the same one."""

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Any]:
        """Batches of an epoch (from 0), from update `first_step` on: a pure function of (seed, epoch)."""

    def verdict(self) -> Verdict:
        """Validation of the weights as they are."""

    def choose(self) -> Choice:
        """The best peaks on validation, and a calibration."""

    def keep(self, folder: Path) -> None:
        """Write the weights as they are as the best."""

    def restore(self, folder: Path) -> None:
        """Load what `keep` wrote last."""


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
    waiting_share: float = 0.0
    """Share of the time of these updates that was spent waiting for their batches, 0 to 1."""


@dataclass(frozen=True)
class Reporter:
    """What the command line wants to hear; every field may be left out."""

    started: Callable[[RunRecord, str, LoopState], None] = lambda *_: None
    """Called once: what is trained, on what data (in words), and where it goes on."""
    progress: Callable[[Progress], None] = lambda _: None
    """Called about twice a second."""
    validating: Callable[[], None] = lambda: None
    """Called before every validation."""
    epoch: Callable[[EpochLine, LoopState], None] = lambda *_: None
    """Called after every epoch."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run under way. Of several processes one writes."""

    folder: Path
    is_writer: bool = True

    def record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        if self.is_writer:
            write_run(self.folder, record.to_json())

    def state(self, updater: Trained, state: LoopState) -> None:
        """Write `last.safetensors`."""
        if self.is_writer:
            write_state(self.folder / LAST, updater, state)

    def best(self, learner: Learner) -> None:
        """Write the best weights."""
        if self.is_writer:
            learner.keep(self.folder)

    def log(self, state: LoopState, settings: TrainSettings) -> AbstractContextManager[RunLog | SilentLog]:
        """Open the log."""
        return RunLog.open(self.folder, state, settings) if self.is_writer else nullcontext(SilentLog())


def run_epochs(
    learner: Learner, record: RunRecord, state: LoopState, files: RunFiles, report: Reporter, *, save_seconds: float
) -> RunRecord:
    """Train until the last epoch is done or validation has stopped improving.

    Args:
        learner: at the update that `state` stands at.
        record: of the run.
        state: where it goes on; changed.
        files: the run's folder, which holds its record.
        report: hears how it goes.
        save_seconds: least time between two savings within an epoch.

    Returns:
        The record with all epochs; the best weights are in the folder.

    Raises:
        InputError: the loss, or a weight, is no number; what was kept before stays.
    """
    settings = learner.settings
    with files.log(state, settings) as log:
        while not state.is_over(settings):
            watch = _Watch(learner, state, report, log, save_seconds=save_seconds)
            _train_epoch(learner, watch, state, files)
            _require_numbers(learner, state)
            report.validating()
            verdict = learner.verdict()
            line = watch.line(verdict)
            if state.finish_epoch(line, verdict, settings):
                files.best(learner)
            log.epoch(line)  # before the state: what is logged twice is hidden, what is kept is logged
            files.state(learner.updater, state)
            record = record.after(state)
            files.record(record)
            report.epoch(line, state)
    return record


def _train_epoch(learner: Learner, watch: "_Watch", state: LoopState, files: RunFiles) -> None:
    """The updates of an epoch that are left, with the state saved now and then."""
    settings = learner.settings
    for batch in learner.batches(state.epoch, first_step=state.step):
        lr, decay = learning_rate(state.update(settings), settings), average_decay(state.update(settings), settings)
        seed = update_seed(settings, state.epoch, state.step)
        loss = learner.updater.update(batch, lr=lr, seed=seed, decay=decay)
        if watch.count(loss, lr):
            _require_numbers(learner, state)
            files.state(learner.updater, state)


def _require_numbers(learner: Learner, state: LoopState) -> None:
    """No weights are judged or saved that the next loss would show to be ruined."""
    for name, tensor in learner.updater.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"weights are no numbers after epoch {state.epoch + 1}, update {state.step}",
                got=name,
                cure=learner.bad_loss_cure,
            )


class _Watch:
    """Time and loss of an epoch under way."""

    def __init__(
        self, learner: Learner, state: LoopState, report: Reporter, log: RunLog | SilentLog, *, save_seconds: float
    ) -> None:
        self._learner, self._settings = learner, learner.settings
        self._state, self._report, self._log = state, report, log
        self._save_seconds = save_seconds
        self._began = self._looked = self._saved = self._trained = time.monotonic()
        self._waited_before = learner.waited_seconds
        self._first_update, self._seconds_before = state.update(self._settings), state.seconds
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
        is_looked_at = is_due or now - self._looked >= _LOOK_SECONDS or state.step >= num_updates
        if not is_looked_at and not self._learner.looks_always:
            return False
        self._sum_up()
        self._looked, state.seconds = now, self._seconds_before + now - self._began
        update = state.update(self._settings)
        seconds_left = (now - self._began) / (update - self._first_update)
        seconds_left *= self._settings.epochs * num_updates - update
        mean = state.loss_sum / state.step
        self._report.progress(
            Progress(
                state.epoch + 1, self._settings.epochs, state.step, num_updates, mean, seconds_left, self._waiting_share
            )
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
            waiting_share=round(self._waiting_share, 4),
        )

    @property
    def _waiting_share(self) -> float:
        waited = self._learner.waited_seconds - self._waited_before
        return waited / (self._trained - self._began) if waited else 0.0

    def _sum_up(self) -> None:
        """Add the pending losses one by one, so that the sum does not depend on when it is looked at."""
        state, first = self._state, self._state.step - len(self._pending) + 1
        for step, loss in enumerate(torch.stack(self._pending).tolist(), first):
            if not isfinite(loss):
                raise InputError(
                    f"the loss is no number in epoch {state.epoch + 1}, update {step}",
                    got=loss,
                    cure=self._learner.bad_loss_cure,
                )
            state.loss_sum += loss
        self._pending.clear()
