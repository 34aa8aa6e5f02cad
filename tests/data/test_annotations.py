"""Spots of other programs: each format in its exact shape, and what is no spot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.cache.store import FeatureStore
from bas.data.annotations import Annotation, by_video, parse_time_ms, read_annotations
from bas.data.sources import find_data_set, find_sources
from bas.errors import InputError
from bas.events import Event, write_predictions

pytestmark = pytest.mark.usefixtures("known_graphs")
OSL = {
    "version": "2.0",
    "task": "action_spotting",
    "labels": {"action": {"type": "single_label", "labels": ["PASS", "SHOT"]}},
    "data": [
        {
            "id": "clip_1",
            "inputs": [{"type": "video", "path": "train/clip_1.mp4", "fps": 30.0}],
            "events": [
                {"head": "action", "label": "PASS", "position_ms": "2400"},
                {"head": "action", "label": "SHOT", "position_ms": 9000, "confidence": 0.7},
            ],
        },
        {"id": "clip_2", "inputs": [{"type": "video", "path": "train/clip_2.mp4"}], "events": []},
    ],
}
LABEL_STUDIO = [
    {
        "data": {"video": "/data/upload/3/0a1b2c3d-clip_1.mp4"},
        "annotations": [
            {
                "result": [
                    {
                        "type": "timelinelabels",
                        "value": {"ranges": [{"start": 61, "end": 61}], "timelinelabels": ["PASS"]},
                    },
                    {"type": "labels", "value": {"start": 9.0, "end": 9.0, "labels": ["SHOT"]}},
                ]
            }
        ],
    }
]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><source>clip_1.mp4</source></job></meta>
<track id="0" label="PASS" source="manual">
  <box frame="60" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0"></box>
  <box frame="61" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0"></box>
</track>
<image id="225" name="frame_000225"><tag label="SHOT" source="manual"></tag></image>
</annotations>"""


@pytest.mark.parametrize(
    ("name", "text", "format_name"),
    [
        ("a.csv", "time,label\n2.4,PASS\n0:09,SHOT\n", "CSV"),
        ("a.csv", "\ufeffSeconds;Event;Team\r\n2,4;PASS;home\r\n9;SHOT;\r\n", "CSV"),
        ("a.csv", "0:02.40,PASS\n00:00:09,SHOT\n", "CSV"),
        ("a.tsv", "clip_1.mp4\t2.4\tPASS\nclip_1.mp4\t9\tSHOT\n", "CSV"),
        ("a.csv", "video,position_ms,label\nclip_1.mp4,2400,PASS\nclip_1.mp4,9000,SHOT\n", "CSV"),
        ("a.json", json.dumps(OSL), "OSL JSON"),
        (
            "a.json",
            json.dumps({"annotations": [{"label": "PASS", "position": "2400"}, {"label": "SHOT", "position": 9000}]}),
            "SoccerNet JSON",
        ),
    ],
)
def test_times(tmp_path: Path, name: str, text: str, format_name: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    found_format, found = read_annotations(path)
    assert found_format == format_name
    assert [(each.ms, each.label) for each in found] == [(2400, "PASS"), (9000, "SHOT")]
    assert by_video(path, found, [Path("videos/clip_1.mp4")]) == [found]


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.json", json.dumps(LABEL_STUDIO), [(None, 60), (9000, None)]),
        ("a.xml", CVAT, [(None, 60), (None, 225)]),
        ("a.csv", "frame,label\n60,PASS\n225,SHOT\n", [(None, 60), (None, 225)]),
    ],
)
def test_frames(tmp_path: Path, name: str, text: str, places: list[tuple[int | None, int | None]]) -> None:
    path = tmp_path / name
    path.write_text(text)
    _, found = read_annotations(path)
    assert [(each.ms, each.frame) for each in found] == places
    assert [each.label for each in found] == ["PASS", "SHOT"]
    assert by_video(path, found, [Path("CLIP_1.mp4")]) == [found]
    assert by_video(path, [each for each in found if each.video], [Path("clip_2.mp4")]) == [[]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "time,label\n2.4,PASS\nlater,SHOT\n", "line 3: no spot"),
        ("a.csv", "time,label\n-1,PASS\n", "line 2: no spot"),
        ("a.csv", "time,label\n3,\n", "line 2: no spot"),
        ("a.csv", "frame,label\n2.5,PASS\n", "line 2: no spot"),
        ("a.json", '{"shapes": []}', "not known"),
        ("a.json", "[1, 2]", "not known"),
        ("a.json", '[{"data": {"video": "a.mp4"}, "annotations": [{"result": [{"value": {"timelinelabels": ["A"], '
         '"ranges": [{"start": 0}]}}]}]}]', "no usable frame"),
        ("a.json", json.dumps(OSL).replace('"2400"', '"soon"'), r"events\[0\]: position"),
        ("a.xml", "<annotations><track", "not valid XML"),
        ("a.xml", "<html></html>", "not from CVAT"),
        ("a.xml", '<annotations><tag label="A" frame="x"/></annotations>', "no usable frame"),
    ],
)  # fmt: skip
def test_what_is_no_spot_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotations(path)


def test_clocks() -> None:
    times = {"83.5": 83_500, "1:23.5": 83_500, "1:01:23,5": 3_683_500, "90:00": 5_400_000, "0": 0}
    assert {text: parse_time_ms(text) for text in times} == times
    assert [parse_time_ms(text) for text in ("", "1:2:3:4", "1e9", "-3", "999999999", "٣")] == [None] * 6


def test_spots_without_a_video_belong_to_the_only_one() -> None:
    found = [Annotation("PASS", "", ms=1), Annotation("PASS", "other.mp4", ms=2)]
    file, mine, other = Path("x/spots.csv"), Path("x/mine.mp4"), Path("y/other.mp4")
    assert by_video(file, found, [mine]) == [found[:1]]
    assert by_video(file, found, [mine, other]) == [found[:1], found[1:]]  # it lies beside mine
    assert by_video(file, found, [mine, Path("x/third.mp4")]) == [[], []]
    assert by_video(Path("x/mine.csv"), found, [mine, Path("x/third.mp4")]) == [found[:1], []]


def test_they_begin_a_session_of_labelling(
    bas: Callable[..., int],
    tmp_path: Path,
    make_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`bas label --import`: frames become the times of the video's own frames, new labels become classes."""
    from bas.label import server, session

    monkeypatch.setattr(server, "serve", lambda *_args, **_options: None)
    monkeypatch.setattr(session.Session, "begin_extraction", lambda _self: None)
    video = make_clip("clip_1.mp4", num_frames=60, pts=[512 * n + (256 if n > 30 else 0) for n in range(60)])
    (tmp_path / "spots.csv").write_text("frame,label\n20,PASS\n40,SHOT\n")
    for _ in range(2):  # the second time there is nothing new
        assert bas("label", video, "--import", tmp_path / "spots.csv", "--classes", "PASS", "--no-browser") == 0
        found: dict[str, Any] = json.loads((tmp_path / "clip_1.Labels-ball.json").read_text())
        assert [(each["position"], each["label"]) for each in found["annotations"]] == [
            ("800", "PASS"),
            ("1620", "SHOT"),
        ]
    assert (tmp_path / "clip_1.classes.txt").read_text() == "PASS\nSHOT\n"
    assert "2 new spot(s)" in capsys.readouterr().out
    assert bas("label", video, "--import", tmp_path / "nothing.csv") == 2


SMALL = ("--backbone", "x3d_xs", "--weights", "none", "--size", "64x36", "--window", 8, "--hop", 8, "-q")


@pytest.fixture
def spots(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """Three videos, without labels."""
    for name in ("clip_1", "clip_2", "clip_3"):
        make_clip(f"{name}.mp4", num_frames=250, size=(64, 48))
    return tmp_path


def events_of(root: Path) -> dict[str, tuple[str | None, list[tuple[int, str, str]]]]:
    """Match -> (split, events)."""
    data_set = find_data_set(root)
    data_set.raise_errors()
    return {
        match.id: (match.split, [(e.position_ms, e.label, e.team) for e in data_set.events(match) or []])
        for match in data_set.matches
    }


def test_osl_files_by_split_are_a_data_set(spots: Path) -> None:
    (spots / "train.json").write_text(json.dumps(OSL))
    test = {"data": [{"inputs": [{"path": "clip_3.mp4"}], "events": [{"label": "PASS", "position_ms": 40}]}]}
    (spots / "val.json").write_text(json.dumps(test))
    assert events_of(spots) == {
        "clip_1": ("train", [(2400, "PASS", ""), (9000, "SHOT", "")]),
        "clip_2": (None, []),
        "clip_3": ("valid", [(40, "PASS", "")]),
    }


def test_csv_beside_each_video_or_one_for_all(spots: Path) -> None:
    (spots / "clip_1.csv").write_text("0:02.4;PASS;home\n9;SHOT;away\n")
    (spots / "all.csv").write_text("file,seconds,label\nclip_2.mp4,1,PASS\n")
    (spots / "tracking.csv").write_text("frame,x,y,class\n1,20,30,ball\n")  # of frames: noted as not read
    (spots / "players.csv").write_bytes("name;age\nMüller;30\n".encode("latin-1"))
    (spots / "broken.json").write_text("{")
    assert events_of(spots) == {
        "clip_1": (None, [(2400, "PASS", "home"), (9000, "SHOT", "away")]),
        "clip_2": (None, [(1000, "PASS", "")]),
        "clip_3": (None, []),
    }
    assert {path.name for path in find_data_set(spots).unread} == {"tracking.csv", "players.csv", "broken.json"}
    single = find_sources([spots / "clip_1.mp4"])
    assert [event.label for event in single.events(single.matches[0]) or []] == ["PASS", "SHOT"]
    (spots / "more.csv").write_text("file,seconds,label\nvideos/clip_1.mp4,5,OUT\n")
    with pytest.raises(InputError, match="two files hold its spots"):
        events_of(spots)
    (spots / "more.csv").unlink()
    (spots / "clip_1.csv").write_text("time,label\n2.4,PASS\nlater,SHOT\n")
    with pytest.raises(InputError, match="line 3: no spot"):
        events_of(spots)


def test_a_file_about_224p_is_about_no_other_match(spots: Path) -> None:
    for name in ("a", "b", "c"):
        (spots / name).mkdir()
        (spots / f"clip_{'abc'.index(name) + 1}.mp4").rename(spots / name / "224p.mp4")
    (spots / "a" / "marks.csv").write_text("video,seconds,label\n224p.mp4,1,PASS\n")
    (spots / "all.csv").write_text("video,seconds,label\nb/224p.mp4,2,PASS\n224p.mp4,3,PASS\n")
    found = events_of(spots)
    assert {match: events for match, (_, events) in found.items()} == {
        "a": [(1000, "PASS", "")],
        "b": [(2000, "PASS", "")],
        "c": [],
    }


def test_the_store_follows_the_labels_and_keeps_its_rows(bas: Callable[..., int], spots: Path) -> None:
    video, store = spots / "clip_1.mp4", spots / "s.zarr"
    assert bas("extract", video, "--out", store, *SMALL) == 0
    rows = (store / "clip_1" / "features" / "identity" / "c" / "0" / "0").read_bytes()
    assert FeatureStore.open(store).match("clip_1").meta.events() is None
    (spots / "clip_1.csv").write_text("2,PASS\n4,SHOT\n")
    for _ in range(2):
        assert bas("extract", video, "--out", store, *SMALL) == 0
        events = FeatureStore.open(store).match("clip_1").meta.events() or []
        assert [(event.position_ms, event.label) for event in events] == [(2000, "PASS"), (4000, "SHOT")]
    (spots / "clip_1.csv").write_text("2,PASS\n")
    assert bas("extract", video, "--out", store, "-q") == 0  # no weights are asked for where all rows are there
    assert len(FeatureStore.open(store).match("clip_1").meta.events() or []) == 1
    assert (store / "clip_1" / "features" / "identity" / "c" / "0" / "0").read_bytes() == rows
    assert bas("cache", "verify", store) == 0


def test_labels_of_ours_come_before_those_of_others(spots: Path) -> None:
    (spots / "clip_1.csv").write_text("2.4,PASS\n")
    (spots / "clip_1.Labels-ball.json").write_text('{"annotations": [{"label": "OUT", "position": "80"}]}')
    assert events_of(spots)["clip_1"] == (None, [(80, "OUT", "")])
    assert any("two files hold its spots" in finding.message for finding in find_data_set(spots).findings)


def test_from_csv_to_a_figure(bas: Callable[..., int], spots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bas extract` keeps them in the store, and `bas eval` judges by them."""
    for name in ("clip_1", "clip_2", "clip_3"):
        (spots / f"{name}.csv").write_text("time,label\n2,PASS\n4,SHOT\n")
    assert bas("data", "check", spots) == 0
    assert "6" in capsys.readouterr().out
    assert bas("extract", spots, "--out", spots / "s.zarr", *SMALL) == 0
    assert len(FeatureStore.open(spots / "s.zarr").matches()) == 3
    events = [Event(ms, label, confidence=0.9) for ms, label in ((2000, "PASS"), (4000, "SHOT"))]
    for name in ("clip_1", "clip_2", "clip_3"):
        write_predictions(spots / "found" / name / "results_spotting.json", events, url_local=name)
    capsys.readouterr()
    for labels in (spots, spots / "s.zarr"):
        assert bas("eval", labels, spots / "found", "--json") == 0
        assert json.loads(capsys.readouterr().out)["means"]["mAP"]["value"] == 1.0


@pytest.mark.parametrize(
    ("name", "format_name"), [("csv", "CSV"), ("osl", "OSL JSON"), ("soccernet", "SoccerNet JSON")]
)
def test_what_is_written_is_read_again(bas: Callable[..., int], spots: Path, name: str, format_name: str) -> None:
    (spots / "clip_1.csv").write_text("2.4,PASS\n9,SHOT\n")
    assert bas("data", "convert", spots, spots / "out", "--format", name) == 0
    (path,) = (spots / "out").iterdir()
    found_format, found = read_annotations(path)
    assert found_format == format_name
    (own,) = by_video(path, found, [spots / "clip_1.mp4"])
    assert [(each.ms, each.label) for each in own] == [(2400, "PASS"), (9000, "SHOT")]


def test_predictions_are_converted_with_their_confidence(bas: Callable[..., int], tmp_path: Path) -> None:
    write_predictions(
        tmp_path / "p" / "a" / "results_spotting.json", [Event(80, "PASS", confidence=0.25)], url_local="a"
    )
    (tmp_path / "p" / "prediction.json").write_text("{}")
    assert bas("data", "convert", tmp_path / "p", tmp_path / "out", "--format", "osl") == 0
    document = json.loads((tmp_path / "out" / "a-osl.json").read_text())
    assert document["data"][0]["events"] == [
        {"head": "action", "label": "PASS", "position_ms": "80", "confidence": 0.25}
    ]
    assert bas("data", "convert", tmp_path / "gone", tmp_path / "out", "--format", "osl") == 2
