"""What a run trains on and is validated on: matches with their labels, as windows and targets.

Legend: R rows of all matches one after the other, W windows, B clips of a batch, T steps, C channels, N = K + 1
outputs. Windows are gathered by index, without worker processes; which ones an epoch sees, and in which order, is a
pure function of (seed, epoch).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.store import FeatureStore
from ...errors import InputError
from ...eval.spots import Spots
from ...events import (
    COARSE_FPS,
    MIRRORED,
    Event,
    TimeGrid,
    by_team,
    own_classes,
    team_classes,
    teams_of,
)
from ..targets import Targets, clip_targets
from .settings import TargetSettings, TrainSettings

IntArray = NDArray[np.int64]
_FIT_ROWS = 200_000
"""Rows that the inputs' mean and deviation are taken from, at most, evenly spread."""
MIRROR_VIEW = "hflip"
"""The view of a store whose pictures are mirrored."""
_LEAST_FPS = 1
"""Rows further apart cannot tell what lies within the half second of the metric."""


@dataclass(frozen=True)
class LabelledMatch:
    """A match with its events on the grid of rows."""

    id: str
    num_rows: int
    fps: Fraction
    """Rows per second."""
    events: tuple[tuple[int, int], ...]
    """(row, class id 1..K), in time order."""
    num_hidden: int
    """Events of classes outside the list, left out."""
    cells: tuple[tuple[int, int], ...]
    """(cell, class id) of the events on `TimeGrid.judged`: the same as `events`, but where rows are far apart."""

    def spots(self, num_classes: int) -> Spots:
        """The events as the metric takes them, on `TimeGrid.judged`, all visible."""
        cells, classes = [cell for cell, _ in self.cells], [class_id - 1 for _, class_id in self.cells]
        return Spots.collect(cells, classes, [1.0] * len(cells), num_classes=num_classes)


@dataclass(frozen=True)
class MatchLabels:
    """What is known of a match before training: its length, rate and labels."""

    num_rows: int
    grid: TimeGrid
    events: Sequence[Event] | None
    """None where it has no labels."""


@dataclass(frozen=True)
class Matches:
    """Matches to choose from: of a feature store, or of a data set of videos."""

    where: str
    """Path, for errors."""
    classes: tuple[str, ...]
    """That may be learned."""
    split_of: Mapping[str, str | None]
    """By match id."""
    labels: Callable[[str], MatchLabels]
    """By match id; may take a while. InputError where the match cannot be read."""
    again: str
    """What to do once something beside the videos has been put right."""
    may_be_coarse: bool = False
    """Whether rows may be as few a second as they are: nobody can make more of a store's."""
    own: tuple[str, ...] = ()
    """The classes that are learned where nobody names any; empty: all."""
    teams: tuple[str, ...] = ()
    """Teams that the labels name."""

    def by_team(self) -> "Matches":
        """The same matches with joint classes; an event without a team is of none of them.

        Raises:
            InputError: no label names a team.
        """
        if not self.teams:
            raise InputError(
                f"{self.where}: no label names a team",
                wanted='"team": "left" or "right" (or other names) in each annotation',
                cure="leave --classes-by team out, or label the teams",
            )

        def joint(match_id: str) -> MatchLabels:
            found = self.labels(match_id)
            return replace(found, events=None if found.events is None else by_team(found.events))

        return replace(self, labels=joint)

    @classmethod
    def of_store(cls, store: FeatureStore) -> "Matches":
        """The matches of a feature store."""
        metas = {match_id: store.match(match_id).meta for match_id in store.matches()}
        split_of = {match_id: meta.split for match_id, meta in metas.items()}
        events = [event for meta in metas.values() for event in meta.events() or ()]
        own = own_classes(store.classes, metas, {event.label for event in events})

        def labels(match_id: str) -> MatchLabels:
            match = store.match(match_id)
            return MatchLabels(match.num_rows, match.meta.grid, match.meta.events())

        again, where, teams = "extract again (rows are kept)", str(store.path), teams_of(events)
        return cls(where, store.classes, split_of, labels, again, True, own, teams)


def labelled_matches(source: Matches, match_ids: Iterable[str], classes: Sequence[str]) -> list[LabelledMatch]:
    """Read the labels of matches.

    Raises:
        InputError: a match without labels, or damaged.
    """
    class_id = {label: number for number, label in enumerate(classes, 1)}
    found = []
    for match_id in match_ids:
        match = source.labels(match_id)
        if match.events is None:
            raise InputError(
                f"{source.where}: match {match_id!r} has no labels",
                cure=f"put Labels-ball.json beside its video and {source.again}, or leave the match out",
            )
        grid, judged = match.grid, match.grid.judged
        at = [(event.position_ms, class_id[event.label]) for event in match.events if event.label in class_id]
        inside = [(ms, number) for ms, number in at if grid.frame(ms) < match.num_rows]
        rows = tuple(sorted((grid.frame(ms), number) for ms, number in inside))
        cells = tuple(sorted((judged.frame(ms), number) for ms, number in inside))
        num_hidden = len(match.events) - len(at)
        found.append(LabelledMatch(match_id, match.num_rows, grid.fps, rows, num_hidden, cells))
    return found


@dataclass(frozen=True)
class Chosen:
    """Which matches of a store train and which judge."""

    train: tuple[LabelledMatch, ...]
    valid: tuple[LabelledMatch, ...]
    classes: tuple[str, ...]
    fps: Fraction
    """Rows per second of every match."""
    teams: tuple[str, ...] = ()
    """Of joint classes: each label has one for each of these, side by side."""

    @property
    def mirrored(self) -> tuple[int, ...]:
        """(K,) index of the class that each one is in a mirrored picture; empty where all stay what they are."""
        swapped = [self.teams.index(MIRRORED.get(team, team)) for team in self.teams]
        if swapped == sorted(swapped):
            return ()
        return tuple(first + at for first in range(0, len(self.classes), len(swapped)) for at in swapped)

    @property
    def ids(self) -> list[str]:
        """Ids of the matches, those that train first."""
        return [match.id for match in (*self.train, *self.valid)]

    @property
    def class_counts(self) -> list[int]:
        """Training events of each class."""
        counted = Counter(class_id for match in self.train for _, class_id in match.events)
        return [counted[class_id] for class_id in range(1, len(self.classes) + 1)]

    def targets_of(self, match: LabelledMatch, settings: TrainSettings) -> tuple[Targets, int]:
        """Targets (R, ...) of a match, and its events that softmax labels cannot show."""
        return row_targets(
            match,
            stride=settings.stride,
            num_classes=len(self.classes),
            settings=settings.targets,
            class_counts=self.class_counts,
        )


def choose_matches(
    source: Matches | FeatureStore,
    *,
    classes: Sequence[str] | None = None,
    valid: Sequence[str] = (),
    with_valid: bool = False,
    stride: int = 1,
    is_by_team: bool = False,
) -> Chosen:
    """Matches by the source's own splits, or with named ones for validation.

    Args:
        source: a feature store, or other matches.
        classes: the class list; by default the source's.
        valid: ids (or parts of ids) of matches of the splits train and valid that judge; the others of `train` train.
        with_valid: the others of `valid` train too: for a set of runs that each leave out one match of all.
        stride: rows per step of the run, to refuse one that leaves too few steps a second.
        is_by_team: whether each class is one for each team that the labels name.

    Raises:
        InputError: an empty split, no labels, classes that do not fit, rates that differ, or a stride for other rows.
    """
    source = Matches.of_store(source) if isinstance(source, FeatureStore) else source
    names, teams = _checked_classes(source, classes), source.teams if is_by_team else ()
    if is_by_team:
        source, names = source.by_team(), team_classes(names, teams)
    of_split = source.split_of
    in_train, in_valid = ([each for each in of_split if of_split[each] == split] for split in ("train", "valid"))
    if valid:
        named, in_valid = in_valid, _named(valid, in_train + in_valid, where=source.where)
        in_train = [match_id for match_id in in_train + named * with_valid if match_id not in in_valid]
    elif with_valid:
        raise InputError("--with-valid needs --valid", wanted="the matches that validate", cure="add --valid MATCH")
    for split, ids in (("train", in_train), ("valid", in_valid)):
        if not ids:
            found = Counter(each or "no split" for each in of_split.values())
            raise InputError(
                f"{source.where}: no match in the split {split!r}",
                got=", ".join(f"{number} {name}" for name, number in sorted(found.items())) or "none at all",
                wanted="at least one labelled match to train and one to validate",
                cure=f"name validation matches with --valid; or add splits.json to the data set and {source.again}; "
                "or cut one labelled video by time: bas cache split --by-time 0.7/0.15/0.15",
            )
    train, judges = (labelled_matches(source, ids, names) for ids in (in_train, in_valid))
    fps = _one_rate(source, train + judges, stride)
    for split, matches in (("train", train), ("valid", judges)):
        if not any(match.events for match in matches):
            num_other = sum(match.num_hidden for match in matches)
            raise InputError(
                f"{source.where}: the split {split!r} has no event of the class list",
                got=f"{num_other} events of other classes",
                wanted=", ".join(names),
                cure="give the class list of the labels with --classes"
                if num_other
                else "label more of its matches, or choose others; a match cut by time: give it a larger share",
            )
    return Chosen(tuple(train), tuple(judges), names, fps, teams)


def _checked_classes(source: Matches, classes: Sequence[str] | None) -> tuple[str, ...]:
    if not source.classes:
        raise InputError(
            f"{source.where}: no labels",
            got="unlabelled matches only",
            wanted="labelled matches",
            cure=f"put Labels-ball.json beside the videos and {source.again}",
        )
    unknown = [label for label in classes or () if label not in source.classes]
    if unknown:
        raise InputError(
            f"{source.where}: the class list does not match",
            got=", ".join(unknown),
            wanted=", ".join(source.classes),
            cure="name only classes that are labelled, or leave --classes out",
        )
    return tuple(classes or source.own or source.classes)


def _named(names: Sequence[str], known: Sequence[str], *, where: str) -> list[str]:
    found: list[str] = []
    for name in names:
        hits = [match_id for match_id in known if name == match_id] or [each for each in known if name in each]
        if len(hits) != 1:
            raise InputError(
                f"{where}: --valid {name!r} names no single match of train and valid",
                got=", ".join(hits[:4]) or "none at all",
                wanted=", ".join(known[:4]) + (", ..." if len(known) > 4 else ""),
            )
        found += hits
    return list(dict.fromkeys(found))


def _one_rate(source: Matches, matches: Sequence[LabelledMatch], stride: int) -> Fraction:
    """Rows per second of all matches. Too few are refused: always where the stride makes them few, else where more
    rows can be had."""
    fps, *others = rates = sorted({match.fps for match in matches})
    if others:
        raise InputError(
            f"{source.where}: matches of different frame rates",
            got=", ".join(map(str, rates)),
            wanted="one rate",
            cure="extract with --fps 25, so that every match lies on one grid",
        )
    if stride > 1 and fps / stride < COARSE_FPS:
        raise InputError(
            f"{source.where}: made for another stride",
            got=f"{fps} rows a second, of which --stride {stride} keeps {float(fps / stride):.1f}",
            wanted="every row" if TimeGrid(fps).is_coarse else f"at least {COARSE_FPS} steps a second",
            cure="use --stride 1",
        )
    if fps < (_LEAST_FPS if source.may_be_coarse else COARSE_FPS):
        raise InputError(
            f"{source.where}: too few rows a second",
            got=str(fps),
            wanted=f"at least {_LEAST_FPS if source.may_be_coarse else COARSE_FPS}",
            cure="extract with --fps 25",
        )
    return fps


def row_targets(
    match: LabelledMatch, *, stride: int, num_classes: int, settings: TargetSettings, class_counts: Sequence[int]
) -> tuple[Targets, int]:
    """Targets of every row of a match as a step of its phase (rows p, p + stride, ...), and events lost to softmax.

    An event belongs to the last step at or before it, in each phase.

    Returns:
        Targets (rows, ...), and the number of events that softmax labels cannot show, averaged over phases.
    """
    parts, num_lost = [], 0
    for phase in range(min(stride, match.num_rows)):
        targets, lost = clip_targets(
            [((row - phase) // stride, class_id) for row, class_id in match.events],
            num_steps=-(-(match.num_rows - phase) // stride),
            num_classes=num_classes,
            settings=settings,
            class_counts=class_counts,
        )
        parts.append(targets)
        num_lost += lost
    row_of = torch.cat([torch.arange(match.num_rows)[phase::stride] for phase in range(len(parts))])
    return concatenate(parts).select(row_of.argsort()), round(num_lost / len(parts))


def concatenate(parts: Sequence[Targets]) -> Targets:
    """Targets of matches (rows, ...) one after the other."""
    return Targets(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Targets)))


def window_starts(num_rows: int, *, clip_len: int, stride: int, hop_rows: int) -> IntArray:
    """First rows of the windows of a match: every `hop_rows` from 0, and one that ends with the match.

    A match shorter than a window has one, which begins at 0 and repeats the last row.

    Args:
        num_rows: rows of the match, >= 1.
        clip_len: steps of a window, >= 1.
        stride: rows per step, >= 1.
        hop_rows: rows between neighbouring starts, >= 1.
    """
    last = num_rows - ((clip_len - 1) * stride + 1)
    if last <= 0:
        return np.zeros(1, np.int64)
    return np.unique(np.append(np.arange(0, last + 1, hop_rows, dtype=np.int64), last))


def starts_in(match: LabelledMatch, settings: TrainSettings) -> IntArray:
    """First rows of the training windows of a match, counted within it."""
    clip_len, stride, hop_rows = settings.clip_len, settings.stride, settings.hop_rows
    return window_starts(match.num_rows, clip_len=clip_len, stride=stride, hop_rows=hop_rows)


def epoch_order(num_windows: int, *, num_clips: int, seed: int, epoch: int) -> IntArray:
    """Windows of an epoch, (num_clips,) indices 0..num_windows-1.

    Epochs follow each other through one endless row of shuffled passes: no window comes again before all have come,
    whatever an epoch's length.

    Args:
        num_windows: >= 1.
        num_clips: clips of every epoch, >= 1.
        seed: of the run, >= 0.
        epoch: from 0.
    """
    first, stop = epoch * num_clips, (epoch + 1) * num_clips
    passes = range(first // num_windows, -(-stop // num_windows))
    order = np.concatenate([np.random.default_rng([seed, number]).permutation(num_windows) for number in passes])
    skipped = first - passes[0] * num_windows
    return order[skipped : skipped + num_clips].astype(np.int64)


def epoch_views(num_views: int, *, num_batches: int, seed: int, epoch: int) -> IntArray:
    """(num_batches,) view of each batch of an epoch, 0..num_views-1: every view equally likely."""
    return np.random.default_rng([seed, epoch, 1]).integers(0, num_views, num_batches)  # 1: apart from the order


def window_index(first_row_b: IntArray, last_row_b: IntArray, *, clip_len: int, stride: int) -> tuple[Tensor, Tensor]:
    """Rows of windows, and which of their steps lie within the match.

    Args:
        first_row_b: (B,) first row of each window.
        last_row_b: (B,) last row of its match; steps beyond it repeat it.
        clip_len: T.
        stride: rows per step.

    Returns:
        (B, T) int64 and (B, T) bool.
    """
    rows_bt = torch.from_numpy(first_row_b)[:, None] + stride * torch.arange(clip_len)
    last_b1 = torch.from_numpy(np.ascontiguousarray(last_row_b))[:, None]
    return torch.minimum(rows_bt, last_b1), rows_bt <= last_b1


@dataclass(frozen=True)
class Batch:
    """What one optimizer step learns from."""

    features_btc: Tensor
    """(B, T, C) float32."""
    targets: Targets
    """(B, T, ...)."""


@dataclass(frozen=True)
class Windows:
    """All training windows with their targets; rows count over the training matches, one after the other."""

    targets: Targets
    """(rows, ...) of all training rows."""
    first_row_m: IntArray
    """First row of each match."""
    first_row_w: IntArray
    """First row of each window."""
    last_row_w: IntArray
    """Last row of its match."""
    num_lost: int
    """Events that softmax labels cannot show, as another event has their step."""
    settings: TrainSettings
    mirrored: tuple[int, ...] = ()
    """As `Chosen.mirrored`."""

    @classmethod
    def of(cls, chosen: Chosen, settings: TrainSettings, *, device: torch.device) -> "Windows":
        """Windows of the training matches, their targets on a device.

        Raises:
            InputError: validation, and prediction, would see mirrored pictures as if they were none.
        """
        if chosen.mirrored and settings.views[0] == MIRROR_VIEW:
            got = ",".join(settings.views)
            raise InputError("--views is not usable with teams", got=got, wanted=f"another view before {MIRROR_VIEW}")
        parts = [chosen.targets_of(match, settings) for match in chosen.train]
        starts = [starts_in(match, settings) for match in chosen.train]
        stop_m = np.cumsum([match.num_rows for match in chosen.train], dtype=np.int64)
        first_m = np.append(0, stop_m[:-1])
        match_w = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
        first_w, last_w = first_m[match_w] + np.concatenate(starts), stop_m[match_w] - 1
        targets = concatenate([part for part, _ in parts]).to(device)
        num_lost = sum(lost for _, lost in parts)
        return cls(targets, first_m, first_w, last_w, num_lost, settings, chosen.mirrored)

    @property
    def num_windows(self) -> int:
        """W."""
        return len(self.first_row_w)

    def batches(self, epoch: int) -> IntArray:
        """(steps, B) window of each clip of an epoch (from 0): a pure function of (seed, epoch)."""
        settings = self.settings
        order = epoch_order(self.num_windows, num_clips=settings.clips_per_epoch, seed=settings.seed, epoch=epoch)
        if settings.event_share and len(busy := self._with_events):
            drawn = np.random.default_rng([settings.seed, epoch, 4])
            order = np.where(drawn.random(len(order)) < settings.event_share, drawn.choice(busy, len(order)), order)
        return order.reshape(settings.steps_per_epoch, settings.batch)

    @cached_property
    def _with_events(self) -> IntArray:
        """Windows that hold a label."""
        is_labelled = self.targets.presence_btk.amax(-1).cpu() > 0
        index_wt, _ = self.index(np.arange(self.num_windows))
        return np.flatnonzero(is_labelled[index_wt].any(1).numpy())

    def index(self, windows_b: IntArray) -> tuple[Tensor, Tensor]:
        """(B, T) rows of windows, and (B, T) bool, False beyond the match's end."""
        first, last = self.first_row_w[windows_b], self.last_row_w[windows_b]
        return window_index(first, last, clip_len=self.settings.clip_len, stride=self.settings.stride)

    def targets_of(self, index_bt: Tensor, real_bt: Tensor, *, is_mirrored: Sequence[bool] = ()) -> Targets:
        """Targets (B, T, ...) of what `index` gave, on their device; steps beyond the match's end are masked.

        Args:
            index_bt, real_bt: of `index`.
            is_mirrored: of each clip, whether its picture is; empty: none is.
        """
        device = self.targets.mask_bt.device
        targets = self.targets.select(index_bt.to(device, non_blocking=True))
        if self.mirrored and any(is_mirrored):
            targets = targets.mirrored(self.mirrored, torch.tensor(is_mirrored))
        # nearly all windows are whole: a copy to the device is spared
        return targets if bool(real_bt.all()) else replace(targets, mask_bt=real_bt.to(device))


def valid_targets(chosen: Chosen, settings: TrainSettings, device: torch.device) -> tuple[Targets, ...]:
    """Targets (R, ...) of each match that validates."""
    return tuple(chosen.targets_of(match, settings)[0].to(device) for match in chosen.valid)


@dataclass(frozen=True)
class Examples:
    """All training windows with their features. The bank begins with the training matches."""

    bank: FeatureBank
    windows: Windows
    valid_targets: tuple[Targets, ...]
    """(R, ...) of each match that validates."""

    @classmethod
    def of(cls, chosen: Chosen, bank: FeatureBank, settings: TrainSettings) -> "Examples":
        """Windows of the training matches, and targets of those that validate."""
        return cls(bank, Windows.of(chosen, settings, device=bank.device), valid_targets(chosen, settings, bank.device))

    def sample_rows(self) -> Tensor:
        """(R, C) float32 training rows, evenly spread over each match, on the bank's device."""
        num_rows = len(self.windows.targets.mask_bt)
        step = -(-num_rows // _FIT_ROWS)
        matches = [match for match in self.bank.matches if match.first_row < num_rows]
        spread = (torch.arange(each.first_row, each.first_row + each.num_rows, step) for each in matches)
        return torch.cat([self.bank.gather(index_t[None])[0] for index_t in spread])

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (from 0), from step `first_step` on: a pure function of (seed, epoch)."""
        settings, num_batches = self.windows.settings, self.windows.settings.steps_per_epoch
        views = epoch_views(len(settings.views), num_batches=num_batches, seed=settings.seed, epoch=epoch).tolist()
        batches = self.windows.batches(epoch)
        for step in range(first_step, num_batches):
            index_bt, real_bt = self.windows.index(batches[step])
            if step + 1 < num_batches:  # so that a mapped store reads ahead while this batch is computed
                self.bank.will_need(self.windows.index(batches[step + 1])[0], view=views[step + 1])
            features_btc = self.bank.gather(index_bt, view=views[step])
            is_mirrored = [settings.views[views[step]] == MIRROR_VIEW] * len(index_bt)
            yield Batch(features_btc, self.windows.targets_of(index_bt, real_bt, is_mirrored=is_mirrored))


def one_pass_at_most(settings: TrainSettings, chosen: Chosen) -> TrainSettings:
    """The settings with epochs of at most one pass over the training windows: recipes are made for days of video."""
    num_windows = sum(len(starts_in(match, settings)) for match in chosen.train)
    return replace(settings, frames_per_epoch=min(settings.frames_per_epoch, num_windows * settings.clip_len))
