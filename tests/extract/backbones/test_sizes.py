"""Sizes that timm's models take: patches decide the default, and what fits no model is refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bas.cache.store import FeatureStore
from bas.extract.backbones.registry import backbone_spec

Cli = Callable[..., int]


@pytest.mark.parametrize(
    ("name", "patch", "size"),
    [
        ("timm:vit_tiny_patch16_224", 16, (400, 224)),
        ("timm:vit_small_patch16_dinov3", 16, (400, 224)),
        ("timm:vit_small_patch14_dinov2", 14, (392, 224)),
        ("timm:vit_pe_core_tiny_patch16_384", 16, (400, 224)),
        ("timm:swin_tiny_patch4_window7_224", 4, (400, 224)),
        ("timm:efficientvit_b0", 1, (398, 224)),
        ("regnety_002", 1, (398, 224)),
    ],
)
def test_the_default_size_is_the_nearest_that_the_patch_allows(name: str, patch: int, size: tuple[int, int]) -> None:
    spec = backbone_spec(name)
    assert spec.patch == patch
    assert spec.nearest_size((398, 224)) == size


def test_a_transformer_is_extracted_at_the_size_that_its_record_tells(bas: Cli, games: Path, tmp_path: Path) -> None:
    video = next(games.rglob("*.mp4"))
    call = ("extract", video, "--out", tmp_path / "vit.zarr", "--weights", "none", "--fps", 1, "--engine", "torch")
    assert bas(*call, "--backbone", "timm:vit_tiny_patch16_224") == 0
    settings = FeatureStore.open(tmp_path / "vit.zarr").settings
    assert (settings.width, settings.height, settings.dim) == (400, 224, 192)


@pytest.mark.parametrize(
    ("options", "message", "cure"),
    [
        (("--backbone", "timm:vit_tiny_patch16_224", "--size", "398x224"), "cuts pictures into patches", "400x224"),
        (("--backbone", "timm:hiera_tiny_224"), "timm:hiera_tiny_224 gives no feature map", "another --size"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_by_name(
    bas: Cli,
    games: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
    cure: str,
) -> None:
    assert bas("extract", games, "--out", tmp_path / "a.zarr", "--weights", "none", *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert cure in said
    assert "Traceback" not in said
