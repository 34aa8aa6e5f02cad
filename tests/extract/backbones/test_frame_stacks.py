"""Stacks of grey frames: what a row sees, colours, the ends of a clip, windows, and weights in their authors' form."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.extract.backbones.frame_stacks import GeneralisedMean, StackBackbone
from bas.extract.backbones.nets import build_timm
from bas.extract.backbones.registry import BACKBONES, backbone_spec, build_backbone
from bas.extract.backbones.tensor_files import used_tensors
from bas.extract.backbones.weights import load_weights

NAME, REACH = "stack15_efficientnetv2_b0", 7
Cli = Callable[..., int]


def clips(num_steps: int, num_clips: int = 1) -> Tensor:
    """Coloured blots, in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    blots = torch.rand(num_clips, 3 * num_steps, 3, 4, generator=generator, dtype=torch.float64)
    return torch.unflatten(nn.functional.interpolate(blots, (48, 64), mode="bilinear"), 1, (3, num_steps))


@cache
def lively() -> nn.Module:
    """In float64, with statistics under which signals live."""
    torch.manual_seed(0)
    module = build_backbone(NAME).double().train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            layer.momentum = 1.0
            nn.init.normal_(layer.bias, std=0.3)
    with torch.no_grad():
        module(clips(8))
    return module.eval()


@torch.no_grad()
def test_a_row_sees_its_own_stack_and_nothing_else() -> None:
    module, x = lively(), clips(18)
    rows = module(x)
    for step in (0, 3, 9, 17):
        changed = x.clone()
        changed[:, :, step, :24] = 1 - changed[:, :, step, :24]
        difference = (module(changed) - rows).abs().amax((0, 2))
        is_seen = (torch.arange(18) - step).abs() <= REACH
        assert difference[is_seen].min() > 1e-6, step
        assert difference[~is_seen].max() < 1e-10, step


@torch.no_grad()
def test_frames_outside_a_clip_are_its_first_and_last_again() -> None:
    module = lively()
    for num_steps in (1, 2, 5):
        x = clips(num_steps, num_clips=2)
        longer = torch.cat([x[:, :, :1].expand(-1, -1, 9, -1, -1), x, x[:, :, -1:].expand(-1, -1, 9, -1, -1)], dim=2)
        rows = module(x)
        assert rows.shape == (2, num_steps, BACKBONES[NAME].output(None).dim)
        torch.testing.assert_close(rows, module(longer)[:, 9:-9])


@torch.no_grad()
def test_colours_count_by_their_luma_only() -> None:
    module, x = lively(), clips(3)
    grey = (x * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(module(grey.expand_as(x)), module(x))
    assert (module(x.flip(1)) - module(x)).abs().max() > 1e-3


def test_every_parameter_learns() -> None:
    module = build_backbone(NAME).train()
    module(clips(4, num_clips=2).float()).square().sum().backward()
    assert [name for name, parameter in module.named_parameters() if not parameter.grad.abs().sum() > 0] == []  # type: ignore[union-attr]


def test_the_pool_is_between_mean_and_maximum() -> None:
    pool, cells = GeneralisedMean(), torch.rand(2, 5, 4, 6)
    with torch.no_grad():
        pool.p.fill_(1.0)
        torch.testing.assert_close(pool(cells, (1, 1)), cells.mean((2, 3)))
        pool.p.fill_(60.0)
        torch.testing.assert_close(pool(cells, (1, 1)), cells.amax((2, 3)), atol=0.06, rtol=0)
        pool.p.fill_(3.0)
        corner = pool(cells[:, :, :2, :3], (1, 1))
        torch.testing.assert_close(pool(cells, (2, 2))[:, :5], corner)
        assert pool((0.001 * cells).half(), (1, 1)).isfinite().all()


def published(path: Path, *, num_groups: int, **changes: Tensor) -> dict[str, Tensor]:
    """Writes random tensors as the system's own training saves them; returns those of the trunk."""
    torch.manual_seed(5)
    trunk = build_backbone(NAME).get_submodule("trunk").state_dict()
    classifier = {"classifier.weight": torch.randn(2, 256 * num_groups), "classifier.bias": torch.randn(2)}
    state = {**trunk, **classifier, **changes}
    document: dict[str, Any] = {
        "model_name": "BallActionModel",
        "params": {"nn_module": ("multidim_stacker", {"num_frames": 3 * num_groups}), "device": ["cuda:0"], "lr": 3e-4},
        "nn_state_dict": state,
        "no_ema_nn_state_dict": {f"_orig_mod.{name}": torch.zeros_like(tensor) for name, tensor in state.items()},
    }
    torch.save(document, path)
    return trunk


@pytest.mark.parametrize("num_frames", [15, 33])
def test_checkpoints_of_the_source_load_without_their_classifier(num_frames: int, tmp_path: Path) -> None:
    wanted = published(tmp_path / "model-036-0.84.pth", num_groups=num_frames // 3)
    name = f"stack{num_frames}_efficientnetv2_b0"
    module, record = load_weights(name, None, str(tmp_path / "model-036-0.84.pth"))
    used = used_tensors(module)
    assert len(used) > 200
    assert all(torch.equal(tensor, wanted[tensor_name]) for tensor_name, tensor in used.items())
    assert (record.dim, record.mean, record.std) == (256 * num_frames // 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with torch.no_grad():
        assert module(clips(2).float()).shape == (1, 2, record.dim)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    published(tmp_path / "odd.pth", num_groups=5, **{"conv2d_projection.0.weight": torch.zeros(192, 208, 1, 1)})
    with pytest.raises(InputError, match="the weights do not fit the backbone") as error:
        load_weights(NAME, None, str(tmp_path / "odd.pth"))
    assert "1 of another shape (conv2d_projection.0.weight" in str(error.value.got)


def test_the_2d_networks_own_weights_begin_it(tmp_path: Path) -> None:
    torch.manual_seed(6)
    theirs = build_timm("tf_efficientnetv2_b0.in1k").state_dict()
    torch.save({**theirs, "classifier.weight": torch.zeros(1000, 1280)}, tmp_path / "imagenet.pth")
    found = used_tensors(load_weights(NAME, None, str(tmp_path / "imagenet.pth"))[0])
    random = used_tensors(load_weights(NAME, None, "none")[0])
    inner = {name for name in found if name.startswith("conv2d_encoder.")}
    assert all(torch.equal(found[name], theirs[name.removeprefix("conv2d_encoder.")]) for name in inner)
    assert all(torch.equal(found[name], random[name]) for name in found.keys() - inner)
    assert any(not torch.equal(found[name], random[name]) for name in inner)


def test_what_is_known_of_it() -> None:
    spec = backbone_spec(NAME)
    assert (spec.stride, spec.size, spec.output(None).receptive_field_steps) == (2, (1280, 736), 2 * REACH + 1)
    assert [spec.hop(window) for window in (50, 33, 28, 20, 1)] == [36, 19, 14, 10, 1]
    assert (spec.blend, backbone_spec("x3d_s").blend) == ("centre", "hann")
    assert backbone_spec(NAME, "grid:2x3").output(None).dim == 6 * 1280
    gridded = build_backbone(NAME, pool="grid:2x3").eval()
    assert isinstance(gridded, StackBackbone)
    with torch.no_grad():
        assert gridded(clips(2).float()).shape == (1, 2, 6 * 1280)


@pytest.mark.usefixtures("one_thread")
def test_rows_of_a_store_do_not_depend_on_its_windows(bas: Cli, make_clip: Callable[..., Path], tmp_path: Path) -> None:
    """But for the ends of a match, every row is of the clip that holds its whole stack."""
    video, rows = make_clip("a.mp4", num_frames=130), []
    for window in (28, 35):
        out = tmp_path / f"{window}.zarr"
        call = ("extract", video, "--out", out, "--backbone", NAME, "--weights", "none", "--size", "64x32")
        assert bas(*call, "--window", window, "--engine", "torch") == 0
        store = FeatureStore.open(out)
        assert (store.settings.blend, store.settings.hop, store.settings.stride) == ("centre", window - 14, 2)
        [match] = store.matches()
        rows.append(np.asarray(store.rows(match)[:], dtype=np.float32))
    assert rows[0].shape == rows[1].shape == (130, 1280)
    inner = slice(2 * REACH, -2 * REACH)
    assert np.abs(rows[0][inner] - rows[1][inner]).max() <= 2e-3 * np.abs(rows[0]).max()  # rows are kept in fp16
    assert rows[0][inner].std(0).max() > 2e-3 * np.abs(rows[0]).max()
