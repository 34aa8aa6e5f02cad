"""The log of a run: the table, and what TensorBoard shows of the events, after a resume too."""

import csv
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from bas.heads.training.checkpoint import EpochLine, LoopState
from bas.heads.training.log import RunLog
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]
Shown = dict[str, list[tuple[int, float]]]


def events(path: Path) -> list[Event]:
    """Of one file: records of length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        assert len(data) >= 16 + length, "a torn record"
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def shown(folder: Path) -> Shown:
    """Scalars by name as (step, value), as TensorBoard shows them: a start hides earlier events of its step and on."""
    found: Shown = defaultdict(list)
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                for name in found:
                    found[name] = [(step, value) for step, value in found[name] if step < event.step]
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
    return found


def line(epoch: int) -> EpochLine:
    return EpochLine(epoch, 1.0 / epoch, 1e-3, 0.1 * epoch, 0.05 * epoch, 2.0, 1.0)


def state(epoch: int, step: int) -> LoopState:
    return LoopState(epoch=epoch, step=step, history=[line(number) for number in range(1, epoch + 1)])


def log_epoch(log: RunLog, epoch: int, *, first_step: int = 0, value: float = 0.0) -> None:
    """The six updates of an epoch of `tiny`, then the epoch."""
    for step in range(first_step, 6):
        log.step((epoch - 1) * 6 + step, loss=value, lr=1e-3)
    log.epoch(line(epoch))


def test_epochs_are_lines_of_a_table(tmp_path: Path, tiny: Tiny) -> None:
    with RunLog.open(tmp_path, LoopState(), tiny()) as log:
        log_epoch(log, 1)
        log_epoch(log, 2)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    first = ["epoch", "loss", "lr", "headline", "mean", "seconds", "valid_seconds"]
    assert list(rows[0]) == [*first, "waiting_share", "valid_loss"]
    assert [float(row["loss"]) for row in rows] == [1.0, 0.5]
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "tensorboard"]


def test_events_are_shown_by_step(tmp_path: Path, tiny: Tiny) -> None:
    with RunLog.open(tmp_path, LoopState(), tiny()) as log:
        log_epoch(log, 1, value=0.5)
        log_epoch(log, 2, value=0.25)
    found = shown(tmp_path / "tensorboard")
    assert found["train/loss"] == [*((step, 0.5) for step in range(6)), *((step, 0.25) for step in range(6, 12))]
    assert dict(found["valid/map"]) == pytest.approx({5: 0.05, 11: 0.1})
    assert dict(found["valid/headline_map"]) == pytest.approx({5: 0.1, 11: 0.2})
    assert found["train/epoch_loss"] == [(5, 1.0), (11, 0.5)]
    assert [step for step, _ in found["train/lr"]] == list(range(12))
    first = events(next((tmp_path / "tensorboard").iterdir()))[0]
    assert first.file_version == "brain.Event:2"  # newer files hide by step, older ones by order


def test_events_are_on_the_disk_soon_after_they_were_logged(tmp_path: Path, tiny: Tiny) -> None:
    with RunLog.open(tmp_path, LoopState(), tiny()) as log:
        log_epoch(log, 1)
        deadline = time.monotonic() + 20
        while not shown(tmp_path / "tensorboard")["valid/map"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [step for step, _ in shown(tmp_path / "tensorboard")["valid/map"]] == [5]


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 4), (1, 0), (1, 3), (2, 0)])
def test_after_a_resume_every_step_is_shown_once_and_as_done_last(
    tmp_path: Path, tiny: Tiny, epoch: int, step: int
) -> None:
    with RunLog.open(tmp_path, LoopState(), tiny()) as log:  # killed somewhere in epoch 3
        log_epoch(log, 1, value=0.5)
        log_epoch(log, 2, value=0.5)
        log.step(12, loss=0.5, lr=1e-3)
    with RunLog.open(tmp_path, state(epoch, step), tiny()) as log:
        for number in range(epoch + 1, 4):
            log_epoch(log, number, first_step=step if number == epoch + 1 else 0, value=0.25)
    found, first = shown(tmp_path / "tensorboard"), epoch * 6 + step
    assert found["train/loss"] == [(update, 0.5 if update < first else 0.25) for update in range(18)]
    for name in ("valid/map", "valid/headline_map", "train/epoch_loss"):
        assert [update for update, _ in found[name]] == [5, 11, 17]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
