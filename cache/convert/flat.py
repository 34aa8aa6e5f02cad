"""Folders of OpenTAD and ActionFormer: one table per video (or one HDF5 file with a data set per video), one JSON.

Row t of a table has seen `num_frames` frames from frame `t * feature_stride` on, so that it stands at their centre,
(t * feature_stride + num_frames / 2) / fps seconds; without `num_frames` at the start. T: rows, C: channels of a row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ...errors import InputError
from ...events import TimeGrid
from .annotations import Annotated, Annotations, holds_annotations, read_annotations
from .importing import (
    FindFolders,
    ImportOptions,
    ImportSource,
    SourceMatch,
    SourceRows,
    files_below,
    name_list,
    with_last_label,
)
from .tables import SUFFIXES, FeatureTable, open_table, table_names

_HDF5 = frozenset({".h5", ".hdf5"})
_TOLERANCE = Fraction(5, 100)
"""Share of a video's length by which its rows may be more or fewer; more means another rate."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """When rows stand."""

    fps: Fraction
    """Frames a second of the videos."""
    stride_frames: int
    """Frames between the starts of neighbouring rows."""
    num_frames: int | None
    """Frames that one row has seen; None: a row stands at its first frame."""

    @property
    def grid(self) -> TimeGrid:
        """Of the rows, beginning at 0."""
        return TimeGrid(self.fps / self.stride_frames)

    @property
    def offset_seconds(self) -> Fraction:
        """When the first row stands, exact."""
        return Fraction(self.num_frames or 0, 2) / self.fps

    @property
    def first_step(self) -> int:
        """Step of the grid that is nearest to the first row."""
        return self.grid.nearest(self.offset_seconds)

    @property
    def later_seconds(self) -> Fraction:
        """How much later than that step the first row stands; at most half a step either way."""
        return self.offset_seconds - self.grid.seconds(self.first_step)


DESCRIPTION = "a folder with VIDEO.npy, .npz or .h5 per video, or one HDF5 file (OpenTAD, ActionFormer)"
OPTIONS = frozenset({"labels", "feature_stride", "num_frames", "instant", "dataset", "transpose"})


def is_here(names: Collection[str]) -> bool:
    """Whether files of these names are of this kind."""
    return any(Path(name).suffix.lower() in SUFFIXES for name in names)


def find(root: Path, options: ImportOptions, find_folders: FindFolders, stored_fps: str | None) -> ImportSource:  # noqa: ARG001
    """Find every table below a root.

    Raises:
        InputError: labels or rate cannot be found, or there is no table.
    """
    annotations = _annotations(root, options)
    tables = find_tables(root, options.dataset)
    found = {match_id: annotations.find(match_id) if annotations else None for match_id in tables}
    if annotations and not any(found.values()):
        what, got = f"{annotations.path}: names no video at hand", name_list(annotations.videos, 3)
        raise InputError(what, got=got, wanted=name_list(tables, 3))
    annotated = {match_id: known[1] for match_id, known in found.items() if known}
    rate = find_rate(options, list(annotated.values()))
    matches = []
    for match_id, (path, _) in tables.items():
        video = annotated.get(match_id)
        is_labelled = video is not None and (video.split != "challenge" or bool(video.events))
        events = list(video.events) if video is not None and is_labelled else None
        matches.append(SourceMatch(match_id, path.parent, video.split if video else None, events))

    def load(match: SourceMatch) -> SourceRows:
        """Rows of a video on its clock."""
        path, name = tables[match.id]
        table = open_table(path, dataset=name, transpose=options.transpose)
        video, num_rows = annotated.get(match.id), rate.first_step + table.shape[0]
        if video is not None and video.duration_seconds is not None:
            num_rows = _rows_of_duration(match.id, table, rate, video.duration_seconds)
        return SourceRows(
            parts=((rate.first_step, table),),
            num_rows=with_last_label(match.events or (), num_rows, rate.grid),
            paths=[path],
            later_seconds=rate.later_seconds,
            about={
                "first_row": rate.first_step,
                "first_row_seconds": str(rate.offset_seconds),
                "later_than_grid_ms": float(1000 * rate.later_seconds),
            },
        )

    return ImportSource(
        kind="features",
        matches=matches,
        load=load,
        classes=annotations.classes if annotations else (),
        fps=str(rate.grid),
        notes=_left_out(annotations, found),
    )


def find_rate(options: ImportOptions, annotated: Sequence[Annotated]) -> Rate:
    """When rows stand: by the options, else the annotations.

    Raises:
        InputError: the frame rate is not known, or the videos differ in it.
    """
    stated = {each.fps for each in annotated if each.fps}
    if options.fps is None and len(stated) != 1:
        raise InputError(
            "the frame rate of the videos is not known" if not stated else "the videos differ in frame rate",
            got=name_list({float(fps) for fps in stated}) or "no --fps, and none in the annotations",
            cure="--fps 25 --feature-stride 4 --num-frames 16, as the features were made (--fps alone: rows a second)",
        )
    return Rate(
        fps=TimeGrid.parse(options.fps).fps if options.fps is not None else stated.pop(),
        stride_frames=options.feature_stride or 1,
        num_frames=options.num_frames,
    )


def find_tables(root: Path, dataset: str | None) -> dict[str, tuple[Path, str | None]]:
    """Match id -> its file and the table's name in it: paths without suffix, or the data sets of a single HDF5 file.

    Raises:
        InputError: there is none, or two files of one name.
    """
    paths = [path for path in files_below(root) if path.suffix.lower() in SUFFIXES]
    found: dict[str, tuple[Path, str | None]] = {}
    if len(paths) == 1 and paths[0].suffix.lower() in _HDF5 and dataset is None:
        names = table_names(paths[0])
        if len(names) > 1 or paths[0] == root:
            found = {name: (paths[0], name) for name in names}
            paths = []
    for path in paths:
        relative = Path(path.name) if path == root else path.relative_to(root)
        match_id = relative.with_suffix("").as_posix()
        if match_id in found:
            raise InputError(f"{root}: two files of one video", got=f"{found[match_id][0].name} and {path.name}")
        found[match_id] = (path, dataset)
    if not found:
        raise InputError(f"{root}: nothing to import", wanted=f"one file per video: {', '.join(SUFFIXES)}")
    return dict(sorted(found.items()))


def _annotations(root: Path, options: ImportOptions) -> Annotations | None:
    """The file named, else the only one with a `database` that lies at the root; None where there is none."""
    if options.labels is not None:
        path = Path(options.labels)
        path = path if path.is_file() or root.is_file() else root / options.labels
    else:
        folder = root if root.is_dir() else root.parent
        found = [path for path in sorted(folder.glob("*.json")) if path.is_file() and holds_annotations(path)]
        if len(found) > 1:
            got = ", ".join(path.name for path in found)
            raise InputError(f"{folder}: several annotation files", got=got, cure="--labels FILE says which")
        if not found:
            return None
        path = found[0]
    return read_annotations(path, instant=options.instant or "centre")


def _rows_of_duration(match_id: str, table: FeatureTable, rate: Rate, seconds: float) -> int:
    """T: up to the end of the video, where the last frames filled no row; InputError where the rows end elsewhere."""
    exact = Fraction(seconds) * rate.grid.fps
    wanted, num_rows = -(-exact.numerator // exact.denominator), rate.first_step + table.shape[0]
    # rows are missing at both ends, where a row would have seen frames beyond the video
    if abs(wanted - num_rows) <= _TOLERANCE * wanted + 2 * rate.first_step + 2:
        return max(wanted, num_rows)
    other_way = abs(wanted - rate.first_step - table.shape[1]) <= _TOLERANCE * wanted + 2
    raise InputError(
        f"{match_id}: rows and length of the video do not fit",
        got=f"{table.shape[0]:,} rows of {table.shape[1]:,} channels, {float(num_rows / rate.grid.fps):.1f} s "
        f"at {float(rate.grid.fps):g} rows a second",
        wanted=f"about {wanted:,} rows for {seconds:g} s",
        cure="the file holds (channels, rows): --transpose"
        if other_way
        else "give --fps and --feature-stride as they were when the features were made",
    )


def _left_out(annotations: Annotations | None, found: Mapping[str, tuple[str, Annotated] | None]) -> list[str]:
    if annotations is None:
        return ["no annotation file: the matches are unlabelled and in no split (--labels FILE names one)"]
    notes = []
    absent = set(annotations.videos) - {known[0] for known in found.values() if known}
    unknown = [match_id for match_id, known in found.items() if known is None]
    if absent:
        notes.append(f"{len(absent)} annotated video(s) without features: {name_list(absent, 3)}")
    if unknown:
        notes.append(f"{len(unknown)} video(s) not in {annotations.path.name}, unlabelled: {name_list(unknown, 3)}")
    return notes
