"""The settings key."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from bas.cache.settings import FeatureSettings
from bas.errors import InputError

SETTINGS = FeatureSettings(
    backbone="x3d_s",
    depth=5,
    weights="kinetics",
    weights_sha256="ab" * 32,
    dim=192,
    width=398,
    height=224,
    fit="pad",
    scaler="swscale-bicubic",
    fps="25",
    window=50,
    hop=25,
    blend="hann",
    stride=2,
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
)
OTHER: dict[str, Any] = {
    "backbone": "x3d_m", "depth": 4, "weights": "none", "weights_sha256": "cd" * 32, "dim": 96, "width": 224,
    "height": 112, "fit": "stretch", "scaler": "torch-bilinear", "fps": "source", "window": 40, "hop": 20,
    "blend": "mean", "stride": 1, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "dtype": "uint8",
    "reduction": "pca-64+uint8:" + "ab" * 32, "pool": "cls", "depth_dims": (24, 48),
}  # fmt: skip


@pytest.mark.parametrize("reduction", [None, *(name + "0" * 64 for name in ("pca-1:", "uint8:", "pca-64+uint8:"))])
def test_they_round_trip_through_json_and_are_equal_then(reduction: str | None) -> None:
    settings = replace(SETTINGS, reduction=reduction)
    again = FeatureSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    again.require_equal(settings, store="s.zarr")


@pytest.mark.parametrize("name", [field.name for field in fields(FeatureSettings) if field.name != "weights"])
def test_every_field_is_in_the_key_and_a_difference_is_refused_by_name(name: str) -> None:
    one = replace(SETTINGS, depth=(2, 3), depth_dims=(96, 96)) if name == "depth_dims" else SETTINGS
    other = replace(one, **{name: OTHER[name]})
    assert other.key() != one.key()
    with pytest.raises(InputError, match=rf"these differ: {name}\n"):
        other.require_equal(one, store="s.zarr")


def test_the_name_of_the_weights_file_is_no_part_of_the_key_but_that_of_a_foreign_model_is() -> None:
    renamed = replace(SETTINGS, weights="copy of kinetics.pth")
    assert renamed.key() == SETTINGS.key()
    renamed.require_equal(SETTINGS, store="s.zarr")
    one, two = (FeatureSettings.imported(kind="scores", model=model, dim=2, fps="25") for model in ("one", "two"))
    assert one.key() != two.key()
    with pytest.raises(InputError, match="these differ: weights"):
        one.require_equal(two, store="s.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"window": 0},
        {"hop": 51},
        {"blend": "cosine"},
        {"fps": "25/0"},
        {"fps": "fast"},
        {"mean": "red"},
        {"mean": [0.1, "x", 0.2]},
        {"stride": "2"},
        {"dim": None},
        {"extra": 1},
    ],
)
def test_damaged_settings_are_an_input_error(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        FeatureSettings.from_json(SETTINGS.to_json() | change)


def test_keys_are_what_they_were() -> None:
    assert "reduction" not in SETTINGS.to_json()
    assert SETTINGS.key() == "4650d48605f98838ea44341cb47c89e77adfbb107ea678aa00ff46d7e1ec2a20"
    assert SETTINGS.key_with_name() == "343648408206946e4d6d05049ac247fedcfbd4d8830d2b8199b22341f7d97715"


@pytest.mark.parametrize("name", ["", "pca-64", "pca-0:" + "0" * 64, "uint8+pca-3:" + "0" * 64, "uint8:abc", 3, ["x"]])
def test_a_reduction_that_cannot_be_is_refused(name: object) -> None:
    with pytest.raises(InputError, match="reduction"):
        FeatureSettings.from_json(SETTINGS.to_json() | {"reduction": name})


def test_missing_fields_get_defaults_and_unknown_ones_are_named() -> None:
    record = SETTINGS.to_json()
    del record["dtype"]
    assert FeatureSettings.from_json(record) == SETTINGS
    with pytest.raises(InputError, match=r"unknown setting temperature[\s\S]*update bas"):
        FeatureSettings.from_json(record | {"temperature": 3})
    del record["stride"]  # without it the rows could be anything
    with pytest.raises(InputError, match="stride"):
        FeatureSettings.from_json(record)
