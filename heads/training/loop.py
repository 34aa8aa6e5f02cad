"""`bas train-head`: the training loop."""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.bank import PLACES, FeatureBank, Place, open_bank
from ...cache.reduce.files import write_beside
from ...cache.store import FeatureStore
from ...errors import InputError
from ...files import FileLock, disk_errors
from ..losses import mixup
from ..model import SpottingModel
from .checkpoint import (
    BEST,
    LAST,
    RUN,
    EpochLine,
    LoopState,
    RunRecord,
    Trained,
    read_state,
    read_weights,
    write_run,
    write_state,
    write_weights,
)
from .data import Batch, Examples, choose_matches
from .evaluator import Choice, Judge, Verdict
from .log import RunLog, SilentLog
from .settings import Precision, TrainSettings

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
            write_beside(out, store.reduction)
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


_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_SHARE_OF_WARMUP = 0.25
"""Runs of few epochs warm up over this share of them at most."""


def learning_rate(update: int, settings: TrainSettings) -> float:
    """Rate of an update (from 0, over all epochs): a linear rise from 1 %, then a cosine to 0."""
    epoch = update / settings.batches_per_epoch
    warmup = min(settings.warmup_epochs, _SHARE_OF_WARMUP * settings.epochs)
    if epoch < warmup:
        return settings.lr * (0.01 + 0.99 * epoch / warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (settings.epochs - warmup)))


def average_decay(update: int, settings: TrainSettings) -> float:
    """Decay of the averaged weights at an update (from 0): short at first, so that the random start is forgotten."""
    return min(settings.ema, (1 + update) / (10 + update))


def update_seed(settings: TrainSettings, epoch: int, step: int) -> int:
    """Seed of dropout and mixup in one update."""
    return int(np.random.SeedSequence([settings.seed, epoch, step, 2]).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Updater:
    """The weights and all that changes them."""

    settings: TrainSettings
    model: SpottingModel
    average: SpottingModel | None
    """Averaged weights, where the settings ask for them."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    """Of fp16."""
    autocast: torch.dtype | None

    @classmethod
    def of(cls, settings: TrainSettings, model: SpottingModel, device: torch.device) -> "Updater":
        """An updater at the first update; moves the model to the device.

        Raises:
            InputError: fp16 anywhere but on CUDA.
        """
        precision: Precision = settings.precision
        if precision == "auto":
            precision = "fp16" if device.type == "cuda" else "fp32"
        if precision == "fp16" and device.type != "cuda":
            raise InputError(
                "setting 'precision' is not usable", got=f"fp16 on {device.type}", wanted="auto, fp32 or bf16"
            )
        model.to(device)
        fused = device.type in ("cpu", "cuda")
        return cls(
            settings=settings,
            model=model,
            average=copy.deepcopy(model).eval() if settings.ema else None,
            optimizer=torch.optim.AdamW(
                model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=fused
            ),
            scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
            autocast=_TYPES.get(precision),
        )

    def start_average(self) -> None:
        """Let the averaged weights begin at the weights."""
        if self.average is not None:
            self.average.load_state_dict(self.model.state_dict())

    @property
    def judged(self) -> SpottingModel:
        """The model that is validated and kept."""
        return self.average or self.model

    def update(self, batch: Batch, *, lr: float, seed: int, decay: float | None = None) -> Tensor:
        """Change the weights by one batch.

        Args:
            batch: on the model's device.
            lr: learning rate.
            seed: of dropout and mixup.
            decay: of the averaged weights; by default the settings'.

        Returns:
            The loss, a scalar on the device.
        """
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._loss(batch, seed=seed)
        self.optimizer.zero_grad(set_to_none=True)
        (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]
        if self.settings.max_grad_norm:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.average is not None:
            follow(self.average, self.model, decay=self.settings.ema if decay is None else decay)
        return loss.detach()

    def _loss(self, batch: Batch, *, seed: int) -> Tensor:
        with torch.autocast(batch.features_btc.device.type, self.autocast) if self.autocast else nullcontext():
            return batch_loss(self.model, batch, mixup_alpha=self.settings.mixup, seed=seed)


def batch_loss(model: SpottingModel, batch: Batch, *, mixup_alpha: float, seed: int) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        model: in training mode.
        batch: on its device.
        mixup_alpha: of Beta(alpha, alpha); 0: no mixup.
        seed: of mixup.
    """
    features_btc, mask_bt, parts = batch.features_btc, batch.mask_bt, [(1.0, batch.targets)]
    if mixup_alpha:
        generator = torch.Generator().manual_seed(seed)
        features_btc, mask_bt, parts = mixup(
            features_btc, mask_bt, batch.targets, generator=generator, alpha=mixup_alpha
        )
    outputs = model(features_btc, mask_bt)
    return torch.stack([share * model.loss(outputs, part) for share, part in parts]).sum()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Exponential average of the weights and of BatchNorm's statistics."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
