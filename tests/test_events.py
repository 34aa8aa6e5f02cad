import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bas.errors import InputError
from bas.events import (
    SOCCERNET_BALL_CLASSES,
    SOCCERNET_BALL_SPLITS,
    Event,
    TimeGrid,
    parse_event,
    read_events,
    read_labels,
    write_predictions,
)
from bas.files import read_json, write_json_atomic

RATES = st.one_of(
    st.sampled_from([Fraction(25), Fraction(25, 2), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(2)]),
    st.fractions(min_value=Fraction(1, 10), max_value=1000, max_denominator=2000),
)
FRAMES = st.integers(0, 10**7)
POSITIONS_MS = st.integers(0, 10**8)


@given(RATES, POSITIONS_MS)
def test_frame_is_the_one_on_screen(fps: Fraction, position_ms: int) -> None:
    frame = TimeGrid(fps).frame(position_ms)
    assert Fraction(frame) / fps <= Fraction(position_ms, 1000) < Fraction(frame + 1) / fps


@given(RATES, st.fractions(min_value=0, max_value=10**5, max_denominator=10**6))
def test_the_nearest_frame_is_at_most_half_a_frame_away(fps: Fraction, seconds: Fraction) -> None:
    grid = TimeGrid(fps)
    away = seconds - grid.seconds(grid.nearest(seconds))
    assert -1 / (2 * fps) < away <= 1 / (2 * fps)


@given(RATES, FRAMES)
def test_ms_is_the_first_inside_the_frame(fps: Fraction, frame: int) -> None:
    grid = TimeGrid(fps)
    assert grid.frame(grid.ms(frame)) == frame
    assert frame == 0 or grid.frame(grid.ms(frame) - 1) == frame - 1
    assert grid.seconds(frame) * fps == frame


@given(RATES, FRAMES)
def test_the_instant_lies_in_the_frame_and_far_frames_are_placed_in_their_middle(fps: Fraction, frame: int) -> None:
    grid = TimeGrid(fps)
    instant_ms = grid.instant_ms(frame)
    assert grid.frame(instant_ms) == frame
    if fps >= 5:
        assert instant_ms == grid.ms(frame)
        assert grid.judged == grid
    else:
        assert abs(instant_ms - 1000 * (frame + Fraction(1, 2)) / fps) < 1
        assert grid.judged == TimeGrid(Fraction(25))


def test_25_fps_is_exact_on_every_frame_of_two_hours() -> None:
    grid = TimeGrid(Fraction(25))
    frames = range(2 * 60 * 60 * 25)
    assert [grid.ms(frame) for frame in frames] == [40 * frame for frame in frames]
    assert all(grid.frame(40 * frame) == frame for frame in frames)


@pytest.mark.shared
def test_floats_are_one_frame_off_for_real_labels(shared_data: Path) -> None:
    grid = TimeGrid(Fraction(25))
    paths = sorted((shared_data / "snbas").rglob("Labels-ball.json"))
    positions_ms = [event.position_ms for path in paths for event in read_labels(path)]
    assert len(positions_ms) == 6849 + 1604
    assert all(grid.frame(position_ms) * 40 == position_ms for position_ms in positions_ms)
    off = [int(25 * (position_ms / 1000)) - grid.frame(position_ms) for position_ms in positions_ms]
    assert set(off) == {0, -1}
    assert 0.05 < off.count(-1) / len(off) < 0.07


@pytest.mark.parametrize(
    ("text", "fps"), [("25", 25), ("12.5", Fraction(25, 2)), ("30000/1001", Fraction(30000, 1001))]
)
def test_parse_rate(text: str, fps: Fraction) -> None:
    grid = TimeGrid.parse(text)
    assert grid.fps == fps
    assert TimeGrid.parse(str(grid)) == grid


@pytest.mark.parametrize("text", ["0", "-25", "1/0", "x", "", "nan", "inf"])
def test_bad_rate_says_what_is_wanted(text: str) -> None:
    with pytest.raises(InputError, match="wanted: a positive"):
        TimeGrid.parse(text)


def test_soccernet_constants() -> None:
    assert len(set(SOCCERNET_BALL_CLASSES)) == 12
    splits = list(SOCCERNET_BALL_SPLITS.values())
    assert [splits.count(split) for split in ("train", "valid", "test", "challenge")] == [4, 1, 2, 2]


EVENTS = st.builds(
    Event,
    position_ms=st.integers(0, 7_200_000),
    label=st.text(min_size=1, max_size=20),
    half=st.sampled_from([1, 2]),
    team=st.sampled_from(["home", "away", "not applicable"]),
    visible=st.booleans(),
)


@given(EVENTS)
def test_annotation_round_trip(event: Event) -> None:
    assert parse_event(json.loads(json.dumps(event.to_json())), where="here") == event


@given(EVENTS, st.floats(allow_nan=False, allow_infinity=False))
def test_prediction_round_trip(event: Event, confidence: float) -> None:
    prediction = Event(event.position_ms, event.label, event.half, confidence=confidence)
    assert parse_event(json.loads(json.dumps(prediction.to_json())), where="here") == prediction


def test_predictions_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "league" / "game" / "results_spotting.json"
    events = [
        Event(80, "PASS", 2, confidence=0.1),
        Event(4000, "DRIVE", confidence=1 / 3),
        Event(0, "A", confidence=0.0),
    ]
    write_predictions(path, events, url_local="league/game")
    assert read_events(path, key="predictions") == [events[2], events[1], events[0]]
    assert read_json(path)["UrlLocal"] == "league/game"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, [1])
    with pytest.raises(TypeError):
        write_json_atomic(path, [1, object()])
    assert path.read_text() == "[\n 1\n]\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("confidence", [0.93, "0.93", "9.3e-1"])
def test_confidence_is_a_number_or_a_string(confidence: float | str) -> None:
    record = {"label": "PASS", "position": 4000, "half": "2", "gameTime": "1 - 0:04", "confidence": confidence}
    assert parse_event(record, where="here") == Event(4000, "PASS", 2, confidence=0.93)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "no usable label"),
        ({"label": ""}, "no usable label"),
        ({"position": None}, "position"),
        ({"position": "4.5"}, "position"),
        ({"position": "-40"}, "position"),
        ({"position": True}, "position"),
        ({"confidence": "high"}, "confidence"),
        ({"confidence": "nan"}, "confidence"),
        ({"confidence": 10**400}, "confidence"),
        ({"confidence": []}, "confidence"),
    ],
)
def test_record_that_cannot_be_used_names_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"file: predictions\[3\].*{message}"):
        parse_event({"label": "PASS", "position": "40"} | change, where="file: predictions[3]")


@pytest.mark.parametrize("record", [None, [], "PASS", 3])
def test_record_that_is_no_object(record: object) -> None:
    with pytest.raises(InputError, match="not an object"):
        parse_event(record, where="here")


def test_official_reader_takes_our_predictions(tmp_path: Path) -> None:
    official = pytest.importorskip("SoccerNet.Evaluation.ActionSpotting")
    # 2 Hz and positions on its cells: there the official float arithmetic is exact
    events = [
        Event(500 * i, label, 1 + i % 2, confidence=(i + 1) / 20) for i, label in enumerate(SOCCERNET_BALL_CLASSES)
    ]
    path = tmp_path / "results_spotting.json"
    write_predictions(path, events, url_local="league/game")
    ids = {label: index for index, label in enumerate(SOCCERNET_BALL_CLASSES)}
    halves = official.predictions2vector(read_json(path), num_classes=12, framerate=2, EVENT_DICTIONARY=ids)
    found = {
        (int(cell), int(class_index), half, float(vector[cell, class_index]))
        for half, vector in enumerate(halves, start=1)
        for cell, class_index in zip(*(vector != -1).nonzero(), strict=True)
    }
    assert found == {(event.position_ms // 500, ids[event.label], event.half, event.confidence) for event in events}


def test_official_reader_takes_our_annotations() -> None:
    official = pytest.importorskip("SoccerNet.Evaluation.ActionSpotting")
    events = [Event(500, "PASS"), Event(61_000, "GOAL", half=2, visible=False)]
    ids = {label: index for index, label in enumerate(SOCCERNET_BALL_CLASSES)}
    labels = {"annotations": [event.to_json() for event in events]}
    first, second = official.label2vector(labels, num_classes=12, framerate=2, EVENT_DICTIONARY=ids)
    assert (first[1, ids["PASS"]], abs(first).sum()) == (1, 1)
    assert (second[122, ids["GOAL"]], abs(second).sum()) == (-1, 1)


@pytest.mark.parametrize("position", ["1_000", "+5", "-1", "4.0", "", "\u0664", None])
def test_a_position_that_is_not_plain_digits_is_refused(position: object) -> None:
    with pytest.raises(InputError, match="position is not usable"):
        parse_event({"label": "PASS", "position": position}, where="x")
