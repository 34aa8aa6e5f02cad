"""Team-mAP: SoccerNet's metric on joint classes, averaged as the Team Ball Action Spotting challenge did."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.eval.files import official_frame
from bas.eval.report import team_weights
from bas.events import Event, team_classes

SIDES = ("left", "right")
Cli = Callable[..., int]


def test_team_map_weighs_teams_by_events_and_actions_alike() -> None:
    """By hand: 3 of 4 passes are left; no drive has an event, so that action counts as 0."""
    weights = team_weights(np.array([3, 1, 0, 0]), 2)
    assert weights.tolist() == [0.375, 0.125, 0, 0]
    assert team_weights(np.array([5, 5, 1, 0]), 2) @ np.array([1.0, 0.0, 0.5, 0.0]) == 0.5


def test_team_map_is_that_of_the_challenge(
    bas: Cli, capsys: pytest.CaptureFixture[str], package: Any, tmp_path: Path
) -> None:
    """The challenge's own definition on SoccerNet's own average_mAP, over random events and predictions."""
    generator = np.random.default_rng(3)
    classes, size = team_classes(("PASS", "DRIVE", "SHOT"), SIDES), 3000
    grids = np.zeros((size, 6)), np.full((size, 6), -1.0), np.zeros((size, 6))
    events, found = [], []

    def on_grid(cell: int) -> int:
        return official_frame(40 * cell, Fraction(25))

    for number in range(200):
        cell, index = int(generator.integers(0, size)), int(generator.integers(0, 6)) if number > 6 else number % 6
        label, team = classes[index].rsplit("-", 1)
        late, score = min(size - 1, max(0, cell + int(generator.normal(0, 8)))), float(generator.random())
        other = team if generator.random() < 0.7 else SIDES[team == "left"]
        grids[0][on_grid(cell), index], grids[1][on_grid(late), classes.index(f"{label}-{other}")] = 1, score
        events.append(Event(40 * cell, label, team=team).to_json())
        found.append(Event(40 * late, label, team=other, confidence=score).to_json())
    (tmp_path / "Labels-ball.json").write_text(json.dumps({"annotations": events}))
    (tmp_path / "results_spotting.json").write_text(json.dumps({"predictions": found}))
    (tmp_path / "classes.txt").write_text("PASS\nDRIVE\nSHOT\n")
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = package.average_mAP(
            [grids[0]], [grids[1]], [np.ones((size, 6))], framerate=25, deltas=np.array([1])
        )[1]
    counts = grids[0].sum(axis=0)
    by_action = (per_class * counts).reshape(3, 2).sum(1) / counts.reshape(3, 2).sum(1)
    arguments = (tmp_path / "Labels-ball.json", tmp_path / "results_spotting.json", "--metric", "team", "--json")
    assert bas("eval", *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["means"]["Team-mAP"]["value"] == pytest.approx(by_action.mean(), abs=1e-12)
