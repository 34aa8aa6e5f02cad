"""A store that has travelled is the same store, by every way; nothing travels twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.workers import MatchResult, Summary

GAME = "england_efl/2019-2020/2019-10-01 - Reading - Fulham"
ODD = "spiele/100% Köln #1 + Bär & Söhne, 3=4 {x} ~y^ [z] 日本 ' @$;!()`"
WAYS = ("folder", "file", "s3", "nginx")


def make_store(maker: Any) -> Path:
    """Nested and odd ids, two views, unlabelled, invalid rows, several chunks."""
    maker.match(GAME, num_rows=700, views=("identity", "hflip"))
    maker.match(ODD, num_rows=40, match_meta=maker.meta(labels=None, split=None))
    meta = maker.meta(split="test", labels=())
    maker.match("third", num_rows=300, valid=np.arange(300) % 5 > 0, match_meta=meta)
    path: Path = maker.path
    return path


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """(where to push, where to pull from)."""
    if request.param == "s3":
        url = request.getfixturevalue("bucket").url
        return url, url
    if request.param == "nginx":
        web = request.getfixturevalue("nginx")
        name = f"ä % {tmp_path.name}"
        return str(web.folder / name), f"{web.url}/%C3%A4%20%25%20{tmp_path.name}"
    folder = tmp_path / "team share"
    return (str(folder),) * 2 if request.param == "folder" else (f"file://{tmp_path}/team%20share",) * 2


def statuses(outcome: Summary) -> dict[str, str]:
    return {each.match_id: each.status for each in outcome.results}


def megabytes(result: MatchResult) -> float:
    """Of the files that were needed."""
    return float(result.columns["MB"] or 0)


def test_round_trip(maker: Any, way: tuple[str, str], tree: Callable[..., Any], sharing: Any, tmp_path: Path) -> None:
    original, copy = make_store(maker), tmp_path / "copy"
    there, back = way
    sent = sharing.push(original, there)
    assert sent.complete
    assert set(statuses(sent).values()) <= {"sent", "received"}
    got = sharing.pull(back, copy)
    assert set(statuses(got).values()) == {"received"}
    assert got.amount == sent.amount == pytest.approx(sum(map(megabytes, got.results)))
    assert verify(copy) == []
    assert tree(copy) == tree(original)
    again, back_again = sharing.push(original, there), sharing.pull(back, copy)
    assert (again.amount, back_again.amount) == (0, 0)
    assert set(statuses(again).values()) == set(statuses(back_again).values()) == {"already there"}
    assert tree(copy) == tree(original)


def test_parts_travel_by_themselves(maker: Any, sharing: Any, tmp_path: Path, url: str) -> None:
    original, copy = make_store(maker), tmp_path / "copy"
    first = sharing.push(original, url, matches=(GAME,), views=("identity",))
    assert [(each.match_id, each.columns["views"]) for each in first.results] == [(GAME, "identity")]
    second = sharing.push(original, url, views=("identity",))
    assert statuses(second)[GAME] == "already there"
    assert 0 < second.amount == pytest.approx(sum(map(megabytes, second.results)))
    third = sharing.push(original, url)  # the further view only
    assert statuses(third) == {GAME: "views added", ODD: "already there", "third": "already there"}
    assert [each.columns["views"] for each in third.results] == ["hflip", "", ""]
    shard_bytes = (original / GAME / "features/hflip/c/0/0").stat().st_size
    assert 1e6 * third.amount < shard_bytes + 20_000  # metadata, pts and valid at most
    tested = sharing.pull(url, copy, splits=("test",))
    assert statuses(tested) == {"third": "received"}
    sharing.pull(url, copy, views=("identity",), matches=(GAME,))
    assert sharing.pull(url, copy, matches=(GAME,)).results[0].status == "views added"
    assert verify(copy) == []
    with pytest.raises(InputError, match="has no view 'hflip'"):
        sharing.pull(url, copy, views=("hflip",))
    with pytest.raises(InputError, match="no match to take"):
        sharing.push(original, url, splits=("valid",))
    with pytest.raises(InputError, match="no match 'nobody'"):
        sharing.pull(url, copy, matches=("nobody",))


def test_few_requests_to_a_web_server(maker: Any, nginx: Any, sharing: Any, tmp_path: Path) -> None:
    original = make_store(maker)
    sharing.push(original, nginx.folder / tmp_path.name)
    nginx.requests()
    outcome = sharing.pull(f"{nginx.url}/{tmp_path.name}", tmp_path / "copy")
    asked = [(path, size) for path, size in nginx.requests() if "__manifest__" not in path]
    files = [path for path in original.rglob("*") if path.is_file()]
    assert len(asked) <= len(files) + 1
    assert sum(size for _, size in asked) <= 1e6 * outcome.amount + 20_000
    sharing.pull(f"{nginx.url}/{tmp_path.name}", tmp_path / "copy")
    assert [path.rpartition("/")[2] for path, _ in nginx.requests()] == ["zarr.json", "index.json"]


def test_conflicts_are_named_and_left_alone(
    maker: Any, make_maker: Any, sharing: Any, tree: Any, tmp_path: Path, url: str, request: pytest.FixtureRequest
) -> None:
    maker.match("a", views=("identity", "hflip"))
    maker.match("b")
    other = make_maker(tmp_path / "other")
    other.match("a", match_meta=other.meta(labels=()))
    other.match("b", num_rows=601)
    sharing.push(maker.path, url)
    sharing.pull(url, tmp_path / "mine")
    before = tree(tmp_path / "mine")
    refused = sharing.push(other.path, url)
    assert statuses(refused) == {"a": "differs", "b": "differs"}
    assert refused.amount == 0
    assert not refused.complete
    messages = {each.match_id: each.message for each in refused.results}
    assert "labels, split or video" in messages["a"]
    assert "view identity" in messages["b"]
    assert "pts" in messages["b"]
    sharing.pull(url, tmp_path / "mine")
    assert tree(tmp_path / "mine") == before
    assert set(statuses(sharing.pull(url, other.path)).values()) == {"differs"}
    assert statuses(sharing.push(other.path, url, replace=True)) == {"a": "replaced", "b": "replaced"}
    assert sharing.pull(url, tmp_path / "mine", replace=True).complete
    assert tree(tmp_path / "mine") == tree(other.path)  # the view that the replaced match had is gone
    assert verify(tmp_path / "mine") == []
    assert sharing.pull(url, tmp_path / "new").complete
    assert tree(tmp_path / "new") == tree(other.path)
    left = request.getfixturevalue("bucket").paths() if "://" in url else map(str, Path(url).rglob("*"))
    assert not [path for path in left if "hflip" in path]


def test_other_settings_and_classes(make_maker: Any, sharing: Any, tmp_path: Path, url: str) -> None:
    mine, wide, renamed, foreign = (make_maker(tmp_path / name) for name in ("mine", "wide", "renamed", "foreign"))
    mine.match("a")
    sharing.push(mine.path, url)
    wide.store(dim=7)
    wide.match("w", dim=7)
    for act, arguments in ((sharing.push, (wide.path, url)), (sharing.pull, (url, wide.path))):
        with pytest.raises(InputError, match=r"these differ: dim[\s\S]*dim=[67]") as told:
            act(*arguments)
        assert url in str(told.value)
    renamed.store(weights="same-tensors.pth")
    renamed.match("r", num_rows=300)
    assert sharing.push(renamed.path, url).complete
    assert sharing.pull(url, mine.path).complete
    assert FeatureStore.open(mine.path).matches() == ["a", "r"]
    FeatureStore.create_or_open(foreign.path, mine.settings(), classes=("SMASH",), software={})
    unlabelled: dict[str, Any] = {"match_meta": foreign.meta(labels=()), "provenance": {}}
    with FeatureStore.open(foreign.path).writer("s", num_rows=5, pts_ticks=np.arange(5), **unlabelled) as writer:
        writer.append({"identity": foreign.rows(5)}, np.ones(5, bool))
        writer.commit()
    for act, arguments in ((sharing.push, (foreign.path, url)), (sharing.pull, (url, foreign.path))):
        with pytest.raises(InputError, match=r"other classes[\s\S]*(SMASH|PASS)"):
            act(*arguments)


def test_damaged_values_are_not_sent(maker: Any, sharing: Any, tmp_path: Path, url: str) -> None:
    maker.match("a")
    maker.match("b")
    data = bytearray(maker.shard.read_bytes())
    data[1000] ^= 1
    maker.shard.write_bytes(data)
    outcome = sharing.push(maker.path, url)
    assert statuses(outcome)["a"] == "failed"
    assert "a/features/identity/c/0/0: damaged" in outcome.results[0].message
    assert statuses(sharing.pull(url, tmp_path / "copy")) == {"b": "received"}


def test_damaged_metadata_stops_its_match_only(maker: Any, sharing: Any, tmp_path: Path, url: str) -> None:
    for match_id in ("a", "b", "d"):
        maker.match(match_id)
    (maker.path / "a" / "zarr.json").write_text("{}")
    assert sharing.push(maker.path, url, matches=("b",)).complete
    outcome = sharing.push(maker.path, url)
    assert statuses(outcome)["a"] == "failed"
    assert "a/zarr.json" in next(each.message for each in outcome.results if each.match_id == "a")
    assert set(statuses(sharing.pull(url, tmp_path / "copy"))) == {"b", "d"}
    with pytest.raises(InputError, match=r"a/zarr\.json"):
        sharing.push(maker.path, url, matches=("a",))


def test_stores_made_while_the_name_of_the_weights_was_in_the_key(
    make_maker: Any, sharing: Any, tmp_path: Path, url: str
) -> None:
    """They open, are added to and shared; what was shared then is pulled, and pushed to."""
    old, new = make_maker(tmp_path / "old"), make_maker(tmp_path / "new")
    old.match("a", num_rows=300)
    root, settings = old.path / "zarr.json", old.settings()
    root.write_text(root.read_text().replace(settings.key(), settings.key_with_name()))
    old.match("b", num_rows=300)
    assert settings.key_with_name() in root.read_text()
    new.store(weights="renamed.pth")
    assert sharing.push(old.path, url).complete
    assert sharing.pull(url, new.path).complete
    new.match("d", num_rows=300)
    assert sharing.push(new.path, url).complete
    assert sharing.pull(url, tmp_path / "copy").complete
    assert FeatureStore.open(tmp_path / "copy").matches() == ["a", "b", "d"]
    assert verify(tmp_path / "copy") == []
