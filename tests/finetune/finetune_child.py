"""Run by the tests of the loop in a process of its own: finetunes in children that are killed, and goes on here.

finetune_child.py DATA FOLDER SETTINGS-JSON
    An uninterrupted run in FOLDER/whole; then for every point of `POINTS` a run that dies there by SIGKILL, goes on,
    and must end with the same losses and bytes. Prints one line per point.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from bas.data.sources import find_sources
from bas.extract.backbones.weights import BACKBONE
from bas.extract.options import ExtractOptions
from bas.finetune import trainer
from bas.finetune.devices import Devices
from bas.finetune.loop import finetune
from bas.finetune.start import Start
from bas.heads.training import loop
from bas.heads.training.checkpoint import BEST, LAST, LOG, RUN
from bas.heads.training.evaluator import Evaluator
from bas.heads.training.settings import FinetuneSettings

POINTS = {
    "after a saving mid-epoch": (loop, "write_checkpoint", 5, True),
    "between an update and its saving": (loop, "write_checkpoint", 5, False),
    "between head and backbone": (trainer, "save_backbone_checkpoint", 1, False),
    "between backbone and last": (trainer, "save_backbone_checkpoint", 1, True),
    "before the choice of peaks": (Evaluator, "choose", 1, False),
}
"""Point -> where a function is looked up, its name, at which call of it to die, and whether after or before it."""


def run(data: Path, out: Path, settings: FinetuneSettings) -> None:
    """Train; the state is saved after every step."""
    how: dict[str, Any] = {
        "devices": Devices(place="cpu"),
        "engine": "torch",
        "decode_threads": 1,
        "save_seconds": -1.0,
    }
    asked = ExtractOptions(backbone="timm:test_resnet.r160_in1k", weights="none", size=(48, 32))
    finetune(find_sources([data]), out, settings, Start.of(settings, asked, None), **how)


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


def outcome(out: Path) -> dict[str, object]:
    """What must not depend on interruptions."""
    record = json.loads((out / RUN).read_text())
    for line in record["history"]:
        del line["seconds"], line["valid_seconds"], line["waiting_share"]
    columns = [line.split(",")[:5] for line in (out / LOG).read_text().splitlines()]
    return {"record": record, "log": columns} | {name: (out / name).read_bytes() for name in (BEST, BACKBONE)}


def main(data: Path, folder: Path, settings: FinetuneSettings) -> None:
    """Raises AssertionError where a run that went on differs."""
    run(data, folder / "whole", settings)
    whole, out = outcome(folder / "whole"), folder / "cut"
    for what, (owner, name, call, after) in POINTS.items():
        child = os.fork()
        if child == 0:
            die_at(owner, name, call, after=after)
            run(data, out, settings)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, what
        assert (out / LAST).exists(), what
        run(data, out, settings)
        now = outcome(out)
        for part, wanted in whole.items():
            assert now[part] == wanted, (what, part, now["log"], whole["log"])
        assert not [path.name for path in out.iterdir() if path.name.endswith(".part")], what
        shutil.rmtree(out)
        os.write(1, f"{what}: the same\n".encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # noqa: ARG005 (a kill loses nothing that was written; only the machine's end does)
    given = json.loads(sys.argv[3])
    main(Path(sys.argv[1]), Path(sys.argv[2]), FinetuneSettings(**given | {"views": tuple(given["views"])}))
