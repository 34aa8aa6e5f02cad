"""`bas cache import`: rows that another program made into a feature store. The match is the unit of work.

A format (`halves`, `flat`, `scores`) finds matches and how to load each; nothing here knows a file of a source.
T: rows (frames of the grid), C: channels of a feature row.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import __version__
from ...errors import InputError
from ...events import Event, Split, TimeGrid, parse_fraction
from ...files import file_sha256
from ...workers import SILENT, MatchResult, Progress, Summary, each_match
from ..layout import METADATA
from ..match import MatchMeta
from ..settings import FeatureSettings
from ..store import FeatureStore
from ..writer import cast_rows
from .tables import FeatureTable

Kind = Literal["soccernet", "flat", "scores"]
Instant = Literal["start", "centre", "end"]
DEFAULT_FPS = "25"
DERIVED = "derived"
"""`offset_from` where no file names the offset."""
_VIEW = "identity"
_BLOCK_BYTES = 32 << 20
_FLOAT16 = np.dtype("<f2")
_MAX_SECONDS = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the user says of a source; None where nothing was said. Each format takes some of them."""

    kind: Kind | None = None
    """Kind of source: soccernet (1_NAME.npy and 2_NAME.npy per game), flat (a file per video and an annotation JSON:
    OpenTAD, ActionFormer) or scores (1_scores.npz and 2_scores.npz); default: by what is in ROOT."""
    features: str | None = None
    """NAME of 1_NAME.npy and 2_NAME.npy, where folders hold several."""
    model: str | None = None
    """What made the rows; one per store. Default: the store's, NAME, else unknown."""
    fps: str | None = None
    """Rows per second; flat: frames per second of the videos. Default: by NAME, the store's, 25."""
    feature_stride: int | None = None
    """flat: frames from row to row; default: 1."""
    num_frames: int | None = None
    """flat: frames that a row has seen; it stands at their centre. Default: 0."""
    labels: str | None = None
    """Name of the label files (default: Labels-ball.json, else -v2); flat: the annotation file."""
    instant: Instant | None = None
    """flat: which instant of a segment is its event; default: centre."""
    offset: str | None = None
    """Seconds at which every second half begins; default: --offsets, else derived."""
    offsets: Path | None = None
    """JSON that names half1_offset_frames (or _ms) per game; default: the one in ROOT."""
    split_file: Path | None = None
    """A splits.json; default: ROOT's, else SoccerNet's own."""
    dataset: str | None = None
    """Name of the table in npz and HDF5 files."""
    transpose: bool = False
    """The files hold (channels, rows)."""

    def __post_init__(self) -> None:
        for name in ("feature_stride", "num_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is not usable", got=value, wanted="a whole number >= 1")
        if self.fps is not None:
            TimeGrid.parse(self.fps)
        _ = self.offset_seconds  # checks it

    @property
    def offset_seconds(self) -> Fraction | None:
        """Where every second half begins. Raises InputError where it is no number of seconds."""
        try:
            seconds = None if self.offset is None else parse_fraction(self.offset)
        except (ValueError, ZeroDivisionError):
            seconds = Fraction(-1)
        if seconds is not None and not 0 <= seconds < _MAX_SECONDS:
            raise InputError("--offset is not usable", got=repr(self.offset)[:80], wanted="seconds, such as 2836.24")
        return seconds

    def require_only(self, known: Collection[str], kind: str) -> None:
        """Raise InputError for an option that a kind of source does not take."""
        given = {each.name for each in fields(self) if getattr(self, each.name) not in (None, False)}
        extra = sorted(given - {"kind", "model", "fps", *known})
        if extra:
            option, cure = extra[0].replace("_", "-"), "leave it out, or name the right kind with --from"
            raise InputError(f"--{option} means nothing for this kind of source", got=f"--from {kind}", cure=cure)


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """Tables of one match, placed one after another on the match's clock (where two overlap the later one wins)."""

    parts: Sequence[tuple[int, FeatureTable]]
    """(row of the match at which its first row stands, table); all of the same C, at least one."""
    num_rows: int
    """T; what lies behind it is left out, rows without a table are 0 and not valid."""
    paths: Sequence[Path]
    """Files that were read."""
    is_valid: npt.NDArray[np.bool_] | None = None
    """(T,) False where the source has no row; None: valid where a table is."""
    later_seconds: Fraction = Fraction(0)
    """How much later than its grid step each row stands, exact; at most half a step, negative where it is earlier."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further plain JSON that is kept with the match."""
    half1_offset_frames: int | None = None
    """Row of frame 0 of the second half; None where the source has the match in one piece."""
    offset_from: str = ""
    """Where that offset is from: a file's name, or `DERIVED`; empty where there is none."""

    @property
    def dim(self) -> int:
        """C."""
        return self.parts[0][1].shape[1]

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(T,)."""
        if self.is_valid is not None:
            return self.is_valid
        flags = np.zeros(self.num_rows, bool)
        for first_row, table in self.parts:
            flags[first_row : first_row + table.shape[0]] = True
        return flags

    def read(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Rows start..stop-1, (n, C) float16.

        Raises:
            InputError: a table is damaged, or a value is not finite as float16 (names file, row and channel).
        """
        made = np.zeros((stop - start, self.dim), _FLOAT16)
        for first_row, table in self.parts:
            begin, end = max(start, first_row), min(stop, first_row + table.shape[0])
            if begin < end:
                values = table.read(begin - first_row, end - first_row)
                values = values.astype(_FLOAT16) if values.dtype.kind in "iu" else values  # one byte each: exact
                cast = cast_rows(values, values.shape, _FLOAT16, where=table.where, first_row=begin - first_row)
                made[begin - start : end - start] = cast
        return made

    @cached_property
    def files(self) -> list[dict[str, Any]]:
        """`name`, `bytes` and `sha256` of each file."""
        return [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in self.paths]


@dataclass(frozen=True)
class SourceMatch:
    """One match that can be imported."""

    id: str
    """Match id in the store."""
    folder: Path
    """Where its files are."""
    split: Split | None
    events: Sequence[Event] | None
    """Labels, by half as the label file has them; None: unlabelled."""


@dataclass(frozen=True, kw_only=True)
class ImportSource:
    """What a format found below a root."""

    kind: Literal["features", "scores"]
    """What the rows are; part of the store's key."""
    matches: Sequence[SourceMatch]
    load: Callable[[SourceMatch], SourceRows]
    """Open one match; raises InputError where it cannot be used."""
    classes: Sequence[str]
    """Class names of the labels; empty: follow the store."""
    fps: str | None
    """Rows per second; None: follow the store, else 25."""
    model: str | None = None
    """What made the rows, where the format knows it; None: follow the store."""
    notes: Sequence[str] = ()
    """What the user should know."""


FindFolders = Callable[[Path, Collection[str], Path | None, Collection[str]], tuple[list[SourceMatch], tuple[str, ...]]]
"""(root, file names that make a folder a match, splits file or None, names of label files by preference) -> matches and
classes."""


def import_matches(
    source: ImportSource, store_path: Path, options: ImportOptions, *, progress: Progress = SILENT
) -> Summary:
    """Import every match into a store; those that are there are left alone, those that were cut off go on.

    Raises:
        InputError: no match can be used, they differ in channels, or the store has other settings or classes.
            A match that fails beside others is in the summary instead.
    """
    started = time.perf_counter()
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    follow = stored.settings if stored and stored.settings.is_imported else None
    fps = str(TimeGrid.parse(source.fps or (follow.fps if follow else DEFAULT_FPS)))
    model = options.model or (follow.weights if follow else None) or source.model or "unknown"
    dim = _common_channels(source, TimeGrid.parse(fps))  # every match is looked at before the store is made
    store = FeatureStore.create_or_open(
        store_path,
        FeatureSettings.imported(kind=source.kind, model=model, dim=dim, fps=fps),
        classes=tuple(source.classes) or (stored.classes if stored else ()),
        software={"bas": __version__, "numpy": np.__version__},
    )
    notes, others = [*source.notes], set(store.matches()) - {match.id for match in source.matches}
    if others and not options.model:
        held = f"{store.path} holds {len(others)} other match(es)"
        notes.append(f"{held}; without --model these are taken to be of {store.settings.weights} too")
    progress.started(len(source.matches), 0)
    results = each_match(source.matches, lambda match: _import(store, match, source.load(match)), progress)
    return Summary(
        results=tuple(results),
        target=str(store_path),
        seconds=time.perf_counter() - started,
        unit="rows",
        amount=sum(each.num_rows for each in results if each.status != "already there"),
        record={"settings": store.settings.to_json(), "settings_key": store.settings.key(), "notes": notes},
    )


def events_of_rows(
    match: SourceMatch, grid: TimeGrid, half1_offset_frames: int | None, num_rows: int | None = None
) -> list[Event]:
    """Events on the clock of the rows: those of half 2 (the older edition, positions restart) moved by the offset.

    Raises:
        InputError: there are events of half 2, but the source has the match in one piece; or a label lies after the
            last row.
    """
    events = moved = list(match.events or ())
    if half1_offset_frames is not None:
        later_ms = grid.ms(half1_offset_frames)
        moved = [
            event if event.half == 1 else replace(event, half=1, position_ms=event.position_ms + later_ms)
            for event in events
        ]
    elif any(event.half == 2 for event in events):
        cure = "use labels on the match's clock, or rows per half"
        what = f"{match.id}: the labels are per half, but the rows are of the whole match"
        raise InputError(what, cure=cure)
    late = [event for event in moved if num_rows is not None and grid.frame(event.position_ms) >= num_rows]
    if late and num_rows is not None:
        raise InputError(
            f"{match.id}: {len(late)} label(s) after the last row",
            got=f"{late[0].label} at {late[0].position_ms} ms",
            wanted=f"less than {grid.ms(num_rows)} ms ({num_rows} rows)",
            cure="make sure that labels and rows are of one match, and that --fps and the offset are right",
        )
    return sorted(moved, key=lambda event: event.position_ms)


def with_last_label(events: Sequence[Event], num_rows: int, grid: TimeGrid) -> int:
    """`num_rows`; more where the last label lies up to a second after them, since files may leave out a last part."""
    needed = max((grid.frame(event.position_ms) + 1 for event in events), default=0)
    return needed if num_rows < needed <= num_rows + max(1, grid.frame(1000)) else num_rows


def files_below(root: Path) -> Iterator[Path]:
    """Files at or below a folder (or the file itself), sorted by folder; hidden names and feature stores left out."""
    if root.is_file():
        yield root
        return
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root}: cannot be read", got=error.strerror, cure="check its permissions") from None
    if any(entry.name == METADATA for entry in entries):
        return
    yield from (entry for entry in entries if entry.is_file())
    for entry in entries:
        if entry.is_dir() and entry.resolve() not in (root.resolve(), *root.resolve().parents):  # a link upwards
            yield from files_below(entry)


def name_list(names: Collection[Any], most: int = 6) -> str:
    """`a, b, c and 9 more`."""
    shown = ", ".join(map(str, sorted(names)[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _common_channels(source: ImportSource, grid: TimeGrid) -> int:
    """C of all matches that can be used."""
    channels: dict[int, str] = {}
    lengths: set[int] = set()
    first_error: InputError | None = None
    for match in source.matches:
        try:
            rows = source.load(match)
            events_of_rows(match, grid, rows.half1_offset_frames, rows.num_rows)
            channels.setdefault(rows.dim, match.id)
            lengths.add(int(rows.valid.sum()))
        except InputError as error:
            first_error = first_error or error
    if len(channels) > 1:
        raise InputError(
            "the matches differ in channels",
            got=", ".join(f"{count} ({match_id})" for count, match_id in channels.items()),
            wanted="rows of one model",
            cure="these files hold (channels, rows): --transpose"
            if len(lengths) == 1
            else "import each model into a store of its own",
        )
    if not channels:
        raise first_error or InputError("no match to import")
    return next(iter(channels))


def _import(store: FeatureStore, match: SourceMatch, source: SourceRows) -> MatchResult:
    """Write one match, from where an earlier run left off; one that is stored is left alone."""
    started, grid = time.perf_counter(), TimeGrid.parse(store.settings.fps)
    if store.views(match.id):
        return _stored_result(store, match.id, source)
    labels = None
    if match.events is not None:
        events = events_of_rows(match, grid, source.half1_offset_frames, source.num_rows)
        labels = tuple(event.to_json() for event in events)
    offset = source.half1_offset_frames
    named = {} if offset is None else {"half1_offset_frames": offset, "offset_from": source.offset_from}
    step, first = 1 / grid.fps, source.later_seconds
    # the longest tick that both the step of the grid and the instant of row 0 are whole numbers of
    common = gcd(step.numerator * first.denominator, first.numerator * step.denominator)
    time_base = Fraction(common, step.denominator * first.denominator)
    with store.writer(
        match.id,
        views=(_VIEW,),
        num_rows=source.num_rows,
        pts_ticks=int(first / time_base) + np.arange(source.num_rows) * int(step / time_base),
        match_meta=MatchMeta(
            fps=grid.fps,
            time_base=time_base,
            origin_ticks=0,
            split=match.split,
            labels=labels,
            extra=named | dict(source.about),
        ),
        provenance=_provenance(source),
    ) as writer:
        first_row, restarted = writer.rows_done, writer.restarted_because
        block_rows = max(256, _BLOCK_BYTES // (8 * source.dim) // 256 * 256)  # progress is saved at multiples of 256
        for start in range(first_row, source.num_rows, block_rows):
            stop = min(start + block_rows, source.num_rows)
            writer.append({_VIEW: source.read(start, stop)}, source.valid[start:stop])
        writer.commit()
    return MatchResult(
        match_id=match.id,
        status="resumed" if first_row else "imported",
        num_rows=source.num_rows,
        seconds=time.perf_counter() - started,
        message=f"begun anew, unfinished work was not used: {restarted}" if restarted else "",
        columns=_columns(store, match.id),
    )


def _stored_result(store: FeatureStore, match_id: str, source: SourceRows) -> MatchResult:
    """A match that the store has, as it is there."""
    engine = store.source_of(match_id, _VIEW)["engine"]
    wanted = _provenance(source)
    same = isinstance(engine, Mapping) and all(engine.get(name) == value for name, value in wanted.items())
    changed = "stored from other files or with another offset than now; to import it again, delete the match's folder"
    return MatchResult(
        match_id=match_id,
        status="already there",
        num_rows=store.match(match_id).num_rows,
        message="" if same else changed,
        columns=_columns(store, match_id),
    )


def _columns(store: FeatureStore, match_id: str) -> dict[str, str | int | float]:
    meta = store.match(match_id).meta
    offset, offset_from = meta.extra.get("half1_offset_frames"), meta.extra.get("offset_from", "")
    return {
        "split": meta.split or "",
        "events": "-" if meta.labels is None else len(meta.labels),
        "channels": store.settings.dim,
        "offset": "-" if offset is None else f"{offset:,} {offset_from}",
        "no row": f"{1 - store.valid(match_id).mean():.3%}",
    }


def _provenance(source: SourceRows) -> dict[str, Any]:
    """What is kept with the array, and must be equal for unfinished work to be carried on."""
    made = {"engine": "import", "files": source.files, "half1_offset_frames": source.half1_offset_frames}
    return made | ({"about": dict(source.about)} if source.about else {})
