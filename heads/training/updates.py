"""One update of the weights: schedule, loss, optimiser, averaged weights. A pure function of (seed, epoch, step)."""

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError
from ..losses import mixup
from ..model import SpottingModel
from .examples import Batch
from .settings import Precision, TrainSettings

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_SHARE_OF_WARMUP = 0.25
"""Runs of few epochs warm up over this share of them at most."""


def learning_rate(update: int, settings: TrainSettings) -> float:
    """Rate of an update (from 0, over all epochs): a linear rise from 1 %, then a cosine to 0."""
    epoch = update / settings.batches_per_epoch
    warmup = min(settings.warmup_epochs, _SHARE_OF_WARMUP * settings.epochs)
    if epoch < warmup:
        return settings.lr * (0.01 + 0.99 * epoch / warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (settings.epochs - warmup)))


def average_decay(update: int, settings: TrainSettings) -> float:
    """Decay of the averaged weights at an update (from 0): short at first, so that the random start is forgotten."""
    return min(settings.ema, (1 + update) / (10 + update))


def update_seed(settings: TrainSettings, epoch: int, step: int) -> int:
    """Seed of dropout and mixup in one update."""
    return int(np.random.SeedSequence([settings.seed, epoch, step, 2]).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Updater:
    """The weights and all that changes them."""

    settings: TrainSettings
    model: SpottingModel
    average: SpottingModel | None
    """Averaged weights, where the settings ask for them."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    """Of fp16."""
    autocast: torch.dtype | None

    @classmethod
    def of(cls, settings: TrainSettings, model: SpottingModel, device: torch.device) -> "Updater":
        """An updater at the first update; moves the model to the device.

        Raises:
            InputError: fp16 anywhere but on CUDA.
        """
        precision: Precision = settings.precision
        if precision == "auto":
            precision = "fp16" if device.type == "cuda" else "fp32"
        if precision == "fp16" and device.type != "cuda":
            raise InputError(
                "setting 'precision' is not usable", got=f"fp16 on {device.type}", wanted="auto, fp32 or bf16"
            )
        model.to(device)
        fused = device.type in ("cpu", "cuda")
        return cls(
            settings=settings,
            model=model,
            average=copy.deepcopy(model).eval() if settings.ema else None,
            optimizer=torch.optim.AdamW(
                model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=fused
            ),
            scaler=torch.amp.GradScaler(device.type) if precision == "fp16" else None,
            autocast=_TYPES.get(precision),
        )

    def start_average(self) -> None:
        """Let the averaged weights begin at the weights."""
        if self.average is not None:
            self.average.load_state_dict(self.model.state_dict())

    @property
    def judged(self) -> SpottingModel:
        """The model that is validated and kept."""
        return self.average or self.model

    def update(self, batch: Batch, *, lr: float, seed: int, decay: float | None = None) -> Tensor:
        """Change the weights by one batch.

        Args:
            batch: on the model's device.
            lr: learning rate.
            seed: of dropout and mixup.
            decay: of the averaged weights; by default the settings'.

        Returns:
            The loss, a scalar on the device.
        """
        torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._loss(batch, seed=seed)
        self.optimizer.zero_grad(set_to_none=True)
        (self.scaler.scale(loss) if self.scaler else loss).backward()  # type: ignore[no-untyped-call]
        if self.settings.max_grad_norm:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.average is not None:
            follow(self.average, self.model, decay=self.settings.ema if decay is None else decay)
        return loss.detach()

    def _loss(self, batch: Batch, *, seed: int) -> Tensor:
        with torch.autocast(batch.features_btc.device.type, self.autocast) if self.autocast else nullcontext():
            return batch_loss(self.model, batch, mixup_alpha=self.settings.mixup, seed=seed)


def batch_loss(model: SpottingModel, batch: Batch, *, mixup_alpha: float, seed: int) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        model: in training mode.
        batch: on its device.
        mixup_alpha: of Beta(alpha, alpha); 0: no mixup.
        seed: of mixup.
    """
    features_btc, mask_bt, parts = batch.features_btc, batch.mask_bt, [(1.0, batch.targets)]
    if mixup_alpha:
        generator = torch.Generator().manual_seed(seed)
        features_btc, mask_bt, parts = mixup(
            features_btc, mask_bt, batch.targets, generator=generator, alpha=mixup_alpha
        )
    outputs = model(features_btc, mask_bt)
    return torch.stack([share * model.loss(outputs, part) for share, part in parts]).sum()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Exponential average of the weights and of BatchNorm's statistics."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
