"""SoccerNet's features per half: which are read, at which rate, and where each row and label stands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.convert.formats import find_kind, import_source
from bas.cache.convert.halves import known_rate
from bas.cache.convert.importing import DERIVED, ImportSummary
from bas.cache.convert.request import FindFolders, ImportRequest
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.events import Event

NAME = "ResNET_TF2_PCA512"
Import = Callable[..., ImportSummary]


def rows(num_rows: int, half: int, channels: int = 6) -> Any:
    """Half, row and channel in each value; exact in float16."""
    return (100 * half + np.arange(num_rows)[:, None] + np.arange(channels) / 8).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One game of 40 and 50 rows."""
    folder = tmp_path / "games" / "game"
    folder.mkdir(parents=True)
    for half, length in ((1, 40), (2, 50)):
        np.save(folder / f"{half}_{NAME}.npy", rows(length, half))
    return tmp_path / "games"


@pytest.fixture
def bring(root: Path, tmp_path: Path, finder: FindFolders) -> Import:
    """Imports the games into `s`."""
    return lambda **options: import_source(ImportRequest(root=root, store=tmp_path / "s", **options), finder)


def test_halves_lie_on_the_clock_of_the_match(
    bring: Import, root: Path, tmp_path: Path, write_labels: Callable[..., None]
) -> None:
    write_labels(root / "game" / "Labels-v2.json", (1, 0, "PASS"), (1, 19_960, "DRIVE"), (2, 1_250, "PASS"))
    (result,) = bring().results
    assert (result.status, result.rows, result.events, result.half1_offset_frames) == ("imported", 90, 3, 40)
    assert (result.offset_from, result.unscored_share) == (DERIVED, 0)
    store = FeatureStore.open(tmp_path / "s")
    assert verify(store.path) == []
    assert (store.settings.backbone, store.settings.weights, store.settings.fps) == ("import:features", NAME, "2")
    np.testing.assert_array_equal(store.rows("game")[:], np.concatenate([rows(40, 1), rows(50, 2)]))
    match = store.match("game")
    assert match.meta.events() == [Event(0, "PASS"), Event(19_960, "DRIVE"), Event(21_250, "PASS")]
    assert [match.meta.grid.frame(event.position_ms) for event in match.meta.events() or ()] == [0, 39, 42]


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("ResNET_TF2", "2"),
        ("ResNET_TF2_PCA512", "2"),
        ("ResNET_25fps_TF2", "25"),
        ("ResNET_5fps_TF2_PCA512", "5"),
        ("baidu_soccer_embeddings", "1"),
        ("I3D_PCA512", "2"),
        ("mine", None),
    ],
)
def test_rates_known_by_name(name: str, rate: str | None) -> None:
    assert known_rate(name) == rate


def test_a_rate_that_is_not_known_must_be_given(bring: Import, root: Path) -> None:
    for path in sorted((root / "game").iterdir()):
        path.rename(path.with_name(path.name.replace(NAME, "mine")))
    with pytest.raises(InputError, match="rate of mine is not known"):
        bring()
    assert bring(fps="25").settings.fps == "25"
    assert bring().results[0].status == "already there"


@pytest.mark.parametrize(
    ("options", "games", "row", "later_ms", "where"),
    [
        ({"offset_seconds": "2700"}, None, 5400, 0.0, "--offset"),
        ({"offset_seconds": "20.3"}, {"game": 10_000}, 41, -200.0, "--offset"),
        ({"offset_seconds": "20.25"}, None, 40, 250.0, "--offset"),
        ({}, {"game": {"half1_offset_frames": 750}}, 60, 0.0, "o.json"),
        ({}, {"game": {"half1_offset_ms": 30_240, "half1_offset_frames": 9}}, 60, 240.0, "o.json"),
    ],
)
def test_where_the_second_half_begins(
    bring: Import, tmp_path: Path, options: Any, games: Any, row: int, later_ms: float, where: str
) -> None:
    if games:
        (tmp_path / "o.json").write_text(json.dumps({"games": games}))
        options = options | {"offsets_file": tmp_path / "o.json"}
    (result,) = bring(**options).results
    assert (result.half1_offset_frames, result.offset_from, result.rows) == (row, where, row + 50)
    store = FeatureStore.open(tmp_path / "s")
    assert store.match("game").meta.extra["half2_later_ms"] == pytest.approx(later_ms)
    assert list(np.flatnonzero(~store.valid("game"))) == list(range(40, row))
    np.testing.assert_array_equal(store.rows("game")[row : row + 2], rows(2, 2))


def test_a_last_part_of_a_step_belongs_to_the_second_half(bring: Import, tmp_path: Path) -> None:
    bring(offset_seconds="19")  # 40 rows of half 1 reach to 20 s
    store = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.rows("game")[36:40][:, 0], [136, 137, 200, 201])
    with pytest.raises(InputError, match="would begin inside the first") as caught:
        bring(offset_seconds="18.5")
    assert "row 37; half 1 has 40 rows" in str(caught.value.got)


def test_labels_just_after_the_last_row_get_one(
    bring: Import, root: Path, tmp_path: Path, write_labels: Callable[..., None]
) -> None:
    write_labels(root / "game" / "Labels-v2.json", (1, 20_100, "PASS"), (2, 25_900, "PASS"))
    (result,) = bring().results
    assert (result.half1_offset_frames, result.rows) == (41, 93)
    assert list(np.flatnonzero(~FeatureStore.open(tmp_path / "s").valid("game"))) == [40, 91, 92]
    write_labels(root / "game" / "Labels-v2.json", (2, 26_500, "PASS"))
    with pytest.raises(InputError, match="after the last row"):
        bring(model="another")


def test_features_are_chosen_by_name(bring: Import, root: Path) -> None:
    for half in (1, 2):
        np.save(root / "game" / f"{half}_baidu_soccer_embeddings.npy", rows(20, half, channels=3))
    with pytest.raises(InputError, match="several features") as caught:
        bring()
    assert (caught.value.got, caught.value.cure) == (f"{NAME}, baidu_soccer_embeddings", f"--features {NAME}")
    with pytest.raises(InputError, match="no features 'x'"):
        bring(features="x")
    settings = bring(features="baidu_soccer_embeddings").settings
    assert (settings.dim, settings.fps, settings.weights) == (3, "1", "baidu_soccer_embeddings")
    with pytest.raises(InputError, match="these differ: "):
        bring(features=NAME)


def test_channels_first(bring: Import, root: Path, tmp_path: Path) -> None:
    for half in (1, 2):
        path = root / "game" / f"{half}_{NAME}.npy"
        np.save(path, np.ascontiguousarray(np.load(path).T))
    bring(transpose=True)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("game")[:40], rows(40, 1))


def test_what_cannot_be_joined(bring: Import, root: Path) -> None:
    np.save(root / "game" / f"2_{NAME}.npy", rows(50, 2, channels=7))
    with pytest.raises(InputError, match="halves differ in channels"):
        bring()
    (root / "game" / f"2_{NAME}.npy").unlink()
    with pytest.raises(InputError, match=f"half 2 of {NAME} is missing"):
        bring()
    for suffix in ("npy", "npz"):
        (root / "game" / f"2_{NAME}.{suffix}").touch()
    with pytest.raises(InputError, match="there more than once"):
        bring()


@pytest.mark.parametrize("value", [np.nan, 1e5])
def test_a_value_that_is_no_number_is_named(bring: Import, root: Path, tmp_path: Path, value: float) -> None:
    path = root / "game" / f"2_{NAME}.npy"
    array = np.load(path)
    array[17, 3] = value
    np.save(path, array)
    (result,) = bring().results
    assert result.status == "failed"
    assert f"2_{NAME}.npy: row 17, channel 3 is not finite as float16" in result.message
    assert FeatureStore.open(tmp_path / "s").matches() == []


def test_options_of_another_kind_are_refused(bring: Import, root: Path, tmp_path: Path, finder: FindFolders) -> None:
    with pytest.raises(InputError, match="--feature-stride means nothing for this kind") as caught:
        bring(feature_stride=4)
    assert caught.value.got == "--from soccernet"
    with pytest.raises(InputError, match="--from is not known"):
        import_source(ImportRequest(root=root, store=tmp_path / "s"), finder, kind="x")
    with pytest.raises(InputError, match=r"no events.json in any match's folder"):
        bring(labels="events.json")
    with pytest.raises(InputError, match="--offset is not usable"):
        bring(offset_seconds="later")
    with pytest.raises(InputError, match="--num-frames is not usable"):
        bring(num_frames=0)


def test_kinds_are_told_by_what_is_there(tmp_path: Path, root: Path) -> None:
    def kind(path: Path, **options: Any) -> str:
        return find_kind(ImportRequest(root=path, store=tmp_path / "s", **options))

    assert kind(root) == "soccernet"
    assert kind(root / "game" / f"1_{NAME}.npy") == "soccernet"
    (root / "game" / "1_scores.npz").touch()
    assert kind(root) == "scores"
    assert kind(root, features=NAME) == "soccernet"
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "video_1.npy").touch()
    (tmp_path / "flat" / "again").symlink_to(tmp_path / "flat")
    assert kind(tmp_path / "flat") == "flat"
    (tmp_path / "flat" / "bas-export.json").touch()
    assert kind(tmp_path / "flat") == "bas"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to import"):
        kind(tmp_path / "empty")
