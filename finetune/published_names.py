"""Tensors of E2E-Spot and T-DEED checkpoints by the names of our head, with the head's settings that their shapes tell.

Sources: GRUPrediction of jhong93/spot and opensportslib; EDSGPMIXERLayers and SGPMixer of arturxe2/T-DEED.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError

TRUNK = "_features."
"""Begins the names of their backbone's tensors."""
_OWN = re.compile(r"^.*?(?=(?:_features|_pred_fine|_pred_displ|_pred_team|_temp_fine|temp_enc)(?:\.|$))")
_BACKBONES = {368: "regnety_002", 768: "regnety_008"}
"""Channels of a row -> the network that has them."""
_CURE = "--as must name the system that made the file"
Options = dict[str, float]


def bare_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put before the names (`module.`, `backbone.`), and without BatchNorm's counters."""
    return {_OWN.sub("", name): each for name, each in tensors.items() if not name.endswith("num_batches_tracked")}


def backbone_of(tensors: Mapping[str, Tensor], file: Path) -> str:
    """Name of the backbone that makes the head's rows, such as `regnety_008+gsm`.

    Raises:
        InputError: the tensors are of neither system.
    """
    first = next((tensors[name] for name in ("_pred_fine._gru.weight_ih_l0", "temp_enc") if name in tensors), None)
    dim = first.shape[1] if first is not None and first.ndim == 2 else 0
    if dim not in _BACKBONES:
        found = f"{len(tensors)} tensors, such as {next(iter(tensors), 'none')}"
        raise InputError(
            f"{file}: no checkpoint of these systems",
            got=f"rows of {dim} channels" if dim else found[:120],
            wanted="_features.* of RegNetY-002 or -008, and _pred_fine._gru.* (E2E-Spot) or temp_enc (T-DEED)",
            cure=_CURE,
        )
    gate = "gsf" if any(".channel_conv" in name for name in tensors) else "gsm"
    return f"{_BACKBONES[dim]}+{gate}"


def spot_head(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], Options]:
    """The head of E2E-Spot: a GRU of one layer or three, in both directions. Raises InputError for another."""
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRUNK)}
    num_layers = sum(bool(re.fullmatch(r"_pred_fine\._gru\.weight_hh_l\d", name)) for name in own)
    if not num_layers:
        raise InputError(f"{file}: no checkpoint of E2E-Spot", got="no GRU", wanted="_pred_fine._gru.*", cure=_CURE)
    renamed = {}
    for name, tensor in own.items():
        ours = name.replace("_pred_fine._gru.", "trunk.necks.0.gru.")
        renamed[ours.replace("_pred_fine._fc_out._fc_out.", "classifier.")] = tensor
    hidden = own["_pred_fine._gru.weight_hh_l0"].shape[-1]
    return renamed, {"bigru.hidden": hidden, "bigru.num_layers": num_layers}


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
    ("concat_fc.", "merge."),
)
_MERGE_ORDER = (3, 1, 2, 0, 5, 4)
"""A mixer joins six parts, T-DEED's skip before its coarse level and windows before instants: ours in theirs."""


def tdeed_head(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], Options]:
    """The head of T-DEED. What it learned for another data set or for teams is left out. Its displacement is
    subtracted and ours added, so the sign changes.

    Raises:
        InputError: the tensors are another head's.
    """
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"_temp_fine\._sgp\.(\d{1,3})\.", name))}
    narrow, wide = (tensors.get(f"_temp_fine._sgp.0.{part}.weight") for part in ("psi", "convkw"))
    if narrow is None or wide is None or min(narrow.ndim, wide.ndim) < 3 or len(blocks) % 2 == 0:
        wanted = "_temp_fine._sgp.*, an odd number of blocks"
        raise InputError(f"{file}: no checkpoint of T-DEED", got=f"{len(blocks)} blocks", wanted=wanted, cure=_CURE)
    depth, kernel = len(blocks) // 2, narrow.shape[-1]
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith((TRUNK, "_pred_team.", "_pred_fine._fc2.")):
            continue
        ours = _tdeed_name(name, depth)
        if ours.startswith("displacement."):
            tensor = -tensor
        elif ours.endswith(".merge.weight") and tensor.ndim > 1 and tensor.shape[1] % 6 == 0:
            parts = tensor.chunk(6, dim=1)
            tensor = torch.cat([parts[number] for number in _MERGE_ORDER], dim=1)
        renamed[ours] = tensor
    options = {
        "positions.num_steps": len(tensors["temp_enc"]),
        "ed.num_layers": depth,
        "ed.kernel_steps": kernel,
        "ed.kernel_ratio": wide.shape[-1] / (kernel + 1),
    }
    return renamed, options


def _tdeed_name(name: str, depth: int) -> str:
    """Our name for one of T-DEED's tensors; one that is not known stays."""
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
    number = int(found[2])
    if found[1] == "_sgpMixer":
        return f"trunk.necks.1.mixers.{depth - 1 - number}.{_mixer_part(found[3])}"
    place = f"encoder.{number}" if number < depth else f"decoder.{number - depth - 1}"
    return f"trunk.necks.1.{'bottleneck' if number == depth else place}.{_sgp_part(found[3])}"


def _sgp_part(part: str) -> str:
    return next((ours + part.removeprefix(theirs) for theirs, ours in _SGP_PARTS if part.startswith(theirs)), part)


def _mixer_part(part: str) -> str:
    """A mixer has the operators twice: 1 of the skip, 2 of the coarse level."""
    found = re.fullmatch(r"(ln|psi|convw|convkw|fc|global_fc)([12])\.(.+)", part)
    if found is None:
        return _sgp_part(part)
    level = "skip" if found[2] == "1" else "deep"
    if found[1] == "ln":
        return f"norm_{level}.{found[3]}"
    return _sgp_part(f"{found[1]}.{found[3]}").replace("branches", level, 1)


HEADS_OF: Mapping[str, Callable[[Mapping[str, Tensor], Path], tuple[dict[str, Tensor], Options]]] = {
    "e2e-spot": spot_head,
    "t-deed": tdeed_head,
}
"""Recipe of the system -> what reads its head."""


def fill_head(head: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Copy tensors into a head. Sides of length one do not count: their convolutions of one tap have them.

    Raises:
        InputError: other classes, or tensors that are missing, not known or of another shape.
    """
    wanted = head.state_dict()
    if "classifier.bias" in tensors and len(tensors["classifier.bias"]) != len(wanted["classifier.bias"]):
        raise InputError(
            f"{file}: it knows other classes",
            got=f"{len(tensors['classifier.bias']) - 1} and background",
            wanted=f"{len(wanted['classifier.bias']) - 1} and background",
            cure=_CURE,
        )
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - tensors.keys())]
    wrong += [f"{name} is not known" for name in sorted(tensors.keys() - wanted.keys())]
    common = sorted(wanted.keys() & tensors.keys())
    wrong += [f"{name} has another shape" for name in common if _sides(tensors[name]) != _sides(wanted[name])]
    if wrong:
        got = f"{len(wrong)} tensors: {', '.join(wrong[:3])}"
        raise InputError(f"{file}: its head does not fit", got=got[:200], wanted=f"{len(wanted)} tensors", cure=_CURE)
    head.load_state_dict({name: tensors[name].reshape(wanted[name].shape) for name in common})


def _sides(tensor: Tensor) -> list[int]:
    return [side for side in tensor.shape if side != 1]
