"""The folder of a run, every file whole or absent.

`run.json` (settings, store, classes, history), `best.safetensors` (the weights that are kept), `last.pt` (weights,
optimizer and loop state, for going on exactly), `log.csv` and `tensorboard/`.
"""

import io
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ... import __version__
from ...cache.settings import FeatureSettings
from ...errors import InputError, reading_record, refuse_differing
from ...eval.calibrate import FittedCalibration
from ...eval.peaks import PeakSettings
from ...eval.report import mean_groups
from ...events import TimeGrid, team_label
from ...files import disk_errors, read_json, write_atomic, write_json_atomic
from .data import Chosen
from .evaluator import PostProcessing, ValidationResult
from .settings import FinetuneSettings, TrainSettings

if TYPE_CHECKING:
    from .loop import Trainer

FORMAT = "bas-run-1"
RUN, BEST, LAST, LOG, TENSORBOARD = "run.json", "best.safetensors", "last.pt", "log.csv", "tensorboard"
_SYNTHETIC = "/synthetic/"
"""In the ids of matches that `bas data synthetic` draws."""
_OLD_LAST = "last.safetensors"
"""The loop state until November 2026."""
_FETCH = "fetch the run again, or train it into another --out"
COMMANDS = "`bas train-head --out` or `bas finetune --out`"
"""What makes such a folder."""


@dataclass(frozen=True)
class EpochLine:
    """One epoch of the history; a line of `log.csv`."""

    epoch: int
    """From 1."""
    loss: float
    """Mean over the steps of the epoch."""
    lr: float
    """At the end of the epoch."""
    headline: float
    """Validation mAP that chooses the checkpoint, 0 to 1: mAP-10 for SoccerNet's classes, else over all."""
    mean: float
    """Validation mAP over all classes."""
    seconds: float
    """Of the whole epoch."""
    valid_seconds: float
    """Of its validation."""
    waiting_share: float = 0.0
    """Share of the time of the steps that was spent waiting for their batches, 0 to 1."""
    valid_loss: float | None = None
    """Mean over the windows that validation scores; None in runs until November 2026."""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EpochLine":
        """Inverse of `asdict`; any error of plain Python where it is none."""
        numbers = {name: float(value) for name, value in record.items() if name != "epoch" and value is not None}
        return cls(epoch=_whole(record["epoch"]), **numbers)


@dataclass
class LoopState:
    """Where a run stands: everything beside tensors that the next step depends on. Randomness needs no state: it is a
    function of (seed, epoch, step)."""

    epoch: int = 0
    """Epoch under way, from 0."""
    step: int = 0
    """Optimizer steps done in it."""
    loss_sum: float = 0.0
    """Over these steps."""
    seconds: float = 0.0
    """Spent in this epoch."""
    best_epoch: int = 0
    """Epoch (from 1) of the kept weights; 0: none yet."""
    best: ValidationResult | None = None
    """Its validation."""
    reference: float = -1.0
    """Headline that the next improvement is counted from, for early stopping."""
    reference_loss: float = inf
    """The same of the validation loss."""
    stale_epochs: int = 0
    """Epochs since either improved enough."""
    history: list[EpochLine] = field(default_factory=list)
    """Finished epochs."""

    def total_steps(self, settings: TrainSettings) -> int:
        """Steps done, over all epochs."""
        return self.epoch * settings.steps_per_epoch + self.step

    def is_over(self, settings: TrainSettings) -> bool:
        """Whether all epochs are done, or validation has stopped improving."""
        return self.epoch >= settings.epochs or 0 < settings.patience <= self.stale_epochs

    def finish_epoch(self, line: EpochLine, result: ValidationResult, settings: TrainSettings) -> bool:
        """Count a validated epoch; True where its weights are to be kept: the best so far, or the last."""
        self.history.append(line)
        self.epoch, self.step, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0
        is_kept = self.best is None or result.headline > self.best.headline or settings.keep == "last"
        if is_kept:
            self.best, self.best_epoch = result, line.epoch
        self.stale_epochs += 1
        if result.headline > self.reference:
            self.reference, self.stale_epochs = result.headline, 0
        if line.valid_loss is not None and line.valid_loss < self.reference_loss - settings.min_improvement:
            self.reference_loss, self.stale_epochs = line.valid_loss, 0
        return is_kept

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "LoopState":
        """Inverse of `asdict`."""
        best = ValidationResult.from_json(record["best"]) if record["best"] else None
        return cls(**{**record, "best": best, "history": [EpochLine.from_json(line) for line in record["history"]]})


def write_weights(path: Path, model: nn.Module) -> None:
    """Write weights and buffers of a model, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with disk_errors(path):
        write_atomic(path, save(tensors))


def read_weights(path: Path, model: nn.Module) -> None:
    """Load what `write_weights` wrote.

    Raises:
        InputError: missing, damaged, or of another network.
    """
    require_shapes(path, model)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
    # BatchNorm of older runs had no counter of batches, and needs none
    wanted = {
        name: shape for name, shape in wanted.items() if name in found or not name.endswith("num_batches_tracked")
    }
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise InputError(
            f"{path}: weights of another network",
            got=f"{wrong[0]} {found.get(wrong[0], 'is missing')}"[:160],
            wanted=f"{wanted.get(wrong[0], 'no such tensor')}",
            cure="restore the folder as it was trained, or train again into another --out",
        )


def write_checkpoint(path: Path, trainer: "Trainer", state: LoopState) -> None:
    """Write everything that the next step depends on, in one file: two files could be of two steps after a kill."""
    record = {
        "loop": asdict(state),
        "model": trainer.model.state_dict(),
        "average": trainer.average.state_dict() if trainer.average is not None else None,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict() if trainer.scaler else None,
    }
    data = io.BytesIO()  # in memory first: torch cannot write a file whole or not at all
    torch.save(record, data)
    with disk_errors(path):
        write_atomic(path, data.getvalue())


def read_checkpoint(path: Path, trainer: "Trainer") -> LoopState | None:
    """Load what `write_checkpoint` wrote; None where there is no such file.

    Raises:
        InputError: damaged, of another network, or of an older version of bas.
    """
    if not path.exists():
        if path.with_name(_OLD_LAST).exists():
            raise InputError(
                f"{path.parent}: an unfinished run of an older version of bas",
                got=_OLD_LAST,
                wanted=path.name,
                cure="finish it with that version, or train again into another --out",
            )
        return None
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)  # a run from elsewhere is data, never code
    except Exception as error:  # torch raises of every kind, by the place of the damage
        raise _damaged(path, repr(error)) from None
    with reading_record(f"{path}: damaged", cure=_FETCH):
        _load(path, trainer.model, record["model"])
        if trainer.average is not None:
            _load(path, trainer.average, record["average"])
        trainer.optimizer.load_state_dict(record["optimizer"])
        if trainer.scaler and record["scaler"]:
            trainer.scaler.load_state_dict(record["scaler"])
        return LoopState.from_json(record["loop"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", cure="give the command that began the run again")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except InputError:
        raise
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def _load(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{path}: weights of another network",
            got=str(error).splitlines()[-1].strip()[:160],
            cure="restore the folder as it was trained, or train again into another --out",
        ) from None


def _damaged(path: Path, got: str) -> InputError:
    return InputError(f"{path}: damaged", got=got[:160], cure=_FETCH)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, finished or under way."""

    settings: TrainSettings
    """The recipe."""
    features: FeatureSettings
    """What the store's rows were made with; prediction needs rows of the same."""
    classes: tuple[str, ...]
    """Class names in the order of the outputs."""
    teams: tuple[str, ...] = ()
    """Of joint classes: each label has one for each of these, side by side; empty: classes are labels."""
    fps: Fraction
    """Rows per second."""
    train_matches: tuple[str, ...]
    valid_matches: tuple[str, ...]
    num_train_events: Mapping[str, int]
    """Class -> events."""
    num_parameters: int
    num_lost: int = 0
    """Training events that softmax labels cannot show, as another event has their step."""
    software: Mapping[str, str]
    history: tuple[EpochLine, ...] = ()
    best_epoch: int = 0
    """Epoch (from 1) whose weights are kept; 0: none yet."""
    best: ValidationResult | None = None
    """Its validation, with the default peaks."""
    peaks: PeakSettings | None = None
    """Chosen on validation; None while the run is unfinished."""
    calibration: FittedCalibration | None = None
    """Fitted on validation."""
    peaks_tried: tuple[Mapping[str, Any], ...] = ()
    """What they were chosen from, with headline and mean of each."""
    chosen: ValidationResult | None = None
    """Validation with these peaks, uncalibrated."""
    start: FeatureSettings | None = None
    """Of a finetuned run: the features that its backbone began with; `features` are those of the weights it kept."""
    store_hint: str = field(default="", compare=False)
    """Where the store (of a finetuned run the data set) lay when the run began or last went on: relative to the run's
    folder where that is possible. It may have moved since, and nothing depends on it."""

    @classmethod
    def new(
        cls,
        settings: TrainSettings,
        chosen: Chosen,
        features: FeatureSettings,
        *,
        num_parameters: int,
        **others: Any,
    ) -> "RunRecord":
        """The record of a run that begins; `others` are fields as they are."""
        return cls(
            settings=settings,
            features=features,
            classes=chosen.classes,
            teams=chosen.teams,
            fps=chosen.fps,
            train_matches=tuple(match.id for match in chosen.train),
            valid_matches=tuple(match.id for match in chosen.valid),
            num_train_events=dict(zip(chosen.classes, chosen.class_counts, strict=True)),
            num_parameters=num_parameters,
            software={"bas": __version__, "torch": torch.__version__, "python": platform.python_version()},
            **others,
        )

    @property
    def is_finetuned(self) -> bool:
        """Whether the backbone was trained with the head: the run's folder holds it."""
        return self.start is not None

    @property
    def command(self) -> str:
        """What makes such a run, and goes on with it."""
        return "finetune" if self.is_finetuned else "train-head"

    @property
    def began_with(self) -> FeatureSettings:
        """Features of the first step."""
        return self.start or self.features

    @property
    def finished(self) -> bool:
        """Nothing is left to train."""
        return self.peaks is not None

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why it finds little in real matches: it knows synthetic ones only, or features of random weights."""
        found = []
        if self.train_matches and all(_SYNTHETIC in f"/{match_id}" for match_id in self.train_matches):
            found.append("it was trained on synthetic matches only: what it says of real football means nothing")
        if self.features.weights == "none" and not (self.is_finetuned or self.features.is_imported):
            found.append("it was trained on features of random weights: extract with pretrained ones to spot actions")
        if "+" in self.features.backbone and self.features.weights == "imagenet" and not self.is_finetuned:
            found.append("the modules of its backbone that see time were never trained: bas finetune trains them")
        return tuple(found)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """(label, team) of each output; the team is empty where classes are labels."""
        teams = [self.teams[index % len(self.teams)] if self.teams else "" for index in range(len(self.classes))]
        return tuple(
            (name.removesuffix(team_label("", team)) if team else name, team)
            for name, team in zip(self.classes, teams, strict=True)
        )

    @property
    def is_soccernet(self) -> bool:
        """The twelve classes of SoccerNet: mAP-10 is the headline."""
        return len(mean_groups(self.classes)) > 1

    def after(self, state: LoopState) -> "RunRecord":
        """The record with the epochs of a state."""
        return replace(self, history=tuple(state.history), best_epoch=state.best_epoch, best=state.best)

    def finish(self, chosen: PostProcessing) -> "RunRecord":
        """The record of a finished run."""
        tried = tuple(vars(row) | {"settings": row.settings.to_json()} for row in chosen.table)
        return replace(
            self, peaks=chosen.peaks, peaks_tried=tried, calibration=chosen.calibration, chosen=chosen.result
        )

    def write(self, folder: Path) -> None:
        """Write `run.json`."""
        with disk_errors(folder):
            write_json_atomic(folder / RUN, {"format": FORMAT, **self.to_json()})

    def require_same(self, other: "RunRecord", *, out: Path) -> None:
        """Refuse to go on with a run of other settings or data.

        Raises:
            InputError: names what differs.
        """
        if self.is_finetuned != other.is_finetuned:
            raise InputError(
                f"{out}: holds a run of another kind",
                got="bas finetune" if other.is_finetuned else "bas train-head",
                cure="name another --out",
            )
        wrong = self.settings.differing(other.settings)
        mine, theirs = self.settings.to_json(), other.settings.to_json()
        for name in self.began_with.differing(other.began_with):
            wrong.append(f"features.{name}")
            mine[wrong[-1]], theirs[wrong[-1]] = getattr(self.began_with, name), getattr(other.began_with, name)
        for name in ("classes", "train_matches", "valid_matches"):
            if getattr(self, name) != getattr(other, name):
                wrong.append(name)
                mine[name], theirs[name] = "of this data", "of another"
        if self.num_train_events != other.num_train_events and not wrong:
            wrong, mine["labels"], theirs["labels"] = ["labels"], "of this data", "others"
        refuse_differing(
            wrong,
            f"{out}: holds a run with other settings",
            got=mine,
            wanted=theirs,
            cure="name another --out, or use the run's own settings to go on with it",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        own = ("settings", "features", "start", "fps", "peaks", "calibration")  # these know their JSON themselves
        return {
            **{name: value for name, value in asdict(self).items() if name not in own},
            "settings": self.settings.to_json(),
            "features": self.features.to_json(),
            "features_key": self.features.key(),
            "start": self.start.to_json() if self.start else None,
            "fps": str(self.fps),
            "peaks": self.peaks.to_json() if self.peaks else None,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
        }

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """From the `run.json` of a run's folder.

        Raises:
            InputError: no run, another format, or damaged.
        """
        path = folder / RUN
        if not path.is_file():
            raise InputError(
                f"{folder}: not a run",
                got="no such folder" if not folder.exists() else f"a folder without {RUN}",
                wanted=f"the folder that {COMMANDS} made",
            )
        record, where = read_json(path), str(path)
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        if found != FORMAT:
            cure = "use the version of bas that trained it"
            raise InputError(f"{where}: another format", got=found, wanted=FORMAT, cure=cure)
        with reading_record(f"{where}: damaged", cure="fetch the run again"):
            start = record.get("start")
            kind = TrainSettings if start is None else FinetuneSettings
            return cls(
                settings=kind.from_json(record["settings"], where=where),
                features=FeatureSettings.from_json(record["features"]),
                classes=_texts(record["classes"]),
                teams=_texts(record.get("teams", [])),
                fps=TimeGrid.parse(record["fps"]).fps,
                train_matches=_texts(record["train_matches"]),
                valid_matches=_texts(record["valid_matches"]),
                num_train_events={name: _whole(count) for name, count in record["num_train_events"].items()},
                num_parameters=_whole(record["num_parameters"]),
                num_lost=_whole(record["num_lost"]),
                software={name: str(version) for name, version in record["software"].items()},
                history=tuple(map(EpochLine.from_json, record["history"])),
                best_epoch=_whole(record["best_epoch"]),
                best=ValidationResult.from_json(record["best"]) if record["best"] else None,
                peaks=PeakSettings.from_json(record["peaks"]) if record["peaks"] else None,
                calibration=FittedCalibration.from_json(record["calibration"]) if record["calibration"] else None,
                peaks_tried=tuple(dict(row) for row in record["peaks_tried"]),
                chosen=ValidationResult.from_json(record["chosen"]) if record["chosen"] else None,
                start=None if start is None else FeatureSettings.from_json(start),
                store_hint=str(record.get("store_hint", "")),
            )


def _whole(value: object) -> int:
    """The value, where it is a whole number of at most 63 bits; TypeError where not."""
    if type(value) is not int or abs(value) >= 1 << 63:
        raise TypeError(f"{value!r} is no whole number"[:80])
    return value


def _texts(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{names!r} is no list of names"[:80])
    return tuple(names)
