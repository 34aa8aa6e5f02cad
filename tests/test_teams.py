"""Joint classes of label and team: learnt, mirrored with the picture, predicted, and scored as SoccerNet's Team-mAP."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bas.cache.bank import open_bank
from bas.cache.store import FeatureStore
from bas.events import Event, read_events, teams_of
from bas.heads.targets import clip_targets, stack_targets
from bas.heads.training.checkpoint import RunRecord
from bas.heads.training.data import Examples, choose_matches
from bas.heads.training.settings import TrainSettings
from bas.label.learn import LearnTask, Marked, propose_by_runs

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SIDES = ("left", "right")
JOINT = ("PASS-left", "PASS-right", "DRIVE-left", "DRIVE-right")
LEARN = (
    *("--head", "fc", "--clip-len", 20, "--stride", 1, "--hop", 5, "--frames-per-epoch", 6000, "--lr", 0.01),
    *("--epochs", 3, "--device", "cpu"),
)


@pytest.fixture(scope="module")
def teams_store(pulse_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pulse_store(tmp_path_factory.mktemp("teams") / "s.zarr", num_rows=1500, teams=SIDES)


def test_mirrored_views_teach_the_other_team(bas: Cli, capsys: Capture, teams_store: Path, tmp_path: Path) -> None:
    """Were the labels of mirrored rows left as they are, half of what is taught about teams would be wrong."""
    run, out = tmp_path / "run", tmp_path / "out"
    assert (
        bas("train-head", teams_store, "--out", run, "--classes-by", "team", "--views", "identity,hflip", *LEARN) == 0
    )
    record = RunRecord.read(run)
    assert (record.classes, record.teams) == (JOINT, SIDES)
    assert record.labels == (("PASS", "left"), ("PASS", "right"), ("DRIVE", "left"), ("DRIVE", "right"))
    assert bas("predict", teams_store, "--split", "test", "--run", run, "--out", out) == 0
    assert bas("predict", teams_store, "--run", run, "--out", tmp_path / "x", "--views", "identity,hflip") == 2
    capsys.readouterr()
    assert bas("eval", teams_store, out, "--split", "test", "--metric", "team", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in report["classes"]] == list(JOINT)
    assert report["means"]["Team-mAP"]["value"] > 0.9
    found = read_events(out / "m-test" / "results_spotting.json", key="predictions")
    assert {(event.label, event.team) for event in found} == set(record.labels)
    sureness = [(event.position_ms, event.confidence or 0.0) for event in found]
    assert all(one <= two for one, two in pairwise(sureness))
    task = LearnTask(teams_store, ("DRIVE", "PASS"), (Marked("m-test", (), (), ()),), runs=(run,))
    told: list[tuple[str, Any]] = []
    propose_by_runs(task, told.append)
    [proposals] = [each for kind, each in told if kind == "match"]
    assert set(proposals.classes.tolist()) == {0, 1}
    table = (out / "m-test" / "spots.csv").read_text().splitlines()
    assert table[0] == "match,seconds,time,label,confidence,team"
    assert table[1].split(",")[-1] in SIDES


@pytest.mark.parametrize("teams", [SIDES, ("away", "home")])
def test_only_left_and_right_change_places(pulse_store: Callable[..., Path], tmp_path: Path, teams: Any) -> None:
    store = FeatureStore.open(pulse_store(tmp_path / "s", teams=teams))
    chosen = choose_matches(store, is_by_team=True)
    settings = TrainSettings(
        clip_len=20, stride=1, hop_rows=5, views=("identity", "hflip"), frames_per_epoch=20 * 4 * 8
    )
    bank = open_bank(store, chosen.ids, views=settings.views)
    seen = set()
    for batch in Examples.of(chosen, bank, settings).epoch(0):
        for features_tc, class_t in zip(batch.features_btc, batch.targets.class_bt, strict=True):
            for step in class_t.nonzero().flatten().tolist():
                team = (int(class_t[step]) - 1) % 2
                is_agreed = bool(features_tc[step, 2 + team] > 1)
                seen.add(is_agreed)
    assert seen == ({True} if teams == SIDES else {True, False})  # home is home in a mirrored picture, too


def test_mirrored_targets_are_those_of_mirrored_events() -> None:
    swapped = (1, 0, 3, 2)
    events = [(2, 1), (7, 4), (12, 3)]
    plain, wanted = (
        clip_targets(
            [(step, (class_id if not index else swapped[class_id - 1] + 1)) for step, class_id in events],
            num_steps=15,
            num_classes=4,
        )[0]
        for index in (0, 1)
    )
    both = stack_targets([plain, plain]).mirrored(swapped, torch.tensor([False, True]))
    for clip, right in enumerate((plain, wanted)):
        for name, tensor in vars(both).items():
            assert torch.equal(tensor[clip], getattr(right, name)), name


def test_left_and_right_come_together() -> None:
    assert teams_of([Event(0, "PASS", team="left"), Event(1, "PASS", team="not applicable")]) == SIDES
    assert teams_of([Event(0, "PASS", team="home"), Event(1, "PASS")]) == ("home",)


def test_what_names_no_team_is_told(
    bas: Cli, capsys: Capture, teams_store: Path, pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    plain = pulse_store(tmp_path / "s")
    assert bas("train-head", plain, "--out", tmp_path / "run", "--classes-by", "team", *LEARN) == 2
    assert "no label names a team" in capsys.readouterr().err
    mirrored = ("--classes-by", "team", "--views", "hflip,identity")
    assert bas("train-head", teams_store, "--out", tmp_path / "run", *mirrored, *LEARN) == 2
    assert "another view before hflip" in capsys.readouterr().err
    found = [Event(40, "PASS", confidence=0.5).to_json()]
    (tmp_path / "results_spotting.json").write_text(json.dumps({"predictions": found}))
    for labels, words in ((plain, "no label names a team"), (teams_store, "no prediction is of a team")):
        one = ("eval", labels, tmp_path / "results_spotting.json", "--metric", "team")
        assert bas(*one, "--split", "test") == 2
        assert words in capsys.readouterr().err
