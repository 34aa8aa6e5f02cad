"""What every head of the table, and some compositions, must hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bas.errors import InputError
from bas.heads.actionformer import ActionFormerSettings
from bas.heads.anchor import AnchorSettings
from bas.heads.contract import Head, HeadSettings, NeckSettings
from bas.heads.gru import BiGruSettings, UnetGruSettings
from bas.heads.registry import HEADS, build_head
from bas.heads.stage_unet import StageUnetSettings
from bas.heads.targets import Targets, clip_targets, stack_targets
from bas.heads.tcn import TcnDilatedSettings
from bas.heads.training.settings import TargetSettings, default_targets
from bas.heads.transformer import TransformerSettings

DIM, NUM_CLASSES = 12, 3
NAMES = [*HEADS, "tcn+sgp", "ed+disp", "fc+disp", "tcn+anchor", "sgp_block+actionformer", "bigru+disp"]
SMALL: dict[str, NeckSettings | HeadSettings] = {
    "tcn_dilated": TcnDilatedSettings(hidden=16),
    "transformer": TransformerSettings(width=16, num_heads=2, feed_forward=16),
    "bigru": BiGruSettings(hidden=8),
    "unet_gru": UnetGruSettings(widths=(8, 16), gru=BiGruSettings(hidden=8)),
    "stage_unet": StageUnetSettings(stages=(DIM // 2, DIM // 2), width=8),
    "anchor": AnchorSettings(width=16),
    "actionformer": ActionFormerSettings(width=16, num_heads=2, drop_path=0.0),
}
every_head = pytest.mark.parametrize("name", NAMES)


def small(name: str, *, dim: int = DIM) -> Head:
    """The head at small widths, evaluating, with norms and biases away from their plain first values."""
    settings = SMALL | {"stage_unet": StageUnetSettings(stages=(max(1, dim // 2), max(1, dim - dim // 2)), width=8)}
    head = build_head(name, dim=dim, num_classes=NUM_CLASSES, settings=settings).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in head.state_dict().values():
        if tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.3)
    return head


def features(num_clips: int, num_steps: int, *, dim: int = DIM) -> torch.Tensor:
    return torch.randn(num_clips, num_steps, dim, generator=torch.Generator().manual_seed(2))


def targets(num_clips: int, num_steps: int, *, shift: int = 0) -> Targets:
    """Two events per clip, the second behind the end of a short one."""
    middle = num_steps // 2 + shift
    return stack_targets([clip(num_steps, [(middle, 1 + i % NUM_CLASSES), (middle + 9, 2)]) for i in range(num_clips)])


def clip(num_steps: int, events: list[tuple[int, int]], *, settings: TargetSettings | None = None) -> Targets:
    return clip_targets(events, num_steps=num_steps, num_classes=NUM_CLASSES, settings=settings)[0]


@every_head
@pytest.mark.parametrize("num_steps", [1, 2, 7, 33])
def test_any_number_of_steps(name: str, num_steps: int) -> None:
    head = small(name).train()
    outputs = head(features(2, num_steps))
    scores = head.scores(outputs)
    assert scores.shape == (2, num_steps, NUM_CLASSES)
    assert scores.min() >= 0
    assert scores.max() <= 1
    loss = head.loss(outputs, targets(2, num_steps))
    assert loss.shape == ()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in head.parameters())


@every_head
def test_one_step_of_one_clip_trains(name: str) -> None:
    head = build_head(name, dim=DIM, num_classes=1, settings=SMALL).train()
    clip = clip_targets([(0, 1)], num_steps=1, num_classes=1)[0]
    assert head.loss(head(features(1, 1)), stack_targets([clip])).isfinite()


@every_head
def test_masked_steps_give_no_loss(name: str) -> None:
    """The last rows of a match shorter than a window are repeated; their targets say that they are not real."""
    head = small(name)
    wanted, outputs = targets(2, 20), head(features(2, 20))
    nothing = replace(wanted, mask_bt=torch.zeros(2, 20, dtype=torch.bool))
    assert head.loss(outputs, nothing).item() == 0
    half = torch.arange(20).expand(2, 20) < 12
    others = targets(2, 20, shift=3)
    merged = {
        key: torch.where(half.view(2, 20, *[1] * (tensor.dim() - 2)), tensor, getattr(others, key))
        for key, tensor in vars(wanted).items()
    }
    in_part, changed_behind = (replace(each, mask_bt=half) for each in (wanted, Targets(**merged)))
    torch.testing.assert_close(head.loss(outputs, in_part), head.loss(outputs, changed_behind))
    assert head.loss(outputs, in_part) != head.loss(outputs, wanted)


@every_head
def test_gradient_reaches_every_parameter(name: str) -> None:
    head = small(name).train()
    settings = default_targets(name)
    events = [[(10, 1), (40, 2), (70, 3)], [(5, 3), (90, 1)], [(50, 2), (51, 1)]]
    wanted = stack_targets([clip(96, each, settings=settings) for each in events])
    head.loss(head(features(3, 96)), wanted).backward()  # type: ignore[no-untyped-call]
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@every_head
def test_weights_survive_a_file(name: str, tmp_path: Path) -> None:
    head = small(name)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    other = build_head(name, dim=DIM, num_classes=NUM_CLASSES, settings=SMALL).eval()
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    x = features(2, 21)
    assert torch.equal(head.scores(head(x)), other.scores(other(x)))


@every_head
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    head = small(name)
    x = features(3, 29)
    alone = torch.cat([head.scores(head(x[clip : clip + 1])) for clip in range(3)])
    torch.testing.assert_close(head.scores(head(x)), alone, rtol=1e-4, atol=1e-5)


@every_head
@pytest.mark.parametrize("dim", [1, 17, 40])
def test_any_number_of_channels(name: str, dim: int) -> None:
    dim = max(dim, 2) if name == "stage_unet" else dim  # of two stages
    head = small(name, dim=dim)
    assert head.scores(head(features(2, 11, dim=dim))).shape == (2, 11, NUM_CLASSES)


EQUIVARIANT_BY_STEPS = {
    "fc": 1,
    "tcn": 1,
    "tcn_dilated": 1,
    "sgp": 1,
    "sgp_block": 1,
    "tpn": 4,
    "unet": 32,
    "anchor": 1,
    "tcn+sgp": 1,
    "tcn+anchor": 1,
    "fc+disp": 1,
}
"""Head -> steps by which a shift of the input shifts the scores. The others promise nothing: they stretch (`ed`,
`ed_conv`), count positions (`transformer`), remember (`bigru`, `unet_gru`) or have strides of 32 (`actionformer`)."""


@pytest.mark.parametrize(("name", "steps"), EQUIVARIANT_BY_STEPS.items())
def test_scores_move_with_the_input(name: str, steps: int) -> None:
    head = small(name)
    x = torch.zeros(1, 1024, DIM)
    x[:, 500:515] = features(1, 15)
    moved = x.roll(steps, dims=1)
    before = head.scores(head(x))[:, 400:600]
    after = head.scores(head(moved))[:, 400 + steps : 600 + steps]
    assert before.std() > 1e-4
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_sigmoids_give_two_classes_on_one_step() -> None:
    head = build_head("fc", dim=DIM, num_classes=NUM_CLASSES, loss="bce")
    x = features(1, 6).clone()
    events = clip_targets([(3, 1), (3, 2)], num_steps=6, num_classes=NUM_CLASSES)[0]
    wanted = stack_targets([events])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    head.eval()
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(head(x), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    scores = head.scores(head(x))
    assert scores.shape == (1, 6, NUM_CLASSES)
    assert scores[0, 3, :2].min() > 0.9
    assert scores[0, :3].max() < 0.1


@every_head
def test_half_precision_stays_finite(name: str) -> None:
    head = small(name)
    x = features(2, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = head(x)
        scores = head.scores(outputs)
        assert head.loss(outputs, targets(2, 24)).isfinite()
    assert scores.isfinite().all()


def test_features_of_another_width_are_refused() -> None:
    head = small("tcn")
    with pytest.raises(InputError, match="features do not fit the head"):
        head(torch.zeros(1, 4, DIM + 1))
    with pytest.raises(InputError, match="features do not fit the head"):
        head(torch.zeros(1, 0, DIM))
