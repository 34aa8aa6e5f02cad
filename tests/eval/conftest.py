"""The SoccerNet package, and real confidences with their events."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.eval.spots import FloatArray, Spots


@pytest.fixture(scope="session")
def package() -> Any:
    """The module SoccerNet.Evaluation.ActionSpotting; skips loudly without it."""
    with np.errstate(), warnings.catch_warnings():  # the package switches numpy's warnings off for everybody
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "SoccerNet.Evaluation.ActionSpotting",
            reason="PARITY WITH THE OFFICIAL METRIC NOT TESTED: pip install SoccerNet",
        )


@pytest.fixture(scope="session")
def real_games(shared_data: Path) -> dict[str, list[tuple[FloatArray, Spots]]]:
    """Five games -> confidences (T, 2) and events of both halves: PASS and DRIVE; see expected_mAP_at1.json."""
    root = shared_data / "snbas"
    games = json.loads((root / "expected_mAP_at1.json").read_text())["games"]
    return {
        game: _real_halves(root / "england_efl" / "2019-2020" / game, published["half1_offset_frames"])
        for game, published in games.items()
    }


def _real_halves(folder: Path, first_half_frames: int) -> list[tuple[FloatArray, Spots]]:
    as_pass = ("PASS", "HIGH PASS", "HEADER", "CROSS", "FREE KICK")
    cells: list[list[tuple[int, int]]] = [[], []]
    for record in json.loads((folder / "Labels-ball.json").read_text())["annotations"]:
        frame, label = int(record["position"]) // 40, record["label"]
        if label == "DRIVE" or label in as_pass:
            is_second = frame >= first_half_frames
            cells[is_second].append((frame - first_half_frames * is_second, int(label == "DRIVE")))
    halves = []
    for half, found in enumerate(cells):
        with np.load(folder / f"{half + 1}_scores.npz") as file:
            scores = np.zeros((int(file["frame_indexes"][-1]) + 1, 2))
            scores[file["frame_indexes"]] = file["scores"]
        frames, classes = np.array(found).T
        halves.append((scores, Spots.collect(frames, classes, np.ones(len(found)), num_classes=2)))
    return halves
