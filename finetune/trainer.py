"""The trainer of `bas finetune`: backbone and head through Lightning Fabric, their validation, and their files."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cache.bank import bank_of_rows
from ..errors import InputError
from ..extract.backbones.weights import BACKBONE, WeightsRecord, load_weights, save_backbone_checkpoint
from ..extract.extractor import Extractor
from ..extract.options import share_out
from ..extract.rows import collect_rows
from ..heads.scoring import FloatArray, match_scores
from ..heads.training.checkpoint import BEST, read_weights, write_weights
from ..heads.training.data import Chosen, valid_targets
from ..heads.training.evaluator import LossSum
from ..heads.training.loop import Trainer, update_average
from ..heads.training.settings import FinetuneSettings
from .data import ClipBatch, TrainingClips, VideoSource, augment, augmentation
from .devices import num_processes, process_index
from .network import FinetuneNet, NetworkInput

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_FIT_CLIPS = 64
"""Clips that the inputs' mean and deviation are taken from, at most."""


class ClipTrainer(Trainer):
    """Backbone and head that learn from clips of videos; made before its first step.

    Args:
        settings: the recipe.
        model: the network itself; moved to Fabric's device.
        fabric: runs it: precision, gradients averaged over processes.
        clips: what it learns from.
        chosen: the matches that validate.
        source: its extractor holds a backbone of its own, which takes the weights that are validated.
        record: of the backbone that it began with; what it binds, the finetuned one binds.
    """

    settings: FinetuneSettings
    model: FinetuneNet
    average: FinetuneNet | None

    def __init__(
        self,
        settings: FinetuneSettings,
        model: FinetuneNet,
        fabric: "Fabric",
        *,
        clips: TrainingClips,
        chosen: Chosen,
        source: VideoSource,
        record: WeightsRecord,
    ) -> None:
        self.settings, self.model, self.fabric = settings, model, fabric
        self.clips, self.source, self.record = clips, source, record
        self.valid, self.valid_targets = chosen.valid, valid_targets(chosen, settings, fabric.device)
        self.change = augmentation(settings.augment)
        self.validating: Callable[[str], None] = lambda _: None
        """Progress callback: how far validation is."""
        self.kept: WeightsRecord | None = None
        """Of the backbone that `load_best` read."""
        self.average = copy.deepcopy(model) if settings.ema else None  # before Fabric wraps it
        groups = [
            {"params": model.learning(model.spotting) + model.learning(model.sides), "share": 1.0},
            {"params": model.learning(model.backbone), "share": settings.backbone_lr},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.wrapped, self.fabric_optimizer = fabric.setup(model, self.optimizer)
        if self.average is not None:
            self.average.to(fabric.device).eval()
        precision = fabric.strategy.precision
        self.scaler = getattr(precision, "scaler", None)
        cures = "another --out with a lower --lr or --backbone-lr, or --max-grad-norm 1"  # what was kept is good
        self.bad_loss_cure = f"{cures}, or --precision fp32" if "mixed" in str(precision.precision) else cures
        self.reads_every_loss = num_processes() > 1

    @property
    def kept_model(self) -> FinetuneNet:
        """The network that is validated and kept."""
        return self.average or self.model

    @property
    def waited_seconds(self) -> float:
        return self.clips.waited_seconds

    def batches(self, epoch: int, *, first_step: int) -> Iterator[tuple[ClipBatch, ...]]:
        return self.clips.batches(epoch, first_step=first_step)

    def training_step(self, batch: tuple[ClipBatch, ...], *, lr: float, seed: int, ema_decay: float = 0.0) -> Tensor:
        for group in self.optimizer.param_groups:  # the backbone's rate is a multiple of the head's
            group["lr"] = lr * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(part, seed=seed + number, parts=len(batch)) for number, part in enumerate(batch)]
        if self.settings.max_grad_norm:
            norm = self.settings.max_grad_norm
            self.fabric.clip_gradients(self.wrapped, self.fabric_optimizer, max_norm=norm, error_if_nonfinite=False)
        self.fabric_optimizer.step()
        if self.average is not None:
            update_average(self.average, self.model, decay=ema_decay)
        return torch.stack(losses).mean()

    def _backward(self, part: ClipBatch, *, seed: int, parts: int) -> Tensor:
        """Gradients of one part of a batch; returns its loss."""
        device = self.fabric.device
        pixels = part.pixels.pin_memory() if device.type == "cuda" else part.pixels
        pixels = augment(pixels.to(device, non_blocking=True), self.change, seeds=part.seeds)
        loss: Tensor = self.wrapped(NetworkInput(pixels, part.targets, seed=seed))
        self.fabric.backward(loss / parts)
        return loss.detach()

    def validate(self) -> tuple[list[FloatArray], float]:
        """Confidences of the validation matches, the way the run will be used (`bas extract`, then the head), and the
        loss of their windows.

        Several processes share the matches out.
        """
        net = self.kept_model
        if num_processes() > 1:  # on CPUs each has its own statistics of BatchNorm; the first's are kept
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, 0)
        mine = share_out([match.num_rows for match in self.valid], index=process_index(), count=num_processes())
        extractor = extractor_of(net, self.source.extractor)
        net.eval()
        found = [(number, self._match_scores(net, extractor, number)) for number in mine]
        net.train()
        parts = [found]
        if num_processes() > 1:
            parts = [[] for _ in range(num_processes())]
            torch.distributed.all_gather_object(parts, found)
        by_number = {number: result for part in parts for number, result in part}
        scores, losses = zip(*(by_number[number] for number in range(len(self.valid))), strict=True)
        whole = LossSum(sum(loss.total for loss in losses), sum(loss.num_steps for loss in losses))
        return list(scores), whole.mean

    def _match_scores(self, net: FinetuneNet, extractor: Extractor, number: int) -> tuple[FloatArray, LossSum]:
        match, targets, loss = self.valid[number], self.valid_targets[number], LossSum()

        def progress(match_id: str, done: float, total: float, _: str) -> None:
            self.validating(f"{match_id}, {100 * done / total:.0f} % of its rows")

        video = self.source.video(match.id)
        rows_rc, _ = collect_rows(video, extractor, view="identity", match_id=match.id, on_progress=progress)
        bank = bank_of_rows(rows_rc, match_id=match.id, device=self.fabric.device)
        scores_rk = match_scores(
            *(net.spotting, bank.gather, bank.num_rows, self.settings.scoring_plan),
            num_classes=targets.presence_btk.shape[-1],
            on_outputs=loss.of_match(net.spotting, targets),
        )
        return scores_rk, loss

    def save_best(self, folder: Path) -> None:
        write_weights(folder / BEST, self.kept_model.spotting)
        backbone = extractor_of(self.kept_model, self.source.extractor).module
        save_backbone_checkpoint(folder / BACKBONE, backbone, self.record)

    def load_best(self, folder: Path) -> None:
        self.fabric.barrier()  # until they are written
        read_weights(folder / BEST, self.kept_model.spotting)
        record = self.record
        backbone, self.kept = load_weights(record.backbone, record.depth, str(folder / BACKBONE), record.pool)
        self.kept_model.backbone.load_state_dict(backbone.state_dict())

    def fit_inputs(self) -> None:
        """Let the head's inputs take mean and deviation from rows of training clips."""
        net = self.model
        if not net.spotting.inputs.is_fitted:
            return
        net.eval()
        with torch.inference_mode():
            clips = (pixels.to(self.fabric.device) for pixels in self.clips.spread(_FIT_CLIPS))
            rows_rc = torch.cat([net.rows(pixels).flatten(0, 1) for pixels in clips])
        for spotting in (net.spotting, *net.sides):
            spotting.inputs.fit(rows_rc.float().cpu())
        net.train()
        if self.average is not None:
            self.average.load_state_dict(net.state_dict())


def extractor_of(net: FinetuneNet, like: Extractor) -> Extractor:
    """What makes rows with the backbone as it is, now."""
    backbone = copy.deepcopy(like.module)
    backbone.load_state_dict({name: tensor.cpu() for name, tensor in net.backbone.state_dict().items()})
    return replace(like, module=backbone.eval(), _engines={})


@contextmanager
def memory_errors(settings: FinetuneSettings, *, checkpointing: bool) -> Iterator[None]:
    """Turn what is raised where the memory does not suffice into an error with a cure.

    Raises:
        InputError: out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # PyTorch's allocator on a CPU raises a bare RuntimeError, which nothing but its text tells from others
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_memory and "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        clips = settings.batch // settings.accumulate // num_processes()
        cures = [f"--accumulate {2 * settings.accumulate}"] if settings.batch % (2 * settings.accumulate) == 0 else []
        cures += [f"--batch {settings.batch // 2}"] if settings.batch > 1 else []
        cures += ["--checkpointing (blocks are computed twice)"] if not checkpointing else []
        cures += [f"--clip-len {max(1, settings.clip_len // 2)}", "a smaller --size"]
        why = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            "out of memory",
            got=f"{clips} clips of {settings.clip_len} steps at once: {why}",
            cure="; or ".join(cures),
        ) from None
