"""Rows to reduced rows and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bas.cache.reduce.reduction import Reduction, RowEncoder
from bas.errors import InputError


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


def rows_of(num_rows: int) -> Any:
    return np.random.default_rng(1).normal(size=(num_rows, 12)).astype(np.float16)


def test_encode_is_the_definition_and_decode_comes_within_half_a_step(reduction: Reduction) -> None:
    rows = rows_of(500)
    assert reduction.mean is not None
    assert reduction.components is not None
    wanted = (rows.astype(np.float64) - reduction.mean) @ reduction.components.T.astype(np.float64)
    codes = reduction.encode(rows)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.clip(np.rint((wanted + 6) / np.float32(0.05)), 0, 255))
    found = reduction.decode(codes)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 0.0251


def test_values_out_of_range_are_clipped_not_wrapped(reduction: Reduction) -> None:
    only = Reduction(source=reduction.source, scale=np.ones(12, np.float32), offset=np.zeros(12, np.float32))
    codes = only.encode(np.array([[-7] * 12, [300] * 12, [12.4] * 12], np.float16))
    assert codes[:, 0].tolist() == [0, 255, 12]


def test_float16_where_there_are_no_levels(reduction: Reduction) -> None:
    plain = Reduction(source=reduction.source, mean=reduction.mean, components=reduction.components)
    assert plain.levels is None
    assert plain.settings.dtype == "float16"
    found = plain.encode(rows_of(10))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(plain.decode(found), found.astype(np.float32))
    assert plain.components is not None
    far = (60000 * np.sign(plain.components[:1])).astype(np.float16)
    assert np.isinf(plain.encode(far)).any()  # the writer refuses it by name


@pytest.mark.parametrize("sizes", [[1000], [256, 744], [1] * 5 + [994, 1], [100] * 10, [999, 1], [300, 700]])
def test_pieces_of_any_length_give_the_same_bytes(reduction: Reduction, sizes: list[int]) -> None:
    rows, stored = rows_of(1000), np.zeros((1000, 3), np.uint8)
    plain = Reduction(source=reduction.source, mean=reduction.mean, components=reduction.components)
    exact = np.zeros((1000, 3), np.float16)
    for one, into in ((reduction, stored), (plain, exact)):
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


def test_settings_of_reduced_rows(reduction: Reduction) -> None:
    settings = reduction.settings
    assert (settings.dim, settings.dtype, settings.reduction) == (3, "uint8", reduction.name)
    assert settings.differing(reduction.source) == ["dim", "dtype", "reduction"]


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"scale": None},
        {"mean": np.zeros(11, np.float32)},
        {"mean": np.zeros(12)},
        {"mean": np.full(12, np.nan, np.float32)},
        {"scale": np.zeros(3, np.float32)},
        {"offset": np.zeros(4, np.float32)},
        {"mean": None, "components": None, "scale": None, "offset": None},
    ],
)
def test_arrays_that_do_not_fit_are_refused(reduction: Reduction, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="reduction"):
        replace(reduction, **change)
