"""Trained weights into a backbone: by name, from a file, or from a finetuned checkpoint or run of ours."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...cache.layout import MAX_CHANNELS
from ...cache.match import WeightsOrigin
from ...cache.settings import Depth, FeatureSettings, Pool, depth_text, require_pool_name
from ...errors import InputError, reading_record, refuse_differing
from ...files import file_sha256, read_json, whole_or_absent
from .registry import HUB, BackboneSpec, Rgb, backbone_spec
from .tensor_files import METADATA_KEY, download, fit_tensors, read_tensors, used_tensors, weights_cache

RANDOM_SEED = 0
"""Seed of `--weights none`."""
_BOUND = ("stride", "window", "width", "height")


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """Where a module's weights came from, and what they bind. Round-trips through JSON."""

    backbone: str
    """Name in `BACKBONES`, `timm:NAME` or `hf:NAME`."""
    depth: Depth
    """Trunk blocks kept."""
    dim: int
    """Channels of a row."""
    mean: Rgb
    """Subtracted from RGB in [0, 1]."""
    std: Rgb
    """RGB in [0, 1] is divided by it after the mean is subtracted."""
    stride: int | None
    """Grid frames per step that a finetuned checkpoint was trained with; None: not bound."""
    window: int | None = None
    """Steps in the clips it was trained with; None: not bound."""
    width: int | None = None
    """Pixels; None: not bound."""
    height: int | None = None
    """Pixels; None: not bound."""
    pool: Pool = "mean"
    """How tokens become a row."""
    weights: str = ""
    """`kinetics`, `imagenet`, `hub`, `none`, or the weights file's name."""
    source: str = ""
    """Address, path, or `seed N`."""
    file_sha256: str | None = None
    """SHA-256 of the weights file; None where there is none (random, timm's own loader)."""
    weights_sha256: str = ""
    """Hash of the tensors that the trunk uses, see `tensors_sha256`."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "WeightsRecord":
        """Inverse of `to_json`.

        Raises:
            AttributeError, TypeError, ValueError: a field is missing, unknown or of another type.
        """
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        for name in ("mean", "std"):
            values[name] = tuple(float(each) for each in values.get(name, ()))
        depth = values.get("depth")
        numbers = [("depth", each) for each in (depth if isinstance(depth, tuple) else (depth,))]
        numbers += [(name, values.get(name)) for name in ("dim", "stride", "window", "width", "height")]
        for name, value in numbers:
            if type(value) not in (int, type(None)) or not 0 < (value or 1) <= MAX_CHANNELS:
                raise TypeError(f"{name} is {value!r}"[:80])
        require_pool_name(values.get("pool", "mean"))
        return cls(**values)


def load_weights(name: str, depth: Depth, weights: str, pool: Pool = "mean") -> tuple[nn.Module, WeightsRecord]:
    """Build a backbone and load its weights.

    Args:
        name: backbone.
        depth: trunk blocks kept; None: the default.
        weights: `kinetics`, `imagenet`, `hub` (whichever the backbone has), `none` (random, seed 0), or the path of a
            .safetensors, .pt, .pth or .pyth file, which may be a checkpoint by `save_backbone_checkpoint`, or of the
            folder of a finetuned run.
        pool: how tokens become a row.

    Returns:
        The module in eval mode, and what is known of its weights.

    Raises:
        InputError: no such backbone, depth, pool, weights or file; a file that is damaged, would execute code, or whose
            tensors do not fit; an address that cannot be reached; a run that is not finished, has no backbone, or
            whose backbone is not the one that it tells of.
    """
    spec = backbone_spec(name, pool)
    depth = spec.depth(depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module = spec.build(depth).eval()
    record = WeightsRecord(
        backbone=name,
        depth=depth,
        dim=spec.output(depth).dim,
        mean=spec.mean,
        std=spec.std,
        stride=None,
        pool=pool,
        weights=weights,
    )
    if weights == "none":
        record = replace(record, source=f"seed {RANDOM_SEED}")
    elif weights in spec.urls:
        record = _load_named(module, spec, record)
    elif (run := finetuned_run(weights)) is not None:
        record = _load_run(module, spec, record, run)
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise InputError(
                f"no weights {weights!r} for {name}",
                got="neither a known name nor a file",
                wanted=f"{', '.join(spec.urls)}, none, a .safetensors, .pt, .pth or .pyth file, or the folder of a run",
                cure=f"--weights {next(iter(spec.urls))}",
            )
        record = _load_file(module, spec, record, path)
    return module, replace(record, weights_sha256=tensors_sha256(module))


def weights_origin(weights: str, record: WeightsRecord) -> WeightsOrigin | None:
    """Where weights that `load_weights` gave came from, for the store; None where there was no file."""
    run = finetuned_run(weights)
    if run is not None:
        return run.origin
    if record.file_sha256 is None:
        return None
    return WeightsOrigin(name=record.weights, file_sha256=record.file_sha256)


def save_backbone_checkpoint(path: Path, module: nn.Module, record: WeightsRecord) -> None:
    """Write a finetuned backbone as one .safetensors file, whole or not at all.

    Args:
        path: ends in .safetensors.
        module: as built by `build_backbone`.
        record: its stride, window, width, height, mean and std bind whoever loads the file.

    Raises:
        InputError: the record leaves something unbound.
    """
    unbound = [name for name in _BOUND if getattr(record, name) is None]
    if unbound:
        raise InputError("a checkpoint must say what it was trained with", got=f"no {', '.join(unbound)}")
    bound = record.to_json()
    for name in ("weights", "source", "file_sha256", "weights_sha256"):
        del bound[name]
    with whole_or_absent(path) as partial:
        save_file(used_tensors(module), partial, metadata={METADATA_KEY: json.dumps(bound)})


def tensors_sha256(module: nn.Module) -> str:
    """SHA-256 (hex) over the sorted (name, dtype, shape, bytes) of the tensors that the trunk uses."""
    digest = hashlib.sha256()
    for name, tensor in used_tensors(module).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _load_named(module: nn.Module, spec: BackboneSpec, record: WeightsRecord) -> WeightsRecord:
    url = spec.urls[record.weights]
    if url.startswith(("timm:", HUB)):
        tensors = _from_hub(url)
        fit_tensors(module, tensors, head_prefixes=spec.head_prefixes, source=url)
        return replace(record, source=url)
    file = download(url, weights_cache() / url.rsplit("/", 1)[-1])
    try:
        loaded = _load_file(module, spec, record, file)
    except InputError as error:
        cure = f"delete {file} and try again; it came from {url}"
        raise InputError(error.what, got=error.got, wanted=error.wanted, cure=cure) from None
    return replace(loaded, weights=record.weights, source=url)


def _from_hub(url: str) -> Mapping[str, Tensor]:
    """By the loader of the library that the model is of."""
    if url.startswith(HUB):
        from .video_transformers import hub_tensors

        return hub_tensors(url.removeprefix(HUB))
    from .nets import build_timm

    name = url.removeprefix("timm:")
    try:
        tensors: Mapping[str, Tensor] = build_timm(name, pretrained=True).state_dict()
        return tensors
    except InputError:
        raise
    except Exception as error:  # timm passes on whatever its loaders (hub, http, disk) raise
        raise InputError(
            f"timm could not fetch the weights of {name}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            wanted=f"https://huggingface.co/timm/{name} (file model.safetensors)",
            cure="fetch that file on another machine and pass it with --weights FILE",
        ) from None


def _load_file(module: nn.Module, spec: BackboneSpec, record: WeightsRecord, path: Path) -> WeightsRecord:
    tensors, bound = read_tensors(path)
    record = replace(record, weights=path.name, source=str(path), file_sha256=file_sha256(path))
    if bound is not None:
        record = _bind(record, bound, path)
    fit_tensors(module, tensors, head_prefixes=spec.head_prefixes, source=str(path))
    return record


def _load_run(module: nn.Module, spec: BackboneSpec, record: WeightsRecord, run: "FinetunedRun") -> WeightsRecord:
    """The backbone in a run's folder, which must be the one that its `run.json` tells of."""
    loaded = replace(_load_file(module, spec, record, run.backbone), weights_sha256=tensors_sha256(module))
    held, recorded = vars(loaded), vars(run.features)
    names = ["weights_sha256", "dim", "width", "height", "mean", "std", "pool"]
    names += ["window", "stride"] if spec.kind == "3d" else []  # a 2-D backbone has no window plan
    wrong = [name for name in names if held[name] != recorded[name]]
    refuse_differing(
        wrong,
        f"{run.backbone}: not the backbone that the run's own run.json tells of",
        got=held,
        wanted=recorded,
        cure="fetch the run's folder again, whole",
    )
    return replace(loaded, weights=run.features.weights)


def _bind(record: WeightsRecord, bound: Mapping[str, Any], path: Path) -> WeightsRecord:
    with reading_record(f"{path}: its record does not fit this version of bas"):
        stored = WeightsRecord.from_json(bound)
    for field, asked, held in (
        ("backbone", record.backbone, stored.backbone),
        ("depth", depth_text(record.depth), depth_text(stored.depth)),
        ("pool", record.pool, stored.pool),
    ):
        if asked != held:
            raise InputError(
                f"{path}: a checkpoint of another {field}", got=asked, wanted=held, cure=f"--{field} {held}"
            )
    return replace(stored, weights=record.weights, source=record.source, file_sha256=record.file_sha256)


BACKBONE = "backbone.safetensors"
"""A finetuned run's backbone, by `weights.save_backbone_checkpoint`."""
RUN, FORMAT = "run.json", "bas-run-1"
"""As `heads` writes them, which is not imported here; a test holds them together."""
KNOWN_NAMES = ("kinetics", "imagenet", "hub", "none")
"""Weights by name; a folder called so is named by `./kinetics`."""


@dataclass(frozen=True)
class FinetunedRun:
    """A finished run with a backbone of its own."""

    folder: Path
    features: FeatureSettings
    """Of the rows that its head was trained on, and so of every row that its backbone makes."""
    run_sha256: str
    """Of `run.json`."""
    epoch: int
    """From 1."""
    train_matches: tuple[str, ...]
    valid_matches: tuple[str, ...]

    @property
    def backbone(self) -> Path:
        """The weights file."""
        return self.folder / BACKBONE

    @property
    def origin(self) -> WeightsOrigin:
        """For the store that its features go into."""
        return WeightsOrigin(
            name=self.folder.resolve().name,
            file_sha256=file_sha256(self.backbone),
            run_sha256=self.run_sha256,
            epoch=self.epoch,
            train_matches=self.train_matches,
            valid_matches=self.valid_matches,
        )

    @classmethod
    def read(cls, folder: Path) -> "FinetunedRun":
        """From a run's folder.

        Raises:
            InputError: no run, damaged, not finished, or without a backbone of its own.
        """
        path = folder / RUN
        if not path.is_file():
            raise InputError(
                f"{folder}: not a run",
                got=f"a folder without {RUN}",
                wanted="the folder that `bas finetune --out` made, or a weights file",
            )
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            got = record.get("format") if isinstance(record, dict) else type(record).__name__
            cure = "use the version of bas that made it"
            raise InputError(f"{path}: another format", got=got, wanted=FORMAT, cure=cure)
        with reading_record(f"{path}: damaged", cure="fetch the run again"):
            features = FeatureSettings.from_json(record["features"])
            train, valid = tuple(record["train_matches"]), tuple(record["valid_matches"])
            if not all(isinstance(name, str) for name in (*train, *valid)):
                raise TypeError("matches are no names")
            run = cls(folder, features, file_sha256(path), int(record["best_epoch"]), train, valid)
            is_finished = record["peaks"] is not None
        if not run.backbone.is_file():
            raise InputError(
                f"{folder}: the run has no backbone of its own",
                got=f"no {BACKBONE}: " + ("its head was trained on a store" if is_finished else "it is not finished"),
                wanted="a finished run of `bas finetune`",
                cure=f"name the weights that its features are made with: {features.weights}",
            )
        if not is_finished:
            raise InputError(
                f"{folder}: the run is not finished",
                got="no peaks chosen, and its backbone may still change",
                cure=f"give the same `bas finetune ... --out {folder}` again: it goes on where it stopped",
            )
        return run


def finetuned_run(weights: str | None) -> FinetunedRun | None:
    """The run that `--weights` names; None where it names no folder. Raises as `FinetunedRun.read`."""
    if weights is None or weights in KNOWN_NAMES:
        return None
    folder = Path(weights).expanduser()
    return FinetunedRun.read(folder) if folder.is_dir() else None


def has_backbone(folder: Path) -> bool:
    """Whether a run's folder holds a backbone of its own."""
    return (folder / BACKBONE).is_file()
