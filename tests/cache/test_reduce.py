"""Reduced stores: the arithmetic, what is fitted on which rows, the file, and the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache import reduce
from bas.cache.reduce import FitSettings, SplitRows, fit, levels_of, num_rows_read, reduce_store
from bas.cache.reduction import REDUCTION_FILE, Reduction, RowEncoder, read_reduction, write_reduction
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.workers import Summary

Cli = Callable[..., int]
BOTH = FitSettings(dim=3, quantize=True)
TRAIN = ("m0", "m1")


@pytest.fixture
def reduction(maker: Any) -> Reduction:
    """12 channels to 3, in 8 bits."""
    generator = np.random.default_rng(0)
    components = np.linalg.qr(generator.normal(size=(12, 3)))[0].T.astype(np.float32)
    return Reduction(
        source=maker.settings(12),
        mean=generator.normal(size=12).astype(np.float32),
        components=np.ascontiguousarray(components),
        scale=np.full(3, 0.05, np.float32),
        offset=np.full(3, -6.0, np.float32),
    )


@pytest.fixture
def full(maker: Any, fill_plane: Any) -> FeatureStore:
    return fill_plane(maker)  # type: ignore[no-any-return]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "reduced.zarr"


def rows_of(num_rows: int) -> Any:
    return np.random.default_rng(1).normal(size=(num_rows, 12)).astype(np.float16)


def training_rows(store: FeatureStore) -> Any:
    return np.concatenate([store.rows(name)[:][store.valid(name)] for name in TRAIN]).astype(np.float64)


def reduced(store: FeatureStore, out: Path, asked: FitSettings | None = BOTH, **others: Any) -> Summary:
    summary = reduce_store(store.path, out, asked=asked, **others)
    assert summary.complete, [result.message for result in summary.results]
    return summary


def reduction_of(path: Path) -> Reduction:
    found = FeatureStore.open(path).reduction
    assert found is not None
    return found


# --- the arithmetic


def test_encode_is_the_definition_and_decode_comes_within_half_a_step(reduction: Reduction) -> None:
    rows = rows_of(500)
    assert reduction.mean is not None
    assert reduction.components is not None
    wanted = (rows.astype(np.float64) - reduction.mean) @ reduction.components.T.astype(np.float64)
    codes = reduction.encode(rows)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.clip(np.rint((wanted + 6) / np.float32(0.05)), 0, 255))
    assert np.abs(reduction.decode(codes) - wanted).max() <= 0.0251
    only = Reduction(source=reduction.source, scale=np.ones(12, np.float32), offset=np.zeros(12, np.float32))
    codes = only.encode(np.array([[-7] * 12, [300] * 12, [12.4] * 12], np.float16))
    assert codes[:, 0].tolist() == [0, 255, 12]  # clipped, not wrapped


@pytest.mark.parametrize("sizes", [[1000], [256, 744], [1] * 5 + [994, 1], [100] * 10, [300, 700]])
def test_pieces_of_any_length_give_the_same_bytes(reduction: Reduction, sizes: list[int]) -> None:
    rows = rows_of(1000)
    plain = Reduction(source=reduction.source, mean=reduction.mean, components=reduction.components)
    for one, into in ((reduction, np.zeros((1000, 3), np.uint8)), (plain, np.zeros((1000, 3), np.float16))):
        encoder, start = RowEncoder(one, into), 0
        for size in sizes:
            encoder.add(rows[start : start + size])
            start += size
        assert into.tobytes() == one.encode(rows).tobytes()


def test_the_name_tells_every_array_and_the_source(reduction: Reduction) -> None:
    assert reduction.name.startswith("pca-3+uint8:")
    names = {reduction.name}
    for name, array in reduction.arrays.items():
        changed = array.copy()
        changed.flat[0] = np.nextafter(changed.flat[0], np.float32(9))
        change: dict[str, Any] = {name: changed}
        names.add(replace(reduction, **change).name)
    names.add(replace(reduction, source=replace(reduction.source, stride=2)).name)
    assert len(names) == 6
    assert replace(reduction, about={"rows": 5}).name == reduction.name
    assert (reduction.settings.dim, reduction.settings.dtype) == (3, "uint8")


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"scale": None},
        {"mean": np.zeros(11, np.float32)},
        {"mean": np.zeros(12)},
        {"mean": np.full(12, np.nan, np.float32)},
        {"scale": np.zeros(3, np.float32)},
        {"mean": None, "components": None, "scale": None, "offset": None},
    ],
)
def test_arrays_that_do_not_fit_are_refused(reduction: Reduction, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="reduction"):
        replace(reduction, **change)


# --- fitting


@pytest.mark.parametrize("block_rows", [64, 8192])
def test_it_is_the_pca_of_all_valid_training_rows(
    full: FeatureStore, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(reduce, "READ_ROWS", block_rows)
    found, rows = fit(full, FitSettings(dim=3), view="identity"), training_rows(full)
    np.testing.assert_allclose(found.arrays["mean"], rows.mean(0), rtol=1e-6)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    components = found.arrays["components"]
    np.testing.assert_allclose(np.abs(np.sum(components * vectors[:, ::-1][:, :3].T, axis=1)), 1, atol=1e-6)
    kept = values[::-1][:3].sum() / values.sum()
    assert found.about["kept_variance"]["train"] == pytest.approx(kept, abs=1e-5)
    assert found.about["kept_variance"]["valid"] == pytest.approx(kept, abs=1e-3)
    assert (found.about["matches"], found.about["rows"]) == (list(TRAIN), 990)
    assert fit(full, FitSettings(dim=3), view="identity").name == found.name


def test_a_share_of_the_variance_takes_as_many_components_as_it_needs(full: FeatureStore) -> None:
    for share in (0.5, 0.9, 0.999):
        found = fit(full, FitSettings(dim=share), view="identity")
        assert found.about["kept_variance"]["train"] >= share - 1e-5
        fewer = found.dim - 1
        assert not fewer or fit(full, FitSettings(dim=fewer), view="identity").about["kept_variance"]["train"] < share


@pytest.mark.parametrize("margin", [0.0, 0.25, 1.0])
def test_levels_reach_beyond_the_values_seen(margin: float) -> None:
    values = np.random.default_rng(0).normal(size=(5000, 3)) ** 3
    low, high = values.min(0), values.max(0)
    scale, offset = levels_of(low, high, margin)
    beyond = margin * (high - low) + 0.5 * scale  # half a step more: the middle lies on a level
    np.testing.assert_allclose(offset, low - beyond, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(offset + 255 * scale, high + beyond - scale, rtol=1e-4, atol=1e-3)


def test_a_channel_that_hardly_ever_changes_keeps_room_for_other_videos() -> None:
    scale, offset = levels_of(np.array([0.0, 0, 0, 7]), np.array([10, 20, 0.001, 7]), 0.0)
    np.testing.assert_allclose(scale[2:] / np.median(scale[:3]), 0.1, rtol=1e-5)
    np.testing.assert_allclose(offset[3] + 128 * scale[3], 7, rtol=1e-6)


def test_every_row_of_every_pass_is_counted_and_blocks_hold_all(full: FeatureStore) -> None:
    for asked in (FitSettings(dim=3), FitSettings(quantize=True), FitSettings(dim=3, quantize=True, split="valid")):
        seen: list[int] = []
        fit(full, asked, view="identity", on_rows=seen.append)
        assert sum(seen) == num_rows_read(full, asked, view="identity")
    blocks = list(SplitRows.of(full, "train", "identity").blocks(400))
    assert [len(block) for block in blocks] == [330, 330, 330]
    np.testing.assert_array_equal(np.concatenate(blocks), training_rows(full))


def test_what_cannot_be_fitted_is_refused(maker: Any) -> None:
    maker.match("a", num_rows=30, match_meta=maker.meta(split=None))
    maker.match("b", num_rows=30, match_meta=maker.meta(split="test"))
    with pytest.raises(InputError, match=r"(?s)'train'.*no split, test.*--components"):
        fit(maker.store(), FitSettings(dim=3), view="identity")
    maker.match("few", num_rows=5)
    for dim in (5, 7):
        with pytest.raises(InputError, match="1 to 4"):
            fit(maker.store(), FitSettings(dim=dim), view="identity")
    maker.match("same", rows=np.ones((30, 6), np.float32), match_meta=maker.meta(split="valid"))
    with pytest.raises(InputError, match="all the same"):
        fit(maker.store(), FitSettings(dim=2, split="valid"), view="identity")
    for change in ({}, {"dim": 0}, {"dim": 2.5}, {"dim": 3, "margin": -0.1}):
        with pytest.raises(InputError):
            FitSettings(**change)


# --- stores


@pytest.mark.parametrize("asked", [FitSettings(dim=3), FitSettings(quantize=True), BOTH], ids=["pca", "uint8", "both"])
def test_rows_are_those_of_the_reduction_and_all_else_goes_along(
    full: FeatureStore, out: Path, asked: FitSettings
) -> None:
    summary, store = reduced(full, out, asked), FeatureStore.open(out)
    assert summary.record["settings_key"] == store.settings.key()
    assert store.matches() == full.matches()
    for match_id in full.matches():
        assert store.match(match_id) == full.match(match_id)
        np.testing.assert_array_equal(store.pts(match_id), full.pts(match_id))
        np.testing.assert_array_equal(store.valid(match_id), full.valid(match_id))
        for view in ("identity", "hflip"):
            wanted = reduction_of(out).encode(full.rows(match_id, view)[:])
            np.testing.assert_array_equal(store.rows(match_id, view)[:], wanted)
    assert (store.classes, store.software, store.origin) == (full.classes, full.software, full.origin)
    assert verify(out) == []


def test_again_does_nothing_and_new_matches_and_views_are_added(full: FeatureStore, maker: Any, out: Path) -> None:
    reduced(full, out, views=("identity",))
    before = FeatureStore.open(out).settings
    assert {result.status for result in reduced(full, out, None).results} == {"reduced"}  # the other view
    maker.match("m9", num_rows=100, dim=12, match_meta=maker.meta(split="train", labels=()))
    again = reduced(full, out)
    assert again.counts == {"already there": 5, "reduced": 1}
    assert not again.record["fitted"]
    assert FeatureStore.open(out).settings == before
    assert FeatureStore.open(out).views("m0") == ["hflip", "identity"]
    assert verify(out) == []


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
import sklearn.decomposition  # once, before the forks
from bas.cache import layout, reduce
reduce.WRITE_ROWS = layout.CHUNK_ROWS  # so that a match is saved many times
for last in (2, 20, 40):
    child = os.fork()
    if not child:
        calls = count(1)
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == last else None
        asked = reduce.FitSettings(dim=3, quantize=True)
        reduce.reduce_store(Path(sys.argv[1]), Path(sys.argv[2], str(last)), asked=asked)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, last
"""


def test_killed_and_run_again_it_is_the_store_of_one_run(
    full: FeatureStore, out: Path, tmp_path: Path, tree: Any
) -> None:
    reduced(full, out)
    command = [sys.executable, "-c", KILLED, str(full.path), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True)
    for last in ("2", "20", "40"):
        reduced(full, tmp_path / last)
        assert tree(tmp_path / last) == tree(out)


def test_components_of_another_store_are_taken_as_they_are(
    full: FeatureStore, make_maker: Any, fill_plane: Any, out: Path, tmp_path: Path
) -> None:
    reduced(full, out)
    other = fill_plane(make_maker(tmp_path / "other"), (300, 60, 50, 40, 31))
    reduced(other, tmp_path / "b.zarr", None, components=out)
    assert FeatureStore.open(tmp_path / "b.zarr").settings == FeatureStore.open(out).settings
    assert verify(tmp_path / "b.zarr") == []
    with pytest.raises(InputError, match="these differ: dim"):
        reduced(other, tmp_path / "c.zarr", FitSettings(dim=4, quantize=True), components=out)


def test_what_does_not_go_together_is_refused_before_anything_is_written(
    full: FeatureStore, make_maker: Any, out: Path, tmp_path: Path
) -> None:
    reduced(full, out)
    nowhere = tmp_path / "c.zarr"
    other = make_maker(tmp_path / "other")
    FeatureStore.create_or_open(other.path, replace(other.settings(12), hop=5), classes=(), software={})
    for store, target, asked, views, message in (
        (full.path, out, FitSettings(dim=4, quantize=True), (), "dim=4"),
        (full.path, out, FitSettings(dim=3), (), "quantize=False"),
        (out, nowhere, BOTH, (), "reduced already"),
        (full.path, full.path, BOTH, (), "in place"),
        (full.path, nowhere, None, (), "none asked for"),
        (full.path, nowhere, BOTH, ("mirror",), "lacks a view"),
        (other.path, nowhere, BOTH, (), "no match to reduce"),
        (full.path, other.path, BOTH, (), "full rows"),
    ):
        with pytest.raises(InputError, match=message):
            reduce_store(store, target, asked=asked, views=views)
    assert not nowhere.exists()
    for settings, given in ((reduction_of(out).settings, None), (full.settings, reduction_of(out))):
        with pytest.raises(InputError, match="do not go together"):
            FeatureStore.create_or_open(nowhere, settings, classes=(), software={}, reduction=given)
    with pytest.raises(InputError, match=r"(?s)reduction.*bas cache pca"):
        FeatureStore.create_or_open(out, full.settings, classes=full.classes, software={})


def test_rows_of_other_settings_are_refused_by_field(full: FeatureStore, out: Path, tmp_path: Path) -> None:
    reduced(full, out)
    other = tmp_path / "other"
    shutil.copytree(full.path, other)
    changed = replace(full.settings, hop=5)
    document = json.loads((other / "zarr.json").read_text())
    document["attributes"]["bas"] |= {"settings": changed.to_json(), "settings_key": changed.key()}
    (other / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="these differ: hop"):
        reduce_store(other, out)


def test_a_store_with_the_older_group_of_arrays_still_opens(full: FeatureStore, out: Path) -> None:
    reduced(full, out, views=("identity",))
    wanted = reduction_of(out)
    (out / REDUCTION_FILE).unlink()
    record = {"format": 1, "source": wanted.source.to_json(), "about": dict(wanted.about)}
    for name, array in wanted.arrays.items():
        chunk = out / "reduction" / name / "c" / "/".join("0" * array.ndim)
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(array.astype("<f4").tobytes())
    document = {"attributes": {"bas_reduction": record}, "node_type": "group", "zarr_format": 3}
    (out / "reduction" / "zarr.json").write_text(json.dumps(document))
    assert reduction_of(out).name == wanted.name
    assert FeatureStore.open(out).matches() == full.matches()
    chunk.write_bytes(b"12345678")
    with pytest.raises(InputError, match="damaged"):
        _ = FeatureStore.open(out).reduction


def rewritten(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The file with another record."""
    from safetensors.numpy import save

    found = reduction_of(out)
    record = {"format": 1, "source": found.source.to_json(), "about": {}}
    change(record)
    (out / REDUCTION_FILE).write_bytes(save(found.arrays, {"reduction": json.dumps(record)}))


@pytest.mark.parametrize(
    "harm",
    [
        lambda out: (out / REDUCTION_FILE).unlink(),
        lambda out: (out / REDUCTION_FILE).write_bytes((out / REDUCTION_FILE).read_bytes()[:-4]),
        lambda out: (out / REDUCTION_FILE).write_bytes((out / REDUCTION_FILE).read_bytes()[:-4] + bytes(4)),
        lambda out: (out / REDUCTION_FILE).write_bytes(b"\xff" * 64),
        lambda out: rewritten(out, lambda record: record["source"].update(stride=2)),
        lambda out: rewritten(out, lambda record: record["source"].update(dim=11)),
        lambda out: rewritten(out, lambda record: record.update(format=2)),
        lambda out: rewritten(out, lambda record: record.update(source=[])),
    ],
)
def test_damaged_components_are_refused_and_found(
    full: FeatureStore, out: Path, harm: Callable[[Path], object]
) -> None:
    reduced(full, out, views=("identity",))
    harm(out)
    with pytest.raises(InputError, match="reduction"):
        _ = FeatureStore.open(out).reduction
    assert [finding.severity for finding in verify(out)] == ["error"]


def test_the_file_is_found_by_name_and_refused_where_it_does_not_belong(
    full: FeatureStore, reduction: Reduction, tmp_path: Path
) -> None:
    write_reduction(tmp_path, reduction)
    read = read_reduction(tmp_path, reduction.settings)
    assert read is not None
    assert read.name == reduction.name
    assert read_reduction(tmp_path, reduction.source) is None
    with pytest.raises(InputError, match="damaged"):
        read_reduction(tmp_path, replace(reduction.settings, reduction="pca-3:" + "0" * 64))
    write_reduction(full.path, reduction)
    assert REDUCTION_FILE in verify(full.path)[0].message


def test_a_match_that_cannot_be_read_does_not_stop_the_others(full: FeatureStore, out: Path) -> None:
    reduced(full, out, views=("identity",))
    shutil.rmtree(out / "m2")
    shutil.rmtree(out / "m3")
    shard = full.path / "m2" / "features" / "identity" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-5])
    summary = reduce_store(full.path, out, views=("identity",))
    assert summary.counts == {"already there": 3, "failed": 1, "reduced": 1}
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
    printed = capsys.readouterr().out
    assert "already there" in printed
    assert "variance kept" in printed
    assert bas("cache", "info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reduction"]["source"]["dim"] == 12


@pytest.mark.parametrize(
    "options",
    [("--dim", "many"), ("--quantize", "int4", "--dim", 3), ("--fit-split", "all"), ("--fit-split", "valid"), ()],
)
def test_options_that_cannot_be_are_an_input_error(bas: Cli, full: FeatureStore, out: Path, options: Any) -> None:
    assert bas("cache", "pca", full.path, "--out", out, *options) == 2
    assert not out.exists()
