"""Shared stores by URL: what a command needs is pulled into the cache, and used from there when nobody answers."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.share import places
from bas.cache.share.local_copy import local_copy
from bas.cache.share.places import Unreachable
from bas.cache.share.pull import Selection
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.workers import Progress

Push = Callable[[], str]
MATCH_BYTES = 600 * (6 * 2 + 8 + 1)


@pytest.fixture
def shared(serve: Callable[[Path], Any], tmp_path: Path) -> Any:
    """A web server of a store that is not there yet."""
    return serve(tmp_path / "served.zarr")


@pytest.fixture
def push(shared: Any, maker: Any, sharing: Any) -> Callable[[], str]:
    """Brings the maker's store there; its URL."""

    def push() -> str:
        sharing.push(maker.path, shared.folder, replace=True)
        return str(shared.url)

    return push


class Heard:
    """What a command is told."""

    def __init__(self) -> None:
        self.num_bytes, self.notes = 0.0, list[str]()
        self.progress = Progress(note=self.notes.append, advanced=self._advanced)

    def _advanced(self, _: str, num_bytes: float, *__: object) -> None:
        self.num_bytes = num_bytes


def test_what_is_asked_for_is_there_and_nothing_travels_twice(maker: Any, push: Push, tmp_path: Path) -> None:
    rows = maker.match("a")
    maker.match("b", match_meta=maker.meta(split="test"))
    url, first, second = push(), Heard(), Heard()
    training = Selection(splits=("train", "valid"))
    store = FeatureStore.open(local_copy(url, training, root=tmp_path / "stores", progress=first.progress))
    assert store.matches() == ["a"]
    np.testing.assert_array_equal(store.rows("a")[:], rows)
    assert first.num_bytes > MATCH_BYTES
    local_copy(url, training, root=tmp_path / "stores", progress=second.progress)
    assert (second.num_bytes, first.notes, second.notes) == (0, [], [])
    assert FeatureStore.open(local_copy(url, Selection(), root=tmp_path / "stores")).matches() == ["a", "b"]


def test_the_copy_follows_what_changes_there(maker: Any, shared: Any, push: Push, tmp_path: Path) -> None:
    maker.match("a")
    maker.match("b")
    local_copy(push(), Selection(), root=tmp_path / "stores")
    for match_id in ("a", "b"):
        shutil.rmtree(maker.path / match_id)
    labels = ({"gameTime": "1 - 00:08", "label": "DRIVE", "position": "8000"},)
    maker.match("b", match_meta=maker.meta(labels=labels))
    shutil.rmtree(shared.folder / "a")
    store = FeatureStore.open(local_copy(push(), Selection(), root=tmp_path / "stores"))
    assert store.matches() == ["b"]
    assert store.match("b").meta.labels == labels


def test_a_complete_copy_is_used_when_nobody_answers(
    maker: Any, shared: Any, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=0.2)})
    rows = maker.match("a")
    maker.match("b", match_meta=maker.meta(split="test"))
    url, root, heard, training = push(), tmp_path / "stores", Heard(), Selection(splits=("train",))
    local_copy(url, training, root=root)
    shared.close()
    store = FeatureStore.open(local_copy(url, training, root=root, progress=heard.progress))
    np.testing.assert_array_equal(store.rows("a")[:], rows)
    assert len(heard.notes) == 1
    assert f"{url} does not answer" in heard.notes[0]
    assert "the copy on this machine is used" in heard.notes[0]
    for incomplete in (Selection(), Selection(splits=("train",), views=("hflip",))):
        with pytest.raises(Unreachable, match="cannot be reached"):
            local_copy(url, incomplete, root=root)
    shutil.rmtree(store.path / "a")
    with pytest.raises(Unreachable, match="cannot be reached"):
        local_copy(url, training, root=root)


def test_several_commands_fill_one_copy(maker: Any, push: Push, tmp_path: Path) -> None:
    maker.match("a", num_rows=5_000)
    url, found = push(), list[Path]()
    threads = [
        threading.Thread(target=lambda: found.append(local_copy(url, Selection(), root=tmp_path / "stores")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert FeatureStore.open(found[0]).matches() == ["a"]


def test_copies_that_were_not_used_for_long_make_room(
    maker: Any, push: Push, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.match("a")
    url, root = push(), tmp_path / "stores"
    copies = [local_copy(f"{url}{'/' * number}", Selection(), root=root).parent for number in range(3)]
    for days, copy in zip((3, 2, 0), copies, strict=True):
        os.utime(copy / "listing.json", (time.time() - days * 86_400,) * 2)
    size = sum(path.stat().st_size for path in copies[0].rglob("*"))
    monkeypatch.setenv("BAS_CACHE_LIMIT", f"{2.2 * size / 1000:.3f}KB")
    local_copy(f"{url}//", Selection(), root=root)
    assert [copy.exists() for copy in copies] == [False, True, True]
    monkeypatch.setenv("BAS_CACHE_LIMIT", "1KB")
    local_copy(f"{url}//", Selection(), root=root)
    assert [copy.exists() for copy in copies] == [False, False, True], "what is in use stays"
    for text in ("50", "GB", "-1GB", "0GB", "1e9GB", "5 PB"):
        monkeypatch.setenv("BAS_CACHE_LIMIT", text)
        with pytest.raises(InputError, match="BAS_CACHE_LIMIT is not usable"):
            local_copy(url, Selection(), root=root)
