"""`bas cache pca`: stores to stores."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bas.cache.reduce.fit import FitSettings
from bas.cache.reduce.run import ReduceOptions, ReduceSummary, reduce_store
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

Cli = Callable[..., int]
BOTH = FitSettings(dim=3, quantize=True)


def reduced(store: FeatureStore, out: Path, asked: FitSettings | None = BOTH, **others: Any) -> ReduceSummary:
    summary = reduce_store(store.path, out, ReduceOptions(fit=asked, **others))
    assert summary.complete, [result.message for result in summary.results]
    return summary


@pytest.mark.parametrize("asked", [FitSettings(dim=3), FitSettings(quantize=True), BOTH], ids=["pca", "uint8", "both"])
def test_rows_are_those_of_the_reduction_and_all_else_goes_along(
    full: FeatureStore, out: Path, asked: FitSettings
) -> None:
    summary = reduced(full, out, asked)
    store = FeatureStore.open(out)
    assert store.reduction is not None
    assert store.reduction.name == summary.reduction.name == store.settings.reduction
    assert store.matches() == full.matches()
    for match_id in full.matches():
        assert store.match(match_id) == full.match(match_id)
        np.testing.assert_array_equal(store.pts(match_id), full.pts(match_id))
        np.testing.assert_array_equal(store.valid(match_id), full.valid(match_id))
        for view in ("identity", "hflip"):
            rows = store.rows(match_id, view)
            assert rows.is_mapped
            np.testing.assert_array_equal(rows[:], store.reduction.encode(full.rows(match_id, view)[:]))
    assert (store.classes, store.software, store.origin) == (full.classes, full.software, full.origin)
    assert verify(out) == []


def test_components_are_plain_zarr_arrays(full: FeatureStore, out: Path) -> None:
    arrays = reduced(full, out).reduction.arrays
    group = zarr.open_group(str(out), mode="r")["reduction"]
    assert isinstance(group, zarr.Group)
    assert {name for name, _ in group.arrays()} == {"mean", "components", "scale", "offset"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(group[name][:], array)  # type: ignore[index]
    record: Any = group.attrs["bas_reduction"]
    assert record["source_key"] == full.settings.key()
    assert record["about"]["matches"] == ["m0", "m1"]


def test_again_does_nothing_and_new_matches_and_views_are_added(full: FeatureStore, maker: Any, out: Path) -> None:
    reduced(full, out, views=("identity",))
    before = FeatureStore.open(out).settings
    assert {result.status for result in reduced(full, out, None).results} == {"reduced"}  # the other view
    maker.match("m9", num_rows=100, dim=12, match_meta=maker.meta(split="train", labels=()))
    again = reduced(full, out)
    assert {result.match: result.status for result in again.results} == {
        "m9": "reduced", **{f"m{number}": "already there" for number in range(5)}
    }  # fmt: skip
    assert not again.is_fitted
    assert FeatureStore.open(out).settings == before
    assert FeatureStore.open(out).views("m0") == ["hflip", "identity"]
    assert verify(out) == []


@pytest.mark.parametrize("last", [3, 34, 60])
def test_killed_and_run_again_it_is_the_store_of_one_run(
    full: FeatureStore, out: Path, tmp_path: Path, tree: Any, last: int
) -> None:
    reduced(full, out)
    child = [sys.executable, str(Path(__file__).with_name("reduce_child.py")), str(full.path), str(tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*child, str(last)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    reduced(full, tmp_path / "killed")
    assert tree(tmp_path / "killed") == tree(out)


def test_components_of_another_store_are_taken_as_they_are(
    full: FeatureStore, make_maker: Any, make_full: Any, out: Path, tmp_path: Path
) -> None:
    reduced(full, out)
    other = make_full(make_maker(tmp_path / "other"), (300, 60, 50, 40, 31))
    summary = reduced(other, tmp_path / "b.zarr", None, components=out)
    assert summary.reduction.name == FeatureStore.open(out).settings.reduction
    assert FeatureStore.open(tmp_path / "b.zarr").settings == FeatureStore.open(out).settings
    assert verify(tmp_path / "b.zarr") == []
    with pytest.raises(InputError, match="these differ: dim"):
        reduced(other, tmp_path / "c.zarr", FitSettings(dim=4, quantize=True), components=out)


def test_what_does_not_go_together_is_refused_before_anything_is_written(
    full: FeatureStore, make_maker: Any, out: Path, tmp_path: Path
) -> None:
    reduced(full, out)
    for asked, told in ((FitSettings(dim=4, quantize=True), "dim=4"), (FitSettings(dim=3), "quantize=False")):
        with pytest.raises(InputError, match=told):
            reduced(full, out, asked)
    with pytest.raises(InputError, match="reduced already"):
        reduce_store(out, tmp_path / "c.zarr", ReduceOptions(fit=BOTH))
    with pytest.raises(InputError, match="in place"):
        reduce_store(full.path, full.path, ReduceOptions(fit=BOTH))
    with pytest.raises(InputError, match="none asked for"):
        reduce_store(full.path, tmp_path / "c.zarr", ReduceOptions())
    with pytest.raises(InputError, match="lacks a view"):
        reduced(full, tmp_path / "c.zarr", views=("mirror",))
    other = make_maker(tmp_path / "other")
    settings = replace(other.settings(12), hop=5)
    FeatureStore.create_or_open(other.path, settings, classes=(), software={})
    with pytest.raises(InputError, match="no match to reduce"):
        reduce_store(other.path, tmp_path / "c.zarr", ReduceOptions(fit=BOTH))
    with pytest.raises(InputError, match="full rows"):
        reduced(full, other.path)
    assert not (tmp_path / "c.zarr").exists()


def test_rows_of_other_settings_are_refused_by_field(full: FeatureStore, out: Path, tmp_path: Path) -> None:
    reduced(full, out)
    other = tmp_path / "other"
    shutil.copytree(full.path, other)
    changed = replace(full.settings, hop=5)
    document = json.loads((other / "zarr.json").read_text())
    document["attributes"]["bas"] |= {"settings": changed.to_json(), "settings_key": changed.key()}
    (other / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="these differ: hop"):
        reduce_store(other, out, ReduceOptions())


def damage_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document["attributes"]["bas_reduction"])
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "harm",
    [
        lambda group: (group / "mean/c/0").write_bytes(bytes(48)),
        lambda group: (group / "mean/c/0").write_bytes(bytes(12)),
        lambda group: (group / "components/c/0/0").unlink(),
        lambda group: shutil.rmtree(group / "scale"),
        shutil.rmtree,
        lambda group: (group / "zarr.json").write_text("{}"),
        lambda group: damage_json(group / "zarr.json", lambda record: record["source"].update(stride=2)),
        lambda group: damage_json(group / "zarr.json", lambda record: record["source"].update(dim=11)),
        lambda group: damage_json(group / "zarr.json", lambda record: record.update(format=2)),
        lambda group: damage_json(group / "zarr.json", lambda record: record.update(source=[])),
        lambda group: (group / "mean/zarr.json").write_text("{"),
    ],
)
def test_damaged_components_are_refused_and_found(
    full: FeatureStore, out: Path, harm: Callable[[Path], object]
) -> None:
    reduced(full, out, views=("identity",))
    harm(out / "reduction")
    with pytest.raises(InputError, match="reduction"):
        _ = FeatureStore.open(out).reduction
    assert [finding.severity for finding in verify(out)] == ["error"]


def test_a_stray_file_among_the_components_is_found(full: FeatureStore, out: Path) -> None:
    reduced(full, out, views=("identity",))
    (out / "reduction" / "mean" / "x.py").write_text("")
    assert "reduction/mean/x.py" in verify(out)[0].message


def test_a_match_that_cannot_be_read_does_not_stop_the_others(full: FeatureStore, out: Path) -> None:
    reduced(full, out, views=("identity",))
    shutil.rmtree(out / "m2")
    shutil.rmtree(out / "m3")
    shard = full.path / "m2" / "features" / "identity" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-5])
    summary = reduce_store(full.path, out, ReduceOptions(views=("identity",)))
    assert [result.status for result in summary.results].count("failed") == 1
    assert not summary.complete
    assert FeatureStore.open(out).matches() == ["m0", "m1", "m3", "m4"]


def test_the_command(bas: Cli, capsys: pytest.CaptureFixture[str], full: FeatureStore, out: Path) -> None:
    asked = ("cache", "pca", full.path, "--out", out)
    assert bas(*asked, "--dim", "0.99", "--quantize", "uint8", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["fitted"]
    assert record["complete"]
    assert record["settings"]["dtype"] == "uint8"
    assert record["reduction"]["kept_variance"]["train"] > 0.98
    assert bas(*asked) == 0
    told = capsys.readouterr().out
    assert "already there" in told
    assert "variance kept" in told
    assert bas("cache", "info", out) == 0
    assert "990 rows of 2 matches" in capsys.readouterr().out.replace("\n", " ")
    assert bas("cache", "info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reduction"]["source"]["dim"] == 12


@pytest.mark.parametrize(
    "options",
    [("--dim", "many"), ("--quantize", "int4", "--dim", 3), ("--fit-split", "all"), ("--fit-split", "valid"), ()],
)
def test_options_that_cannot_be_are_an_input_error(
    bas: Cli, capsys: pytest.CaptureFixture[str], full: FeatureStore, out: Path, options: tuple[object, ...]
) -> None:
    assert bas("cache", "pca", full.path, "--out", out, *options) == 2
    told = capsys.readouterr().err
    assert "wanted:" in told or "cure:" in told
    assert not out.exists()


def test_a_new_store_of_reduced_rows_needs_their_components(full: FeatureStore, out: Path, tmp_path: Path) -> None:
    reduction = reduced(full, out).reduction
    for settings, given in ((reduction.settings, None), (full.settings, reduction)):
        with pytest.raises(InputError, match="do not go together"):
            FeatureStore.create_or_open(tmp_path / "n", settings, classes=(), software={}, reduction=given)
    store = FeatureStore.create_or_open(
        tmp_path / "n", reduction.settings, classes=(), software={}, reduction=reduction
    )
    assert store.reduction is not None
    assert store.reduction.about == reduction.about


def test_extraction_into_a_reduced_store_says_the_cure(full: FeatureStore, out: Path) -> None:
    reduced(full, out)
    with pytest.raises(InputError, match=r"(?s)reduction.*bas cache pca"):
        FeatureStore.create_or_open(out, full.settings, classes=full.classes, software={})
