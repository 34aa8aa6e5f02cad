"""Named recipes: head and training settings under one name. A new recipe is one entry of `RECIPES`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import InputError
from .training.settings import TrainSettings


@dataclass(frozen=True)
class Published:
    """What others report for a recipe on SoccerNet's test split, in %, end to end, one run."""

    map_12: float | None
    map_10: float | None
    source: str


@dataclass(frozen=True)
class Recipe:
    """Settings under a name."""

    about: str
    """One line."""
    settings: TrainSettings
    published: Published | None = field(default=None)


_SEED = "seed, X3D-S"
_SCORES = TrainSettings(
    head="unet",
    inputs="scores",
    loss="bce",
    sigma=2.0,
    clip_len=512,
    hop_rows=51,
    batch=16,
    epochs=10,
    epoch_steps=409_600,
    warmup_epochs=1.0,
    patience=0,
    lr=3e-3,
    max_grad_norm=1.0,
    ema=0.995,
    score_len=1024,
    keep="last",
)
"""500 updates of 16 windows of 41 s. Chosen by cross-validation over SoccerNet's four training games: longer training,
other losses, more dropout and jittered scores were no better; the mean of several runs is (see README)."""

RECIPES: Mapping[str, Recipe] = {
    "fc": Recipe("the seed's baseline", TrainSettings(head="fc", proj=0), Published(37.31, 42.66, _SEED)),
    "tcn": Recipe("two convolutions", TrainSettings(head="tcn"), Published(34.38, 40.65, _SEED)),
    "sgp": Recipe("two-branch SGP", TrainSettings(head="sgp"), Published(36.15, 42.47, _SEED)),
    "tcn+sgp": Recipe("TCN, then SGP", TrainSettings(head="tcn+sgp"), Published(36.19, 42.06, _SEED)),
    "ed_conv": Recipe(
        "encoder-decoder by transposed convolution", TrainSettings(head="ed_conv"), Published(32.31, 38.09, _SEED)
    ),
    "tpn": Recipe("temporal pyramid", TrainSettings(head="tpn"), Published(41.42, 42.43, _SEED)),
    "transformer": Recipe(
        "two post-norm encoder layers",
        TrainSettings(head="transformer", lr=1e-4, patience=7, min_improvement=0.005),
        Published(34.56, 36.01, _SEED),
    ),
    "ed": Recipe("SGP-mixer encoder-decoder: the seed's best", TrainSettings(), Published(42.96, 46.10, _SEED)),
    "ed-focal": Recipe("the same with focal loss", TrainSettings(loss="focal"), Published(41.37, 43.11, _SEED)),
    "ed+disp": Recipe(
        "the same with a displacement output", TrainSettings(head="ed+disp"), Published(41.67, 46.06, "others, X3D-S")
    ),
    "bigru": Recipe(
        "bidirectional GRU", TrainSettings(head="bigru", max_grad_norm=1.0), Published(41.50, 45.75, "others, X3D-M")
    ),
    "unet_gru": Recipe(
        "U-Net with a GRU at the bottom",
        TrainSettings(head="unet_gru", max_grad_norm=1.0),
        Published(None, 47.2, "others, X3D-M"),
    ),
    "tcn_dilated": Recipe("three dilated convolutions", TrainSettings(head="tcn_dilated")),
    "sgp_block": Recipe("one SGP block as in TriDet", TrainSettings(head="sgp_block")),
    "unet": Recipe(
        "U-Net over long windows",
        TrainSettings(head="unet", clip_len=256, hop_rows=50, batch=8, lr=2e-3, max_grad_norm=1.0),
    ),
    "small": Recipe(
        "for minutes of labelled video: every frame, short windows, few weights",
        TrainSettings(
            head="tcn",
            inputs="standard",
            proj=64,
            dilate=1,
            clip_len=48,
            stride=1,
            hop_rows=4,
            batch=8,
            epochs=12,
            epoch_steps=20_000,
            warmup_epochs=1.0,
            patience=0,
            lr=1e-3,
            weight_decay=0.05,
            max_grad_norm=1.0,
        ),
    ),
    "scores": Recipe("confidences of another model, from bas cache import", _SCORES),
    "scores-gru": Recipe(
        "the same with a GRU two levels down; best averaged with the other",
        replace(_SCORES, head="unet_gru", options={"unet_gru.widths": "64,96", "unet_gru.gru.hidden": 128}),
    ),
    "anchor": Recipe(
        "temporal anchors",
        TrainSettings(
            head="anchor",
            options={"anchor.lengths_steps": "4,8,16", "anchor.event_steps": 8},
            max_grad_norm=1.0,
        ),
    ),
    "actionformer": Recipe(
        "pyramid of local attention, one instant per point",
        TrainSettings(head="actionformer", lr=1e-4, max_grad_norm=1.0),
    ),
}


def named_recipe(name: str) -> TrainSettings:
    """Settings of a recipe.

    Raises:
        InputError: no such recipe.
    """
    if name not in RECIPES:
        raise InputError("no such recipe", got=repr(name), wanted=", ".join(RECIPES), cure="see bas train-head --list")
    return RECIPES[name].settings


def default_recipe(head: str) -> TrainSettings:
    """Settings for a head without a recipe's name: the recipe called like it, or like its first part, with this head.

    Unknown names are left to the builder of heads, which lists the known ones.
    """
    found = RECIPES.get(head) or RECIPES.get(head.split("+", maxsplit=1)[0]) or RECIPES["ed"]
    return replace(found.settings, head=head)
