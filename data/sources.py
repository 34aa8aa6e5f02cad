"""Finds matches: the SoccerNet layout, any folder of `<match>/<video>`, or single video files.

Reads folder names and label files; opens no video (`data.check` does).
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ..errors import InputError
from ..events import SOCCERNET_BALL_SPLITS, Event, Split, split_named
from .annotations import NotAnnotations, by_video, read_annotations
from .folders import (
    LABELS_NAME,
    PREFERRED_HEIGHT,
    VIDEO_SUFFIXES,
    Folder,
    choose_videos,
    classes_beside,
    folder_splits,
    game_id,
    is_clip_folder,
    labels_beside,
    open_root,
    single_id,
    video_half,
    walk,
)
from .labels import (
    CLASSES_NAME,
    ROOT_PLACE,
    SPLITS_NAME,
    Finding,
    LabelFile,
    SplitSources,
    assign_splits,
    error,
    find_classes,
    note,
    read_label_file,
)

_MAX_ERRORS_RAISED = 8
_WRITE_LABELS = (
    f'write {LABELS_NAME} into the folder of each video: {{"annotations": [{{"label": "PASS", "position": "4000"}}]}}, '
    "position in milliseconds"
)

F = TypeVar("F")


@dataclass(frozen=True)
class Match:
    """One video of a data set, with its labels and split."""

    id: str
    """Folder relative to the root, forward slashes, split folders left out; `<game>/1` and `<game>/2` for halves."""
    video: Path | None
    """The file to read; None where it is missing (which is an error in the findings)."""
    labels: Path | None
    """Its `Labels-ball.json`; both halves of a game share one."""
    split: Split | None
    half: int | None
    """1 or 2 in the two-halves edition, else None."""

    @property
    def game(self) -> str:
        """The id without the half: what `UrlLocal` and the predictions file name."""
        return self.id.rsplit("/", 1)[0] if self.half is not None else self.id

    def require_video(self) -> Path:
        """The video's path.

        Raises:
            InputError: the match has none.
        """
        if self.video is None:
            raise InputError(f"{self.id}: no video", cure="bas data check ROOT says what is missing")
        return self.video


@dataclass(frozen=True)
class DataSet:
    """All matches below one root (or of several sources), and what is wrong with them."""

    root: Path
    matches: tuple[Match, ...]
    """In order of id; ids differ, also without regard to case."""
    classes: tuple[str, ...]
    """Class id is the position here plus one. Empty where there is neither a label nor a list."""
    findings: tuple[Finding, ...]
    label_files: Mapping[str, LabelFile] = field(repr=False, compare=False)
    """What each game's label file holds, read once."""
    unread: tuple[Path, ...] = ()
    """Files that may be annotations, in a format that is not read."""
    class_files: tuple[Path, ...] = ()
    """Where the classes are listed, or would be: one file for each source."""

    def events(self, match: Match) -> list[Event] | None:
        """Events of this video that can be used, in time order, relative to its start; None without a label file."""
        if match.labels is None:
            return None
        events = self.label_files[match.game].events
        return [event for event in events if match.half is None or event.half == match.half]

    def raise_errors(self) -> None:
        """Stop a run on any error finding.

        Raises:
            InputError: lists the first errors.
        """
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            lines = [f"{finding.where}: {finding.message}" for finding in errors[:_MAX_ERRORS_RAISED]]
            lines += [f"and {len(errors) - len(lines)} more"] if len(errors) > len(lines) else []
            raise InputError(
                f"{self.root}: {len(errors)} error(s) in the data",
                got="\n          ".join(lines),
                cure=errors[0].cure if len(errors) == 1 else f"bas data check '{self.root}'",
            )


@dataclass(frozen=True)
class AnnotationFiles:
    """What the files of other programs say about the matches of a data set."""

    files: Mapping[str, LabelFile]
    """By game."""
    splits: Mapping[str, Split]
    """By game, where the file's name is that of a split, such as OpenSportsLab's `train.json`."""
    findings: tuple[Finding, ...]
    unread: tuple[Path, ...]
    """Files that hold no spots of these matches."""


NO_ANNOTATIONS = AnnotationFiles({}, {}, (), ())


def annotate(found: Sequence[tuple[Match, F]], tables: Sequence[Path]) -> tuple[list[tuple[Match, F]], AnnotationFiles]:
    """Give matches without labels those of CSV and JSON files that other programs wrote; see `by_video`.

    Args:
        found: matches, each with anything.
        tables: files that may hold annotations.
    """
    files: dict[str, LabelFile] = {}
    splits: dict[str, Split] = {}
    sources: dict[str, Path] = {}
    findings, unread = [], []
    matches = [match for match, _ in found if match.video is not None and match.half is None]
    for path in tables:
        try:
            # frames are no times until the video is read: they are left to bas label --import
            annotations = [each for each in read_annotations(path)[1] if each.ms is not None]
        except NotAnnotations:
            annotations = []
        except InputError as reason:
            findings.append(Finding.from_error(path.name, reason, prefix=f"{path}: "))
            continue
        of_videos = by_video(path, annotations, [match.require_video() for match in matches])
        for match, own in zip(matches, of_videos, strict=True):
            first = match.labels or sources.get(match.game)
            if not own:
                continue
            if first is not None:
                make = note if match.labels else error
                cure = "keep the right one" if match.labels else "keep one of them"
                findings.append(make(match.game, f"two files hold its spots ({first.name} and {path.name})", cure))
                continue
            events = [Event(e.ms or 0, e.label, half=e.half, team=e.team, player=e.player) for e in own]
            events.sort(key=lambda event: (event.half, event.position_ms))
            files[match.game] = LabelFile(tuple(events), (), {event.label: path.name for event in events})
            sources[match.game] = path
            if split := split_named(path.stem):
                splits[match.game] = split
        if not any(of_videos):
            unread.append(path)
    with_labels = [(replace(match, labels=sources.get(match.game, match.labels)), rest) for match, rest in found]
    return with_labels, AnnotationFiles(files, splits, tuple(findings), tuple(unread))


def find_data_set(root: Path, *, with_labels: bool = True) -> DataSet:
    """Matches, splits and classes below `root`.

    Args:
        root: a folder; matches may lie below any number of split folders.
        with_labels: False leaves label files alone, whatever is wrong with them; every match is unlabelled then.

    Raises:
        InputError: `root` is missing, a file or a feature store. All else is a finding.
    """
    root = open_root(root)
    folders, findings = walk(root)
    found: list[tuple[Match, Folder]] = []
    for folder in folders:
        matches, problems = _matches_in(folder, root=root)
        found += [(match, folder) for match in matches]
        findings += problems
    found, problems = _drop_duplicates(found)
    findings += problems
    if with_labels:
        found, annotated = annotate(found, [folder.path / name for folder in folders for name in folder.unread])
    else:
        found, annotated = [(replace(match, labels=None), folder) for match, folder in found], NO_ANNOTATIONS
    data_set = _described(root, found, [*findings, *annotated.findings], annotated=annotated)
    more = _about_all(data_set.matches, folders)
    return replace(data_set, findings=(*data_set.findings, *more), unread=annotated.unread)


def find_folders(
    root: Path,
    holding: Collection[str],
    *,
    splits_file: Path | None = None,
    label_names: Collection[str] = (LABELS_NAME,),
) -> tuple[DataSet, dict[str, Path]]:
    """Folders below `root` that hold a file of one of these names, each a match without a video.

    Args:
        root: a folder, as for `find_data_set`: ids, splits, labels and classes are found in the same way.
        holding: file names.
        splits_file: in the place of the root's `splits.json`; either may name matches that are not here.
        label_names: names of label files; the first that a folder holds is read.

    Returns:
        The matches, and the folder of each match id.

    Raises:
        InputError: `root` cannot be used, no such folder in it, or no such splits file. All else is a finding.
    """
    root = open_root(root)
    if splits_file is not None and not splits_file.is_file():
        raise InputError(f"{splits_file}: no such file", wanted="a splits.json")
    folders, findings = walk(root, holding=holding)
    found = []
    for folder in folders:
        if any((folder.path / name).is_file() for name in holding):
            labels = next((folder.path / name for name in label_names if (folder.path / name).is_file()), None)
            found.append((Match(game_id(root, folder.parts), None, labels, None, None), folder))
    if not found:
        raise InputError(
            f"{root}: nothing to import", got=f"no {' or '.join(sorted(holding))}", wanted="a folder of them per match"
        )
    found, problems = _drop_duplicates(found)
    data_set = _described(root, found, [*findings, *problems], splits_file=splits_file or root / SPLITS_NAME)
    return data_set, {match.id: folder.path for match, folder in found}


def _described(
    root: Path,
    found: Sequence[tuple[Match, Folder]],
    findings: Sequence[Finding],
    *,
    splits_file: Path | None = None,
    annotated: AnnotationFiles = NO_ANNOTATIONS,
) -> DataSet:
    """Matches with their splits, labels and classes; `findings` are put before those made here."""
    matches, about_splits = _with_splits(found, root=root, splits_file=splits_file, stated=annotated.splits)
    label_files = dict(annotated.files)
    for match in matches:
        if match.labels is not None and match.game not in label_files:
            label_files[match.game] = read_label_file(match.labels, game=match.game)
    class_file = root / CLASSES_NAME
    classes, about_classes = find_classes(class_file, label_files)
    about_labels = [finding for file in label_files.values() for finding in file.findings]
    found_all = (*findings, *about_splits, *about_classes, *about_labels)
    return DataSet(root, tuple(matches), classes, found_all, label_files, class_files=(class_file,))


def find_sources(sources: Sequence[Path], *, with_labels: bool = True) -> DataSet:
    """Matches of data set roots and single video files (id: the file's stem), joined. Arguments as `find_data_set`.

    Returns:
        A data set whose root is the only folder given, else the folder that holds all sources. A source that cannot
        be used, a match in two sources and class lists that differ are error findings.
    """
    sets, findings = [], []
    for source in sources:
        try:
            sets.append(
                _single(source, with_labels=with_labels)
                if source.is_file()
                else find_data_set(source, with_labels=with_labels)
            )
        except InputError as reason:
            findings.append(Finding.from_error(str(source), reason, prefix=f"{source}: "))
    if len(sets) == 1 and not findings:
        return sets[0]
    findings += [finding for each in sets for finding in each.findings]
    found = sorted(((match, each.root) for each in sets for match in each.matches), key=lambda pair: pair[0].id)
    matches: dict[str, Match] = {}
    for match, _ in found:
        other = matches.setdefault(match.id.casefold(), match)
        if other is not match:
            message = f"the same match in two sources ({other.video or other.labels} and {match.video or match.labels})"
            findings.append(error(match.id, message, "give one of them"))
    lists = list(dict.fromkeys(each.classes for each in sets if each.classes))
    if len(lists) > 1:
        got = " / ".join(", ".join(classes) for classes in lists)
        findings.append(error("classes", f"the sources have different classes ({got})", "extract them to two stores"))
    files = {game: file for each in sets for game, file in each.label_files.items()}
    root = Path(os.path.commonpath([source.absolute() for source in sources])) if sources else Path()
    class_files = tuple(path for each in sets for path in each.class_files)
    classes = lists[0] if lists else ()
    return DataSet(root, tuple(matches.values()), classes, tuple(findings), files, class_files=class_files)


def _single(path: Path, *, with_labels: bool) -> DataSet:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{path}: not a video file", wanted=f"a folder, or one of {' '.join(VIDEO_SUFFIXES)}")
    class_file = classes_beside(labels_beside(path))
    if video_half(path.name):  # its labels are of both halves, and found with the folder
        match = Match(single_id(path), path, None, None, None)
        return DataSet(path.parent, (match,), (), (), {}, class_files=(class_file,))
    match = Match(single_id(path), path, _labels_of(path) if with_labels else None, None, None)
    tables = [path.with_suffix(suffix) for suffix in (".csv", ".tsv", ".json") if with_labels]
    [(match, _)], annotated = annotate([(match, None)], [table for table in tables if table.is_file()])
    files = dict(annotated.files)
    if match.labels is not None and not files:
        files[match.game] = read_label_file(match.labels, game=match.game)
    classes, about_classes = find_classes(class_file, files)
    findings = (*annotated.findings, *about_classes, *(each for file in files.values() for each in file.findings))
    return DataSet(path.parent, (match,), classes, findings, files, annotated.unread, (class_file,))


def _labels_of(video: Path) -> Path | None:
    """The label file that belongs to a video by its name, where there is one."""
    path = labels_beside(video)
    return path if path.is_file() else None


def _matches_in(folder: Folder, *, root: Path) -> tuple[list[Match], list[Finding]]:
    if not folder.videos and not folder.has_labels:
        return [], []
    if is_clip_folder(folder):
        clips = [folder.path / name for name in folder.videos]
        ids = [game_id(root, (*folder.parts, clip.stem)) for clip in clips]
        return [Match(id_, clip, _labels_of(clip), None, None) for id_, clip in zip(ids, clips, strict=True)], []
    game = game_id(root, folder.parts)
    chosen = choose_videos(folder)
    matches = [
        Match(
            game if half is None else f"{game}/{half}",
            video,
            folder.labels or (_labels_of(video) if video else None),
            None,
            half,
        )
        for half, video in chosen.by_half.items()
    ]
    problems = [Finding("error", game, *chosen.problem, about_video=True)] if chosen.problem else []
    return matches, problems


def _drop_duplicates(found: list[tuple[Match, Folder]]) -> tuple[list[tuple[Match, Folder]], list[Finding]]:
    """Keep the first of each id, without regard to case."""
    kept: dict[str, tuple[Match, Folder]] = {}
    findings = {}
    for match, folder in sorted(found, key=lambda pair: pair[0].id):
        first = kept.setdefault(match.id.casefold(), (match, folder))
        if first[0] is not match:
            places = " and ".join("/".join(each.parts) or ROOT_PLACE for each in (first[1], folder))
            message = f"the same match in two folders ({places})"
            findings[match.game, message] = error(match.game, message, "keep one of them")
    return list(kept.values()), list(findings.values())


def _with_splits(
    found: Sequence[tuple[Match, Folder]], *, root: Path, splits_file: Path | None, stated: Mapping[str, Split]
) -> tuple[list[Match], list[Finding]]:
    sources = [
        SplitSources(
            match.id, match.game, folder_splits(folder.parts) or frozenset(filter(None, [stated.get(match.game)]))
        )
        for match, folder in found
    ]
    splits, findings = assign_splits(root, sources, file=splits_file)
    return [replace(match, split=splits[match.id]) for match, _ in found], findings


def _about_all(matches: Sequence[Match], folders: Sequence[Folder]) -> list[Finding]:
    findings = _zips(matches, folders)
    if not matches:
        cure = "name the folder that holds <match>/<video>, or england_efl"
        findings.append(error(ROOT_PLACE, "no match: no folder with a video or Labels-ball.json", cure))
    findings += [
        note(game, f"no {LABELS_NAME}: no events to train on or to compare with", _WRITE_LABELS)
        for game in dict.fromkeys(m.game for m in matches if m.video and not m.labels and m.split != "challenge")
    ]
    other = [m for m in matches if m.video and m.video.stem.endswith(("224p", "720p")) and not _is(m, PREFERRED_HEIGHT)]
    if other and any(_is(match, PREFERRED_HEIGHT) for match in matches):
        message = f"{len(other)} match(es) without a {PREFERRED_HEIGHT}p video: another is read (first: {other[0].id})"
        findings.append(note(ROOT_PLACE, message, f"fetch the {PREFERRED_HEIGHT}p videos"))
    names = {match.game.rsplit("/", 1)[-1] for match in matches}
    missing = [game for game in SOCCERNET_BALL_SPLITS if game.rsplit("/", 1)[-1] not in names]
    if len(missing) < len(SOCCERNET_BALL_SPLITS):
        findings += [
            note(game, "SoccerNet game that is not here", "fetch it from SoccerNet/SN-BAS-2025 if you need it")
            for game in missing
        ]
    return findings


def _is(match: Match, height: int) -> bool:
    return match.video is not None and match.video.stem.lower().endswith(f"{height}p")


def _zips(matches: Sequence[Match], folders: Sequence[Folder]) -> list[Finding]:
    """Zip files that look as if they still hold matches."""
    have = {match.split for match in matches}
    make = note if matches else error
    findings = []
    for folder in folders:
        for name in folder.zips:
            split = split_named(Path(name).stem)
            if split and split not in have:
                cure = f"unzip {name} with the password from the SoccerNet agreement"
            elif not split and not matches:
                cure = f"unzip {name}"
            else:
                continue
            findings.append(make("/".join([*folder.parts, name]), "a zip file that was not unzipped", cure))
    return findings
