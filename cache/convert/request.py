"""What the user asks of an import, and what a source format is."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...events import TimeGrid
from ..layout import METADATA
from ..store import FeatureStore
from .importing import ImportMatch, ImportSummary
from .tables import TableOptions

Instant = Literal["start", "centre", "end"]
INSTANTS: tuple[Instant, ...] = ("start", "centre", "end")


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What the user says of a source; None where nothing was said. Each format takes some of the fields."""

    root: Path
    """A folder; a file where the format is one."""
    store: Path
    """Made where it does not exist, added to where it does."""
    model: str | None = None
    """What made the rows; None: follow the store, else what the format knows, else unknown."""
    fps: str | None = None
    """Rows a second (`flat`: frames a second of the videos), a number or fraction."""
    splits_file: Path | None = None
    """In the place of the root's `splits.json`."""
    labels: str | None = None
    """Name of the label file in each match's folder; `flat`: path of the annotation file."""
    features: str | None = None
    """NAME of `1_NAME.npy`, where folders hold several."""
    offsets_file: Path | None = None
    """Names where second halves begin."""
    offset_seconds: str | None = None
    """Where every second half begins on the match's clock, a number or fraction."""
    feature_stride: int | None = None
    """Frames between the starts of neighbouring rows, >= 1."""
    num_frames: int | None = None
    """Frames that one row has seen, >= 1."""
    instant: Instant | None = None
    """Which instant of a segment is its event; None: the centre."""
    dataset: str | None = None
    """Name of the table in npz and HDF5 files."""
    transpose: bool | None = None
    """True where files hold (C, T)."""

    def __post_init__(self) -> None:
        for name in ("feature_stride", "num_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is not usable", got=value, wanted="a whole number >= 1")
        if self.fps is not None:
            TimeGrid.parse(self.fps)

    @property
    def table(self) -> TableOptions:
        """How tables lie in their files."""
        return TableOptions(dataset=self.dataset, transpose=bool(self.transpose))

    @property
    def stored_fps(self) -> str | None:
        """Rows a second of the store, where there is one."""
        return FeatureStore.open(self.store).settings.fps if (self.store / METADATA).exists() else None

    def only(self, known: Collection[str], *, kind: str) -> None:
        """Refuse what a format cannot use.

        Raises:
            InputError: a field outside `known` was given.
        """
        always = {"root", "store", "model", "fps"}
        given = {each.name for each in fields(self) if getattr(self, each.name) is not None}
        extra = sorted(given - always - set(known))
        if extra:
            raise InputError(
                f"--{_OPTIONS.get(extra[0], extra[0]).replace('_', '-')} means nothing for this kind of source",
                got=f"--from {kind}",
                cure="leave it out, or name the right kind with --from",
            )


_OPTIONS = {"splits_file": "split_file", "offsets_file": "offsets", "offset_seconds": "offset"}
"""Fields that are called otherwise on the command line."""


@dataclass(frozen=True)
class Found:
    """Match folders of a data set."""

    matches: tuple[ImportMatch, ...]
    classes: tuple[str, ...]


FindFolders = Callable[[Path, Collection[str], Path | None, Collection[str]], Found]
"""(root, file names that make a folder a match, splits file or None, names of label files by preference) -> matches."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SourceFormat:
    """A kind of source that can be imported."""

    told: str
    """What it looks like, for `--from` and errors."""
    is_here: Callable[[Path, Collection[str]], bool]
    """Whether a root, with files of these names at or below it, is of the kind."""
    run: Callable[[ImportRequest, FindFolders, Progress], ImportSummary]
    """Imports it."""
    options: frozenset[str] = field(default_factory=frozenset)
    """Fields of the request that it takes, beside root, store, model and fps."""


def files_below(root: Path) -> Iterator[Path]:
    """Files at or below a folder (or the file itself), sorted by folder; hidden names and feature stores left out.

    Follows links to folders, never into a folder that it is inside already.
    """
    if root.is_file():
        yield root
    elif root.is_dir():
        yield from _visit(root, frozenset())


def _visit(folder: Path, inside: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))  # noqa: PTH208
    except OSError as error:
        raise InputError(f"{folder}: cannot be read", got=error.strerror, cure="check its permissions") from None
    key = (status.st_dev, status.st_ino)
    if key in inside or METADATA in entries:
        return
    paths = [folder / name for name in entries]
    yield from (path for path in paths if path.is_file())
    for path in paths:
        if path.is_dir():
            yield from _visit(path, inside | {key})


def one_instant(name: str | None) -> Instant | None:
    """An instant by its name.

    Raises:
        InputError: it is none.
    """
    if name is not None and name not in INSTANTS:
        raise InputError("--instant is not known", got=name, wanted=", ".join(INSTANTS))
    return next((each for each in INSTANTS if each == name), None)


def seconds_option(name: str, text: str) -> Fraction:
    """A number of seconds >= 0 from an option.

    Raises:
        InputError: it is none.
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value < 24 * 3600:
        raise InputError(f"--{name} is not usable", got=repr(text)[:80], wanted="seconds, such as 2836.24")
    return value


def name_list(names: Collection[Any], most: int = 6) -> str:
    """`a, b, c and 9 more`."""
    shown = ", ".join(map(str, sorted(names)[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
