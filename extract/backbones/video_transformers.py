"""Video transformers of the library `transformers`, by a name on the Hugging Face hub or a folder: `hf:NAME`.

They cut clips into tubelets, patches of two frames: T frames give T / 2 rows of tokens, each centred between its two
frames. Both get the row, half a step ahead of one and behind the other. Where the hop between overlapping clips is odd,
a frame is first in its tubelet in one clip and second in the next, and the blended row is centred on it to less than
half a step: the hop is odd unless asked otherwise. With `--pool twice` a clip is passed twice, a frame apart: row j is
then the tubelet of the frames (j, j + 1), and the mean of the rows j - 1 and j is centred on frame j. That costs twice
as much, and a shorter odd hop is closer to a clip around each frame for less (docs/guide/encoders.md has the figures).

Letters: B clips, T steps, L frames of one pass (even), N tokens, C channels.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...cache.settings import Depth, Pool
from ...errors import InputError, reading_record
from ...files import read_json
from .registry import HUB, IMAGENET, IMAGENET_STD, BackboneSpec, Output, Rgb, require_pool
from .torchvision_compat import import_with_torchvision

_TUBELET = 2
"""Frames of a tubelet; all public weights have it."""
_GRID = 1 << 12
"""Patches per side of the grid on which V-JEPA 2's positions are numbered here; no picture has so many."""
_STRIDES = {"vjepa2-": 6, "videomae-": 4}
"""Beginning of the last part of a name -> grid frames per step at 25 fps: four frames a second, every fourth frame."""
_PICTURES = ("video_preprocessor_config.json", "preprocessor_config.json")
"""Files that may hold mean and deviation."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What differs between the architectures."""

    name: str
    """Begins the names of its classes in the library."""
    num_frames: str
    """Field of the configuration: frames of a clip."""
    size: str
    """Field of the configuration: side of a picture, or height and width."""
    is_fixed: bool
    """Whether its positions are for one clip length and picture size only."""
    trunk: str
    """Submodule of the model that makes rows; empty: the model."""
    tokens: Callable[[Any, Tensor], Tensor]
    """(trunk, frames (B, L, 3, H, W)) -> (B, N, C), those of one tubelet after those of another."""


def _vjepa2_tokens(encoder: Any, frames: Tensor) -> Tensor:
    """The encoder's own forward pass, which numbers positions as if every picture were the square of its configuration;
    here they are those of the picture that there is."""
    sides = [frames.shape[1] // _TUBELET] + [side // encoder.config.patch_size for side in frames.shape[3:]]
    axes = (torch.arange(side, device=frames.device) for side in sides)
    step, row, column = torch.meshgrid(*axes, indexing="ij")
    positions = ((step * _GRID + row) * _GRID + column).reshape(1, -1)
    tokens = encoder.embeddings(frames)
    for layer in encoder.layer:
        layer.attention.grid_size = _GRID
        tokens = layer(tokens, positions)[0]
    normed: Tensor = encoder.layernorm(tokens)
    return normed


_FAMILIES = {
    "vjepa2": _Family(
        name="VJEPA2",
        num_frames="frames_per_clip",
        size="crop_size",
        is_fixed=False,
        trunk="encoder",
        tokens=_vjepa2_tokens,
    ),
    "videomae": _Family(
        name="VideoMAE",
        num_frames="num_frames",
        size="image_size",
        is_fixed=True,
        trunk="",
        tokens=lambda model, frames: model(frames).last_hidden_state,
    ),
}
"""By `model_type` of the configuration."""


class TubeletBackbone(nn.Module):
    """A video transformer, then the mean over the patches of a tubelet. Forward as in `ClipBackbone`.

    Args:
        trunk: what `tokens` takes.
        tokens: as in `_Family`.
        num_frames: frames of every pass, where it takes no other number: shorter clips are filled up with their last
            frame. None: any even number.
        passes: 1: each row is repeated; 2: interleaved, a row is the mean of the two tubelets that its frame is in.
    """

    def __init__(
        self, trunk: nn.Module, tokens: Callable[[Any, Tensor], Tensor], *, num_frames: int | None, passes: int
    ) -> None:
        super().__init__()
        self.trunk, self.tokens, self.num_frames, self.passes = trunk, tokens, num_frames, passes

    def forward(self, clips: Tensor) -> Tensor:
        num_steps = clips.shape[2]
        length = self.num_frames or num_steps + num_steps % _TUBELET
        if num_steps > length:
            raise InputError("a clip is longer than this backbone takes", got=num_steps, wanted=length)
        frames = clips.transpose(1, 2)
        passes = [self._tubelets(frames, first, length) for first in range(self.passes)]  # each (B, L / 2, C)
        if self.passes == 1:
            return passes[0].repeat_interleave(_TUBELET, dim=1)[:, :num_steps]
        rows = torch.stack(passes, dim=2).flatten(1, 2)[:, :num_steps]  # row j: frames (j, j + 1)
        return (rows + torch.cat([rows[:, :1], rows[:, :-1]], dim=1)) / 2

    def _tubelets(self, frames: Tensor, first: int, length: int) -> Tensor:
        steps = torch.arange(first, first + length, device=frames.device).clamp(max=frames.shape[1] - 1)
        tokens = self.tokens(self.trunk, frames[:, steps])
        return tokens.reshape(len(tokens), length // _TUBELET, -1, tokens.shape[-1]).mean(dim=2)


def spec_from_hub(name: str, pool: Pool) -> BackboneSpec:
    """What a repository or folder says of its model.

    Args:
        name: `ORG/NAME`, or a folder with config.json.
        pool: `mean` or `twice`.

    Raises:
        InputError: there is none, it is damaged, of an architecture that is not known, or `transformers` is missing.
    """
    require_pool(f"{HUB}{name}", pool, ("mean", "twice"))
    family, config, folder = _configuration(name, "*.json")
    mean, std = _colours(folder)
    with reading_record(f"{HUB}{name}: config.json does not describe a model that works here"):
        size, patch = getattr(config, family.size), config.patch_size
        height, width = (size, size) if isinstance(size, int) else map(int, size)
        num_frames = int(getattr(config, family.num_frames))
        if config.tubelet_size != _TUBELET or num_frames % _TUBELET or not isinstance(patch, int):
            raise ValueError(f"tubelet_size {config.tubelet_size}, {num_frames} frames, patch_size {patch}")

    def build(_depth: Depth) -> nn.Module:
        try:
            trunk = getattr(_library(), f"{family.name}Model")(config).get_submodule(family.trunk)
        except Exception as error:  # whatever the library says about numbers that do not go together
            raise _unusable(name, "transformers cannot build the model of its config.json", error) from None
        only = num_frames if family.is_fixed else None
        return TubeletBackbone(trunk, family.tokens, num_frames=only, passes=_TUBELET if pool == "twice" else 1)

    return BackboneSpec(
        kind="3d",
        outputs={None: Output(config.hidden_size, num_frames)},
        mean=mean,
        std=std,
        native_size=height,
        build=build,
        urls={"hub": f"{HUB}{name}"},
        head_prefixes=("decoder.", "predictor.", "pooler.", "classifier.", "fc_norm.", "mask_token"),
        stride=next((stride for begin, stride in _STRIDES.items() if Path(name).name.startswith(begin)), 1),
        patch=patch,
        window=num_frames,
        size=(width, height),
        is_fixed=family.is_fixed,
        frames_per_row=_TUBELET,
    )


def hub_tensors(name: str) -> Mapping[str, Tensor]:
    """The tensors of the trunk, from the repository's or folder's safetensors files.

    Raises:
        InputError: it has none, they are damaged, or some of the trunk's are missing.
    """
    family, config, folder = _configuration(name, "*.json", "*.safetensors")
    try:
        model, told = getattr(_library(), f"{family.name}Model").from_pretrained(
            folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # OSError, safetensors' own, RuntimeError of shapes: as the library passes them on
        raise _unusable(name, "its weights cannot be loaded", error, wanted="model.safetensors") from None
    tensors: Mapping[str, Tensor] = model.get_submodule(family.trunk).state_dict()
    missing = sorted(each for each in told["missing_keys"] if each.startswith(family.trunk))
    if missing:
        raise InputError(
            f"{HUB}{name}: its weights do not hold the whole model",
            got=f"{len(missing)} tensors missing, such as {', '.join(missing[:3])}",
            wanted=f"{len(tensors)} tensors",
            cure="fetch it again",
        )
    return tensors


def _configuration(name: str, *patterns: str) -> tuple[_Family, Any, Path]:
    """Family, the library's own configuration object, and the folder with the files of these patterns."""
    folder = _folder(name, *patterns)
    record = read_json(folder / "config.json")
    kind = record.get("model_type") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise InputError(
            f"{HUB}{name}: no architecture that is known here",
            got=f"model_type {kind!r}"[:80],
            wanted=" or ".join(_FAMILIES) + " (code that comes with weights is never run)",
            cure="another --backbone; `bas weights` lists how they are named",
        )
    family = _FAMILIES[kind]
    cls = getattr(_library(), f"{family.name}Config")
    # the architecture alone: a configuration may also name code on the hub (kernels, quantizers) that would be run
    known = {*cls.__annotations__, "qkv_bias"}
    try:
        return family, cls.from_dict({key: value for key, value in record.items() if key in known}), folder
    except Exception as error:  # the library's strict dataclasses have errors of their own
        raise _unusable(name, "config.json is damaged", error) from None


def _folder(name: str, *patterns: str) -> Path:
    """The folder itself, or the hub's files, which its own client keeps in its cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    wanted = "ORG/NAME of a repository on huggingface.co, or a folder with config.json and model.safetensors"
    if name.startswith(("/", ".", "~")):
        raise InputError(f"{HUB}{name}: no such folder", wanted=wanted)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # network, names, permissions: the client has errors of many kinds
        raise _unusable(
            name,
            "no such folder, and the hub does not give it",
            error,
            wanted=wanted,
            cure=f"where the hub is reached: hf download {name} --local-dir FOLDER; then --backbone {HUB}FOLDER",
        ) from None


def _colours(folder: Path) -> tuple[Rgb, Rgb]:
    """Mean and deviation of RGB, as the preprocessor's file says; ImageNet's where there is none."""
    path = next((folder / file for file in _PICTURES if (folder / file).is_file()), None)
    if path is None:
        return IMAGENET, IMAGENET_STD
    record = read_json(path)
    with reading_record(f"{path}: damaged", cure="fetch it again"):
        mean, std = (tuple(map(float, record[key])) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"image_mean {mean}, image_std {std}")
        return mean, std


def _library() -> ModuleType:
    try:
        library = import_with_torchvision("transformers")
    except ImportError:
        raise InputError(
            "video transformers need the package transformers",
            got="it is not installed",
            cure='pip install "ball-action-spotting[transformers]"',
        ) from None
    logging.getLogger("transformers").setLevel(logging.ERROR)  # it lists the tensors of decoders, which are not used
    library.utils.logging.disable_progress_bar()
    return library


def _unusable(name: str, what: str, error: Exception, *, wanted: str = "", cure: str = "fetch it again") -> InputError:
    got = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200]
    return InputError(f"{HUB}{name}: {what}", got=got, wanted=wanted or None, cure=cure)
