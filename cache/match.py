"""What a store knows of a match besides its rows, where its weights came from, and the table of `bas cache info`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, reading_record
from ..events import SPLITS, Event, TimeGrid, parse_event, parse_fraction
from ..files import read_json
from .layout import DTYPES, FEATURES, MAX_ROWS, METADATA, METADATA_BYTES, attribute, inside
from .rows import array_metadata

if TYPE_CHECKING:
    from .reduction import Reduction
    from .store import FeatureStore

_FIELDS = frozenset({"num_rows", "fps", "time_base", "origin_ticks", "split", "labels", "video"})


@dataclass(frozen=True, kw_only=True)
class MatchMeta:
    """All that is kept with a match, given when it is written."""

    fps: Fraction
    """Frames (rows) per second of the grid."""
    time_base: Fraction
    """Seconds per tick of `pts`, e.g. 1/12800."""
    origin_ticks: int
    """Presentation time of grid frame 0, in ticks."""
    split: str | None = None
    """train, valid, test, challenge, or None."""
    labels: tuple[Mapping[str, Any], ...] | None = None
    """SoccerNet annotation records; None: unlabelled, (): labelled, but nothing happens."""
    video: Mapping[str, Any] = field(default_factory=dict)
    """`name`, `bytes`, `sha256` (or None) and whatever else is worth keeping, plain JSON; no path, no time stamp."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further plain JSON of the match."""

    def __post_init__(self) -> None:
        TimeGrid(self.fps)  # checks the rate
        if self.time_base <= 0:
            raise InputError("time base is not usable", got=self.time_base, wanted="a positive fraction of a second")
        if set(self.extra) & _FIELDS:
            raise InputError("extra names a field of its own", got=", ".join(sorted(set(self.extra) & _FIELDS)))
        if self.split is not None and self.split not in SPLITS:
            raise InputError("split is not known", got=repr(self.split), wanted=", ".join(SPLITS))

    @property
    def grid(self) -> TimeGrid:
        """Converts between frames (rows) and milliseconds."""
        return TimeGrid(self.fps)

    def events(self) -> list[Event] | None:
        """Labels as events, in time order; None where the match is unlabelled.

        Raises:
            InputError: a record cannot be used.
        """
        if self.labels is None:
            return None
        parsed = (parse_event(record, where=f"labels[{index}]") for index, record in enumerate(self.labels))
        return sorted(parsed, key=lambda event: (event.half, event.position_ms))

    def to_json(self, *, num_rows: int) -> dict[str, Any]:
        """The record as stored; inverse of `read_match`."""
        return {
            **self.extra,
            "num_rows": num_rows,
            "fps": str(self.fps),
            "time_base": str(self.time_base),
            "origin_ticks": self.origin_ticks,
            "split": self.split,
            "labels": None if self.labels is None else [dict(record) for record in self.labels],
            "video": dict(self.video),
        }


@dataclass(frozen=True)
class MatchInfo:
    """A match of a store."""

    id: str
    """Folder within the store, parts joined by `/`."""
    num_rows: int
    """T: rows of every view, and of `pts` and `valid`."""
    meta: MatchMeta
    """Time grid, split, labels, video."""

    @property
    def seconds(self) -> float:
        """Length of the match's grid."""
        return float(self.num_rows / self.meta.fps)


def read_match(root: Path, match_id: str) -> MatchInfo:
    """The record of a match in the store at `root`. Raises InputError where it is missing or damaged."""
    path = inside(root, f"{match_id}/{METADATA}")
    record = attribute(read_json(path, max_bytes=METADATA_BYTES), "bas_match")
    if not isinstance(record, Mapping):
        raise InputError(f"{path}: no match record", got=repr(record)[:80], wanted='an object "bas_match"')
    rest = dict(record)
    try:
        with reading_record("match record is damaged"):
            num_rows, ticks = rest.pop("num_rows"), rest.pop("origin_ticks")
            labels, video = rest.pop("labels"), rest.pop("video")
            if type(num_rows) is not int or not 1 <= num_rows <= MAX_ROWS:
                raise ValueError(f"num_rows {num_rows!r}")
            if type(ticks) is not int or abs(ticks) >= 1 << 63:
                raise ValueError(f"origin_ticks {ticks!r}")
            if not isinstance(video, Mapping) or not isinstance(labels, list | None):
                raise TypeError("labels or video")
            meta = MatchMeta(
                fps=parse_fraction(rest.pop("fps")),
                time_base=parse_fraction(rest.pop("time_base")),
                origin_ticks=ticks,
                split=rest.pop("split"),
                labels=None if labels is None else tuple(dict(label) for label in labels),
                video=dict(video),
                extra=rest,  # what is left, now that all others are taken out
            )
    except InputError as error:
        raise InputError(f"{path}: {error.what}", got=error.got, wanted=error.wanted) from None
    return MatchInfo(match_id, num_rows, meta)


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where the backbone's weights of a store came from: a weights file, or a finetuned run.

    It changes no number, so it is no part of the settings key. Round-trips through JSON.
    """

    name: str
    """`kinetics` or the like, the weights file's name, or the name of the run's folder."""
    file_sha256: str
    """SHA-256 of the weights file."""
    run_sha256: str | None = None
    """SHA-256 of the run's `run.json`, which names the tensors; None where they come from no run of ours."""
    epoch: int | None = None
    """The run's epoch (from 1) whose weights these are."""
    train_matches: tuple[str, ...] = ()
    """Matches that the backbone was finetuned on."""
    valid_matches: tuple[str, ...] = ()
    """Matches that chose the epoch."""

    def __post_init__(self) -> None:
        # a store may come from elsewhere: what is shown to people is text
        for text in (self.name, self.file_sha256, *self.train_matches, *self.valid_matches):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
        if not isinstance(self.run_sha256, str | None) or type(self.epoch) not in (int, type(None)):
            raise TypeError(f"run {self.run_sha256!r}, epoch {self.epoch!r}")
        if not isinstance(self.train_matches, tuple) or not isinstance(self.valid_matches, tuple):
            raise TypeError("matches are no lists")

    @property
    def is_run(self) -> bool:
        """Whether it is a finetuned run."""
        return self.run_sha256 is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, where: str) -> "WeightsOrigin":
        """Inverse of `to_json`. Raises InputError: a field is missing or unknown, or a name is no text."""
        with reading_record(f"{where}: the origin of the weights is damaged"):
            lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
            return cls(**{**record, **lists})

    def describe(self) -> str:
        """Say it in one line for people."""
        if self.run_sha256 is None:
            return f"{self.name}, file SHA-256 {self.file_sha256[:12]}..."
        train, valid = (
            f"{len(ids)} match{'es' if len(ids) != 1 else ''}: {', '.join(ids)}"
            for ids in (self.train_matches, self.valid_matches)
        )
        return (
            f"finetuned run {self.name} (run.json SHA-256 {self.run_sha256[:12]}...), epoch {self.epoch}, trained on "
            f"{train}; chosen on {valid}"
        )

    def warn_of_training(self, match_ids: Sequence[str]) -> str:
        """Warn, in one line, if validation matches were used to finetune the backbone; empty where none was."""
        seen = [match_id for match_id in match_ids if match_id in self.train_matches]
        if not seen:
            return ""
        return (
            f"{len(seen)} of {len(match_ids)} validation matches trained the backbone of these features (run "
            f"{self.name}), so figures on them flatter: {', '.join(seen)}"
        )


@dataclass(frozen=True)
class Terms:
    """Licence and origin of a store's features. They change no number, so they are no part of the settings key."""

    licence: str = ""
    """Of videos and labels, and so of features made from them; empty: not known."""
    origin: str = ""
    """Data set or place that videos and labels came from; empty: not known."""
    weights_licence: str = ""
    """Of the backbone's weights; empty: not known."""

    def joined(self, newer: "Terms | None") -> "Terms":
        """These, and in their place what the newer ones say."""
        said = {name: text for name, text in vars(newer).items() if text} if newer else {}
        return replace(self, **said)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Terms":
        """Inverse of `vars`; what is missing is empty. AttributeError where it is no object."""
        return cls(**{each.name: str(record.get(each.name) or "") for each in fields(cls)})


@dataclass(frozen=True)
class MatchLine:
    """One match of the table."""

    match: str
    """Match id."""
    split: str
    """train, valid, test, challenge; empty where there is none."""
    rows: int
    """Frames of the grid."""
    minutes: float | None
    """Length of the grid; None where each match has a rate of its own, and is elsewhere."""
    events: int | None
    """Labels; None where the match is unlabelled."""
    views: tuple[str, ...]
    """Views, sorted."""
    megabytes: float
    """Features of all views as they are read, 10^6 bytes."""
    invalid_share: float | None
    """Share of rows whose frame could not be decoded, 0..1; None where that takes the rows, which are elsewhere."""


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance."""

    settings: dict[str, Any]
    """What the features were made with, plain JSON."""
    settings_key: str
    """SHA-256 of the settings."""
    classes: tuple[str, ...]
    """Class names."""
    software: dict[str, str]
    """Versions that the store was made with."""
    weights_origin: dict[str, Any] | None
    """The weights file or finetuned run, plain JSON; None where that was not written down."""
    terms: Terms
    """Licence and origin."""
    matches: tuple[MatchLine, ...]
    """Lines of the table, in order of id."""
    reduction: dict[str, Any] | None
    """What reduced rows were fitted on and what they keep, plain JSON; None where the rows are full."""
    problems: Mapping[str, str]
    """Id of a match that cannot be read -> why."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def info(store: "FeatureStore") -> StoreInfo:
    """Read metadata and `valid` of every match; no features. What cannot be read is one of the problems."""
    lines, problems = [], {}
    for match_id in store.matches():
        try:
            lines.append(_line(store, match_id))
        except InputError as error:  # one bad match does not hide the others
            problems[match_id] = str(error)
    return store_info(store, lines, store.reduction, problems)


def store_info(
    store: "FeatureStore", lines: Sequence[MatchLine], reduction: "Reduction | None", problems: Mapping[str, str]
) -> StoreInfo:
    """What the root says of a store, and the lines of its matches; a shared store's reduction is fetched apart."""
    return StoreInfo(
        settings=store.settings.to_json(),
        settings_key=store.settings.key(),
        classes=store.classes,
        software=store.software,
        weights_origin=store.origin.to_json() if store.origin else None,
        terms=store.terms,
        matches=tuple(lines),
        reduction={"source": reduction.source.to_json(), **reduction.about} if reduction else None,
        problems=problems,
    )


def _line(store: "FeatureStore", match_id: str) -> MatchLine:
    match, views = store.match(match_id), tuple(store.views(match_id))
    arrays = [array_metadata(store.path, f"{match_id}/{FEATURES}/{view}") for view in views]
    num_bytes = sum(math.prod(array["shape"]) * DTYPES[array["data_type"]].itemsize for array in arrays)
    return MatchLine(
        match=match_id,
        split=match.meta.split or "",
        rows=match.num_rows,
        minutes=match.seconds / 60,
        events=None if match.meta.labels is None else len(match.meta.labels),
        views=views,
        megabytes=num_bytes / 1e6,
        invalid_share=float(1 - store.valid(match_id).mean()),
    )
