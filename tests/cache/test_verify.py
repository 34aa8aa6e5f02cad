"""What `verify` finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bas.cache.rows import first_not_finite
from bas.cache.verify import StoreFinding, compare_rows, verify

LONG_ID = "england_efl/2019-2020/2019-10-01 - Reading - Fulham"


def messages(path: Path) -> str:
    return "\n".join(finding.message for finding in verify(path) if finding.severity == "error")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_nothing_is_found_in_a_good_store(maker: Any) -> None:
    maker.match()
    maker.match(LONG_ID, views=("identity", "hflip"))
    assert verify(maker.path) == []
    assert verify(maker.path, matches=["a"]) == []
    assert [finding.match for finding in verify(maker.path, matches=["b"])] == ["b"]


def test_any_byte_of_a_shard(maker: Any) -> None:
    maker.match()
    good = maker.shard.read_bytes()
    places = {0, 1, 7199, 7200, 9215, 9216, len(good) - 5, len(good) - 4, len(good) - 1, *range(3, len(good), 331)}
    for place in sorted(places):
        maker.shard.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        assert messages(maker.path), place
    maker.shard.write_bytes(good)
    assert verify(maker.path) == []


@pytest.mark.parametrize("name", ["pts", "valid"])
def test_any_byte_of_the_small_arrays(maker: Any, name: str) -> None:
    maker.match()
    path = maker.path / "a" / name / "c" / "0"
    good = path.read_bytes()
    for place in range(0, len(good), 97):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert "sha256" in messages(maker.path)


def rehash(maker: Any, name: str, data: bytes) -> None:
    """Put other values with a fitting hash."""
    import hashlib

    (maker.path / "a" / name / "c" / "0").write_bytes(data)
    edit(
        maker.path / "a" / name / "zarr.json", lambda m: m["attributes"].update(sha256=hashlib.sha256(data).hexdigest())
    )


def test_values_that_make_no_sense(maker: Any) -> None:
    maker.match()
    pts = np.arange(600)
    pts[300] = 0
    rehash(maker, "pts", pts.astype("<i8").tobytes())
    rehash(maker, "valid", bytes([1] * 599 + [2]))
    assert "pts: goes back at row 300" in messages(maker.path)
    assert "valid: row 599" in messages(maker.path)


def test_not_finite_rows(maker: Any) -> None:
    maker.match()
    data = bytearray(maker.shard.read_bytes())
    data[12 * 41 : 12 * 41 + 2] = np.float16("nan").tobytes()
    maker.shard.write_bytes(data)
    assert "row 41 holds NaN or Inf" in messages(maker.path)


def test_metadata(maker: Any) -> None:
    maker.match()
    group = maker.path / "a" / "zarr.json"
    good = group.read_text()
    record: Callable[[Any], Any] = lambda m: m["attributes"]["bas_match"]  # noqa: E731
    for change, word in (
        ({"num_rows": 599}, "wanted (599, 6)"),
        ({"num_rows": "x"}, "damaged"),
        ({"fps": "0"}, "frame rate"),
        ({"time_base": "1/0"}, "damaged"),
        ({"split": "x"}, "split is not known"),
        ({"labels": [{"label": "PASS", "position": "24000"}]}, "lies after the end (24000 ms)"),
        ({"labels": [{"label": "PASS", "position": "x"}]}, "position is not usable"),
        ({"labels": [{"label": "GOLF", "position": "0"}]}, "is not a class"),
        ({"labels": 3}, "damaged"),
        ({"video": 3}, "damaged"),
    ):
        edit(group, lambda m, change=change: record(m).update(change))  # type: ignore[misc]
        assert word in messages(maker.path), change
        group.write_text(good)
    group.write_text("{")
    assert "not valid JSON" in messages(maker.path)
    group.write_text(good)
    edit(maker.path / "zarr.json", lambda m: m["attributes"]["bas"]["settings"].update(hop=3))
    assert "do not fit their hash" in messages(maker.path)


def test_hashes_that_are_missing_are_a_warning(maker: Any) -> None:
    maker.match()
    for name in ("pts", "valid", "features/identity"):
        edit(maker.path / "a" / name / "zarr.json", lambda m: m["attributes"].clear())
    assert [(f.severity, "sha256" in f.message) for f in verify(maker.path)] == [("warning", True)] * 3


@pytest.mark.parametrize(
    "place",
    [
        "x",
        "x.json",
        "england_efl/x",
        "a/x",
        "a/pts/c/1",
        "a/pts/x",
        "a/features/x",
        "a/features/identity/c/0/1",
        "a/x/y",
    ],
)
def test_stray_files(maker: Any, place: str) -> None:
    maker.match()
    maker.match(LONG_ID)
    (maker.path / place).parent.mkdir(exist_ok=True)
    (maker.path / place).write_text("stray")
    assert f"{place}: a file that does not belong there" in messages(maker.path)


def test_links_and_missing_metadata(maker: Any, tmp_path: Path) -> None:
    maker.match(LONG_ID)
    (maker.path / "link").symlink_to(tmp_path)
    assert "link: a link" in messages(maker.path)
    (maker.path / "england_efl" / "zarr.json").unlink()
    assert "england_efl: a folder without zarr.json" in messages(maker.path)


def test_unfinished_work_is_a_note(maker: Any) -> None:
    maker.match()
    with maker.writer("b", num_rows=600) as writer:
        writer.append({"identity": maker.rows(600)[:300]}, np.ones(300, bool))
    findings = verify(maker.path)
    assert [(finding.severity, finding.match) for finding in findings] == [("note", "b")]
    assert "256 rows saved" in findings[0].message
    assert findings[0].to_json()["severity"] == "note"


def test_rows_made_again(maker: Any) -> None:
    maker.match()
    rows, stored = maker.rows(600), maker.store().rows("a")

    def compare(again: Any, first_row: int = 100) -> list[StoreFinding]:
        kept = stored[first_row : first_row + len(again)]
        return compare_rows(kept, again, first_row=first_row, match="a", view="identity", tolerance=0.01)

    assert compare(rows[100:140]) == []
    again = rows[100:140].copy()
    again[7] *= 1.05
    assert "row 107 by 0.048" in compare(again)[0].message
    again[9, 2] = np.nan
    assert "2 of 40 rows differ from the video's; row 109" in compare(again)[0].message
    assert "made again (40, 6), stored (20, 6)" in compare(rows[100:140], 580)[0].message
    assert compare(np.zeros((1, 6)))[0].severity == "error"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite(dtype: type[np.floating[Any]], value: float) -> None:
    rows: npt.NDArray[Any] = np.array([[65504, -65504], [0, -0.0], [6e-8, 1]], dtype)
    assert first_not_finite(rows) == -1
    rows[1:, 1] = value
    assert first_not_finite(rows) == 1
    assert first_not_finite(rows[:, ::-1]) == 1
