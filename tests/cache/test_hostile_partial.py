"""Unfinished work that comes from elsewhere: nothing outside the store is written, moved or deleted."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.partial import read_journal
from bas.cache.store import FeatureStore
from bas.cache.writer import MatchWriter
from bas.errors import InputError

NAME = hashlib.sha256(b"a").hexdigest()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is not the store's, with something in it."""
    folder = tmp_path / "outside"
    (folder / "papers").mkdir(parents=True)
    (folder / "papers" / "thesis.txt").write_text("five years")
    (folder / "root.json").write_text("precious")
    (folder / "data.lock").write_text("")
    return folder


def held(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unfinished(maker: Any, **changes: object) -> Path:
    """Work on match a that is saved up to row 256, with a journal that says what it likes."""
    with maker.writer(num_rows=600) as writer:
        writer.append({"identity": maker.rows(256)}, np.ones(256, bool))
    partial: Path = maker.path / ".partial" / NAME
    journal = json.loads((partial / "journal.json").read_text())
    (partial / "journal.json").write_text(json.dumps(journal | changes))
    return partial


def go_on(maker: Any) -> MatchWriter:
    """A writer of the same work, in a store that nothing was cleared from since."""
    pts = np.arange(600) * 512
    store, provenance = FeatureStore.open(maker.path), {"engine": "test"}
    return store.writer("a", num_rows=600, pts_ticks=pts, match_meta=maker.meta(), provenance=provenance)


def test_a_linked_partial_is_refused_and_nothing_behind_it_is_touched(maker: Any, outside: Path) -> None:
    maker.match()
    before = held(outside)
    (maker.path / ".partial").symlink_to(outside)
    with pytest.raises(InputError, match=r"\.partial: a link"):
        maker.store()
    with pytest.raises(InputError, match=r"\.partial: a link"):
        go_on(maker)
    assert held(outside) == before


@pytest.mark.parametrize("match", ["../../x", "/tmp/x", "b", 5])
def test_journals_of_another_place_are_cleared_away(maker: Any, tmp_path: Path, match: object) -> None:
    partial = unfinished(maker, match=match, committing=True)
    assert read_journal(partial) is None
    before = {path for path in tmp_path.rglob("*") if partial.parent not in (path, *path.parents)}
    assert maker.store().matches() == []
    assert not partial.exists()
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["match/features/identity", "match/valid/c", "match/valid/c/0", "journal.json.new"])
def test_work_with_links_is_begun_anew(maker: Any, outside: Path, place: str) -> None:
    partial, before = unfinished(maker), held(outside)
    path = partial / place
    if path.exists():
        path.rename(outside.parent / "moved")
    path.symlink_to(outside if path.suffix != ".new" else outside / "root.json")
    with go_on(maker) as writer:
        assert "missing or damaged" in writer.restarted_because
        writer.append({"identity": maker.rows(600)}, np.ones(600, bool))
        writer.commit()
    assert held(outside) == before
    np.testing.assert_array_equal(maker.store().rows("a")[:], maker.rows(600).astype(np.float16))


def test_unfinished_work_that_is_a_link_is_never_written_through(maker: Any, outside: Path) -> None:
    partial = unfinished(maker)
    partial.rename(outside / NAME)
    partial.symlink_to(outside / NAME)
    before = held(outside)
    with pytest.raises(InputError):
        go_on(maker)
    maker.store()
    assert not partial.is_symlink()
    assert held(outside) == before


def test_nothing_is_written_behind_a_linked_folder(maker: Any, outside: Path) -> None:
    maker.store()
    (maker.path / "liga").symlink_to(outside)
    before = held(outside)
    with pytest.raises(InputError, match="leads out of the store"):
        maker.writer("liga/a", num_rows=5)
    assert held(outside) == before
