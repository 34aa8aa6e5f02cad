"""Tensors in files from anywhere: read without executing anything, and fitted to a module by their names."""

import pickle
import secrets
import shutil
import urllib.request
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import InputError
from ...files import cache_folder, parse_json, whole_or_absent
from .temporal_shift import is_of_shift, our_name

METADATA_KEY = "bas"
"""Of our record in a safetensors file's header."""
_NESTED_KEYS = ("model_state", "model_state_dict", "nn_state_dict", "state_dict", "model")
_UNUSED_SUFFIX = "num_batches_tracked"
"""Ends the names of counters of training; no feature depends on them."""


class _Skipped:
    """Stands in for numpy's numbers beside the tensors, such as a best score: read over, nothing of numpy is called."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_SKIPPED = [(_Skipped, f"numpy.{name}") for name in ("dtype", "core.multiarray.scalar", "_core.multiarray.scalar")]


def used_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The trunk's tensors by their public names, sorted, on the CPU, contiguous; not the batch counters."""
    return _used(module.get_submodule("trunk"))


def _used(trunk: nn.Module) -> dict[str, Tensor]:
    tensors = sorted(trunk.state_dict().items())
    return {name: tensor.cpu().contiguous() for name, tensor in tensors if not name.endswith(_UNUSED_SUFFIX)}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    """Tensors of a weights file by name, on the CPU, and our own record where it is a checkpoint of ours.

    Raises:
        InputError: the file is damaged, holds no tensors, or needs code to be executed.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(METADATA_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, error) from None
        return tensors, parse_json(text.encode(), where=f"{path}: its record") if text is not None else None
    _require_unpacked(path)
    try:
        with torch.serialization.safe_globals(_SKIPPED):  # type: ignore[arg-type]  # a class and the name it is read by
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
    odd = [n for n, t in tensors.items() if t.layout != torch.strided or t.device.type != "cpu" or t.is_quantized]
    if odd:
        raise InputError(f"{path}: not plain tensors", got=", ".join(odd[:3])[:200], wanted="dense numbers")
    if not tensors:
        raise InputError(f"{path}: holds no tensors", wanted="a state dict, bare or under " + ", ".join(_NESTED_KEYS))
    return tensors, None


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
    larger model and is left out. Of a backbone with `inner_networks` the tensors
    of one of these are enough: each takes them.

    Raises:
        InputError: missing, unexpected or mis-shaped tensors, with counts and the first few names.
    """
    if getattr(module, "shifts", None):
        tensors = {our_name(name): tensor for name, tensor in tensors.items()}
    trunk = module.get_submodule("trunk")
    inner: tuple[str, ...] = getattr(module, "inner_networks", ())
    is_of_one = bool(inner) and not any(f"{inner[0]}." in name for name in tensors)
    for network in [trunk.get_submodule(name) for name in inner] if is_of_one else [trunk]:
        _fit(network, tensors, head_prefixes=head_prefixes, source=source)


def _fit(trunk: nn.Module, tensors: Mapping[str, Tensor], *, head_prefixes: tuple[str, ...], source: str) -> None:
    wanted = _used(trunk)
    prefix = _common_prefix(tensors, wanted)
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix) and n != prefix}
    found = {n: t for n, t in found.items() if not n.endswith(_UNUSED_SUFFIX)}
    shapes = {n: (tuple(found[n].shape), tuple(t.shape)) for n, t in wanted.items() if n in found}
    if not any(map(is_of_shift, found)):  # a network's own weights, before it saw time
        wanted = {name: tensor for name, tensor in wanted.items() if not is_of_shift(name)}
    faults = {
        "missing": [n for n in wanted if n not in found],
        "unexpected": [n for n in found if n not in wanted and not n.startswith(head_prefixes)],
        "of another shape": [f"{n} {got} for {want}" for n, (got, want) in shapes.items() if got != want],
    }
    problems = [f"{len(names)} {fault} ({', '.join(names[:3])})" for fault, names in faults.items() if names]
    if problems:
        raise InputError(
            f"{source}: the weights do not fit the backbone",
            got="; ".join(problems),
            wanted=f"{len(wanted)} tensors, such as {next(iter(wanted))}",
            cure="check --backbone and --depth against the file",
        )
    trunk.load_state_dict({n: found[n] for n in wanted}, strict=False)


def _common_prefix(names: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What stands before the wanted names in the file: the prefix that finds most of them."""
    first = next(iter(wanted))
    candidates = {""} | {name.removesuffix(first) for name in names if name.endswith("." + first)}
    return max(sorted(candidates), key=lambda prefix: sum(prefix + name in names for name in wanted))


def weights_cache() -> Path:
    """Folder of downloaded weights: `$BAS_CACHE/weights`, else `~/.cache/bas/weights`."""
    return cache_folder() / "weights"


def download(url: str, target: Path, *, timeout_seconds: float = 30.0) -> Path:
    """Fetch `url` to `target`, unless it is there. A broken transfer leaves nothing behind.

    Raises:
        InputError: the address cannot be reached, or the file arrives shorter than announced.
    """
    if target.exists():
        return target
    try:
        with (
            # machines that share a home folder may have the same process numbers
            whole_or_absent(target, via=target.with_name(f".{target.name}.{secrets.token_hex(8)}")) as partial,
            partial.open("wb") as out,
            urllib.request.urlopen(url, timeout=timeout_seconds) as answer,
        ):
            shutil.copyfileobj(answer, out)
            announced = answer.headers.get("Content-Length")  # a connection that ends early is no error of its own
            if announced is not None and out.tell() != int(announced):
                raise OSError(f"only {out.tell()} of {announced} bytes arrived")
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(
            f"cannot fetch the weights {target.name}",
            got=error,
            wanted=url,
            cure=f"fetch {url} on another machine and pass it with --weights FILE, or copy it to {target}",
        ) from None
    return target
