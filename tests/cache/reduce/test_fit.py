"""Fitting: which rows, how exact, how bounded."""

from typing import Any

import numpy as np
import pytest

from bas.cache.reduce import fit as fit_module
from bas.cache.reduce.fit import FitSettings, Ranges, SplitRows, fit, num_rows_read
from bas.cache.reduce.reduction import Reduction
from bas.cache.store import FeatureStore
from bas.errors import InputError

TRAIN = ("m0", "m1")


def training_rows(store: FeatureStore) -> Any:
    return np.concatenate([store.rows(name)[:][store.valid(name)] for name in TRAIN]).astype(np.float64)


def components_of(reduction: Reduction) -> Any:
    assert reduction.components is not None
    return reduction.components


@pytest.mark.parametrize("block_rows", [64, 8192])
def test_it_is_the_pca_of_all_valid_training_rows(
    full: FeatureStore, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(fit_module, "READ_ROWS", block_rows)
    found, rows = fit(full, FitSettings(dim=3), view="identity"), training_rows(full)
    np.testing.assert_allclose(found.arrays["mean"], rows.mean(0), rtol=1e-6)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    wanted = vectors[:, ::-1][:, :3].T
    components = components_of(found)
    np.testing.assert_allclose(np.abs(np.sum(components * wanted, axis=1)), 1, atol=1e-6)
    assert (np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1) > 0).all()
    kept = values[::-1][:3].sum() / values.sum()
    assert found.about["kept_variance"]["train"] == pytest.approx(kept, abs=1e-5)
    assert found.about["kept_variance"]["valid"] == pytest.approx(kept, abs=1e-3)
    assert found.about["matches"] == list(TRAIN)
    assert found.about["rows"] == 990


def test_twice_gives_the_same_bytes(full: FeatureStore) -> None:
    asked = FitSettings(dim=4, quantize=True)
    assert fit(full, asked, view="identity").name == fit(full, asked, view="identity").name


def test_a_share_of_the_variance_takes_as_many_components_as_it_needs(full: FeatureStore) -> None:
    for share in (0.5, 0.9, 0.999):
        found = fit(full, FitSettings(dim=share), view="identity")
        kept = found.about["kept_variance"]["train"]
        assert kept >= share - 1e-5
        fewer = found.dim - 1
        assert not fewer or fit(full, FitSettings(dim=fewer), view="identity").about["kept_variance"]["train"] < share


def test_channels_of_fewer_components_are_the_first_of_more(full: FeatureStore) -> None:
    few, many = (fit(full, FitSettings(dim=dim), view="identity") for dim in (2, 6))
    np.testing.assert_array_equal(components_of(few), components_of(many)[:2])


@pytest.mark.parametrize("margin", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("block_rows", [37, 1000])
def test_levels_reach_beyond_the_values_seen(margin: float, block_rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(5000, 3)) ** 3
    ranges = Ranges(3)
    for start in range(0, 5000, block_rows):
        ranges.add(values[start : start + block_rows])
    scale, offset = ranges.levels(margin)
    low, high = values.min(0), values.max(0)
    beyond = margin * (high - low) + 0.5 * scale  # half a step more: the middle lies on a level
    np.testing.assert_allclose(offset, low - beyond, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(offset + 255 * scale, high + beyond - scale, rtol=1e-4, atol=1e-3)


def test_a_channel_that_hardly_ever_changes_keeps_room_for_other_videos() -> None:
    ranges = Ranges(4)
    ranges.add(np.array([[0.0, 0, 0, 7], [10, 20, 0.001, 7]]))
    scale, offset = ranges.levels(0.0)
    np.testing.assert_allclose(scale[2:] / np.median(scale[:3]), 0.1, rtol=1e-5)
    np.testing.assert_allclose(offset[3] + 128 * scale[3], 7, rtol=1e-6)


def test_only_levels_keep_every_channel(full: FeatureStore) -> None:
    found = fit(full, FitSettings(quantize=True), view="hflip")
    rows = training_rows(full)[:, ::-1]
    assert found.dim == 12
    assert found.components is None
    back = found.decode(found.encode(rows))
    assert found.scale is not None
    assert 0 < np.abs(back - rows).max() <= 0.51 * found.scale.max()
    assert 0.999 < found.about["kept_variance"]["train"] < 1
    assert found.about["clipped_share"]["train"] == 0


def test_a_channel_that_never_changes_comes_back_as_it_was(maker: Any) -> None:
    rows = maker.rows(300)
    rows[:, 2] = 0.5
    with maker.writer(num_rows=300) as writer:
        writer.append({"identity": rows}, np.ones(300, bool))
        writer.commit()
    found = fit(maker.store(), FitSettings(quantize=True), view="identity")
    np.testing.assert_allclose(found.decode(found.encode(rows.astype(np.float16)))[:, 2], 0.5, rtol=1e-6)


def test_progress_counts_every_row_of_every_pass(full: FeatureStore) -> None:
    for asked in (FitSettings(dim=3), FitSettings(quantize=True), FitSettings(dim=3, quantize=True, split="valid")):
        seen: list[int] = []
        fit(full, asked, view="identity", on_rows=seen.append)
        assert sum(seen) == num_rows_read(full, asked, view="identity")


def test_blocks_are_of_about_equal_length_and_hold_every_valid_row(full: FeatureStore) -> None:
    blocks = list(SplitRows.of(full, "train", "identity").blocks(400))
    assert [len(block) for block in blocks] == [330, 330, 330]
    np.testing.assert_array_equal(np.concatenate(blocks), training_rows(full))


def test_without_training_rows_there_is_nothing_to_fit_on(maker: Any) -> None:
    maker.match("a", num_rows=30, match_meta=maker.meta(split=None))
    maker.match("b", num_rows=30, match_meta=maker.meta(split="test"))
    with pytest.raises(InputError, match=r"(?s)'train'.*no split, test.*--components"):
        fit(maker.store(), FitSettings(dim=3), view="identity")


def test_more_components_than_rows_or_channels_are_refused(maker: Any) -> None:
    maker.match("a", num_rows=5)
    for dim in (5, 7):
        with pytest.raises(InputError, match="1 to 4"):
            fit(maker.store(), FitSettings(dim=dim), view="identity")
    assert fit(maker.store(), FitSettings(dim=4), view="identity").dim == 4


def test_rows_that_are_all_the_same_are_refused(maker: Any) -> None:
    with maker.writer(num_rows=30) as writer:
        writer.append({"identity": np.ones((30, 6), np.float32)}, np.ones(30, bool))
        writer.commit()
    with pytest.raises(InputError, match="all the same"):
        fit(maker.store(), FitSettings(dim=2), view="identity")


@pytest.mark.parametrize("change", [{}, {"dim": 0}, {"dim": -3}, {"dim": 2.5}, {"dim": 3, "margin": -0.1}])
def test_settings_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        FitSettings(**change)
