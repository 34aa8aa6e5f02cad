"""Two processes with half the batch each do what one does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bas.extract.backbones.weights import BACKBONE
from bas.heads.training.checkpoint import BEST, LOG, RunRecord
from bas.heads.training.settings import FinetuneSettings

pytestmark = pytest.mark.slow
Tiny = Callable[..., FinetuneSettings]
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / ".typing"),
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "error,ignore::DeprecationWarning:torch.jit,ignore:.*torch.jit.*",
}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
DROPOUT = {
    "head": "transformer",
    "options": {"transformer.width": 16, "transformer.num_heads": 2, "transformer.feed_forward": 16},
    "proj": 16,
    "mixup": 0.3,
    "inputs": "standard",
    "augment": "seed",
}
FRAMES, CLIPS = "timm:test_resnet.r160_in1k", "x3d_xs"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "2-D, statistics of each process": (FRAMES, {"augment": "flip", "inputs": "standard", "norm": "batch"}, {}),
    "3-D, frozen norm, checkpointing": (
        CLIPS,
        {"max_grad_norm": 0.5, "norm": "frozen", "accumulate": 2, "ema": 0.5},
        {"checkpointing": True},
    ),
    "3-D, frozen norm, half of it learns": (CLIPS, DROPOUT | {"unfreeze": 2}, {}),
    "only the head learns": (FRAMES, {"unfreeze": 0}, {}),
}
FIRST_WITHOUT_STATISTICS = 1
"""Case from which on two processes do exactly what one does: PyTorch has no BatchNorm over the processes of a CPU."""


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Distance of two networks, as a share of their length. Adam's first steps are signs: where a gradient is nothing
    but rounding, single weights may go opposite ways."""
    assert set(one) == set(two)
    num_batches = [name for name in one if name.endswith("num_batches_tracked")]
    assert all(torch.equal(one[name], two[name]) for name in num_batches)
    gap = torch.cat([(one[name] - two[name]).double().flatten() for name in one])
    return float(gap.norm() / torch.cat([tensor.double().flatten() for tensor in one.values()]).norm())


def torchrun(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *map(str, command)],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="module")
def outcomes(videos: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case's run by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    for processes, command in ((1, [sys.executable]), (2, [*TORCHRUN])):
        jobs = []
        for number, (backbone, changes, options) in enumerate(CASES.values()):
            asked = {"backbone": backbone, "weights": "none", "size": [48, 32]}
            out = str(folder / f"{number}-{processes}")
            settings = tiny(**{"augment": "none", "lr": 1e-4, "keep": "last"} | changes).to_json()
            jobs.append({"data": str(videos), "out": out, "settings": settings, "asked": asked, "options": options})
        (folder / f"{processes}.json").write_text(json.dumps(jobs))
        child = [Path(__file__).with_name("processes_child.py"), folder / f"{processes}.json"]
        done = subprocess.run(
            [*command, *map(str, child)], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


def seen(path: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.{rank}.json").read_text())
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(CASES))
def test_two_processes_are_one(outcomes: Path, number: int) -> None:
    one, two = (outcomes / f"{number}-{processes}" for processes in (1, 2))
    alone, first, second = seen(one, 0), seen(two, 0), seen(two, 1)
    assert len(alone["losses"]) == 6
    assert first == second
    assert alone["losses"][0] != alone["losses"][-1]
    if number < FIRST_WITHOUT_STATISTICS:
        assert first["losses"][0] == pytest.approx(alone["losses"][0], rel=0.05)
        assert first["losses"] == pytest.approx(alone["losses"], rel=0.6)  # networks of other statistics drift apart
        return
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert (first["headlines"], first["peaks"]) == (alone["headlines"], alone["peaks"])
    for file in (BEST, BACKBONE):
        assert apart(load_file(one / file), load_file(two / file)) < 1e-3
    assert RunRecord.read(two).settings == RunRecord.read(one).settings


def arguments(videos: Path, out: Path, *more: object) -> Sequence[str]:
    how = f"--backbone {FRAMES} --weights none --size 48x32 --head fc --proj 0 --clip-len 8 --hop 4 --batch 4 "
    how += "--frames-per-epoch 32 --epochs 2 --warmup-epochs 0 --augment none --norm frozen "
    how += "--device cpu --engine torch --decode-threads 1"
    return ["finetune", str(videos), "--out", str(out), *how.split(), *map(str, more)]


def bas(*command: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "bas", *map(str, command)]
    return subprocess.run(call, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200)


def losses(out: Path) -> list[float]:
    return [float(line.split(",")[1]) for line in (out / LOG).read_text().splitlines()[1:]]


def test_the_command_starts_its_processes_itself_or_is_started_by_torchrun(videos: Path, tmp_path: Path) -> None:
    one = bas(*arguments(videos, tmp_path / "one"))
    two = bas(*arguments(videos, tmp_path / "two", "--devices", 2))
    run = torchrun("-m", "bas", *arguments(videos, tmp_path / "run"))
    for name, done in (("two", two), ("run", run)):
        assert done.returncode == 0, done.stderr
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
        wanted = one.stdout.replace(str(tmp_path / "one"), str(tmp_path / name))
        assert done.stdout.splitlines()[-2:] == wanted.splitlines()[-2:]
        assert len(done.stdout.splitlines()) == len(one.stdout.splitlines())
        told = [line for line in done.stderr.splitlines() if line.strip()]
        assert sum(line.startswith("epoch ") for line in told) == 2, done.stderr
        assert len(told) <= len(one.stderr.splitlines()) + 1, done.stderr
        assert "2 processes on cpu" in " ".join(done.stderr.split())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*")}
    again = bas(*arguments(videos, tmp_path / "two", "--devices", 2))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*")} == before


def test_errors_are_told_once(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    cases: list[tuple[list[object], str]] = [
        ([], "a folder with other things in it"),  # found by the first process only
        (["--batch", 3], "the batch does not divide among the processes"),  # found by both
    ]
    for more, message in cases:
        done = bas(*arguments(videos, tmp_path / "run", "--devices", 2, *more))
        assert done.returncode in (2, -9), done.stderr  # Fabric ends the first process where the other ended before
        assert done.stderr.count(message) == 1, done.stderr
        assert done.stderr.count("bas: error:") == 1
        assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
