"""Whole spotting systems that others published, as runs: `hub:NAME` names one wherever a run is asked for.

A checkpoint is converted once, weights only, into a folder as `bas finetune` leaves it. Settings are those of E2E-Spot
(github.com/jhong93/spot), opensportslib, which carries it on, and T-DEED (github.com/arturxe2/T-DEED).
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import InputError
from .eval.peaks import PeakSettings
from .events import SOCCERNET_BALL_CLASSES, TimeGrid
from .files import disk_errors, file_sha256, read_text, write_json_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from .cache.settings import FeatureSettings

PREFIX = "hub:"
ORIGIN = "published.json"
"""In the folder of a converted run: where its weights came from."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1], ImageNet's: all of them use these."""
_EVERY_12TH = Fraction(25, 12)
"""Rows per second where every 12th frame of 25 is taken: what these systems call 2 fps."""
_NMS_2 = PeakSettings("hard", window_frames=2, sigma_frames=0.0, threshold=0.01)
_SOFT_NMS_12 = PeakSettings("soft", window_frames=12, sigma_frames=0.0, threshold=0.01)
_SPOT_MODELS = "https://github.com/jhong93/e2e-spot-models/raw/10d07a4fb01f2eb76785e15552e5648bf0793509"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One published system: what is known of it, and how it is fed."""

    about: str
    """One line."""
    family: Literal["e2e-spot", "t-deed"]
    """Whose names its tensors have, and the recipe that goes on with it."""
    classes: tuple[str, ...]
    """In the order of its outputs, behind the background."""
    licence: str
    """As its source states it."""
    figure: str
    """What its source reports, in its own words."""
    source: str
    """Where licence, figure and settings were read."""
    place: str
    """Where it is fetched from: `hf:ORG/NAME`, an address, or a page where a person fetches it."""
    is_fetched: bool = True
    """Whether a program may fetch it from there."""
    fps: Fraction
    """Rows per second of its clips."""
    clip_len: int = 100
    """Steps of a clip."""
    overlap: float = 0.5
    """Share of a clip that the next one sees again."""
    size: tuple[int, int]
    """Width x height of its pictures, which are stretched to it and never cropped."""
    peaks: PeakSettings
    """Its suppression of neighbours, as far as ours can say it."""


_V2_CLASSES = (
    *("Ball out of play", "Clearance", "Corner", "Direct free-kick", "Foul", "Goal", "Indirect free-kick", "Kick-off"),
    *("Offside", "Penalty", "Red card", "Shots off target", "Shots on target", "Substitution", "Throw-in"),
    *("Yellow card", "Yellow->red card"),
)
"""SoccerNet-v2's, sorted, as E2E-Spot's parse_soccernet.py writes them."""


def _osl(name: str, about: str, classes: tuple[str, ...], figure: str) -> PublishedModel:
    return PublishedModel(
        about=f"opensportslib, E2E: {about}",
        family="e2e-spot",
        classes=classes,
        licence="AGPL-3.0" if len(classes) > 2 else "not seen (the library's own is AGPL-3.0)",
        figure=figure,
        source=f"its model card, huggingface.co/OpenSportsLab/{name}; opensportslib's localization.yaml",
        place=f"hf:OpenSportsLab/{name}",
        fps=_EVERY_12TH,
        size=(398, 224),
        peaks=_NMS_2,
    )


def _spot(folder: str, file: str, about: str) -> PublishedModel:
    return PublishedModel(
        about=f"E2E-Spot, {about}",
        family="e2e-spot",
        classes=_V2_CLASSES,
        licence="none stated (its code: BSD-3-Clause)",
        figure="none stated with it",
        source=f"jhong93/e2e-spot-models, {folder}/README.md and config.json; jhong93/spot",
        place=f"{_SPOT_MODELS}/{folder}/{file}",
        fps=_EVERY_12TH,
        size=(398, 224),
        peaks=_NMS_2,
    )


def _tdeed(about: str, figure: str, source: str, place: str) -> PublishedModel:
    return PublishedModel(
        about=f"T-DEED, {about}",
        family="t-deed",
        classes=SOCCERNET_BALL_CLASSES,
        licence="none stated (its code: GPL-3.0)",
        figure=figure,
        source=source,
        place=place,
        is_fetched=False,
        fps=Fraction(25, 2),
        overlap=0.75,
        size=(796, 448),
        peaks=_SOFT_NMS_12,
    )


PUBLISHED: Mapping[str, PublishedModel] = {
    "osl-snbas-2025": _osl(
        "OSL-loc-snbas-2025-e2e",
        "SoccerNet Ball Action Spotting 2025",
        SOCCERNET_BALL_CLASSES,
        "tight mAP 47.98, loose mAP 58.35",
    ),
    "osl-snbas-2023": _osl(
        "OSL-loc-snbas-2023-e2e",
        "SoccerNet Ball Action Spotting 2023",
        ("PASS", "DRIVE"),
        "tight mAP 71.48, loose mAP 85.62",
    ),
    "e2e-spot-v2-challenge": _spot(
        "soccer_challenge_rny008gsm_gru_rgb",
        "checkpoint_149.pt",
        "SoccerNet-v2, trained on the training, validation and test splits, RegNetY-008",
    ),
    "e2e-spot-v2": _spot(
        "soccer_rny008gsm_gru_rgb", "checkpoint_140.pt", "SoccerNet-v2, trained on the training split, RegNetY-008"
    ),
    "e2e-spot-v2-small": _spot(
        "soccer_rny002gsm_gru_rgb", "checkpoint_088.pt", "SoccerNet-v2, trained on the training split, RegNetY-002"
    ),
    "t-deed-ball": _tdeed(
        "SoccerNetBall_challenge1 (RegNetY-002) or _challenge2 (RegNetY-008)",
        "first place of SoccerNet's 2024 ball action spotting challenge",
        "arturxe2/T-DEED, README.md, config/SoccerNetBall",
        "https://drive.google.com/drive/folders/1sxZalU_hCwL8ITZCU9VqSWE8dB94lJty",
    ),
    "t-deed-team-ball": _tdeed(
        "baseline of SoccerNet's 2025 team ball action spotting challenge; without the team, which our heads learn "
        "otherwise",
        "mAP at 1 s 53.59 (test), 58.38 (challenge)",
        "SoccerNet/sn-teamspotting, README.md, config/SoccerNetBall",
        "https://drive.google.com/drive/folders/16IqSkctIGp76ZYKKvJvMB_ggHcQsessM",
    ),
}
"""Name -> model. None of the files was seen: see docs/verified.md."""


def published_model(name: str) -> PublishedModel:
    """The entry of a name, with or without `hub:`.

    Raises:
        InputError: there is none.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in PUBLISHED:
        raise InputError(f"no published model {bare!r}", wanted=", ".join(PUBLISHED), cure="see bas weights")
    return PUBLISHED[bare]


def run_folder(name: str) -> Path:
    """The run of `hub:NAME`, in the cache: fetched and converted where it is not there yet.

    Raises:
        InputError: no such model, it cannot be fetched, or it does not convert.
    """
    from .extract.backbones.tensor_files import weights_cache

    name, model = name.removeprefix(PREFIX), published_model(name)
    folder = weights_cache() / "runs" / f"{name}-{sha256(repr(model).encode()).hexdigest()[:8]}"
    if not (folder / ORIGIN).is_file():
        convert(_fetched(name, model), name, folder)
    return folder


def _fetched(name: str, model: PublishedModel) -> Path:
    """The checkpoint on this machine."""
    from .extract.backbones.tensor_files import download, weights_cache

    repository = model.place.removeprefix("hf:")
    how = f"fetch {repository}" if repository == model.place else f"hf download {repository} --local-dir FOLDER"
    cure = f"{how} on a machine that reaches it; then bas weights --convert FILE --as {name} --out RUN"
    if not model.is_fetched:
        raise InputError(
            f"{PREFIX}{name} is not fetched by a program", got="a page for people", wanted="a file", cure=cure
        )
    if not model.place.startswith("hf:"):
        try:
            return download(model.place, weights_cache() / f"{name}.pt")
        except InputError as error:
            raise InputError(error.what, got=error.got, wanted=error.wanted, cure=cure) from None
    import huggingface_hub

    try:
        patterns = ["config.*", "*.safetensors", "*.pt", "*.pth", "*.tar", "*.bin"]
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # network, names, permissions: the client has errors of many kinds
        got = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200]
        raise InputError(f"{PREFIX}{name}: the hub does not give it", got=got, wanted=model.place, cure=cure) from None
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("config."))
    named = [path for path in files if path.name.startswith("model.")] or files
    if len(named) != 1:
        got = ", ".join(path.name for path in named[:5]) or "no weights file"
        raise InputError(
            f"{PREFIX}{name}: which file is meant is not clear",
            got=got,
            wanted="one",
            cure=f"bas weights --convert {folder}/FILE --as {name} --out RUN",
        )
    return named[0]


def convert(file: Path, name: str, out: Path) -> None:
    """Make a run's folder of a checkpoint, whole or not at all. Rate and clip length follow a config file beside it.

    Args:
        file: as the system's own code saved it; nothing in it is executed.
        name: which system, a key of `PUBLISHED`.
        out: the folder; it must not hold anything.

    Raises:
        InputError: no such name, the file is none of that system, or `out` is not free.
    """
    model = published_model(name)
    if not file.is_file():
        raise InputError(f"{file}: no such file", wanted=f"a checkpoint of {name}")
    model = _as_configured(file, model)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: there is something already", cure="name another --out")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            _write_run(file, name.removeprefix(PREFIX), model, partial)
            partial.chmod(0o755)
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


_CONFIGURED = re.compile(r"""^\s*"?(clip_len|input_fps|extract_fps)"?\s*:\s*(\d{1,6})\b""", re.MULTILINE)


def _as_configured(file: Path, model: PublishedModel) -> PublishedModel:
    """The model with what its `config.yaml` or `config.json` says: read line by line, as all are flat numbers."""
    paths = [path for path in map(file.with_name, ("config.yaml", "config.json")) if path.is_file()]
    if not paths:
        return model
    path = paths[0]
    told = {key: int(value) for key, value in _CONFIGURED.findall(read_text(path))}
    if "extract_fps" in told:
        rate = told.get("input_fps", 25)
        every = rate // told["extract_fps"] if told["extract_fps"] else 1
        if not every:
            raise InputError(f"{path}: extract_fps is not usable", got=told["extract_fps"], wanted=f"0 to {rate}")
        model = replace(model, fps=Fraction(rate, every))
    return replace(model, clip_len=told.get("clip_len", model.clip_len))


def _write_run(file: Path, name: str, model: PublishedModel, folder: Path) -> None:
    """`run.json`, the head's and the backbone's weights, and where they came from."""
    from .extract.backbones.tensor_files import read_tensors
    from .finetune.published_names import HEADS_OF, bare_names, fill_head
    from .heads.model import build_model
    from .heads.recipes import RECIPES
    from .heads.training.checkpoint import BEST, RunRecord, write_weights
    from .heads.training.data import Chosen
    from .heads.training.settings import FinetuneSettings

    tensors = bare_names(read_tensors(file)[0])
    features, num_parameters = _write_backbone(file, tensors, model, folder)
    head, told = HEADS_OF[model.family](tensors, file)
    changes = {"clip_len": model.clip_len, "stride": 1, "score_overlap": model.overlap, "options": told}
    settings = FinetuneSettings.of(RECIPES[model.family].settings, **changes)
    network = build_model(settings, dim=features.dim, num_classes=len(model.classes), features=features)
    fill_head(network.head, head, file)
    write_weights(folder / BEST, network)
    num_parameters += network.num_parameters
    chosen = Chosen((), (), model.classes, TimeGrid(model.fps).fps)
    run = RunRecord.new(settings, chosen, features, start=features, num_parameters=num_parameters, best_epoch=1)
    replace(run, peaks=model.peaks).write(folder)
    origin = {**asdict(model), "fps": str(model.fps), "name": name, "file": file.name, "file_sha256": file_sha256(file)}
    write_json_atomic(folder / ORIGIN, origin)


def _write_backbone(
    file: Path, tensors: "Mapping[str, Tensor]", model: PublishedModel, folder: Path
) -> "tuple[FeatureSettings, int]":
    """The backbone's weights; returns the settings of its rows and how many parameters it has."""
    from .extract.backbones.registry import backbone_spec
    from .extract.backbones.tensor_files import fit_tensors
    from .extract.backbones.weights import BACKBONE, load_weights, save_backbone_checkpoint
    from .extract.extractor import resolve_settings
    from .extract.options import ExtractOptions
    from .finetune.published_names import TRUNK, backbone_of

    backbone = backbone_of(tensors, file)
    trunk = {each.removeprefix(TRUNK): tensor for each, tensor in tensors.items() if each.startswith(TRUNK)}
    spec = backbone_spec(backbone)
    module, record = load_weights(backbone, None, "none")
    fit_tensors(module, trunk, head_prefixes=spec.head_prefixes, source=str(file))
    width, height = model.size
    fed = replace(record, mean=_MEAN, std=_STD, stride=1, window=model.clip_len, width=width, height=height)
    save_backbone_checkpoint(folder / BACKBONE, module, fed)
    kept = load_weights(backbone, None, str(folder / BACKBONE))[1]
    hop = max(1, round(model.clip_len * (1 - model.overlap)))
    options = ExtractOptions(fit="stretch", scaler="swscale-bilinear", fps=str(model.fps), hop=hop)
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    return resolve_settings(options, kept, spec, None), num_parameters
