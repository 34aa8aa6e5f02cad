"""Folders of OpenTAD and ActionFormer: when each row stands, what becomes of segments and subsets, what is refused."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bas.cache.convert.flat import Rate
from bas.cache.convert.formats import import_source
from bas.cache.convert.importing import ImportSummary
from bas.cache.convert.request import FindFolders, ImportRequest, one_instant
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.events import Event

Import = Callable[..., ImportSummary]
SECONDS = 40.0
"""Of video a: 1000 frames at 25, 247 rows of stride 4 that see 16 frames each."""


def rows(num_rows: int, channels: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(num_rows, channels)).astype(np.float32)


def entry(*segments: tuple[float, float, str], subset: str = "training", **more: Any) -> dict[str, Any]:
    records = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"subset": subset, "annotations": records} | more


@pytest.fixture
def annotate(tmp_path: Path) -> Callable[[dict[str, Any]], None]:
    """Writes the annotation file."""
    return lambda videos: (tmp_path / "flat" / "anno.json").write_text(json.dumps({"database": videos}))  # type: ignore[return-value]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    np.save(folder / "a.npy", rows(247))
    np.savez_compressed(folder / "b.npz", feats=rows(100, seed=1))
    return folder


@pytest.fixture
def bring(root: Path, tmp_path: Path, finder: FindFolders) -> Import:
    def run(**options: Any) -> ImportSummary:
        fields: dict[str, Any] = {"root": root, "fps": "25", "feature_stride": 4, "num_frames": 16} | options
        return import_source(ImportRequest(store=tmp_path / "s", **fields), finder)

    return run


def test_rows_labels_and_splits(bring: Import, annotate: Callable[[Any], None], tmp_path: Path) -> None:
    annotate(
        {
            "a": entry((10.0, 12.0, "DRIVE"), (4.04, 4.04, "PASS"), duration=SECONDS),
            "b": entry(subset="Validation"),
            "absent": entry((1, 2, "SHOT"), subset="testing"),
        }
    )
    summary = bring()
    assert summary.notes == ("1 annotated video(s) without features: absent",)
    store = FeatureStore.open(tmp_path / "s")
    assert verify(store.path) == []
    assert (store.settings.fps, store.classes) == ("25/4", ("DRIVE", "PASS", "SHOT"))
    first = store.match("a")
    assert (first.num_rows, first.meta.split, store.match("b").meta.split) == (250, "train", "valid")
    np.testing.assert_array_equal(store.rows("a")[2:249], rows(247).astype(np.float16))
    assert list(np.flatnonzero(~store.valid("a"))) == [0, 1, 249]
    assert first.meta.events() == [Event(4040, "PASS"), Event(11_000, "DRIVE")]
    assert store.match("b").meta.labels == ()


def test_each_row_stands_when_its_frames_are_half_over(bring: Import, tmp_path: Path) -> None:
    bring(num_frames=11)  # row t stands at (4 t + 5.5) / 25 s, 1.5 frames after step t + 1
    store = FeatureStore.open(tmp_path / "s")
    meta, pts = store.match("a").meta, store.pts("a")
    assert meta.extra == {"first_row": 1, "first_row_seconds": "11/50", "later_than_grid_ms": 60.0}
    stands = [(int(tick) - meta.origin_ticks) * meta.time_base for tick in pts]
    assert stands[1:4] == [Fraction(11, 50), Fraction(19, 50), Fraction(27, 50)]
    assert stands[247] == Fraction(4 * 246 * 2 + 11, 50)


@pytest.mark.parametrize(
    ("fps", "stride", "num_frames", "first", "later"),
    [
        (25, 4, 16, 2, 0),
        (30, 4, 16, 2, 0),
        (25, 16, 16, 0, Fraction(8, 25)),
        (25, 8, 16, 1, 0),
        (25, 4, 11, 1, Fraction(3, 50)),
        (25, 4, 15, 2, Fraction(-1, 50)),
        (25, 1, None, 0, 0),
        (25, 4, None, 0, 0),
        (25, 1, 1, 0, Fraction(1, 50)),
        (Fraction(30000, 1001), 1, 64, 32, 0),
    ],
)
def test_the_nearest_step_and_what_is_left(fps: Any, stride: int, num_frames: Any, first: int, later: Any) -> None:
    rate = Rate(fps=Fraction(fps), stride_frames=stride, num_frames=num_frames)
    assert (rate.first_step, rate.later_seconds) == (first, later)
    assert abs(rate.later_seconds) <= Fraction(stride, 2) / fps
    assert rate.grid.seconds(rate.first_step) + rate.later_seconds == Fraction(num_frames or 0, 2) / fps


@pytest.mark.parametrize(("instant", "ms"), [(None, 11_000), ("start", 10_000), ("centre", 11_000), ("end", 12_000)])
def test_the_instant_of_a_segment(
    bring: Import, annotate: Callable[[Any], None], tmp_path: Path, instant: str | None, ms: int
) -> None:
    annotate({"a": entry((10.0, 12.0, "DRIVE"))})
    summary = bring(instant=one_instant(instant))
    assert FeatureStore.open(tmp_path / "s").match("a").meta.events() == [Event(ms, "DRIVE")]
    assert summary.notes == ("1 video(s) not in anno.json, unlabelled: b",)
    with pytest.raises(InputError, match="--instant is not known"):
        one_instant("middle")


def test_classes_follow_the_numbers_of_the_labels(bring: Import, annotate: Callable[[Any], None]) -> None:
    video = entry((1, 2, "A"), (1, 3, "B"))
    for record, number in zip(video["annotations"], (1, 0), strict=True):
        record["label_id"] = number
    annotate({"a": video})
    assert FeatureStore.open(bring().store).classes == ("B", "A")


def test_the_frame_rate_may_be_that_of_the_annotations(bring: Import, annotate: Callable[[Any], None]) -> None:
    annotate({"a": entry(fps=30.0), "b": entry(fps=25)})
    with pytest.raises(InputError, match="the videos differ in frame rate"):
        bring(fps=None)
    annotate({"a": entry(fps=30.0), "b": entry()})
    assert bring(fps=None).settings.fps == "15/2"
    annotate({"a": entry()})
    with pytest.raises(InputError, match="frame rate of the videos is not known"):
        bring(fps=None)


def test_rows_that_do_not_fit_the_video(bring: Import, annotate: Callable[[Any], None], root: Path) -> None:
    (root / "b.npz").unlink()
    annotate({"a": entry(duration=SECONDS)})
    with pytest.raises(InputError, match="rows and length of the video do not fit") as caught:
        bring(fps="30", feature_stride=1)
    assert "--feature-stride" in caught.value.cure
    np.save(root / "a.npy", np.ascontiguousarray(rows(247).T))
    with pytest.raises(InputError, match="do not fit") as caught:
        bring()
    assert caught.value.cure == "the file holds (channels, rows): --transpose"
    assert bring(transpose=True).results[0].rows == 250


def test_files_of_channels_first_are_guessed_where_they_differ(bring: Import, root: Path) -> None:
    np.save(root / "a.npy", rows(6, 90))
    np.savez(root / "b.npz", feats=rows(6, 80))
    with pytest.raises(InputError, match="matches differ in channels") as caught:
        bring()
    assert "--transpose" in caught.value.cure


@pytest.mark.parametrize("kind", ["one file", "file per video"])
def test_hdf5(bring: Import, annotate: Callable[[Any], None], root: Path, tmp_path: Path, kind: str) -> None:
    for path in sorted(root.iterdir()):
        path.unlink()
    for number, name in enumerate(("a", "b")):
        with h5py.File(root / ("all.h5" if kind == "one file" else f"{name}.hdf5"), "a") as file:
            file[name if kind == "one file" else "feats"] = rows(50, seed=number)
    annotate({"a": entry((1, 2, "PASS")), "b": entry((1, 2, "PASS"))})
    options = {"root": root / "all.h5"} if kind == "one file" else {}
    assert [result.match for result in bring(**options).results] == ["a", "b"]
    store = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.rows("b")[2:], rows(50, seed=1).astype(np.float16))
    assert store.match("b").meta.events() == [Event(1500, "PASS")]


def test_a_video_in_a_folder_is_found_by_its_last_name(
    bring: Import, annotate: Callable[[Any], None], root: Path
) -> None:
    (root / "day 1").mkdir()
    (root / "a.npy").rename(root / "day 1" / "a.npy")
    annotate({"a": entry((1, 2, "PASS"))})
    results = {result.match: result for result in bring().results}
    assert (results["day 1/a"].events, results["b"].events) == (1, None)


def test_a_name_that_is_no_id_fails_alone(bring: Import, root: Path) -> None:
    (root / "features").mkdir()
    np.save(root / "features" / "d.npy", rows(9))
    results = {result.match: result.status for result in bring().results}
    assert results == {"a": "imported", "b": "imported", "features/d": "failed"}


def test_uint8_is_exact(bring: Import, root: Path, tmp_path: Path) -> None:
    array = np.arange(256, dtype=np.uint8).reshape(-1, 4)
    np.save(root / "a.npy", array)
    (root / "b.npz").unlink()
    bring(num_frames=None)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("a")[:], array)


def test_a_second_import_leaves_alone_what_is_there(bring: Import, root: Path) -> None:
    bring()
    assert {result.status for result in bring().results} == {"already there"}
    np.save(root / "a.npy", rows(247, seed=5))
    messages = {result.match: result.message for result in bring().results}
    assert "stored from other files" in messages["a"]
    assert messages["b"] == ""
    assert "stored from other files or with another offset" in bring(num_frames=15).results[1].message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"database": []}, "nothing|unlabelled|no annot"),
        ({"database": {"a": []}}, "a: not an object"),
        ({"database": {"a": {"subset": "tuning"}}}, "subset is not known"),
        ({"database": {"a": {"annotations": {}}}}, "annotations are no list"),
        ({"database": {"a": entry((2, 1, "A"))}}, "ends before it starts"),
        ({"database": {"a": entry((-2, 1, "A"))}}, r"annotations\[0\]: not usable"),
        ({"database": {"a": entry((float("nan"), 1, "A"))}}, r"annotations\[0\]: not usable"),
        ({"database": {"a": entry((1, 2, ""))}}, r"annotations\[0\]: not usable"),
        ({"database": {"a": entry((True, 2, "A"))}}, r"annotations\[0\]: not usable"),
        ({"database": {"a": entry(duration="long")}}, "duration: not usable"),
        ({"database": {"a": entry(fps=1e9)}}, "fps: not usable"),
        ({"database": {"x": entry()}}, "names no video at hand"),
    ],
)
def test_annotations_that_cannot_be_used(bring: Import, root: Path, document: Any, message: str) -> None:
    (root / "anno.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        bring(labels="anno.json")


def test_several_annotation_files(bring: Import, annotate: Callable[[Any], None], root: Path) -> None:
    annotate({"a": entry()})
    (root / "other.json").write_text(json.dumps({"database": {"b": entry(subset="test")}}))
    (root / "unrelated.json").write_text("[]")
    with pytest.raises(InputError, match="several annotation files"):
        bring()
    assert [result.split for result in bring(labels="other.json").results] == ["", "test"]
