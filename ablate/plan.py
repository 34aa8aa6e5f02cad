"""What `bas ablate` is to do: which recipe on which features, as rows and runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache.layout import METADATA
from ..cache.settings import Depth, depth_text
from ..cache.store import FeatureStore
from ..data.sources import DataSet, find_sources
from ..errors import InputError
from ..extract.backbones.registry import backbone_spec
from ..extract.extractor import DEFAULT_BACKBONE
from ..heads.model import build_model
from ..heads.recipes import RECIPES, holds, suited
from ..heads.training.data import choose_matches, one_pass_at_most
from ..heads.training.settings import TrainSettings
from .options import AblateOptions
from .runs import RunTask, labelled_games
from .table import Row

STORES = "stores"
_FIXED_COST = 50_000
"""Parameters' worth of work that a window step costs beside those of the head."""
_NUM_SHOWN = 4


@dataclass(frozen=True)
class BackboneStore:
    """A feature store of one backbone, given or still to be extracted."""

    path: Path
    backbone: str
    depth: Depth
    is_given: bool
    """Else it is extracted."""
    finetuned_by: tuple[str, int] | None = None
    """Recipe and seed by which its backbone is finetuned first; None: a backbone with the weights asked for."""


@dataclass(frozen=True)
class AblationSources:
    """The sources, opened and checked."""

    paths: tuple[Path, ...]
    """Absolute."""
    stores: tuple[FeatureStore, ...]
    data_set: DataSet | None
    classes: tuple[str, ...]
    """The same in all."""


@dataclass(frozen=True)
class PlannedRow:
    """A row and the features that it needs: the same for every seed, or one store for each; none where there are none,
    which the row says."""

    row: Row
    stores: tuple[BackboneStore, ...]
    is_end_to_end: bool = False
    """Its runs are those that finetuned the backbone; nothing is left of them but to predict and evaluate."""

    def seeds_on(self, store: BackboneStore) -> range:
        """The seeds whose features lie in a store."""
        if len(self.stores) == 1:
            return range(self.row.num_seeds)
        seed = self.stores.index(store)
        return range(seed, seed + 1)


@dataclass(frozen=True)
class AblationPlan:
    """All rows, in the order of the table."""

    entries: tuple[PlannedRow, ...]
    notes: tuple[str, ...]
    """What is worth knowing about it."""

    @property
    def stores(self) -> list[BackboneStore]:
        """Features that are needed, each once."""
        return list(dict.fromkeys(store for entry in self.entries for store in entry.stores))


def open_sources(sources: Sequence[Path], options: AblateOptions) -> AblationSources:
    """Open the sources, and see whether they have what training and evaluation need.

    Raises:
        InputError: they have not, or they do not go together.
    """
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder", wanted="a data set folder or a feature store")
    is_store = {source: (source / METADATA).exists() for source in sources}
    stores = tuple(FeatureStore.open(source.resolve()) for source in sources if is_store[source])
    folders = [source for source in sources if not is_store[source]]
    data_set = find_sources(folders) if folders else None
    if options.any_backbone and (data_set is not None or not stores):
        raise InputError("--any-backbone takes feature stores only", got=", ".join(map(str, folders)) or "no source")
    if options.finetune and (stores or data_set is None):
        got = ", ".join(str(store.path) for store in stores) or "no source"
        raise InputError("--finetune learns from videos: it takes data sets only", got=got, cure="leave stores out")
    if data_set is not None:
        data_set.raise_errors()
        _require_labels(data_set, options)
    for store in stores:
        choose_matches(store)
        if not any(store.match(each).meta.split == options.split for each in store.matches()):
            raise InputError(f"{store.path}: no match in the split {options.split!r}", cure="choose another --split")
        labelled_games(store, options.split)
    names = [store.path.stem for store in stores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError("two stores of one name", got=", ".join(twice), cure="rename one: rows are named by them")
    lists = {tuple(store.classes) for store in stores} | ({data_set.classes} if data_set else set())
    if len(lists) != 1:
        got = "; ".join(", ".join(each) for each in lists) or "no source"
        raise InputError("sources need one class list in common", got=got, wanted="the same classes in each")
    return AblationSources(tuple(source.resolve() for source in sources), stores, data_set, lists.pop())


def make_plan(inputs: AblationSources, out: Path, options: AblateOptions) -> AblationPlan:
    """Which recipe runs on which features.

    Args:
        inputs: the sources.
        out: the ablation's folder; features that are extracted lie below it.
        options: what is asked for.
    """
    found = {name: _stores_of(name, inputs, out, options) for name in options.recipes}
    notes = list(_drop_duplicates(found, options)) if options.any_backbone else []
    entries = []
    for name, stores in found.items():
        if not stores:
            depth, wanted = RECIPES[name].depth, RECIPES[name].backbone or DEFAULT_BACKBONE
            wanted += "" if depth is None else f" with {depth_text(depth)} blocks"
            why = f"no store of {wanted}; give the data set, or --any-backbone"
            entries.append(PlannedRow(_row(name, None, options, name=name).with_failure(why), ()))
        elif options.finetune:
            row = _row(name, stores[0], options, name=name)
            entries.append(PlannedRow(row, stores, is_end_to_end=True))
            about = f"{row.about}: its head alone, on cached features of the finetuned backbone"
            cached = _with_other_system(row, "the head was trained anew on cached features")
            entries.append(PlannedRow(replace(cached, name=f"{name}-cached", about=about), stores))
        else:
            for store in stores:
                row_name = name if len(stores) == 1 else f"{name}@{store.path.stem}"
                entries.append(PlannedRow(_row(name, store, options, name=row_name), (store,)))
    used = {store.path for stores in found.values() for store in stores}
    notes += [
        f"{store.path}: not used, no recipe is for its backbone" for store in inputs.stores if store.path not in used
    ]
    return AblationPlan(tuple(entries), tuple(notes))


def runs_of(
    entry: PlannedRow, features: BackboneStore, out: Path, options: AblateOptions
) -> tuple[dict[str, Any], list[RunTask]]:
    """What the features in a store add to the row, and its runs on them: one per seed.

    Raises:
        InputError: the recipe cannot be trained on these features.
    """
    store, row = FeatureStore.open(features.path), entry.row
    settings = suited(options.settings_of(row.recipe), row.recipe, store.settings)
    cost = 1.0
    if not entry.is_end_to_end:
        chosen = choose_matches(store, classes=store.classes, stride=settings.stride)
        if options.frames_per_epoch is None:
            settings = one_pass_at_most(settings, chosen)
        num_classes = len(chosen.classes)
        model = build_model(settings, dim=store.settings.dim, num_classes=num_classes, features=store.settings)
        cost = settings.epochs * settings.frames_per_epoch * (_FIXED_COST + model.num_parameters)
    return {"weights": store.settings.weights, "frames_per_epoch": settings.frames_per_epoch}, [
        RunTask(
            row=row.name,
            settings=replace(settings, seed=seed),
            store=store.path,
            out=out,
            split=options.split,
            device=options.device,
            cost=cost,
            is_finetuned=entry.is_end_to_end,
        )
        for seed in entry.seeds_on(features)
    ]


def _row(recipe: str, store: BackboneStore | None, options: AblateOptions, *, name: str) -> Row:
    known = RECIPES[recipe]
    backbone, depth = (store.backbone, store.depth) if store else (known.backbone or "", known.depth)
    is_for_it = known.backbone == backbone and holds(depth, known.depth)
    row = Row(
        name=name,
        recipe=recipe,
        about=known.about,
        backbone=backbone,
        depth=depth,
        head=known.settings.head,
        weights="",
        published=dict(vars(known.published)) if known.published and is_for_it else None,
        frames_per_epoch=0,
        num_seeds=options.num_seeds,
    )
    if known.size is not None and options.size not in (None, known.size):
        sizes = ["x".join(map(str, size)) for size in (known.size, options.size) if size is not None]
        return _with_other_system(row, f"pictures of {sizes[0]}, here {sizes[1]}")
    return row


def _with_other_system(row: Row, how: str) -> Row:
    """A row whose published figure, where there is one, is of another system in one more way."""
    if row.published is None:
        return row
    ways = [row.published["other_system"], how]
    return replace(row, published={**row.published, "other_system": "; ".join(way for way in ways if way)})


def _stores_of(name: str, inputs: AblationSources, out: Path, options: AblateOptions) -> tuple[BackboneStore, ...]:
    """Where the features of a recipe are, or will be; none where nobody has them."""
    recipe = RECIPES[name]
    backbone = recipe.backbone or DEFAULT_BACKBONE
    depth = backbone_spec(backbone).depth(recipe.depth)
    if options.finetune:
        return tuple(
            BackboneStore(out / STORES / f"{name}-{seed}.zarr", backbone, depth, False, finetuned_by=(name, seed))
            for seed in range(options.num_seeds)
        )
    given = [BackboneStore(store.path, store.settings.backbone, store.settings.depth, True) for store in inputs.stores]
    # a recipe for any backbone takes every store; without stores it gets features of the default backbone below
    if options.any_backbone or (recipe.backbone is None and given):
        return tuple(given)
    fitting = [store for store in given if store.backbone == backbone and holds(store.depth, depth)]
    if fitting or inputs.data_set is None:
        return tuple(fitting)
    others = [RECIPES[each].depth for each in options.recipes if RECIPES[each].backbone == backbone]
    depth = next((each for each in others if each != depth and holds(each, depth)), depth)  # one store serves both
    file = backbone if depth == backbone_spec(backbone).depth(None) else f"{backbone}-{depth_text(depth)}"
    return (BackboneStore(out / STORES / f"{file}.zarr", backbone, depth, False),)


def _drop_duplicates(found: dict[str, tuple[BackboneStore, ...]], options: AblateOptions) -> Iterator[str]:
    """Leave out recipes that differ by their backbone only: keep the one of this backbone, or named like its head."""
    for store in dict.fromkeys(store for stores in found.values() for store in stores):

        def rank(name: str, store: BackboneStore = store) -> tuple[bool, bool]:
            recipe = RECIPES[name]
            return (recipe.backbone, recipe.depth) != (store.backbone, store.depth), name != recipe.settings.head

        kept: list[tuple[str, TrainSettings]] = []
        for name in sorted((name for name in found if store in found[name]), key=rank):
            settings = options.settings_of(name)
            twin = next((other for other, theirs in kept if theirs == settings), None)
            if twin is None:
                kept.append((name, settings))
            else:
                found[name] = tuple(each for each in found[name] if each != store)
                yield f"{name} on {store.path.name} is {twin}: they differ by their backbone only"
    for name in [name for name, stores in found.items() if not stores]:
        del found[name]


def _require_labels(data_set: DataSet, options: AblateOptions) -> None:
    for split in options.splits:
        of_split = [match for match in data_set.matches if match.split == split]
        bare = [match.id for match in of_split if match.labels is None]
        if not of_split or bare:
            raise InputError(
                f"{data_set.root}: the split {split!r} cannot be used",
                got=f"no labels of {', '.join(bare[:_NUM_SHOWN])}" if bare else "no match",
                wanted=f"labelled matches in each of {', '.join(options.splits)}",
                cure="add Labels-ball.json or splits.json, or choose another --split; bas data check says more",
            )
