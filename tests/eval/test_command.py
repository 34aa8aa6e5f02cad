"""`bas eval` from files: equal to the package's own `evaluate` and to published scores; bad input ends with code 2."""

import json
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.eval.files import exact_frame, official_frame
from bas.events import SOCCERNET_BALL_CLASSES

Cli = Callable[..., int]
QUICK = ("--resamples", "0")
LABELS, PREDICTIONS = "Labels-ball.json", "results_spotting.json"


def write(path: Path, key: str, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"UrlLocal": "", key: records}))
    return path


def event(ms: int, label: str = "PASS", half: int = 1, **more: str) -> dict[str, str]:
    return {"gameTime": f"{half} - 00:00", "label": label, "position": str(ms), "visibility": "visible"} | more


def found(ms: int, score: float, label: str = "PASS", half: int = 1) -> dict[str, str]:
    return event(ms, label, half) | {"half": str(half), "confidence": str(score)}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two random games, both halves, in the file's own order (not by time), with unshown events."""
    generator = np.random.default_rng(5)
    for game in ("league/one", "league/two"):
        labels, predictions = [], []
        for _ in range(150):
            ms, label = int(generator.integers(0, 120_000)), str(generator.choice(SOCCERNET_BALL_CLASSES))
            half = int(generator.integers(1, 3))
            shown = str(generator.choice(["visible", "visible", "not shown"]))
            labels.append(event(ms, label, half, visibility=shown))
            late = max(0, ms + int(generator.normal(0, 300)))
            predictions.append(found(late, round(float(generator.random()), 2), label, half))
        write(tmp_path / "labels" / game / LABELS, "annotations", labels)
        write(tmp_path / "predictions" / game / PREDICTIONS, "predictions", predictions)
    return tmp_path / "labels", tmp_path / "predictions"


def result(bas: Cli, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert bas("eval", *arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("fps", "metric"), [(25, "at1"), (25, "tight"), (2, "at1"), (2, "loose")])
def test_files_score_as_in_the_packages_evaluate(
    bas: Cli, capsys: pytest.CaptureFixture[str], package: Any, folders: tuple[Path, Path], fps: int, metric: str
) -> None:
    dictionary = {label: index for index, label in enumerate(SOCCERNET_BALL_CLASSES)}
    package_input = {"prediction_file": PREDICTIONS, "label_files": LABELS, "dataset": None}
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = package.evaluate(
            *map(str, folders), **package_input, framerate=fps, metric=metric, EVENT_DICTIONARY=dictionary
        )
    ours = result(bas, capsys, *folders, "--fps", fps, "--metric", metric, *QUICK)
    assert ours["means"]["mAP-12"]["value"] == pytest.approx(wanted["a_mAP"], abs=1e-12)
    per_class = [row["score"]["value"] for row in ours["classes"]]
    np.testing.assert_allclose(per_class, wanted["a_mAP_per_class"], rtol=0, atol=1e-12)
    assert ours["means"]["mAP-10"]["value"] == pytest.approx(np.mean(per_class[:10]), abs=1e-12)
    assert ours["visible"] == pytest.approx(wanted["a_mAP_visible"], abs=1e-12)
    assert ours["unshown"] == pytest.approx(wanted["a_mAP_unshown"], abs=1e-12)


@pytest.mark.shared
def test_the_five_published_scores(
    bas: Cli, capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path
) -> None:
    root = shared_data / "snbas"
    as_pass = ("PASS", "HIGH PASS", "HEADER", "CROSS", "FREE KICK")
    published = json.loads((root / "expected_mAP_at1.json").read_text())["games"]
    assert len(published) == 5
    for game, wanted in published.items():
        folder = root / "england_efl" / "2019-2020" / game
        first_half_frames, records = wanted["half1_offset_frames"], []
        for record in json.loads((folder / LABELS).read_text())["annotations"]:
            ms, label = int(record["position"]), "PASS" if record["label"] in as_pass else record["label"]
            is_second = ms // 40 >= first_half_frames
            if label in ("PASS", "DRIVE"):
                records.append(event(ms - 40 * first_half_frames * is_second, label, 1 + is_second))
        labels = write(tmp_path / game / LABELS, "annotations", records)
        ours = result(bas, capsys, labels, folder / PREDICTIONS, "--classes", "PASS,DRIVE", *QUICK)
        assert ours["means"]["mAP"]["value"] == pytest.approx(wanted["published_mAP_at1"], abs=1e-9)
        for row in ours["classes"]:
            assert row["score"]["value"] == pytest.approx(wanted["published_per_class"][row["label"]], abs=1e-9)


def test_the_official_reader_is_one_frame_early_for_6_percent_of_labels() -> None:
    early = [exact_frame(ms, Fraction(25)) - official_frame(ms, Fraction(25)) for ms in range(0, 6_000_000, 40)]
    assert set(early) == {0, 1}
    assert np.mean(early) == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize("metric", ["at1", "tight", "e2e"])
def test_the_table_has_the_headline_intervals_and_chance(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path], metric: str
) -> None:
    assert bas("eval", *folders, "--metric", metric, "--resamples", 20) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.index("mAP-10") < text.index("mAP-12") < text.index("PASS") < text.index("GOAL")
    assert "95% of 20 resamples (seed 0)" in text
    assert "chance: random scores at random instants" in text
    assert "tolerance" in text or metric == "at1"


def test_intervals_hold_the_score_and_repeat(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path]
) -> None:
    ours = result(bas, capsys, *folders, "--metric", "at5", "--resamples", 100)
    assert ours == result(bas, capsys, *folders, "--metric", "at5", "--resamples", 100)
    for row in (*ours["means"].values(), *(each["score"] for each in ours["classes"])):
        assert row["low"] <= row["value"] + 0.1
        assert row["low"] <= row["high"]
    late = ours["timing"]
    assert abs(late["mean_ms"]) < 200 < late["std_ms"] < 900
    assert ours["timing_delta"] == "5 s"


def test_own_classes_are_averaged_over_all(bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    labels = write(
        tmp_path / "a" / LABELS, "annotations", [event(1000, "HIT"), event(9000, "HIT"), event(5000, "MISS")]
    )
    predictions = write(tmp_path / "b" / PREDICTIONS, "predictions", [found(1200, 0.9, "HIT"), found(9000, 0.8, "HIT")])
    ours = result(bas, capsys, labels, predictions, *QUICK)
    assert list(ours["means"]) == ["mAP"]
    assert ours["means"]["mAP"]["value"] == pytest.approx(0.5)
    assert ours["means"]["mAP"]["low"] is None
    assert ours["timing"] == {"num_matched": 2, "mean_ms": 100.0, "std_ms": 100.0, "median_abs_ms": 100.0}
    assert "no prediction of MISS" in ours["warnings"]


def test_a_data_set_of_ones_own_is_averaged_over_its_own_classes(
    bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def means(*more: object) -> tuple[list[str], dict[str, Any]]:
        document = result(bas, capsys, tmp_path / "labels", tmp_path / "predictions", *QUICK, *more)
        return [row["label"] for row in document["classes"]], document["means"]

    own, league = "derby", "league/2025-2026/2026-01-31 - Home - Away"
    for game in (own, league):
        write(tmp_path / "labels" / game / LABELS, "annotations", [event(1000, "DRIVE"), event(3000)])
        write(
            tmp_path / "predictions" / game / PREDICTIONS, "predictions", [found(1000, 0.9, "DRIVE"), found(3000, 0.9)]
        )
    assert list(means()[1]) == ["mAP-10", "mAP-12"]  # folders as SoccerNet's
    shutil.rmtree(tmp_path / "labels" / "league")
    names, mean = means()
    assert names == ["PASS", "DRIVE"]
    assert mean["mAP"]["value"] == 1
    assert bas("eval", tmp_path / "labels", tmp_path / "predictions", *QUICK) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "averaged over 2 classes: PASS, DRIVE" in said
    assert "averaged over the 2 labelled classes" in said
    (tmp_path / "labels" / "classes.txt").write_text("\n".join(SOCCERNET_BALL_CLASSES))
    assert list(means()[1]) == ["mAP-10", "mAP-12"]
    assert means("--classes", "PASS")[0] == ["PASS"]


def test_a_tolerance_of_ones_own(bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path / "labels/game" / LABELS, "annotations", [event(1000), event(5000)])
    write(tmp_path / "predictions/game" / PREDICTIONS, "predictions", [found(1240, 0.9), found(5320, 0.9)])
    both = (tmp_path / "labels", tmp_path / "predictions", *QUICK)
    plain, narrow = result(bas, capsys, *both), result(bas, capsys, *both, "--delta", "0.5")
    assert (plain["means"]["mAP"]["value"], plain["per_delta"]) == (1, {"1 s": 1})
    assert 0 < narrow["means"]["mAP"]["value"] < 1  # 6 frames of 25 a second either way; one is 6 late, one 8
    assert result(bas, capsys, *both, "--delta", "1") == plain | {
        "settings": {**plain["settings"], "deltas_seconds": ["1"]}
    }
    per_delta = result(bas, capsys, *both, "--delta", "0.5", "--delta", "1")["per_delta"]
    assert per_delta == {**narrow["per_delta"], "1 s": 1}
    for wrong in ("0", "-1", "nan", "wide"):
        assert bas("eval", *both, "--delta", wrong) == 2
    assert bas("eval", *both, "--metric", "e2e", "--delta", "1") == 2


def test_split_folders_and_deeper_roots_are_the_same_games(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path]
) -> None:
    labels, predictions = folders
    plain = result(bas, capsys, labels, predictions, *QUICK)
    (labels / "test").mkdir()
    (labels / "league").rename(labels / "test" / "league")
    again = result(bas, capsys, labels, predictions / "league", *QUICK)
    assert again["means"] == plain["means"]
    assert again["warnings"] == plain["warnings"]
    only_test = result(bas, capsys, labels, predictions, "--split", "test", *QUICK)
    assert only_test["means"] == plain["means"]
    assert bas("eval", labels, predictions, "--split", "train") == 2


def test_predictions_of_a_video_file_belong_to_the_game_that_the_video_is_of(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    labels, predictions = folders
    for game, video in (("one", "camera1.mp4"), ("two", "camera2.mp4")):
        (labels / "league" / game / video).touch()
    (tmp_path / "of file").mkdir()
    (predictions / "league/two").rename(tmp_path / "of file" / "camera2")
    right = result(bas, capsys, labels, tmp_path / "of file", *QUICK)
    (tmp_path / "of file" / "camera2").rename(tmp_path / "of file" / "two")
    assert result(bas, capsys, labels, tmp_path / "of file", *QUICK) == right
    assert "league/one" in right["warnings"][0]
    (tmp_path / "of file" / "two").rename(tmp_path / "of file" / "camera1")
    (labels / "league/two/camera2.mp4").rename(labels / "league/two/camera1.mp4")
    assert bas("eval", labels, tmp_path / "of file") == 2
    assert "not clear which game" in capsys.readouterr().err


def test_games_without_predictions_count_as_empty_and_are_named(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path]
) -> None:
    labels, predictions = folders
    plain = result(bas, capsys, labels, predictions, *QUICK)
    (predictions / "league" / "two").rename(predictions / "league" / "three")
    ours = result(bas, capsys, labels, predictions, *QUICK)
    assert ours["means"]["mAP-12"]["value"] < plain["means"]["mAP-12"]["value"]
    assert any("NO PREDICTIONS for 1 of 2 game(s)" in text and "league/two" in text for text in ours["warnings"])
    assert any("without labels, left out: league/three" in text for text in ours["warnings"])


def test_halves_on_one_side_only_other_classes_and_missing_scores_are_warned_of(
    bas: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = write(tmp_path / "a" / LABELS, "annotations", [event(1000), event(2_800_000), event(2000, "OUT")])
    scores = [found(1000, 0.9), found(1000, 0.8, half=2), found(1000, 0.7, "Pass"), event(8_000_000)]
    predictions = write(tmp_path / "b" / PREDICTIONS, "predictions", scores)
    text = " | ".join(result(bas, capsys, labels, predictions, "--classes", "PASS", *QUICK)["warnings"])
    assert "SECOND HALF only in" in text
    assert "events of classes that are not evaluated, left out: OUT (1)" in text
    assert "predictions of classes that are not in the list, left out: Pass (1)" in text
    assert "1 prediction(s) without a confidence count with score 1" in text
    assert "later than 120 minutes" in text


def test_calibration_is_reported(bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path]) -> None:
    assert bas("eval", *folders, "--calibrate", "rank", *QUICK) == 0
    assert "CALIBRATED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "at9"), "--metric"),
        (("--fps", "0"), "frame rate is not usable"),
        (("--calibrate", "often"), "--calibrate"),
        (("--split", "exam"), "--split is not known"),
        (("--resamples", "-1"), "resampling is not usable"),
        (("--classes", "A,A"), "class list is not usable"),
        (("--classes", ","), "class list is not usable"),
    ],
)
def test_bad_options_end_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path], arguments: tuple[str, ...], message: str
) -> None:
    assert bas("eval", *folders, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("predictions", "{", "not valid JSON"),
        ("predictions", '{"annotations": []}', "no list named 'predictions'"),
        ("predictions", '{"predictions": [{"label": "PASS", "position": "-40"}]}', "predictions[0]: position"),
        ("predictions", '{"predictions": [{"label": "PASS", "position": "99999999999999999999"}]}', "less than a day"),
        ("predictions", '{"predictions": [{"label": "PASS", "position": "0", "confidence": "nan"}]}', "not a number"),
        ("annotations", '{"annotations": [3]}', "annotations[0]"),
    ],
)
def test_bad_files_end_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path], key: str, text: str, message: str
) -> None:
    root, name = (folders[1], PREDICTIONS) if key == "predictions" else (folders[0], LABELS)
    (root / "league" / "one" / name).write_text(text)
    assert bas("eval", *folders) == 2
    assert message in capsys.readouterr().err


def test_missing_and_mixed_up_files_end_with_code_2(
    bas: Cli, capsys: pytest.CaptureFixture[str], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    labels, predictions = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "zipped.zip").write_bytes(b"")
    assert bas("eval", tmp_path / "nowhere", predictions) == 2
    assert bas("eval", labels, tmp_path / "nowhere") == 2
    assert bas("eval", labels, tmp_path / "empty") == 2
    assert bas("eval", tmp_path / "empty", predictions) == 2
    assert bas("eval", labels, tmp_path / "zipped.zip") == 2
    other = write(tmp_path / "other" / "game" / PREDICTIONS, "predictions", [found(1, 0.5)])
    capsys.readouterr()
    assert bas("eval", labels, other.parent.parent) == 2
    assert "no game has predictions" in capsys.readouterr().err
    write(predictions / "train" / "league" / "one" / PREDICTIONS, "predictions", [])
    assert bas("eval", labels, predictions) == 2
    assert "two prediction files for one game" in capsys.readouterr().err
