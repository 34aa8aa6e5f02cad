"""A store that has travelled is the same store, by every way; nothing travels twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.share.transfer import Outcome
from bas.cache.verify import verify

GAME = "england_efl/2019-2020/2019-10-01 - Reading - Fulham"
ODD = "spiele/100% Köln #1 + Bär & Söhne, 3=4 {x} ~y^ [z] 日本 ' @$;!()`"
WAYS = ("folder", "file", "s3", "nginx")


def make_store(maker: Any) -> Path:
    """Nested and odd ids, two views, unlabelled, invalid rows, several chunks."""
    maker.match(GAME, num_rows=700, views=("identity", "hflip"))
    maker.match(ODD, num_rows=40, match_meta=maker.meta(labels=None, split=None))
    rows = maker.rows(300)
    with maker.writer("third", num_rows=300, match_meta=maker.meta(split="test", labels=())) as writer:
        writer.append({"identity": rows}, np.arange(300) % 5 > 0)
        writer.commit()
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


def statuses(outcome: Outcome) -> dict[str, str]:
    return {each.match: each.status for each in outcome.results}


def test_round_trip(maker: Any, way: tuple[str, str], tree: Callable[..., Any], sharing: Any, tmp_path: Path) -> None:
    original, copy = make_store(maker), tmp_path / "copy"
    there, back = way
    sent = sharing.push(original, there)
    assert sent.complete
    assert set(statuses(sent).values()) <= {"sent", "received"}
    got = sharing.pull(back, copy)
    assert set(statuses(got).values()) == {"received"}
    assert got.bytes == sent.bytes == sum(each.bytes for each in got.results)
    assert verify(copy) == []
    assert tree(copy) == tree(original)
    again, back_again = sharing.push(original, there), sharing.pull(back, copy)
    assert (again.bytes, back_again.bytes) == (0, 0)
    assert set(statuses(again).values()) == set(statuses(back_again).values()) == {"already there"}
    assert tree(copy) == tree(original)
