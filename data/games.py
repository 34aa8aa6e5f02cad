"""What is predicted: games of feature stores, data sets and single videos; a game is one match or its two halves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

from ..cache.layout import METADATA
from ..cache.store import FeatureStore
from ..errors import InputError
from ..events import SPLITS, Event, Split, own_classes, read_labels
from .folders import LABELS_NAME, classes_beside, game_id, video_half
from .labels import CLASSES_NAME, find_classes, read_label_file
from .sources import DataSet, Match, find_data_set, find_sources

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
class SourceGame:
    """What one predictions file is about."""

    id: str
    """That of its only part, or of both halves without the `/1` or `/2`."""
    parts: tuple[Part, ...]
    problem: str = ""
    """Why it cannot be predicted, where that is known from looking at the folders."""


def find_games(sources: Sequence[Path], *, with_labels: bool = False) -> list[SourceGame]:
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
    problems: dict[str, str] = {}
    parts: list[Part] = [part for store in stores for part in _stored(store, problems)]
    others = [source for source in sources if not (source / METADATA).exists()]
    if others:
        data_set, of_videos = _usable(find_sources(others, with_labels=with_labels))
        problems |= of_videos
        parts += [VideoPart(each.id, each.half, each.split, each, data_set) for each in data_set.matches]
    parts.sort(key=lambda part: part.id)
    for part, following in pairwise(sorted(parts, key=lambda part: part.id.casefold())):
        if part.id.casefold() == following.id.casefold():
            raise InputError("the same match in two sources", got=following.id, cure="give one of them")
    games = []
    for shared_id, of_game in groupby(
        parts, key=lambda part: part.id.rsplit("/", 1)[0] if part.half is not None else part.id
    ):
        members = tuple(of_game)
        known = [
            problems[name] for name in dict.fromkeys([shared_id, *(part.id for part in members)]) if name in problems
        ]
        games.append(SourceGame(shared_id, members, "\n".join(known)))
    return games


def choose_games(
    games: Sequence[SourceGame], *, splits: Sequence[Split] = (), names: Sequence[str] = ()
) -> list[SourceGame]:
    """Games of some splits, and of some names.

    Args:
        games: all.
        splits: only these; empty: all.
        names: ids, or parts of ids that only one game has; empty: all.

    Raises:
        InputError: none is left, or a name that fits no game or several.
    """

    def is_asked_for(game: SourceGame, part: Part) -> bool:
        # nobody knows the split of a stored match that cannot be read: it fails, rather than be passed over in silence
        return part.split in splits or (bool(game.problem) and isinstance(part, StoredPart))

    left = [game for game in games if not splits or any(is_asked_for(game, part) for part in game.parts)]
    if not left:
        found = sorted({part.split or "no split" for game in games for part in game.parts})
        raise InputError(
            "no match to predict", got=f"matches of {', '.join(found)}" if found else "none", wanted=", ".join(splits)
        )
    chosen: dict[str, SourceGame] = {}
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


def _stored(store: FeatureStore, problems: dict[str, str]) -> Iterator[StoredPart]:
    """Parts of a store; why a match cannot be read is put into `problems`."""
    for match_id in store.matches():
        try:
            meta = store.match(match_id).meta
        except InputError as error:
            problems[match_id] = str(error)
            yield StoredPart(match_id, None, None, store)
            continue
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
        text = f"{finding.message}\n  cure:   {finding.cure}" if finding.cure else finding.message
        before = f"{problems[finding.where]}\n" if finding.where in problems else f"{finding.where}: "
        problems[finding.where] = before + text
    return data_set, problems


@dataclass(frozen=True)
class LabelSet:
    """Where the labels are."""

    files: Mapping[str, Path | tuple[Event, ...]]
    """SourceGame id -> label file, or its events where they come from a store."""
    classes: tuple[str, ...]
    """What is averaged over, in order: the data set's class list; of SoccerNet's twelve the labelled ones, where the
    data set neither lists them nor lies in SoccerNet's folders."""
    problems: tuple[str, ...]
    """Errors in the data set that do not concern its videos, and which of SoccerNet's classes are not averaged."""
    videos: Mapping[str, Sequence[str]]
    """Name of a video of a whole match, without its suffix -> ids of the games that have one of this name."""


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
        read_labels(source)  # raises what keeps it from being read
        file = read_label_file(source, game=game)
        class_file = classes_beside(source)
        classes, findings = find_classes(class_file, {game: file})
        is_listed = class_file.is_file()
        findings += file.findings
        games, labels = {game}, set(file.first)
        names = []
        files: dict[str, Path | tuple[Event, ...]] = {game: source}
    else:
        data_set = find_data_set(source)
        wanted = [match for match in data_set.matches if not splits or match.split in splits]
        files = {
            # events where another program wrote them in a format of its own
            match.game: match.labels
            if match.labels.name.endswith(LABELS_NAME)
            else data_set.label_files[match.game].events
            for match in wanted
            if match.labels is not None
        }
        names = [(str(each.video), each.game) for each in data_set.matches if each.video and each.half is None]
        classes, findings = data_set.classes, list(data_set.findings)
        is_listed = all(path.is_file() for path in data_set.class_files)
        games = {match.game for match in data_set.matches}
        labels = {label for file in data_set.label_files.values() for label in file.first}
    if not files:
        raise InputError(f"{source}: no labels", got=f"split {', '.join(splits)}" if splits else None)
    problems = [f for f in findings if f.severity == "error" and not f.about_video]
    texts = tuple(f"{problem.where}: {problem.message}" for problem in problems)
    if not is_listed:
        own = own_classes(classes, games, labels)
        classes, about_classes = own, _averaged(classes, own)
        texts += about_classes
    return LabelSet(files, classes, texts, _by_stem(names))


def _averaged(classes: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """A line about the classes that are averaged over, where they are fewer than those that were found."""
    if own == classes:
        return ()
    return (
        f"averaged over the {len(own)} labelled classes ({', '.join(own)}): the data set lists no others in "
        f"{CLASSES_NAME}, and lies in no folders as SoccerNet's; --classes names others",
    )


def _by_stem(names: Sequence[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """From (file name, game id)."""
    games: dict[str, list[str]] = {}
    for name, game in names:
        games.setdefault(Path(name).stem, []).append(game)
    return games


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
        if game.problem:
            problems.append(game.problem)
            continue
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
    parts_of_all = [(game.id, part) for game in found if not game.problem for part in game.parts]
    wholes = [(game, part) for game, part in parts_of_all if part.half is None]
    names = [(str(store.match(part.id).meta.video.get("name", "")), game) for game, part in wholes]
    labels = {event.label for _, part in parts_of_all for event in store.match(part.id).meta.events() or ()}
    own = own_classes(store.classes, {game for game, _ in parts_of_all}, labels)
    return LabelSet(files, own, (*problems, *_averaged(store.classes, own)), _by_stem(names))


def game_of_folder(root: Path) -> Callable[[Path], str]:
    """Function from a folder at or below `root` (a folder, or a file in it) to the id of its game."""
    top = root if root.is_dir() else root.parent
    return lambda folder: game_id(top, folder.relative_to(top).parts)
