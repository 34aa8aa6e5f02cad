"""What is predicted: games of feature stores, data sets and single videos; a game is one match or its two halves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ...cache.layout import METADATA
from ...cache.store import FeatureStore
from ...errors import InputError
from ...events import Split
from .folders import video_half
from .sources import DataSet, Match, find_sources

_NUM_SHOWN = 4


@dataclass(frozen=True)
class StoredPart:
    """A match, or one half of it, whose rows are in a store."""

    id: str
    half: int | None
    split: str | None
    store: FeatureStore


@dataclass(frozen=True)
class VideoPart:
    """A match, or one half of it, whose rows are made from its video."""

    id: str
    half: int | None
    split: str | None
    match: Match
    data_set: DataSet


Part = StoredPart | VideoPart


@dataclass(frozen=True)
class Game:
    """What one predictions file is about."""

    id: str
    """That of its only part, or of both halves without the `/1` or `/2`."""
    parts: tuple[Part, ...]
    problem: str = ""
    """Why it cannot be predicted, where that is known from looking at the folders."""


def find_games(sources: Sequence[Path], *, with_labels: bool = False) -> list[Game]:
    """Games in stores, data set folders and video files, in order of id.

    Args:
        sources: any mixture of them.
        with_labels: read the label files of data sets, so that what is wrong with one is a problem of its game.

    Raises:
        InputError: a source that cannot be used, or one game in a store and elsewhere.
    """
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder", wanted="a video, a data set folder or a store")
    stores = [FeatureStore.open(source) for source in sources if (source / METADATA).exists()]
    parts: list[Part] = [part for store in stores for part in _stored(store)]
    others = [source for source in sources if not (source / METADATA).exists()]
    problems: dict[str, str] = {}
    if others:
        data_set, problems = _usable(find_sources(others, with_labels=with_labels))
        parts += [VideoPart(each.id, each.half, each.split, each, data_set) for each in data_set.matches]
    parts.sort(key=lambda part: part.id)
    _require_once(parts)
    games = []
    for game_id, of_game in groupby(parts, key=_game_id):
        members = tuple(of_game)
        told = [problems[name] for name in dict.fromkeys([game_id, *(part.id for part in members)]) if name in problems]
        games.append(Game(game_id, members, "\n".join(told)))
    return games


def choose_games(games: Sequence[Game], *, splits: Sequence[Split] = (), names: Sequence[str] = ()) -> list[Game]:
    """Games of some splits, and of some names.

    Args:
        games: all.
        splits: only these; empty: all.
        names: ids, or parts of ids that only one game has; empty: all.

    Raises:
        InputError: none is left, or a name that fits no game or several.
    """
    left = [game for game in games if not splits or any(part.split in splits for part in game.parts)]
    if not left:
        found = sorted({part.split or "no split" for game in games for part in game.parts})
        raise InputError(
            "no match to predict", got=f"matches of {', '.join(found)}" if found else "none", wanted=", ".join(splits)
        )
    chosen: dict[str, Game] = {}
    for name in names:
        hits = [game for game in left if game.id == name] or [game for game in left if name in game.id]
        if len(hits) != 1:
            ids = [game.id for game in hits or left]
            raise InputError(
                f"--match {name!r} names {'several matches' if hits else 'no match'}",
                got=", ".join(ids[:_NUM_SHOWN]) + (", ..." if len(ids) > _NUM_SHOWN else ""),
                wanted="an id, or a part of one that no other has",
            )
        chosen[hits[0].id] = hits[0]
    return list(chosen.values()) or left


def _stored(store: FeatureStore) -> Iterator[StoredPart]:
    for match_id in store.matches():
        meta = store.match(match_id).meta
        half = video_half(str(meta.video.get("name", "")))
        is_half = half is not None and match_id.endswith(f"/{half}")
        yield StoredPart(match_id, half if is_half else None, meta.split, store)


def _usable(data_set: DataSet) -> tuple[DataSet, dict[str, str]]:
    """The data set, and what is wrong with single games of it; raises what is wrong with the whole."""
    ids = {match.id for match in data_set.matches} | {match.game for match in data_set.matches}
    errors = [finding for finding in data_set.findings if finding.severity == "error"]
    replace(data_set, findings=tuple(each for each in errors if each.where not in ids)).raise_errors()
    problems: dict[str, str] = {}
    for finding in errors:
        told = f"{finding.message}\n  cure:   {finding.cure}" if finding.cure else finding.message
        before = f"{problems[finding.where]}\n" if finding.where in problems else f"{finding.where}: "
        problems[finding.where] = before + told
    return data_set, problems


def _game_id(part: Part) -> str:
    return part.id.rsplit("/", 1)[0] if part.half is not None else part.id


def _require_once(parts: Sequence[Part]) -> None:
    seen: dict[str, str] = {}
    for part in parts:
        first = seen.setdefault(part.id.casefold(), part.id)
        if first is not part.id:
            raise InputError("the same match in two sources", got=part.id, cure="give one of them")
