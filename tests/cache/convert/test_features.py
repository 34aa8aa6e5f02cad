"""Features of other programs: SoccerNet's halves, and the folders of OpenTAD and ActionFormer."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bas.cache.convert.flat import Rate
from bas.cache.convert.formats import find_kind
from bas.cache.convert.halves import known_rate
from bas.cache.convert.importing import DERIVED, ImportOptions
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.events import Event
from bas.workers import Summary

NAME = "ResNET_TF2_PCA512"
Import = Callable[..., Summary]
SECONDS = 40.0
"""Of video a: 1000 frames at 25, 247 rows of stride 4 that see 16 frames each."""


def half_rows(num_rows: int, half: int, channels: int = 6) -> Any:
    """Half, row and channel in each value; exact in float16."""
    return (100 * half + np.arange(num_rows)[:, None] + np.arange(channels) / 8).astype(np.float32)


def rows(num_rows: int, channels: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(num_rows, channels)).astype(np.float32)


# --- SoccerNet: 1_NAME.npy and 2_NAME.npy


@pytest.fixture
def games(tmp_path: Path) -> Path:
    """One game of 40 and 50 rows."""
    folder = tmp_path / "games" / "game"
    folder.mkdir(parents=True)
    for half, length in ((1, 40), (2, 50)):
        np.save(folder / f"{half}_{NAME}.npy", half_rows(length, half))
    return tmp_path / "games"


def test_halves_lie_on_the_clock_of_the_match(
    bring: Import, games: Path, tmp_path: Path, write_labels: Callable[..., None]
) -> None:
    write_labels(games / "game" / "Labels-v2.json", (1, 0, "PASS"), (1, 19_960, "DRIVE"), (2, 1_250, "PASS"))
    (result,) = bring(games).results
    assert (result.status, result.num_rows, result.columns["offset"]) == ("imported", 90, f"40 {DERIVED}")
    store = FeatureStore.open(tmp_path / "s")
    assert verify(store.path) == []
    assert (store.settings.backbone, store.settings.weights, store.settings.fps) == ("import:features", NAME, "2")
    np.testing.assert_array_equal(store.rows("game")[:], np.concatenate([half_rows(40, 1), half_rows(50, 2)]))
    match = store.match("game")
    assert match.meta.events() == [Event(0, "PASS"), Event(19_960, "DRIVE"), Event(21_250, "PASS")]
    assert [match.meta.grid.frame(event.position_ms) for event in match.meta.events() or ()] == [0, 39, 42]


@pytest.mark.parametrize(
    ("name", "rate"),
    [("ResNET_TF2", "2"), ("ResNET_25fps_TF2", "25"), ("baidu_soccer_embeddings", "1"), ("mine", None)],
)
def test_rates_known_by_name(name: str, rate: str | None) -> None:
    assert known_rate(name) == rate


def test_a_rate_that_is_not_known_must_be_given(bring: Import, games: Path) -> None:
    for path in sorted((games / "game").iterdir()):
        path.rename(path.with_name(path.name.replace(NAME, "mine")))
    with pytest.raises(InputError, match="rate of mine is not known"):
        bring(games)
    assert bring(games, fps="25").record["settings"]["fps"] == "25"
    assert bring(games).results[0].status == "already there"


@pytest.mark.parametrize(
    ("options", "named", "row", "later_ms", "where"),
    [
        ({"offset": "2700"}, None, 5400, 0.0, "--offset"),
        ({"offset": "20.3"}, {"game": 10_000}, 41, -200.0, "--offset"),
        ({"offset": "20.25"}, None, 40, 250.0, "--offset"),
        ({}, {"game": {"half1_offset_frames": 750}}, 60, 0.0, "o.json"),
        ({}, {"game": {"half1_offset_ms": 30_240, "half1_offset_frames": 9}}, 60, 240.0, "o.json"),
    ],
)
def test_where_the_second_half_begins(
    bring: Import, games: Path, tmp_path: Path, options: Any, named: Any, row: int, later_ms: float, where: str
) -> None:
    if named:
        (tmp_path / "o.json").write_text(json.dumps({"games": named}))
        options = options | {"offsets": tmp_path / "o.json"}
    (result,) = bring(games, **options).results
    assert (result.columns["offset"], result.num_rows) == (f"{row:,} {where}", row + 50)
    store = FeatureStore.open(tmp_path / "s")
    assert store.match("game").meta.extra["half2_later_ms"] == pytest.approx(later_ms)
    assert list(np.flatnonzero(~store.valid("game"))) == list(range(40, row))
    np.testing.assert_array_equal(store.rows("game")[row : row + 2], half_rows(2, 2))


def test_a_last_part_of_a_step_belongs_to_the_second_half(bring: Import, games: Path, tmp_path: Path) -> None:
    bring(games, offset="19")  # 40 rows of half 1 reach to 20 s
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("game")[36:40][:, 0], [136, 137, 200, 201])
    with pytest.raises(InputError, match="would begin inside the first") as caught:
        bring(games, offset="18.5")
    assert "row 37; half 1 has 40 rows" in str(caught.value.got)


def test_labels_just_after_the_last_row_get_one(
    bring: Import, games: Path, tmp_path: Path, write_labels: Callable[..., None]
) -> None:
    write_labels(games / "game" / "Labels-v2.json", (1, 20_100, "PASS"), (2, 25_900, "PASS"))
    (result,) = bring(games).results
    assert (result.columns["offset"], result.num_rows) == ("41 derived", 93)
    assert list(np.flatnonzero(~FeatureStore.open(tmp_path / "s").valid("game"))) == [40, 91, 92]
    write_labels(games / "game" / "Labels-v2.json", (2, 26_500, "PASS"))
    with pytest.raises(InputError, match="after the last row"):
        bring(games, model="another")


def test_features_are_chosen_by_name(bring: Import, games: Path, tmp_path: Path) -> None:
    for half in (1, 2):
        np.save(games / "game" / f"{half}_baidu_soccer_embeddings.npy", half_rows(20, half, channels=3).T)
    with pytest.raises(InputError, match="several features") as caught:
        bring(games)
    assert (caught.value.got, caught.value.cure) == (f"{NAME}, baidu_soccer_embeddings", f"--features {NAME}")
    with pytest.raises(InputError, match="no features 'x'"):
        bring(games, features="x")
    settings = bring(games, features="baidu_soccer_embeddings", transpose=True).record["settings"]
    assert (settings["dim"], settings["fps"], settings["weights"]) == (3, "1", "baidu_soccer_embeddings")
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("game")[:20], half_rows(20, 1, channels=3))
    with pytest.raises(InputError, match="these differ: "):
        bring(games, features=NAME)
    with pytest.raises(InputError, match=r"no events.json in any match's folder"):
        bring(games, features=NAME, labels="events.json")


def test_what_cannot_be_joined(bring: Import, games: Path) -> None:
    np.save(games / "game" / f"2_{NAME}.npy", half_rows(50, 2, channels=7))
    with pytest.raises(InputError, match="halves differ in channels"):
        bring(games)
    (games / "game" / f"2_{NAME}.npy").unlink()
    with pytest.raises(InputError, match=f"half 2 of {NAME} is missing"):
        bring(games)
    for suffix in ("npy", "npz"):
        (games / "game" / f"2_{NAME}.{suffix}").touch()
    with pytest.raises(InputError, match="there more than once"):
        bring(games)


@pytest.mark.parametrize("value", [np.nan, 1e5])
def test_a_value_that_is_no_number_is_named(bring: Import, games: Path, tmp_path: Path, value: float) -> None:
    path = games / "game" / f"2_{NAME}.npy"
    array = np.load(path)
    array[17, 3] = value
    np.save(path, array)
    (result,) = bring(games).results
    assert result.status == "failed"
    assert f"2_{NAME}.npy: row 17, channel 3 is not finite as float16" in result.message
    assert FeatureStore.open(tmp_path / "s").matches() == []


def test_kinds_are_told_by_what_is_there(tmp_path: Path, games: Path) -> None:
    assert find_kind(games, ImportOptions()) == "soccernet"
    (games / "game" / "1_scores.npz").touch()
    assert find_kind(games, ImportOptions()) == "scores"
    assert find_kind(games, ImportOptions(features=NAME)) == "soccernet"
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "video_1.npy").touch()
    (tmp_path / "flat" / "again").symlink_to(tmp_path / "flat")
    assert find_kind(tmp_path / "flat", ImportOptions()) == "flat"


# --- OpenTAD and ActionFormer: a table per video, one JSON


def entry(*segments: tuple[float, float, str], subset: str = "training", **more: Any) -> dict[str, Any]:
    records = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"subset": subset, "annotations": records} | more


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    np.save(folder / "a.npy", rows(247))
    np.savez_compressed(folder / "b.npz", feats=rows(100, seed=1))
    return folder


@pytest.fixture
def annotate(flat: Path) -> Callable[[dict[str, Any]], None]:
    """Writes the annotation file."""

    def write(videos: dict[str, Any]) -> None:
        (flat / "anno.json").write_text(json.dumps({"database": videos}))

    return write


@pytest.fixture
def bring_flat(bring: Import, flat: Path) -> Import:
    defaults: dict[str, Any] = {"fps": "25", "feature_stride": 4, "num_frames": 16}
    return lambda root=flat, **options: bring(root, **(defaults | options))


def test_rows_labels_and_splits(bring_flat: Import, annotate: Callable[[Any], None], tmp_path: Path) -> None:
    video = entry((10.0, 12.0, "DRIVE"), (4.04, 4.04, "PASS"), duration=SECONDS)
    for record, number in zip(video["annotations"], (1, 0), strict=True):
        record["label_id"] = number
    annotate({"a": video, "b": entry(subset="Validation"), "absent": entry(subset="testing")})
    summary = bring_flat()
    assert summary.record["notes"] == ["1 annotated video(s) without features: absent"]
    store = FeatureStore.open(tmp_path / "s")
    assert verify(store.path) == []
    assert (store.settings.fps, store.classes) == ("25/4", ("PASS", "DRIVE"))  # by label_id
    first = store.match("a")
    assert (first.num_rows, first.meta.split, store.match("b").meta.split) == (250, "train", "valid")
    np.testing.assert_array_equal(store.rows("a")[2:249], rows(247).astype(np.float16))
    assert list(np.flatnonzero(~store.valid("a"))) == [0, 1, 249]
    assert first.meta.events() == [Event(4040, "PASS"), Event(11_000, "DRIVE")]
    assert store.match("b").meta.labels == ()
    assert {result.status for result in bring_flat().results} == {"already there"}
    assert "stored from other files or with another offset" in bring_flat(num_frames=15).results[1].message


def test_each_row_stands_when_its_frames_are_half_over(bring_flat: Import, tmp_path: Path) -> None:
    bring_flat(num_frames=11)  # row t stands at (4 t + 5.5) / 25 s, 1.5 frames after step t + 1
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
        (25, 16, 16, 0, Fraction(8, 25)),
        (25, 4, 11, 1, Fraction(3, 50)),
        (25, 4, 15, 2, Fraction(-1, 50)),
        (25, 4, None, 0, 0),
        (Fraction(30000, 1001), 1, 64, 32, 0),
    ],
)
def test_the_nearest_step_and_what_is_left(fps: Any, stride: int, num_frames: Any, first: int, later: Any) -> None:
    rate = Rate(fps=Fraction(fps), stride_frames=stride, num_frames=num_frames)
    assert (rate.first_step, rate.later_seconds) == (first, later)
    assert rate.grid.seconds(rate.first_step) + rate.later_seconds == Fraction(num_frames or 0, 2) / fps


@pytest.mark.parametrize(("instant", "ms"), [(None, 11_000), ("start", 10_000), ("end", 12_000)])
def test_the_instant_of_a_segment(
    bring_flat: Import, annotate: Callable[[Any], None], tmp_path: Path, instant: str | None, ms: int
) -> None:
    annotate({"a": entry((10.0, 12.0, "DRIVE"))})
    summary = bring_flat(instant=instant)
    assert FeatureStore.open(tmp_path / "s").match("a").meta.events() == [Event(ms, "DRIVE")]
    assert summary.record["notes"] == ["1 video(s) not in anno.json, unlabelled: b"]


def test_the_frame_rate_may_be_that_of_the_annotations(bring_flat: Import, annotate: Callable[[Any], None]) -> None:
    for videos, message in (
        ({"a": entry(fps=30.0), "b": entry(fps=25)}, "the videos differ in frame rate"),
        ({"a": entry()}, "frame rate of the videos is not known"),
    ):
        annotate(videos)
        with pytest.raises(InputError, match=message):
            bring_flat(fps=None)
    annotate({"a": entry(fps=30.0), "b": entry()})
    assert bring_flat(fps=None).record["settings"]["fps"] == "15/2"


def test_rows_that_do_not_fit_the_video(bring_flat: Import, annotate: Callable[[Any], None], flat: Path) -> None:
    (flat / "b.npz").unlink()
    annotate({"a": entry(duration=SECONDS)})
    with pytest.raises(InputError, match="rows and length of the video do not fit") as caught:
        bring_flat(fps="30", feature_stride=1)
    assert "--feature-stride" in caught.value.cure
    np.save(flat / "a.npy", np.ascontiguousarray(rows(247).T))
    with pytest.raises(InputError, match="do not fit") as caught:
        bring_flat()
    assert caught.value.cure == "the file holds (channels, rows): --transpose"
    assert bring_flat(transpose=True).results[0].num_rows == 250


@pytest.mark.parametrize("kind", ["one file", "file per video"])
def test_hdf5(bring_flat: Import, annotate: Callable[[Any], None], flat: Path, tmp_path: Path, kind: str) -> None:
    for path in sorted(flat.iterdir()):
        path.unlink()
    for number, name in enumerate(("a", "b")):
        with h5py.File(flat / ("all.h5" if kind == "one file" else f"{name}.hdf5"), "a") as file:
            file[name if kind == "one file" else "feats"] = rows(50, seed=number)
    annotate({"a": entry((1, 2, "PASS")), "b": entry((1, 2, "PASS"))})
    summary = bring_flat(flat / "all.h5" if kind == "one file" else flat)
    assert [result.match_id for result in summary.results] == ["a", "b"]
    store = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.rows("b")[2:], rows(50, seed=1).astype(np.float16))
    assert store.match("b").meta.events() == [Event(1500, "PASS")]


def test_names_in_folders(bring_flat: Import, annotate: Callable[[Any], None], flat: Path) -> None:
    (flat / "day 1").mkdir()
    (flat / "a.npy").rename(flat / "day 1" / "a.npy")
    np.save(flat / "con.npy", np.arange(256, dtype=np.uint8).reshape(-1, 4)[:, [0, 1, 2, 3, 0, 1]])
    annotate({"a": entry((1, 2, "PASS"))})
    results = {result.match_id: result for result in bring_flat().results}
    assert (results["day 1/a"].columns["events"], results["b"].columns["events"]) == (1, "-")
    assert (results["con"].status, results["b"].status) == ("failed", "imported")  # a device's name on Windows


def test_uint8_is_exact(bring_flat: Import, flat: Path, tmp_path: Path) -> None:
    array = np.arange(256, dtype=np.uint8).reshape(-1, 4)
    np.save(flat / "a.npy", array)
    (flat / "b.npz").unlink()
    bring_flat(num_frames=None)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("a")[:], array)


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"a": []}, "a: not an object"),
        ({"a": {"subset": "tuning"}}, "subset is not known"),
        ({"a": {"annotations": {}}}, "annotations are no list"),
        ({"a": entry((2, 1, "A"))}, "ends before it starts"),
        ({"a": entry((float("nan"), 1, "A"))}, r"annotations\[0\]: not usable"),
        ({"a": entry((1, 2, ""))}, r"annotations\[0\]: not usable"),
        ({"a": entry((True, 2, "A"))}, r"annotations\[0\]: not usable"),
        ({"a": entry(duration="long")}, "duration: not usable"),
        ({"a": entry(fps=1e9)}, "fps: not usable"),
        ({"x": entry()}, "names no video at hand"),
    ],
)
def test_annotations_that_cannot_be_used(bring_flat: Import, flat: Path, database: Any, message: str) -> None:
    (flat / "anno.json").write_text(json.dumps({"database": database}))
    with pytest.raises(InputError, match=message):
        bring_flat(labels="anno.json")


def test_several_annotation_files(bring_flat: Import, annotate: Callable[[Any], None], flat: Path) -> None:
    annotate({"a": entry()})
    (flat / "other.json").write_text(json.dumps({"database": {"b": entry(subset="test")}}))
    (flat / "unrelated.json").write_text("[]")
    with pytest.raises(InputError, match="several annotation files"):
        bring_flat()
    assert [result.columns["split"] for result in bring_flat(labels="other.json").results] == ["", "test"]
