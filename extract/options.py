"""Views: fixed augmentations that are cached side by side, so that head training keeps some augmentation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..cache.settings import Blend, Fit, Scaler
from ..errors import InputError
from ..events import SPLITS

Clips = npt.NDArray[np.uint8]
View = Literal["identity", "hflip"]
VIEWS: dict[View, Callable[[Clips], Clips]] = {
    "identity": lambda clips: clips,
    "hflip": lambda clips: np.ascontiguousarray(clips[..., ::-1, :]),
}
"""Name -> function of pictures (..., H, W, 3) uint8 to pictures of the same shape."""


EngineKind = Literal["auto", "torch", "openvino"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """Settings asked for. None: follow the store, else the weights' record, else the default."""

    backbone: str | None = None
    """Name in `BACKBONES`, or `timm:NAME`; default x3d_s."""
    depth: int | None = None
    """Trunk blocks kept, where the backbone has several depths."""
    weights: str | None = None
    """`kinetics`, `imagenet`, `none`, a file, or a finetuned run's folder; default: what the backbone is known by."""
    size: tuple[int, int] | None = None
    """Width and height fed to the backbone, pixels; default 398x224."""
    fit: Fit | None = None
    """How another aspect is brought to that size; default `pad`."""
    scaler: Scaler | None = None
    """Who resizes; default `swscale-bicubic`, while decoding."""
    fps: str | None = None
    """Frames per second of the grid, a fraction; `source`: the video's own; default 25."""
    window: int | None = None
    """Steps in one clip; default 50. 2-D backbones: 1."""
    hop: int | None = None
    """Steps between clip starts; default half the window."""
    blend: Blend | None = None
    """How overlapping clips are averaged; default `hann`."""
    stride: int | None = None
    """Grid frames per step; default: the weights' own, else the backbone's."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How an extraction runs. Nothing here changes a feature beyond what the engine's fidelity allows."""

    views: tuple[View, ...] = ("identity",)
    """Fixed augmentations to cache side by side."""
    engine: EngineKind = "auto"
    """Which library runs the backbone."""
    device: Device = "auto"
    """Where the backbone runs."""
    batch: int | None = None
    """Groups of clips in one call of the engine, >= 1; None: chosen for the device."""
    resume: bool = True
    """Go on with a match that was cut off; False: begin it anew."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): this worker takes part i of n of the matches."""
    decode_threads: int = 0
    """Threads of the video decoder; 0: chosen by the codec."""
    max_bad_share: float = 0.05
    """Share of grid steps, 0..1, that may be undecodable before a match is refused."""

    def __post_init__(self) -> None:
        index, count = self.shard
        if not 0 <= index < count:
            raise InputError("--shard is not usable", got=f"{index}/{count}", wanted="i/n with 0 <= i < n, such as 0/4")
        if self.batch is not None and self.batch < 1:
            raise InputError("--batch is not usable", got=self.batch, wanted="a whole number >= 1")
        if not 0 <= self.max_bad_share <= 1:
            raise InputError("--max-bad-share is not usable", got=self.max_bad_share, wanted="0 to 1")
        if not self.views:
            raise InputError("no view asked for", wanted=", ".join(VIEWS))


def parse_views(text: str) -> tuple[View, ...]:
    """`identity,hflip` -> views, in the order of `VIEWS`, each once.

    Raises:
        InputError: an unknown name.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    for name in asked:
        if name not in VIEWS:
            raise InputError("view is not known", got=name, wanted=", ".join(VIEWS))
    return tuple(view for view in VIEWS if view in asked)


_CHOICES: dict[str, tuple[str, ...]] = {
    "--fit": get_args(Fit),
    "--scaler": get_args(Scaler),
    "--blend": get_args(Blend),
    "--engine": get_args(EngineKind),
    "--device": get_args(Device),
    "--split": SPLITS,
}


def parse_choice(text: str | None, *, option: str) -> Any:
    """The text as one of an option's choices; None stays None.

    Raises:
        InputError: anything else.
    """
    if text is not None and text not in _CHOICES[option]:
        raise InputError(f"{option} is not known", got=text, wanted=", ".join(_CHOICES[option]))
    return text


def parse_pair(text: str, *, option: str, separator: str, example: str) -> tuple[int, int]:
    """Two whole numbers, such as `398x224` or `0/4`.

    Raises:
        InputError: anything else.
    """
    parts = text.lower().split(separator)
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"{option} is not usable", got=text, wanted=f"two whole numbers, such as {example}")
    return int(parts[0]), int(parts[1])


_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
"""Variables in which torchrun, Slurm's srun and Open MPI's mpirun tell a process its number, and of how many."""


def parse_shard(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """`0/4` -> (0, 4); `auto` -> as the launcher says.

    Args:
        text: the option.
        environment: variables of this process.

    Raises:
        InputError: neither, or no launcher has said it.
    """
    if text != "auto":
        return parse_pair(text, option="--shard", separator="/", example="0/4")
    for rank, size in _LAUNCHERS:
        if rank in environment and size in environment:
            both = f"{environment[rank]}/{environment[size]}"
            return parse_pair(both, option=f"{rank}/{size}", separator="/", example="0/4")
    raise InputError(
        "--shard auto finds no launcher",
        wanted=" or ".join("/".join(pair) for pair in _LAUNCHERS) + " in the environment",
        cure="start it by torchrun, srun or mpirun, or say --shard i/n",
    )


def share_out(lengths: Sequence[int], *, index: int, count: int) -> list[int]:
    """Which matches a worker takes: longest first, each to the worker with the least so far.

    Args:
        lengths: frames per match, in a fixed order.
        index: this worker, 0..count-1.
        count: number of workers, >= 1.

    Returns:
        Positions in `lengths`, ascending. The shares of all workers are disjoint and cover all.
    """
    load, mine = [0] * count, []
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        worker = load.index(min(load))
        load[worker] += max(1, lengths[position])
        if worker == index:
            mine.append(position)
    return sorted(mine)
