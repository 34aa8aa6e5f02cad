"""Each head learns events that no single step can tell: the order of two pulses, with the event midway."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch

from bas.heads.actionformer import ActionFormerSettings
from bas.heads.anchor import AnchorSettings
from bas.heads.contract import Head, HeadSettings, NeckSettings
from bas.heads.gru import BiGruSettings, UnetGruSettings
from bas.heads.registry import build_head
from bas.heads.targets import Targets, clip_targets, stack_targets
from bas.heads.tcn import TcnDilatedSettings
from bas.heads.training.settings import TargetSettings, default_targets
from bas.heads.transformer import TransformerSettings
from bas.heads.unet import UnetSettings

NUM_STEPS, DIM = 32, 16
Batch = tuple[torch.Tensor, Targets]
SMALL: dict[str, NeckSettings | HeadSettings] = {
    "tcn_dilated": TcnDilatedSettings(hidden=32),
    "transformer": TransformerSettings(width=64, num_heads=4, feed_forward=64, dropout=0.0),
    "bigru": BiGruSettings(hidden=32),
    "unet": UnetSettings(widths=(24, 32, 48)),
    "unet_gru": UnetGruSettings(widths=(32, 32), gru=BiGruSettings(hidden=32)),
    "anchor": AnchorSettings(width=32),
    "actionformer": ActionFormerSettings(width=32, num_heads=2),
}


@dataclass(frozen=True)
class Toy:
    """How a head is trained on the toy and what it must reach."""

    num_updates: int = 150
    reach_steps: int = 2
    """The pulses are this far before and after the event."""
    tolerance_steps: int = 1
    """A hit is at most this far off."""
    lr: float = 3e-3


TOYS = {
    "tcn": Toy(num_updates=200),
    "tcn_dilated": Toy(num_updates=100),
    "sgp": Toy(),
    "sgp_block": Toy(),
    "ed": Toy(num_updates=100),
    "ed_conv": Toy(reach_steps=8, tolerance_steps=6),  # order and place within its pool of 8 steps are lost
    "tpn": Toy(reach_steps=1),  # one convolution sees no farther
    "transformer": Toy(num_updates=600, lr=1e-3),
    "bigru": Toy(num_updates=300),
    "unet_gru": Toy(),
    "unet": Toy(num_updates=100),
    "anchor": Toy(num_updates=300),
    "actionformer": Toy(num_updates=300),
    "tcn+sgp": Toy(),
    "tcn_dilated+disp": Toy(num_updates=150),
    "ed+disp": Toy(),
}
SLOW = {"ed+disp", "transformer", "bigru", "unet_gru", "actionformer"}


def toy_batch(num_clips: int, *, reach_steps: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with two pulses of unlike channels around the event, in an order that is the class, and a lone pulse.

    Returns:
        Features (B, T, C); events (B, 2) of step and class 1 or 2.
    """
    x = 0.1 * torch.randn(num_clips, NUM_STEPS, DIM, generator=generator)
    x[..., 2:] += torch.tensor([1.0, -1.0]).repeat((DIM - 2) // 2)  # or LayerNorm would blow up the noise
    step = torch.randint(9, NUM_STEPS - 9, (num_clips,), generator=generator)
    class_id = torch.randint(1, 3, (num_clips,), generator=generator)
    clip = torch.arange(num_clips)
    x[clip, step - reach_steps, class_id - 1] += 2
    x[clip, step + reach_steps, 2 - class_id] += 2
    lone = torch.where(step < NUM_STEPS // 2, NUM_STEPS - 2, 1)
    x[clip, lone, torch.randint(0, 2, (num_clips,), generator=generator)] += 2
    return x, torch.stack([step, class_id], 1)


@cache
def drawn_batches(reach_steps: int, settings: TargetSettings) -> tuple[torch.Generator, list[Batch]]:
    """The batches drawn so far, the same for all heads of these settings, and what draws the next."""
    del reach_steps, settings
    return torch.Generator().manual_seed(0), []


def toy_batches(num_updates: int, reach_steps: int, settings: TargetSettings) -> list[Batch]:
    """What a head is trained on: features (16, T, C) and targets of each update."""
    generator, batches = drawn_batches(reach_steps, settings)
    while len(batches) < num_updates:
        x, events = toy_batch(16, reach_steps=reach_steps, generator=generator)
        clips = [
            clip_targets([(int(step), int(class_id))], num_steps=NUM_STEPS, num_classes=2, settings=settings)[0]
            for step, class_id in events
        ]
        batches.append((x, stack_targets(clips)))
    return batches[:num_updates]


def train(name: str, toy: Toy) -> Head:
    dropout = None if name in ("anchor", "actionformer") else 0.0  # a few hundred updates are too few for it
    head = build_head(name, dim=DIM, num_classes=2, settings=SMALL, dropout=dropout).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=toy.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, toy.lr, total_steps=toy.num_updates)
    for x, targets in toy_batches(toy.num_updates, toy.reach_steps, default_targets(name)):
        optimizer.zero_grad()
        head.loss(head(x), targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return head.eval()


@torch.no_grad()
def hits(head: Head, toy: Toy) -> tuple[float, float]:
    """Shares of unseen clips whose highest score has the right class; and is near the event too."""
    x, events = toy_batch(200, reach_steps=toy.reach_steps, generator=torch.Generator().manual_seed(1))
    best = head.scores(head(x)).flatten(1).argmax(1)
    right = best % 2 + 1 == events[:, 1]
    near = (best // 2 - events[:, 0]).abs() <= toy.tolerance_steps
    return right.float().mean().item(), (right & near).float().mean().item()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in TOYS])
def test_order_of_two_pulses_is_learned_and_placed(name: str) -> None:
    right, placed = hits(train(name, TOYS[name]), TOYS[name])
    assert right > 0.95
    assert placed > 0.9


def test_single_steps_stay_at_chance() -> None:
    right, placed = hits(train("fc", Toy()), Toy())
    assert 0.35 < right < 0.65
    assert placed < 0.1
