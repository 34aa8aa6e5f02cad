"""The class token of timm's vision transformers: taken where there is one, in the key, and bound by checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bas.cache.settings import Pool
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.backbones.weights import load_weights, save_backbone_checkpoint

Cli = Callable[..., int]
NAME, DIM = "timm:vit_tiny_patch16_224", 192


@pytest.mark.parametrize(
    ("name", "prefix"),
    [(NAME, 1), ("timm:vit_small_patch16_dinov3", 5), ("timm:vit_pe_core_tiny_patch16_384", 1)],
)
@torch.no_grad()
def test_the_class_token_is_the_first_and_registers_are_in_no_row(name: str, prefix: int) -> None:
    x = torch.randn(1, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    module = build_backbone(name, pool="both").eval()
    tokens = module.get_submodule("trunk").forward_features(x[0].transpose(0, 1))  # type: ignore[operator]
    assert tokens.shape[1] == prefix + 16
    wanted = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
    wanted["both"] = torch.cat([wanted["cls"], wanted["mean"]], 1)
    pools: tuple[Pool, ...] = ("mean", "cls", "both")
    for pool in pools:
        module.pool = pool  # type: ignore[assignment]
        assert torch.allclose(module(x)[0], wanted[pool], atol=1e-6)
        assert backbone_spec(name, pool).output(None).dim == wanted[pool].shape[1]


@pytest.mark.parametrize(
    ("name", "pool", "wanted"),
    [
        ("timm:vit_base_patch16_siglip_256.v2_webli", "cls", "mean"),
        ("timm:swin_tiny_patch4_window7_224", "both", "mean"),
        ("timm:resnet18", "cls", "mean"),
        ("x3d_s", "cls", "mean"),
        (NAME, "twice", "mean or cls or both"),
        (NAME, "grid:2x2", "a convolutional network"),
        ("x3d_s", "grid:0x2", "mean, cls, both, twice, or such as grid:2x4"),
    ],
)
def test_a_backbone_without_the_tokens_is_refused(name: str, pool: Pool, wanted: str) -> None:
    with pytest.raises(InputError, match="--pool mean") as caught:
        backbone_spec(name, pool)
    assert caught.value.wanted == wanted


@pytest.mark.parametrize("name", ["x3d_xs", "timm:test_resnet", "timm:test_resnet+gsf", "i3d"])
@torch.no_grad()
def test_a_grid_keeps_the_means_of_its_cells_in_order(name: str) -> None:
    x = torch.randn(2, 3, 4, 64, 128, generator=torch.Generator().manual_seed(0))
    module, plain = build_backbone(name, pool="grid:2x3").eval(), build_backbone(name).eval()
    plain.load_state_dict(module.state_dict())
    mean = plain(x)
    dim = mean.shape[-1]
    assert module(x).shape == (2, 4, 6 * dim)
    assert backbone_spec(name, "grid:2x3").output(None).dim == 6 * dim
    cells = {}
    for grid in ((1, 1), (1, 2), (2, 4)):  # each divides the map evenly, so a mean of means is the mean
        module.grid = grid  # type: ignore[assignment]
        cells[grid] = module(x).unflatten(2, (*grid, dim))
    torch.testing.assert_close(cells[1, 1][:, :, 0, 0], mean)
    torch.testing.assert_close(cells[2, 4].mean((2, 3)), mean)
    torch.testing.assert_close(cells[2, 4].unflatten(3, (2, 2)).mean((2, 4)), cells[1, 2][:, :, 0])
    assert (cells[1, 2][:, :, 0, 0] - cells[1, 2][:, :, 0, 1]).abs().max() > 1e-6


def test_a_checkpoint_binds_it(tmp_path: Path) -> None:
    module, record = load_weights(NAME, None, "none", "both")
    file = tmp_path / "backbone.safetensors"
    save_backbone_checkpoint(file, module, replace(record, stride=1, window=1, width=64, height=64))
    assert load_weights(NAME, None, str(file), "both")[1].dim == 2 * DIM
    with pytest.raises(InputError, match="--pool both"):
        load_weights(NAME, None, str(file))


def test_from_the_command_line_to_the_store(
    bas: Cli, games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = next(games.rglob("*.mp4")), tmp_path / "vit.zarr"
    call = ("extract", video, "--out", out, "--engine", "torch", "--fps", 1, "--size", "64x64")
    assert bas(*call, "--backbone", NAME, "--weights", "none", "--pool", "both") == 0
    store = FeatureStore.open(out)
    assert (store.settings.pool, store.settings.dim) == ("both", 2 * DIM)
    assert bas(*call) == 0  # follows the store
    assert bas(*call, "--pool", "cls") == 2
    assert "these differ: dim, pool" in capsys.readouterr().err
    call = ("extract", video, "--out", tmp_path / "grid.zarr", *call[4:])
    assert bas(*call, "--backbone", "timm:test_resnet", "--weights", "none", "--pool", "grid:2x4") == 0
    assert FeatureStore.open(tmp_path / "grid.zarr").settings.pool == "grid:2x4"
    assert bas(*call) == 0
    assert bas(*call, "--pool", "grid") == 2
