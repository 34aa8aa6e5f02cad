"""The log of a run: `log.csv`, one line per epoch, and TensorBoard events."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from ...cache.files import disk_errors, replace_synced
from .checkpoint import LOG, TENSORBOARD, EpochLine


class RunLog:
    """Writes both; after a resume the epochs that are done again replace what a kill had left of them."""

    def __init__(self, folder: Path, history: Iterable[EpochLine], *, updates_per_epoch: int) -> None:
        from tensorboardX import SummaryWriter  # 0.3 s

        self._folder, self._lines, self._updates_per_epoch = folder, list(history), updates_per_epoch
        with disk_errors(folder):
            self._events = SummaryWriter(
                str(folder / TENSORBOARD), purge_step=len(self._lines) * updates_per_epoch, write_to_disk=True
            )

    def update(self, update: int, *, loss: float, lr: float) -> None:
        """Loss at an update (from 0, over all epochs), to TensorBoard."""
        self._events.add_scalar("train/loss", loss, update)
        self._events.add_scalar("train/lr", lr, update)

    def epoch(self, line: EpochLine) -> None:
        """A finished epoch, to both."""
        self._lines.append(line)
        update = line.epoch * self._updates_per_epoch
        self._events.add_scalar("valid/headline_map", line.headline, update)
        self._events.add_scalar("valid/map", line.mean, update)
        self._events.add_scalar("train/epoch_loss", line.loss, update)
        self._events.flush()
        text = io.StringIO()
        writer = csv.DictWriter(text, [each.name for each in fields(EpochLine)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in self._lines)
        with disk_errors(self._folder):
            replace_synced(self._folder / f".{LOG}.part", self._folder / LOG, text.getvalue().encode())

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._events.close()
