"""What is said where the memory does not suffice."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bas.errors import InputError
from bas.finetune.memory import is_out_of_memory, memory_told, out_of_memory
from bas.heads.training.settings import FinetuneSettings

Tiny = Callable[..., FinetuneSettings]
ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parents[2] / ".typing"),
    "PATH": os.environ["PATH"],
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (KeyError("x"), False),
    ],
)
def test_errors_that_mean_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory


@pytest.mark.parametrize(
    ("batch", "accumulate", "fitting", "cure"),
    [
        (8, 1, 4, "--accumulate 2 (4 clips at once: tried just now, it fits)"),
        (8, 1, 3, "--accumulate 4 (2 clips at once: tried just now, it fits)"),
        (8, 2, 1, "--accumulate 8 (one clip at once: tried just now, it fits)"),
        (6, 1, 2, "--accumulate 3 (2 clips at once: tried just now, it fits)"),
        (5, 1, 4, "--accumulate 5 (one clip at once: tried just now, it fits)"),
    ],
)
def test_the_largest_part_that_fits_is_named(tiny: Tiny, batch: int, accumulate: int, fitting: int, cure: str) -> None:
    settings, tried = tiny(batch=batch, accumulate=accumulate), list[int]()

    def fits(clips: int) -> bool:
        tried.append(clips)
        return clips <= fitting

    error = out_of_memory(settings, num_clips=batch // accumulate, fits=fits, checkpointing=False)
    assert error.cure == f"{cure}; or --checkpointing (blocks are computed twice)"
    assert tried == sorted(tried, reverse=True)
    parts = int(error.cure.split()[1])
    assert tiny(batch=batch, accumulate=parts).accumulate == parts  # the settings take it


def test_where_one_clip_is_too_much_the_clip_must_change(tiny: Tiny) -> None:
    for num_clips in (1, 4):
        error = out_of_memory(tiny(), num_clips=num_clips, fits=lambda _: False, checkpointing=False)
        assert error.cure.startswith("--checkpointing (blocks are computed twice); or --clip-len 4 or a --size")
        error = out_of_memory(tiny(), num_clips=num_clips, fits=lambda _: False, checkpointing=True)
        assert error.cure.startswith("--clip-len 4 or a --size of half the pixels")
        assert f"{num_clips} clips of 8 steps" in str(error) or num_clips == 1


@pytest.mark.parametrize(("per_process", "named"), [(4, 2), (3, 3), (9, 3), (1, None)])
def test_several_processes_try_nothing_and_name_the_next_part_that_divides(
    tiny: Tiny, per_process: int, named: int | None
) -> None:
    settings = tiny(batch=2 * per_process)
    error = out_of_memory(settings, num_clips=per_process, fits=None, checkpointing=True)
    assert ("--accumulate" in error.cure) == (named is not None)
    if named is not None:
        assert error.cure.startswith(f"--accumulate {named}; or --clip-len")
        assert per_process % named == 0


def test_errors_between_updates_are_told_too(tiny: Tiny) -> None:
    with (
        pytest.raises(
            InputError, match="out of memory between two updates\n  got:    Unable to allocate 8 GiB"
        ) as error,
        memory_told(tiny(batch=6)),
    ):
        raise MemoryError("Unable to allocate 8 GiB")
    assert error.value.cure.startswith("--batch 3; or --clip-len 4")
    with pytest.raises(RuntimeError, match="shapes"), memory_told(tiny()):
        raise RuntimeError("shapes do not fit")


@pytest.mark.slow
def test_the_cure_that_is_named_works(videos: Path, tmp_path: Path) -> None:
    """In a process whose memory is cut down once the libraries are loaded."""
    room_mib, how = "1000", "--backbone x3d_xs --weights none --size 96x64 --clip-len 32 --hop 4 --head fc --proj 0 "
    how += "--epochs 1 --frames-per-epoch 512 --batch 16 --warmup-epochs 0 --device cpu --engine torch --decode-threads 1"

    def finetune(*more: str) -> subprocess.CompletedProcess[str]:
        child = [sys.executable, str(Path(__file__).with_name("memory_child.py")), room_mib]
        command = [*child, "finetune", str(videos), "--out", str(tmp_path / "run"), *how.split(), *more]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)

    done = finetune()
    assert done.returncode == 2, done.stderr[-2000:]
    assert "bas: error: out of memory\n  got:    16 clips of 32 steps at once" in done.stderr
    named = re.search(r"--accumulate (\d+) \((?:\d+ clips|one clip) at once: tried just now, it fits\)", done.stderr)
    assert named is not None, done.stderr
    done = finetune("--accumulate", named[1])  # into the same folder: nothing was trained yet
    assert done.returncode == 0, done.stderr[-2000:]
