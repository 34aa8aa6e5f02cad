"""What a check found: errors and notes, each with its cure."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..events import SOCCERNET_BALL_CLASSES, SOCCERNET_BALL_SPLITS, SPLITS, Event, Split, parse_event, split_named
from ..files import read_json, read_text

Severity = Literal["error", "note"]
ROOT_PLACE = "."
"""`where` of a finding about the whole data set."""


@dataclass(frozen=True)
class Finding:
    """One thing to repair (error) or to know (note)."""

    severity: Severity
    """`error` stops a run; `note` does not."""
    where: str
    """Match id, or file name relative to the data set's root."""
    message: str
    """What is wrong, with what was found."""
    cure: str = ""
    """What to do; may be empty."""
    about_video: bool = False
    """Whether it keeps from reading videos only: labels can be used all the same."""

    @classmethod
    def from_error(cls, where: str, error: InputError, *, prefix: str = "") -> "Finding":
        """An `InputError` as an error finding; `prefix` (such as a path) is cut off the front of its text."""
        message = error.what.removeprefix(prefix)
        details = [str(error.got)] if error.got is not None else []
        details += [f"wanted {error.wanted}"] if error.wanted is not None else []
        return cls("error", where, f"{message} ({'; '.join(details)})" if details else message, error.cure)


def error(where: str, message: str, cure: str = "") -> Finding:
    """An error finding."""
    return Finding("error", where, message, cure)


def note(where: str, message: str, cure: str = "") -> Finding:
    """A note."""
    return Finding("note", where, message, cure)


_MAX_RECORD_FINDINGS = 3


@dataclass(frozen=True)
class LabelFile:
    """What one `Labels-ball.json` holds."""

    events: tuple[Event, ...]
    """The usable ones, in time order."""
    findings: tuple[Finding, ...]
    first: Mapping[str, str]
    """Label -> where its first record is: `Labels-ball.json: annotations[0]`."""


def event_time(event: Event) -> str:
    """`PASS at 4000 ms`, with the half where it is the second: how findings name an event."""
    return f"{event.label} at {event.position_ms} ms" + (" of half 2" if event.half == 2 else "")


def read_label_file(path: Path, *, game: str) -> LabelFile:
    """Events and findings of one label file; never raises for what is in it.

    Args:
        path: a `Labels-ball.json`.
        game: id of its match: the place named in findings, compared with `UrlLocal`.
    """
    try:
        document = read_json(path)
    except InputError as reason:
        return LabelFile((), (Finding.from_error(game, reason, prefix=f"{path.parent}/"),), {})
    records = document.get("annotations") if isinstance(document, Mapping) else None
    if not isinstance(records, list):
        message = f"{path.name}: no list named 'annotations'"
        return LabelFile((), (error(game, message, 'wanted {"annotations": [...]}: fetch the file again'),), {})
    events: list[Event] = []
    findings: list[Finding] = []
    first: dict[str, str] = {}
    for index, record in enumerate(records):
        where = f"{path.name}: annotations[{index}]"
        try:
            events.append(parse_event(record, where=where))
            first.setdefault(events[-1].label, where)
        except InputError as reason:
            findings.append(Finding.from_error(game, reason))
    if (num_more := len(findings) - _MAX_RECORD_FINDINGS) > 0:
        findings[_MAX_RECORD_FINDINGS:] = [error(game, f"{path.name}: {num_more} more records that cannot be used")]
    events.sort(key=lambda event: (event.half, event.position_ms))
    by_key = {(event.half, event.position_ms, event.label): event for event in events}
    counts = Counter((event.half, event.position_ms, event.label) for event in events)
    if repeated := [by_key[key] for key, count in counts.items() if count > 1]:
        message = f"{len(repeated)} event(s) more than once (first: {event_time(repeated[0])})"
        findings.append(error(game, message, "keep one of each: the metric counts a class once per frame"))
    url = str(document.get("UrlLocal") or "").replace("\\", "/").strip("/")
    if url and not f"/{url}".endswith(f"/{game}") and not f"/{game}".endswith(f"/{url}"):
        message = f"UrlLocal names another match ({url})"
        findings.append(note(game, message, "make sure that the labels are of this match"))
    return LabelFile(tuple(events), tuple(findings), first)


SPLITS_NAME = "splits.json"
CLASSES_NAME = "classes.txt"
_OFFICIAL_SPLITS = {game.rsplit("/", 1)[-1]: split for game, split in SOCCERNET_BALL_SPLITS.items()}


@dataclass(frozen=True)
class SplitSources:
    """What is known of one match before its split is decided."""

    id: str
    game: str
    folders: frozenset[Split]
    """Splits named by the folders around it."""


def assign_splits(
    root: Path, matches: Sequence[SplitSources], *, file: Path | None = None
) -> tuple[dict[str, Split | None], list[Finding]]:
    """Split of each match id: folders, else `splits.json`, else SoccerNet's own, else the root's name, else None.

    Args:
        root: the data set's root.
        matches: what is known of each match.
        file: read in the place of the root's `splits.json`; it may name matches that are not here.
    """
    listed, findings = _read_splits(file or root / SPLITS_NAME)
    findings += [] if file else _unknown_matches(listed, matches)
    fallback = None if any(match.folders for match in matches) else split_named(root.resolve().name)
    splits: dict[str, Split | None] = {}
    for match in matches:
        by_file = listed.get(match.id) or listed.get(match.game) or frozenset()
        official = _OFFICIAL_SPLITS.get(match.game.rsplit("/", 1)[-1])
        stated = match.folders | by_file
        if len(stated) > 1:
            said = [f"folder: {split}" for split in sorted(match.folders)]
            said += [f"{SPLITS_NAME}: {split}" for split in sorted(by_file)]
            message = f"more than one split ({', '.join(said)})"
            findings.append(error(match.id, message, "make them agree: one split per match"))
        elif official and stated and official not in stated:
            findings.append(note(match.id, f"used as {min(stated)}; SoccerNet has it in {official}"))
        splits[match.id] = min(match.folders or by_file, default=official or fallback)
    undecided = [match_id for match_id, split in splits.items() if split is None]
    if undecided:
        message = f"{len(undecided)} of {len(matches)} match(es) in no split (first: {undecided[0]})"
        findings.append(note(ROOT_PLACE, message, "folders train/ valid/ test/, or a splits.json at the root"))
    return splits, list(dict.fromkeys(findings))


def _unknown_matches(listed: Mapping[str, frozenset[Split]], matches: Sequence[SplitSources]) -> list[Finding]:
    known = {match.id for match in matches} | {match.game for match in matches}
    findings = []
    for name in listed:
        if name not in known:
            same_but_case = [each for each in sorted(known) if each.casefold() == name.casefold()]
            near = same_but_case or difflib.get_close_matches(name, sorted(known), n=1)
            cure = f"did you mean {near[0]!r}?" if near else "remove it, or fetch the match"
            findings.append(error(SPLITS_NAME, f"names a match that does not exist: {name!r}", cure))
    return findings


def _read_splits(path: Path) -> tuple[dict[str, frozenset[Split]], list[Finding]]:
    """Match or game id -> the splits that list it."""
    if not path.exists():
        return {}, []
    try:
        document = read_json(path)
    except InputError as reason:
        return {}, [Finding.from_error(SPLITS_NAME, reason, prefix=f"{path}: ")]
    form = 'wanted {"train": ["match", ...], "valid": [...], "test": [...], "challenge": [...]}'
    if not isinstance(document, dict):
        return {}, [error(SPLITS_NAME, f"not an object ({type(document).__name__})", form)]
    listed: dict[str, frozenset[Split]] = {}
    findings = []
    for key, names in document.items():
        split = split_named(key)
        if split is None:
            findings.append(error(SPLITS_NAME, f"unknown split {key!r}", f"allowed: {', '.join(SPLITS)}"))
        elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            findings.append(error(SPLITS_NAME, f"{key!r} is not a list of match ids", form))
        else:
            for name in names:
                match = name.replace("\\", "/").strip("/")
                listed[match] = listed.get(match, frozenset()) | {split}
    return listed, findings


def find_classes(list_file: Path, files: Mapping[str, LabelFile]) -> tuple[tuple[str, ...], list[Finding]]:
    """Classes in order of their ids: the listed ones, SoccerNet's twelve if they cover the labels, else the labels.

    A label that differs from a class in case, blanks or signs alone is no class of its own.

    Args:
        list_file: one class a line, where there is one.
        files: game id -> its label file.
    """
    labels = {game: Counter(event.label for event in file.events) for game, file in files.items()}
    counts = sum(labels.values(), Counter[str]())
    listed, findings = _read_classes(list_file)
    if listed:
        return listed, findings + _unknown_classes(files, listed, f"correct the label, or add it to {list_file.name}")
    is_soccernet = any(game.rsplit("/", 1)[-1] in _OFFICIAL_SPLITS for game in files)
    if not counts:
        return (SOCCERNET_BALL_CLASSES if is_soccernet else ()), findings
    foreign = counts.keys() - set(SOCCERNET_BALL_CLASSES)
    slips = {label for label in foreign if _same_but_spelling(label, SOCCERNET_BALL_CLASSES)}
    num_slips, num_right = (sum(counts[label] for label in some) for some in (slips, counts.keys() - foreign))
    own = foreign - slips if is_soccernet or num_slips < num_right else foreign
    games = [game for game, of_game in labels.items() if of_game.keys() & own]
    if not games or (is_soccernet and 2 * len(games) < sum(map(bool, labels.values()))):
        cure = f"correct the label, or list your classes in {CLASSES_NAME}"
        return SOCCERNET_BALL_CLASSES, findings + _unknown_classes(files, SOCCERNET_BALL_CLASSES, cure)
    message = f"no such file: the labels found are the classes ({', '.join(sorted(counts))})"
    cure = "write one class per line to fix their order: else a new label may shift the class ids"
    return tuple(sorted(counts)), [*findings, note(CLASSES_NAME, message, cure), *_spelt_twice(files, counts)]


def _same_but_spelling(label: str, classes: Iterable[str]) -> str | None:
    """The class that differs from the label in case, blanks and signs alone."""
    plain = _letters(label)
    return next((name for name in classes if name != label and _letters(name) == plain), None) if plain else None


def _letters(label: str) -> str:
    return "".join(filter(str.isalnum, label.casefold()))


def _spelt_twice(files: Mapping[str, LabelFile], counts: Counter[str]) -> list[Finding]:
    """Labels that are classes of their own, but differ from a more frequent one in spelling alone."""
    frequent = [label for label, _ in counts.most_common()]
    slips = {label: _same_but_spelling(label, frequent[:number]) for number, label in enumerate(frequent)}
    return [
        note(game, _slip(label, other, file), f"correct one of them, or list both in {CLASSES_NAME}")
        for game, file in files.items()
        for label, other in slips.items()
        if other and label in file.first
    ]


def _slip(label: str, other: str, file: LabelFile) -> str:
    number = sum(event.label == label for event in file.events)
    return f"{label!r} is another class than {other!r} ({number} event(s), first: {file.first[label]})"


def _unknown_classes(files: Mapping[str, LabelFile], classes: Sequence[str], cure: str) -> list[Finding]:
    findings = []
    for game, file in files.items():
        for label, number in sorted(Counter(event.label for event in file.events).items()):
            if label in classes:
                continue
            if same := _same_but_spelling(label, classes):
                findings.append(error(game, _slip(label, same, file), f"did you mean {same}? {cure}"))
                continue
            near = difflib.get_close_matches(label.upper(), classes, n=1)
            hint = f"did you mean {near[0]}? {cure}" if near else cure
            findings.append(error(game, f"unknown class {label!r} ({number} event(s))", hint))
    return findings


def _read_classes(path: Path) -> tuple[tuple[str, ...], list[Finding]]:
    """Non-empty lines; empty where there is no usable file."""
    if not path.exists():
        return (), []
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
        if not all(line.isprintable() for line in lines):
            raise InputError("holds control characters")
    except InputError as reason:
        return (), [error(CLASSES_NAME, f"cannot be read ({reason})", "save it as UTF-8 text, one class per line")]
    classes = tuple(dict.fromkeys(line for line in lines if line))
    twice = sorted(name for name, count in Counter(filter(None, lines)).items() if count > 1)
    findings = [error(CLASSES_NAME, f"class listed twice: {name!r}", "keep one line of each") for name in twice]
    return classes, findings if classes else [error(CLASSES_NAME, "holds no class", "one class per line")]
