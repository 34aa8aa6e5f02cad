"""The heads: a table, and the builder. A new head is one file and one line of `HEADS`; the contract tests pick it up.

A head from outside the package is named by the import path of its settings, `module:Settings`, or put into `HEADS`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .actionformer import ActionFormerSettings
from .anchor import AnchorSettings
from .classifier import ClassifierHead
from .contract import Head, HeadSettings, NeckSettings, Trunk
from .ed import EdSettings
from .fc import FcSettings
from .gru import BiGruSettings, UnetGruSettings
from .positions import PositionsSettings
from .pyramid import EdConvSettings, TpnSettings
from .sgp import SgpBlockSettings, SgpSettings
from .stage_unet import StageUnetSettings
from .tcn import TcnDilatedSettings, TcnSettings
from .training.settings import DISPLACEMENT, LOSS_NAMES, LossName
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
    "positions": PositionsSettings(),
    "bigru": BiGruSettings(),
    "unet_gru": UnetGruSettings(),
    "unet": UnetSettings(),
    "stage_unet": StageUnetSettings(),
    "anchor": AnchorSettings(),
    "actionformer": ActionFormerSettings(),
}
"""Name -> default settings, which build it: `build` makes a neck, `build_head` a head with outputs of its own."""
WIDEST_WITHOUT_PROJECTION = 256
"""Channels up to which a head takes the features as they are; wider ones are projected to this many by default."""


def build_head(
    name: str,
    *,
    dim: int,
    num_classes: int,
    proj: int | None = None,
    loss: LossName | None = None,
    dropout: float | None = None,
    settings: Mapping[str, NeckSettings | HeadSettings] | None = None,
) -> Head:
    """A head by name, randomly initialised (from torch's global generator).

    Args:
        name: a key of `HEADS` or `module:Settings`; several joined by `+` follow each other (`tcn+sgp`), and `+disp`
            at the end adds a displacement output (`ed+disp`).
        dim: C, channels of the features.
        num_classes: K, without background.
        proj: width of a linear projection before the first neck; 0 for none; by default none up to 256 channels, and
            256 beyond.
        loss: one of `LOSS_NAMES`; by default the head's own (`ce` for the common classifier, `focal` for heads with
            presence outputs of their own, which have no other).
        dropout: before the common classifier; by default that of the last neck.
        settings: replaces entries of `HEADS` by name.

    Raises:
        InputError: unknown name or loss, a composition that makes no sense, or sizes that are not positive.
    """
    if min(dim, num_classes) < 1 or (proj or 0) < 0:
        got = f"dim={dim}, num_classes={num_classes}, proj={proj}"
        raise InputError("size of the head is not usable", got=got, wanted="dim, num_classes >= 1; proj >= 0")
    if loss is not None and loss not in LOSS_NAMES:
        raise InputError("no such loss", got=repr(loss), wanted=", ".join(LOSS_NAMES))
    names = name.split("+")
    displacement = len(names) > 1 and names[-1] == DISPLACEMENT
    parts = [(settings or {}).get(each) or default_settings(each) for each in names[: len(names) - displacement]]
    necks = [part for part in parts if not isinstance(part, HeadSettings)]
    *early, last = parts
    if any(isinstance(part, HeadSettings) for part in early):
        wanted = "necks first, such a head last"
        raise InputError("a head with outputs of its own must come last", got=repr(name), wanted=wanted)
    if proj is None:
        proj = WIDEST_WITHOUT_PROJECTION if dim > WIDEST_WITHOUT_PROJECTION else 0
    trunk = Trunk(dim=dim, proj=proj, necks=necks)
    if not isinstance(last, HeadSettings):
        return ClassifierHead(
            trunk, num_classes=num_classes, loss=loss or "ce", displacement=displacement, dropout=dropout
        )
    if dropout is not None:
        raise InputError(
            f"{name!r} has no common classifier", got=f"dropout {dropout}", cure="leave the dropout to the head"
        )
    if displacement:
        raise InputError(
            "this head regresses an offset already", got=repr(name), wanted="no +disp", cure="leave +disp out"
        )
    if loss not in (None, "focal"):
        raise InputError(
            f"{name!r} has presence outputs", got=f"loss {loss!r}", wanted="'focal'", cure="leave the loss to the head"
        )
    return last.build_head(trunk, num_classes)


def default_settings(name: str) -> NeckSettings | HeadSettings:
    """Default settings of one head by its name in `HEADS`, or by import path: `my_module:MyHeadSettings`.

    Raises:
        InputError: no such head, or a module that cannot be imported or holds no such settings.
    """
    if name in HEADS:
        found = HEADS[name]
        return found() if isinstance(found, type) else found  # a class put there from outside is as good
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise InputError(
            "no such head",
            got=repr(name),
            wanted=", ".join(HEADS),
            cure="join several by +, as in tcn+sgp; add +disp at the end for a displacement output; a head of your "
            "own is module:Settings",
        )
    try:
        settings: NeckSettings | HeadSettings = getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:  # whatever a module of somebody else does while it is imported
        raise InputError(
            f"head {name!r} cannot be imported",
            got=f"{type(error).__name__}: {error}"[:200],
            wanted="module:Settings, a dataclass with defaults for every field",
            cure="install the package that holds it, or name its folder in PYTHONPATH",
        ) from error
    if not hasattr(settings, "build") and not hasattr(settings, "build_head"):
        raise InputError(f"head {name!r} builds no head", wanted="settings with a method build or build_head")
    return settings


def require_own_modules(head: str, folder: Path) -> None:
    """Refuse a run whose head would be imported from the run's own folder: a run is data, never code.

    A head from outside must lie in an installed package or module. Namespace packages (folders without `__init__.py`)
    are refused, as `runs.of_somebody.module` would lead from the working directory into a run.

    Raises:
        InputError: a head that would be imported from `folder`, or from no proper module.
    """
    for name in head.split("+"):
        if ":" not in name or name in HEADS:
            continue
        top = name.partition(":")[0].partition(".")[0]
        spec = importlib.util.find_spec(top) if top.isidentifier() else None  # imports nothing
        origin = Path(spec.origin) if spec and spec.origin and spec.has_location else None
        if origin is None or origin.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{folder}: its head {name!r} cannot be imported",
                got="no such module" if origin is None else f"code inside the run: {origin}",
                wanted="a module that is installed on this machine",
                cure="install the package that holds it, or name its folder in PYTHONPATH",
            )


def split_option(path: str) -> tuple[str, list[str]]:
    """`unet_gru.gru.hidden` -> head and fields; the head may be an import path: `my.module:Settings.width`."""
    module, colon, rest = path.rpartition(":")
    name, *fields = rest.split(".")
    return module + colon + name, fields
