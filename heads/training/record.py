"""What a run says of itself: the content of `run.json`."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...cache.settings import FeatureSettings
from ...errors import InputError, named_values, reading_record
from ...eval.calibrate import FittedCalibration
from ...eval.peaks import PeakSettings
from ...eval.report import mean_groups
from ...events import TimeGrid
from .checkpoint import RUN, EpochLine, LoopState, read_run, whole
from .data import Chosen
from .judge import Choice, Verdict
from .settings import FinetuneSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, finished or under way."""

    settings: TrainSettings
    """The recipe."""
    features: FeatureSettings
    """What the store's rows were made with; prediction needs rows of the same."""
    classes: tuple[str, ...]
    """Class names in the order of the outputs."""
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
    best: Verdict | None = None
    """Its validation, with the default peaks."""
    peaks: PeakSettings | None = None
    """Chosen on validation; None while the run is unfinished."""
    calibration: FittedCalibration | None = None
    """Fitted on validation."""
    peaks_tried: tuple[Mapping[str, Any], ...] = ()
    """What they were chosen from, with headline and mean of each."""
    chosen: Verdict | None = None
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
        """Features of the first update."""
        return self.start or self.features

    @property
    def finished(self) -> bool:
        """Nothing is left to train."""
        return self.peaks is not None

    @property
    def is_soccernet(self) -> bool:
        """The twelve classes of SoccerNet: mAP-10 is the headline."""
        return len(mean_groups(self.classes)) > 1

    def after(self, state: LoopState) -> "RunRecord":
        """The record with the epochs of a state."""
        return replace(self, history=tuple(state.history), best_epoch=state.best_epoch, best=state.best)

    def finish(self, choice: Choice) -> "RunRecord":
        """The record of a finished run."""
        tried = tuple(vars(row) | {"settings": row.settings.to_json()} for row in choice.table)
        return replace(
            self, peaks=choice.peaks, peaks_tried=tried, calibration=choice.calibration, chosen=choice.verdict
        )

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
        if wrong:
            raise InputError(
                f"{out}: holds a run with other settings; these differ: {', '.join(wrong)}",
                got=named_values(wrong, mine),
                wanted=named_values(wrong, theirs),
                cure="name another --out, or use the run's own settings to go on with it",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{name: value for name, value in asdict(self).items() if name not in _OWN_JSON},
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
        record, where = read_run(folder), str(folder / RUN)
        with reading_record(f"{where}: damaged", cure="fetch the run again"):
            start = record.get("start")
            kind = TrainSettings if start is None else FinetuneSettings
            return cls(
                settings=kind.from_json(record["settings"], where=where),
                features=FeatureSettings.from_json(record["features"]),
                classes=_texts(record["classes"]),
                fps=TimeGrid.parse(record["fps"]).fps,
                train_matches=_texts(record["train_matches"]),
                valid_matches=_texts(record["valid_matches"]),
                num_train_events={name: whole(count) for name, count in record["num_train_events"].items()},
                num_parameters=whole(record["num_parameters"]),
                num_lost=whole(record["num_lost"]),
                software={name: str(version) for name, version in record["software"].items()},
                history=tuple(map(EpochLine.from_json, record["history"])),
                best_epoch=whole(record["best_epoch"]),
                best=Verdict.from_json(record["best"]) if record["best"] else None,
                peaks=PeakSettings.from_json(record["peaks"]) if record["peaks"] else None,
                calibration=FittedCalibration.from_json(record["calibration"]) if record["calibration"] else None,
                peaks_tried=tuple(dict(row) for row in record["peaks_tried"]),
                chosen=Verdict.from_json(record["chosen"]) if record["chosen"] else None,
                start=None if start is None else FeatureSettings.from_json(start),
                store_hint=str(record.get("store_hint", "")),
            )


def _texts(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{names!r} is no list of names"[:80])
    return tuple(names)


_OWN_JSON = ("settings", "features", "start", "fps", "peaks", "calibration")
