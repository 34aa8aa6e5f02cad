"""F1 of events with their player: FOOTPASS's published predictions, and what is matched with what."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.errors import InputError
from bas.eval.players import evaluate_players

Cli = Callable[..., int]


def write(path: Path, **events: list[list[float]]) -> Path:
    path.write_text(json.dumps({"keys": list(events), "events": events}))
    return path


@pytest.mark.shared
def test_the_published_predictions_of_the_baseline(
    bas: Cli, capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    """Figures of FOOTPASS's own evaluation on the same two files."""
    files = [shared_data / "footpass" / name for name in ("playbyplay_val.json", "playbyplay_TAAD_val.json")]
    assert bas("eval", *files, "--metric", "players", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["total"]["num_events"] == 6070
    assert record["micro_f1"] == pytest.approx(0.410, abs=0.0005)
    assert bas("eval", *files, "--metric", "players") == 0
    assert "41.0" in capsys.readouterr().out


def test_the_surest_takes_the_nearest_free_event_of_its_player(tmp_path: Path) -> None:
    true = write(
        tmp_path / "true.json",
        a=[[100, 0, 7, 2, 1, 0], [110, 0, 7, 2, 1, 0], [300, 1, 9, 1, 0, 1]],
        b=[[5, 0, 1, 3, 1, 0]],
    )
    found: dict[str, Any] = {
        "a": [
            [111, 0, 7, 2, 0.5],  # takes 110, though it comes second by time
            [108, 0, 7, 2, 0.9],  # takes 110 first
            [100, 0, 8, 2, 0.9],  # another jersey
            [300, 0, 9, 1, 0.9],  # another team
            [313, 1, 9, 1, 0.9],  # 13 frames off
            [300, 1, 9, 1, 0.1],  # not sure enough
        ]
    }
    report = evaluate_players(true, write(tmp_path / "found.json", **found))
    passes = report.classes[1]
    assert (passes.num_events, passes.num_predictions, passes.num_right) == (2, 3, 2)
    assert (report.total.num_events, report.total.num_predictions, report.total.num_right) == (4, 5, 2)
    assert report.macro_f1 == pytest.approx((4 / 5 + 0 + 0) / 3)
    assert report.warnings == ("b: no predictions, all its events count as missed",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": []}', "no events of players"),
        ('{"events": {"a": [[1, 0, 7]]}}', r"a\[0\]: no event"),
        ('{"events": {"a": [[1, 0, 7, 9]]}}', r"a\[0\]: no event"),
        ('{"events": {"a": [[1, 0, 7, "PASS"]]}}', r"a\[0\]: no event"),
        ('{"events": {"z": []}}', "about none of these halves"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    true, found = write(tmp_path / "true.json", a=[[1, 0, 7, 1, 1, 0]]), tmp_path / "found.json"
    found.write_text(text)
    with pytest.raises(InputError, match=message):
        evaluate_players(true, found)
