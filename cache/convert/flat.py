"""Folders of OpenTAD and ActionFormer: one table per video (or one HDF5 file with a data set per video), one JSON.

Row t of a table has seen `num_frames` frames from frame `t * feature_stride` on, so that it stands at their centre,
(t * feature_stride + num_frames / 2) / fps seconds; without `num_frames` at the start. T: rows, C: channels of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from ...errors import InputError
from ...events import TimeGrid
from .annotations import Annotated, Annotations, holds_annotations, read_annotations
from .hdf5_tables import table_names
from .importing import ImportMatch, ImportOptions, ImportSummary, SourceRows, import_matches
from .placed import HashedFiles, PlacedRows, with_last_label
from .readers import READERS, open_table
from .request import FindFolders, ImportRequest, Progress, SourceFormat, files_below, name_list
from .tables import Table, TableOptions

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


@dataclass(frozen=True)
class Video:
    """One table, and what is said of it."""

    path: Path
    table: TableOptions
    annotated: Annotated | None


def import_flat(request: ImportRequest, _: FindFolders, on_progress: Progress) -> ImportSummary:
    """Import every table below a root.

    Raises:
        InputError: labels or rate cannot be found, or nothing can be imported.
    """
    annotations = _annotations(request)
    tables = find_tables(request)
    found = {match_id: annotations.find(match_id) if annotations else None for match_id in tables}
    if annotations and not any(found.values()):
        raise InputError(
            f"{annotations.path}: names no video at hand",
            got=name_list(annotations.videos, 3),
            wanted=name_list(tables, 3),
        )
    videos = {
        match_id: Video(path, table, (found[match_id] or (None, None))[1]) for match_id, (path, table) in tables.items()
    }
    rate = find_rate(request, [video.annotated for video in videos.values() if video.annotated])
    summary = import_matches(
        [_match(match_id, video) for match_id, video in videos.items()],
        partial(load_video, videos=videos, rate=rate),
        request.store,
        ImportOptions(kind="features", model=request.model, fps=str(rate.grid)),
        classes=annotations.classes if annotations else (),
        on_progress=on_progress,
    )
    return summary.noting(*_left_out(annotations, found))


def load_video(match: ImportMatch, videos: Mapping[str, Video], rate: Rate) -> SourceRows:
    """Rows of a video on its clock.

    Raises:
        InputError: the table cannot be used, or does not fit the video's length.
    """
    video = videos[match.id]
    table = open_table(video.path, video.table)
    num_rows = rate.first_step + table.shape[0]
    if video.annotated and video.annotated.duration_seconds is not None:
        num_rows = _rows_of_duration(match.id, table, rate, video.annotated.duration_seconds)
    rows = PlacedRows(((rate.first_step, table),), with_last_label(match.events or (), num_rows, rate.grid))
    return SourceRows(
        rows=rows,
        valid=rows.valid(),
        files=HashedFiles([video.path]),
        later_seconds=rate.later_seconds,
        about={
            "first_row": rate.first_step,
            "first_row_seconds": str(rate.offset_seconds),
            "later_than_grid_ms": float(1000 * rate.later_seconds),
        },
    )


def find_rate(request: ImportRequest, annotated: Sequence[Annotated]) -> Rate:
    """When rows stand: by the options, else the annotations.

    Raises:
        InputError: the frame rate is not known, or the videos differ in it.
    """
    stated = {each.fps for each in annotated if each.fps}
    if request.fps is None and len(stated) != 1:
        raise InputError(
            "the frame rate of the videos is not known" if not stated else "the videos differ in frame rate",
            got=name_list({float(fps) for fps in stated}) or "no --fps, and none in the annotations",
            cure="--fps 25 --feature-stride 4 --num-frames 16, as the features were made (--fps alone: rows a second)",
        )
    return Rate(
        fps=TimeGrid.parse(request.fps).fps if request.fps is not None else stated.pop(),
        stride_frames=request.feature_stride or 1,
        num_frames=request.num_frames,
    )


def find_tables(request: ImportRequest) -> dict[str, tuple[Path, TableOptions]]:
    """Match id -> its file and the table in it: paths without suffix, or data sets where one HDF5 file has several.

    Raises:
        InputError: there is none, or two files of one name.
    """
    root = request.root
    paths = [path for path in files_below(root) if path.suffix.lower() in READERS]
    if len(paths) == 1 and paths[0].suffix.lower() in _HDF5 and request.dataset is None:
        names = table_names(paths[0])
        if len(names) > 1 or paths[0] == root:
            return {
                name: (paths[0], TableOptions(dataset=name, transpose=bool(request.transpose))) for name in names
            } or _none(root)
    found: dict[str, tuple[Path, TableOptions]] = {}
    for path in paths:
        relative = Path(path.name) if path == root else path.relative_to(root)
        match_id = relative.with_suffix("").as_posix()
        if match_id in found:
            raise InputError(f"{root}: two files of one video", got=f"{found[match_id][0].name} and {path.name}")
        found[match_id] = (path, request.table)
    return dict(sorted(found.items())) or _none(root)


def _none(root: Path) -> dict[str, tuple[Path, TableOptions]]:
    raise InputError(f"{root}: nothing to import", wanted=f"one file per video: {', '.join(sorted(READERS))}")


def _annotations(request: ImportRequest) -> Annotations | None:
    """The file named, else the only one with a `database` that lies at the root; None where there is none."""
    if request.labels is not None:
        path = Path(request.labels)
        path = path if path.is_file() or request.root.is_file() else request.root / request.labels
    else:
        folder = request.root if request.root.is_dir() else request.root.parent
        found = [path for path in sorted(folder.glob("*.json")) if path.is_file() and holds_annotations(path)]
        if len(found) > 1:
            got = ", ".join(path.name for path in found)
            raise InputError(f"{folder}: several annotation files", got=got, cure="--labels FILE says which")
        if not found:
            return None
        path = found[0]
    return read_annotations(path, instant=request.instant or "centre")


def _match(match_id: str, video: Video) -> ImportMatch:
    if video.annotated is None:
        return ImportMatch(match_id, video.path.parent, None, None)
    unlabelled = video.annotated.split == "challenge" and not video.annotated.events
    return ImportMatch(
        match_id, video.path.parent, video.annotated.split, None if unlabelled else list(video.annotated.events)
    )


def _rows_of_duration(match_id: str, table: Table, rate: Rate, seconds: float) -> int:
    """T: up to the end of the video, where the last frames filled no row of their own.

    Raises:
        InputError: the rows are of another length.
    """
    exact = Fraction(seconds) * rate.grid.fps
    wanted, num_rows = -(-exact.numerator // exact.denominator), rate.first_step + table.shape[0]
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


FORMAT = SourceFormat(
    "a folder with VIDEO.npy, .npz or .h5 per video, or one HDF5 file (OpenTAD, ActionFormer)",
    lambda _, names: any(Path(name).suffix.lower() in READERS for name in names),
    import_flat,
    frozenset({"labels", "feature_stride", "num_frames", "instant", "dataset", "transpose"}),
)
