"""The heads: a table, and the builder. A new head is one file and one line of `HEADS`; the tests pick it up."""

from collections.abc import Mapping

from ..errors import InputError
from .actionformer import ActionFormerSettings
from .anchor import AnchorSettings
from .classifier import ClassifierHead
from .contract import Head, HeadSettings, NeckSettings, Trunk
from .ed import EdSettings
from .fc import FcSettings
from .gru import BiGruSettings, UnetGruSettings
from .losses import LOSS_NAMES, LossName
from .pyramid import EdConvSettings, TpnSettings
from .sgp import SgpBlockSettings, SgpSettings
from .targets import TargetSettings
from .tcn import TcnDilatedSettings, TcnSettings
from .transformer import TransformerSettings
from .unet import UnetSettings

HEADS: dict[str, NeckSettings | HeadSettings] = {
    "fc": FcSettings(),
    "tcn": TcnSettings(),
    "tcn_dilated": TcnDilatedSettings(),
    "sgp": SgpSettings(),
    "sgp_block": SgpBlockSettings(),
    "ed": EdSettings(),
    "ed_conv": EdConvSettings(),
    "tpn": TpnSettings(),
    "transformer": TransformerSettings(),
    "bigru": BiGruSettings(),
    "unet_gru": UnetGruSettings(),
    "unet": UnetSettings(),
    "anchor": AnchorSettings(),
    "actionformer": ActionFormerSettings(),
}
"""Name -> default settings, which build it: `build` makes a neck, `build_head` a head with outputs of its own."""

DISPLACEMENT = "disp"
WIDEST_WITHOUT_PROJECTION = 256
"""Channels up to which a head takes the features as they are; wider ones are projected to this many by default."""


def build_head(
    name: str,
    *,
    dim: int,
    num_classes: int,
    proj: int | None = None,
    loss: LossName | None = None,
    settings: Mapping[str, NeckSettings | HeadSettings] | None = None,
) -> Head:
    """A head by name, randomly initialised (from torch's global generator).

    Args:
        name: a key of `HEADS`; several joined by `+` follow each other (`tcn+sgp`), and `+disp` at the end adds a
            displacement output (`ed+disp`).
        dim: C, channels of the features.
        num_classes: K, without background.
        proj: width of a linear projection before the first neck; 0 for none; by default none up to 256 channels, and
            256 beyond.
        loss: `ce`, `focal` or `bce`; by default the head's own (`ce` for the common classifier, `focal` for heads with
            presence outputs of their own, which have no other).
        settings: replaces entries of `HEADS` by name.

    Raises:
        InputError: unknown name or loss, a composition that makes no sense, or sizes that are not positive.
    """
    if min(dim, num_classes) < 1 or (proj or 0) < 0:
        got = f"dim={dim}, num_classes={num_classes}, proj={proj}"
        raise InputError("size of the head is not usable", got=got, wanted="dim, num_classes >= 1; proj >= 0")
    if loss is not None and loss not in LOSS_NAMES:
        raise InputError("no such loss", got=repr(loss), wanted=", ".join(LOSS_NAMES))
    parts, displacement = _parse(name, {**HEADS, **(settings or {})})
    if proj is None:
        proj = WIDEST_WITHOUT_PROJECTION if dim > WIDEST_WITHOUT_PROJECTION else 0
    last = parts[-1]
    if not isinstance(last, HeadSettings):
        trunk = Trunk(dim=dim, proj=proj, necks=_necks(name, parts))
        return ClassifierHead(trunk, num_classes=num_classes, loss=loss or "ce", displacement=displacement)
    if displacement:
        raise InputError(
            "this head regresses an offset already", got=repr(name), wanted="no +disp", cure="leave +disp out"
        )
    if loss in ("ce", "bce"):
        raise InputError(
            f"{name!r} has presence outputs", got=f"loss {loss!r}", wanted="'focal'", cure="leave the loss to the head"
        )
    return last.build_head(Trunk(dim=dim, proj=proj, necks=_necks(name, parts[:-1])), num_classes)


def default_targets(name: str) -> TargetSettings:
    """Label width that a head is made for: dilation by 2 steps with `+disp`, none otherwise."""
    return TargetSettings(dilation_steps=2 if name.endswith(f"+{DISPLACEMENT}") else 0)


def _parse(
    name: str, table: Mapping[str, NeckSettings | HeadSettings]
) -> tuple[list[NeckSettings | HeadSettings], bool]:
    names = name.split("+")
    displacement = len(names) > 1 and names[-1] == DISPLACEMENT
    names = names[:-1] if displacement else names
    for each in names:
        if each not in table:
            raise InputError(
                "no such head",
                got=repr(each) + (f" in {name!r}" if each != name else ""),
                wanted=", ".join(table),
                cure="join several by +, as in tcn+sgp; add +disp at the end for a displacement output",
            )
    return [table[each] for each in names], displacement


def _necks(name: str, parts: list[NeckSettings | HeadSettings]) -> list[NeckSettings]:
    necks: list[NeckSettings] = []
    for part in parts:
        if isinstance(part, HeadSettings):
            raise InputError(
                "a head with outputs of its own must come last",
                got=repr(name),
                wanted="necks first, such a head last",
            )
        necks.append(part)
    return necks
