"""Devices, precision and processes, through Lightning Fabric."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
import torch.distributed

from ..errors import InputError
from ..heads.training.loop import choose_precision
from ..heads.training.settings import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Place = Literal["auto", "cpu", "cuda"]
_LONGEST_WAIT = timedelta(days=2)
"""For the other processes: one of them may have a long validation match alone."""
_FABRIC_PRECISION: dict[str, Any] = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}


def is_first_process() -> bool:
    """Whether this is the one of several processes that prints and writes; true where there is one only."""
    # by the environment, as it is asked before the processes have met; Fabric's own know their local rank only
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


@contextmanager
def first_failure_reported() -> Iterator[None]:
    """Let the first of several processes that fail raise its error; the others, which fail alike, exit without a word.

    Raises:
        SystemExit: with code 2, in these others.
    """
    try:
        yield
    except BaseException as error:
        is_own_failure = isinstance(error, Exception)  # a signal comes to all at once
        if not (_fails_first() if is_own_failure else is_first_process()):
            raise SystemExit(2) from None
        raise


def _fails_first() -> bool:
    if not torch.distributed.is_initialized():
        return True
    store = torch.distributed.distributed_c10d._get_default_store()
    try:
        return bool(store.add("bas/failed", 1) == 1)  # a counter that all processes share
    except RuntimeError:  # the store's process has ended: it was the first
        return False


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a run trains; but for rounding none of it changes a number."""

    place: Place = "auto"
    """Kind of device; `auto`: CUDA where there is one."""
    count: int = 1
    """Devices of this machine (CPU: processes), >= 1, each with a process of its own."""

    def __post_init__(self) -> None:
        if self.place not in get_args(Place):
            raise InputError("--device is not usable", got=self.place, wanted=", ".join(get_args(Place)))
        if self.place == "cuda" and not torch.cuda.is_available():
            raise InputError("--device is not usable", got="cuda", wanted="auto or cpu: no CUDA device here")
        if self.count < 1:
            raise InputError("--devices is not usable", got=self.count, wanted="a whole number >= 1")
        if self.kind == "cuda" and self.count > torch.cuda.device_count():
            raise InputError("--devices is not usable", got=self.count, wanted=f"up to {torch.cuda.device_count()}")

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        """The kind of device that is used."""
        kind = "cuda" if self.place != "cpu" and torch.cuda.is_available() else "cpu"
        return cast(Literal["cpu", "cuda"], kind)

    def launch(self, precision: Precision) -> "Fabric":
        """Start the processes (under `torchrun` they are there already); each goes on from here.

        Raises:
            InputError: fp16 on a CPU.
        """
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it prints each choice of ours
        count, nodes = self.count, 1
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun says how many there are, not --devices
            count = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // count
        fabric = Fabric(
            accelerator=self.kind,
            devices=count,
            num_nodes=nodes,
            strategy=DDPStrategy(timeout=_LONGEST_WAIT) if count * nodes > 1 else "auto",
            precision=_FABRIC_PRECISION[choose_precision(precision, self.kind)],
        )
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels, where nothing is lost by it
        fabric.launch()
        return fabric


def num_processes() -> int:
    """Processes that train together; 1 where there is one only."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
