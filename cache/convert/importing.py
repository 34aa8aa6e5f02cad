"""`bas cache import`: rows that another program made into a feature store. The match is the unit of work.

What knows a format (`score_files`, `halves`, `flat`) gives a function that loads a match; nothing here opens the files
of a source. T: rows (frames of the grid), C: channels of a feature row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ... import __version__
from ...errors import InputError
from ...events import Event, Split, TimeGrid
from ...files import MatchBusy
from ..layout import FEATURES, METADATA
from ..match import MatchMeta
from ..rows import array_metadata
from ..settings import FeatureSettings
from ..store import FeatureStore
from .tables import block_rows

Status = Literal["imported", "resumed", "already there", "busy elsewhere", "failed"]
UNKNOWN_MODEL = "unknown"
DEFAULT_FPS = "25"
DERIVED = "derived"
"""`offset_from` where no file names the offset."""
_VIEW = "identity"
_BLOCK_ROWS = 8192


class RowBlocks(Protocol):
    """(T, C) float16 rows, an array or read from files block by block."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """(n, C); raises InputError where the source is damaged or a value is not finite."""


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """One match as its source has it, on the match's clock."""

    rows: RowBlocks
    """(T, C) finite; 0 where `valid` is False."""
    valid: npt.NDArray[np.bool_]
    """(T,) False where the source has no row."""
    files: Iterable[Mapping[str, Any]]
    """`name`, `bytes`, `sha256` of each file read."""
    later_seconds: Fraction = Fraction(0)
    """How much later than its grid step each row stands, exact; at most half a step, negative where it is earlier."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further plain JSON that is kept with the match."""
    half1_offset_frames: int | None = None
    """Row of frame 0 of the second half; None where the source has the match in one piece."""
    offset_from: str = ""
    """Where that offset is from: a file's name, or `DERIVED`; empty where there is none."""


@dataclass(frozen=True)
class ImportMatch:
    """One match to import."""

    id: str
    """Match id in the store."""
    folder: Path
    """Where its files are."""
    split: Split | None
    events: Sequence[Event] | None
    """Labels, by half as the label file has them; None: unlabelled."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the user says of the source. None: follow the store where it holds imported rows, else the default."""

    kind: str
    """What the rows are, such as `scores`; names the format in the store's key."""
    model: str | None = None
    """What made the rows; default `unknown`."""
    fps: str | None = None
    """Rows per second, a number or fraction; default 25."""


@dataclass(frozen=True)
class ImportResult:
    """How one match ended."""

    match: str
    split: str
    status: Status
    rows: int = 0
    events: int | None = None
    """Labels; None where the match is unlabelled."""
    half1_offset_frames: int | None = None
    offset_from: str = ""
    unscored_share: float = 0.0
    """Share of rows for which the source has none, 0..1."""
    message: str = ""
    """Why it failed or was left alone, or why its unfinished rows were not used."""


@dataclass(frozen=True)
class ImportSummary:
    """How an import ended."""

    store: Path
    settings: FeatureSettings
    results: tuple[ImportResult, ...]
    notes: tuple[str, ...]
    """What the user should know, in words."""

    @property
    def complete(self) -> bool:
        """True where every match is in the store."""
        return all(result.status not in ("failed", "busy elsewhere") for result in self.results)

    def noting(self, *notes: str) -> "ImportSummary":
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))


def import_matches(
    matches: Sequence[ImportMatch],
    load: Callable[[ImportMatch], SourceRows],
    store_path: Path,
    options: ImportOptions,
    *,
    classes: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> ImportSummary:
    """Import every match into a store; those that are there are left alone, those that were cut off go on.

    Args:
        matches: at least one; ids differ.
        load: opens one match; raises InputError where it cannot be used. Called twice per match: all are checked
            before the store is made.
        store_path: the store; made where it does not exist.
        options: what the rows are.
        classes: class names of the labels; empty: follow the store.
        on_progress: called with (matches done, matches).

    Raises:
        InputError: no match can be used, they differ in channels, or the store has other settings or classes.
            A match that fails beside others is in the summary instead.
    """
    stored = FeatureStore.open(store_path) if (store_path / METADATA).exists() else None
    followed = follow_store(options, stored.settings if stored else None)
    settings = foreign_settings(followed, _common_channels(matches, load, TimeGrid.parse(followed.fps or DEFAULT_FPS)))
    store = FeatureStore.create_or_open(
        store_path,
        settings,
        classes=classes or (stored.classes if stored else ()),
        software={"bas": __version__, "numpy": np.__version__},
    )
    notes = _same_model_note(store, matches) if options.model is None else ()
    results = []
    for number, match in enumerate(matches):
        on_progress(number, len(matches))
        results.append(_import_or_explain(store, match, load))
    on_progress(len(matches), len(matches))
    return ImportSummary(store_path, settings, tuple(results), notes)


def follow_store(options: ImportOptions, stored: FeatureSettings | None) -> ImportOptions:
    """Options with what was left out taken from a store of imported rows."""
    if stored is None or not stored.is_imported:
        return options
    return replace(options, model=options.model or stored.weights, fps=options.fps or stored.fps)


def foreign_settings(options: ImportOptions, dim: int) -> FeatureSettings:
    """The settings key of the rows.

    Raises:
        InputError: the frame rate cannot be used.
    """
    fps = str(TimeGrid.parse(options.fps or DEFAULT_FPS))
    return FeatureSettings.imported(kind=options.kind, model=options.model or UNKNOWN_MODEL, dim=dim, fps=fps)


def on_match_clock(events: Sequence[Event], grid: TimeGrid, half1_offset_frames: int | None) -> list[Event]:
    """Events on the clock of the rows: those of half 2 (the older edition, positions restart) moved by the offset.

    Raises:
        InputError: there are events of half 2, but the source has the match in one piece.
    """
    if half1_offset_frames is None:
        if any(event.half == 2 for event in events):
            raise InputError(
                "the labels are per half, but the rows are of the whole match",
                cure="use labels on the match's clock, or rows per half",
            )
        return list(events)
    later_ms = grid.ms(half1_offset_frames)
    moved = (
        event if event.half == 1 else replace(event, half=1, position_ms=event.position_ms + later_ms)
        for event in events
    )
    return sorted(moved, key=lambda event: event.position_ms)


def labels_of_rows(match: ImportMatch, source: SourceRows, grid: TimeGrid) -> tuple[dict[str, Any], ...] | None:
    """Labels as stored with the rows: SoccerNet records on the clock of the rows; None: unlabelled.

    Raises:
        InputError: as `on_match_clock`, or a label lies after the last row.
    """
    if match.events is None:
        return None
    events, num_rows = on_match_clock(match.events, grid, source.half1_offset_frames), len(source.rows)
    late = [event for event in events if grid.frame(event.position_ms) >= num_rows]
    if late:
        raise InputError(
            f"{match.id}: {len(late)} label(s) after the last row",
            got=f"{late[0].label} at {late[0].position_ms} ms",
            wanted=f"less than {grid.ms(num_rows)} ms ({num_rows} rows)",
            cure="make sure that labels and rows are of one match, and that --fps and the offset are right",
        )
    return tuple(event.to_json() for event in events)


def _common_channels(matches: Sequence[ImportMatch], load: Callable[[ImportMatch], SourceRows], grid: TimeGrid) -> int:
    """C of all matches that can be used."""
    channels: dict[int, str] = {}
    lengths: set[int] = set()
    first_error: InputError | None = None
    for match in matches:
        try:
            source = load(match)
            labels_of_rows(match, source, grid)
            channels.setdefault(source.rows.shape[1], match.id)
            lengths.add(int(source.valid.sum()))
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


def _same_model_note(store: FeatureStore, matches: Sequence[ImportMatch]) -> tuple[str, ...]:
    others = set(store.matches()) - {match.id for match in matches}
    if not others:
        return ()
    return (
        f"{store.path} holds {len(others)} other match(es); without --model these are taken to be of the same model "
        f"({store.settings.weights})",
    )


def _import_or_explain(
    store: FeatureStore, match: ImportMatch, load: Callable[[ImportMatch], SourceRows]
) -> ImportResult:
    """A match that cannot be imported does not stop the others."""
    try:
        source = load(match)
        return _stored_result(store, match, source) if store.views(match.id) else _import(store, match, source)
    except MatchBusy as error:
        return ImportResult(match.id, match.split or "", "busy elsewhere", message=str(error))
    except InputError as error:
        return ImportResult(match.id, match.split or "", "failed", message=str(error))


def _import(store: FeatureStore, match: ImportMatch, source: SourceRows) -> ImportResult:
    meta, num_rows = _match_meta(store, match, source), len(source.rows)
    step_rows = min(_BLOCK_ROWS, block_rows(source.rows.shape[1]))
    with store.writer(
        match.id,
        views=(_VIEW,),
        num_rows=num_rows,
        pts_ticks=_ticks(source, meta.fps) + np.arange(num_rows) * int(1 / (meta.fps * meta.time_base)),
        match_meta=meta,
        provenance=_provenance(source),
    ) as writer:
        first_row, restarted = writer.rows_done, writer.restarted_because
        for start in range(first_row, num_rows, step_rows):
            stop = start + step_rows
            writer.append({_VIEW: source.rows[start:stop]}, source.valid[start:stop])
        writer.commit()
    return ImportResult(
        match.id,
        match.split or "",
        "resumed" if first_row else "imported",
        rows=num_rows,
        events=None if meta.labels is None else len(meta.labels),
        half1_offset_frames=source.half1_offset_frames,
        offset_from=source.offset_from,
        unscored_share=float(1 - source.valid.mean()),
        message=f"begun anew, unfinished work was not used: {restarted}" if restarted else "",
    )


def _stored_result(store: FeatureStore, match: ImportMatch, source: SourceRows) -> ImportResult:
    """A match that the store has, as it is there."""
    stored = store.match(match.id)
    engine = array_metadata(store.path, f"{match.id}/{FEATURES}/{_VIEW}")["attributes"].get("engine")
    wanted = _provenance(source)
    same = isinstance(engine, Mapping) and all(engine.get(name) == value for name, value in wanted.items())
    changed = "stored from other files or with another offset than now; to import it again, delete the match's folder"
    return ImportResult(
        match.id,
        stored.meta.split or "",
        "already there",
        rows=stored.num_rows,
        events=None if stored.meta.labels is None else len(stored.meta.labels),
        half1_offset_frames=stored.meta.extra.get("half1_offset_frames"),
        offset_from=str(stored.meta.extra.get("offset_from", "")),
        unscored_share=float(1 - store.valid(match.id).mean()),
        message="" if same else changed,
    )


def _provenance(source: SourceRows) -> dict[str, Any]:
    """What is kept with the array, and must be equal for unfinished work to be carried on."""
    files = [dict(file) for file in source.files]
    about = {"about": dict(source.about)} if source.about else {}
    return {"engine": "import", "files": files, "half1_offset_frames": source.half1_offset_frames, **about}


def _match_meta(store: FeatureStore, match: ImportMatch, source: SourceRows) -> MatchMeta:
    grid, offset = TimeGrid.parse(store.settings.fps), source.half1_offset_frames
    named = {} if offset is None else {"half1_offset_frames": offset, "offset_from": source.offset_from}
    return MatchMeta(
        fps=grid.fps,
        time_base=_time_base(source, grid.fps),
        origin_ticks=0,
        split=match.split,
        labels=labels_of_rows(match, source, grid),
        extra=named | dict(source.about),
    )


def _time_base(source: SourceRows, fps: Fraction) -> Fraction:
    """The longest tick that both the step of the grid and the instant of row 0 are whole numbers of."""
    step, first = 1 / fps, source.later_seconds
    common = gcd(step.numerator * first.denominator, first.numerator * step.denominator)
    return Fraction(common, step.denominator * first.denominator)


def _ticks(source: SourceRows, fps: Fraction) -> int:
    """Instant of row 0 in ticks."""
    return int(source.later_seconds / _time_base(source, fps))
