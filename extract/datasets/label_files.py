"""Label files, games and classes of a data set, for evaluation: needs no video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...events import SPLITS, read_labels
from .folders import game_id
from .sources import find_data_set
from .splits import find_classes


@dataclass(frozen=True)
class LabelSet:
    """Where the labels are."""

    files: Mapping[str, Path]
    """Game id -> label file."""
    classes: tuple[str, ...]
    """The data set's class list, in order."""
    problems: tuple[str, ...]
    """Errors in the data set that do not concern its videos."""


def find_labels(source: Path, *, splits: Sequence[str] = ()) -> LabelSet:
    """Labels of one file, or of all games of a data set.

    Args:
        source: a label file, or a data set's root (as `find_data_set`).
        splits: keep only games of these; empty: all.

    Raises:
        InputError: missing, unknown split, no labels, or one file that cannot be read.
    """
    if unknown := [name for name in splits if name not in SPLITS]:
        raise InputError("--split is not known", got=", ".join(unknown), wanted=", ".join(SPLITS))
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


def game_of_folder(root: Path) -> Callable[[Path], str]:
    """Function from a folder at or below `root` (a folder, or a file in it) to the id of its game."""
    top = root if root.is_dir() else root.parent
    return lambda folder: game_id(top, folder.relative_to(top).parts)
