"""Devices, precision and processes, through Lightning Fabric."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch

from ..errors import InputError
from ..heads.training.settings import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Place = Literal["auto", "cpu", "cuda"]
_FABRIC_PRECISION: dict[str, Any] = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}


def is_first_process() -> bool:
    """Whether this is the one of several processes that speaks; true where there is one only."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


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

        if precision == "auto":
            precision = "fp16" if self.kind == "cuda" else "fp32"
        if precision == "fp16" and self.kind == "cpu":
            raise InputError("setting 'precision' is not usable", got="fp16 on cpu", wanted="auto, fp32 or bf16")
        count, nodes = self.count, 1
        if "TORCHELASTIC_RUN_ID" in os.environ:
            count = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // count
        fabric = Fabric(
            accelerator=self.kind,
            devices=count,
            num_nodes=nodes,
            strategy="ddp" if count * nodes > 1 else "auto",
            precision=_FABRIC_PRECISION[precision],
        )
        fabric.launch()
        return fabric
