"""What the user can ask of `bas ablate`. Nothing here imports torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from ..events import Split
from ..extract.options import Device
from ..heads.recipes import RECIPES, SEED_TABLE, SYSTEMS, named_recipe
from ..heads.training.settings import InputsName, TrainSettings

_GROUPS: Mapping[str, tuple[str, ...]] = {"seed": SEED_TABLE, "systems": SYSTEMS}


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """What is asked for beside the sources."""

    recipes: tuple[str, ...] = SEED_TABLE
    """Names in `RECIPES`, in the order of the table."""
    num_seeds: int = 3
    """Train each recipe with seeds 0 to N - 1."""
    split: Split = "test"
    """Split to evaluate on (test or valid); its matches never train."""
    finetune: bool = False
    """Finetune each recipe's backbone with its head first, from videos; one row of that, end to end, and one of the
    same head trained anew on the cached features of the finetuned backbone."""
    any_backbone: bool = False
    """Train every recipe on every store, whatever backbone it is for."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Backbone -> weights to extract with; `""` is for all others; without, those that a backbone is known by."""
    size: tuple[int, int] | None = None
    """Width x height to extract at; default 398x224."""
    window: int | None = None
    """Steps in one clip of a 3-D backbone; default 50."""
    hop: int | None = None
    """Steps between the starts of neighbouring clips; default half the window."""
    epochs: int | None = None
    """Maximum number of epochs, in place of each recipe's own."""
    frames_per_epoch: int | None = None
    """Frames that an epoch sees; by default the recipe's, at most one pass over the training windows."""
    inputs: InputsName | None = None
    """What is done to the features first, in place of each recipe's own."""
    head_options: Mapping[str, Any] = field(default_factory=dict)
    """Setting of a head, as bigru.hidden=96, for the recipes with that head; may be repeated."""
    device: Device = "auto"
    """Where backbones and heads run."""
    jobs: int = 0
    """Runs side by side, one thread each; 0: one per core, up to 4 on a GPU."""
    ray: str | None = None
    """Address of a Ray cluster to work on, or `auto`; None: this machine."""

    def __post_init__(self) -> None:
        if self.num_seeds < 1 or self.jobs < 0:
            raise InputError("--seeds or --jobs is not usable", got=f"{self.num_seeds}, {self.jobs}", wanted=">= 1")
        if self.finetune and self.any_backbone:
            raise InputError("--finetune and --any-backbone exclude each other", cure="leave one out")
        if self.split not in ("test", "valid"):
            raise InputError("--split is not usable", got=self.split, wanted="test or valid")
        heads = {part for name in self.recipes for part in named_recipe(name).head.split("+")}
        for path in self.head_options:
            if path.split(".")[0] not in heads:
                raise InputError(
                    "--set names a head that no recipe here has", got=path, wanted=", ".join(sorted(heads))
                )

    @property
    def splits(self) -> tuple[Split, ...]:
        """What has to be extracted."""
        return tuple(dict.fromkeys(("train", "valid", self.split)))

    def to_json(self) -> dict[str, Any]:
        """All that a figure depends on beside recipe, seed and split, as plain JSON."""
        names = ("any_backbone", "weights", "size", "window", "hop", "epochs", "frames_per_epoch", "inputs")
        record = {**{name: getattr(self, name) for name in names}, "set": dict(self.head_options)}
        record |= {"finetune": True} if self.finetune else {}  # tables of earlier versions do not have it
        plain: dict[str, Any] = json.loads(json.dumps(record))
        return plain

    def settings_of(self, recipe: str) -> TrainSettings:
        """A recipe with what is asked for in its place; seed 0."""
        base = named_recipe(recipe)
        heads = base.head.split("+")
        mine = {path: value for path, value in self.head_options.items() if path.split(".")[0] in heads}
        given = {"epochs": self.epochs, "frames_per_epoch": self.frames_per_epoch, "inputs": self.inputs}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(base, options={**base.options, **mine}, seed=0, **changes)

    def weights_of(self, backbone: str) -> str | None:
        """What to extract with; None: what the backbone is known by."""
        return self.weights.get(backbone, self.weights.get(""))


def recipe_names(text: str) -> tuple[str, ...]:
    """`seed`, `systems` or names with commas between, in the order of `RECIPES`, each once.

    Raises:
        InputError: none, or no such recipe.
    """
    asked = {name.strip() for name in text.split(",") if name.strip()}
    for name in asked - set(_GROUPS):
        named_recipe(name)
    if not asked:
        raise InputError("--recipes names none", got=repr(text), wanted="seed, systems, or bas train-head --list")
    asked |= {name for group in asked & set(_GROUPS) for name in _GROUPS[group]}
    return tuple(name for name in RECIPES if name in asked)
