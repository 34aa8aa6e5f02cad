"""One update: schedule, seeds, clipping, averaged weights, mixup, precision."""

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from bas.errors import InputError
from bas.heads.losses import mixup
from bas.heads.model import build_model
from bas.heads.targets import clip_targets, stack_targets
from bas.heads.training.data import Batch
from bas.heads.training.loop import HeadTrainer, choose_precision, ema_decay, learning_rate, step_seed
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]
CPU = torch.device("cpu")


def batch_of(seed: int = 0, *, device: torch.device = CPU) -> Batch:
    features = torch.randn(4, 16, 4, generator=torch.Generator().manual_seed(seed))
    clips = [clip_targets([(3 + clip, 1 + clip % 2)], num_steps=16, num_classes=2)[0] for clip in range(4)]
    return Batch(features.to(device), stack_targets(clips).to(device))


def trainer_of(settings: TrainSettings, *, device: torch.device = CPU) -> HeadTrainer:
    torch.manual_seed(settings.seed)  # steps look at no examples
    return HeadTrainer(settings, build_model(settings, dim=4, num_classes=2), cast(Any, None), device=device)


def weights(trainer: HeadTrainer) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()


def test_the_rate_rises_from_1_percent_then_falls_by_a_cosine_to_0() -> None:
    settings = TrainSettings(epochs=20, warmup_epochs=3, lr=1e-3)
    per_epoch = settings.steps_per_epoch
    at = [learning_rate(round(epoch * per_epoch), settings) for epoch in (0, 1.5, 3, 11.5, 20)]
    assert at == pytest.approx([1e-5, 0.505e-3, 1e-3, 0.5e-3, 0], abs=1e-12)
    rates = [learning_rate(update, settings) for update in range(0, 20 * per_epoch, 100)]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert learning_rate(20 * per_epoch - 1, settings) > 0


def test_short_runs_warm_up_shortly_and_0_means_not_at_all() -> None:
    short = TrainSettings(epochs=4, warmup_epochs=3, lr=1.0)
    assert learning_rate(short.steps_per_epoch, short) == 1.0  # a quarter of the epochs
    none = TrainSettings(epochs=4, warmup_epochs=0, lr=1.0)
    assert learning_rate(0, none) == 1.0
    assert learning_rate(2 * none.steps_per_epoch, none) == pytest.approx(0.5)


def test_the_schedule_of_the_seed_lets_warm_up_and_cosine_act_at_once() -> None:
    settings = TrainSettings(schedule="seed", lr=8e-4)
    per_epoch = settings.steps_per_epoch
    rates = [learning_rate(step, settings) for step in range(20 * per_epoch)]
    assert rates[0] == pytest.approx(8e-6)
    assert max(rates) == pytest.approx(7.40e-4, abs=1e-6)  # at three epochs
    assert rates.index(max(rates)) == 3 * per_epoch
    assert rates[17 * per_epoch] == pytest.approx(0, abs=1e-12)
    assert rates[-1] == pytest.approx(0.59e-4, abs=1e-6)  # it rises again


def test_every_step_has_a_seed_of_its_own(tiny: Tiny) -> None:
    seeds = {step_seed(tiny(seed=s), epoch, step) for s in range(3) for epoch in range(4) for step in range(50)}
    assert len(seeds) == 3 * 4 * 50
    assert min(seeds) >= 0
    assert max(seeds) < 1 << 63
    assert step_seed(tiny(seed=1), 2, 3) == step_seed(tiny(seed=1), 2, 3)


def test_a_step_is_a_function_of_weights_batch_and_seed(tiny: Tiny) -> None:
    settings = tiny(head="transformer", options={"transformer.width": 16, "transformer.num_heads": 2}, mixup=0.3)
    found = []
    for noise, seed in ((0, 7), (1, 7), (1, 8)):
        trainer = trainer_of(settings)
        torch.manual_seed(noise)  # what was drawn before does not matter
        loss = trainer.training_step(batch_of(), lr=1e-2, seed=seed)
        found.append((float(loss), weights(trainer)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][0] != found[2][0]  # another seed: other dropout and mixup


def test_the_step_is_adamw_on_the_heads_loss(tiny: Tiny) -> None:
    trainer = trainer_of(tiny(weight_decay=0.1, dropout=0.0))
    model = copy.deepcopy(trainer.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for number in range(3):
        batch = batch_of(number)
        loss = model.loss(model(batch.features_btc), batch.targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert float(trainer.training_step(batch, lr=3e-3, seed=0)) == pytest.approx(loss.item(), rel=1e-5)
    wanted = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.testing.assert_close(weights(trainer), wanted, rtol=1e-4, atol=1e-6)


def test_the_rate_of_a_step_is_the_one_given(tiny: Tiny) -> None:
    trainer = trainer_of(tiny(weight_decay=0.0))
    before = weights(trainer)
    trainer.training_step(batch_of(), lr=0.0, seed=0)
    assert torch.equal(weights(trainer), before)
    trainer.training_step(batch_of(), lr=1e-3, seed=0)
    assert 0 < (weights(trainer) - before).abs().max() <= 1.1e-3  # AdamW's step


def test_gradients_are_scaled_down_to_their_norm(tiny: Tiny) -> None:
    free, held = trainer_of(tiny()), trainer_of(tiny(max_grad_norm=1e-3))
    norms = []
    for trainer in (free, held):
        trainer.training_step(batch_of(), lr=1e-3, seed=0)
        grads = [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


def test_averaged_weights_and_statistics_follow(tiny: Tiny) -> None:
    trainer = trainer_of(tiny(head="unet_gru", options={"unet_gru.widths": "8", "unet_gru.gru.hidden": 4}, ema=0.9))
    assert trainer.average is not None
    assert trainer.kept_model is trainer.average
    wanted = {name: tensor.clone() for name, tensor in trainer.average.state_dict().items()}
    for number, decay in enumerate((0.9, 0.5, 0.8)):
        trainer.training_step(batch_of(number), lr=1e-2, seed=number, ema_decay=decay)
        share = 1 - decay
        wanted = {
            name: (1 - share) * wanted[name] + share * tensor if tensor.is_floating_point() else tensor.clone()
            for name, tensor in trainer.model.state_dict().items()
        }
    for name, tensor in trainer.average.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], msg=name)
    assert any("running_mean" in name and tensor.abs().sum() > 0 for name, tensor in wanted.items())
    assert trainer_of(tiny()).kept_model.training


def test_averaged_weights_forget_the_start() -> None:
    settings = TrainSettings(ema=0.99)
    decays = [ema_decay(update, settings) for update in range(2000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_mixup_blends_the_losses_of_both_clips(tiny: Tiny) -> None:
    trainer, batch = trainer_of(tiny(mixup=0.5, dropout=0.0)), batch_of()
    model = trainer.model
    features, parts = mixup(batch.features_btc, batch.targets, seed=11, alpha=0.5)
    wanted = sum(share * model.loss(model(features), part).item() for share, part in parts)
    assert float(trainer.training_step(batch, lr=0.0, seed=11)) == pytest.approx(wanted, rel=1e-5)
    alone = trainer_of(tiny(dropout=0.0))
    assert float(alone.training_step(batch, lr=0.0, seed=11)) != pytest.approx(wanted, rel=1e-5)


def test_bfloat16_is_near_float32(tiny: Tiny) -> None:
    losses = [
        float(trainer_of(tiny(precision=each)).training_step(batch_of(), lr=0.0, seed=0)) for each in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


@pytest.mark.parametrize(
    ("name", "wanted"), [("avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16), ("avx2", None)]
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str, wanted: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True}, raising=False)
    trainer = trainer_of(tiny(precision="auto"))
    assert trainer.autocast is wanted
    assert not trainer.scaler.is_enabled()
    assert choose_precision("auto", "mps") == "fp32"


def test_half_precision_is_for_cuda_only(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="setting 'precision' is not usable") as error:
        trainer_of(tiny(precision="fp16"))
    assert error.value.got == "fp16 on cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: half precision is not tested")
@pytest.mark.parametrize("changes", [{}, {"max_grad_norm": 1.0}, {"ema": 0.9, "mixup": 0.3}, {"head": "ed"}])
def test_half_precision_trains_on_cuda(tiny: Tiny, changes: dict[str, Any]) -> None:
    device = torch.device("cuda")
    trainer = trainer_of(tiny(**changes), device=device)
    assert trainer.autocast == torch.float16
    assert trainer.scaler.is_enabled()
    losses = [float(trainer.training_step(batch_of(device=device), lr=1e-2, seed=seed)) for seed in range(40)]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
