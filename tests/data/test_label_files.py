"""Labels that a feature store carries, as the evaluation wants them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bas.cache.match import MatchMeta
from bas.cache.settings import FeatureSettings
from bas.cache.store import FeatureStore
from bas.data.games import find_labels, stored_labels
from bas.errors import InputError
from bas.events import Event

FEATURES = FeatureSettings.imported(kind="none", model="none", dim=1, fps="25")


def add(
    store: FeatureStore, match: str, events: Sequence[Event] | None, *, split: str = "test", video: str = ""
) -> None:
    meta = MatchMeta(
        fps=Fraction(25),
        time_base=Fraction(1, 25),
        origin_ticks=0,
        split=split,
        labels=None if events is None else tuple(event.to_json() for event in events),
        video={"name": video},
    )
    with store.writer(match, num_rows=4, pts_ticks=np.arange(4), match_meta=meta, provenance={}) as writer:
        writer.append({"identity": np.zeros((4, 1), np.float32)}, np.ones(4, bool))
        writer.commit()


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create_or_open(tmp_path / "s.zarr", FEATURES, classes=("A", "B"), software={})


def test_halves_come_together_each_on_its_own_clock(store: FeatureStore) -> None:
    add(store, "game/1", [Event(1000, "A", half=1)], video="1_224p.mkv")
    add(store, "game/2", [Event(2000, "B", half=2)], video="2_224p.mkv")
    found = stored_labels(store)
    assert found.classes == ("A", "B")
    assert found.files == {"game": (Event(1000, "A"), Event(2000, "B", half=2))}


def test_a_match_in_one_piece_has_one_clock_whatever_its_labels_say(store: FeatureStore) -> None:
    add(store, "game", [Event(1000, "A"), Event(3_000_000, "A", half=2)], video="224p.mp4")
    assert stored_labels(store).files == {"game": (Event(1000, "A"), Event(3_000_000, "A"))}


def test_splits_and_unlabelled_matches(store: FeatureStore) -> None:
    add(store, "a", [Event(0, "A")])
    add(store, "b", [], split="valid")
    add(store, "z", None)
    found = stored_labels(store, splits=("test",))
    assert list(found.files) == ["a"]
    assert found.problems == ("z: no labels in the store, left out",)
    assert stored_labels(store, splits=("valid",)).files == {"b": ()}
    with pytest.raises(InputError, match="no labelled match of the split train") as error:
        stored_labels(store, splits=("train",))
    assert error.value.got == "matches of test, valid"


def test_the_labels_of_a_store_are_found_by_its_path(store: FeatureStore) -> None:
    add(store, "a", [Event(0, "A")])
    assert find_labels(store.path, splits=("test",)).files == {"a": (Event(0, "A"),)}
    with pytest.raises(InputError, match="no labelled match of the split train, valid"):
        find_labels(store.path, splits=("train", "valid"))


def test_problems_are_left_out_by_what_they_are_about_not_by_their_text(tmp_path: Path) -> None:
    for name in ("my-video-7", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Labels-ball.json").write_text('{"annotations": [{"label": "A", "position": "40"}]}')
    (tmp_path / "b" / "2_224p.mkv").touch()  # half 1 has no video, which does not matter for labels
    (tmp_path / "splits.json").write_text('{"train": ["my-video-7", "b", "gone-video-8"]}')
    found = find_labels(tmp_path)
    assert set(found.files) == {"my-video-7", "b"}
    assert found.problems == ("splits.json: names a match that does not exist: 'gone-video-8'",)
