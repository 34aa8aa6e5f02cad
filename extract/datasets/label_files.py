"""Label files, games and classes of a data set, for evaluation: needs no video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.layout import METADATA
from ...cache.store import FeatureStore
from ...errors import InputError
from ...events import SPLITS, Event, read_labels
from .folders import game_id
from .games import StoredPart, find_games
from .sources import find_data_set
from .splits import find_classes


@dataclass(frozen=True)
class LabelSet:
    """Where the labels are."""

    files: Mapping[str, Path | tuple[Event, ...]]
    """Game id -> label file, or its events where they come from a store."""
    classes: tuple[str, ...]
    """The data set's class list, in order."""
    problems: tuple[str, ...]
    """Errors in the data set that do not concern its videos."""


def find_labels(source: Path, *, splits: Sequence[str] = ()) -> LabelSet:
    """Labels of one file, or of all games of a data set or feature store.

    Args:
        source: a label file, a data set's root (as `find_data_set`), or a store's folder.
        splits: keep only games of these; empty: all.

    Raises:
        InputError: missing, unknown split, no labels, or one file that cannot be read.
    """
    if unknown := [name for name in splits if name not in SPLITS]:
        raise InputError("--split is not known", got=", ".join(unknown), wanted=", ".join(SPLITS))
    if (source / METADATA).is_file():
        return stored_labels(FeatureStore.open(source), splits=splits)
    if source.is_file() and source.suffix.lower() == ".json":
        game = game_id(source.parent, ())
        classes, findings = find_classes(source.parent, {game: read_labels(source)})
        files = {game: source}
    else:
        data_set = find_data_set(source)
        wanted = [match for match in data_set.matches if not splits or match.split in splits]
        files = {match.game: match.labels for match in wanted if match.labels is not None}
        classes, findings = data_set.classes, list(data_set.findings)
    if not files:
        raise InputError(f"{source}: no labels", got=f"split {', '.join(splits)}" if splits else None)
    problems = [f for f in findings if f.severity == "error" and "video" not in f.message]
    return LabelSet(files, classes, tuple(f"{problem.where}: {problem.message}" for problem in problems))


def stored_labels(store: FeatureStore, *, splits: Sequence[str] = ()) -> LabelSet:
    """Labels of all games of a feature store, each half on its own clock.

    Args:
        store: its matches bring their labels along.
        splits: keep only games of these; empty: all.

    Raises:
        InputError: no labelled game.
    """
    files: dict[str, Path | tuple[Event, ...]] = {}
    problems, found = [], find_games([store.path])
    for game in found:
        parts = [part for part in game.parts if isinstance(part, StoredPart) and (not splits or part.split in splits)]
        events = [(part.half or 1, store.match(part.id).meta.events()) for part in parts]
        if any(each is None for _, each in events):
            problems.append(f"{game.id}: no labels in the store, left out")
        elif parts:
            files[game.id] = tuple(replace(event, half=half) for half, each in events for event in each or ())
    if not files:
        there = sorted({part.split or "no split" for game in found for part in game.parts})
        raise InputError(
            f"{store.path}: no labelled match" + (f" of the split {', '.join(splits)}" if splits else ""),
            got=f"matches of {', '.join(there)}" if there else "an empty store",
            cure="name another with --split, or take the labels of the data set",
        )
    return LabelSet(files, store.classes, tuple(problems))


def game_of_folder(root: Path) -> Callable[[Path], str]:
    """Function from a folder at or below `root` (a folder, or a file in it) to the id of its game."""
    top = root if root.is_dir() else root.parent
    return lambda folder: game_id(top, folder.relative_to(top).parts)
