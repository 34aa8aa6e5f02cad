"""Nothing that was confirmed is lost: kills, torn lines, other programs, two people."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bas.errors import InputError
from bas.label.document import Conflict, Document, journal_of

CHILD = """
import sys
from pathlib import Path
from bas.label.document import Document
document = Document.open(Path(sys.argv[1]))
for number in range(100_000):
    item = {"kind": "spot", "ms": 40 * number, "label": "PASS"}
    document.change([{"id": f"s{number}", "before": None, "after": item}], by="anna")
    print(number, flush=True)
    if number % 7 == 0:
        document.write_file()
"""


def spot(ms: int, label: str = "PASS") -> dict[str, Any]:
    return {"kind": "spot", "ms": ms, "label": label}


def put(document: Document, identity: str, after: dict[str, Any] | None, *, by: str = "anna") -> None:
    document.change([{"id": identity, "before": document.items.get(identity), "after": after}], by=by)


def in_file(path: Path) -> list[tuple[int, str]]:
    return [(int(each["position"]), each["label"]) for each in json.loads(path.read_text())["annotations"]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Labels-ball.json"


def test_what_was_confirmed_survives_a_kill(path: Path) -> None:
    for seed in range(3):
        with subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(random.Random(seed).randrange(3, 60)):
                confirmed = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
        document = Document.open(path)
        document.close()
        assert {(40 * number, "PASS") for number in range(confirmed + 1)} <= set(in_file(path))
        assert document.notes == []  # our own unfinished file is no change by another program
        path.unlink()
        journal_of(path).unlink()


def test_a_torn_last_line_is_left_out_and_the_next_change_is_whole(path: Path) -> None:
    with_one = Document.open(path)
    put(with_one, "a", spot(1000))
    with_one.close()
    with journal_of(path).open("ab") as file:
        file.write(b'{"kind":"change","by":"anna","at":"2026","of":-1,"chan')
    again = Document.open(path)
    put(again, "b", spot(2000))
    again.close()
    assert sorted(Document.open(path).items) == ["a", "b"]


def test_a_damaged_journal_is_an_error_with_its_line(path: Path) -> None:
    journal_of(path).write_text('{"kind":"change"}\n')
    with pytest.raises(InputError, match="line 1 is no change"):
        Document.open(path)
    journal_of(path).unlink()
    Document.open(path).close()  # the lock was given back


def test_undo_has_no_end_and_outlives_a_restart(path: Path) -> None:
    document = Document.open(path)
    for number in range(30):
        put(document, f"s{number}", spot(100 * number))
    put(document, "s3", spot(333))
    put(document, "s4", None)
    document.close()
    document = Document.open(path)
    for _ in range(32):
        assert document.undo(by="anna")
    assert document.items == {}
    assert document.undo(by="anna") == []
    for _ in range(32):
        document.undo(by="anna", redo=True)
    assert len(document.items) == 29
    assert document.items["s3"]["ms"] == 333
    put(document, "new", spot(5))
    assert document.undo(by="anna", redo=True) == []  # a new change ends what can be redone
    document.close()


def test_two_windows_do_not_overwrite_each_other(path: Path) -> None:
    document = Document.open(path)
    put(document, "a", spot(1000))
    seen = dict(document.items["a"])
    document.change([{"id": "a", "before": seen, "after": spot(1040)}], by="anna")
    with pytest.raises(Conflict) as stale:
        document.change(
            [{"id": "b", "before": None, "after": spot(1)}, {"id": "a", "before": seen, "after": None}], by="ben"
        )
    assert stale.value.now["a"] is not None
    assert stale.value.now["a"]["ms"] == 1040
    assert "b" not in document.items  # all or none
    document.change([{"id": "a", "before": spot(1040), "after": spot(1080)}], by="ben")
    with pytest.raises(Conflict, match="somebody else"):
        document.undo(by="anna")
    document.close()


def test_another_program_changes_the_file_and_nothing_of_ours_is_lost(path: Path) -> None:
    extra = {
        "gameTime": "1 - 00:01",
        "label": "DRIVE",
        "position": "1500",
        "team": "home",
        "visibility": "not shown",
        "x": 1,
    }
    path.write_text(json.dumps({"UrlLocal": "here", "annotations": [extra]}))
    document = Document.open(path)
    put(document, "a", spot(1000))
    document.write_file()
    theirs = json.loads(path.read_text())
    assert theirs["UrlLocal"] == "here"
    assert theirs["annotations"][1] | {"by": "", "at": ""} == extra | {
        "by": "",
        "at": "",
    }  # team, visibility and x stay
    put(document, "b", spot(3000))  # in the journal only
    theirs["annotations"] = [theirs["annotations"][0], {"label": "OUT", "position": "2000"}]
    path.write_text(json.dumps(theirs))
    document.write_file()
    assert in_file(path) == [(1000, "PASS"), (2000, "OUT"), (3000, "PASS")]
    assert len(document.notes) == 1
    assert "changed by another program" in document.notes[0]
    document.close()
    # and while nobody labels
    path.write_text(json.dumps({"annotations": [{"label": "PASS", "position": "1000"}]}))
    document = Document.open(path)
    assert [item["ms"] for item in document.of_kind("spot")] == [1000]
    document.close()


def test_one_process_at_a_time(path: Path) -> None:
    document = Document.open(path)
    with pytest.raises(InputError, match="by another process"):
        Document.open(path)
    document.close()
    Document.open(path).close()


@pytest.mark.parametrize(
    "change",
    [
        {"id": "a", "after": {"kind": "spot", "ms": -1, "label": "PASS"}},
        {"id": "a", "after": {"kind": "spot", "ms": True, "label": "PASS"}},
        {"id": "a", "after": {"kind": "spot", "ms": 1, "label": "\x1b[2J"}},
        {"id": "a", "after": {"kind": "stretch", "from_ms": 5, "to_ms": 5}},
        {"id": "a", "after": {"kind": "what"}},
        {"id": "a" * 65, "after": spot(1)},
        {"id": "a"},
        "no change",
    ],
)
def test_what_is_no_change_is_refused(path: Path, change: Any) -> None:
    document = Document.open(path)
    with pytest.raises(InputError, match="not usable"):
        document.change([change], by="anna")
    assert document.seq == 0
    document.close()
