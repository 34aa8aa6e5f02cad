"""What a page holds, and what is left out of it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.report.page import data as file
from bas.report.page.data import MIN_PER_CLASS, EvaluatedRun

Found = list[tuple[int, int, float]]
FOLDER = Path(file.__file__).parent


def column(record: dict[str, Any], name: str, kind: str) -> list[Any]:
    values: list[Any] = np.frombuffer(base64.b64decode(record[name]), dtype=kind).tolist()
    return values


def test_columns_come_back_in_order_of_time(subject: Callable[..., EvaluatedRun], pages: Any) -> None:
    events: Found = [(200, 0, 1), (100, 1, -1)]
    found: Found = [(203, 0, 0.25), (90, 0, 0.125), (101, 1, 0.5)]
    [run] = pages.data([subject("a", {"m": (events, found)}, "AB")], "AB")["runs"]
    data = pages.data([subject("a", {"m": (events, found)}, "AB")], "AB")
    record = data["matches"][0]["events"]
    assert column(record, "ms", "<u4") == [4000, 8000]
    assert column(record, "cls", "<u1") == [1, 0]
    assert column(record, "shown", "<u1") == [0, 1]
    record = run["matches"][0]["predictions"]
    assert column(record, "ms", "<u4") == [3600, 4040, 8120]
    assert column(record, "conf", "<f4") == [0.125, 0.5, 0.25]
    assert column(record, "bin", "<u1") == [24, 99, 49]
    assert column(record, "taken", "<i4") == [1, 2]
    json.dumps(data, allow_nan=False)


def test_only_the_least_sure_are_left_out_and_never_a_pair(subject: Callable[..., EvaluatedRun], pages: Any) -> None:
    generator = np.random.default_rng(0)
    sure: Found = [(int(frame), 0, 0.5 + frame / 1e6) for frame in range(0, 20_000, 40)]
    unsure: Found = [(int(frame), 0, 0.001 + frame / 1e8) for frame in range(20_007, 60_000, 40)]
    events: Found = [(57_000, 0, 1), *[(int(frame), 0, 1) for frame in generator.integers(0, 19_000, 9)]]
    [run] = pages.data([subject("a", {"m": (events, [*sure, *unsure])}, "A")], "A")["runs"]
    kept = column(run["matches"][0]["predictions"], "conf", "<f4")
    num_found = len(sure) + len(unsure)
    assert run["num_left_out"] == num_found - len(kept) > 500
    assert len(kept) >= MIN_PER_CLASS
    assert [value for value in kept if value > 0.4] == pytest.approx([value for *_, value in sure])
    ms = column(run["matches"][0]["predictions"], "ms", "<u4")
    taken = column(run["matches"][0]["predictions"], "taken", "<i4")
    assert abs(ms[taken[-1]] - 40 * 57_000) <= 480  # a pair, however unsure
    assert run["curves"][0]["kept"][0] == num_found  # curves have them all


def test_matches_that_only_one_run_has_are_empty_for_the_other(
    subject: Callable[..., EvaluatedRun], pages: Any
) -> None:
    one = subject("a", {"m": ([(10, 0, 1)], []), "m/2": ([], [(5, 0, 0.5)])}, "A")
    other = subject("b", {"m": ([(10, 0, 1)], [])}, "A")
    data = pages.data([other, one], "A")
    assert [match["name"] for match in data["matches"]] == ["m", "m/2"]
    assert [match["predictions"]["count"] for match in data["runs"][0]["matches"]] == [0, 0]
    assert [match["predictions"]["count"] for match in data["runs"][1]["matches"]] == [0, 1]


def test_numbers_that_are_none_become_null(subject: Callable[..., EvaluatedRun], pages: Any) -> None:
    nothing = subject("a", {"m": ([], [])}, "AB", resamples=0)
    odd = {"rows": [{"mean": {"mAP": float("nan")}, "seconds": float("inf"), "runs": []}], "chance": {}}
    data = pages.data([nothing], "AB", ablation=odd)
    assert data["ablation"]["rows"][0] == {"mean": {"mAP": None}, "seconds": None, "runs": []}
    assert data["runs"][0]["report"]["timing"]["mean_ms"] is None
    json.dumps(data, allow_nan=False)


def test_every_file_of_the_template_is_used_and_short() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.suffix != ".py" and path.is_file()}
    scripts = {f"{name}.js" for name in (*file._SCRIPTS, *file._LABEL_SCRIPTS)}
    assert names == {"index.html", "label.html", "page.css", *scripts}
    for name in names:
        assert len((FOLDER / name).read_text().splitlines()) < 400, name


def test_the_script_cannot_be_ended_by_data(subject: Callable[..., EvaluatedRun], pages: Any) -> None:
    run = subject("</script><script>alert(1)</script>", {"m": ([], [])}, "A")
    text = pages.write([run], "A", title="{{data}}</title>").read_text()
    assert text.count("</script>") == 2  # of the template
    assert text.count("<script") == 2
    assert "<title>{{data}}&lt;/title&gt;</title>" in text
