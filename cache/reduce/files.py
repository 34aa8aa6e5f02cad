"""A reduction on the disk: the group `reduction` of a store, and one file beside a run on such rows or their export."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import disk_errors, parse_json, read_bounded, read_json, sync_folder, write_atomic, write_synced
from ..layout import (
    DTYPES,
    METADATA,
    METADATA_BYTES,
    PARTIAL,
    REDUCTION,
    canonical_json,
    group_metadata,
    inside,
    plain_metadata,
    same_layout,
)
from ..rows import array_metadata
from ..settings import FeatureSettings
from .reduction import ARRAYS, FloatArray, Reduction

BESIDE_NAME = "reduction.safetensors"
"""In the folder of a run or an export: the arrays, and the record as JSON in the file's header."""
BESIDE_PART = f".{BESIDE_NAME}.part"
"""The same, while it is written."""
_ATTRIBUTE, _FORMAT = "bas_reduction", 1
_FLOAT32 = DTYPES["float32"]


def write_reduction(root: Path, reduction: Reduction) -> None:
    """Put the group into the store at `root`, whole or not at all; the caller holds the root's lock. Raises OSError."""
    staged, place = root / PARTIAL / REDUCTION, root / REDUCTION
    shutil.rmtree(staged, ignore_errors=True)
    record = {_ATTRIBUTE: _record(reduction)}
    write_synced(staged / METADATA, canonical_json(group_metadata(record), where=str(place)))
    for name, array in reduction.arrays.items():
        data = array.astype(_FLOAT32).tobytes()
        attributes = {"sha256": hashlib.sha256(data).hexdigest()}
        document = plain_metadata(array.shape, _FLOAT32, attributes)
        write_synced(staged / name / METADATA, canonical_json(document, where=name))
        write_synced(staged / name / _chunk(array.ndim), data)
    for folder in (*sorted(staged.rglob("*"), reverse=True), staged):
        if folder.is_dir():
            sync_folder(folder)
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed before it made the store
    staged.rename(place)
    sync_folder(root)


def read_reduction(root: Path, settings: FeatureSettings) -> Reduction:
    """The reduction of the store at `root`, checked against its hash.

    Args:
        root: the store.
        settings: the store's.

    Raises:
        InputError: missing, damaged, or not that of the settings.
    """
    path = inside(root, f"{REDUCTION}/{METADATA}")
    metadata = read_json(path, max_bytes=METADATA_BYTES)
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    record = attributes.get(_ATTRIBUTE) if isinstance(attributes, dict) else None
    source, about = _parsed(record, where=str(path))
    arrays = {
        name: _read_array(root, name, shape)
        for name, shape in _shapes(settings, source).items()
        if (root / REDUCTION / name).is_dir()
    }
    return _checked(source, arrays, about, settings, where=str(root / REDUCTION))


def group_files(reduction: Reduction) -> set[str]:
    """Paths of all files of the group, relative to it."""
    return {METADATA} | {
        f"{name}/{file}" for name, array in reduction.arrays.items() for file in (METADATA, _chunk(array.ndim))
    }


def write_beside(folder: Path, reduction: Reduction) -> None:
    """Keep the reduction in the folder of a run or an export, whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    from safetensors.numpy import save

    data = save(reduction.arrays, {REDUCTION: json.dumps(_record(reduction), sort_keys=True)})
    with disk_errors(folder):
        write_atomic(folder / BESIDE_NAME, data, via=folder / BESIDE_PART)


def read_beside(folder: Path, features: FeatureSettings) -> Reduction | None:
    """The reduction that lies beside a run on reduced rows, or beside an export of them; None where rows are full.

    Args:
        folder: of the run or export.
        features: of its rows.

    Raises:
        InputError: missing, damaged, or of other rows.
    """
    from safetensors import SafetensorError, safe_open

    if features.reduction is None:
        return None
    path = folder / BESIDE_NAME
    if not path.is_file():
        raise InputError(
            f"{path}: no such file", got="reduced rows without their components", cure=f"fetch all of {folder} again"
        )
    try:
        with safe_open(path, framework="np") as file:
            source, about = _parsed(_record_of(file.metadata(), path), where=str(path))
            shapes = _shapes(features, source)
            found = set(file.keys())
            arrays = {}
            for name in (name for name in ARRAYS if name in found):
                part = file.get_slice(name)
                if (tuple(part.get_shape()), part.get_dtype()) != (shapes[name], "F32"):
                    raise _damaged(str(path), f"{name} of another shape or type")
                arrays[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _damaged(str(path), str(error)) from None
    return _checked(source, arrays, about, features, where=str(path))


def _record_of(header: Mapping[str, str] | None, path: Path) -> object:
    """What the header of a file says of the reduction; None where it says nothing."""
    text = (header or {}).get(REDUCTION, "null").encode()
    if len(text) > METADATA_BYTES:
        raise _damaged(str(path), f"a record of {len(text):,} bytes", wanted=f"at most {METADATA_BYTES:,}")
    return parse_json(text, where=str(path))


def _record(reduction: Reduction) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "name": reduction.name,
        "source": reduction.source.to_json(),
        "source_key": reduction.source.key(),
        "about": dict(reduction.about),
    }


def _parsed(record: object, *, where: str) -> tuple[FeatureSettings, Mapping[str, Any]]:
    """Source settings, and what is said about the fit."""
    if not isinstance(record, dict) or not {"source", "about"} <= set(record):
        raise _damaged(where, repr(record)[:80])
    if record.get("format") != _FORMAT:
        raise InputError(
            f"{where}: another format",
            got=record.get("format"),
            wanted=_FORMAT,
            cure="use the version of bas that made it",
        )
    source, about = record["source"], record["about"]
    if not isinstance(source, dict) or not isinstance(about, dict):
        raise _damaged(where, repr(source)[:80])
    return FeatureSettings.from_json(source), about


def _shapes(reduced: FeatureSettings, source: FeatureSettings) -> dict[str, tuple[int, ...]]:
    full, dim = source.dim, reduced.dim
    return {"mean": (full,), "components": (dim, full), "scale": (dim,), "offset": (dim,)}


def _checked(
    source: FeatureSettings,
    arrays: Mapping[str, FloatArray],
    about: Mapping[str, Any],
    settings: FeatureSettings,
    *,
    where: str,
) -> Reduction:
    """The reduction, where it is the one that the settings name."""
    try:
        reduction = Reduction(source=source, **arrays, about=about)
        name = reduction.name
    except InputError as error:
        raise _damaged(where, str(error.what)) from None
    if name != settings.reduction or reduction.settings != settings:
        raise _damaged(where, f"{name[:32]}...", wanted=f"{str(settings.reduction)[:32]}...")
    return reduction


def _read_array(root: Path, name: str, shape: tuple[int, ...]) -> FloatArray:
    relative = f"{REDUCTION}/{name}"
    metadata = array_metadata(root, relative)
    if not same_layout(metadata, plain_metadata(shape, _FLOAT32, {})):
        raise _damaged(str(root / relative), f"shape {metadata['shape']}, or another layout", wanted=f"float32 {shape}")
    path = inside(root, f"{relative}/{_chunk(len(shape))}")
    num_bytes = _FLOAT32.itemsize * int(np.prod(shape, dtype=object))
    data = read_bounded(path, max_bytes=num_bytes)
    if len(data) != num_bytes:
        raise _damaged(str(path), f"{len(data)} bytes", wanted=f"{num_bytes} bytes")
    return np.frombuffer(data, _FLOAT32).reshape(shape)


def _chunk(num_axes: int) -> str:
    return "/".join(("c", *("0" * num_axes)))


def _damaged(where: str, got: str, *, wanted: str | None = None) -> InputError:
    cure = "fetch it again, or reduce the full store again into another --out"
    return InputError(f"{where}: damaged", got=got, wanted=wanted, cure=cure)
