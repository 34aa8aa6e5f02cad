"""Writes predictions as FOOTPASS's JSON, which SoccerNet's player-centric challenge takes: one file of all games."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..eval.players import CLASSES, FPS, SIDES, game_of, read_rows
from ..events import Event, TimeGrid

CLASS_OF = {
    **{name: name for name in CLASSES},
    **{"HIGH PASS": "PASS", "PLAYER SUCCESSFUL TACKLE": "TACKLE", "BALL PLAYER BLOCK": "BLOCK"},
}
"""Label -> FOOTPASS's class; spots of all other labels are left out."""
_Cells = list[int | float]


def second_halves(path: Path) -> dict[str, int]:
    """Game -> first frame of its second half, from a file of the same games in this format."""
    halves = read_rows(path)
    return {game_of(half): int(min(rows)[0]) for half, rows in halves.items() if half.endswith("_H2") and rows}


def footpass_json(games: Mapping[str, Sequence[Event]], first_frames: Mapping[str, int]) -> str:
    """Spots of games as one document, in time order.

    Args:
        games: id, whose last part is FOOTPASS's name such as `game_18` -> its spots, all on the clock of one video.
        first_frames: game -> first frame of its second half.

    Raises:
        InputError: a game whose second half is not known, or a spot that names no side.
    """
    found: dict[str, list[_Cells]] = {}
    for game, events in games.items():
        name = game.rsplit("/", 1)[-1]
        if name not in first_frames:
            raise InputError(
                f"{game}: nobody says where its second half begins",
                got=", ".join(list(first_frames)[:3]) or "no games",
                wanted="a file of the same games",
                cure="--halves playbyplay_TAAD_val.json, or another file of FOOTPASS that holds them",
            )
        halves: tuple[list[_Cells], list[_Cells]] = [], []
        for event in sorted(events, key=lambda event: event.position_ms):
            if event.label in CLASS_OF:
                cells = _cells(event, game)
                halves[cells[0] >= first_frames[name]].append(cells)
        found |= {f"{name}_H{number}": rows for number, rows in enumerate(halves, 1)}
    return json.dumps({"keys": list(found), "events": found}) + "\n"


def _cells(event: Event, game: str) -> _Cells:
    """Frame, team, jersey (0 where nobody knows it), class, and for a prediction its confidence."""
    if event.team not in SIDES:
        raise InputError(
            f"{game}: a spot names no side",
            got=event.team or "no team",
            wanted=" or ".join(SIDES),
            cure="predict with a run of bas train-head --classes-by team, whose labels name left and right",
        )
    jersey = int(event.player) if event.player.isdecimal() and len(event.player) < 4 else 0
    frame, number = TimeGrid(FPS).frame(event.position_ms), CLASSES.index(CLASS_OF[event.label]) + 1
    return [frame, SIDES.index(event.team), jersey, number, *([] if event.confidence is None else [event.confidence])]
