"""Trained weights into a backbone: by name, from a file, or from a finetuned checkpoint or run of ours."""

import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...cache.origin import WeightsOrigin
from ...cache.shard import MAX_CHANNELS
from ...errors import InputError, named_values, reading_record
from ...events import parse_json
from .download import download, file_sha256, weights_cache
from .registry import BackboneSpec, Rgb, backbone_spec
from .run_folder import FinetunedRun, finetuned_run

RANDOM_SEED = 0
"""Seed of `--weights none`."""

_METADATA_KEY = "bas"
_NESTED_KEYS = ("model_state", "state_dict", "model")
_UNUSED_SUFFIX = "num_batches_tracked"  # a counter of training; no feature depends on it
_BOUND = ("stride", "window", "width", "height")


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """Where a module's weights came from, and what they bind. Round-trips through JSON."""

    backbone: str
    """Name in `BACKBONES`, or `timm:NAME`."""
    depth: int | None
    """Trunk blocks kept; None where there is one depth only."""
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
    weights: str = ""
    """`kinetics`, `imagenet`, `none`, or the weights file's name."""
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
        for name in ("depth", "dim", "stride", "window", "width", "height"):
            if type(values.get(name)) not in (int, type(None)) or not 0 < (values.get(name) or 1) <= MAX_CHANNELS:
                raise TypeError(f"{name} is {values[name]!r}"[:80])
        return cls(**values)

    def require(self, asked: Mapping[str, object]) -> None:
        """Refuse what contradicts the weights.

        Args:
            asked: settings that the user named, by field name; None means not named.

        Raises:
            InputError: names each setting that the weights bind to another value.
        """
        bound = self.to_json()
        wrong = {
            name: value
            for name, value in asked.items()
            if value is not None and bound.get(name) is not None and _plain(value) != bound[name]
        }
        if wrong:
            raise InputError(
                f"the weights {self.weights} were trained with other settings: {', '.join(wrong)}",
                got=named_values(wrong, wrong),
                wanted=named_values(wrong, bound),
                cure="leave these options out to follow the weights, or use other weights",
            )


def load_weights(name: str, depth: int | None, weights: str) -> tuple[nn.Module, WeightsRecord]:
    """Build a backbone and load its weights.

    Args:
        name: backbone.
        depth: trunk blocks kept; None: the default.
        weights: `kinetics`, `imagenet` (whichever the backbone has), `none` (random, seed 0), or the path of a
            .safetensors, .pt, .pth or .pyth file, which may be a checkpoint by `save_backbone_checkpoint`, or of the
            folder of a finetuned run.

    Returns:
        The module in eval mode, and what is known of its weights.

    Raises:
        InputError: no such backbone, depth, weights or file; a file that is damaged, would execute code, or whose
            tensors do not fit; an address that cannot be reached; a run that is not finished, has no backbone, or
            whose backbone is not the one that it tells of.
    """
    spec = backbone_spec(name)
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
        weights=weights,
    )
    if weights == "none":
        record = replace(record, source=f"seed {RANDOM_SEED}")
    elif weights in spec.urls:
        record = _load_named(module, spec, record)
    elif (run := finetuned_run(weights)) is not None:
        record = _load_run(module, spec, record, run)
    else:
        record = _load_file(module, spec, record, _existing_file(weights, name, spec))
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
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(used_tensors(module), partial, metadata={_METADATA_KEY: json.dumps(bound)})
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def used_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The trunk's tensors by their public names, sorted, on the CPU, contiguous; not the batch counters."""
    trunk = module.get_submodule("trunk")
    tensors = sorted(trunk.state_dict().items())
    return {name: tensor.cpu().contiguous() for name, tensor in tensors if not name.endswith(_UNUSED_SUFFIX)}


def tensors_sha256(module: nn.Module) -> str:
    """SHA-256 (hex) over the sorted (name, dtype, shape, bytes) of the tensors that the trunk uses."""
    digest = hashlib.sha256()
    for name, tensor in used_tensors(module).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _existing_file(weights: str, name: str, spec: BackboneSpec) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(
            f"no weights {weights!r} for {name}",
            got="neither a known name nor a file",
            wanted=f"{', '.join(spec.urls)}, none, a .safetensors, .pt, .pth or .pyth file, or the folder of a run",
            cure=f"--weights {next(iter(spec.urls))}",
        )
    return path


def _load_named(module: nn.Module, spec: BackboneSpec, record: WeightsRecord) -> WeightsRecord:
    url = spec.urls[record.weights]
    if url.startswith("timm:"):
        tensors = _from_timm_hub(url.removeprefix("timm:"))
        fit_tensors(module, tensors, head_prefixes=spec.head_prefixes, source=url)
        return replace(record, source=url)
    file = download(url, weights_cache() / url.rsplit("/", 1)[-1])
    try:
        loaded = _load_file(module, spec, record, file)
    except InputError as error:
        cure = f"delete {file} and try again; it came from {url}"
        raise InputError(error.what, got=error.got, wanted=error.wanted, cure=cure) from None
    return replace(loaded, weights=record.weights, source=url)


def _from_timm_hub(name: str) -> dict[str, Tensor]:
    from .timm_nets import build_timm

    try:
        return build_timm(name, pretrained=True).state_dict()
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


def _load_run(module: nn.Module, spec: BackboneSpec, record: WeightsRecord, run: FinetunedRun) -> WeightsRecord:
    """The backbone in a run's folder, which must be the one that its `run.json` tells of."""
    loaded = replace(_load_file(module, spec, record, run.backbone), weights_sha256=tensors_sha256(module))
    held, told = loaded.to_json(), run.features.to_json()
    names = ["weights_sha256", "dim", "width", "height", "mean", "std"]
    names += ["window", "stride"] if spec.kind == "3d" else []  # a 2-D backbone has no window plan
    wrong = [name for name in names if held[name] != told[name]]
    if wrong:
        raise InputError(
            f"{run.backbone}: not the backbone that the run's own run.json tells of; these differ: {', '.join(wrong)}",
            got=named_values(wrong, held),
            wanted=named_values(wrong, told),
            cure="fetch the run's folder again, whole",
        )
    return replace(loaded, weights=run.features.weights)


def _bind(record: WeightsRecord, bound: Mapping[str, Any], path: Path) -> WeightsRecord:
    with reading_record(f"{path}: its record does not fit this version of bas"):
        stored = WeightsRecord.from_json(bound)
    for field, asked, held in (
        ("backbone", record.backbone, stored.backbone),
        ("depth", record.depth, stored.depth),
    ):
        if asked != held:
            raise InputError(
                f"{path}: a checkpoint of another {field}", got=asked, wanted=held, cure=f"--{field} {held}"
            )
    return replace(stored, weights=record.weights, source=record.source, file_sha256=record.file_sha256)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    """Tensors of a weights file by name, on the CPU, and our own record where it is a checkpoint of ours.

    Raises:
        InputError: the file is damaged, holds no tensors, or needs code to be executed.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    _require_unpacked(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, it is damaged or would execute code",
            got=str(error).splitlines()[0][:200],
            wanted="a file of plain tensors",
            cure="get it as .safetensors from its maker",
        ) from None
    except Exception as error:  # whatever torch says about damaged or hostile bytes
        raise _damaged(path, error) from None
    for key in _NESTED_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    entries = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    odd = [name for name, value in tensors.items() if not _is_plain(value)]
    if odd:
        raise InputError(f"{path}: not plain tensors", got=", ".join(odd[:3])[:200], wanted="dense numbers")
    if not tensors:
        raise InputError(f"{path}: holds no tensors", wanted="a state dict, bare or under " + ", ".join(_NESTED_KEYS))
    return tensors, None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None
    return tensors, parse_json(text.encode(), where=f"{path}: its record") if text is not None else None


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _require_unpacked(path: Path) -> None:
    """Refuse a zip file with packed entries: torch writes none, and a small one may unpack to all memory there is."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            num_bytes = sum(entry.file_size for entry in file.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from None
    if num_bytes > path.stat().st_size:
        raise InputError(
            f"{path}: refused, it would unpack to more than it holds",
            got=f"{num_bytes:,} bytes in {path.stat().st_size:,}",
            wanted="a file as torch writes it",
            cure="get it as .safetensors from its maker",
        )


def _damaged(path: Path, error: Exception) -> InputError:
    lines = str(error).splitlines() or [type(error).__name__]
    return InputError(
        f"{path}: not a weights file, or a damaged one", got=lines[0][:200], cure="fetch it again, and compare its size"
    )


def fit_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], *, head_prefixes: tuple[str, ...], source: str
) -> None:
    """Copy tensors into the trunk; each that it uses must be there in its shape, and nothing else but a classifier.

    A prefix before every name (`module.`, `backbone.trunk.`) is recognised; what lacks it belongs to another part of a
    larger model and is left out.

    Raises:
        InputError: missing, unexpected or mis-shaped tensors, with counts and the first few names.
    """
    wanted = used_tensors(module)
    prefix = _common_prefix(tensors, wanted)
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix) and n != prefix}
    found = {n: t for n, t in found.items() if not n.endswith(_UNUSED_SUFFIX)}
    shapes = {n: (tuple(found[n].shape), tuple(t.shape)) for n, t in wanted.items() if n in found}
    faults = {
        "missing": [n for n in wanted if n not in found],
        "unexpected": [n for n in found if n not in wanted and not n.startswith(head_prefixes)],
        "of another shape": [f"{n} {got} for {want}" for n, (got, want) in shapes.items() if got != want],
    }
    told = [f"{len(names)} {fault} ({', '.join(names[:3])})" for fault, names in faults.items() if names]
    if told:
        raise InputError(
            f"{source}: the weights do not fit the backbone",
            got="; ".join(told),
            wanted=f"{len(wanted)} tensors, such as {next(iter(wanted))}",
            cure="check --backbone and --depth against the file",
        )
    module.get_submodule("trunk").load_state_dict({n: found[n] for n in wanted}, strict=False)


def _common_prefix(names: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What stands before the wanted names in the file: the prefix that finds most of them."""
    first = next(iter(wanted))
    candidates = {""} | {name.removesuffix(first) for name in names if name.endswith("." + first)}
    return max(sorted(candidates), key=lambda prefix: sum(prefix + name in names for name in wanted))
