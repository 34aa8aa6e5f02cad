"""JSON and labels that come from elsewhere, and how what they hold is shown."""

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas import errors, events
from bas.ablate.table import AblationTable
from bas.commands.show import Printable
from bas.data.labels import SplitSources, assign_splits, find_classes, read_label_file
from bas.errors import InputError
from bas.eval.files import load, pair
from bas.events import read_labels
from bas.files import read_json
from bas.report.page.data import page_text

QUICK = hypothesis_settings(max_examples=150, deadline=None, derandomize=True, database=None)
LABEL = {"gameTime": "1 - 00:04", "label": "PASS", "position": "4000", "team": "home", "visibility": "visible"}
Damage = Callable[[Path, int], None]


def test_no_file_is_read_beyond_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" + "1," * 50 + "1]")
    assert len(read_json(path, max_bytes=103)) == 51
    with pytest.raises(InputError, match=r"(?s)x\.json: too large.*103 bytes.*at most 102"):
        read_json(path, max_bytes=102)
    os.truncate(path, 1 << 40)  # takes no room on the disk
    with pytest.raises(InputError, match="67,108,864"):
        read_json(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "circle"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(path)


@pytest.mark.parametrize(
    "text", ["\\u001b[2J", "\\u009b2J", "\\u0000", "\\u007f", "\\b", "\x9b", "\\u202e", "\u2066", "\\ud800"]
)
def test_text_that_steers_a_terminal_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(f'{{"a": "{text}"}}', encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "x.json")
    assert str(error.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "text", ["\\\\u001b", "\\\\\\\\u001b", "\\n\\t\\r", "\\u000a", "\\ud83d\\ude00", "\U0001f600", "C:\\\\bin"]
)
def test_other_text_is_read_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(f'"{text}"', encoding="utf-8")
    assert read_json(tmp_path / "x.json") == json.loads(f'"{text}"')


@pytest.mark.parametrize("text", ["1e1000000000", "nan", "9" * 5000, "1/" + "9" * 5000, "1_0", "", "-1", "1/0"])
def test_rates_that_take_hours_to_read_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="frame rate"):
        events.TimeGrid.parse(text)


@QUICK
@given(numerator=st.integers(1, 10**9), denominator=st.integers(1, 10**9))
def test_every_rate_reads_back(numerator: int, denominator: int) -> None:
    rate = Fraction(numerator, denominator)
    assert events.TimeGrid.parse(str(rate)).fps == rate


@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_labels_and_predictions_are_refused_or_read(damage: Damage, seed: int) -> None:
    spot = {"gameTime": "1 - 00:04", "label": "PASS", "position": "4000", "half": "1", "confidence": "0.5"}
    with tempfile.TemporaryDirectory() as folder:
        labels, spots = Path(folder) / "Labels-ball.json", Path(folder) / "results_spotting.json"
        labels.write_text(json.dumps({"UrlLocal": "a", "annotations": [LABEL] * 3}))
        spots.write_text(json.dumps({"UrlLocal": "a", "predictions": [spot] * 3}))
        damage((labels, spots)[seed % 2], seed // 2)
        read_label_file(labels, game="a")
        try:
            for event in read_labels(labels):
                assert 0 <= event.position_ms < 24 * 3600 * 1000
                assert event.label
            load(pair({"a": labels}, {"a": spots}), ("PASS",), Fraction(25))
        except InputError:
            pass


@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_splits_and_tables_are_refused_or_read(damage: Damage, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "splits.json").write_text(json.dumps({"train": ["a", "b"], "valid": ["c"]}))
        damage(root / "splits.json", seed)
        splits, _ = assign_splits(root, [SplitSources("a", "a", frozenset())])
        assert splits["a"] in (None, "train", "valid", "test", "challenge")
        AblationTable(
            sources=("/x",), split="test", settings={"a": 1}, classes=("PASS",), rows=(), chance={"mAP": 0.1}
        ).write(root)
        damage(root / "ablation.json", seed)
        with contextlib.suppress(InputError):
            AblationTable.read(root).write(root / "again")


@pytest.mark.parametrize("text", [b"PASS\n\x1b[2J\n", b"\xff", b"x" * (2 << 20)])
def test_hostile_class_lists_are_findings(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    classes, findings = find_classes(tmp_path, {})
    assert classes == ()
    assert findings[0].severity == "error"


def test_names_never_steer_the_terminal() -> None:
    table = Table("[bold]", "match \x1b]0;pwn\x07")
    table.add_row(Text("\x1b[2J\x9b"), Text("\u202ex"))
    for width in (20, 80):
        screen = io.StringIO()
        Console(file=screen, width=width, force_terminal=True, color_system=None).print(Printable(table))
        shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())  # rich's own colours
        assert errors.printable(shown) == shown
    assert errors.printable("a\nb\x1b[2J\ud800é") == "a\nb\\x1b[2J\\ud800é"


def test_an_error_is_printed_without_control_characters(
    bas: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bas("cache", "info", tmp_path / "\x1b[2J") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_no_name_ends_the_script_of_a_page() -> None:
    evil = "</script><img src=x onerror=alert(1)>\u2028<!--"
    data: dict[str, Any] = {"title": evil, "matches": [{"name": evil, "video": f"javascript:{evil}"}], "notes": [evil]}
    text = page_text(data)
    assert "<img" not in text
    assert text.count("</script>") == page_text({"title": ""}).count("</script>")
