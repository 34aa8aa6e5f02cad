"""The training loop, shared by `bas train-head` (heads on cached features, here) and `bas finetune` (`finetune/`)."""

import copy
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.bank import Place, open_bank
from ...cache.reduction import write_reduction
from ...cache.store import FeatureStore
from ...errors import InputError
from ...files import FileLock, disk_errors
from ..losses import mixup
from ..model import SpottingModel, build_model
from ..scoring import FloatArray
from ..targets import Targets
from .checkpoint import (
    BEST,
    LAST,
    RUN,
    EpochLine,
    LoopState,
    RunRecord,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)
from .data import Batch, Examples, choose_matches
from .evaluator import Evaluator, ValidationResult, bank_scores
from .log import RunLog
from .settings import Precision, TrainSettings

Device = Literal["auto", "cpu", "cuda", "mps"]
_READ_SECONDS = 0.5
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_WORK_PER_THREAD = 100_000_000
"""Products of parameters and rows of a step, about 50 ms: less is not worth a further thread."""
_SHARE_OF_WARMUP = 0.25
"""Runs of few epochs warm up over this share of them at most."""


class Trainer(ABC):
    """A network with what it learns from."""

    settings: TrainSettings
    model: nn.Module
    average: nn.Module | None
    """Averaged weights, where the settings ask for them."""
    optimizer: torch.optim.Optimizer
    """Its state belongs to the model's parameters, in their order."""
    scaler: torch.amp.GradScaler | None
    """Scales the loss in fp16."""
    bad_loss_cure: str
    """What to try where the loss is no number."""
    reads_every_loss: bool = False
    """Whether the loss is read after every step, as several processes must stop at the same one."""

    @property
    def waited_seconds(self) -> float:
        """Time so far that steps stood waiting for their batch."""
        return 0.0

    @abstractmethod
    def batches(self, epoch: int, *, first_step: int) -> Iterator[Any]:
        """Batches of an epoch (from 0), from step `first_step` on: a pure function of (seed, epoch)."""

    @abstractmethod
    def training_step(self, batch: Any, *, lr: float, seed: int, ema_decay: float = 0.0) -> Tensor:
        """Change the weights by one batch.

        Args:
            batch: of `batches`.
            lr: learning rate of the head.
            seed: of dropout and mixup.
            ema_decay: of the averaged weights.

        Returns:
            The loss, a scalar on the device.
        """

    @abstractmethod
    def validate(self) -> tuple[list[FloatArray], float]:
        """Confidences (rows, K) of each validation match by the weights as they are, and the loss of their windows."""

    @abstractmethod
    def save_best(self, folder: Path) -> None:
        """Write the weights as they are as the best."""

    @abstractmethod
    def load_best(self, folder: Path) -> None:
        """Load what `save_best` wrote last."""


@dataclass(frozen=True)
class EpochProgress:
    """One look at an epoch under way."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps done in this epoch."""
    num_steps: int
    loss: float
    """Mean so far in this epoch."""
    seconds_left: float
    """Until the last epoch is done, should training not stop early; validation is not counted."""
    waiting_share: float = 0.0
    """Share of the time of these steps that was spent waiting for their batches, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Callbacks that training calls while it works; every field may be left out."""

    started: Callable[[RunRecord, str, LoopState], None] = lambda *_: None
    """Called once: what is trained, on what data (in words), and where it goes on."""
    advanced: Callable[[EpochProgress], None] = lambda _: None
    """Called about twice a second."""
    validating: Callable[[str], None] = lambda _: None
    """Called in every validation, with what it is at in a few words, or none."""
    epoch_done: Callable[[EpochLine, LoopState], None] = lambda *_: None
    """Called after every epoch."""


def train(
    store: FeatureStore | Path | str,
    out: Path | str,
    settings: TrainSettings | None = None,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    with_valid: bool = False,
    is_by_team: bool = False,
    device: Device = "auto",
    bank: Place = "auto",
    threads: int = 0,
    save_seconds: float = 60.0,
    progress: TrainingProgress | None = None,
) -> RunRecord:
    """Train a head on a feature store, to a finished run; go on where `out` holds one of the same settings.

    Args:
        store: features with labels and splits, or its path.
        out: the run's folder.
        settings: the recipe; by default that of `ed`.
        classes: class names to learn; by default all that the store labels.
        valid: ids (or parts of ids) of the matches that validate; by default those of the split `valid`.
        with_valid: whether the other matches of the split `valid` train too.
        is_by_team: whether each class is one for each team that the labels name.
        device: where the head is trained; on one kind of device the losses are the same.
        bank: where the features lie: on the device, in RAM, or mapped from the store.
        threads: of PyTorch; 0: by the size of the work.
        save_seconds: least time between two checkpoints within an epoch.
        progress: callbacks.

    Raises:
        InputError: the store cannot be trained on, `out` holds another run, or the loss is no number.
    """
    store = store if isinstance(store, FeatureStore) else FeatureStore.open(Path(store))
    out, settings, progress = Path(out), settings or TrainSettings(), progress or TrainingProgress()
    on = choose_device(device)
    chosen = choose_matches(
        store,
        classes=classes,
        valid=valid,
        with_valid=with_valid,
        stride=settings.stride,
        is_by_team=is_by_team,
    )
    with locked_folder(out, record=RUN, holds="a run"):
        torch.manual_seed(settings.seed)
        features, num_classes = store.settings, len(chosen.classes)
        model = build_model(settings, dim=features.dim, num_classes=num_classes, features=features)
        new = RunRecord.new(
            settings, chosen, store.settings, num_parameters=model.num_parameters, store_hint=path_from(out, store.path)
        )
        record = begun_record(out, new)
        if record.finished:
            return record
        rows = open_bank(store, chosen.ids, views=settings.views, device=on, place=bank)
        trainer = HeadTrainer(settings, model, Examples.of(chosen, rows, settings), device=on)
        state = read_checkpoint(out / LAST, trainer)
        if state is None:
            state = LoopState()
            trainer.fit_inputs(alike=store.settings.is_principal)
        record = replace(record, num_lost=trainer.examples.windows.num_lost).after(state)
        rows_per_step = settings.batch * settings.clip_len // settings.stride
        number = choose_threads(threads, num_parameters=model.num_parameters, rows_per_step=rows_per_step)
        in_words = f", {number} thread{'s' if number > 1 else ''}" if on.type == "cpu" else ""
        in_words += f", {choose_precision(settings.precision, on.type)}"
        place = f"({rows.num_bytes / 1e6:,.0f} MB, {rows.place}) on {rows.device}"
        progress.started(record, f"{rows.num_rows:,} rows of {rows.dim} {place}{in_words}", state)
        if store.reduction is not None:
            write_reduction(out, store.reduction)
        record.write(out)
        evaluator = Evaluator(chosen, settings.tolerance)
        with torch_threads(number):
            record = run_epochs(trainer, evaluator, record, state, out, progress=progress, save_seconds=save_seconds)
            record = record.finish(evaluator.choose(trainer.validate()[0]))
        record.write(out)
    return record


def run_epochs(
    trainer: Trainer,
    evaluator: Evaluator,
    record: RunRecord,
    state: LoopState,
    out: Path,
    *,
    progress: TrainingProgress,
    save_seconds: float,
    is_writer: bool = True,
) -> RunRecord:
    """Train until the last epoch is done or validation has stopped improving.

    Args:
        trainer: at the step that `state` stands at.
        evaluator: of the validation matches.
        record: of the run.
        state: where it goes on; changed.
        out: the run's folder, which holds its record.
        progress: callbacks.
        save_seconds: least time between two checkpoints within an epoch.
        is_writer: whether this process writes the files; one of several does.

    Returns:
        The record with all epochs; the best weights are in the folder, and in the trainer.

    Raises:
        InputError: the loss, or a weight, is no number; what was kept before stays.
    """
    settings = trainer.settings
    with RunLog.open(out, state, settings) if is_writer else nullcontext() as log:
        while not state.is_over(settings):
            meter = _Meter(trainer, state)
            for batch in trainer.batches(state.epoch, first_step=state.step):
                number = state.total_steps(settings)
                lr, seed = learning_rate(number, settings), step_seed(settings, state.epoch, state.step)
                loss = trainer.training_step(batch, lr=lr, seed=seed, ema_decay=ema_decay(number, settings))
                state.step += 1  # before a checkpoint, which goes on behind this step
                is_save_due = meter.add(loss) > save_seconds
                if is_save_due or meter.is_read_due:
                    now = meter.read()
                    progress.advanced(now)
                    if log:
                        log.step(number, loss=now.loss, lr=lr)
                if is_save_due:
                    _require_numbers(trainer, state)
                    if is_writer:
                        write_checkpoint(out / LAST, trainer, state)
                    meter.saved()
            _require_numbers(trainer, state)
            progress.validating("")
            scores, valid_loss = trainer.validate()
            result = evaluator.validate(scores)
            line = meter.line(result, valid_loss=valid_loss)
            if state.finish_epoch(line, result, settings) and is_writer:
                trainer.save_best(out)
            record = record.after(state)
            if log:  # before the checkpoint: what is logged twice is hidden, and what is kept is logged
                log.epoch(line)
                write_checkpoint(out / LAST, trainer, state)
                record.write(out)
            progress.epoch_done(line, state)
    trainer.load_best(out)
    progress.validating("choosing peaks")
    return record


def _require_numbers(trainer: Trainer, state: LoopState) -> None:
    """Weights are neither validated nor saved that the next loss would show to be ruined."""
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"weights are no numbers after epoch {state.epoch + 1}, step {state.step}",
                got=name,
                cure=trainer.bad_loss_cure,
            )


class _Meter:
    """Loss and time of an epoch under way. Reading a loss waits for the device, so it is done twice a second."""

    def __init__(self, trainer: Trainer, state: LoopState) -> None:
        self._trainer, self._settings, self._state = trainer, trainer.settings, state
        self._began = self._read = self._saved = self._stepped = time.monotonic()
        self._waited_before = trainer.waited_seconds
        self._first_step, self._seconds_before = state.total_steps(self._settings), state.seconds
        self._pending: list[Tensor] = []
        """Losses that are not in the sum yet."""

    def add(self, loss: Tensor) -> float:
        """Count a step; seconds since the last checkpoint."""
        self._pending.append(loss)
        self._stepped = time.monotonic()
        return self._stepped - self._saved

    def saved(self) -> None:
        """Note that a checkpoint was written."""
        self._saved = self._stepped

    @property
    def is_read_due(self) -> bool:
        """Whether the losses should be read now."""
        is_last = self._state.step >= self._settings.steps_per_epoch
        return is_last or self._trainer.reads_every_loss or self._stepped - self._read >= _READ_SECONDS

    def read(self) -> EpochProgress:
        """Add the pending losses to the state's sum, one by one, so that it does not depend on when they are read.

        Raises:
            InputError: a loss is no number.
        """
        state, settings, num_steps = self._state, self._settings, self._settings.steps_per_epoch
        for step, loss in enumerate(torch.stack(self._pending).tolist(), state.step - len(self._pending) + 1):
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is no number in epoch {state.epoch + 1}, step {step}",
                    got=loss,
                    cure=self._trainer.bad_loss_cure,
                )
            state.loss_sum += loss
        self._pending.clear()
        self._read, seconds = self._stepped, self._stepped - self._began
        state.seconds = self._seconds_before + seconds
        number = state.total_steps(settings)
        left = seconds / (number - self._first_step) * (settings.epochs * num_steps - number)
        mean = state.loss_sum / state.step
        return EpochProgress(state.epoch + 1, settings.epochs, state.step, num_steps, mean, left, self._waiting_share)

    def line(self, result: ValidationResult, *, valid_loss: float) -> EpochLine:
        """The epoch's line in the history, after its validation."""
        now, state = time.monotonic(), self._state
        return EpochLine(
            epoch=state.epoch + 1,
            loss=state.loss_sum / state.step,
            lr=learning_rate(state.total_steps(self._settings) - 1, self._settings),
            headline=result.headline,
            mean=result.mean,
            seconds=self._seconds_before + now - self._began,
            valid_seconds=now - self._stepped,
            waiting_share=round(self._waiting_share, 4),
            valid_loss=valid_loss,
        )

    @property
    def _waiting_share(self) -> float:
        waited = self._trainer.waited_seconds - self._waited_before
        return waited / (self._stepped - self._began) if waited else 0.0


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Learning-rate schedule, by step (from 0, over all epochs): a linear rise from 1 %, then a cosine to 0.

    That of the seed's code lets both act from the first step, the cosine over the epochs after the warm-up only: with
    20 epochs, 3 of them warm-up, its peak is 0.925 of the rate, and it is 0 at 17 epochs and rises again to 0.07.
    """
    epoch = step / settings.steps_per_epoch
    warmup = min(settings.warmup_epochs, _SHARE_OF_WARMUP * settings.epochs)
    rise = 0.01 + 0.99 * epoch / warmup if epoch < warmup else 1.0
    begin = 0.0 if settings.schedule == "seed" else warmup
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, epoch - begin) / (settings.epochs - warmup)))
    return settings.lr * rise * fall


def ema_decay(step: int, settings: TrainSettings) -> float:
    """Decay of the averaged weights at a step (from 0): short at first, so that the random start is forgotten."""
    return min(settings.ema, (1 + step) / (10 + step))


def step_seed(settings: TrainSettings, epoch: int, step: int) -> int:
    """Seed of dropout and mixup in one step."""
    # the last number keeps this stream apart from that of the views (1) and of the clips' augmentation (3); one bit
    # less, as torch's seeds are signed
    return int(np.random.SeedSequence([settings.seed, epoch, step, 2]).generate_state(1, np.uint64)[0] >> 1)


class HeadTrainer(Trainer):
    """A head that learns from cached features; made before its first step.

    Args:
        settings: the recipe.
        model: moved to the device.
        examples: their bank begins with the training matches and ends with those that validate.
        device: where it learns.

    Raises:
        InputError: fp16 anywhere but on CUDA.
    """

    model: SpottingModel
    average: SpottingModel | None
    scaler: torch.amp.GradScaler
    bad_loss_cure = "lower --lr, set --max-grad-norm 1, or look for rows of extreme values: bas cache verify"

    def __init__(
        self, settings: TrainSettings, model: SpottingModel, examples: Examples, *, device: torch.device
    ) -> None:
        precision = choose_precision(settings.precision, device.type)
        self.settings, self.model, self.examples = settings, model.to(device), examples
        self.average = copy.deepcopy(model).eval() if settings.ema else None
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # else it passes all on
        self.autocast = _TYPES.get(precision)

    @property
    def kept_model(self) -> SpottingModel:
        """The model that is validated and kept."""
        return self.average or self.model

    def fit_inputs(self, *, alike: bool) -> None:
        """Let the inputs take mean and deviation from the training rows, see `Inputs.fit`."""
        if self.model.inputs.is_fitted:
            self.model.inputs.fit(self.examples.sample_rows().cpu(), alike=alike)
            if self.average is not None:
                self.average.load_state_dict(self.model.state_dict())

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Batch]:
        return self.examples.epoch(epoch, first_step=first_step)

    def training_step(self, batch: Batch, *, lr: float, seed: int, ema_decay: float = 0.0) -> Tensor:
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        features_btc, parts = mixup(batch.features_btc, batch.targets, seed=seed, alpha=self.settings.mixup)
        with torch.autocast(features_btc.device.type, self.autocast, enabled=self.autocast is not None):
            loss = blended_loss(self.model, features_btc, parts)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.settings.max_grad_norm:
            self.scaler.unscale_(self.optimizer)  # the norm is that of the true gradients
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            update_average(self.average, self.model, decay=ema_decay)
        return loss.detach()

    def validate(self) -> tuple[list[FloatArray], float]:
        examples = self.examples
        places = examples.bank.matches[len(examples.windows.first_row_m) :]
        return bank_scores(self.kept_model, examples.bank, places, self.settings.scoring_plan, examples.valid_targets)

    def save_best(self, folder: Path) -> None:
        write_weights(folder / BEST, self.kept_model)

    def load_best(self, folder: Path) -> None:
        read_weights(folder / BEST, self.kept_model)


def blended_loss(model: SpottingModel, features_btc: Tensor, parts: Sequence[tuple[float, Targets]]) -> Tensor:
    """The loss of a batch, a scalar, by targets with their shares, see `mixup`."""
    outputs = model(features_btc)
    return torch.stack([share * model.loss(outputs, part) for share, part in parts]).sum()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Exponential average of the weights and of BatchNorm's statistics."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)


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


def choose_device(name: Device) -> torch.device:
    """The device by name; `auto`: CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, False):
        usable = ["auto", *(each for each in there if there[each])]
        raise InputError(
            "--device is not usable",
            got=f"{name}: no such device here" if name in get_args(Device) else name,
            wanted=", ".join(usable),
        )
    return torch.device(name)


def choose_precision(asked: Precision, kind: str) -> Precision:
    """The precision of a forward pass; `auto`: half of fp32 where this kind of device computes in it.

    Raises:
        InputError: fp16 anywhere but on CUDA.
    """
    if asked == "fp16" and kind != "cuda":
        raise InputError("setting 'precision' is not usable", got=f"fp16 on {kind}", wanted="auto, fp32 or bf16")
    if asked != "auto":
        return asked
    if kind == "cuda":
        return "fp16"
    can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.10 does not tell
    return "bf16" if kind == "cpu" and (can.get("avx512_bf16") or can.get("amx_bf16")) else "fp32"


def choose_threads(asked: int, *, num_parameters: int, rows_per_step: int) -> int:
    """Threads of PyTorch for a head on the CPU: as many as asked for, or as its steps can use.

    Small steps wait for threads far longer than they work: on two busy cores one thread is 20 times as fast as two.

    Args:
        asked: 0 chooses: half of the cores at most (a core often counts twice), and no more than PyTorch would take.
        num_parameters: of the head; each is used about once per row.
        rows_per_step: rows of a batch.

    Raises:
        InputError: negative.
    """
    if asked < 0:
        raise InputError("--threads is not usable", got=asked, wanted="0 (by the size of the work) or more")
    most = min(torch.get_num_threads(), (os.cpu_count() or 1) // 2)
    return asked or max(1, min(most, num_parameters * rows_per_step // _WORK_PER_THREAD))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let PyTorch use so many threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def locked_folder(out: Path, *, record: str, holds: str) -> Iterator[None]:
    """Make a folder that one process at a time works in, such as a run's, or go on in one that is there.

    Args:
        out: the folder.
        record: name of the file that tells such a folder from others.
        holds: what it is, for the error.

    Raises:
        InputError: it holds something else, or another process is at work in it.
    """
    lock_file = out / ".lock"
    with disk_errors(out):
        is_ours = (out / record).exists() or lock_file.exists()  # a kill may leave the lock alone
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not is_ours)):
            got = "a folder with other things in it" if out.is_dir() else "a file"
            raise InputError(f"{out}: not {holds}", got=got, cure="name another --out")
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock.acquire(lock_file, wait_seconds=0.0)
    if lock is None:
        raise InputError(f"{out}: in use", got=FileLock.owner(lock_file), cure="wait for it, or name another --out")
    with lock:
        yield
