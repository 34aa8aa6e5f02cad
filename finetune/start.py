"""What a run begins with: backbone and head, from weights, from a run, or random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..cache.settings import FeatureSettings
from ..errors import InputError, refuse_differing
from ..extract.backbones.registry import backbone_spec
from ..extract.backbones.weights import BACKBONE, WeightsRecord, finetuned_run, load_weights
from ..extract.extractor import choose_weights, resolve_settings
from ..extract.options import ExtractOptions
from ..heads.ensemble import LoadedRun
from ..heads.model import SpottingModel, build_model
from ..heads.training.settings import FinetuneSettings

_MODEL_FIELDS = ("head", "options", "proj", "loss", "inputs")


@dataclass(frozen=True)
class Start:
    """A backbone with its weights, and perhaps a head."""

    backbone: nn.Module
    """On the CPU, in eval mode."""
    record: WeightsRecord
    """Where its weights came from, and what the run's own backbone will bind: stride, window and size."""
    features: FeatureSettings
    """Of the rows that it makes."""
    head: LoadedRun | None
    """A finished run whose head is begun with; None: a random one."""

    @classmethod
    def of(cls, settings: FinetuneSettings, asked: ExtractOptions, head: LoadedRun | None) -> "Start":
        """Load the backbone.

        Args:
            settings: steps and stride of the clips.
            asked: backbone, weights and how pictures are brought to size; what is left out follows the head's run, or
                the finetuned run that the weights are of, then the default. Window and stride are the settings' own,
                whatever the weights were trained with: they go on learning.
            head: a finished run whose head is begun with.

        Raises:
            InputError: there are no such weights, or the head does not fit.
        """
        run = finetuned_run(asked.weights)
        stored = head.record.features if head else run.features if run else None
        if stored is not None and stored.is_imported:
            raise InputError(
                "--from names a run that was trained on imported rows: it has no backbone to go on with",
                got=f"{stored.backbone} of the model {stored.weights}",
                wanted="a run on features of `bas extract`, or of `bas finetune`",
            )
        if head is not None and head.record.features.reduction is not None:
            raise InputError(
                f"--from {head.folder}: its head was trained on reduced rows, which no backbone makes by itself",
                got=f"{head.record.features.dim} channels, {head.record.features.reduction[:40]}...",
                wanted="a run on full rows",
                cure="train a head on the full store, and begin from that: bas train-head FULL --out RUN",
            )
        if head is not None and head.record.is_finetuned and asked.weights is None:
            asked = replace(asked, weights=str(head.folder / BACKBONE))
        module, record = load_weights(*choose_weights(asked, stored))
        spec = backbone_spec(record.backbone, record.pool)
        if asked.size is None and record.width and record.height:
            asked = replace(asked, size=(record.width, record.height))
        # all else that the weights were trained with binds nothing: they go on learning
        record = replace(record, stride=None, window=None, width=None, height=None)
        if spec.is_fixed and settings.clip_len != spec.window:
            raise InputError(
                f"--clip-len does not fit {record.backbone}, which takes clips of one length only",
                got=settings.clip_len,
                wanted=spec.window,
                cure=f"--clip-len {spec.window}",
            )
        if spec.kind == "3d":
            asked = replace(asked, window=settings.clip_len, stride=settings.stride)
        pictures = stored  # how that run brought them to size; its windows give way to those of the clips
        if stored is not None and stored.window != 1:
            hop = max(1, settings.clip_len // 2)
            pictures = replace(stored, window=settings.clip_len, hop=hop, stride=settings.stride)
        features = resolve_settings(asked, record, spec, pictures)
        if features.scaler == "torch-bilinear":
            raise InputError(
                "pictures that the device resizes are not for finetuning",
                got="the scaler torch-bilinear",
                wanted="swscale-bicubic, while decoding",
                cure="begin without --from, or from a head on features of `bas extract --scaler swscale-bicubic`",
            )
        bound = replace(
            record, stride=features.stride, window=features.window, width=features.width, height=features.height
        )
        start = cls(module, bound, features, head)
        start._require_fitting_head(settings)
        return start

    def spotting(self, settings: FinetuneSettings, classes: Sequence[str]) -> SpottingModel:
        """The head with its inputs: that of the run it begins from, else random from torch's global generator.

        Raises:
            InputError: the run has another class list.
        """
        features, num_classes = self.features, len(classes)
        model = build_model(settings, dim=features.dim, num_classes=num_classes, features=features)
        if self.head is not None:
            if tuple(classes) != self.head.record.classes:
                raise InputError(
                    f"--from {self.head.folder}: its head knows other classes",
                    got=", ".join(self.head.record.classes),
                    wanted=", ".join(classes),
                    cure="leave --from out, or give the run's own list with --classes",
                )
            model.load_state_dict({name: tensor.cpu() for name, tensor in self.head.model.state_dict().items()})
        return model

    def _require_fitting_head(self, settings: FinetuneSettings) -> None:
        if self.head is None:
            return
        old, theirs, mine = self.head.record.settings, self.head.record.features, self.features
        wrong = [
            name for name in ("backbone", "depth", "pool", "dim", "weights_sha256") if name in mine.differing(theirs)
        ]
        refuse_differing(
            wrong,
            f"--from {self.head.folder}: its head is for another backbone",
            got=vars(theirs),
            wanted=vars(mine),
            cure="leave --backbone and --depth out to follow that run; --weights FILE where it had a file",
        )
        changed = [name for name in _MODEL_FIELDS if getattr(settings, name) != getattr(old, name)]
        if changed:
            raise InputError(
                f"--from {self.head.folder}: its head has other settings; these differ: {', '.join(changed)}",
                cure="leave these options out: they follow that run",
            )


def model_of(head: LoadedRun) -> dict[str, Any]:
    """The settings of a run that decide what its network is, and its windows."""
    settings = head.record.settings
    names = (*_MODEL_FIELDS, "clip_len", "stride", "hop_rows", "dilate", "sigma")
    return {name: getattr(settings, name) for name in names}
