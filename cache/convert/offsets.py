"""Where the second halves of games begin, by a JSON file: shared by the formats that hold a file per half."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ...errors import InputError
from ...events import TimeGrid
from ...files import read_json
from .tables import MAX_ROWS

OFFSETS_NAME = "expected_mAP_at1.json"
"""The published file that names the offset of each game, where it lies at the root."""
FRAMES_KEY = "half1_offset_frames"
_LIMITS = {FRAMES_KEY: MAX_ROWS, "half1_offset_ms": 24 * 3600 * 1000}


@dataclass(frozen=True)
class Offsets:
    """Where the second half begins, of games where a file names it."""

    name: str = ""
    """The file's name."""
    games: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Game id, or the last part of it -> key of the file -> offset."""

    def frames(self, match_id: str) -> int | None:
        """Row of frame 0 of the second half at 25 a second, None where the file does not name the match."""
        return self._of(match_id).get(FRAMES_KEY)

    def seconds(self, match_id: str) -> Fraction | None:
        """The same in seconds: milliseconds where they are named, else frames of a video of 25 a second."""
        ms, frames = self._of(match_id).get("half1_offset_ms"), self.frames(match_id)
        if ms is not None:
            return Fraction(ms, 1000)
        return None if frames is None else TimeGrid(Fraction(25)).seconds(frames)

    def _of(self, match_id: str) -> Mapping[str, int]:
        return self.games.get(match_id, self.games.get(match_id.rsplit("/", 1)[-1], {}))


def read_offsets(root: Path, file: Path | None, match_ids: Collection[str]) -> Offsets:
    """Offsets from `file`, else from `OFFSETS_NAME` at the root, else none.

    The file is `{"games": {GAME: {"half1_offset_frames": N}}}`; GAME is a match id or the last part of one, and N may
    stand in the place of the object. `half1_offset_ms` is read as well, for features.

    Raises:
        InputError: the file cannot be used, or `file` names none of the matches.
    """
    path = file or root / OFFSETS_NAME
    if file is None and not path.is_file():
        return Offsets()
    document = read_json(path)
    games = document.get("games") if isinstance(document, Mapping) else None
    if not isinstance(games, Mapping):
        wanted = f'{{"games": {{GAME: {{"{FRAMES_KEY}": N}}}}}}'
        raise InputError(f"{path}: no offsets", got=type(games).__name__, wanted=wanted)
    found = {}
    for game, entry in games.items():
        record = entry if isinstance(entry, Mapping) else {FRAMES_KEY: entry}
        found[game] = {key: record[key] for key in _LIMITS if record.get(key) is not None}
        for key, value in found[game].items():
            if type(value) is not int or not 1 <= value < _LIMITS[key]:
                what, wanted = f"{path}: {game}: offset is not usable", "a whole number >= 1"
                raise InputError(what, got=repr(value)[:80], wanted=wanted)
    offsets = Offsets(path.name, found)
    if file is not None and not any(offsets.seconds(match_id) is not None for match_id in match_ids):
        got, wanted = ", ".join(sorted(found)[:3]), ", ".join(sorted(match_ids)[:3])
        raise InputError(f"{path}: names no match at hand", got=got, wanted=wanted)
    return offsets
