"""Updates of backbone and head: what learns, how fast, which statistics move; parts of a batch; less memory."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bas.data.sources import DataSet
from bas.errors import InputError
from bas.extract.engines.choose import clip_rows
from bas.extract.extractor import Extractor
from bas.finetune.data import ClipBatch, TrainingClips, VideoSource, augment, augmentation
from bas.finetune.devices import Devices
from bas.finetune.network import FinetuneNet, NetworkInput, batch_norms, trunk_blocks
from bas.finetune.start import Start
from bas.finetune.trainer import ClipTrainer, extractor_of
from bas.heads.losses import mixup
from bas.heads.training.data import Chosen, choose_matches
from bas.heads.training.settings import FinetuneSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Tiny = Callable[..., FinetuneSettings]
Begin = Callable[..., Start]
FRAMES, CLIPS = "timm:test_resnet.r160_in1k", "x3d_xs"
each_backbone = pytest.mark.parametrize("backbone", [FRAMES, CLIPS])


@pytest.fixture
def trainer(start: Begin) -> Callable[..., ClipTrainer]:
    def make(
        settings: FinetuneSettings, backbone: str = FRAMES, *, checkpointing: bool = False, **asked: Any
    ) -> ClipTrainer:
        begun = start(settings, backbone, **asked)
        torch.manual_seed(settings.seed)
        net = FinetuneNet(
            copy.deepcopy(begun.backbone),
            begun.spotting(settings, ("LEFT", "RIGHT")),
            features=begun.features,
            settings=settings,
            checkpointing=checkpointing,
        )
        fabric, nothing = Devices(place="cpu").launch(settings.precision), cast(Any, None)  # steps need no videos
        chosen = Chosen((), (), ("LEFT", "RIGHT"), Fraction(25))
        return ClipTrainer(settings, net, fabric, clips=nothing, chosen=chosen, source=nothing, record=nothing)

    return make


@pytest.fixture
def batches(data: DataSet, start: Begin) -> Callable[[FinetuneSettings], list[tuple[ClipBatch, ...]]]:
    def read(settings: FinetuneSettings) -> list[tuple[ClipBatch, ...]]:
        begun = start(settings)
        source = VideoSource(data, Extractor(begun.backbone, begun.features))
        chosen = choose_matches(source.matches(), stride=settings.stride)
        clips = TrainingClips(chosen, source, settings, threads=1, device=torch.device("cpu"))
        return list(clips.batches(0, first_step=0))

    return read


Read = Callable[[FinetuneSettings], Sequence[tuple[ClipBatch, ...]]]
Make = Callable[..., ClipTrainer]


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def gradients(net: FinetuneNet, part: ClipBatch, settings: FinetuneSettings, *, seed: int) -> dict[str, Tensor]:
    """Of the loss of a part, computed here."""
    net = copy.deepcopy(net)
    pixels = augment(part.pixels, augmentation(settings.augment), seeds=part.seeds)
    net(NetworkInput(pixels, part.targets, seed=seed)).backward()
    return {name: each.grad for name, each in net.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_batch_in_two_parts_learns_from_their_mean(tiny: Tiny, trainer: Make, batches: Read, norm: str) -> None:
    settings = tiny(accumulate=2, norm=norm, mixup=0.2, augment="seed")
    trained, batch = trainer(settings), batches(settings)[0]
    assert [len(part.pixels) for part in batch] == [2, 2]
    first, second = (gradients(trained.model, part, settings, seed=5 + number) for number, part in enumerate(batch))
    trained.training_step(batch, lr=1e-3, seed=5)
    found = {name: each.grad for name, each in trained.model.named_parameters() if each.grad is not None}
    assert set(found) == set(first)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-6)
    if norm == "frozen":  # clips know of each other by their statistics, mixup and the loss's mean only
        whole = tiny(norm=norm, augment="none")
        halves = tiny(norm=norm, augment="none", accumulate=2)
        losses = [float(trainer(each).training_step(batches(each)[0], lr=1e-3, seed=5)) for each in (whole, halves)]
        assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_mixup_of_pictures_is_that_of_their_mixture(tiny: Tiny, trainer: Make, batches: Read) -> None:
    settings = tiny(mixup=5.0, mixup_of="pictures", norm="frozen", augment="none", dropout=0.0)
    net, [part] = trainer(settings).model, batches(settings)[0]
    plain = trainer(replace(settings, mixup=0.0)).model
    plain.load_state_dict(net.state_dict())
    mixed, shares = mixup(part.pixels, part.targets, seed=3, alpha=5.0)
    wanted = sum(share * plain(NetworkInput(mixed, targets, seed=3)) for share, targets in shares)
    torch.testing.assert_close(net(NetworkInput(part.pixels, part.targets, seed=3)), wanted)
    assert not torch.equal(wanted, plain(NetworkInput(part.pixels, part.targets, seed=3)))
    with pytest.raises(InputError, match="mixup_of"):
        tiny(mixup=0.2, mixup_of="pictures", accumulate=4)


def test_the_rows_of_each_network_are_learned_from_by_a_head_of_their_own(
    tiny: Tiny, trainer: Make, batches: Read
) -> None:
    settings = tiny(side_weight=0.5, clip_len=4, dropout=0.0)
    trained = trainer(settings, "timm:test_resnet+adaspot", size=(192, 128))
    net, targets = trained.model, batches(settings)[0][0].targets
    pixels = torch.randint(0, 256, (4, 4, 128, 192, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found: list[Tensor] = []
    rows: dict[str, Tensor] = {}
    for name in ("lowres_linear", "highres_linear"):
        module = net.backbone.get_submodule(f"trunk.{name}")
        module.register_forward_hook(lambda _module, _inputs, row, name=name: rows.__setitem__(name, row))
    loss = net(NetworkInput(pixels, targets, seed=0))
    whole = torch.maximum(*rows.values())
    for head, each in zip((net.spotting, *net.sides), (whole, *rows.values()), strict=True):
        found.append(head.loss(head(each.reshape(4, 4, -1)), targets))
    torch.testing.assert_close(loss, (found[0] + 0.5 * (found[1] + found[2])) / 2)
    before = copied(net.sides)
    trained.training_step((ClipBatch(pixels, (0, 1, 2, 3), targets),), lr=1e-3, seed=0)
    assert changed(before, net.sides) >= {f"{side}.head.classifier.weight" for side in (0, 1)}
    with pytest.raises(InputError, match="side-weight"):
        trainer(settings)


def test_backbone_and_head_have_their_own_learning_rates(tiny: Tiny, trainer: Make, batches: Read) -> None:
    settings = tiny(backbone_lr=0.1, weight_decay=0.0)
    trained = trainer(settings)
    head, backbone = copied(trained.model.spotting), copied(trained.model.backbone)
    trained.training_step(batches(settings)[0], lr=1e-3, seed=0)

    def furthest(before: dict[str, Tensor], module: nn.Module) -> float:
        return max(float((each.detach() - before[name]).abs().max()) for name, each in module.named_parameters())

    assert furthest(head, trained.model.spotting) == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is the rate
    assert furthest(backbone, trained.model.backbone) == pytest.approx(1e-4, rel=1e-2)


@each_backbone
@pytest.mark.parametrize(
    ("unfreeze", "norm", "moves"),
    [(None, "auto", True), (None, "frozen", False), (1, "auto", False), (1, "batch", True), (0, "batch", False)],
)
def test_what_does_not_learn_stays_and_so_do_its_statistics(
    tiny: Tiny, trainer: Make, batches: Read, backbone: str, unfreeze: int | None, norm: str, moves: bool
) -> None:
    settings = tiny(unfreeze=unfreeze, norm=norm)
    trained = trainer(settings, backbone)
    net = trained.model
    names = {id(tensor): name for name, tensor in [*net.backbone.named_parameters(), *net.backbone.named_buffers()]}
    begun, head = copied(net.backbone), copied(net.spotting)
    for batch in batches(settings)[:2]:
        trained.training_step(batch, lr=1e-3, seed=0)
    blocks = trunk_blocks(net.backbone, {id(each) for each in net.backbone.parameters()})
    learning = blocks if unfreeze is None else blocks[len(blocks) - unfreeze :]
    weights = {names[id(each)] for block in learning for each in block.parameters()}
    statistics = {names[id(each)] for block in learning for norm in batch_norms([block]) for each in norm.buffers()}
    found = changed(begun, net.backbone)
    assert found & set(dict(net.backbone.named_buffers())) == (statistics if moves else set())
    assert found - statistics <= weights
    assert len(found - statistics) >= 0.5 * len(weights)
    assert {name for name, each in net.backbone.named_parameters() if each.requires_grad} == weights
    assert changed(head, net.spotting) >= {"head.classifier.weight", "head.classifier.bias"}
    assert (net.num_learning, net.num_blocks) == (len(learning), len(blocks))
    trained.kept_model.eval()
    assert not any(module.training for module in net.modules())


def test_a_layer_that_rows_do_not_depend_on_is_no_block(tiny: Tiny, trainer: Make) -> None:
    """A network's own classifier needs it, we do not: `--unfreeze 1` would train nothing, and processes would wait."""
    settings = tiny(unfreeze=1)
    net = trainer(settings, "timm:mobilenetv3_small_050").model
    unused = {"trunk.conv_head.weight", "trunk.conv_head.bias"}
    learning = {name for name, each in net.backbone.named_parameters() if each.requires_grad}
    assert unused <= set(dict(net.backbone.named_parameters()))
    assert learning
    assert all(name.startswith("trunk.blocks.5.") for name in learning)
    everything = trainer(tiny(), "timm:mobilenetv3_small_050").model
    frozen = {name for name, each in everything.backbone.named_parameters() if not each.requires_grad}
    assert frozen == unused


@pytest.mark.parametrize(
    ("backbone", "changes"), [(FRAMES, {}), (CLIPS, {}), (CLIPS, {"unfreeze": 2, "norm": "batch", "ema": 0.5})]
)
def test_blocks_that_are_computed_twice_change_nothing(
    tiny: Tiny, trainer: Make, batches: Read, backbone: str, changes: dict[str, Any]
) -> None:
    settings = tiny(**changes)
    plain, twice = (trainer(settings, backbone, checkpointing=each) for each in (False, True))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    last = trunk_blocks(twice.model.backbone, {id(each) for each in twice.model.backbone.parameters()})[-1]
    norm = batch_norms([last])[-1]
    norm.register_forward_pre_hook(count)
    for batch in batches(settings)[:2]:
        losses = [float(each.training_step(batch, lr=1e-3, seed=0)) for each in (plain, twice)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert calls == 4
    assert norm.momentum == 0.1
    for of_plain, of_twice in ((plain.model, twice.model), (plain.kept_model, twice.kept_model)):
        wanted = of_plain.state_dict()
        for name, tensor in of_twice.state_dict().items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6, msg=name)


@each_backbone
def test_rows_for_validation_leave_the_network_that_learns_as_it_is(
    tiny: Tiny, start: Begin, trainer: Make, backbone: str
) -> None:
    settings = tiny()
    net, begun = trainer(settings, backbone).model.train(), start(settings, backbone)
    before, modes = copied(net), [part.training for part in net.modules()]
    held = extractor_of(net, Extractor(begun.backbone, begun.features, "torch", "cpu"))
    engine = held.engine()
    clip_rows(engine, np.random.default_rng(0).integers(0, 256, (2, *engine.clip_shape, 3), np.uint8))
    assert not changed(before, net)
    assert [part.training for part in net.modules()] == modes
    learning = {tensor.data_ptr() for tensor in net.backbone.state_dict().values()}
    assert learning.isdisjoint(tensor.data_ptr() for tensor in held.module.state_dict().values())


def test_averaged_weights_follow(tiny: Tiny, trainer: Make, batches: Read) -> None:
    settings = tiny(ema=0.9)
    trained = trainer(settings)
    assert trained.average is not None
    assert trained.kept_model is trained.average
    kept = copied(trained.average)
    for batch in batches(settings)[:2]:
        trained.training_step(batch, lr=1e-3, seed=0, ema_decay=0.6)
        new = trained.model.state_dict()
        for name, tensor in trained.average.state_dict().items():
            is_float = tensor.is_floating_point()
            kept[name] = 0.6 * kept[name] + 0.4 * new[name] if is_float else new[name].clone()
            torch.testing.assert_close(tensor, kept[name])


def test_gradients_are_scaled_down_and_no_number_is_no_crash(tiny: Tiny, trainer: Make, batches: Read) -> None:
    settings = tiny(max_grad_norm=1e-3)
    trained = trainer(settings)
    trained.training_step(batches(settings)[0], lr=1e-3, seed=0)
    norms = [float(each.grad.norm()) for each in trained.model.parameters() if each.grad is not None]
    assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(1e-3, rel=1e-3)
    next(trained.model.backbone.parameters()).data[0, 0, 0, 0] = float("inf")
    assert not torch.isfinite(trained.training_step(batches(settings)[0], lr=1e-3, seed=0))


def test_bf16_learns_about_the_same(tiny: Tiny, trainer: Make, batches: Read, capfd: Any) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        settings = tiny(precision=precision, norm="frozen")
        losses.append([float(trainer(settings).training_step(each, lr=1e-3, seed=0)) for each in batches(settings)[:1]])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert capfd.readouterr() == ("", "")  # Fabric tells of every choice of ours, if it is let


def test_what_a_backbone_drops_is_a_function_of_the_seed(tiny: Tiny, trainer: Make, batches: Read) -> None:
    """Else a run that goes on would drop otherwise than the one that was never stopped."""
    settings = tiny()
    part = batches(settings)[0][0]
    found = []
    for noise in (1, 2):
        trained = trainer(settings)
        stem = trained.model.backbone.get_submodule("trunk.conv1")
        assert isinstance(stem, nn.Sequential)
        stem[0] = nn.Sequential(stem[0], nn.Dropout(0.5))
        torch.manual_seed(noise)
        found.append(float(trained.training_step((part,), lr=1e-3, seed=3)))
    assert found[0] == found[1]
