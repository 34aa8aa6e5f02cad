"""Finished runs at work: the mean of their confidences over a match.

Legend: R rows of the match, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from ..cache.bank import FeatureBank
from ..cache.reduction import Reduction, read_reduction
from ..cache.settings import FeatureSettings
from ..cache.store import FeatureStore
from ..errors import InputError, refuse_differing
from .model import SpottingModel, build_model
from .registry import require_own_modules
from .scoring import FloatArray, match_scores
from .training.checkpoint import BEST, COMMANDS, RunRecord, read_weights, require_shapes


@dataclass(frozen=True)
class LoadedRun:
    """One finished run with its network."""

    folder: Path
    record: RunRecord
    model: SpottingModel
    """In eval mode, on the device."""
    weights_sha256: str
    """Of its weights file."""
    reduction: Reduction | None = None
    """Of the rows that it needs; None: full rows."""

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "LoadedRun":
        """From the run's folder.

        Raises:
            InputError: no run, not finished, or damaged.
        """
        record = RunRecord.read(folder)
        if not record.finished:
            raise InputError(
                f"{folder}: the run is not finished",
                got=f"{len(record.history)} of up to {record.settings.epochs} epochs, and no peaks chosen",
                cure=f"give the same `bas {record.command} ... --out {folder}` again: it goes on where it stopped",
            )
        require_own_modules(record.settings.head, folder)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):  # what run.json asks for takes no memory yet
            require_shapes(folder / BEST, _model(record))
        model = _model(record)
        read_weights(folder / BEST, model)
        weights_sha256 = sha256((folder / BEST).read_bytes()).hexdigest()
        reduction = read_reduction(folder, record.features)
        return cls(folder, record, model.to(device).eval(), weights_sha256, reduction)


def _model(record: RunRecord) -> SpottingModel:
    num_classes = len(record.classes)
    return build_model(record.settings, dim=record.features.dim, num_classes=num_classes, features=record.features)


@dataclass(frozen=True)
class Ensemble:
    """One run or more of the same classes and features."""

    runs: tuple[LoadedRun, ...]
    """In the order given; the first says which peaks and calibration are used."""
    device: torch.device

    @classmethod
    def load(cls, folders: Sequence[Path], device: torch.device) -> "Ensemble":
        """From one or more folders of runs.

        Raises:
            InputError: none, one that cannot be used, or runs that do not fit together (names what differs).
        """
        if not folders:
            raise InputError("no run", wanted=f"the folder that {COMMANDS} made", cure="--run FOLDER")
        ensemble = cls(tuple(LoadedRun.load(folder, device) for folder in folders), device)
        for run in ensemble.runs[1:]:
            ensemble._require_fits(run)
        return ensemble

    @property
    def first(self) -> RunRecord:
        """The record of the first run."""
        return self.runs[0].record

    @property
    def features(self) -> FeatureSettings:
        """What the rows must be made with."""
        return self.first.features

    @property
    def reduction(self) -> Reduction | None:
        """How full rows become those; None where they are full."""
        return self.runs[0].reduction

    @property
    def full_features(self) -> FeatureSettings:
        """What full rows must be made with: `features`, unless they are reduced."""
        return self.reduction.source if self.reduction else self.features

    @property
    def view(self) -> str:
        """The view of the rows that validation saw."""
        return self.first.settings.views[0]

    def scores(
        self, bank: FeatureBank, *, on_progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> FloatArray:
        """Mean of the runs' confidences, each with its own windows.

        Args:
            bank: the match's rows and no others; gathers on the ensemble's device.
            on_progress: called with rows done and in all, over all runs.

        Returns:
            (R, K) float32 in [0, 1].
        """
        num_all = bank.num_rows * len(self.runs)
        sum_rk: FloatArray | None = None
        for number, run in enumerate(self.runs):

            def count(done: int, total: int, before: int = number) -> None:
                on_progress(before * bank.num_rows + bank.num_rows * done // total, num_all)

            plan = run.record.settings.scoring_plan
            scores_rk = match_scores(
                run.model,
                bank.gather,
                bank.num_rows,
                plan,
                num_classes=len(self.first.classes),
                on_progress=count,
            )
            sum_rk = scores_rk if sum_rk is None else sum_rk + scores_rk
        assert sum_rk is not None
        return sum_rk / np.float32(len(self.runs))

    def require_store(self, store: FeatureStore, *, cure: str) -> None:
        """Refuse a store whose rows are of other settings than the runs were trained on.

        Raises:
            InputError: they are; names what differs.
        """
        wanted = self.full_features if store.settings.reduction is None else self.features
        refuse_differing(
            store.settings.differing(wanted),
            f"{store.path}: rows of other settings than the run was trained on",
            got=vars(store.settings),
            wanted=vars(wanted),
            cure=cure,
        )

    def _require_fits(self, run: LoadedRun) -> None:
        mine, theirs = self.first, run.record
        differing: dict[str, tuple[object, object]] = {
            name: (getattr(theirs.features, name), getattr(mine.features, name))
            for name in theirs.features.differing(mine.features)
        }
        for name, got, wanted in (
            ("classes", ", ".join(theirs.classes), ", ".join(mine.classes)),
            ("rows per second", theirs.fps, mine.fps),
            ("view", theirs.settings.views[0], mine.settings.views[0]),
        ):
            if got != wanted:
                differing[name] = (got, wanted)
        is_other_backbone = "weights_sha256" in differing
        if differing:
            raise InputError(
                f"{run.folder}: does not go together with {self.runs[0].folder}: other {', '.join(differing)}",
                got="; ".join(f"{name} {got}" for name, (got, _) in differing.items()),
                wanted="; ".join(f"{name} {wanted}" for name, (_, wanted) in differing.items()),
                cure="name runs that were trained on the same features with the same class list"
                + ("; runs of bas finetune go one by one, each has its own backbone" if is_other_backbone else ""),
            )
