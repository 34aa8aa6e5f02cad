"""Reduced stores travel with their components, by every way; other or damaged ones are refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.cache.share.pull import merge
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

FILE = "reduction.safetensors"


@pytest.fixture
def full(maker: Any) -> Any:
    """The maker of a store of two matches."""
    maker.match("liga/a", num_rows=300, views=("identity", "hflip"))
    maker.match("b", num_rows=300)
    return maker


@pytest.fixture(scope="module")
def reduced_once(make_maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reduced store of one match, made once; read only."""
    once = make_maker(tmp_path_factory.mktemp("once"))
    once.match("b", num_rows=300)
    path: Path = once.reduced()
    return path


def combine(*stores: Path, out: Path) -> bool:
    """`bas cache merge`."""
    return merge(stores, out).complete


def part_of(full: Any, name: str, match_id: str, components: Path) -> None:
    """One match alone, reduced with components that there are."""
    from bas.cache.reduce import reduce_store

    alone, out = full.path.with_name(f"{name}-full"), full.path.with_name(name)
    shutil.copytree(full.path, alone)
    for other in set(FeatureStore.open(alone).matches()) - {match_id}:
        shutil.rmtree(alone / other.split("/")[0])
    assert reduce_store(alone, out, components=components).complete


@pytest.mark.parametrize("fit", [{"dim": 3}, {"quantize": True}], ids=str)
def test_round_trip(
    full: Any, url: str, sharing: Any, tree: Callable[[Path], object], tmp_path: Path, fit: dict[str, Any]
) -> None:
    reduced = full.reduced(**fit)
    assert sharing.push(reduced, url).complete
    assert sharing.pull(url, tmp_path / "copy").complete
    assert verify(tmp_path / "copy") == []
    assert tree(tmp_path / "copy") == tree(reduced)
    assert sharing.push(tmp_path / "copy", url).amount == 0


def test_two_people_add_matches_of_the_same_components(
    full: Any, url: str, sharing: Any, tree: Callable[[Path], object], tmp_path: Path
) -> None:
    reduced = full.reduced()
    for name, match_id in (("mine", "liga/a"), ("yours", "b")):
        part_of(full, name, match_id, reduced)
        assert sharing.push(tmp_path / name, url).complete
    assert sharing.pull(url, tmp_path / "copy").complete
    assert combine(tmp_path / "mine", tmp_path / "yours", out=tmp_path / "merged")
    assert tree(tmp_path / "copy") == tree(tmp_path / "merged") == tree(reduced)


def test_other_components_are_not_mixed(full: Any, url: str, sharing: Any, tree: Any, tmp_path: Path) -> None:
    reduced, other = full.reduced(), full.reduced("other", dim=3, quantize=True, margin=0.5)
    sharing.push(reduced, url)
    sharing.pull(url, tmp_path / "copy")
    before = tree(tmp_path / "copy")
    acts: list[Callable[[], object]] = [
        lambda: sharing.push(other, url),
        lambda: sharing.pull(url, other),
        lambda: sharing.push(full.path, url),
        lambda: sharing.pull(url, full.path),
        lambda: combine(reduced, other, out=tmp_path / "merged"),
        lambda: combine(full.path, out=tmp_path / "copy"),
    ]
    for act in acts:
        with pytest.raises(InputError, match=r"these differ: .*reduction"):
            act()
    assert not (tmp_path / "merged").exists()
    sharing.pull(url, tmp_path / "copy")
    assert tree(tmp_path / "copy") == before


@pytest.mark.parametrize("harm", ["empty", "a bit", "deleted", "foreign"])
def test_components_that_are_not_the_stores_are_refused_by_name_and_whole_again_when_pushed_again(
    reduced_once: Path, maker: Any, bucket: Any, sharing: Any, tree: Any, tmp_path: Path, harm: str
) -> None:
    sharing.push(reduced_once, bucket.url)
    if harm == "deleted":
        bucket.delete(FILE)
    elif harm == "foreign":
        maker.match("b", num_rows=300)
        bucket.put(FILE, (maker.reduced(dim=3, quantize=True, margin=0.5) / FILE).read_bytes())
    else:
        whole = bucket.get(FILE)
        bucket.put(FILE, b"" if harm == "empty" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="missing" if harm == "deleted" else "damaged") as told:
        sharing.pull(bucket.url, tmp_path / "copy")
    assert bucket.url in str(told.value)
    assert "reduction" in str(told.value)
    assert not list(tmp_path.glob("copy/*"))
    sharing.push(reduced_once, bucket.url)
    sharing.pull(bucket.url, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(reduced_once)


def test_info_of_a_shared_store_tells_of_the_reduction(
    reduced_once: Path, bucket: Any, sharing: Any, bas: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    sharing.push(reduced_once, bucket.url)
    for where in (reduced_once, bucket.url):
        assert bas("cache", "info", where, "--json") == 0
        about = json.loads(capsys.readouterr().out)
        assert about["reduction"]["source"]["dim"] == 6
        assert bas("cache", "info", where) == 0
        assert "fitted on 300 rows" in capsys.readouterr().out
