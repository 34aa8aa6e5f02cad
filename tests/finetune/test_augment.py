"""Augmentation against torchvision's own functions, clip by clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bas.errors import InputError
from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.extract.engines.pytorch import Normalised
from bas.finetune.augment import AUGMENTS, Augment, augment, drawn_change, named_augment

vision = import_with_torchvision("torchvision.transforms.v2.functional")

ALWAYS = {
    "hue": ("jitter", "adjust_hue"),
    "saturation": ("jitter", "adjust_saturation"),
    "brightness": ("jitter", "adjust_brightness"),
    "contrast": ("jitter", "adjust_contrast"),
}
LEFT_ALONE = {"hue": (0.0, 0.0), "saturation": (1.0, 1.0), "brightness": (1.0, 1.0), "contrast": (1.0, 1.0)}
SEED = AUGMENTS["seed"]


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """(4, 3, 14, 18, 3) uint8."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 14, 18, 3), dtype=np.uint8))


def by_torchvision(clip: Tensor, function: str, *arguments: object) -> Tensor:
    """One clip (T, H, W, 3) uint8 -> float32 in [0, 255]."""
    changed: Tensor = getattr(vision, function)(clip.permute(0, 3, 1, 2).float() / 255, *arguments)
    return changed.permute(0, 2, 3, 1) * 255


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_each_jitter_is_that_of_torchvision(clips: Tensor, name: str, seed: int) -> None:
    alone = LEFT_ALONE | {name: getattr(SEED, name)}
    settings = Augment(jitter=1.0, **alone)
    factor = getattr(drawn_change(settings, seed), name)
    wanted = by_torchvision(clips[0], ALWAYS[name][1], factor)
    got = augment(clips[:1], settings, seeds=[seed])[0]
    torch.testing.assert_close(got, wanted, atol=2e-3, rtol=0)
    assert (got - clips[0]).abs().max() > 1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_blur_is_that_of_torchvision(clips: Tensor, seed: int) -> None:
    settings = Augment(blur=1.0)
    sigma = drawn_change(settings, seed).blur_sigma
    assert sigma is not None
    wanted = by_torchvision(clips[0], "gaussian_blur", [5, 5], [sigma, sigma])
    torch.testing.assert_close(augment(clips[:1], settings, seeds=[seed])[0], wanted, atol=1e-3, rtol=0)


def test_all_together_in_the_order_of_the_seed(clips: Tensor) -> None:
    settings = replace(SEED, flip=1.0, jitter=1.0, blur=1.0)
    change = drawn_change(settings, 5)
    frames = clips[0].permute(0, 3, 1, 2).float().flip(-1) / 255
    for name in ("hue", "saturation", "brightness", "contrast"):
        frames = getattr(vision, f"adjust_{name}")(frames, getattr(change, name))
    frames = vision.gaussian_blur(frames, [5, 5], [change.blur_sigma] * 2)
    got = augment(clips[:1], settings, seeds=[5])[0]
    torch.testing.assert_close(got, frames.permute(0, 2, 3, 1) * 255, atol=2e-3, rtol=0)
    assert got.min() >= 0
    assert got.max() <= 255


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_flip_is_exact_and_nothing_is_nothing(clips: Tensor, kind: torch.dtype) -> None:
    given = clips.to(kind)
    seeds = [1, 2, 3, 4]
    assert torch.equal(augment(given, AUGMENTS["none"], seeds=seeds), clips.float())
    assert torch.equal(augment(given, Augment(flip=1.0), seeds=seeds), clips.flip(3).float())
    assert torch.equal(given, clips.to(kind))


def test_a_clip_is_changed_by_its_own_seed_only(clips: Tensor) -> None:
    seeds = [3, 9, 2**70, 3]
    same = clips[[0, 1, 2, 0]]
    together = augment(same, SEED, seeds=seeds)
    assert torch.equal(together, augment(same, SEED, seeds=seeds))
    for clip, seed, got in zip(same, seeds, together, strict=True):
        assert torch.equal(augment(clip[None], SEED, seeds=[seed])[0], got)
    assert torch.equal(together[0], together[3])
    assert torch.equal(augment(same.flip(0), SEED, seeds=seeds[::-1]).flip(0), together)


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    frame = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (14, 18, 3), dtype=np.uint8))
    still = frame.expand(1, 5, 14, 18, 3)
    for seed in range(8):
        got = augment(still, SEED, seeds=[seed])[0]
        assert torch.equal(got, got[:1].expand_as(got))


def test_the_rates_are_those_asked_for() -> None:
    changes = [drawn_change(SEED, seed) for seed in range(2000)]
    assert 0.46 < np.mean([change.flip for change in changes]) < 0.54  # +- 3.6 standard errors
    drawn = {}
    for name in ("hue", "saturation", "brightness", "contrast", "blur_sigma"):
        values = [getattr(change, name) for change in changes if getattr(change, name) is not None]
        low, high = getattr(SEED, name)
        assert 0.215 < len(values) / 2000 < 0.285
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
        drawn[name] = np.array([getattr(change, name) is not None for change in changes], float)
    together = np.corrcoef([*drawn.values(), [change.flip for change in changes]])
    assert np.abs(together - np.eye(6)).max() < 0.09  # each by itself


def test_seeds_that_share_their_low_bits_draw_differently() -> None:
    assert len({drawn_change(SEED, (run << 32) + 7) for run in range(32)}) > 16


def test_autocast_around_it_changes_no_bit(clips: Tensor) -> None:
    settings = replace(SEED, jitter=1.0, blur=1.0)
    plain = augment(clips, settings, seeds=range(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(clips, settings, seeds=range(4)), plain)
    assert plain.dtype == torch.float32
    assert plain.is_contiguous()


def test_the_backbone_takes_it_as_it_takes_pictures(clips: Tensor) -> None:
    net = Normalised(torch.nn.Identity(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), resize_to=(9, 7))
    assert torch.equal(net(augment(clips, AUGMENTS["none"], seeds=range(4))), net(clips))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE")
def test_the_device_changes_nothing_but_rounding(clips: Tensor) -> None:
    here = augment(clips, SEED, seeds=range(4))
    there = augment(clips.cuda(), SEED, seeds=range(4))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=0.5, rtol=0)  # cuDNN may blur in TF32


def test_bad_names_settings_and_shapes_are_told(clips: Tensor) -> None:
    assert named_augment("flip") == Augment(flip=0.5)
    with pytest.raises(InputError, match="none, flip, seed"):
        named_augment("auto")
    for wrong in ({"flip": 1.1}, {"hue": (-0.6, 0.0)}, {"contrast": (1.2, 0.7)}, {"blur_kernel": 4}):
        with pytest.raises(InputError, match="is not usable"):
            Augment(**wrong)
    with pytest.raises(ValueError, match="one per clip"):
        augment(clips, SEED, seeds=[1])
