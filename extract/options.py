"""What the user asked of `bas extract`, and how it becomes the settings of a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

from ..cache.settings import REDUCED_CURE, Blend, FeatureSettings, Fit, Scaler
from ..errors import InputError
from ..events import SPLITS
from .backbones.registry import BackboneSpec, backbone_spec
from .backbones.run_folder import BACKBONE, KNOWN_NAMES, finetuned_run
from .backbones.weights import WeightsRecord
from .engines.choose import Device, EngineKind
from .views import VIEWS, View

V = TypeVar("V")

DEFAULT_BACKBONE = "x3d_s"
DEFAULT_SIZE = (398, 224)
DEFAULT_WINDOW = 50


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


def follow_run(options: ExtractOptions) -> ExtractOptions:
    """The options, and, where the weights are a finetuned run, all that the run was trained with.

    Raises:
        InputError: an option contradicts the run (names each), or the folder is no finished run with a backbone.
    """
    run = finetuned_run(options.weights)
    if run is None:
        return options
    features = run.features
    held: dict[str, Any] = {
        "backbone": features.backbone,
        "depth": features.depth,
        "size": (features.width, features.height),
        "fit": features.fit,
        "scaler": features.scaler,
        "fps": features.fps,
        "window": features.window,
        "hop": features.hop,
        "blend": features.blend,
        "stride": features.stride,
    }
    asked = {name: getattr(options, name) for name in held}
    wrong = [name for name, value in asked.items() if value is not None and value != held[name]]
    if wrong:
        raise InputError(
            f"{run.folder}: the run was trained with other settings: {', '.join(f'--{name}' for name in wrong)}",
            got=", ".join(f"{name}={_option(asked[name])}" for name in wrong),
            wanted=", ".join(f"{name}={_option(held[name])}" for name in wrong),
            cure=f"leave these options out to follow the run; its head fits no other rows "
            f"(--weights {run.backbone} takes the backbone alone, and binds less)",
        )
    return replace(options, **held)


def _option(value: object) -> str:
    """As it is typed."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def choose_weights(options: ExtractOptions, stored: FeatureSettings | None) -> tuple[str, int | None, str]:
    """Backbone, depth and weights to load: options first, then the store, then defaults.

    Raises:
        InputError: the store was made with a weights file and none is named now, or its rows were imported or reduced.
    """
    if stored is not None and stored.reduction is not None:
        raise InputError(
            "the store holds reduced rows: no backbone makes more of them by itself",
            got=f"{stored.dim} channels, {stored.reduction[:40]}...",
            cure=REDUCED_CURE,
        )
    if stored is not None and stored.is_imported:
        raise InputError(
            "the store holds imported rows: no backbone of ours makes more of them",
            got=stored.backbone,
            cure="extract into another --out; verify it without --videos",
        )
    backbone = options.backbone or (stored.backbone if stored else DEFAULT_BACKBONE)
    depth = options.depth
    if depth is None and stored is not None and stored.backbone == backbone:
        depth = stored.depth
    if options.weights is not None:
        return backbone, depth, options.weights
    if stored is not None:
        if stored.weights not in KNOWN_NAMES:
            raise InputError(
                "these features were made with a weights file, and none is named",
                wanted=f"the file {stored.weights}, tensors SHA-256 {stored.weights_sha256[:12]}...",
                cure="--weights FILE" + (", or the folder of the finetuned run" if stored.weights == BACKBONE else ""),
            )
        return backbone, depth, stored.weights
    return backbone, depth, next(iter(backbone_spec(backbone).urls))


def resolve_settings(
    options: ExtractOptions, record: WeightsRecord, spec: BackboneSpec, stored: FeatureSettings | None
) -> FeatureSettings:
    """The full settings key: each value from the options, else the store, else the weights' record, else the default.

    Args:
        options: what the user asked for.
        record: of the loaded weights; what it says of stride, window and size was trained in and cannot be overruled.
        spec: of the backbone.
        stored: settings of the store, where it exists.

    Raises:
        InputError: the weights' record or the store says otherwise; names the fields.
    """
    two_d = spec.kind == "2d"
    trained_size = (record.width, record.height) if record.width and record.height else None
    size = _agreed("size", options.size, trained_size, (stored.width, stored.height) if stored else None, DEFAULT_SIZE)
    window = (
        1
        if two_d
        else _agreed("window", options.window, record.window, stored.window if stored else None, DEFAULT_WINDOW)
    )
    stride = (
        1 if two_d else _agreed("stride", options.stride, record.stride, stored.stride if stored else None, spec.stride)
    )
    stored_hop = stored.hop if stored and stored.window == window else None
    settings = FeatureSettings(
        backbone=record.backbone,
        depth=record.depth,
        weights=record.weights,
        weights_sha256=record.weights_sha256,
        dim=record.dim,
        width=size[0],
        height=size[1],
        fit=options.fit or (stored.fit if stored else "pad"),
        scaler=options.scaler or (stored.scaler if stored else "swscale-bicubic"),
        fps=options.fps or (stored.fps if stored else "25"),
        window=window,
        hop=1 if two_d else options.hop or stored_hop or max(1, window // 2),
        blend="mean" if two_d else options.blend or (stored.blend if stored else "hann"),
        stride=stride,
        mean=record.mean,
        std=record.std,
    )
    if two_d and any(value not in (None, 1) for value in (options.window, options.hop, options.stride)):
        raise InputError(
            f"{record.backbone} sees single frames, so it has no window plan",
            got="--window, --hop or --stride",
            cure="leave these options out",
        )
    return settings


def _agreed(name: str, asked: V | None, trained: V | None, stored: V | None, default: V) -> V:
    """The asked value, unless the weights were trained with another."""
    if asked is not None and trained is not None and asked != trained:
        raise InputError(
            f"--{name} does not fit the weights: a network fed in another way than it was trained gives nonsense",
            got=asked,
            wanted=f"{trained}, as in the weights' record",
            cure=f"leave --{name} out",
        )
    for value in (asked, trained, stored):
        if value is not None:
            return value
    return default


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
