"""The log of a run: `log.csv`, one line per epoch, and TensorBoard events."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...files import disk_errors, write_atomic
from .checkpoint import LOG, TENSORBOARD, EpochLine, LoopState
from .settings import TrainSettings


@dataclass
class RunLog:
    """Writes both; made by `open`. After a resume, what is done again replaces what a kill had left of it."""

    folder: Path
    lines: list[EpochLine]
    """Finished epochs."""
    writer: Any
    """Of TensorBoard."""
    steps_per_epoch: int

    @classmethod
    @contextmanager
    def open(cls, folder: Path, state: LoopState, settings: TrainSettings) -> Iterator["RunLog"]:
        """The log of a run that goes on from `state`; closed at the end of the `with`."""
        from tensorboardX import SummaryWriter  # 0.3 s

        first_step = state.total_steps(settings)
        with disk_errors(folder):
            # purge_step: TensorBoard hides what earlier files hold of this step and later ones. The step in the name
            # keeps two files of one second apart. A thread writes the events: a kill loses those of the last second.
            writer = SummaryWriter(
                str(folder / TENSORBOARD), purge_step=first_step, filename_suffix=f".{first_step}", flush_secs=1
            )
        try:
            yield cls(folder, list(state.history), writer, settings.steps_per_epoch)
        finally:
            with disk_errors(folder):
                writer.close()

    def step(self, step: int, *, loss: float, lr: float) -> None:
        """Log the mean loss of the epoch so far at a step (from 0, over all epochs), to TensorBoard."""
        self._scalars(step, {"train/loss": loss, "train/lr": lr})

    def epoch(self, line: EpochLine) -> None:
        """Log a finished epoch, to both; its events lie at its last step."""
        self.lines.append(line)
        values = {"valid/headline_map": line.headline, "valid/map": line.mean, "train/epoch_loss": line.loss}
        others = {"valid/loss": line.valid_loss, "train/waiting_share": line.waiting_share}
        values |= {name: value for name, value in others.items() if value}
        self._scalars(line.epoch * self.steps_per_epoch - 1, values)
        text = io.StringIO()
        writer = csv.DictWriter(text, [each.name for each in fields(EpochLine)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in self.lines)
        with disk_errors(self.folder):
            write_atomic(self.folder / LOG, text.getvalue().encode())

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        with disk_errors(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
