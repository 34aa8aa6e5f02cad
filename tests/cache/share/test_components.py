"""Reduced stores travel with their components, by every way; other or damaged ones are refused by name."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bas.cache.share.pull import merge
from bas.cache.share.transfer import Reporter, Transfer
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

MEAN = "reduction/mean/c/0"


@dataclass(frozen=True)
class Shared:
    """A folder or bucket, and how to reach into it."""

    url: str
    get: Callable[[str], bytes]
    put: Callable[[str, bytes], object]
    delete: Callable[[str], object]


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    """An empty place."""
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        yield Shared(bucket.url, bucket.get, bucket.put, bucket.delete)
        return
    root = tmp_path / "share"
    yield Shared(
        str(root),
        lambda path: (root / path).read_bytes(),
        lambda path, data: (root / path).write_bytes(data),
        lambda path: (root / path).unlink(),
    )


@pytest.fixture
def full(maker: Any) -> Any:
    """The maker of a store of two matches."""
    maker.match("liga/a", num_rows=300, views=("identity", "hflip"))
    maker.match("b", num_rows=300)
    return maker


def combine(*stores: Path, out: Path) -> bool:
    """`bas cache merge`."""
    return merge(stores, out, Transfer(), Reporter()).complete


def part_of(full: Any, name: str, match_id: str, components: Path) -> None:
    """One match alone, reduced with components that there are."""
    from bas.cache.reduce.run import ReduceOptions, reduce_store

    alone, out = full.path.with_name(f"{name}-full"), full.path.with_name(name)
    shutil.copytree(full.path, alone)
    for other in set(FeatureStore.open(alone).matches()) - {match_id}:
        shutil.rmtree(alone / other.split("/")[0])
    assert reduce_store(alone, out, ReduceOptions(components=components)).complete


@pytest.mark.parametrize("fit", [{"dim": 3, "quantize": True}, {"dim": 3}, {"quantize": True}], ids=str)
def test_round_trip(
    full: Any, shared: Shared, sharing: Any, tree: Callable[[Path], object], tmp_path: Path, fit: dict[str, Any]
) -> None:
    reduced = full.reduced(**fit)
    assert sharing.push(reduced, shared.url).complete
    assert sharing.pull(shared.url, tmp_path / "copy").complete
    assert verify(tmp_path / "copy") == []
    assert tree(tmp_path / "copy") == tree(reduced)
    assert sharing.push(tmp_path / "copy", shared.url).bytes == 0


def test_two_people_add_matches_of_the_same_components(
    full: Any, shared: Shared, sharing: Any, tree: Callable[[Path], object], tmp_path: Path
) -> None:
    reduced = full.reduced()
    for name, match_id in (("mine", "liga/a"), ("yours", "b")):
        part_of(full, name, match_id, reduced)
        assert sharing.push(tmp_path / name, shared.url).complete
    assert sharing.pull(shared.url, tmp_path / "copy").complete
    assert combine(tmp_path / "mine", tmp_path / "yours", out=tmp_path / "merged")
    assert tree(tmp_path / "copy") == tree(tmp_path / "merged") == tree(reduced)


def test_other_components_are_not_mixed(full: Any, shared: Shared, sharing: Any, tree: Any, tmp_path: Path) -> None:
    reduced, other = full.reduced(), full.reduced("other", dim=3, quantize=True, margin=0.5)
    sharing.push(reduced, shared.url)
    sharing.pull(shared.url, tmp_path / "copy")
    before = tree(tmp_path / "copy")
    acts: list[Callable[[], object]] = [
        lambda: sharing.push(other, shared.url),
        lambda: sharing.pull(shared.url, other),
        lambda: sharing.push(full.path, shared.url),
        lambda: sharing.pull(shared.url, full.path),
        lambda: combine(reduced, other, out=tmp_path / "merged"),
        lambda: combine(full.path, out=tmp_path / "copy"),
    ]
    for act in acts:
        with pytest.raises(InputError, match=r"these differ: .*reduction"):
            act()
    assert not (tmp_path / "merged").exists()
    sharing.pull(shared.url, tmp_path / "copy")
    assert tree(tmp_path / "copy") == before


def emptied(shared: Shared, path: str) -> None:
    shared.put(path, b"")


def other_value(shared: Shared, path: str) -> None:
    data = bytearray(shared.get(path))
    data[0] ^= 1
    shared.put(path, bytes(data))


def deleted(shared: Shared, path: str) -> None:
    shared.delete(path)


def no_object(shared: Shared, path: str) -> None:
    shared.put(path, b"[]")


def other_shape(shared: Shared, path: str) -> None:
    document = json.loads(shared.get(path))
    shared.put(path, json.dumps(document | {"shape": [1 << 60]}).encode())


@pytest.mark.parametrize(
    ("harm", "path"),
    [
        (emptied, MEAN),
        (other_value, MEAN),
        (deleted, MEAN),
        (deleted, "reduction/zarr.json"),
        (no_object, "reduction/zarr.json"),
        (emptied, "reduction/zarr.json"),
        (other_shape, "reduction/mean/zarr.json"),
    ],
)
def test_damaged_or_missing_components_are_refused_by_name(
    full: Any, shared: Shared, sharing: Any, tmp_path: Path, harm: Callable[[Shared, str], None], path: str
) -> None:
    sharing.push(full.reduced(), shared.url)
    harm(shared, path)
    with pytest.raises(InputError) as told:
        sharing.pull(shared.url, tmp_path / "copy")
    assert shared.url in str(told.value)
    assert "reduction" in str(told.value)
    assert not list(tmp_path.glob("copy/*"))


def test_foreign_components_are_refused_by_name(full: Any, shared: Shared, sharing: Any, tmp_path: Path) -> None:
    sharing.push(full.reduced(), shared.url)
    other = full.reduced("other", dim=3, quantize=True, margin=0.5)
    for path in (other / "reduction").rglob("*"):
        if path.is_file():
            shared.put(path.relative_to(other).as_posix(), path.read_bytes())
    with pytest.raises(InputError, match="damaged") as told:
        sharing.pull(shared.url, tmp_path / "copy")
    assert shared.url in str(told.value)
    assert not list(tmp_path.glob("copy/*"))


@pytest.mark.parametrize(("harm", "path"), [(deleted, "reduction/zarr.json"), (deleted, MEAN), (other_value, MEAN)])
def test_pushed_again_they_are_whole_again(
    full: Any, bucket: Any, sharing: Any, tree: Any, tmp_path: Path, harm: Callable[[Any, str], None], path: str
) -> None:
    reduced = full.reduced()
    sharing.push(reduced, bucket.url)
    harm(bucket, path)
    sharing.push(reduced, bucket.url)
    sharing.pull(bucket.url, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(reduced)
