"""What `bas finetune` trains: the updates of backbone and head through Lightning Fabric, and their files."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from ..extract.backbones.run_folder import BACKBONE
from ..extract.backbones.weights import WeightsRecord, load_weights, save_backbone_checkpoint
from ..heads.training.checkpoint import BEST, read_weights, write_weights
from ..heads.training.evaluator import Choice, Verdict
from ..heads.training.settings import FinetuneSettings
from ..heads.training.loop import follow
from .augment import augment, named_augment
from .clips import Part, TrainingClips
from .judge import VideoJudge, extractor_of
from .memory import free_memory, is_out_of_memory, out_of_memory
from .net import FinetuneNet, Lesson, num_processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_FIT_CLIPS = 64
"""Clips that the inputs' mean and deviation are taken from, at most."""


@dataclass
class ClipUpdater:
    """The weights and all that changes them."""

    settings: FinetuneSettings
    fabric: "Fabric"
    model: FinetuneNet
    """The network itself."""
    wrapped: torch.nn.Module
    """As Fabric runs it: precision, gradients averaged over processes."""
    average: FinetuneNet | None
    """Averaged weights, where the settings ask for them."""
    optimizer: torch.optim.Optimizer
    fabric_optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, settings: FinetuneSettings, model: FinetuneNet, fabric: "Fabric") -> "ClipUpdater":
        """An updater at the first update; moves the model to Fabric's device."""
        average = copy.deepcopy(model) if settings.ema else None
        groups = [
            {"params": model.learning(model.spotting), "share": 1.0},
            {"params": model.learning(model.backbone), "share": settings.backbone_lr},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=settings.lr, weight_decay=settings.weight_decay
        )
        wrapped, fabric_optimizer = fabric.setup(model, optimizer)
        if average is not None:
            average.to(fabric.device).eval()
        return cls(settings, fabric, model, wrapped, average, optimizer, fabric_optimizer)

    @property
    def judged(self) -> FinetuneNet:
        """The network that is validated and kept."""
        return self.average or self.model

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Of fp16."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def update(self, batch: tuple[Part, ...], *, lr: float, seed: int, decay: float | None = None) -> Tensor:
        """Change the weights by one batch, part by part.

        Args:
            batch: in one part or several.
            lr: of the head; the backbone's is a multiple of it.
            seed: of mixup and dropout.
            decay: of the averaged weights; by default the settings'.

        Returns:
            The loss, a scalar on the device.

        Raises:
            InputError: the memory does not suffice; says which option to lower.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        try:
            losses = [self._learn(part, seed=seed + number, parts=len(batch)) for number, part in enumerate(batch)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            losses = []
        if not losses:  # outside the handler: what the failed pass held is free by now
            raise self._out_of_memory(batch[0])
        if self.settings.max_grad_norm:
            norm = self.settings.max_grad_norm
            self.fabric.clip_gradients(self.wrapped, self.fabric_optimizer, max_norm=norm, error_if_nonfinite=False)
        self.fabric_optimizer.step()
        if self.average is not None:
            follow(self.average, self.model, decay=self.settings.ema if decay is None else decay)
        return torch.stack(losses).mean()

    def _learn(self, part: Part, *, seed: int, parts: int) -> Tensor:
        """Gradients of one part of a batch; returns its loss."""
        device = self.fabric.device
        pixels = part.pixels.pin_memory() if device.type == "cuda" else part.pixels
        pixels = pixels.to(device, non_blocking=True)
        pixels = augment(pixels, named_augment(self.settings.augment), seeds=part.seeds)
        loss: Tensor = self.wrapped(Lesson(pixels, part.mask_bt, part.targets, seed=seed))
        self.fabric.backward(loss / parts)
        return loss.detach()

    def _out_of_memory(self, part: Part) -> InputError:
        free_memory()

        def fits(clips: int) -> bool:
            mask_bt = None if part.mask_bt is None else part.mask_bt[:clips]
            some = Part(part.pixels[:clips], part.seeds[:clips], mask_bt, part.targets.select(torch.arange(clips)))
            try:
                self._learn(some, seed=0, parts=1)
            except (RuntimeError, MemoryError):
                return False
            finally:
                self.optimizer.zero_grad(set_to_none=True)
                free_memory()
            return True

        return out_of_memory(
            self.settings,
            num_clips=len(part.pixels),
            fits=fits if num_processes() == 1 else None,
            checkpointing=self.model.checkpointing,
        )


@dataclass
class ClipLearner:
    """Backbone and head on clips of videos, see `heads.training.epochs.Learner`."""

    clips: TrainingClips
    updater: ClipUpdater
    judge: VideoJudge
    record: WeightsRecord
    """Of the backbone that it began with; what it binds, the finetuned one binds."""
    kept: WeightsRecord | None = None
    """Of the backbone that `restore` read."""

    @property
    def settings(self) -> FinetuneSettings:
        """The recipe."""
        return self.updater.settings

    @property
    def waited_seconds(self) -> float:
        """Time so far that updates stood waiting for clips."""
        return self.clips.waited_seconds

    @property
    def bad_loss_cure(self) -> str:
        """Another recipe; what was kept is good to begin with."""
        cures = "another --out with a lower --lr or --backbone-lr, or --max-grad-norm 1"
        is_half = "mixed" in str(self.updater.fabric.strategy.precision.precision)
        return f"{cures}, or --precision fp32" if is_half else cures

    @property
    def looks_always(self) -> bool:
        """Several processes stop at the same update."""
        return num_processes() > 1

    def batches(self, epoch: int, *, first_step: int) -> Iterator[tuple[Part, ...]]:
        """Clips of pictures."""
        return self.clips.batches(epoch, first_step=first_step)

    def verdict(self) -> Verdict:
        """Validation of the weights, or of their average."""
        return self.judge.verdict(self.updater.judged)

    def choose(self) -> Choice:
        """The best peaks, and a calibration fitted on them."""
        return self.judge.choose(self.updater.judged)

    def keep(self, folder: Path) -> None:
        """Write head and backbone."""
        write_weights(folder / BEST, self.updater.judged.spotting)
        backbone = extractor_of(self.updater.judged, self.judge.source.extractor).module
        save_backbone_checkpoint(folder / BACKBONE, backbone, self.record)

    def restore(self, folder: Path) -> None:
        """Read them."""
        self.updater.fabric.barrier()  # until they are written
        read_weights(folder / BEST, self.updater.judged.spotting)
        backbone, self.kept = load_weights(self.record.backbone, self.record.depth, str(folder / BACKBONE))
        self.updater.judged.backbone.load_state_dict(backbone.state_dict())

    def fit_inputs(self) -> None:
        """Let the head's inputs take mean and deviation from rows of training clips."""
        net = self.updater.model
        if not net.spotting.inputs.is_fitted:
            return
        net.eval()
        with torch.inference_mode():
            clips = (pixels.to(self.updater.fabric.device) for pixels in self.clips.spread(_FIT_CLIPS))
            rows_rc = torch.cat([net.rows(pixels).flatten(0, 1) for pixels in clips])
        net.spotting.inputs.fit(rows_rc.float().cpu())
        net.train()
        if self.updater.average is not None:
            self.updater.average.load_state_dict(net.state_dict())
