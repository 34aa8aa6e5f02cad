"""Whole spotting systems that others published, as runs: `hub:NAME` names one wherever a run is asked for.

A checkpoint is converted once, weights only, into a folder as `bas finetune` leaves it. Names of tensors and settings are
those of E2E-Spot (github.com/jhong93/spot), opensportslib, which carries it on, and T-DEED (github.com/arturxe2/T-DEED).
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import InputError
from .eval.peaks import PeakSettings
from .events import SOCCERNET_BALL_CLASSES, TimeGrid
from .files import disk_errors, read_text, write_json_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from .heads.training.settings import FinetuneSettings

PREFIX = "hub:"
ORIGIN = "published.json"
"""In the folder of a converted run: where its weights came from."""
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
    """Whose names its tensors have."""
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

    cure = f"fetch it on a machine that reaches {model.place}; then bas weights --convert FILE --as {name} --out RUN"
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
        folder = Path(huggingface_hub.snapshot_download(model.place.removeprefix("hf:"), allow_patterns=patterns))
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
    model = _as_configured(file, published_model(name))
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
    path = next((file.with_name(each) for each in ("config.yaml", "config.json") if file.with_name(each).is_file()), None)
    if path is None:
        return model
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
    import torch

    from .extract.backbones.registry import backbone_spec
    from .extract.backbones.tensor_files import fit_tensors, read_tensors
    from .extract.backbones.weights import BACKBONE, load_weights, save_backbone_checkpoint
    from .extract.extractor import resolve_settings
    from .extract.options import ExtractOptions
    from .files import file_sha256
    from .heads.model import build_model
    from .heads.training.checkpoint import BEST, RunRecord, write_weights
    from .heads.training.data import Chosen

    if not file.is_file():
        raise InputError(f"{file}: no such file", wanted="a checkpoint of " + name)
    tensors = _bare(read_tensors(file)[0])
    backbone = _backbone(tensors, file)
    trunk = {each.removeprefix(_TRUNK): tensor for each, tensor in tensors.items() if each.startswith(_TRUNK)}
    spec = backbone_spec(backbone)
    module, record = load_weights(backbone, None, "none")
    fit_tensors(module, trunk, head_prefixes=spec.head_prefixes, source=str(file))
    bound = replace(
        record,
        mean=_IMAGENET,
        std=_IMAGENET_STD,
        stride=1,
        window=model.clip_len,
        width=model.size[0],
        height=model.size[1],
    )
    save_backbone_checkpoint(folder / BACKBONE, module, bound)
    _, kept = load_weights(backbone, None, str(folder / BACKBONE))
    options = ExtractOptions(
        fit="stretch",
        scaler="swscale-bilinear",
        fps=str(model.fps),
        hop=max(1, round(model.clip_len * (1 - model.overlap))),
    )
    features = resolve_settings(options, kept, spec, None)
    head, settings = _FAMILIES[model.family](tensors, model, file)
    num_classes = len(model.classes)
    network = build_model(settings, dim=features.dim, num_classes=num_classes, features=features)
    state = network.state_dict()
    _require_same({each.removeprefix(_HEAD): tensor for each, tensor in state.items() if each.startswith(_HEAD)}, head, file)
    with torch.no_grad():
        for each, tensor in head.items():
            state[_HEAD + each].copy_(tensor.reshape(state[_HEAD + each].shape))
    write_weights(folder / BEST, network)
    num_parameters = network.num_parameters + sum(parameter.numel() for parameter in module.parameters())
    chosen = Chosen((), (), model.classes, TimeGrid(model.fps).fps)
    run = RunRecord.new(settings, chosen, features, start=features, num_parameters=num_parameters, best_epoch=1)
    replace(run, peaks=model.peaks).write(folder)
    origin = {**asdict(model), "fps": str(model.fps), "name": name, "file": file.name, "file_sha256": file_sha256(file)}
    write_json_atomic(folder / ORIGIN, origin)


_IMAGENET, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TRUNK, _HEAD = "_features.", "head."
_OWN = re.compile(r"^.*?(?=(?:_features|_pred_fine|_pred_displ|_pred_team|_temp_fine|temp_enc)(?:\.|$))")
_BACKBONES = {368: "regnety_002", 768: "regnety_008"}
"""Channels of a row -> the network that has them."""


def _bare(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Names without what wrappers put before them (`module.`, `backbone.`, `head.`), without BatchNorm's counters."""
    return {_OWN.sub("", name): each for name, each in tensors.items() if not name.endswith("num_batches_tracked")}


def _backbone(tensors: Mapping[str, "Tensor"], file: Path) -> str:
    """Name of the backbone that made the rows."""
    first = next((tensors[name] for name in ("_pred_fine._gru.weight_ih_l0", "temp_enc") if name in tensors), None)
    dim = first.shape[1] if first is not None and first.ndim == 2 else 0
    if dim not in _BACKBONES:
        raise InputError(
            f"{file}: no checkpoint of these systems",
            got=f"rows of {dim} channels" if dim else f"{len(tensors)} tensors, such as {next(iter(tensors), 'none')}"[:120],
            wanted="_features.* of RegNetY-002 or -008, and _pred_fine._gru.* (E2E-Spot) or temp_enc (T-DEED)",
            cure="--as must name the system that made the file",
        )
    gate = "gsf" if any(".channel_conv" in name for name in tensors) else "gsm"
    return f"{_BACKBONES[dim]}+{gate}"


def _spot_head(
    tensors: Mapping[str, "Tensor"], model: PublishedModel, _file: Path
) -> tuple[dict[str, "Tensor"], "FinetuneSettings"]:
    """Weights of the head by our names, and the run's settings: of one GRU or three, in both directions."""
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRUNK)}
    renamed = {
        name.replace("_pred_fine._gru.", "trunk.necks.0.gru.").replace("_pred_fine._fc_out._fc_out.", "classifier."): each
        for name, each in own.items()
    }
    num_layers = sum(bool(re.fullmatch(r"_pred_fine\._gru\.weight_hh_l\d", name)) for name in own)
    hidden = own["_pred_fine._gru.weight_hh_l0"].shape[-1] if num_layers else 1
    options = {"bigru.hidden": hidden, "bigru.num_layers": max(1, num_layers)}
    return renamed, _settings("e2e-spot", model, options)


_SGP_PARTS = (
    ("ln.", "norm."),
    ("gn.", "mlp.norm."),
    ("mlp.0.", "mlp.up."),
    ("mlp.2.", "mlp.down."),
    ("psi.", "branches.psi.conv."),
    ("convw.", "branches.conv_w.conv."),
    ("convkw.", "branches.conv_kw.conv."),
    ("global_fc.", "branches.global_fc."),
    ("fc.", "branches.fc."),
)
_MERGE_ORDER = (3, 1, 2, 0, 5, 4)
"""Of T-DEED's six parts that a mixer joins (window and instant of skip and coarse level), those that ours begin with."""


def _tdeed_head(
    tensors: Mapping[str, "Tensor"], model: PublishedModel, file: Path
) -> tuple[dict[str, "Tensor"], "FinetuneSettings"]:
    """Weights of the head by our names, and the run's settings. What was learned for another data set or for teams is
    left out; their displacement is subtracted, ours added."""
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"_temp_fine\._sgp\.(\d{1,3})\.", name))}
    narrow, wide = (tensors.get(f"_temp_fine._sgp.0.{part}.weight") for part in ("psi", "convkw"))
    if narrow is None or wide is None or narrow.ndim != 3 or wide.ndim != 3 or len(blocks) % 2 == 0:
        got = f"{len(blocks)} SGP blocks"
        raise InputError(f"{file}: no checkpoint of T-DEED", got=got, wanted="_temp_fine._sgp.*, an odd number of them")
    depth, kernel = len(blocks) // 2, narrow.shape[-1]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith((_TRUNK, "_pred_team.", "_pred_fine._fc2.")):
            continue
        ours = _tdeed_name(name, depth)
        if ours.startswith("displacement."):
            tensor = -tensor
        elif ours.endswith("merge.weight"):
            parts = tensor.chunk(6, dim=1)
            tensor = parts[0].new_empty(0) if len(parts) != 6 else _joined([parts[number] for number in _MERGE_ORDER])
        renamed[ours] = tensor
    options = {
        "positions.num_steps": len(tensors["temp_enc"]),
        "ed.num_layers": depth,
        "ed.kernel_steps": kernel,
        "ed.kernel_ratio": wide.shape[-1] / (kernel + 1),
    }
    return renamed, _settings("t-deed", model, options)


def _joined(parts: list["Tensor"]) -> "Tensor":
    import torch

    return torch.cat(parts, dim=1)


def _tdeed_name(name: str, depth: int) -> str:
    """Our name in the head of one of T-DEED's tensors; one that is not known stays."""
    for theirs, ours in (
        ("temp_enc", "trunk.necks.0.encoding_tc"),
        ("_pred_displ._fc_out.", "displacement."),
        ("_pred_fine._fc1._fc_out.", "classifier."),
        ("_pred_fine._fc_out.", "classifier."),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    found = re.fullmatch(r"_temp_fine\.(_sgp|_sgpMixer)\.(\d{1,3})\.(.+)", name)
    if found is None:
        return name
    kind, number, part = found[1], int(found[2]), found[3]
    if kind == "_sgpMixer":
        return f"trunk.necks.1.mixers.{depth - 1 - number}.{_mixer_part(part)}"
    place = f"encoder.{number}" if number < depth else f"decoder.{number - depth - 1}"
    return f"trunk.necks.1.{'bottleneck' if number == depth else place}.{_sgp_part(part)}"


def _sgp_part(part: str) -> str:
    return next((ours + part.removeprefix(theirs) for theirs, ours in _SGP_PARTS if part.startswith(theirs)), part)


def _mixer_part(part: str) -> str:
    """A mixer has the operators twice: 1 of the skip, 2 of the coarse level."""
    found = re.fullmatch(r"(ln|psi|convw|convkw|fc|global_fc)([12])\.(.+)", part)
    if found is None:
        return _sgp_part(part).replace("concat_fc.", "merge.")
    level = "skip" if found[2] == "1" else "deep"
    if found[1] == "ln":
        return f"norm_{level}.{found[3]}"
    return _sgp_part(f"{found[1]}.{found[3]}").replace("branches", level, 1)


_FAMILIES: Mapping[str, Callable[..., tuple[dict[str, "Tensor"], "FinetuneSettings"]]] = {
    "e2e-spot": _spot_head,
    "t-deed": _tdeed_head,
}


def _settings(recipe: str, model: PublishedModel, options: Mapping[str, float]) -> "FinetuneSettings":
    """The recipe of the system, as it sees clips here: `bas finetune --from` goes on with it."""
    from .heads.recipes import RECIPES
    from .heads.training.settings import FinetuneSettings

    changes = {"clip_len": model.clip_len, "stride": 1, "score_overlap": model.overlap, "options": dict(options)}
    return FinetuneSettings.of(RECIPES[recipe].settings, **changes)


def _require_same(wanted: Mapping[str, "Tensor"], found: Mapping[str, "Tensor"], file: Path) -> None:
    """Refuse tensors that are not the head's; sides of length one do not count, as convolutions of one tap have them."""
    classes = (found["classifier.bias"].shape, wanted["classifier.bias"].shape) if "classifier.bias" in found else None
    if classes is not None and classes[0] != classes[1]:
        raise InputError(
            f"{file}: it knows other classes",
            got=f"{classes[0].numel() - 1} and background",
            wanted=f"{classes[1].numel() - 1} and background",
            cure="--as must name the system that made the file",
        )
    wrong = [
        f"{name} {'is missing' if name not in found else 'is not known' if name not in wanted else 'has another shape'}"
        for name in sorted(wanted.keys() | found.keys())
        if name not in found or name not in wanted or _sides(found[name]) != _sides(wanted[name])
    ]
    if wrong:
        raise InputError(
            f"{file}: its head does not fit",
            got=f"{len(wrong)} tensors: {', '.join(wrong[:3])}"[:200],
            wanted=f"{len(wanted)} tensors, by our names",
            cure="--as must name the system that made the file",
        )


def _sides(tensor: "Tensor") -> list[int]:
    return [side for side in tensor.shape if side != 1]
