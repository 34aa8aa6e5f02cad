"""Run by the tests of several processes, by `torchrun`: one run after the other, of the jobs in a file.

processes_child.py JOBS-JSON
    Each job names data, out, settings and what is asked of the backbone. Every process writes the losses that it saw
    to OUT.<process>.json.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from bas.data.sources import find_sources
from bas.extract.options import ExtractOptions
from bas.finetune.devices import Devices
from bas.finetune.loop import finetune
from bas.finetune.start import Start
from bas.finetune.trainer import ClipTrainer
from bas.heads.training.settings import FinetuneSettings


def main(job: dict[str, Any]) -> None:
    """One run."""
    settings = FinetuneSettings.from_json(job["settings"], where="job")
    asked = ExtractOptions(**job["asked"] | {"size": tuple(job["asked"]["size"])})
    losses: list[float] = []
    real_step = ClipTrainer.training_step

    def training_step(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = real_step(*arguments, **options)
        losses.append(float(loss))
        return loss

    ClipTrainer.training_step = training_step  # type: ignore[method-assign]
    how = {"devices": Devices(place="cpu"), "engine": "torch", "decode_threads": 1, **job.get("options", {})}
    record = finetune(
        find_sources([Path(job["data"])]), Path(job["out"]), settings, Start.of(settings, asked, None), **how
    )
    ClipTrainer.training_step = real_step  # type: ignore[method-assign]
    seen = {"losses": losses, "headlines": [line.headline for line in record.history], "peaks": str(record.peaks)}
    rank = os.environ.get("RANK", "0")
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(Path(sys.argv[1]).read_text()):
        main(each)
