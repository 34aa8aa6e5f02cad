"""What the feature store looks like on disk: safe ids, Zarr v3 metadata as plain JSON. Pure but for `inside`.

T: rows (frames of the grid), C: channels of a feature row.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import google_crc32c
import numpy as np

from ..errors import InputError

FORMAT = 1
"""Version of the layout, in the root attributes."""
FEATURES, PTS, VALID = "features", "pts", "valid"
REDUCTION = "reduction"
"""Group at the root of a reduced store: how its rows were made from full ones."""
PARTIAL = ".partial"
"""Folder of unfinished work inside a store; gone when there is none."""
MANIFESTS = "__manifest__"
"""Folder of what a shared store says of its matches; no Zarr node and no match can have such a name."""
METADATA = "zarr.json"
METADATA_BYTES = 16 << 20
"""Largest `zarr.json` or journal that is read: the labels of a long match are a tenth of it."""
MAX_ID_PARTS, MAX_ID_BYTES = 32, 1024
_RESERVED_PARTS = frozenset({FEATURES, PTS, VALID, METADATA})
# what Windows refuses: a store is carried from one system to another
_HOSTILE_CHARACTERS = frozenset('<>:"|?*\\')
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})

CHUNK_ROWS = 256
"""Rows in one chunk; what is journalled is a multiple of it."""
MAX_ROWS, MAX_CHANNELS = 1 << 24, 1 << 16
"""Of a match: a week at 25 frames a second, and far more channels than any network has. More is a lie."""
MAX_CHUNK_ROWS = 1 << 16
"""Of a shard that we map."""
DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
"""Zarr's name of a data type -> how it lies in the file; what we read."""
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass(frozen=True)
class ShardLayout:
    """Geometry of one shard that holds all rows of a view: a raw matrix, then the index."""

    num_rows: int
    """T, >= 1."""
    num_channels: int
    """C, >= 1."""
    dtype: np.dtype[Any]
    """One of `DTYPES`."""
    chunk_rows: int = CHUNK_ROWS
    """Rows in one inner chunk."""

    @cached_property
    def num_chunks(self) -> int:
        """Inner chunks, the last one padded."""
        return -(-self.num_rows // self.chunk_rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.num_channels * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one inner chunk."""
        return self.chunk_rows * self.row_bytes

    @property
    def data_bytes(self) -> int:
        """Bytes of the rows without padding."""
        return self.num_rows * self.row_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole shard."""
        return self.num_chunks * self.chunk_bytes + 16 * self.num_chunks + 4

    @property
    def index(self) -> bytes:
        """(offset, size) per chunk as uint64, then their crc32c: the chunks lie in order from the start of the file."""
        offsets = np.arange(self.num_chunks, dtype="<u8") * self.chunk_bytes
        return with_crc32c(np.stack([offsets, np.full_like(offsets, self.chunk_bytes)], axis=1).tobytes())

    @property
    def tail(self) -> bytes:
        """What follows the rows: zeros up to a whole chunk, then the index."""
        return bytes(self.num_chunks * self.chunk_bytes - self.data_bytes) + self.index


def with_crc32c(data: bytes) -> bytes:
    """The data, then its checksum as Zarr's codec of this name has it."""
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def check_id(match_id: str) -> str:
    """The id (parts joined by `/`) again, where it is safe as a folder inside the store on every system.

    Raises:
        InputError: empty, absolute, `.` or `..`, a reserved name, or characters that some system refuses.
    """
    parts = match_id.split("/")
    trouble = next(filter(None, map(_part_trouble, parts)), "")
    if parts[0] in (REDUCTION, f"{REDUCTION}.safetensors"):  # lie beside the matches
        trouble = f"name {parts[0]!r} is reserved"
    if not trouble and (len(parts) > MAX_ID_PARTS or len(match_id.encode()) > MAX_ID_BYTES):
        trouble = f"more than {MAX_ID_PARTS} parts or {MAX_ID_BYTES} bytes"
    if trouble:
        raise InputError(
            f"match id is not usable: {trouble}",
            got=ascii(match_id)[:200],
            wanted="folder names joined by /, such as england_efl/2019-2020/2019-10-01 - Reading - Fulham",
            cure="rename the match's folder or file",
        )
    return match_id


def check_view(view: str) -> str:
    """The view's name again, where it is usable as a folder. Raises InputError as `check_id`."""
    trouble = "it holds a /" if "/" in view else _part_trouble(view)
    if view == "c":  # where Zarr puts an array's chunks
        trouble = "name 'c' is reserved"
    if trouble:
        raise InputError(
            f"view name is not usable: {trouble}", got=ascii(view)[:200], wanted="a name such as identity, hflip"
        )
    return view


def _part_trouble(part: str) -> str:
    """Why one folder name is refused; empty where it is fine."""
    if not part:
        return "a part is empty, or it begins or ends with /"
    if part in (".", ".."):
        return f"part {part!r} leaves its folder"
    if len(part) > 255:  # before the search below
        return "a part is longer than 255 bytes"
    if part in _RESERVED_PARTS or part.startswith(("__", PARTIAL)) or part.split(".")[0].lower() in _DEVICES:
        return f"name {part!r} is reserved"
    if part[-1] in ". ":
        return f"part {part!r} ends with a dot or a space"
    wrong = sorted({letter for letter in part if letter in _HOSTILE_CHARACTERS or not letter.isprintable()})
    if wrong:
        return f"part {part!r} holds {', '.join(map(repr, wrong))}"
    # last: half a surrogate pair is not printable, and cannot be encoded
    return "a part is longer than 255 bytes" if len(part.encode()) > 255 else ""


def partial_name(match_id: str) -> str:
    """Name of the folder of a match's unfinished work."""
    return hashlib.sha256(match_id.encode()).hexdigest()


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a group."""
    return {"attributes": dict(attributes), "node_type": "group", "zarr_format": 3}


def shard_metadata(layout: ShardLayout, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a (T, C) array: uncompressed chunks in one shard, index at the end with crc32c."""
    sharding = {
        "chunk_shape": [layout.chunk_rows, layout.num_channels],
        "codecs": [_LITTLE],
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    shape = (layout.num_rows, layout.num_channels)
    shard_shape = (layout.num_chunks * layout.chunk_rows, layout.num_channels)
    codec = {"name": "sharding_indexed", "configuration": sharding}
    return _array_metadata(shape, shard_shape, layout.dtype, codec, attributes)


def plain_metadata(num_rows: int, dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`zarr.json` of a (T,) array in one uncompressed chunk."""
    return _array_metadata((num_rows,), (num_rows,), dtype, _LITTLE, attributes)


def _array_metadata(
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    codec: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "attributes": dict(attributes),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [dict(codec)],
        "data_type": dtype.name,
        "fill_value": 0.0 if dtype.kind == "f" else 0,
        "node_type": "array",
        "shape": list(shape),
        "storage_transformers": [],
        "zarr_format": 3,
    }


def same_layout(metadata: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether `metadata` describes the array in the way `expected` does; attributes and names of axes do not matter."""
    free = {"attributes", "fill_value", "dimension_names", "storage_transformers"}  # no chunk is left to be filled
    names = (set(metadata) | set(expected)) - free
    return not metadata.get("storage_transformers") and all(metadata.get(n) == expected.get(n) for n in names)


def shard_layout(metadata: Mapping[str, Any]) -> ShardLayout | None:
    """Geometry of an array whose metadata says exactly our layout; None for any other layout."""
    try:
        num_rows, num_channels = metadata["shape"]
        chunk_rows, _ = metadata["codecs"][0]["configuration"]["chunk_shape"]
        sizes = ((num_rows, MAX_ROWS), (num_channels, MAX_CHANNELS), (chunk_rows, MAX_CHUNK_ROWS))
        if not all(type(size) is int and 0 < size <= most for size, most in sizes):  # True is no int here
            return None
        layout = ShardLayout(num_rows, num_channels, DTYPES[metadata["data_type"]], chunk_rows)
    except (LookupError, TypeError, ValueError):  # of another shape, codec or type
        return None
    return layout if same_layout(metadata, shard_metadata(layout, {})) else None


def attribute(metadata: object, name: str) -> object:
    """One attribute of a parsed `zarr.json`; None where there is none, or the document is none of Zarr's."""
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    return attributes.get(name) if isinstance(attributes, dict) else None


def canonical_json(value: object, *, where: str) -> bytes:
    """JSON text with sorted keys, the same for the same value.

    Raises:
        InputError: the value holds NaN or something that JSON cannot say.
    """
    try:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: cannot be written as JSON", got=error, wanted="plain JSON values") from None


def inside(root: Path, relative: str) -> Path:
    """Path of a file in the store.

    Raises:
        InputError: a link in the store leads out of it.
    """
    path = root / PurePosixPath(relative)
    try:
        target = path.resolve()
        is_inside = target.is_relative_to(root.resolve())
        found = f"a link to {target}"
    except (OSError, RuntimeError):  # links in a circle, a path longer than the system allows
        is_inside, found = False, "a link that leads nowhere"
    if not is_inside:
        raise InputError(f"{path}: leads out of the store", got=found, cure="remove the link; do not trust this store")
    return path
