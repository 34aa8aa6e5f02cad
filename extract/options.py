"""What the user can ask of `bas extract`. Nothing here imports torch or PyAV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..cache.settings import Blend, Depth, Fit, Pool, Scaler, parse_depth
from ..errors import InputError

View = Literal["identity", "hflip"]
VIEWS: dict[View, tuple[int, ...]] = {"identity": (), "hflip": (-2,)}
"""Name -> dimensions in which pictures (..., H, W, 3) are mirrored."""

EngineKind = Literal["auto", "torch", "openvino"]
Device = Literal["auto", "cpu", "cuda"]
VideoDecoder = Literal["auto", "pyav", "nvdec"]


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """What decides a feature. None: as in the store where it exists, else as the weights say, else the default."""

    backbone: str | None = None
    """Backbone: x3d_s (default), i3d, tf_efficientnet_lite0, ... (`bas weights` lists them), timm:NAME, or hf:ORG/NAME
    and hf:FOLDER for video transformers; +tsm, +gsm or +gsf behind a 2-D one lets it see time, +adaspot
    besides a region of each large picture."""
    depth: Depth | str = None
    """Trunk blocks of X3D that are kept: 5 (192 channels, default), 4 (96), 3 (48) or 2 (24); 2,3,4,5: rows hold the
    channels of each, one after the other."""
    pool: Pool | None = None
    """How tokens become a row: mean over space (default); cls: the class token of a vision transformer; both: the two
    side by side; twice: of a video transformer, two passes a frame apart, at twice the cost; grid:2x4: of a
    convolutional network, means over 2 rows of 4 cells, 8 times the channels."""
    weights: str | None = None
    """Weights: kinetics, imagenet, hub, none (random), a file, or the folder of a finetuned run, whose settings are
    then followed; default: those that the backbone is known by."""
    size: tuple[int, int] | None = None
    """Width x height of the pictures that the backbone sees; default 398x224, hf: their own."""
    fit: Fit | None = None
    """How a video of another aspect is brought to that size: pad adds black bars (default), stretch distorts."""
    scaler: Scaler | None = None
    """What resizes pictures: swscale while decoding (default swscale-bicubic), or torch-bilinear on the device."""
    fps: str | None = None
    """Rows per second, a number or fraction such as 30000/1001; source: the video's own rate; default 25."""
    window: int | None = None
    """Steps in one clip of a 3-D backbone; default 50, hf: their own."""
    hop: int | None = None
    """Steps between the starts of neighbouring clips; default half the window, hf: odd."""
    blend: Blend | None = None
    """How overlapping clips are averaged; default hann."""
    stride: int | None = None
    """Frames per step; default: what the weights were trained with (X3D 2, others 1)."""

    def __post_init__(self) -> None:
        if isinstance(self.depth, str):
            object.__setattr__(self, "depth", parse_depth(self.depth))


@dataclass(frozen=True, kw_only=True)
class ExtractRunOptions:
    """How an extraction runs. Nothing here changes a feature beyond what the engine's fidelity allows."""

    views: tuple[View, ...] = ("identity",)
    """Fixed augmentations that are stored side by side, separated by commas: identity, hflip."""
    engine: EngineKind = "auto"
    """Library that runs the backbone; auto: PyTorch on a GPU, OpenVINO on a CPU where it is installed."""
    device: Device = "auto"
    """Where the backbone runs; auto: on a GPU where there is one."""
    decoder: VideoDecoder = "auto"
    """What decodes videos: pyav (auto), on the CPU; nvdec, on the GPU, which notices no damage, for 720p and more with
    --scaler torch-bilinear."""
    batch: int | None = None
    """Groups of clips per call of the backbone; changes speed and memory, never a feature; default: by device."""
    resume: bool = True
    """Go on with matches that were cut off; otherwise they are begun anew."""
    shard: tuple[int, int] = (0, 1)
    """i/n: take part i (0 to n-1) of n of the matches; auto: as torchrun, srun or mpirun says."""
    ray: str | None = None
    """Work on a Ray cluster: host:port of its head, or auto."""
    decode_threads: int = 0
    """Decoders that run side by side; 0: one per core."""
    max_bad_share: float = 0.05
    """Largest share of undecodable frames with which a video is accepted, 0 to 1."""
    licence: str = ""
    """Licence of videos and labels, kept in the store: such as CC-BY-4.0, or a sentence."""
    origin: str = ""
    """Where videos and labels came from, kept in the store: such as the data set's name and address."""

    def __post_init__(self) -> None:
        index, count = self.shard
        if not 0 <= index < count:
            raise InputError("--shard is not usable", got=f"{index}/{count}", wanted="i/n with 0 <= i < n, such as 0/4")
        if self.batch is not None and self.batch < 1:
            raise InputError("--batch is not usable", got=self.batch, wanted="a whole number >= 1")
        if not 0 <= self.max_bad_share <= 1:
            raise InputError("--max-bad-share is not usable", got=self.max_bad_share, wanted="0 to 1")
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or not self.views:
            raise InputError("--views is not known", got=", ".join(unknown) or "none", wanted=", ".join(VIEWS))
        object.__setattr__(self, "views", tuple(view for view in VIEWS if view in self.views))  # each once, in order


def known_view(name: str) -> View:
    """The view of this name.

    Raises:
        InputError: there is none.
    """
    if name not in VIEWS:
        raise InputError("view is not known", got=name, wanted=", ".join(VIEWS))
    return name


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
    """`0/4` -> (0, 4); `auto` -> as the launcher says in the `environment`.

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
    """Which matches worker `index` of `count` takes: longest first, each to the worker with the least so far.

    Given frames per match, returns positions among them, ascending. All shares together hold each match once.
    """
    load, mine = [0] * count, []
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        worker = load.index(min(load))
        load[worker] += max(1, lengths[position])
        if worker == index:
            mine.append(position)
    return sorted(mine)
