"""Named recipes: head and training settings under one name. A new recipe is one entry of `RECIPES`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..cache.settings import Depth, FeatureSettings, depth_text
from ..errors import InputError
from .training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others report for a recipe on SoccerNet's test split, in %, end to end, one run."""

    map_12: float | None
    map_10: float | None
    team: str
    year: int
    source: str
    """Repository and file."""
    other_system: str = ""
    """How their system is another than the recipe; empty where it is the same."""

    @property
    def by(self) -> str:
        """Who, in a few words."""
        return f"{self.team}, {self.year}"


def _seed(map_12: float, map_10: float, other_system: str = "") -> Published:
    """From the table of the course team whose heads we began with."""
    source = "mcv-m6-video/mcv-c6-2025-team6, w7/FinalPresentation.pdf"
    return Published(map_12=map_12, map_10=map_10, team="team 6", year=2025, source=source, other_system=other_system)


def _team_2026(number: int, map_12: float | None, map_10: float, file: str) -> Published:
    """From the README of another course team."""
    source = f"mcv-m6-video/mcv-c6-2026-team{number}, {file}"
    return Published(map_12=map_12, map_10=map_10, team=f"team {number}", year=2026, source=source)


@dataclass(frozen=True)
class Recipe:
    """Settings under a name."""

    about: str
    """One line."""
    settings: TrainSettings
    published: Published | None = None
    backbone: str | None = None
    """Name of the backbone whose features it is for; None: any."""
    depth: Depth = None
    """Trunk blocks of that backbone."""
    size: tuple[int, int] | None = None
    """Width x height of the pictures that it is finetuned on; None: the usual."""
    finetuning: Mapping[str, str | float] = field(default_factory=dict)
    """Settings of `bas finetune` beside these."""


_FC = TrainSettings(head="fc", proj=0)
_TRANSFORMER = TrainSettings(head="transformer", proj=0, lr=1e-4, patience=7, min_improvement=0.005)
"""Its own first layer projects from any width."""
_BIGRU = TrainSettings(head="bigru", max_grad_norm=1.0)
_UNET_GRU = TrainSettings(head="unet_gru", max_grad_norm=1.0)
_ANCHOR = TrainSettings(
    head="anchor",
    options={"anchor.lengths_steps": "4,8,16", "anchor.event_steps": 8},
    max_grad_norm=1.0,
)
_STAGE_UNET = TrainSettings(head="stage_unet", proj=0)
_SYSTEM = TrainSettings(
    proj=0, clip_len=100, stride=2, batch=8, lr=1e-3, mixup=0.2, frames_per_epoch=500_000, warmup_epochs=3.0, patience=0
)
"""What E2E-Spot and T-DEED share. They draw clips at random; ours start 9 rows apart, in a new order each epoch. Their
mixup reads one more clip for each to blend with, by a share of its own; ours blends the batch, by one share."""
_PICTURES: Mapping[str, str | float] = {"mixup_of": "pictures"}
_ENCODED: Mapping[str, float | int | str | bool] = {"positions.num_steps": 100}
"""Every step of their clips has an encoding of its own."""
_LROMUL = TrainSettings(
    head="fc",
    proj=0,
    loss="bce_focal",
    dilate=3,
    dropout=0.2,
    event_share=0.5,
    clip_len=33,
    stride=2,
    batch=4,
    lr=3e-4,
    epochs=36,
    frames_per_epoch=198_000,
    warmup_epochs=6.0,
    patience=0,
    ema=0.999,
    keep="last",
)
"""The source's basic training: 1500 updates an epoch, labels 0.6 s wide (here 7 steps: 0.56 s). What is not ours:
its rate ends at 1 %, it learns the middle row of a stack where we learn all rows of a clip, and frames are shaken in
time."""
_ACTIONFORMER = TrainSettings(head="actionformer", lr=1e-4, max_grad_norm=1.0)
_SCORES = TrainSettings(
    head="unet",
    inputs="scores",
    loss="bce",
    sigma=2.0,
    clip_len=512,
    hop_rows=51,
    batch=16,
    epochs=10,
    frames_per_epoch=409_600,
    warmup_epochs=1.0,
    patience=0,
    lr=3e-3,
    dropout=0.0,
    max_grad_norm=1.0,
    ema=0.995,
    score_len=1024,
    keep="last",
)
"""500 updates of 16 windows of 41 s. Chosen by cross-validation over SoccerNet's four training games: longer training,
other losses, dropout and jittered scores were no better; the mean of several runs is (see README)."""

_FEW = TrainSettings(
    inputs="standard",
    proj=64,
    dilate=1,
    clip_len=48,
    stride=1,
    hop_rows=4,
    batch=8,
    epochs=12,
    frames_per_epoch=20_000,
    warmup_epochs=1.0,
    patience=0,
    lr=1e-3,
    dropout=0.0,
    weight_decay=0.05,
    max_grad_norm=1.0,
)

_SMALL = replace(_FEW, head="ed", dilate=2, mixup=0.2, ema=0.99, keep="last")
"""Chosen by cross-validation over 27 badminton rallies, see RESULTS.md; both views of the pictures help it as much."""
_DEMO = replace(_FEW, clip_len=200, epochs=8, frames_per_epoch=60_000, lr=5e-4, weight_decay=0.3)

RECIPES: Mapping[str, Recipe] = {
    # SoccerNet, in the order of the published table
    "regnety_002-fc": Recipe("the baseline", _FC, _seed(6.78, 8.13), backbone="regnety_002"),
    "efficientnet_b0-fc": Recipe("one linear layer", _FC, _seed(8.19, 9.82), backbone="efficientnet_b0"),
    "efficientnet_b0-tcn": Recipe(
        "two convolutions",
        TrainSettings(head="tcn", proj=0, lr=3e-4),
        _seed(17.46, 20.95),
        backbone="efficientnet_b0",
    ),
    "i3d-transformer": Recipe(
        "one post-norm encoder layer",
        replace(_TRANSFORMER, options={"transformer.num_layers": 1, "transformer.num_heads": 4}),
        _seed(27.80, 26.39, "another backbone: torchvision's r3d_18, one vector a clip, repeated"),
        backbone="i3d",
    ),
    "x3d_s4-fc": Recipe("one linear layer on four blocks", _FC, _seed(32.01, 38.16), backbone="x3d_s", depth=4),
    "ed_conv": Recipe(
        "encoder-decoder by transposed convolution",
        TrainSettings(head="ed_conv"),
        _seed(32.31, 38.09),
        backbone="x3d_s",
        depth=5,
    ),
    "tcn": Recipe("two convolutions", TrainSettings(head="tcn"), _seed(34.38, 40.65), backbone="x3d_s", depth=5),
    "transformer": Recipe("two post-norm encoder layers", _TRANSFORMER, _seed(34.56, 36.01), backbone="x3d_s", depth=5),
    "x3d_m-fc": Recipe("one linear layer", _FC, _seed(34.81, 39.96), backbone="x3d_m", depth=5),
    "sgp": Recipe("two-branch SGP", TrainSettings(head="sgp"), _seed(36.15, 42.47), backbone="x3d_s", depth=5),
    "tcn+sgp": Recipe(
        "dilated TCN, then SGP",
        TrainSettings(head="tcn_dilated+sgp"),
        _seed(36.19, 42.06),
        backbone="x3d_s",
        depth=5,
    ),
    "fc": Recipe("one linear layer", _FC, _seed(37.31, 42.66), backbone="x3d_s", depth=5),
    "x3d_m-ed": Recipe("SGP-mixer encoder-decoder", TrainSettings(), _seed(39.08, 44.17), backbone="x3d_m", depth=5),
    "ed-focal": Recipe(
        "the seed's best with focal loss",
        TrainSettings(loss="focal"),
        _seed(41.37, 43.11),
        backbone="x3d_s",
        depth=5,
    ),
    "tpn": Recipe("temporal pyramid", TrainSettings(head="tpn"), _seed(41.42, 42.43), backbone="x3d_s", depth=5),
    "ed": Recipe(
        "SGP-mixer encoder-decoder: the seed's best",
        TrainSettings(),
        _seed(42.96, 46.10),
        backbone="x3d_s",
        depth=5,
    ),
    # what the seed's authors left unfinished
    "anchor": Recipe("temporal anchors", _ANCHOR, backbone="x3d_s", depth=5),
    "actionformer": Recipe(
        "pyramid of local attention, one instant per point", _ACTIONFORMER, backbone="x3d_s", depth=5
    ),
    # what other teams published on the same data
    "ed+disp": Recipe(
        "the seed's best with learned positions and a displacement output; on real confidences 2 to 3 points below ed",
        TrainSettings(head="positions+ed+disp"),
        _team_2026(2, 41.67, 46.06, "Week7/README.md"),
        backbone="x3d_s",
        depth=5,
    ),
    "x3d_m-bigru": Recipe(
        "bidirectional GRU, one layer",
        TrainSettings(head="bigru", options={"bigru.hidden": 192, "bigru.num_layers": 1}),
        _team_2026(2, 41.50, 44.34, "Week6/README.md"),
        backbone="x3d_m",
        depth=5,
    ),
    "x3d_m-unet_gru": Recipe(
        "U-Net over the stages of the backbone, then a bidirectional GRU",
        replace(_STAGE_UNET, head="stage_unet+bigru", options={"bigru.dropout": 0.2}),
        _team_2026(5, None, 47.2, "week7/README.md"),
        backbone="x3d_m",
        depth=(2, 3, 4, 5),
    ),
    "x3d_m-bigru-432": Recipe(
        "bidirectional GRU, two layers, trained longer",
        TrainSettings(
            head="bigru",
            options={"bigru.hidden": 432, "bigru.dropout": 0.1},
            lr=2e-4,
            epochs=35,
            patience=10,
        ),
        _team_2026(4, None, 45.75, "action_classification_and_spotting/Week7/README.md"),
        backbone="x3d_m",
        depth=5,
    ),
    # whole systems, whose backbones must learn: bas finetune
    "e2e-spot": Recipe(
        "E2E-Spot: RegNetY with gate shifts, one bidirectional GRU, mixup",
        replace(_SYSTEM, head="bigru", options={"bigru.hidden": 768, "bigru.num_layers": 1}, epochs=100),
        backbone="regnety_008+gsm",
        finetuning=_PICTURES,
    ),
    "t-deed": Recipe(
        "T-DEED: RegNetY with gate-shift-fuse, SGP-mixer encoder-decoder, displacement, mixup",
        replace(_SYSTEM, head="positions+ed+disp", options=_ENCODED, dilate=4, batch=2, lr=8e-4, epochs=35),
        Published(
            map_12=53.59,
            map_10=None,
            team="T-DEED",
            year=2025,
            source="SoccerNet/sn-teamspotting, README.md",
            other_system="trained jointly with SoccerNet-v2",
        ),
        backbone="regnety_008+gsf",
        size=(796, 448),
        finetuning=_PICTURES,
    ),
    "e2e-spot-200mf": Recipe(
        "E2E-Spot, the smaller",
        replace(_SYSTEM, head="bigru", options={"bigru.hidden": 368, "bigru.num_layers": 1}, epochs=100),
        backbone="regnety_002+gsm",
        finetuning=_PICTURES,
    ),
    "t-deed-200mf": Recipe(
        "T-DEED, the smaller",
        replace(_SYSTEM, head="positions+ed+disp", options=_ENCODED, dilate=4, batch=4, lr=8e-4, epochs=35),
        backbone="regnety_002+gsf",
        size=(796, 448),
        finetuning=_PICTURES,
    ),
    # its README has 84.3 (87.0 when begun on SoccerNet-v2): mAP@1 of passes and drives alone, so no figure here
    "lromul": Recipe(
        "lRomul's winner of 2023: stacks of 15 grey frames, 2-D then 3-D convolutions, one linear layer",
        _LROMUL,
        backbone="stack15_efficientnetv2_b0",
        size=(1280, 736),
        finetuning={"augment": "strong"},
    ),
    "adaspot": Recipe(
        "AdaSpot: RegNetY with gate-shift-fuse twice, whole picture small and a region of it large, bidirectional GRU",
        replace(
            _SYSTEM,
            head="positions+bigru",
            options={**_ENCODED, "bigru.hidden": 368, "bigru.num_layers": 1},
            batch=4,
            lr=8e-4,
            epochs=50,
            warmup_epochs=5.0,
        ),
        backbone="regnety_002+adaspot",
        size=(796, 448),
        finetuning={**_PICTURES, "augment": "affine", "side_weight": 1.0},
    ),  # SoccerNetBall_small.json of arturxe2/AdaSpot; _big has regnety_004 and bigru.hidden=440. Theirs shares one
    # table of positions among its three heads. No figure: the paper's table was not seen.
    # any backbone
    "bigru": Recipe("bidirectional GRU", _BIGRU),
    "unet_gru": Recipe("U-Net with a GRU at the bottom", _UNET_GRU),
    "stage_unet": Recipe("U-Net over the stages of X3D, from rows of --depth 2,3,4,5", _STAGE_UNET),
    "positions": Recipe("learned positions alone; put it before a neck", TrainSettings(head="positions")),
    "tcn_dilated": Recipe("three dilated convolutions", TrainSettings(head="tcn_dilated")),
    "sgp_block": Recipe("one SGP block as in TriDet", TrainSettings(head="sgp_block")),
    "unet": Recipe(
        "U-Net over long windows",
        TrainSettings(head="unet", clip_len=256, hop_rows=49, batch=8, lr=2e-3, max_grad_norm=1.0),
    ),
    "small": Recipe(
        "for minutes of labelled video: every frame, short windows, few weights",
        _SMALL,
    ),
    "demo-fc": Recipe("what bas demo compares with: no look at neighbouring frames", replace(_DEMO, head="fc", proj=0)),
    "demo": Recipe(
        "a U-Net on windows of 8 s: what bas demo trains",
        replace(_DEMO, head="unet"),
    ),
    "scores": Recipe("confidences of another model, from bas cache import", _SCORES),
    "scores-gru": Recipe(
        "the same with a GRU two levels down; best averaged with the other",
        replace(_SCORES, head="unet_gru", options={"unet_gru.widths": "64,96", "unet_gru.gru.hidden": 128}),
    ),
}

SYSTEMS: tuple[str, ...] = ("e2e-spot", "t-deed", "e2e-spot-200mf", "t-deed-200mf", "adaspot", "lromul")
"""Systems whose backbone sees time through modules that nobody has pretrained: they must be finetuned."""
SEED_TABLE: tuple[str, ...] = tuple(
    name for name, recipe in RECIPES.items() if recipe.backbone is not None and name not in SYSTEMS
)
"""What is published for SoccerNet, the heads that its authors left unfinished, and what other teams published."""


def named_recipe(name: str) -> TrainSettings:
    """Settings of a recipe.

    Raises:
        InputError: no such recipe.
    """
    if name not in RECIPES:
        raise InputError("no such recipe", got=repr(name), wanted=", ".join(RECIPES), cure="see bas train-head --list")
    return RECIPES[name].settings


def other_features(name: str, features: FeatureSettings) -> str:
    """In one line, how features are not those that a recipe is for; empty where they are."""
    recipe = RECIPES[name]
    is_for_it = recipe.backbone == features.backbone and holds(features.depth, recipe.depth)
    if recipe.backbone is None or is_for_it:
        return ""
    wanted, got = (
        backbone if depth is None else f"{backbone} with {depth_text(depth)} blocks"
        for backbone, depth in ((recipe.backbone, recipe.depth), (features.backbone, features.depth))
    )
    return f"recipe {name} is for {wanted}, the store holds {got}: its published figures do not compare"


def holds(stored: Depth, wanted: Depth) -> bool:
    """Whether rows of the depths `stored` hold the channels of `wanted`, alone or among others."""
    return stored == wanted or (isinstance(stored, tuple) and wanted in stored)


def suited(settings: TrainSettings, recipe: str, features: FeatureSettings) -> TrainSettings:
    """A recipe's settings for these rows: the depth that it is for, where they hold several and none is asked for."""
    depth = RECIPES[recipe].depth
    if settings.depth is None and isinstance(depth, int) and depth != features.depth and holds(features.depth, depth):
        return replace(settings, depth=depth)
    return settings


def default_recipe(head: str) -> TrainSettings:
    """Settings for a head without a recipe's name: the recipe called like it, or like its first part, with this head.

    Unknown names are left to the builder of heads, which lists the known ones.
    """
    found = RECIPES.get(head) or RECIPES.get(head.split("+", maxsplit=1)[0]) or RECIPES["ed"]
    return replace(found.settings, head=head)
