"""The server answers the page, and nobody else."""

import io
import json
import re
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bas.data.exports import FORMATS
from bas.data.sources import find_sources
from bas.errors import InputError
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import open_video
from bas.heads.training.loop import train
from bas.heads.training.settings import TrainSettings
from bas.label.learn import LearnTask, Marked, learning_curve
from bas.label.options import LabelOptions
from bas.label.server import bound_server, files_app, label_app
from bas.label.session import Session, opened_session
from bas.report.make import ReportResult
from bas.report.page.data import PageMatch

from .conftest import PAGE, Visitor, labelling, put, running, served, true_spots


def test_a_stranger_can_neither_read_nor_write(workplace: Path) -> None:
    with labelling(workplace) as session, served(session) as visitor:
        change = {"changes": [put("a", 40, "PASS")]}
        stranger = Visitor(visitor.base + "/?token=wrong")
        for path in ("/", "/?token=wrong", "/api/page", "/video/0", "/api/export?match=0&format=csv"):
            assert stranger.ask(path)[0] == 403
        for headers in (
            {"Origin": "http://evil.example", "X_Bas": "label"},
            {"Origin": "null", "X_Bas": "label"},
            {"Host": "evil.example", "X_Bas": "label"},
            {"Sec_Fetch_Site": "cross-site", "X_Bas": "label"},
            {},  # a form of another site can send no header of its own
        ):
            assert visitor.ask("/api/match/0/changes", change, **headers)[0] == 403
        assert visitor.ask("/api/page", Host="evil.example:80")[0] == 403  # a name that was turned to this machine
        assert session.matches[0].document.seq == 0
        for path in ("/api/match/9", "/video/9"):
            assert visitor.ask(path)[0] in (404, 409)
        for path in ("/etc/passwd", "/video/../store.zarr/zarr.json", "/video/%2e%2e", "/m-train.mp4", "/api"):
            assert visitor.ask(path)[0] == 404
        status, _, headers = visitor.ask("/")
        assert status == 200
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert visitor.ask("/api/match/0/changes", {"changes": "x" * (9 << 20)}, X_Bas="label")[0] == 409


def test_a_video_answers_ranges(workplace: Path) -> None:
    whole = (workplace / "m-train.mp4").read_bytes()
    with labelling(workplace) as session, served(session) as visitor:
        status, part, headers = visitor.ask("/video/0", Range="bytes=1000-1999")
        assert (status, part, headers["Content-Range"]) == (206, whole[1000:2000], f"bytes 1000-1999/{len(whole)}")
        assert visitor.ask("/video/0")[1] == whole


def test_a_report_is_served_with_its_videos_and_nothing_else(tmp_path: Path) -> None:
    """Of `bas report --serve`: videos lie beside the page's folder, with names of any kind."""
    video, secret = tmp_path / "c & #{c}" / "224p.mp4", tmp_path / "secret.mp4"
    video.parent.mkdir()
    for path in (video, secret):
        path.write_bytes(bytes(range(256)))
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    page.write_text("<title>report</title>")
    matches = (PageMatch("c", 1.0, "../c%20%26%20%23%7Bc%7D/224p.mp4"), PageMatch("far", 1.0, "file:///etc/passwd"))
    made = ReportResult(page, (), 1, matches, ())
    with running(files_app(made.page, made.video_files)) as visitor:
        assert b"report" in visitor.ask("/")[1]
        assert visitor.ask("/c%20%26%20%23%7Bc%7D/224p.mp4", Range="bytes=5-6")[:2] == (206, b"\x05\x06")
        for address in ("/secret.mp4", "/../secret.mp4", "/etc/passwd", "/index.html"):
            assert visitor.ask(address)[0] == 404
        assert Visitor(visitor.base).ask("/")[0] == 403


def test_from_marks_to_proposals_and_back(workplace: Path) -> None:
    """Half of the pulses are marked; the heads propose the other half where they are."""
    spots = true_spots(workplace)
    half = len(spots) // 2
    with labelling(workplace) as session, served(session) as visitor:
        page, match = visitor.get("/api/page"), visitor.get("/api/match/0")
        assert page["classes"] == ["PASS", "DRIVE"]
        assert page["matches"][0]["video_problem"] == ""
        assert match["proposals"] is None
        assert match["items"] == {}
        assert "2 at least" in visitor.post("/api/train", {})["error"]
        assert visitor.post("/api/match/0/changes", {"changes": [put("x", 40, "NO SUCH")]})["status"] == 409
        marked = [put(f"s{n}", ms, label) for n, (ms, label) in enumerate(spots[:half])]
        end = spots[half][0] - 400
        marked.append({"id": "all", "before": None, "after": {"kind": "stretch", "from_ms": 0, "to_ms": end}})
        assert visitor.post("/api/match/0/changes", {"changes": marked}) == {"seq": 1}
        news = visitor.get("/api/news?match=0&since=0")
        assert news["seq"] == 1
        assert len(news["changes"]) == half + 1
        assert news["can_train"] == ""
        assert visitor.post("/api/train", {"match": 0}) == {}
        deadline = time.monotonic() + 60
        while (train := visitor.get("/api/news?match=0&since=1")["train"])["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert train["state"] == "idle"
        assert train["version"] == 1
        assert train["about"]["spots"] == half
        found = visitor.get("/api/match/0")["proposals"]
        sure = [
            (ms, page["classes"][c])
            for ms, c, conf in zip(found["ms"], found["cls"], found["conf"], strict=True)
            if conf > 0.3
        ]
        assert min(found["ms"]) >= end
        hits = [any(label == name and abs(ms - at) <= 120 for at, name in sure) for ms, label in spots[half:]]
        assert sum(hits) >= 0.9 * len(hits)
        assert len(sure) <= 1.3 * len(hits)
        status, curves, _ = visitor.ask("/api/match/0/curves?version=1")
        assert status == 200
        assert len(curves) == 2 * found["curve_rows"]
        assert visitor.post("/api/match/0/undo", {})["changes"][0]["after"] is None
    labels = json.loads((workplace / "m-train.Labels-ball.json").read_text())
    assert labels["annotations"] == []  # written at the end, with what was undone


def test_a_finished_run_proposes_to_begin_with(
    workplace: Path, pulse_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = pulse_store(tmp_path / "to-learn.zarr", num_rows=600)
    settings = TrainSettings(head="tcn", clip_len=25, hop_rows=9, batch=8, frames_per_epoch=8000, epochs=4, lr=3e-3)
    train(store, tmp_path / "run", settings, device="cpu")
    video, asked = workplace / "m-train.mp4", LabelOptions(classes=("OTHER",), person="anna")
    with opened_session([video], workplace / "store.zarr", asked, [tmp_path / "run"]) as session:
        assert session.classes == ["OTHER", "PASS", "DRIVE"]
        while session.training.state == "running":
            time.sleep(0.1)
        found = session.proposals["m-train"]
        proposed = list(zip(found.ms.tolist(), (session.classes[c] for c in found.classes), strict=True))
        hits = [
            any(label == name and abs(ms - at) <= 120 for at, name in proposed) for ms, label in true_spots(workplace)
        ]
        assert sum(hits) >= 0.9 * len(hits)
        assert session.matches[0].document.items == {}


def test_the_learning_curve_rises(workplace: Path) -> None:
    spots = tuple((ms, ("PASS", "DRIVE").index(label)) for ms, label in true_spots(workplace))
    marked = (Marked("m-train", spots, ((0, 60_000),), ()),)
    points = learning_curve(LearnTask(workplace / "store.zarr", ("PASS", "DRIVE"), marked, num_steps=30), print)
    assert [p["spots"] for p in points] == sorted({p["spots"] for p in points})
    assert points[-1]["map"] > max(0.7, points[0]["map"] - 0.05)
    assert all(0 <= p["low"] <= p["map"] <= p["high"] <= 1 for p in points)


def test_every_export_holds_the_spots_of_the_chosen_classes(workplace: Path) -> None:
    with labelling(workplace, classes=("PASS", "DRIVE", "=cmd<&>")) as session, served(session) as visitor:
        session.change(0, [put("a", 1234, "PASS"), put("b", 5000, "DRIVE"), put("c", 9000, "=cmd<&>")])
        for name in FORMATS:
            text = visitor.ask(f"/api/export?match=0&format={name}&classes=PASS,%3Dcmd%3C%26%3E")[1].decode()
            assert "PASS" in text
            assert "DRIVE" not in text
        assert ",'=cmd<&>" in text or "=cmd" in visitor.ask("/api/export?match=0&format=csv")[1].decode()
        assert "cmd<" not in visitor.ask("/api/export?match=0&format=vtt")[1].decode()
        chapters = visitor.ask("/api/export?match=0&format=ffmetadata")[1].decode()
        assert "START=1234\nEND=5000" in chapters
        assert "title=\\=cmd" in chapters
        assert visitor.ask("/api/export?match=0&format=exe")[0] == 409
        with zipfile.ZipFile(io.BytesIO(visitor.ask("/api/export?match=0&format=clips&classes=DRIVE")[1])) as archive:
            assert archive.namelist() == ["001-DRIVE-5000.mp4"]
            archive.extractall(workplace)
        assert (
            open_video(workplace / "001-DRIVE-5000.mp4", fps=None, picture=PictureFormat(width=16, height=16)).num_steps
            == 150
        )


def test_classes_are_added_ordered_and_renamed_with_their_spots(workplace: Path) -> None:
    with labelling(workplace) as session, served(session) as visitor:
        session.change(0, [put("a", 1000, "PASS")])
        assert visitor.post("/api/classes", {"classes": ["DRIVE"]})["status"] == 409
        assert visitor.post("/api/classes", {"classes": ["DRIVE", "PASS", "SHOT"]})["classes"] == [
            "DRIVE",
            "PASS",
            "SHOT",
        ]
        assert visitor.post("/api/classes", {"rename": ["PASS", "LONG PASS"]})["classes"][1] == "LONG PASS"
        assert session.matches[0].document.items["a"]["label"] == "LONG PASS"
    assert (workplace / "m-train.classes.txt").read_text().split("\n") == ["DRIVE", "LONG PASS", "SHOT", ""]
    (workplace / "other.mp4").write_bytes((workplace / "m-train.mp4").read_bytes())
    (workplace / "other.Labels-ball.json").write_text('{"annotations": [{"label": "JUMP", "position": "1000"}]}')
    with labelling(workplace, classes=()) as session:  # what is listed for one video binds no other of its folder
        assert session.classes == ["DRIVE", "LONG PASS", "SHOT"]
    assert find_sources([workplace / "other.mp4"]).classes == ("JUMP",)
    files = [workplace / name for name in ("m-train.mp4", "other.mp4")]
    assert {each.where for each in find_sources(files).findings if each.severity == "error"} == {"classes"}


def test_an_import_is_not_repeated_and_what_was_corrected_stays(workplace: Path) -> None:
    (workplace / "in.csv").write_text("1,PASS\n2,DRIVE\n3,PASS\n")
    with labelling(workplace) as session:
        session.take_in(workplace / "in.csv")
        items = session.matches[0].document.items
        first, second = sorted(items, key=lambda each: items[each]["ms"])[:2]
        session.change(0, [{"id": first, "before": items[first], "after": None}])
        session.change(0, [{"id": second, "before": items[second], "after": {**items[second], "ms": 2040}}])
    with labelling(workplace) as session:
        assert "0 new spot(s)" in session.take_in(workplace / "in.csv")[0]
        assert [item["ms"] for item in session.matches[0].document.of_kind("spot")] == [2040, 3000]
        (workplace / "empty.csv").write_text("")
        assert "no spot in it" in session.take_in(workplace / "empty.csv")[0]


def test_an_import_reaches_only_the_match_that_it_is_about(
    tmp_path: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos of a data set are all called 224p.mp4, and the labels that a match has from a CSV are there once."""
    monkeypatch.setattr(Session, "begin_extraction", lambda _: None)
    for name in ("a", "b"):
        clip = make_clip(f"{name}.mp4", num_frames=50, size=(64, 48))
        (tmp_path / "set" / name).mkdir(parents=True)
        clip.rename(tmp_path / "set" / name / "224p.mp4")
    (tmp_path / "set" / "a" / "marks.csv").write_text("video,seconds,label\n224p.mp4,1,PASS\n")
    (tmp_path / "in.csv").write_text("video,seconds,label\nb/224p.mp4,1.2,DRIVE\n")
    options = LabelOptions(classes=("PASS", "DRIVE"), person="anna")
    for round_number in range(2):
        with opened_session([tmp_path / "set"], tmp_path / "none.zarr", options) as session:
            session.take_in(tmp_path / "in.csv")
            spots = [
                [(item["ms"], item["label"]) for item in match.document.of_kind("spot")] for match in session.matches
            ]
            assert spots == [[(1000, "PASS")] if round_number == 0 else [], [(1200, "DRIVE")]]
            if round_number == 0:  # what was deleted does not come back
                (identity,) = session.matches[0].document.items
                session.change(
                    0, [{"id": identity, "before": session.matches[0].document.items[identity], "after": None}]
                )


def test_a_change_is_made_whatever_becomes_of_training(workplace: Path) -> None:
    with labelling(workplace, train_after=1) as session:
        session.curve.state = "running"  # training would be refused
        assert session.change(0, [put("a", 1000, "PASS"), put("b", 2000, "DRIVE")]) == 1
        session.curve.state = "idle"
        session._learned_classes = ("DRIVE", "PASS")
        session._heard(session.training, ("match", None))  # of another order of classes: dropped, not shown as theirs
        assert session.proposals == {}


def test_a_class_that_an_editor_adds_is_one_of_ours(workplace: Path) -> None:
    with labelling(workplace) as session:
        session.change(0, [put("a", 1000, "PASS")])
        session.matches[0].document.write_file()
        path = session.matches[0].document.path
        document = json.loads(path.read_text())
        document["annotations"].append({"label": "NEW", "position": "2000"})
        path.write_text(json.dumps(document))
        deadline = time.monotonic() + 10
        while "NEW" not in session.classes:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert any("changed by another program" in note for note in session.notes)
    assert (workplace / "m-train.classes.txt").read_text() == "PASS\nDRIVE\nNEW\n"


def test_a_page_that_is_open_goes_on_after_a_restart(workplace: Path, tmp_path: Path) -> None:
    key = tmp_path / "label" / "key.json"
    addresses = []
    for _ in range(2):
        with labelling(workplace) as session:
            _, listener, address = bound_server(label_app(session, PAGE), key=key)
            listener.close()
            addresses.append(address)
    assert addresses[0] == addresses[1]
    assert key.stat().st_mode & 0o077 == 0
    key.write_text('{"port": "x"}')
    with labelling(workplace) as session:
        _, listener, address = bound_server(label_app(session, PAGE), key=key)
        listener.close()
    assert address.split("token=")[1] != addresses[0].split("token=")[1]


@pytest.mark.parametrize("person", ["../x y", "a/b", ".", "x" * 61, "a\x1b"])
def test_a_name_that_cannot_be_of_a_file_is_refused(person: str) -> None:
    with pytest.raises(InputError, match="--person is not usable"):
        LabelOptions(person=person, own_file=True)


def test_two_people_who_label_blindly_are_compared(workplace: Path) -> None:
    stretch = {"id": "all", "before": None, "after": {"kind": "stretch", "from_ms": 0, "to_ms": 20_000}}
    with labelling(workplace, person="anna", own_file=True) as session:
        session.change(0, [stretch, put("a", 1000, "PASS"), put("b", 3000, "DRIVE"), put("c", 5000, "PASS")])
    with labelling(workplace, person="ben", own_file=True) as session, served(session) as visitor:
        assert session.matches[0].document.items == {}
        session.change(0, [stretch, put("a", 1040, "PASS"), put("b", 3000, "PASS"), put("d", 30_000, "PASS")])
        (found,) = visitor.get("/api/agreement?match=0")["people"]
    assert (found["a"], found["b"], found["seconds"], found["spots_a"], found["spots_b"]) == ("ben", "anna", 20.0, 2, 3)
    assert found["median_ms"] == 40
    assert -1 < found["kappa"] < 0.5


def test_the_address_is_no_secret_of_the_page(workplace: Path) -> None:
    """The token goes from the address into a cookie that scripts cannot read, and out of the address."""
    with labelling(workplace) as session, served(session) as visitor:

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                return None

        opener = urllib.request.build_opener(NoRedirect)
        with pytest.raises(urllib.error.HTTPError) as answer:
            opener.open(visitor.address)
        answer.value.close()
        cookie = answer.value.headers["Set-Cookie"]
        assert answer.value.code == 303
        assert answer.value.headers["Location"] == "/"
        assert "HttpOnly" in cookie
        assert re.search("samesite=strict", cookie, re.IGNORECASE)
