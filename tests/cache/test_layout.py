"""Ids and metadata."""

import numpy as np
import pytest

from bas.cache.layout import ShardLayout, canonical_json, check_id, check_view, shard_layout, shard_metadata
from bas.errors import InputError


@pytest.mark.parametrize(
    "match_id",
    [
        "a",
        "england_efl/2019-2020/2019-10-01 - Leeds United - West Bromwich",
        "La Liga/Málaga - Cádiz",
        "東京/大阪",
        "a.b/.c",
        "a/reduction",
    ],
)
def test_usual_ids_are_taken(match_id: str) -> None:
    assert check_id(match_id) == match_id


LEAVES = ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", "a\\b", "a\0b", "a\nb", "__a", "a/__b", ".partial"]
RESERVED = [
    "reduction.safetensors",
    ".partialx/a",
    "features",
    "a/features/b",
    "a/pts",
    "valid",
    "a/zarr.json",
    "reduction/a",
]
ELSEWHERE = [
    "a:b",
    "a?",
    "a*",
    "<a",
    'a"',
    "a|b",
    "a ",
    "a.",
    "con",
    "a/NUL.mp4",
    "x" * 256,
    "ä" * 128,
    "a\ud800",
]


@pytest.mark.parametrize("match_id", LEAVES + RESERVED + ELSEWHERE)
def test_ids_that_are_no_folder_inside_the_store_on_every_system_are_refused(match_id: str) -> None:
    with pytest.raises(InputError, match="match id is not usable"):
        check_id(match_id)


@pytest.mark.parametrize("view", ["", "a/b", "..", "c", "features", "zarr.json"])
def test_unsafe_views_are_refused(view: str) -> None:
    with pytest.raises(InputError, match="view name"):
        check_view(view)


def test_metadata_of_ours_is_recognised_and_nothing_else_is() -> None:
    layout = ShardLayout(1000, 6, np.dtype("<f2"))
    metadata = shard_metadata(layout, {"any": "thing"})
    assert shard_layout(metadata) == layout
    changes: list[tuple[str, object]] = [("shape", [1000]), ("shape", [0, 6]), ("shape", [True, 6]), ("codecs", [])]
    changes += [("codecs", None), ("data_type", "r16"), ("zarr_format", 2), ("storage_transformers", [1])]
    for name, value in [*changes, ("chunk_grid", {})]:
        assert shard_layout(metadata | {name: value}) is None
    assert shard_layout({}) is None


def test_json_is_the_same_for_the_same_value() -> None:
    assert canonical_json({"b": 1, "ä": [None]}, where="x") == canonical_json({"ä": [None], "b": 1}, where="x")
    for value in (float("nan"), object()):
        with pytest.raises(InputError, match="cannot be written as JSON"):
            canonical_json({"a": value}, where="x")
