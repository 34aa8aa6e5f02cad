"""Stores read back: by us, by zarr-python, by tensorstore; foreign, damaged and hostile ones."""

import json
import multiprocessing
import pickle
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, ZstdCodec

from bas.cache.match import info
from bas.cache.rows import MappedRows
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.events import Event

ROOT = Path(__file__).resolve().parents[2]
LONG_ID = "england_efl/2019-2020/2019-10-01 - Léeds United - West Bromwich"


def by_tensorstore(folder: Path) -> Any:
    return (
        tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}})
        .result()
        .read()
        .result()
    )


@hypothesis_settings(max_examples=25)
@given(
    num_rows=st.sampled_from([1, 2, 255, 256, 257, 512, 1000]),
    dim=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=8),
    dtype=st.sampled_from(["float16", "uint8"]),
)
def test_every_reader_gets_what_was_appended(
    make_maker: Callable[[Path], Any], num_rows: int, dim: int, sizes: list[int], dtype: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        maker = make_maker(Path(folder))
        store = maker.store(dim, dtype=dtype)
        rows = (maker.rows(num_rows, dim) * 50).astype("uint8" if dtype == "uint8" else "float32")
        valid = np.arange(num_rows) % 3 > 0
        pts = np.arange(num_rows) * 512 + 7
        with store.writer(
            LONG_ID, num_rows=num_rows, pts_ticks=pts, match_meta=maker.meta(), provenance={}, journal_seconds=0
        ) as writer:
            start, turn = 0, 0
            while start < num_rows:
                stop = min(num_rows, start + max(sizes[turn % len(sizes)], turn > 20))
                writer.append({"identity": rows[start:stop]}, valid[start:stop])
                assert writer.rows_done == (stop // 256 * 256 if stop % 256 == 0 else writer.rows_done)
                start, turn = stop, turn + 1
            writer.commit()
        wanted, match = rows.astype(dtype), maker.path / LONG_ID
        mapped = store.rows(LONG_ID)
        assert mapped.shape == (num_rows, dim)
        for read in (mapped[:], zarr.open_group(maker.path, mode="r")[f"{LONG_ID}/features/identity"]):
            np.testing.assert_array_equal(np.asarray(read), wanted)
        np.testing.assert_array_equal(by_tensorstore(match / "features" / "identity"), wanted)
        for name, values, ours in (("pts", pts, store.pts(LONG_ID)), ("valid", valid, store.valid(LONG_ID))):
            np.testing.assert_array_equal(ours, values)
            np.testing.assert_array_equal(zarr.open_array(match / name, mode="r")[:], values)
            np.testing.assert_array_equal(by_tensorstore(match / name), values)


def test_what_is_kept_with_a_match(maker: Any) -> None:
    maker.match(LONG_ID, match_meta=maker.meta(extra={"note": [1]}, fps=Fraction(30000, 1001)))
    maker.match("b", match_meta=maker.meta(labels=None, split=None))
    store = FeatureStore.open(maker.path)
    assert store.matches() == ["b", LONG_ID]
    match = store.match(LONG_ID)
    assert (match.num_rows, match.meta.fps, match.meta.time_base) == (600, Fraction(30000, 1001), Fraction(1, 12800))
    assert match.meta == maker.meta(extra={"note": [1]}, fps=Fraction(30000, 1001))
    assert match.meta.events() == [Event(4000, "PASS", team="home")]
    assert store.match("b").meta.events() is None
    assert store.views(LONG_ID) == ["identity"]
    assert store.views("nothing here") == []
    table = info(store)
    assert [(line.match, line.split, line.events) for line in table.matches] == [("b", "", None), (LONG_ID, "train", 1)]
    assert table.matches[0].megabytes == pytest.approx(600 * 6 * 2 / 1e6)
    assert json.loads(json.dumps(table.to_json()))["matches"][0]["invalid_share"] == 0
    assert table.matches[0].minutes == pytest.approx(600 / 25 / 60)


def test_rows_are_views_and_cannot_be_changed(maker: Any) -> None:
    wanted = maker.match()
    rows = maker.store().rows("a")
    assert rows[3:9].base is not None
    assert not rows[3:9].flags.writeable
    assert np.shares_memory(rows[3:9], rows[0:600])
    np.testing.assert_array_equal(rows[590:700], wanted[590:])
    np.testing.assert_array_equal(rows.take([5, 1, 599, 5]), wanted[[5, 1, 599, 5]])
    with pytest.raises(IndexError):
        rows.take([600])
    for start, stop in ((0, 600), (10, 11), (500, 10_000), (7, 7), (-5, 3), (9, 2)):
        rows.willneed(start, stop)


def test_nothing_in_a_store_tells_when_or_where(maker: Any, tree: Any) -> None:
    maker.match(LONG_ID)
    first = tree(maker.path)
    shutil.rmtree(maker.path)
    maker.match(LONG_ID)
    assert tree(maker.path) == first
    assert not any(str(maker.path).encode() in (data or b"") for data in first.values())


def test_zarr_sees_the_whole_hierarchy(maker: Any) -> None:
    maker.match(LONG_ID)
    root = zarr.open_group(maker.path, mode="r")
    assert [name for name, _ in root.members(max_depth=None) if name.endswith("identity")] == [
        f"{LONG_ID}/features/identity"
    ]
    assert root.attrs["bas"]["settings_key"] == maker.settings().key()  # type: ignore[index,call-overload]


@pytest.mark.parametrize("given_path", ["missing", "file", "empty", "zarr", "format", "settings", "text"])
def test_what_is_not_a_store_is_refused(maker: Any, tmp_path: Path, given_path: str) -> None:
    path = tmp_path / given_path
    if given_path == "file":
        path.write_text("x")
    elif given_path != "missing":
        path.mkdir()
    if given_path == "zarr":
        zarr.open_group(path, mode="w")
    if given_path == "text":
        (path / "zarr.json").write_text("{")
    if given_path in ("format", "settings"):
        maker.store()
        metadata = json.loads((maker.path / "zarr.json").read_text())
        bas = metadata["attributes"]["bas"]
        bas.update({"format": 9} if given_path == "format" else {"settings": bas["settings"] | {"hop": 7}})
        (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError):
        FeatureStore.open(path)


def test_other_settings_classes_and_folders_are_refused(maker: Any, tmp_path: Path) -> None:
    maker.store()
    with pytest.raises(InputError, match="these differ: hop"):
        maker.store(hop=7)
    with pytest.raises(InputError, match="other classes"):
        FeatureStore.create_or_open(maker.path, maker.settings(), classes=("X",), software={})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(InputError, match="other things"):
        FeatureStore.create_or_open(tmp_path / "photos", maker.settings(), classes=(), software={})
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_missing_matches_and_views_are_named(maker: Any) -> None:
    maker.match()
    store = maker.store()
    for call in (store.match, store.rows, store.pts, store.valid):
        with pytest.raises(InputError, match="no match 'b'"):
            call("b")
    with pytest.raises(InputError, match="no view 'hflip'"):
        store.rows("a", view="hflip")
    with pytest.raises(InputError, match="leaves its folder"):
        store.rows("../a")


FOREIGN: dict[str, dict[str, Any]] = {
    "zstd": {"chunks": (100, 6), "compressors": ZstdCodec()},
    "chunks": {"chunks": (256, 6), "compressors": None},
    "columns": {"chunks": (256, 3), "shards": (768, 6), "compressors": None},
    "two shards": {"chunks": (128, 6), "shards": (384, 6), "compressors": None},
    "sharded zstd": {"chunks": (256, 6), "shards": (768, 6), "compressors": ZstdCodec()},
    "big endian": {"chunks": (256, 6), "serializer": BytesCodec(endian="big"), "compressors": None},
}


@pytest.mark.parametrize("layout", FOREIGN)
def test_layouts_of_other_programs_are_refused_by_name(maker: Any, layout: str) -> None:
    rows = maker.match()
    for name, values in (("features/identity", rows), ("pts", np.arange(600))):
        folder, options = maker.path / "a" / name, dict(FOREIGN[layout])
        shutil.rmtree(folder)
        if values.ndim == 1:
            options = {"chunks": (100,), "compressors": ZstdCodec()}
        zarr.create_array(folder, shape=values.shape, dtype=values.dtype, filters=None, **options)[:] = values
    for read in (maker.store().rows, maker.store().pts):
        with pytest.raises(InputError, match=r"not written by bas[\s\S]*cure: +bas cache import"):
            read("a")


def test_a_shard_with_chunks_in_another_order_is_refused_by_name(maker: Any) -> None:
    maker.match(num_rows=1024)
    size = 256 * 12
    data = maker.shard.read_bytes()
    index = np.array([[3 * size - n * size, size] for n in range(4)], "<u8").tobytes()
    chunks = [data[n * size : (n + 1) * size] for n in range(4)]
    maker.shard.write_bytes(b"".join(chunks[::-1]) + index + google_crc32c.value(index).to_bytes(4, "little"))
    with pytest.raises(InputError, match="not written by bas"):
        maker.store().rows("a")


def test_rows_that_zarr_wrote_in_our_layout_are_mapped(maker: Any) -> None:
    wanted = maker.match()
    folder = maker.path / "a" / "features" / "identity"
    shutil.rmtree(folder)
    zarr.create_array(
        folder, shape=(600, 6), dtype="float16", filters=None, chunks=(256, 6), shards=(768, 6), compressors=None
    )[:] = wanted
    np.testing.assert_array_equal(maker.store().rows("a")[:], wanted)


def length_of(rows: MappedRows) -> tuple[int, float]:
    """Of a task in a process that is spawned."""
    return len(rows), float(rows[300:301].sum())


def test_rows_go_to_spawned_processes(maker: Any) -> None:
    wanted = maker.match()
    rows = maker.store().rows("a")
    data = pickle.dumps(rows)
    assert len(data) < 2_000, "path and geometry, not the rows"
    np.testing.assert_array_equal(pickle.loads(data)[:], wanted)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(length_of, rows).result() == length_of(rows)
    maker.shard.write_bytes(maker.shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        pickle.loads(data)


def test_damaged_shards_are_never_served(maker: Any) -> None:
    maker.match()
    good = maker.shard.read_bytes()
    index_bytes = 16 * 3 + 4
    for place in range(len(good) - index_bytes, len(good)):
        maker.shard.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            maker.store().rows("a")
    for data in (b"", good[:10], good[:-1], good[:-4], good[:1000] + good[1012:], good + b"x", b"x" * 12 + good):
        maker.shard.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            maker.store().rows("a")
    maker.shard.unlink()
    with pytest.raises(InputError, match=r"(?s)damaged.*bas cache verify"):
        maker.store().rows("a")


@pytest.mark.parametrize("place", ["c/0/0", "c", "zarr.json", "."])
def test_links_out_of_the_store_are_refused(maker: Any, tmp_path: Path, place: str) -> None:
    maker.match()
    folder = maker.path / "a" / "features" / "identity"
    path = folder / place
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(InputError):
        maker.store().rows("a")


def test_a_linked_match_is_not_listed(maker: Any, tmp_path: Path) -> None:
    maker.match("x/a")
    (maker.path / "x").rename(tmp_path / "outside")
    (maker.path / "x").symlink_to(tmp_path / "outside")
    store = FeatureStore.open(maker.path)
    assert store.matches() == []
    with pytest.raises(InputError, match="leads out of the store"):
        store.match("x/a")


def test_wrong_pts_are_never_served(maker: Any) -> None:
    maker.match()
    path = maker.path / "a" / "pts" / "c" / "0"
    good = path.read_bytes()
    for data in (good[:-1], good + b"x", good[:50] + b"x" + good[51:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            maker.store().pts("a")
    path.unlink()
    with pytest.raises(InputError, match="damaged"):
        maker.store().pts("a")
