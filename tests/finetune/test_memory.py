"""Where the memory does not suffice: an error that names the options to lower."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bas.errors import InputError
from bas.finetune.trainer import ClipTrainer, memory_errors
from bas.heads.training.settings import FinetuneSettings


def cpu_allocation() -> object:
    return torch.empty(1 << 50)


def cuda_allocation() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory")


def other() -> object:
    raise RuntimeError("another error")


@pytest.mark.parametrize("fail", [cpu_allocation, cuda_allocation])
def test_out_of_memory_names_the_options_to_lower(fail: Callable[[], object]) -> None:
    settings = FinetuneSettings(batch=4, clip_len=50)
    with pytest.raises(InputError, match="out of memory") as error, memory_errors(settings, checkpointing=False):
        fail()
    for option in ("--accumulate 2", "--batch 2", "--checkpointing", "--clip-len 25", "--size"):
        assert option in error.value.cure
    with pytest.raises(InputError) as error, memory_errors(FinetuneSettings(batch=1), checkpointing=True):
        fail()
    assert error.value.cure.startswith("--clip-len")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="another error"), memory_errors(FinetuneSettings(), checkpointing=False):
        other()


def test_a_run_that_runs_out_of_memory_is_refused_and_can_be_begun_anew(
    train: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ClipTrainer, "training_step", lambda *_, **__: cpu_allocation())
        with pytest.raises(InputError, match="out of memory"):
            train(tmp_path / "run", tiny(epochs=1))
    assert train(tmp_path / "run", tiny(epochs=1, batch=2)).finished
