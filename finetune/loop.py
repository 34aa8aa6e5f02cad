"""`bas finetune`: backbone and head end to end, straight from videos."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..cache.settings import FeatureSettings
from ..data.sources import DataSet
from ..errors import InputError
from ..extract.backbones.torchvision_compat import import_with_torchvision
from ..extract.engines.pytorch import lay_channels_last
from ..extract.extractor import Extractor
from ..extract.options import EngineKind
from ..heads.training.checkpoint import LAST, RUN, LoopState, RunRecord, read_checkpoint
from ..heads.training.data import choose_matches
from ..heads.training.evaluator import Evaluator
from ..heads.training.loop import TrainingProgress, begun_record, locked_folder, path_from, run_epochs
from ..heads.training.settings import FinetuneSettings
from .data import TrainingClips, VideoSource
from .depthwise import with_fast_depthwise
from .devices import Devices, first_failure_reported
from .network import FinetuneNet
from .start import Start
from .trainer import ClipTrainer, memory_errors

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@first_failure_reported()
def finetune(
    data_set: DataSet,
    out: Path,
    settings: FinetuneSettings,
    start: Start,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    with_valid: bool = False,
    is_by_team: bool = False,
    devices: Devices | None = None,
    engine: EngineKind = "auto",
    checkpointing: bool = False,
    decode_threads: int = 0,
    save_seconds: float = 60.0,
    progress: TrainingProgress | None = None,
) -> RunRecord:
    """Train backbone and head on a data set's videos, to a finished run; go on where `out` holds one of the same.

    Args:
        data_set: videos with labels and splits.
        out: the run's folder.
        settings: the recipe.
        start: backbone and head to begin with.
        classes, valid, with_valid, is_by_team: which labels and matches, see `choose_matches`.
        devices: where it trains.
        engine: which library runs the backbone over the validation matches.
        checkpointing: compute blocks twice: less memory, more time.
        decode_threads: decoders side by side in each process; 0: one per core.
        save_seconds: least time between two checkpoints within an epoch.
        progress: callbacks.

    Raises:
        InputError: the videos cannot be trained on, `out` holds another run, the memory does not suffice, or the loss
            is no number (the weights of the best epoch so far stay in `out`).
    """
    if decode_threads < 0:
        raise InputError("--decode-threads is not usable", got=decode_threads, wanted="a whole number >= 0")
    devices, progress = devices or Devices(), progress or TrainingProgress()
    fabric = devices.launch(settings.precision)
    _require_divisible(settings, fabric)
    if not fabric.is_global_zero:
        progress = TrainingProgress()
    extractor = Extractor(start.backbone, start.features, engine, devices.place)
    source = VideoSource(data_set, extractor, may_be_coarse=start.head is not None)
    chosen = choose_matches(
        source.matches(),
        classes=classes,
        valid=valid,
        with_valid=with_valid,
        stride=settings.stride,
        is_by_team=is_by_team,
    )
    locked = locked_folder(out, record=RUN, holds="a run") if fabric.is_global_zero else nullcontext()
    with locked, memory_errors(settings, checkpointing=checkpointing):
        fabric.barrier()  # until the folder is there, and no other run's
        net = _network(start, settings, chosen.classes, fabric, checkpointing=checkpointing)
        new = RunRecord.new(
            settings,
            chosen,
            start.features,
            start=start.features,
            num_parameters=sum(each.numel() for part in (net.seen, net.spotting) for each in net.learning(part)),
            store_hint=path_from(out, data_set.root),
        )
        record = begun_record(out, new)
        if record.finished:
            return record
        clips = TrainingClips(chosen, source, settings, threads=decode_threads, device=fabric.device)
        trainer = ClipTrainer(settings, net, fabric, clips=clips, chosen=chosen, source=source, record=start.record)
        trainer.validating = progress.validating
        state = read_checkpoint(out / LAST, trainer)
        if state is None:
            state = LoopState()
            if start.head is None:
                trainer.fit_inputs()
        fabric.barrier()  # until every process has read what there is
        record = replace(record, num_lost=clips.windows.num_lost).after(state)
        progress.started(record, _in_words(net, start.features, fabric), state)
        is_writer, evaluator = fabric.is_global_zero, Evaluator(chosen, settings.tolerance)
        if is_writer:
            record.write(out)
        record = run_epochs(
            trainer, evaluator, record, state, out, progress=progress, save_seconds=save_seconds, is_writer=is_writer
        )
        assert trainer.kept is not None
        features = replace(start.features, weights=trainer.kept.weights, weights_sha256=trainer.kept.weights_sha256)
        record = replace(record, features=features).finish(evaluator.choose(trainer.validate()[0]))
        if is_writer:
            record.write(out)
    return record


def _network(
    start: Start, settings: FinetuneSettings, classes: Sequence[str], fabric: "Fabric", *, checkpointing: bool
) -> FinetuneNet:
    backbone = copy.deepcopy(start.backbone)  # the one it began with stays as it is
    if fabric.device.type == "cpu":
        with_fast_depthwise(backbone)
    lay_channels_last(backbone)
    if fabric.world_size > 1 and settings.uses_batch_statistics and fabric.device.type == "cuda":
        # timm's converter: torch's own would drop the activation that timm's layers carry. PyTorch has no
        # SyncBatchNorm on CPUs: there each process has its own statistics
        backbone = import_with_torchvision("timm.layers").convert_sync_batchnorm(backbone)
    torch.manual_seed(settings.seed)  # of the head
    return FinetuneNet(
        backbone,
        start.spotting(settings, classes),
        features=start.features,
        settings=settings,
        checkpointing=checkpointing,
    )


def _in_words(net: FinetuneNet, features: FeatureSettings, fabric: "Fabric") -> str:
    blocks = "all" if net.num_learning == net.num_blocks else f"{net.num_learning} of {net.num_blocks}"
    where = f"{fabric.world_size} processes on {fabric.device.type}" if fabric.world_size > 1 else str(fabric.device)
    size = f"{features.width}x{features.height}"
    learns = f"{blocks} blocks of {features.backbone} from {features.weights} learn"
    return f"{learns}, clips of {size} on {where}, {fabric.strategy.precision.precision}"


def _require_divisible(settings: FinetuneSettings, fabric: "Fabric") -> None:
    per_part = settings.batch // settings.accumulate
    if per_part % fabric.world_size:
        raise InputError(
            "the batch does not divide among the processes",
            got=f"{per_part} clips at once (--batch / --accumulate), {fabric.world_size} processes",
            wanted=f"a multiple of {fabric.world_size}",
            cure=f"--batch {settings.accumulate * fabric.world_size * -(-per_part // fabric.world_size)}",
        )
