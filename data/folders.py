"""Walks a data set's folders: which hold matches, what their ids are, which video of several is meant."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..events import SOCCERNET_BALL_SPLITS, SPLIT_NAMES, Split, split_named
from .labels import CLASSES_NAME, ROOT_PLACE, SPLITS_NAME, Finding, error

PREFERRED_HEIGHT = 224
"""Of several videos of a match: SoccerNet's 224p, which is decoded ten times as fast as 720p."""
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v"),
    *(".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ogv", ".mxf"),
)
LABELS_NAME = "Labels-ball.json"
_TABLE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".xml", ".xlsx")
"""Of files that annotation tools write."""
_KNOWN_TABLES = {
    *(LABELS_NAME, SPLITS_NAME, "proxy.json", "synthetic.json"),
    *("results_spotting.json", "prediction.json", "spots.csv"),
}
_KNOWN_VIDEO = re.compile(r"(?:([12])_)?(224|720)p", re.IGNORECASE)
_OFFICIAL_IDS = {game.rsplit("/", 1)[-1]: game for game in SOCCERNET_BALL_SPLITS}


@dataclass(frozen=True)
class Folder:
    """One folder that holds a video, labels, a zip file or what may be annotations."""

    path: Path
    parts: tuple[str, ...]
    """Folder names from the root (left out) down to this one; empty for the root."""
    videos: tuple[str, ...]
    """Names of the video files in it, sorted."""
    has_labels: bool
    zips: tuple[str, ...]
    """Names of the zip files in it, sorted."""
    unread: tuple[str, ...] = ()
    """Names of files in it that may be annotations, in a format that is not read, sorted."""

    @property
    def labels(self) -> Path | None:
        """Its `Labels-ball.json`, where there is one."""
        return self.path / LABELS_NAME if self.has_labels else None


@dataclass(frozen=True)
class GameVideos:
    """The videos chosen in one folder: key None for one file per match, 1 and 2 for one per half."""

    by_half: Mapping[int | None, Path | None]
    """None as a value where the video is missing."""
    problem: tuple[str, str] | None = None
    """Message and cure where a video is missing or the choice is not clear."""


def open_root(root: Path) -> Path:
    """`root`, if it can be a data set.

    Raises:
        InputError: missing, a file, or a feature store.
    """
    if not root.exists():
        what = "file" if root.suffix.lower() in VIDEO_SUFFIXES else "folder"
        raise InputError(f"{root}: no such {what}", wanted="a video, or the root of a data set", cure="check the path")
    if not root.is_dir():
        cure = "unzip it and name the folder" if root.suffix.lower() == ".zip" else f"name its folder: {root.parent}"
        raise InputError(f"{root}: not a folder", got="a file", wanted="the root of a data set", cure=cure)
    if (root / "zarr.json").exists():
        raise InputError(
            f"{root}: this is a feature store",
            got="a folder with zarr.json",
            wanted="a data set: folders with videos and labels",
            cure=f"bas cache info {root}",
        )
    return root


def walk(root: Path, *, holding: Collection[str] = ()) -> tuple[list[Folder], list[Finding]]:
    """Every folder at or below `root` with anything that a `Folder` names or a file of these names, in order of path.

    Follows links to folders, but never into a folder that it is already inside. Skips hidden names, `__MACOSX` and
    feature stores. Folders that cannot be read or named are findings.
    """
    folders: list[Folder] = []
    findings: list[Finding] = []
    for item in _visit(root, (), frozenset(), holding):
        if isinstance(item, Finding):
            findings.append(item)
        else:
            folders.append(item)
    return folders, findings


def _visit(
    path: Path, parts: tuple[str, ...], inside: frozenset[tuple[int, int]], holding: Collection[str]
) -> Iterator[Folder | Finding]:
    where = "/".join(parts) or ROOT_PLACE
    try:
        status = path.stat()
        with os.scandir(path) as scan:
            entries = sorted(
                (entry for entry in scan if not entry.name.startswith(".") and entry.name != "__MACOSX"),
                key=lambda entry: entry.name,
            )
    except OSError as reason:
        yield error(where, f"folder cannot be read ({reason.strerror})", "check its permissions")
        return
    key = (status.st_dev, status.st_ino)
    names = [entry.name for entry in entries]
    if key in inside or "zarr.json" in names:
        return
    files = [entry.name for entry in entries if entry.is_file()]
    videos = tuple(name for name in files if Path(name).suffix.lower() in VIDEO_SUFFIXES)
    zips = tuple(name for name in files if name.lower().endswith(".zip"))
    tables = [name for name in files if Path(name).suffix.lower() in _TABLE_SUFFIXES and name not in _KNOWN_TABLES]
    unread = tuple(name for name in tables if not name.endswith((f".{LABELS_NAME}", ".journal.jsonl")))
    if videos or zips or unread or any(name in files for name in (LABELS_NAME, *holding)):
        yield Folder(path, parts, videos, LABELS_NAME in files, zips, unread)
    for entry in entries:
        is_read = Path(entry.name).suffix.lower() in VIDEO_SUFFIXES or entry.name == LABELS_NAME
        if entry.is_dir() and not _is_storable(entry.name):
            cure = "rename it, in UTF-8, without control characters"
            yield error(where, f"{entry.name!r}: folder name is not text, left out", cure)
        if is_read and entry.is_symlink() and not Path(entry.path).exists():
            cure = "fetch the file, or repair the link"
            yield error(where, f"{entry.name!r}: a link to a file that does not exist", cure)
    for entry in entries:
        if entry.is_dir() and _is_storable(entry.name):
            yield from _visit(path / entry.name, (*parts, entry.name), inside | {key}, holding)


def _is_storable(name: str) -> bool:
    return all(unicodedata.category(character) not in ("Cc", "Cs") for character in name)


def game_id(root: Path, parts: Sequence[str]) -> str:
    """Id of the match in folder `parts` below `root`: forward slashes, NFC, wrapper folders left out.

    A SoccerNet game has its official id (`england_efl/...`) also where `root` lies below `england_efl`.
    """
    kept = _without_wrappers(parts) if parts else [root.resolve().name]
    name = unicodedata.normalize("NFC", "/".join(kept))
    official = _OFFICIAL_IDS.get(name.rsplit("/", 1)[-1])
    above = root.resolve().parts if parts else root.resolve().parts[:-1]
    full = "/".join([*_without_wrappers([*above, ""])[:-1], name])
    return official if official is not None and f"/{full}".endswith(f"/{official}") else name


def _without_wrappers(parts: Sequence[str]) -> list[str]:
    """The last name always stays: it is the match's own folder."""
    wrapper = re.compile(rf"(?:{'|'.join(SPLIT_NAMES)}|sn-bas-.*)", re.IGNORECASE)
    return [part for part in parts[:-1] if not wrapper.fullmatch(part)] + list(parts[-1:])


def folder_splits(parts: Sequence[str]) -> frozenset[Split]:
    """Splits that the names of the folders around a match folder say; more than one is a contradiction."""
    return frozenset(split for part in parts[:-1] if (split := split_named(part)))


def single_id(path: Path) -> str:
    """Id of a video file that is a source by itself: its stem, with the folder's name before one such as `224p`."""
    known = _KNOWN_VIDEO.fullmatch(path.stem)
    if known is None:
        return path.stem
    return f"{path.resolve().parent.name}/{known[1]}" if known[1] else path.resolve().parent.name


def labels_beside(video: Path) -> Path:
    """Label file of a video: `Labels-ball.json` beside one such as `224p.mp4`, else `NAME.Labels-ball.json`.

    A folder may hold many videos, each with labels of its own.
    """
    return video.with_name(LABELS_NAME if is_usual_name(video) else f"{video.stem}.{LABELS_NAME}")


def classes_beside(labels: Path) -> Path:
    """Class list of a label file: `NAME.classes.txt` of `NAME.Labels-ball.json`, else the folder's `classes.txt`."""
    own = labels.with_name(labels.name.removesuffix(LABELS_NAME) + CLASSES_NAME)
    folders = labels.with_name(CLASSES_NAME)
    return folders if folders.is_file() and not own.is_file() else own


def is_usual_name(video: Path) -> bool:
    """Whether a video is called as those of SoccerNet's matches are, such as `224p.mp4`: its folder names the match."""
    return bool(_KNOWN_VIDEO.fullmatch(video.stem))


def video_half(name: str) -> int | None:
    """1 or 2 for the video of a half, such as `1_720p.mkv`; None for any other name."""
    known = _KNOWN_VIDEO.fullmatch(Path(name).stem)
    return int(known[1]) if known and known[1] else None


def is_clip_folder(folder: Folder) -> bool:
    """Whether each video of the folder is a match of its own: several, no labels, and no name such as `224p.mp4`."""
    known = any(_KNOWN_VIDEO.fullmatch(Path(name).stem) for name in folder.videos)
    return len(folder.videos) > 1 and not folder.has_labels and not known


def choose_videos(folder: Folder) -> GameVideos:
    """Which of a folder's videos to read: `224p` and `720p` in order of preference, else the only one."""
    whole: dict[int, list[str]] = {}
    halves: dict[int, dict[int, list[str]]] = {}
    for name in folder.videos:
        if known := _KNOWN_VIDEO.fullmatch(Path(name).stem):
            heights = halves.setdefault(int(known[1]), {}) if known[1] else whole
            heights.setdefault(int(known[2]), []).append(name)
    names = ", ".join(folder.videos[:4]) + (f" and {len(folder.videos) - 4} more" if len(folder.videos) > 4 else "")
    if whole and halves:
        problem = f"one video per match and one per half in one folder ({names})"
        return GameVideos({None: None}, (problem, "keep the edition that the labels belong to"))
    if halves:
        return _choose_halves(folder, halves)
    if whole:
        chosen, problem_or_none = _choose(folder, whole, _preferred(whole))
        return GameVideos({None: chosen}, problem_or_none)
    if not folder.videos:
        cure = "put the video beside Labels-ball.json, as 224p.mp4 or 720p.mp4 (SoccerNet: needs its agreement)"
        return GameVideos({None: None}, ("labels, but no video", cure))
    if len(folder.videos) > 1:
        cure = "one folder per match; or name the one to use 224p.mp4; or give the files themselves as sources"
        return GameVideos({None: None}, (f"several videos, and none called 224p or 720p ({names})", cure))
    return GameVideos({None: folder.path / folder.videos[0]})


def _choose_halves(folder: Folder, halves: Mapping[int, Mapping[int, list[str]]]) -> GameVideos:
    shared = set(halves.get(1, {})) & set(halves.get(2, {}))
    by_half: dict[int | None, Path | None] = {}
    problem = None
    for half in (1, 2):
        heights = halves.get(half)
        if heights is None:
            by_half[half] = None
            problem = (
                f"half {half} has no video ({', '.join(folder.videos)})",
                f"fetch {half}_{PREFERRED_HEIGHT}p.mkv",
            )
        else:
            by_half[half], trouble = _choose(folder, heights, _preferred(shared or heights))
            problem = problem or trouble
    return GameVideos(by_half, problem)


def _preferred(heights: Mapping[int, object] | set[int]) -> int:
    return min(heights, key=lambda height: (height != PREFERRED_HEIGHT, height))


def _choose(
    folder: Folder, heights: Mapping[int, list[str]], height: int
) -> tuple[Path | None, tuple[str, str] | None]:
    names = heights[height]
    if len(names) > 1:
        return None, (f"the same video twice ({', '.join(names)})", "keep one of them")
    return folder.path / names[0], None
