"""The folder of a finetuned run as extraction sees it: the backbone's weights, and the settings that go with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.match import WeightsOrigin
from ...cache.settings import FeatureSettings
from ...errors import InputError, reading_record
from ...files import file_sha256, read_json

BACKBONE = "backbone.safetensors"
"""A finetuned run's backbone, by `weights.save_backbone_checkpoint`."""
RUN, FORMAT = "run.json", "bas-run-1"
"""As `heads` writes them, which is not imported here; a test holds them together."""
KNOWN_NAMES = ("kinetics", "imagenet", "none")
"""Weights by name; a folder called so is named by `./kinetics`."""


@dataclass(frozen=True)
class FinetunedRun:
    """A finished run with a backbone of its own."""

    folder: Path
    features: FeatureSettings
    """Of the rows that its head was trained on, and so of every row that its backbone makes."""
    run_sha256: str
    """Of `run.json`."""
    epoch: int
    """From 1."""
    train_matches: tuple[str, ...]
    valid_matches: tuple[str, ...]

    @property
    def backbone(self) -> Path:
        """The weights file."""
        return self.folder / BACKBONE

    @property
    def origin(self) -> WeightsOrigin:
        """For the store that its features go into."""
        return WeightsOrigin(
            name=self.folder.resolve().name,
            file_sha256=file_sha256(self.backbone),
            run_sha256=self.run_sha256,
            epoch=self.epoch,
            train_matches=self.train_matches,
            valid_matches=self.valid_matches,
        )

    @classmethod
    def read(cls, folder: Path) -> "FinetunedRun":
        """From a run's folder.

        Raises:
            InputError: no run, damaged, not finished, or without a backbone of its own.
        """
        record = _read(folder)
        with reading_record(f"{folder / RUN}: damaged", cure="fetch the run again"):
            features = FeatureSettings.from_json(record["features"])
            train, valid = tuple(record["train_matches"]), tuple(record["valid_matches"])
            if not all(isinstance(name, str) for name in (*train, *valid)):
                raise TypeError("matches are no names")
            run = cls(folder, features, file_sha256(folder / RUN), int(record["best_epoch"]), train, valid)
            is_finished = record["peaks"] is not None
        if not run.backbone.is_file():
            raise InputError(
                f"{folder}: the run has no backbone of its own",
                got=f"no {BACKBONE}: " + ("its head was trained on a store" if is_finished else "it is not finished"),
                wanted="a finished run of `bas finetune`",
                cure=f"name the weights that its features are made with: {features.weights}",
            )
        if not is_finished:
            raise InputError(
                f"{folder}: the run is not finished",
                got="no peaks chosen, and its backbone may still change",
                cure=f"give the same `bas finetune ... --out {folder}` again: it goes on where it stopped",
            )
        return run


def finetuned_run(weights: str | None) -> FinetunedRun | None:
    """The run that `--weights` names; None where it names no folder. Raises as `FinetunedRun.read`."""
    if weights is None or weights in KNOWN_NAMES:
        return None
    folder = Path(weights).expanduser()
    return FinetunedRun.read(folder) if folder.is_dir() else None


def has_backbone(folder: Path) -> bool:
    """Whether a run's folder holds a backbone of its own."""
    return (folder / BACKBONE).is_file()


def _read(folder: Path) -> Mapping[str, Any]:
    """`run.json`."""
    path = folder / RUN
    if not path.is_file():
        raise InputError(
            f"{folder}: not a run",
            got=f"a folder without {RUN}",
            wanted="the folder that `bas finetune --out` made, or a weights file",
        )
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        got = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise InputError(f"{path}: another format", got=got, wanted=FORMAT, cure="use the version of bas that made it")
    return record
