"""Augmentation of clips: what a clip gets is a function of its own seed, and all its frames change alike."""

from typing import get_args

import pytest
import torch

from bas.finetune.data import augment, augmentation, clip_seed, is_flipped
from bas.heads.training.settings import Augment

SEEDS = tuple(range(12))


def clips(count: int = len(SEEDS)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 10, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", get_args(Augment))
def test_a_clip_gets_what_its_seed_says_wherever_it_is(name: Augment) -> None:
    change, pixels = augmentation(name), clips()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole = augment(pixels, change, seeds=SEEDS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(augment(pixels[7:9], change, seeds=SEEDS[7:9]), whole[7:9])
    other = augment(pixels, change, seeds=[seed + 1000 for seed in SEEDS])
    assert torch.equal(other, whole) == (name == "none")
    assert whole.dtype == torch.uint8
    assert whole.shape == pixels.shape


def test_flip_mirrors_whole_clips_half_of_the_time() -> None:
    pixels = clips(1).expand(400, -1, -1, -1, -1)
    found = augment(pixels, augmentation("flip"), seeds=[clip_seed(0, 1, number) for number in range(400)])
    is_plain, is_other = ((found == each).flatten(1).all(1) for each in (pixels, pixels.flip(3)))
    assert (is_plain | is_other).all()
    assert 150 < is_other.sum() < 250


@pytest.mark.parametrize("name", ["seed", "strong", "flip"])
def test_labels_know_which_clips_are_mirrored(name: Augment) -> None:
    """Left of a white half: what is right of it afterwards was mirrored, whatever else was changed."""
    pixels = torch.zeros(60, 2, 8, 10, 3, dtype=torch.uint8)
    pixels[..., :5, :] = 255
    found = augment(pixels, augmentation(name), seeds=range(60)).float()
    is_mirrored = (found[:, :, :, 5:].mean((1, 2, 3, 4)) > found[:, :, :, :5].mean((1, 2, 3, 4))).tolist()
    assert is_mirrored == [is_flipped(seed) for seed in range(60)]


def test_the_seeds_recipe_changes_all_frames_of_a_clip_alike() -> None:
    pixels = clips(1)[:, :1].expand(200, 4, -1, -1, -1)
    found = augment(pixels, augmentation("seed"), seeds=range(200))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert 0.6 < float((found != pixels).flatten(1).any(1).float().mean()) < 0.95  # 1 - 0.5 * 0.75 ** 5 is 0.88


def blot(num_frames: int) -> torch.Tensor:
    """The same picture in every frame: a white square in the middle of grey."""
    pixels = torch.full((1, num_frames, 64, 96, 3), 100, dtype=torch.uint8)
    pixels[:, :, 27:37, 43:53] = 255
    return pixels


def middles(clip: torch.Tensor) -> torch.Tensor:
    """Down and right (T, 2) of what is brighter than the rest, pixels."""
    brightness = clip.float().mean(-1)
    weight = (brightness - 178).clamp(min=0)
    down, right = torch.arange(64.0)[:, None], torch.arange(96.0)
    return torch.stack([(weight * axis).sum((1, 2)) / weight.sum((1, 2)) for axis in (down, right)], dim=1)


def test_strong_turns_shifts_and_crops_whole_clips_or_moves_them_evenly() -> None:
    change, pixels = augmentation("strong"), blot(9)
    num_moving = num_shifted = 0
    for seed in range(150):
        found = augment(pixels, change, seeds=[seed])[0]
        if torch.equal(found, found[:1].expand_as(found)):
            num_shifted += int(not torch.equal(found[0], augment(pixels, augmentation("seed"), seeds=[seed])[0, 0]))
            continue
        num_moving += 1
        steps = middles(found).diff(dim=0)
        assert torch.allclose(steps, steps.mean(0).expand_as(steps), atol=0.6), seed
    assert 15 < num_moving < 50  # a fifth
    assert num_shifted > 75


def test_none_leaves_all_as_it_is() -> None:
    assert torch.equal(augment(clips(), augmentation("none"), seeds=SEEDS), clips())
