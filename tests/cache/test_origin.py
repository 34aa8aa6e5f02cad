"""Where a store's weights came from: kept in its root attributes, told by `bas cache info`."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bas.cache.match import Terms, WeightsOrigin
from bas.cache.store import FeatureStore
from bas.errors import InputError

FILE = WeightsOrigin(name="backbone.safetensors", file_sha256="f" * 64)
RUN = WeightsOrigin(
    name="x3d-1", file_sha256="f" * 64, run_sha256="e" * 64, epoch=7, train_matches=("a", "b"), valid_matches=("c",)
)


def opened(maker: Any, origin: WeightsOrigin | None) -> FeatureStore:
    return FeatureStore.create_or_open(
        maker.path, maker.settings(), classes=("PASS", "DRIVE"), software={}, origin=origin
    )


@pytest.mark.parametrize("origin", [FILE, RUN])
def test_it_round_trips_through_a_store(maker: Any, origin: WeightsOrigin) -> None:
    assert opened(maker, origin).origin == origin
    assert FeatureStore.open(maker.path).origin == origin
    assert WeightsOrigin.from_json(json.loads(json.dumps(origin.to_json())), where="x") == origin


def test_a_store_without_one_opens_and_the_first_run_that_is_named_stays(maker: Any) -> None:
    assert maker.store().origin is None
    assert opened(maker, None).origin is None
    assert opened(maker, FILE).origin == FILE
    assert opened(maker, replace(FILE, name="other")).origin == FILE
    assert opened(maker, RUN).origin == RUN
    assert opened(maker, RUN).settings.key() == maker.settings().key()
    for later in (None, FILE, replace(RUN, name="other")):
        assert opened(maker, later).origin == RUN


@pytest.mark.parametrize("change", [{"name": 3}, {"train_matches": [1]}, {"colour": "red"}])
def test_a_damaged_one_is_told(maker: Any, change: dict[str, object]) -> None:
    opened(maker, RUN)
    path = maker.path / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["bas"]["weights_origin"] |= change
    path.write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=r"zarr\.json: the origin of the weights is damaged"):
        FeatureStore.open(maker.path)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (
            RUN,
            "finetuned run x3d-1 (run.json SHA-256 eeeeeeeeeeee...), epoch 7, trained on 2 matches: a, b; chosen on 1",
        ),
        (FILE, "backbone.safetensors, file SHA-256 ffffffffffff..."),
    ],
)
def test_cache_info_tells(
    maker: Any, bas: Callable[..., int], capsys: pytest.CaptureFixture[str], origin: WeightsOrigin, told: str
) -> None:
    opened(maker, origin)
    assert bas("cache", "info", maker.path) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    assert bas("cache", "info", maker.path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["weights_origin"] == origin.to_json()


def test_matches_that_trained_the_backbone_flatter() -> None:
    assert "1 of 2 validation matches trained" in RUN.warn_of_training(["b", "c"])
    assert RUN.warn_of_training(["c", "d"]) == FILE.warn_of_training(["a"]) == ""


def test_licence_and_origin_are_added_to_a_store_that_has_none_and_change_no_key(maker: Any) -> None:
    key = maker.store().settings.key()
    assert maker.store().terms == Terms()

    def said(terms: Terms) -> Terms:
        settings = maker.settings()
        return FeatureStore.create_or_open(maker.path, settings, classes=(), software={}, terms=terms).terms

    assert said(Terms(licence="CC-BY-4.0")) == Terms("CC-BY-4.0")
    assert said(Terms(origin="here", weights_licence="MIT")) == Terms("CC-BY-4.0", "here", "MIT")
    assert said(Terms("CC0-1.0")) == Terms("CC0-1.0", "here", "MIT")
    assert FeatureStore.open(maker.path).settings.key() == key


def test_licence_and_origin_are_told(bas: Callable[..., int], capsys: pytest.CaptureFixture[str], maker: Any) -> None:
    terms = Terms("CC-BY-4.0", "our own camera", "MIT")
    FeatureStore.create_or_open(maker.path, maker.settings(), classes=(), software={}, terms=terms)
    assert bas("cache", "info", maker.path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["terms"] == vars(terms)
    assert bas("cache", "info", maker.path) == 0
    assert "our own camera" in capsys.readouterr().out
