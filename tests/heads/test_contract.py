"""What every head of the table, and some compositions, must hold."""

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
    "anchor": AnchorSettings(width=16),
    "actionformer": ActionFormerSettings(width=16, num_heads=2),
}
every_head = pytest.mark.parametrize("name", NAMES)


def small(name: str, *, dim: int = DIM) -> Head:
    """The head at small widths, evaluating, with norms and biases away from their plain first values."""
    head = build_head(name, dim=dim, num_classes=NUM_CLASSES, settings=SMALL).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in head.state_dict().values():
        if tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.3)
    return head


def features(num_clips: int, num_steps: int, *, dim: int = DIM) -> torch.Tensor:
    return torch.randn(num_clips, num_steps, dim, generator=torch.Generator().manual_seed(2))


def targets(num_clips: int, num_steps: int, *, padded_to: int = 0) -> Targets:
    """Two events per clip, the second behind the end of a short one; padded and masked up to `padded_to`."""
    middle = num_steps // 2
    clips = [clip(num_steps, [(middle, 1 + i % NUM_CLASSES), (middle + 9, 2)]) for i in range(num_clips)]
    longest = clip(max(num_steps, padded_to), [])
    return stack_targets([*clips, longest]).select(torch.arange(num_clips))


def clip(num_steps: int, events: list[tuple[int, int]], *, settings: TargetSettings | None = None) -> Targets:
    return clip_targets(events, num_steps=num_steps, num_classes=NUM_CLASSES, settings=settings).targets


def masked(num_steps: int, *real: int) -> torch.Tensor:
    return torch.arange(num_steps) < torch.tensor(real).unsqueeze(1)


@every_head
@pytest.mark.parametrize("num_steps", [1, 2, 7, 33])
@pytest.mark.parametrize("with_mask", [False, True])
def test_any_number_of_steps(name: str, num_steps: int, with_mask: bool) -> None:
    head = small(name).train()
    mask = masked(num_steps, num_steps, max(1, num_steps - 3)) if with_mask else None
    outputs = head(features(2, num_steps), mask)
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
    head = build_head(name, dim=16, num_classes=1, settings=SMALL).train()
    clip = clip_targets([(0, 1)], num_steps=1, num_classes=1).targets
    assert head.loss(head(features(1, 1, dim=16)), stack_targets([clip])).isfinite()


@every_head
@pytest.mark.parametrize(("num_steps", "real"), [(40, 39), (41, 32), (24, 8), (9, 1)])
def test_padding_changes_no_score_of_a_real_step(name: str, num_steps: int, real: int) -> None:
    head = small(name)
    x = features(2, num_steps)
    x[1, real:] = float("nan")
    padded = head.scores(head(x, masked(num_steps, num_steps, real)))
    alone = head.scores(head(x[1:, :real]))
    torch.testing.assert_close(padded[1:, :real], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[:1], head.scores(head(x[:1])), rtol=1e-4, atol=1e-5)
    assert not padded[1, real:].any()


@every_head
def test_what_is_in_masked_steps_changes_nothing_wherever_they_are(name: str) -> None:
    head = small(name)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0, :4] = mask[0, 11:15] = mask[1, 22:] = False
    x = features(2, 30)
    other = torch.where(mask.unsqueeze(-1), x, 50.0)
    torch.testing.assert_close(head.scores(head(x, mask)), head.scores(head(other, mask)))


@every_head
def test_padding_changes_no_loss_and_no_gradient_of_training(name: str) -> None:
    head = small(name).train()
    _silence_dropout(head)
    both = []
    for extra in (0, 7):
        head.zero_grad()
        x = torch.nn.functional.pad(features(2, 26), (0, 0, 0, extra), value=3.0)
        loss = head.loss(head(x, masked(26 + extra, 26, 26)), targets(2, 26, padded_to=26 + extra))
        loss.backward()  # type: ignore[no-untyped-call]
        both.append([loss.detach(), *(p.grad for p in head.parameters() if p.grad is not None)])
    for alone, padded in zip(*both, strict=True):
        torch.testing.assert_close(padded, alone, rtol=1e-3, atol=1e-5)


def _silence_dropout(head: Head) -> None:
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@every_head
def test_a_batch_without_real_steps_gives_no_loss_and_no_nan(name: str) -> None:
    head = small(name)
    nothing = torch.zeros(2, 20, dtype=torch.bool)
    wanted = targets(2, 20)
    empty = Targets(wanted.label_btn, wanted.presence_btk, wanted.displacement_bt, wanted.offset_btk, nothing)
    outputs = head(features(2, 20), nothing)
    assert head.loss(outputs, empty).item() == 0
    assert not head.scores(outputs).any()


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
    events = clip_targets([(3, 1), (3, 2)], num_steps=6, num_classes=NUM_CLASSES).targets
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
        outputs = head(x, masked(24, 24, 20))
        scores = head.scores(outputs)
        assert head.loss(outputs, targets(2, 24)).isfinite()
    assert scores.isfinite().all()


def test_features_of_another_width_are_refused() -> None:
    head = small("tcn")
    with pytest.raises(InputError, match="features do not fit the head"):
        head(torch.zeros(1, 4, DIM + 1))
    with pytest.raises(InputError, match="features do not fit the head"):
        head(torch.zeros(1, 0, DIM))
    with pytest.raises(InputError, match="mask does not fit"):
        head(torch.zeros(1, 4, DIM), torch.ones(1, 5, dtype=torch.bool))
