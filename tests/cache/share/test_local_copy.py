"""Shared stores by URL: pulled into a cache of limited size, from a plain web server."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.share.local_copy import LocalCache, local_copy, parse_size
from bas.cache.share.push import push
from bas.cache.share.transfer import Reporter, Selection, Transfer
from bas.cache.store import FeatureStore
from bas.errors import InputError

ROWS = 600
MATCH_BYTES = 600 * (6 * 2 + 8 + 1)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; knows no ranges."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def shared(maker: Any, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Pushes the maker's store to a folder that a web server serves; its URL."""
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def bring() -> str:
        push(maker.path, str(served / "x.zarr"), Selection(), Transfer(replace=True), Reporter())
        return f"http://127.0.0.1:{server.server_port}/x.zarr"

    yield bring
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> LocalCache:
    """With room for everything."""
    return LocalCache(tmp_path / "stores", 10**9)


def matches_in(cache: LocalCache, url: str) -> list[str]:
    return FeatureStore.open(cache.entry(url) / "store").matches()


def test_what_is_asked_for_is_there_and_nothing_travels_twice(maker: Any, shared: Any, cache: LocalCache) -> None:
    rows = maker.match("a")
    maker.match("b", match_meta=maker.meta(split="test"))
    url, travelled = shared(), list[int]()
    reporter = Reporter(on_bytes=travelled.append)
    with local_copy(url, Selection(splits=("train", "valid")), cache, reporter) as path:
        store = FeatureStore.open(path)
        assert store.matches() == ["a"]
        np.testing.assert_array_equal(store.rows("a")[:], rows)
    assert sum(travelled) > MATCH_BYTES
    travelled.clear()
    with local_copy(url, Selection(splits=("train", "valid")), cache, reporter):
        assert not travelled
    with local_copy(url, Selection(), cache, reporter) as path:
        assert FeatureStore.open(path).matches() == ["a", "b"]


def test_the_match_that_was_not_asked_for_the_longest_makes_room(maker: Any, shared: Any, tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        maker.match(name, num_rows=ROWS)
    url = shared()
    size = sum(path.stat().st_size for path in (maker.path / "a").rglob("*") if path.is_file())
    cache = LocalCache(tmp_path / "stores", int(2.5 * size))
    for name in ("a", "b", "a", "d"):
        with local_copy(url, Selection(matches=(name,)), cache, Reporter()):
            assert name in matches_in(cache, url)
    assert matches_in(cache, url) == ["a", "d"]


def test_a_store_in_use_keeps_its_matches(maker: Any, shared: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        maker.match(name, num_rows=ROWS)
    url = shared()
    size = sum(path.stat().st_size for path in (maker.path / "a").rglob("*") if path.is_file())
    cache = LocalCache(tmp_path / "stores", int(1.5 * size))
    with local_copy(url, Selection(matches=("a",)), cache, Reporter()):
        with pytest.raises(InputError, match="full of stores that are in use"):
            local_copy(url, Selection(matches=("b",)), cache, Reporter()).__enter__()
        assert matches_in(cache, url) == ["a"]
    with local_copy(url, Selection(matches=("b",)), cache, Reporter()):
        assert matches_in(cache, url) == ["b"]


def test_more_than_the_cache_holds_is_refused_before_anything_travels(maker: Any, shared: Any, tmp_path: Path) -> None:
    maker.match("a", num_rows=ROWS)
    cache, travelled = LocalCache(tmp_path / "stores", 1000), list[int]()
    with pytest.raises(InputError, match="larger than the cache"):
        local_copy(shared(), Selection(), cache, Reporter(on_bytes=travelled.append)).__enter__()
    assert not travelled


def test_the_copy_follows_what_is_changed_and_removed_there(maker: Any, shared: Any, cache: LocalCache) -> None:
    maker.match("a")
    maker.match("b")
    url = shared()
    with local_copy(url, Selection(), cache, Reporter()):
        pass
    import shutil

    shutil.rmtree(maker.path / "a")
    shutil.rmtree(maker.path / "b")
    labels = ({"gameTime": "1 - 00:08", "label": "DRIVE", "position": "8000"},)
    maker.match("b", match_meta=maker.meta(labels=labels))
    served = Path(maker.path).parent / "served" / "x.zarr"
    shutil.rmtree(served / "a")
    url = shared()
    with local_copy(url, Selection(), cache, Reporter()) as path:
        store = FeatureStore.open(path)
        assert store.matches() == ["b"]
        assert store.match("b").meta.labels == labels


@pytest.mark.parametrize(("text", "num_bytes"), [("50GB", 50 * 10**9), ("1.5 tb", 15 * 10**11), ("200mb", 2 * 10**8)])
def test_sizes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "50", "GB", "-1GB", "0GB", "1e9GB", "5 PB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="size"):
        parse_size(text)
