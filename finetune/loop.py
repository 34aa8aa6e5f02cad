"""`bas finetune`: backbone and head end to end, straight from videos."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..cache.settings import FeatureSettings
from ..data.sources import DataSet
from ..errors import InputError
from ..extract.engines.choose import EngineKind
from ..extract.engines.pytorch import lay_channels_last
from ..extract.extractor import Extractor
from ..extract.run import RowsDone
from ..heads.training.checkpoint import LAST, LoopState, read_state
from ..heads.training.data import Chosen, choose_matches
from ..heads.training.loop import Reporter, RunFiles, run_epochs
from ..heads.training.loop import begun_record, owned, path_from
from ..heads.training.checkpoint import RunRecord
from ..heads.training.settings import FinetuneSettings
from .clips import TrainingClips
from .depthwise import quicken
from .devices import Devices, one_voice
from .judge import VideoJudge
from .learner import ClipLearner, ClipUpdater
from .memory import keep_freed_memory, memory_told
from .net import FinetuneNet
from .source import VideoSource
from .start import Start
from .synced_norm import synchronised

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; but for rounding none of it changes a number."""

    devices: Devices = field(default_factory=Devices)
    engine: EngineKind = "auto"
    """Which library runs the backbone over the validation matches."""
    checkpointing: bool = False
    """Compute blocks twice: less memory, more time."""
    decode_threads: int = 0
    """Decoders side by side in each process; 0: one per core."""
    save_seconds: float = 60.0
    """Least time between two savings within an epoch."""

    def __post_init__(self) -> None:
        if self.decode_threads < 0:
            raise InputError("--decode-threads is not usable", got=self.decode_threads, wanted="a whole number >= 0")


@one_voice()
def finetune(
    data_set: DataSet,
    out: Path,
    settings: FinetuneSettings,
    start: Start,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    with_valid: bool = False,
    options: RunOptions | None = None,
    report: Reporter | None = None,
    on_rows: Callable[[RowsDone], None] = lambda _: None,
) -> RunRecord:
    """Train backbone and head on a data set's videos, to a finished run; go on where `out` holds one of the same.

    Args:
        data_set: videos with labels and splits.
        out: the run's folder.
        settings: the recipe.
        start: backbone and head to begin with.
        classes, valid, with_valid: which labels and matches, see `choose_matches`.
        options: devices and the like.
        report, on_rows: hear how it goes, and of the rows of validation matches.

    Raises:
        InputError: the videos cannot be trained on, `out` holds another run, the memory does not suffice, or the loss
            is no number (the weights of the best epoch so far stay in `out`).
    """
    options, report = options or RunOptions(), report or Reporter()
    fabric = options.devices.launch(settings.precision)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    _require_divisible(settings, fabric)
    if not fabric.is_global_zero:
        report, on_rows = Reporter(), lambda _: None
    source = VideoSource(data_set, Extractor(start.backbone, start.features, options.engine, options.devices.place))
    chosen = choose_matches(
        source.matches(), classes=classes, valid=valid, with_valid=with_valid, stride=settings.stride
    )
    with _owned(out, fabric), memory_told(settings):
        net = _network(start, settings, chosen.classes, options, fabric)
        record = begun_record(out, _new_record(start, settings, chosen, net, hint=path_from(out, data_set.root)))
        if record.finished:
            return record
        clips = TrainingClips(chosen, source, settings, threads=options.decode_threads, device=fabric.device)
        judge = VideoJudge.of(chosen, source, settings, device=fabric.device, on_progress=on_rows)
        learner = ClipLearner(clips, ClipUpdater.of(settings, net, fabric), judge, start.record)
        state = read_state(out / LAST, learner.updater) or _first_state(learner, start)
        fabric.barrier()  # until every process has read what there is
        record = replace(record, num_lost=clips.windows.num_lost).after(state)
        report.started(record, _in_words(net, start.features, fabric), state)
        files = RunFiles(out, is_writer=fabric.is_global_zero)
        files.record(record)

        record = run_epochs(learner, record, state, files, report, save_seconds=options.save_seconds)

        learner.restore(out)
        record = replace(record, features=_kept_features(learner, start)).finish(learner.choose())
        files.record(record)
    return record


def _network(
    start: Start, settings: FinetuneSettings, classes: Sequence[str], options: RunOptions, fabric: "Fabric"
) -> FinetuneNet:
    backbone = copy.deepcopy(start.backbone)  # the one it began with stays as it is
    if fabric.device.type == "cpu":
        quicken(backbone)
    else:
        lay_channels_last(backbone)
    if fabric.world_size > 1 and settings.uses_batch_statistics:
        backbone = synchronised(backbone, device=fabric.device)
    torch.manual_seed(settings.seed)  # of the head
    return FinetuneNet(
        backbone,
        start.spotting(settings, classes),
        features=start.features,
        settings=settings,
        checkpointing=options.checkpointing,
    )


def _first_state(learner: ClipLearner, start: Start) -> LoopState:
    if start.head is None:
        learner.fit_inputs()
    return LoopState()


def _new_record(start: Start, settings: FinetuneSettings, chosen: Chosen, net: FinetuneNet, *, hint: str) -> RunRecord:
    num_parameters = sum(parameter.numel() for parameter in net.learning(net))
    features = start.features
    return RunRecord.new(settings, chosen, features, start=features, num_parameters=num_parameters, store_hint=hint)


def _in_words(net: FinetuneNet, features: FeatureSettings, fabric: "Fabric") -> str:
    blocks = "all" if net.num_learning == net.num_blocks else f"{net.num_learning} of {net.num_blocks}"
    where = f"{fabric.world_size} processes on {fabric.device.type}" if fabric.world_size > 1 else str(fabric.device)
    size = f"{features.width}x{features.height}"
    return f"{blocks} blocks of {features.backbone} from {features.weights} learn, clips of {size} on {where}"


def _kept_features(learner: ClipLearner, start: Start) -> FeatureSettings:
    assert learner.kept is not None
    return replace(start.features, weights=learner.kept.weights, weights_sha256=learner.kept.weights_sha256)


def _require_divisible(settings: FinetuneSettings, fabric: "Fabric") -> None:
    per_part = settings.batch // settings.accumulate
    if per_part % fabric.world_size:
        raise InputError(
            "the batch does not divide among the processes",
            got=f"{per_part} clips at once (--batch / --accumulate), {fabric.world_size} processes",
            wanted=f"a multiple of {fabric.world_size}",
            cure=f"--batch {settings.accumulate * fabric.world_size * -(-per_part // fabric.world_size)}",
        )


@contextmanager
def _owned(out: Path, fabric: "Fabric") -> Iterator[None]:
    """The run's folder, with no other run at work in it."""
    with owned(out) if fabric.is_global_zero else nullcontext():
        fabric.barrier()
        yield
