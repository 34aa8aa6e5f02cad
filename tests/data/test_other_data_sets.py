"""SoccerTrack-v2's labels and FOOTPASS's JSON, each in its exact shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.data.sources import find_data_set
from bas.eval.players import CLASSES, SIDES, game_of, read_rows
from bas.eval.prediction_folder import PartSpots, PredictionFolder
from bas.events import SOCCERNET_BALL_CLASSES, Event, TimeGrid

Cli = Callable[..., int]
GRID = TimeGrid.parse("25")


def action(game_time: str, ms: int, label: str, **more: Any) -> dict[str, Any]:
    return {"gameTime": game_time, "label": label, "position": str(ms), "team": "left", "player_id": 7, **more}


ABSOLUTE = [
    action("1 - 00:01", 1160, "PASS"),
    action("1 - 46:40", 2_800_000, "HIGH PASS", team="right"),
    action("2 - 45:00", 2_700_760, "DRIVE"),
    action("2 - 44:59", 2_699_980, "OUT"),
    action("2 - 93:00", 5_580_000, "PLAYER SUCCESSFUL TACKLE"),
    action("95:01", 5_701_000, "PASS"),
    action("1 - 135:27", 8_127_000, "PASS"),
]
"""As in the released files: one clock, a third period without a video, and half names that do not fit."""
DOCUMENTED = [
    action("1 - 00:01", 1160, "Pass"),
    action("1 - 46:40", 2_800_000, "High Pass", team="right"),
    action("2 - 00:00", 760, "Drive"),
    action("2 - 00:00", 0, "Out"),
    action("2 - 48:00", 2_880_000, "Player Successful Tackle"),
]


@pytest.mark.parametrize(("key", "records"), [("actions", ABSOLUTE), ("annotations", DOCUMENTED)])
def test_labels_of_soccertrack_are_those_of_its_halves(tmp_path: Path, key: str, records: Any) -> None:
    for folder in ("videos/117092", "bas/117092"):
        (tmp_path / folder).mkdir(parents=True)
    for half in ("1st", "2nd"):
        (tmp_path / "videos" / "117092" / f"117092_panorama_{half}_half.mp4").touch()
    file = tmp_path / "bas" / "117092" / "117092_12_class_events.json"
    file.write_text(json.dumps({"UrlLocal": "", key: records}))
    data_set = find_data_set(tmp_path)
    first, second = data_set.matches
    assert data_set.classes == SOCCERNET_BALL_CLASSES
    assert data_set.events(first) == [
        Event(1160, "PASS", team="left", player="7"),
        Event(2_800_000, "HIGH PASS", team="right", player="7"),
    ]
    assert [(event.position_ms, event.label) for event in data_set.events(second) or ()] == [
        (0, "OUT"),
        (760, "DRIVE"),
        (2_880_000, "PLAYER SUCCESSFUL TACKLE"),
    ]


@pytest.mark.shared
def test_labels_of_footpass_are_those_of_its_games(shared_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "playbyplay_val.json"
    file.symlink_to((shared_data / "footpass" / file.name).resolve())
    for game in (18, 24, 47):
        (tmp_path / f"game_{game}.mp4").touch()
    data_set, rows = find_data_set(tmp_path), read_rows(file)
    assert set(data_set.classes) == set(CLASSES)
    assert sum(len(data_set.events(match) or ()) for match in data_set.matches) == 6070
    [first] = [match for match in data_set.matches if match.id == "game_18"]
    found = [
        (GRID.frame(each.position_ms), SIDES.index(each.team), int(each.player), CLASSES.index(each.label) + 1)
        for each in data_set.events(first) or ()
    ]
    assert sorted(found) == sorted(row[:4] for row in rows["game_18_H1"] + rows["game_18_H2"])


def prediction_folder(out: Path, rows: dict[str, Any]) -> None:
    """These predictions as `bas predict` would have written them."""
    games: dict[str, list[Event]] = {}
    for half, of_half in rows.items():
        games.setdefault(game_of(half), []).extend(
            Event(GRID.ms(frame), CLASSES[number - 1], team=SIDES[side], confidence=score, player=str(jersey))
            for frame, side, jersey, number, score in of_half
        )
    folder = PredictionFolder.open(out, made_with={}, about={}, games=games)
    for game, events in games.items():
        folder.write(game, [PartSpots(game, tuple(events))], {})


@pytest.mark.shared
def test_footpass_predictions_come_back_as_they_were(
    bas: Cli, capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path
) -> None:
    true, found = (shared_data / "footpass" / name for name in ("playbyplay_val.json", "playbyplay_TAAD_val.json"))
    prediction_folder(tmp_path / "predictions", read_rows(found))
    convert = ("data", "convert", tmp_path / "predictions", tmp_path / "out", "--format", "footpass")
    assert bas(*convert, "--halves", found) == 0
    made, wanted = json.loads((tmp_path / "out" / "footpass.json").read_text()), json.loads(found.read_text())
    assert made["keys"] == wanted["keys"]
    assert {half: sorted(rows) for half, rows in made["events"].items()} == {
        half: sorted(rows) for half, rows in wanted["events"].items()
    }
    capsys.readouterr()
    assert bas("eval", true, tmp_path / "out" / "footpass.json", "--metric", "players", "--json") == 0
    assert json.loads(capsys.readouterr().out)["total"]["num_right"] == 3822


HALVES = json.dumps({"keys": ["game_1_H2"], "events": {"game_1_H2": [[100, 0, 1, 1, 0.5]]}})


def test_footpass_takes_soccernets_classes_and_leaves_others_out(bas: Cli, tmp_path: Path) -> None:
    (tmp_path / "halves.json").write_text(HALVES)
    labels = ("HIGH PASS", "BALL PLAYER BLOCK", "GOAL")
    spots = tuple(Event(3960 + 40 * n, label, team="right", confidence=0.5) for n, label in enumerate(labels))
    folder = PredictionFolder.open(tmp_path / "p", made_with={}, about={}, games=["league/game_1"])
    folder.write("league/game_1", [PartSpots("league/game_1", spots)], {})
    convert = ("data", "convert", tmp_path / "p", tmp_path / "out", "--format", "footpass")
    assert bas(*convert, "--halves", tmp_path / "halves.json") == 0
    assert json.loads((tmp_path / "out" / "footpass.json").read_text()) == {
        "keys": ["game_1_H1", "game_1_H2"],
        "events": {"game_1_H1": [[99, 1, 0, 2, 0.5]], "game_1_H2": [[100, 1, 0, 8, 0.5]]},
    }


@pytest.mark.parametrize(
    ("team", "has_halves", "words"),
    [("", True, "a spot names no side"), ("left", False, "where its second half begins")],
)
def test_what_footpass_cannot_take_is_told(
    bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path, team: str, has_halves: bool, words: str
) -> None:
    (tmp_path / "halves.json").write_text(HALVES)
    folder = PredictionFolder.open(tmp_path / "p", made_with={}, about={}, games=["game_1"])
    folder.write("game_1", [PartSpots("game_1", (Event(0, "PASS", team=team, confidence=0.5),))], {})
    typed = ("--halves", tmp_path / "halves.json") if has_halves else ()
    assert bas("data", "convert", tmp_path / "p", tmp_path / "out", "--format", "footpass", *typed) == 2
    assert words in capsys.readouterr().err
