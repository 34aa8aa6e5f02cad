"""`bas cache export`: arrays as they are, what other programs read, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bas.cache.convert.exporting import H5_NAME, MATCH_NAME, export_store
from bas.cache.reduction import REDUCTION_FILE
from bas.cache.store import FeatureStore
from bas.errors import InputError

Cli = Callable[..., int]


@pytest.fixture
def store(maker: Any) -> FeatureStore:
    maker.match("liga/a", num_rows=300, views=("identity", "hflip"))
    maker.match("b", num_rows=40, match_meta=maker.meta(split="test", labels=None))
    return FeatureStore.open(maker.path)


@pytest.mark.parametrize("container", ["npy", "h5"])
def test_arrays_labels_and_times(store: FeatureStore, tmp_path: Path, container: Any) -> None:
    out = tmp_path / "out"
    assert export_store(store, out, container=container).counts == {"exported": 2}
    arrays: dict[str, Any] = {}
    if container == "npy":
        arrays = {path.stem: np.load(path) for path in (out / "liga" / "a").glob("*.npy")}
    else:
        with h5py.File(out / "liga" / "a" / H5_NAME) as file:
            arrays = {name: file[name][()] for name in ("pts", "valid", "times_ms")}
            arrays |= {view: file[f"features/{view}"][()] for view in ("identity", "hflip")}
    for view in ("identity", "hflip"):
        np.testing.assert_array_equal(arrays[view], store.rows("liga/a", view)[:])
        assert arrays[view].dtype == np.float16
    np.testing.assert_array_equal(arrays["pts"], store.pts("liga/a"))
    np.testing.assert_array_equal(arrays["valid"], store.valid("liga/a"))
    meta = store.match("liga/a").meta
    wanted = [float(1000 * (int(tick) - meta.origin_ticks) * meta.time_base) for tick in arrays["pts"]]
    np.testing.assert_allclose(arrays["times_ms"], wanted)
    labels = json.loads((out / "liga" / "a" / "Labels-ball.json").read_text())
    assert labels["annotations"] == [dict(label) for label in meta.labels or ()]
    assert not (out / "b" / "Labels-ball.json").exists()
    assert json.loads((out / "splits.json").read_text()) == {"test": ["b"], "train": ["liga/a"]}
    assert (out / "classes.txt").read_text() == "PASS\nDRIVE\n"
    database = json.loads((out / "annotations.json").read_text())["database"]
    assert database["liga/a/identity"]["annotations"] == [{"segment": [3.5, 4.5], "label": "PASS", "label_id": 0}]


def test_again_does_nothing_and_what_was_cut_off_is_begun_anew(store: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_store(store, out, matches=["b"]).counts == {"exported": 1}
    (out / ".export-1" / "left").mkdir(parents=True)
    assert export_store(store, out).counts == {"already there": 1, "exported": 1}
    (out / "b" / MATCH_NAME).unlink()
    assert export_store(store, out).counts == {"failed": 1, "already there": 1}


def test_what_cannot_be_exported(store: FeatureStore, maker: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_store(store, out, splits=["test"])
    for options, message in (
        ({"container": "h5"}, "another form"),
        ({"matches": ["z"]}, "no match 'z'"),
        ({"splits": ["valid"]}, "no match to export"),
    ):
        with pytest.raises(InputError, match=message):
            export_store(store, out, **options)
    with pytest.raises(InputError, match="other things"):
        export_store(store, maker.path)
    assert "no view mirror" in export_store(store, out, views=["mirror"]).results[0].message


def test_rows_that_do_not_fit_their_hash_are_not_exported(store: FeatureStore, maker: Any, tmp_path: Path) -> None:
    shard = maker.path / "b" / "features" / "identity" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    summary = export_store(store, tmp_path / "out")
    assert summary.counts == {"failed": 1, "exported": 1}
    assert "do not fit their sha256" in summary.results[0].message
    assert not (tmp_path / "out" / "b").exists()


def test_reduced_rows_go_as_stored_with_their_components(maker: Any, fill_plane: Any, tmp_path: Path) -> None:
    fill_plane(maker)
    reduced = FeatureStore.open(maker.reduced())
    export_store(reduced, tmp_path / "out", views=["identity"])
    exported = np.load(tmp_path / "out" / "m0" / "identity.npy")
    np.testing.assert_array_equal(exported, reduced.rows("m0")[:])
    assert exported.dtype == np.uint8
    assert (tmp_path / "out" / REDUCTION_FILE).read_bytes() == (reduced.path / REDUCTION_FILE).read_bytes()
    assert "row * scale + offset" in json.loads((tmp_path / "out" / "bas-export.json").read_text())["decode"]


def test_the_command(bas: Cli, capsys: pytest.CaptureFixture[str], store: FeatureStore, tmp_path: Path) -> None:
    command = ("cache", "export", store.path, "--out", tmp_path / "out")
    assert bas(*command, "--split", "train", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [(match["match"], match["status"]) for match in record["matches"]] == [("liga/a", "exported")]
    assert bas(*command) == 0
    assert bas(*command, "--format", "csv") == 2
    assert bas(*command, "--split", "trains") == 2
