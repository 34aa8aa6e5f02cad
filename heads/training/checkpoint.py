"""The folder of a run, every file whole or absent.

`run.json` (settings, store, classes, history), `best.safetensors` (weights), `last.safetensors` (weights, optimiser and
loop state, for going on exactly), `log.csv` and `tensorboard/`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...errors import InputError, reading_record
from ...files import disk_errors, parse_json, read_json, write_atomic, write_json_atomic
from .judge import Verdict
from .settings import TrainSettings

FORMAT = "bas-run-1"
RUN, BEST, LAST, LOG, TENSORBOARD = "run.json", "best.safetensors", "last.safetensors", "log.csv", "tensorboard"
_FETCH = "fetch the run again, or train it into another --out"
COMMANDS = "`bas train-head --out` or `bas finetune --out`"
"""What makes such a folder."""


@dataclass(frozen=True)
class EpochLine:
    """One epoch of the history; a line of `log.csv`."""

    epoch: int
    """From 1."""
    loss: float
    """Mean over the updates of the epoch."""
    lr: float
    """At the end of the epoch."""
    headline: float
    """Validation mAP at 1 s that chooses the checkpoint, 0 to 1: mAP-10 for SoccerNet's classes, else over all."""
    mean: float
    """Validation mAP at 1 s over all classes."""
    seconds: float
    """Of the whole epoch."""
    valid_seconds: float
    """Of its validation."""
    waiting_share: float = 0.0
    """Share of the time of the updates that was spent waiting for their batches, 0 to 1."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EpochLine":
        """Inverse of `asdict`; any error of plain Python where it is none."""
        numbers = {name: float(value) for name, value in record.items() if name != "epoch"}
        return cls(epoch=whole(record["epoch"]), **numbers)


def whole(value: object) -> int:
    """The value, where it is a whole number of at most 63 bits; TypeError where not."""
    if type(value) is not int or abs(value) >= 1 << 63:
        raise TypeError(f"{value!r} is no whole number"[:80])
    return value


class Trained(Protocol):
    """The tensors that the next update depends on."""

    @property
    def model(self) -> nn.Module:
        """The weights."""

    @property
    def average(self) -> nn.Module | None:
        """Averaged weights, where there are any."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its state belongs to the model's parameters, in their order."""

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Of fp16."""


@dataclass
class LoopState:
    """Where a run stands: everything beside tensors that the next update depends on."""

    epoch: int = 0
    """Epoch under way, from 0."""
    step: int = 0
    """Updates done in it."""
    loss_sum: float = 0.0
    """Over these updates."""
    seconds: float = 0.0
    """Spent in this epoch."""
    best_epoch: int = 0
    """Epoch (from 1) of the kept weights; 0: none yet."""
    best: Verdict | None = None
    """Its validation."""
    reference: float = -1.0
    """Headline that the next improvement is counted from, for early stopping."""
    stale_epochs: int = 0
    """Epochs since that improved enough."""
    history: list[EpochLine] = field(default_factory=list)
    """Finished epochs."""

    def update(self, settings: TrainSettings) -> int:
        """Updates done, over all epochs."""
        return self.epoch * settings.batches_per_epoch + self.step

    def is_over(self, settings: TrainSettings) -> bool:
        """Whether all epochs are done, or validation has stopped improving."""
        return self.epoch >= settings.epochs or 0 < settings.patience <= self.stale_epochs

    def finish_epoch(self, line: EpochLine, verdict: Verdict, settings: TrainSettings) -> bool:
        """Count a validated epoch; True where its weights are to be kept: the best so far, or the last."""
        self.history.append(line)
        self.epoch, self.step, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0
        is_kept = self.best is None or verdict.headline > self.best.headline or settings.keep == "last"
        if is_kept:
            self.best, self.best_epoch = verdict, line.epoch
        if verdict.headline > self.reference + settings.min_improvement:
            self.reference, self.stale_epochs = line.headline, 0
        else:
            self.stale_epochs += 1
        return is_kept

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "LoopState":
        """Inverse of `asdict`."""
        kinds: dict[str, Callable[[Any], float]] = dict.fromkeys(("epoch", "step", "best_epoch", "stale_epochs"), whole)
        values: dict[str, Any] = {
            name: kinds.get(name, float)(value) for name, value in record.items() if name not in ("best", "history")
        }
        best = Verdict.from_json(record["best"]) if record["best"] else None
        return cls(**{**values, "best": best, "history": [EpochLine.from_json(line) for line in record["history"]]})


def write_weights(path: Path, model: nn.Module) -> None:
    """Weights and buffers of a model, whole or not at all."""
    _write_tensors(path, _portable(model.state_dict()), {})


def read_weights(path: Path, model: nn.Module) -> None:
    """Load what `write_weights` wrote.

    Raises:
        InputError: missing, damaged, or of another network.
    """
    require_shapes(path, model)
    tensors, _ = _read_tensors(path)
    _load(path, model, tensors)


def require_shapes(path: Path, model: nn.Module) -> None:
    """Refuse a file whose header names other tensors than the model's, before any of them takes memory; the model may
    lie on the device `meta`.

    Raises:
        InputError: missing, damaged, or of another network.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    with _opened(path) as file:
        found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise InputError(
            f"{path}: weights of another network",
            got=f"{wrong[0]} {found.get(wrong[0], 'is missing')}"[:160],
            wanted=f"{wanted.get(wrong[0], 'no such tensor')}",
            cure="restore the folder as it was trained, or train again into another --out",
        )


def write_state(path: Path, updater: Trained, state: LoopState) -> None:
    """Everything that the next update depends on, in one file."""
    tensors = {f"model.{name}": tensor for name, tensor in updater.model.state_dict().items()}
    if updater.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in updater.average.state_dict().items()}
    for number, of_parameter in updater.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in of_parameter.items()}
    scaler = updater.scaler.state_dict() if updater.scaler else {}
    _write_tensors(path, _portable(tensors), {"loop": json.dumps(asdict(state)), "scaler": json.dumps(scaler)})


def read_state(path: Path, updater: Trained) -> LoopState | None:
    """Load what `write_state` wrote into the updater; None where there is no such file.

    Raises:
        InputError: damaged, or of another network.
    """
    if not path.exists():
        return None
    tensors, metadata = _read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    _load(path, updater.model, parts["model"])
    if updater.average is not None:
        _load(path, updater.average, parts["average"])
    of_parameters: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        if not number.isdecimal():
            raise _damaged(path, f"tensor {name}")
        of_parameters.setdefault(int(number), {})[key] = tensor
    groups = updater.optimizer.state_dict()["param_groups"]
    with reading_record(f"{path}: damaged", cure=_FETCH):
        updater.optimizer.load_state_dict({"state": of_parameters, "param_groups": groups})
        if updater.scaler and (scaler := parse_json(metadata["scaler"].encode(), where=str(path))):
            updater.scaler.load_state_dict(scaler)
        return LoopState.from_json(parse_json(metadata["loop"].encode(), where=str(path)))


def write_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    with disk_errors(folder):
        write_json_atomic(folder / RUN, {"format": FORMAT, **record})


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json`.

    Raises:
        InputError: no run, another format, or damaged.
    """
    if not (folder / RUN).is_file():
        raise InputError(
            f"{folder}: not a run",
            got="no such folder" if not folder.exists() else f"a folder without {RUN}",
            wanted=f"the folder that {COMMANDS} made",
        )
    record = read_json(folder / RUN)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        got = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise InputError(
            f"{folder / RUN}: another format", got=got, wanted=FORMAT, cure="use the version of bas that trained it"
        )
    return record


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with disk_errors(path):
        write_atomic(path, save(tensors, metadata))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", cure="give the command that began the run again")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, str(error)) from None


def _load(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{path}: weights of another network",
            got=str(error).splitlines()[1].strip()[:160] if "\n" in str(error) else str(error)[:160],
            cure="restore the folder as it was trained, or train again into another --out",
        ) from None


def _damaged(path: Path, got: str) -> InputError:
    return InputError(f"{path}: damaged", got=got[:160], cure=_FETCH)
