"""Run by the tests of both loops in a process of its own: trains in children that are killed, and goes on here.

train_child.py DATA FOLDER SETTINGS-JSON [STEP]
    An uninterrupted run in FOLDER/whole; then for every one of `points` a run that dies there by SIGKILL, goes on,
    and must end with the same losses and bytes. With STEP a run dies before each STEP-th operation on files instead.
    Prints one line per point.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bas.heads.training import loop
from bas.heads.training.checkpoint import LAST, LOG, RUN, RunRecord
from bas.heads.training.evaluator import Evaluator
from bas.heads.training.log import RunLog
from bas.heads.training.settings import FinetuneSettings, TrainSettings

POINTS: dict[str, tuple[Any, str, int, bool]] = {
    "after a saving mid-epoch": (loop, "write_checkpoint", 6, True),
    "between an update and its saving": (loop, "write_checkpoint", 6, False),
    "after the last saving of an epoch, in its validation": (Evaluator, "validate", 2, False),
    "before the best weights": (loop, "write_weights", 1, False),
    "between best and log": (loop, "write_weights", 1, True),
    "between log and last": (RunLog, "epoch", 2, True),
    "between last and record": (RunRecord, "write", 2, False),
    "between the last epoch's state and its record": (RunRecord, "write", 3, False),
    "before the choice of peaks": (Evaluator, "choose", 1, False),
    "before the finished record": (RunRecord, "write", 4, False),
    "after the first record": (RunRecord, "write", 1, True),
}
"""Point -> where a function is looked up, its name, at which call of it to die, and whether after or before it."""


def points(settings: TrainSettings) -> dict[str, tuple[Any, str, int, bool]]:
    """`POINTS`, or those of finetuning, whose modules take seconds to import."""
    if not isinstance(settings, FinetuneSettings):
        return POINTS
    from bas.finetune import trainer

    return {
        "after a saving mid-epoch": (loop, "write_checkpoint", 5, True),
        "between an update and its saving": (loop, "write_checkpoint", 5, False),
        "between head and backbone": (trainer, "save_backbone_checkpoint", 1, False),
        "between backbone and last": (trainer, "save_backbone_checkpoint", 1, True),
        "before the choice of peaks": (Evaluator, "choose", 1, False),
    }


def run(data: Path, out: Path, settings: TrainSettings, *, save_seconds: float = -1.0) -> None:
    """Train; the state is saved after every step."""
    if not isinstance(settings, FinetuneSettings):
        loop.train(data, out, settings, device="cpu", save_seconds=save_seconds)
        return
    from bas.data.sources import find_sources
    from bas.extract.options import ExtractOptions
    from bas.finetune.devices import Devices
    from bas.finetune.loop import finetune
    from bas.finetune.start import Start

    asked = ExtractOptions(backbone="timm:test_resnet.r160_in1k", weights="none", size=(48, 32))
    finetune(
        find_sources([data]),
        out,
        settings,
        Start.of(settings, asked, None),
        devices=Devices(place="cpu"),
        engine="torch",
        decode_threads=1,
        save_seconds=save_seconds,
    )


def die_at(owner: Any, name: str, call: int, *, after: bool) -> None:
    """Let this process be killed before or after the `call`-th call (from 1) of a function."""
    real, left = getattr(owner, name), [call]

    def counted(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def die_before(operation: int) -> None:
    """Let this process be killed before its n-th operation on files (0-based)."""
    left = [operation]

    def audit(event: str, _: object) -> None:
        if event == "open" or event.startswith("os."):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    sys.addaudithook(audit)


def outcome(out: Path) -> dict[str, object]:
    """What must not depend on interruptions."""
    record = json.loads((out / RUN).read_text())
    for line in record["history"]:
        del line["seconds"], line["valid_seconds"], line["waiting_share"]
    columns = [line.split(",")[:5] for line in (out / LOG).read_text().splitlines()]
    weights = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}  # head, and backbone
    return {"record": record, "log": columns, **weights}


def killed(work: Callable[[], None], prepare: Callable[[], None]) -> bool:
    """Do the work in a child that dies on the way; False where it came to its end."""
    child = os.fork()
    if child == 0:
        prepare()
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def main(data: Path, folder: Path, settings: TrainSettings, step: int) -> None:
    """Raises AssertionError where a run that went on differs."""
    run(data, folder / "whole", settings)
    whole = outcome(folder / "whole")

    def same_after(prepare: Callable[[], None], what: str) -> bool:
        out = folder / "cut"
        died = killed(lambda: run(data, out, settings), prepare)
        state = "with" if (out / LAST).exists() else "without"
        run(data, out, settings, save_seconds=60.0)
        now = outcome(out)
        for name, wanted in whole.items():
            assert now[name] == wanted, (what, name, now["log"], whole["log"])
        assert not [path.name for path in out.iterdir() if path.name.endswith(".part")], what
        shutil.rmtree(out)
        os.write(1, f"{what}: {'died' if died else 'came to its end'}, {state} a state\n".encode())
        return died

    if step:
        operation = 0
        while same_after(partial(die_before, operation), f"operation {operation}"):
            operation += step
    else:
        for what, (owner, name, call, after) in points(settings).items():
            assert same_after(partial(die_at, owner, name, call, after=after), what), what


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # noqa: ARG005 (a kill loses nothing that was written; only the machine's end does)
    record = json.loads(sys.argv[3])
    given = (FinetuneSettings if "unfreeze" in record else TrainSettings).from_json(record, where="argument")
    main(Path(sys.argv[1]), Path(sys.argv[2]), given, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
