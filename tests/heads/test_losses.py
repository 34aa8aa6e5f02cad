"""Losses against torch's own, and mixup."""

import torch
from torch import Tensor
from torch.nn import functional

from bas.extract.backbones.torchvision_compat import import_with_torchvision
from bas.heads.losses import (
    binary_cross_entropy,
    cross_entropy,
    focal_cross_entropy,
    mean_where,
    mixup,
    num_present,
    sigmoid_focal,
    softmax_focal,
)
from bas.heads.targets import clip_targets, stack_targets

NUM_CLASSES = 3


def logits_and_classes() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 10, NUM_CLASSES + 1, generator=generator)
    classes = torch.randint(0, NUM_CLASSES + 1, (2, 10), generator=generator)
    mask = torch.arange(10) < torch.tensor([[10], [6]])
    return logits, classes, mask


def test_cross_entropy_is_that_of_torch_with_weight_five() -> None:
    logits, classes, mask = logits_and_classes()
    weight = torch.tensor([1.0, 5, 5, 5])
    ours = cross_entropy(logits, functional.one_hot(classes, NUM_CLASSES + 1).float(), mask)
    torch.testing.assert_close(ours, functional.cross_entropy(logits[mask], classes[mask], weight=weight))


def test_softmax_focal_weighs_by_what_is_missing() -> None:
    logits, classes, mask = logits_and_classes()
    p = logits.softmax(-1).gather(-1, classes.unsqueeze(-1)).squeeze(-1)[mask]
    ours = softmax_focal(logits, functional.one_hot(classes, NUM_CLASSES + 1).float(), mask)
    torch.testing.assert_close(ours, (-((1 - p) ** 2) * p.log()).mean())


def test_sigmoid_focal_is_the_plain_form_for_hard_presence() -> None:
    logits, classes, mask = logits_and_classes()
    presence = functional.one_hot(classes, NUM_CLASSES + 1).float()
    right = torch.where(presence > 0, logits.sigmoid(), 1 - logits.sigmoid())[mask]
    ours = sigmoid_focal(logits, presence, mask)
    plain = -((1 - right) ** 2) * right.log()
    torch.testing.assert_close(ours, plain.sum())
    weighted = torch.where(presence[mask] > 0, 0.25, 0.75) * plain
    torch.testing.assert_close(sigmoid_focal(logits, presence, mask, alpha=0.25), weighted.sum())
    assert num_present(presence, mask) == presence[mask].sum()


def test_binary_cross_entropy_is_that_of_torch_by_the_presence() -> None:
    logits, classes, mask = logits_and_classes()
    presence = functional.one_hot(classes, NUM_CLASSES + 1) * 0.7
    wanted = functional.binary_cross_entropy_with_logits(logits[mask], presence[mask], reduction="sum")
    torch.testing.assert_close(binary_cross_entropy(logits, presence, mask), wanted / presence[mask].sum())


def test_padded_steps_give_neither_loss_nor_gradient() -> None:
    logits, classes, mask = logits_and_classes()
    labels = functional.one_hot(classes, NUM_CLASSES + 1).float()
    for loss in (cross_entropy, softmax_focal, sigmoid_focal, binary_cross_entropy, focal_cross_entropy):
        wild = logits.masked_fill(~mask.unsqueeze(-1), torch.inf).requires_grad_()
        value = loss(wild, labels, mask)
        torch.testing.assert_close(value, loss(logits, labels, mask))
        (gradient,) = torch.autograd.grad(value, wild)
        assert not gradient[~mask].any()
        assert gradient[mask].isfinite().all()


def test_the_focal_loss_of_lromul_is_torchvisions() -> None:
    logits, classes, _ = logits_and_classes()
    labels = functional.one_hot(classes, NUM_CLASSES + 1).float()
    everywhere = torch.ones(classes.shape, dtype=torch.bool)
    theirs = import_with_torchvision("torchvision.ops").sigmoid_focal_loss
    wanted = theirs(logits, labels, alpha=-1, gamma=1.2, reduction="mean")
    torch.testing.assert_close(focal_cross_entropy(logits, labels, everywhere), wanted)


def test_mean_where_ignores_the_rest() -> None:
    values = torch.tensor([1.0, torch.nan, 3.0])
    assert mean_where(values, torch.tensor([True, False, True])) == 2
    assert mean_where(values, torch.tensor([False, False, False])) == 0


def test_mixup_is_a_function_of_its_seed_and_blends() -> None:
    clips = [clip_targets([(step, 1)], num_steps=8, num_classes=NUM_CLASSES)[0] for step in (1, 3, 5)]
    targets, x = stack_targets(clips), torch.arange(3.0)[:, None, None].expand(3, 8, 2)
    first = mixup(x, targets, seed=4, alpha=5.0)
    again = mixup(x, targets, seed=4, alpha=5.0)
    assert torch.equal(first[0], again[0])
    (share, same), (other_share, other) = first[1]
    assert share + other_share == 1
    assert 0.05 < share < 0.95
    assert same is targets
    order = [clip.class_bt.argmax().item() for clip in (other.select(torch.tensor(i)) for i in range(3))]
    partners = torch.tensor([[1, 3, 5].index(int(step)) for step in order])
    torch.testing.assert_close(first[0], share * x + other_share * x[partners])


def test_each_process_blends_its_own_clips_of_the_batch() -> None:
    clips = [clip_targets([(step, 1)], num_steps=9, num_classes=NUM_CLASSES)[0] for step in range(6)]
    targets, pixels = stack_targets(clips), (40 * torch.arange(6, dtype=torch.uint8)).reshape(6, 1, 1)
    for own in (pixels[:3], pixels[3:]):
        mixed, parts = mixup(own, targets, seed=1, alpha=5.0)
        partners = parts[1][1].class_bt.argmax(1)
        assert sorted(partners[:3].tolist()) == [0, 1, 2] != partners[:3].tolist()
        assert (partners[3:] - 3).tolist() == partners[:3].tolist()
        torch.testing.assert_close(mixed, parts[0][0] * own + parts[1][0] * own[partners[:3]])


def test_mixup_shares_are_of_the_beta_distribution() -> None:
    targets = stack_targets([clip_targets([], num_steps=1, num_classes=1)[0]])
    shares = [mixup(torch.zeros(1, 1, 1), targets, seed=seed)[1][0][0] for seed in range(2000)]
    values = torch.tensor(shares)
    assert abs(values.mean() - 0.5) < 0.04
    assert abs(values.var() - 1 / (4 * (2 * 0.2 + 1))) < 0.02  # of Beta(0.2, 0.2)
