"""Any damage to any file of a store: an InputError, or the true rows, or a finding of `verify`, at once."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bas.cache.convert.scores import read_scores
from bas.cache.match import info
from bas.cache.partial import read_journal
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

Damage = Callable[[Path, int], None]
SEEDS = st.integers(0, 2**32 - 1)
FILES = (
    *(
        "zarr.json",
        "a/zarr.json",
        "a/features/zarr.json",
        "a/features/identity/zarr.json",
    ),
    *("a/features/identity/c/0/0", "a/pts/zarr.json", "a/pts/c/0", "a/valid/c/0"),
    f".partial/{'0' * 64}/journal.json",
)


def quick(max_examples: int) -> hypothesis_settings:
    return hypothesis_settings(max_examples=max_examples)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_maker: Callable[[Path], Any]) -> Path:
    """A store with one match: and unfinished work."""
    maker = make_maker(tmp_path_factory.mktemp("whole"))
    maker.match("a", num_rows=300)
    with maker.writer("b", num_rows=300) as writer:
        writer.append({"identity": maker.rows(256)}, np.ones(256, bool))
    next((maker.path / ".partial").iterdir()).rename(maker.path / ".partial" / ("0" * 64))
    path: Path = maker.path
    return path


def answers(path: Path) -> dict[str, Any]:
    """What every reader says of match a; what it refuses is left out."""
    found: dict[str, Any] = {}
    told: dict[str, str] = {}

    def ask(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = read()
        except InputError as error:
            told[name] = str(error)

    ask("store", lambda: FeatureStore.open(path))
    if "store" not in found:
        return {}
    store = found.pop("store")
    ask("settings", store.settings.key)
    ask("match", lambda: store.match("a"))
    ask("events", lambda: tuple(store.match("a").meta.events() or ()))
    ask("pts", lambda: bytes(store.pts("a")))
    ask("valid", lambda: bytes(store.valid("a")))
    ask("rows", lambda: bytes(store.rows("a")[:]))
    ask("some", lambda: bytes(store.rows("a").take([3, 299, 0])))
    ask("info", lambda: info(store).to_json() and None)
    ask("journal", lambda: read_journal(path / ".partial" / ("0" * 64)) and None)
    assert all(len(text) < 4000 for text in told.values())
    return found


@quick(40)
@given(seed=SEEDS, name=st.sampled_from(FILES))
def test_damage_is_never_taken_for_rows(whole: Path, damage: Damage, seed: int, name: str) -> None:
    truth = answers(whole)
    assert len(truth) >= 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        shutil.copytree(whole, path)
        damage(path / name, seed)
        begun = time.monotonic()
        found = answers(path)
        findings = verify(path)
        assert time.monotonic() - begun < 5  # about 20 ms; 5 s on a machine that is busy with other things
        wrong = sorted(key for key in found if found[key] != truth[key])
        assert not wrong or any(f.severity != "note" for f in findings) or name.endswith("a/zarr.json"), wrong
        assert set(wrong) <= {"rows", "some", "match", "events", "pts", "valid"}, "metadata is never wrong"


@quick(100)
@given(seed=SEEDS)
def test_damaged_scores_are_refused_or_read(damage: Damage, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.npz"
        np.savez_compressed(path, frame_indexes=np.arange(40), scores=np.ones((40, 3), np.float32))
        damage(path, seed)
        try:
            scores = read_scores(path)
        except InputError:
            return
        assert scores.values.shape == (len(scores.frames), scores.values.shape[1])
