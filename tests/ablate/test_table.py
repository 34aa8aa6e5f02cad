"""The table of an ablation: what is computed over seeds, and what its files hold."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bas.ablate.table import SHEET, TABLE, AblationTable, Row, SeedRun, require_same_settings
from bas.errors import InputError
from bas.eval.report import Score

ROW = Row(
    name="ed",
    recipe="ed",
    about="the best",
    backbone="x3d_s",
    depth=5,
    head="ed",
    weights="kinetics",
    published={"map_10": 46.1, "map_12": 42.96, "source": "seed, X3D-S"},
    frames_per_epoch=500_000,
    num_seeds=3,
)


def seed_run(seed: int, map_10: float, map_12: float, *, seconds: float = 10.0, low: float | None = 0.1) -> SeedRun:
    means: dict[str, dict[str, float | None]] = {
        "mAP-10": {"value": map_10, "low": low, "high": 0.5, "chance": 0.01},
        "mAP-12": {"value": map_12, "low": low, "high": 0.4, "chance": 0.02},
    }
    return SeedRun(
        seed=seed, run=f"runs/ed-{seed}", store="s.zarr", predictions="p", seconds=seconds, parameters=123, means=means
    )


def table(*rows: Row, **changes: Any) -> AblationTable:
    made = AblationTable(
        sources=("/data",),
        split="test",
        settings={"epochs": None, "size": [64, 36], "set": {"ed.ks": 9}},
        classes=("PASS", "DRIVE"),
        rows=rows,
        chance={"mAP-10": 0.016, "mAP-12": 0.014},
        notes=("mind this",),
    )
    return replace(made, **changes)


DONE = ROW.with_run(seed_run(1, 0.4, 0.3)).with_run(seed_run(2, 0.6, 0.35, seconds=40)).with_run(seed_run(0, 0.2, 0.25))


def test_what_is_computed_over_seeds() -> None:
    assert [run.seed for run in DONE.runs] == [0, 1, 2]
    assert DONE.over_seeds("value") == pytest.approx({"mAP-10": 0.4, "mAP-12": 0.3})
    assert DONE.sd() == pytest.approx({"mAP-10": 0.2, "mAP-12": 0.05})
    assert DONE.over_seeds("low") == pytest.approx({"mAP-10": 0.1, "mAP-12": 0.1})
    assert DONE.seconds == pytest.approx(20)
    assert (DONE.parameters, DONE.status) == (123, "done")
    one = ROW.with_run(seed_run(0, 0.2, 0.3, low=None))
    assert (one.sd(), one.over_seeds("low"), one.status) == (None, {}, "pending")
    assert (ROW.over_seeds("value"), ROW.seconds, ROW.parameters) == ({}, None, None)


def test_failures_say_once_why_and_keep_what_is_done() -> None:
    row = ROW.with_run(seed_run(0, 0.2, 0.3)).with_failure("no room", seed=1).with_failure("no room", seed=2)
    assert row.status == "failed"
    assert row.error == "seed 1, seed 2: no room"
    assert row.over_seeds("value") == pytest.approx({"mAP-10": 0.2, "mAP-12": 0.3})
    assert ROW.with_failure("no store").error == "no store"
    assert not table(DONE, row).complete
    assert table(DONE).complete


def test_scores_without_an_interval_become_null() -> None:
    nothing = float("nan")
    plain = SeedRun.plain({"mAP": Score(0.5, nothing, nothing, 0.1, 0.0)})
    assert plain == {"mAP": {"value": 0.5, "low": None, "high": None, "chance": 0.1}}


def test_the_json_file_holds_what_is_agreed(tmp_path: Path) -> None:
    table(DONE, ROW.with_failure("no store of i3d")).write(tmp_path)
    record = json.loads((tmp_path / TABLE).read_text(), parse_constant=pytest.fail)
    assert record["format"] == "bas-ablation-1"
    assert (record["sources"], record["split"], record["classes"]) == (["/data"], "test", ["PASS", "DRIVE"])
    assert record["chance"] == {"mAP-10": 0.016, "mAP-12": 0.014}
    first, second = record["rows"]
    assert first["published"] == {"map_10": 46.1, "map_12": 42.96, "source": "seed, X3D-S"}
    assert first["runs"][0] == {
        "seed": 0,
        "run": "runs/ed-0",
        "store": "s.zarr",
        "predictions": "p",
        "seconds": 10.0,
        "parameters": 123,
        "means": {
            "mAP-10": {"value": 0.2, "low": 0.1, "high": 0.5, "chance": 0.01},
            "mAP-12": {"value": 0.25, "low": 0.1, "high": 0.4, "chance": 0.02},
        },
    }
    assert first["mean"] == pytest.approx({"mAP-10": 0.4, "mAP-12": 0.3})
    assert first["high"] == pytest.approx({"mAP-10": 0.5, "mAP-12": 0.4})
    assert (first["parameters"], first["seconds"], first["status"], first["error"]) == (123, 20, "done", "")
    assert (second["status"], second["error"], second["runs"], second["sd"]) == ("failed", "no store of i3d", [], None)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    one = ROW.with_run(seed_run(2, 0.2, 0.3, low=None)).with_failure("no room", seed=0).with_failure("no room", seed=1)
    table(DONE, one, replace(ROW, published=None)).write(tmp_path)
    read = AblationTable.read(tmp_path)
    assert read.to_json() == json.loads((tmp_path / TABLE).read_text())
    assert read.rows[0] == DONE
    assert [row.status for row in read.rows] == ["done", "failed", "pending"]
    assert read.rows[1].error == "seed 0, seed 1: no room"


def test_rows_without_a_number_of_seeds_keep_their_status(tmp_path: Path) -> None:
    table(DONE, replace(DONE, num_seeds=4)).write(tmp_path)
    record = json.loads((tmp_path / TABLE).read_text())
    for row in record["rows"]:
        del row["num_seeds"]
    (tmp_path / TABLE).write_text(json.dumps(record))
    assert [row.status for row in AblationTable.read(tmp_path).rows] == ["done", "pending"]


def test_the_sheet_has_a_line_per_row_and_chance(tmp_path: Path) -> None:
    table(DONE, ROW.with_failure("why\nso")).write(tmp_path)
    with (tmp_path / SHEET).open(newline="") as file:
        done, failed, chance = csv.DictReader(file)
    assert float(done["mAP-10 mean %"]) == pytest.approx(40)
    assert float(done["mAP-12 sd %"]) == pytest.approx(5)
    assert (done["published mAP-10 %"], done["parameters"], done["status"]) == ("46.1", "123", "done")
    assert (failed["mAP-10 mean %"], failed["error"]) == ("", "why\nso")
    assert float(chance["mAP-12 mean %"]) == pytest.approx(1.4)
    assert (chance["row"], chance["status"]) == ("chance", "")


def test_other_settings_are_named_and_other_rows_are_welcome(tmp_path: Path) -> None:
    require_same_settings(tmp_path, table(DONE))
    table(DONE).write(tmp_path)
    require_same_settings(tmp_path, table(ROW, chance={}, notes=()))
    other = table(DONE, split="valid", settings={"epochs": 4, "size": [64, 36], "set": {}})
    with pytest.raises(InputError, match="these differ: split, epochs, set") as error:
        require_same_settings(tmp_path, other)
    assert error.value.got == "split=valid, epochs=4, set={}"
    assert error.value.wanted == "split=test, epochs=None, set={'ed.ks': 9}"


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ('{"format": "x"}', "another format"), ("[]", "another format")]
)
def test_a_table_that_is_not_ours_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(InputError, match=message):
        require_same_settings(tmp_path, table(DONE))


DAMAGES = {
    "a name is missing": lambda record: record.pop("settings"),
    "no list": lambda record: record.update(sources=3),
    "a row's name": lambda record: record["rows"][0].update(name=3),
    "an empty row": lambda record: record.update(rows=[{}]),
    "chance": lambda record: record.update(chance={"mAP": "often"}),
    "a score": lambda record: record["rows"][0]["runs"][0]["means"]["mAP-10"].update(value="high"),
    "a mean of one seed": lambda record: record["rows"][0]["runs"][0]["means"].pop("mAP-10"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_table_says_what_to_do(tmp_path: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    table(DONE).write(tmp_path)
    record = json.loads((tmp_path / TABLE).read_text())
    damage(record)
    (tmp_path / TABLE).write_text(json.dumps(record))
    for read in (AblationTable.read, lambda folder: require_same_settings(folder, table(DONE))):
        with pytest.raises(InputError, match="damaged") as error:
            read(tmp_path)
        assert "delete the file" in error.value.cure
