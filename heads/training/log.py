"""The log of a run: `log.csv`, one line per epoch, and TensorBoard events."""

import csv
import io
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...files import disk_errors, write_atomic
from .checkpoint import LOG, TENSORBOARD, EpochLine, LoopState
from .settings import TrainSettings


class RunLog:
    """Writes both. After a resume what is done again replaces what a kill had left of it; made by `open`.

    The events are written here and now: `SummaryWriter` leaves them to a thread, which a kill ends with its queue.
    """

    def __init__(self, folder: Path, history: Iterable[EpochLine], *, events: Any, updates_per_epoch: int) -> None:
        self._folder, self._lines, self._events = folder, list(history), events
        self._updates_per_epoch = updates_per_epoch

    @classmethod
    @contextmanager
    def open(cls, folder: Path, state: LoopState, settings: TrainSettings) -> Iterator["RunLog"]:
        """The log of a run that goes on from `state`; closed at the end of the `with`."""
        from tensorboardX.event_file_writer import EventsWriter  # 0.3 s
        from tensorboardX.proto.event_pb2 import SessionLog

        first_update = state.update(settings)
        with disk_errors(folder):
            (folder / TENSORBOARD).mkdir(exist_ok=True)
            events = EventsWriter(str(folder / TENSORBOARD / "events"), f".{first_update}")
        try:
            log = cls(folder, state.history, events=events, updates_per_epoch=settings.batches_per_epoch)
            # TensorBoard hides what earlier files hold of this step and later ones
            log._write(first_update, session_log=SessionLog(status=SessionLog.START))
            yield log
        finally:
            with disk_errors(folder):
                events.close()

    def update(self, update: int, *, loss: float, lr: float, flush: bool) -> None:
        """Mean loss of the epoch so far at an update (from 0, over all epochs), to TensorBoard (`flush`: its file)."""
        self._scalars(update, {"train/loss": loss, "train/lr": lr}, flush=flush)

    def epoch(self, line: EpochLine) -> None:
        """A finished epoch, to both; the events lie at its last update."""
        self._lines.append(line)
        values = {"valid/headline_map": line.headline, "valid/map": line.mean, "train/epoch_loss": line.loss}
        if line.waiting_share:
            values["train/waiting_share"] = line.waiting_share
        self._scalars(line.epoch * self._updates_per_epoch - 1, values, flush=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, [each.name for each in fields(EpochLine)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in self._lines)
        with disk_errors(self._folder):
            write_atomic(self._folder / LOG, text.getvalue().encode())

    def _scalars(self, update: int, values: dict[str, float], *, flush: bool) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(update, summary=scalar(name, value))
        if flush:
            with disk_errors(self._folder):
                self._events.flush()

    def _write(self, update: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with disk_errors(self._folder):
            self._events.write_event(Event(wall_time=time.time(), step=update, **content))


class SilentLog:
    """Of a process that leaves the log to another."""

    def update(self, update: int, *, loss: float, lr: float, flush: bool) -> None:
        """Nothing."""

    def epoch(self, line: EpochLine) -> None:
        """Nothing."""
