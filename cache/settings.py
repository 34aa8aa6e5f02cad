"""The settings key of a feature store: every setting that changes a number in it."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, Literal, get_args

from ..errors import InputError, named_values, reading_record, refuse_differing
from ..events import TimeGrid
from ..files import settings_from
from .layout import MAX_CHANNELS

Blend = Literal["hann", "mean", "centre"]
Fit = Literal["pad", "stretch"]
Pool = str
"""One of `POOLS`, or `grid:2x4` for rows x columns of cells."""
POOLS: tuple[Pool, ...] = ("mean", "cls", "both", "twice")
_GRID = re.compile(r"grid:([1-9])x([1-9])")
Scaler = Literal["swscale-bicubic", "swscale-bilinear", "swscale-area", "swscale-lanczos", "torch-bilinear"]
Depth = int | tuple[int, ...] | None
"""Trunk blocks of a backbone that are kept. Several: a row holds the channels of each, one after the other. None: the
backbone has one depth only."""
IMPORTED = "import:"
"""Begins the backbone's name where the rows were imported: another program made them."""
REDUCED_CURE = (
    "put the rows into the full store (or a new one), then `bas cache pca FULL --out REDUCED`, which reduces them with "
    "the components that are there"
)
"""What to do where rows are wanted in a reduced store."""
_OPTIONAL = {"reduction": None, "depth_dims": None, "pool": "mean"}
"""Fields that are left out of JSON and key where they have these values: they came later."""
_REDUCTION = re.compile(r"(pca-[1-9][0-9]*|uint8|pca-[1-9][0-9]*\+uint8):[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """All that decides the value of a feature row. Two stores with equal settings hold interchangeable features.

    The engine (PyTorch, OpenVINO, CUDA) is not here: each is held to a cosine of 0.9999 against plain fp32, and is
    recorded per array instead.
    """

    backbone: str
    """Name in `BACKBONES`, `timm:NAME`, `hf:NAME`, or `import:KIND` of rows that another program made."""
    depth: Depth
    """Number of trunk blocks kept (X3D: 2 to 5), or several."""
    weights: str
    """Where the weights came from: `kinetics`, `imagenet`, `hub`, `none`, or the file's name; imported: the model."""
    weights_sha256: str
    """Hash of the loaded tensors (names, shapes, values), so that a renamed or replaced file is noticed."""
    dim: int
    """Channels of a feature row, > 0."""
    width: int
    """Pixels, as fed to the backbone, > 0."""
    height: int
    """Pixels, as fed to the backbone, > 0."""
    fit: Fit
    """How a picture of another aspect is brought to width x height: black bars, or stretched."""
    scaler: Scaler
    """The resizer; resizers differ by up to 6 grey levels. `torch-bilinear` runs on the device, antialiased."""
    fps: str
    """Frames per second of the grid as a fraction, e.g. `25` or `30000/1001`; `source`: each video's own."""
    window: int
    """Steps in one clip that the backbone sees; 1 for 2-D backbones."""
    hop: int
    """Steps between the starts of neighbouring clips, 1..window."""
    blend: Blend
    """How rows of overlapping clips are averaged."""
    stride: int
    """Grid frames per step: the stream is split into `stride` phases, run apart and interleaved."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """RGB in [0, 1] is divided by it after the mean is subtracted."""
    dtype: str = "float16"
    """Type of the stored rows."""
    reduction: str | None = None
    """Of rows that `bas cache pca` reduced: kind and SHA-256, see `Reduction.name`. Left out of JSON and key where
    there is none, so that keys of full stores are what they were before it existed."""
    depth_dims: tuple[int, ...] | None = None
    """Channels of each depth, where rows hold several; else left out of JSON and key."""
    pool: Pool = "mean"
    """How tokens become a row: `mean` over space, `cls`: the class token, `both`: class token, then mean; `twice`: mean
    over space of two passes of a video transformer a frame apart; `grid:2x4`: means over 2 rows of 4 cells, one after
    the other. `mean` is left out of JSON and key likewise."""

    def __post_init__(self) -> None:
        for name in ("dim", "width", "height", "window", "hop", "stride"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_CHANNELS:
                wanted = f"a whole number >= 1 and at most {MAX_CHANNELS}"
                raise InputError(f"setting {name!r} is not usable", got=repr(value)[:80], wanted=wanted)
        for name in ("backbone", "weights", "weights_sha256", "fps"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"setting {name!r} is not usable", got=repr(getattr(self, name))[:80], wanted="text")
        depths, dims = (each if isinstance(each, tuple) else () for each in (self.depth, self.depth_dims))
        if not (self.depth is None or depths or type(self.depth) is int) or len(depths) != len(dims):
            got = f"{self.depth!r}, channels {self.depth_dims!r}"[:80]
            raise InputError("setting 'depth' is not usable", got=got, wanted="a whole number, or several of them")
        if any(type(each) is not int or not 1 <= each <= MAX_CHANNELS for each in (*depths, *dims)):
            raise InputError("setting 'depth' is not usable", got=f"{depths}, {dims}"[:80], wanted="whole numbers >= 1")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise InputError(f"setting {name!r} is not usable", got=repr(getattr(self, name))[:80], wanted="RGB")
        if self.hop > self.window:
            raise InputError("hop leaves frames without a feature", got=self.hop, wanted=f"1 to window ({self.window})")
        choices = {"blend": get_args(Blend), "fit": get_args(Fit), "scaler": get_args(Scaler)}
        for name, allowed in (choices | {"dtype": ("float16", "uint8")}).items():
            if getattr(self, name) not in allowed:
                raise InputError(f"setting {name!r} is not known", got=getattr(self, name), wanted=", ".join(allowed))
        require_pool_name(self.pool)
        if self.fps != "source":
            TimeGrid.parse(self.fps)
        if self.reduction is not None and not _REDUCTION.fullmatch(str(self.reduction)):
            got = repr(self.reduction)[:100]
            raise InputError("setting 'reduction' is not usable", got=got, wanted="such as pca-64:SHA-256")

    @classmethod
    def imported(cls, *, kind: str, model: str, dim: int, fps: str) -> "FeatureSettings":
        """Of rows that we did not make: kind (such as `scores`), model, channels and rows per second tell them apart.

        How their maker saw the pictures is not known: those fields hold a value that stands for nothing.
        """
        return cls(
            backbone=IMPORTED + kind,
            depth=None,
            weights=model,
            weights_sha256="unknown",
            dim=dim,
            width=1,
            height=1,
            fit="pad",
            scaler="swscale-bicubic",
            fps=fps,
            window=1,
            hop=1,
            blend="centre",
            stride=1,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )

    @property
    def fps_fraction(self) -> Fraction | None:
        """Frames per second of the grid; None for each video's own rate."""
        return None if self.fps == "source" else TimeGrid.parse(self.fps).fps

    @property
    def is_imported(self) -> bool:
        """Whether another program made the rows."""
        return self.backbone.startswith(IMPORTED)

    @property
    def is_principal(self) -> bool:
        """Whether the channels are principal components: their proportions say how much each of them matters."""
        return self.reduction is not None and self.reduction.startswith("pca-")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in field order; without what is in `_OPTIONAL` where it is the default."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value != _OPTIONAL[name]}

    @classmethod
    def from_json(cls, record: object, *, where: str = "the store") -> "FeatureSettings":
        """Inverse of `to_json`. Fields that a record does not have get their defaults, so that old stores open.

        Raises:
            InputError: a field is unknown (names it) or of the wrong type, or one without a default is missing.
        """
        values = record
        if isinstance(record, Mapping):
            with reading_record(f"{where}: settings are damaged"):
                colours = {name: tuple(map(float, record[name])) for name in ("mean", "std") if name in record}
            lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
            values = {**record, **lists, **colours}
        settings = settings_from(cls, values, where=where)
        mine, given = settings.to_json(), dict(record) if isinstance(record, Mapping) else {}
        wrong = [name for name in given if json.dumps(given[name]) != json.dumps(mine.get(name))]  # such as 25.0 for 25
        if wrong:
            raise InputError(f"{where}: settings are damaged", got=named_values(wrong, given)[:400])
        return settings

    def channels_of(self, depth: int) -> tuple[int, int]:
        """First channel of a depth in a row, and the one behind its last. Raises InputError where it is not there."""
        depths, dims = (each if isinstance(each, tuple) else () for each in (self.depth, self.depth_dims))
        if depth not in depths or sum(dims) != self.dim:
            raise InputError(
                "--depth names a depth that the rows do not hold by itself",
                got=depth,
                wanted=depth_text(depths) if sum(dims) == self.dim else "rows of several depths, not reduced",
                cure="bas extract --depth 2,3,4,5 makes rows of several depths; leave --depth out to use all channels",
            )
        first = sum(dims[: depths.index(depth)])
        return first, first + dims[depths.index(depth)]

    def key(self) -> str:
        """SHA-256 (hex) of all that decides the rows; not the name of a weights file, as its tensors are hashed."""
        kept = self.is_imported  # there the name of the model is all that is known of it
        return _hash({name: value for name, value in self.to_json().items() if kept or name != "weights"})

    def key_with_name(self) -> str:
        """The key as it was while the name of the weights was part of it: stores made then have it, and reductions."""
        return _hash(self.to_json())

    def differing(self, other: "FeatureSettings") -> list[str]:
        """Names of the fields that differ and decide the rows."""
        same_tensors = self.weights_sha256 == other.weights_sha256 and not self.is_imported
        names = [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]
        return [name for name in names if name != "weights" or not same_tensors]

    def require_equal(self, stored: "FeatureSettings", *, store: str) -> None:
        """Refuse to mix features of two settings.

        Raises:
            InputError: names each field that differs, both values, and the cure.
        """
        cure = "leave these options out to follow the store, or name another --out"
        cure = cure if stored.reduction is None else REDUCED_CURE
        what = f"{store}: made with other settings"
        refuse_differing(self.differing(stored), what, got=vars(self), wanted=vars(stored), cure=cure)


def grid_of(pool: Pool) -> tuple[int, int] | None:
    """Rows and columns of cells that `grid:2x4` asks for; None for any other pool."""
    found = _GRID.fullmatch(pool)
    return (int(found[1]), int(found[2])) if found else None


def require_pool_name(pool: object) -> None:
    """Raise InputError unless a pool is one of `POOLS` or a grid."""
    if not isinstance(pool, str) or (pool not in POOLS and grid_of(pool) is None):
        wanted = f"{', '.join(POOLS)}, or such as grid:2x4"
        raise InputError("--pool is not known", got=repr(pool)[:80], wanted=wanted, cure="--pool mean")


def depth_text(depth: Depth) -> str:
    """As it is typed: `5` or `2,3,4,5`; empty where there is one only."""
    return "" if depth is None else ",".join(map(str, depth if isinstance(depth, tuple) else (depth,)))


def parse_depth(text: str) -> Depth:
    """`5` -> 5, `2,3,4,5` -> (2, 3, 4, 5).

    Raises:
        InputError: anything else, or not in ascending order.
    """
    parts = [part.strip() for part in text.split(",")]
    depths = tuple(int(part) for part in parts if part.isdigit())
    if len(depths) < len(parts) or list(depths) != sorted(set(depths)):
        raise InputError("--depth is not usable", got=text, wanted="a whole number, or several in order, as 2,3,4,5")
    return depths if len(depths) > 1 else depths[0]


def _hash(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
