"""Importing rows of another program: what the store then holds, what is refused, and how a killed import goes on."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache import store
from bas.cache.convert import importing
from bas.cache.convert.importing import (
    ImportMatch,
    ImportOptions,
    ImportSummary,
    SourceRows,
    foreign_settings,
    import_matches,
    on_match_clock,
)
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.cache.writer import MatchWriter
from bas.commands.cache_import_view import summary_view
from bas.errors import InputError
from bas.events import Event, TimeGrid
from bas.files import MatchBusy

PASS = Event(4000, "PASS", team="home")
LATE_DRIVE = Event(1000, "DRIVE", half=2)
Sources = Mapping[str, SourceRows]


def source(num_rows: int = 700, channels: int = 2, seed: int = 0, **changes: Any) -> SourceRows:
    """Random scores; the first and last five rows have none."""
    rows = np.random.default_rng(seed).random((num_rows, channels)).astype(np.float16)
    valid = np.ones(num_rows, bool)
    valid[:5] = valid[-5:] = False
    rows[~valid] = 0
    fields = {"files": ({"name": "scores.npz", "bytes": 9, "sha256": f"{seed}"},)} | changes
    return SourceRows(rows=rows, valid=valid, **fields)


HALVES = source(half1_offset_frames=300, offset_from="o.json")


def matches(ids: Sequence[str], **changes: Any) -> list[ImportMatch]:
    fields: dict[str, Any] = {"split": "train", "events": [PASS]} | changes
    return [ImportMatch(match_id, Path(match_id), **fields) for match_id in ids]


def load_from(sources: Sources) -> Callable[[ImportMatch], SourceRows]:
    def load(match: ImportMatch) -> SourceRows:
        if match.id not in sources:
            raise InputError(f"{match.id}: damaged")
        return sources[match.id]

    return load


def run(
    path: Path,
    sources: Sources,
    *,
    among: Sequence[ImportMatch] | None = None,
    classes: Sequence[str] = ("PASS",),
    **o: Any,
) -> ImportSummary:
    options = ImportOptions(**({"kind": "scores"} | o))
    return import_matches(among or matches(list(sources)), load_from(sources), path, options, classes=classes)


def text_of(summary: ImportSummary) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary_view(summary))
    return capture.get()


def test_rows_labels_and_time_as_they_are_read_back(tmp_path: Path) -> None:
    among = matches(["liga/a"], events=[PASS, LATE_DRIVE])
    summary = run(tmp_path / "s", {"liga/a": HALVES}, among=among, classes=("PASS", "DRIVE"))
    made = FeatureStore.open(tmp_path / "s")
    assert verify(made.path) == []
    np.testing.assert_array_equal(made.rows("liga/a")[:], HALVES.rows)
    np.testing.assert_array_equal(made.valid("liga/a"), HALVES.valid)
    np.testing.assert_array_equal(made.pts("liga/a"), np.arange(700))
    match = made.match("liga/a")
    assert (match.meta.fps, match.meta.time_base, match.meta.origin_ticks) == (Fraction(25), Fraction(1, 25), 0)
    assert (match.num_rows, match.meta.split) == (700, "train")
    assert match.meta.extra == {"half1_offset_frames": 300, "offset_from": "o.json"}
    assert match.meta.events() == [PASS, Event(13000, "DRIVE")]
    (result,) = summary.results
    assert (result.status, result.rows, result.events, result.half1_offset_frames) == ("imported", 700, 2, 300)
    assert result.unscored_share == pytest.approx(10 / 700)
    assert summary.complete


def test_an_unlabelled_match_stays_unlabelled(tmp_path: Path) -> None:
    among = [*matches(["a"], events=None, split=None), *matches(["b"], events=[])]
    summary = run(tmp_path / "s", {"a": source(), "b": source()}, among=among, classes=())
    made = FeatureStore.open(tmp_path / "s")
    assert (made.match("a").meta.labels, made.match("a").meta.split, made.match("b").meta.labels) == (None, None, ())
    assert [result.events for result in summary.results] == [None, 0]
    assert made.match("a").meta.extra == {}


def test_a_second_folder_is_added_and_what_is_there_is_left_alone(
    tmp_path: Path, tree: Callable[[Path], dict[str, bytes | None]]
) -> None:
    run(tmp_path / "s", {"a": source()})
    before = tree(tmp_path / "s" / "a")
    summary = run(tmp_path / "s", {"a": source(), "b": source(seed=1)})
    assert [(result.match, result.status) for result in summary.results] == [("a", "already there"), ("b", "imported")]
    assert [result.message for result in summary.results] == ["", ""]
    assert tree(tmp_path / "s" / "a") == before
    assert summary.results[0].rows == 700
    assert summary.results[0].unscored_share == pytest.approx(10 / 700)


@pytest.mark.parametrize("now", [source(seed=1), HALVES])
def test_a_stored_match_of_other_files_is_left_alone_and_named(tmp_path: Path, now: SourceRows) -> None:
    first = source()
    run(tmp_path / "s", {"a": first})
    summary = run(tmp_path / "s", {"a": now})
    assert summary.results[0].status == "already there"
    assert "stored from other files" in summary.results[0].message
    assert "a: stored from other files" in text_of(summary)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("a")[:], first.rows)


def test_without_a_name_for_the_model_nothing_is_mixed_in_silence(tmp_path: Path) -> None:
    assert run(tmp_path / "s", {"a": source()}).notes == ()
    assert run(tmp_path / "s", {"a": source()}).notes == ()
    summary = run(tmp_path / "s", {"b": source()})
    assert "holds 1 other match(es); without --model" in summary.notes[0]
    assert summary.notes[0] in text_of(summary)
    assert run(tmp_path / "s", {"d": source()}, model="unknown").notes == ()


def test_options_left_out_follow_the_store(tmp_path: Path) -> None:
    run(tmp_path / "s", {"a": source()}, model="seed", fps="12.5")
    summary = run(tmp_path / "s", {"b": source()})
    assert (summary.settings.weights, summary.settings.fps) == ("seed", "25/2")
    assert FeatureStore.open(tmp_path / "s").match("b").seconds == 56
    assert run(tmp_path / "s", {"d": source()}, fps="25/2").complete


@pytest.mark.parametrize(
    ("options", "channels", "named"),
    [({"model": "other"}, 2, "weights"), ({"fps": "50"}, 2, "fps"), ({}, 3, "dim"), ({"kind": "rows"}, 2, "backbone")],
)
def test_another_source_is_refused(tmp_path: Path, options: dict[str, str], channels: int, named: str) -> None:
    run(tmp_path / "s", {"a": source()}, model="seed")
    with pytest.raises(InputError, match=f"made with other settings; these differ: {named}\n"):
        run(tmp_path / "s", {"b": source(channels=channels)}, among=matches(["b"], events=None), **options)
    assert FeatureStore.open(tmp_path / "s").matches() == ["a"]


def test_a_store_of_a_backbone_is_refused(maker: Any) -> None:
    maker.match()
    with pytest.raises(InputError, match="made with other settings; these differ: backbone, depth, weights,"):
        run(maker.path, {"b": source(channels=6)})
    assert FeatureStore.open(maker.path).matches() == ["a"]


def test_a_refused_import_gives_the_store_no_classes(
    tmp_path: Path, tree: Callable[[Path], dict[str, bytes | None]]
) -> None:
    run(tmp_path / "s", {"a": source()}, among=matches(["a"], events=None), model="seed", classes=())
    before = tree(tmp_path / "s")
    with pytest.raises(InputError, match="these differ: weights"):
        run(tmp_path / "s", {"b": source()}, model="other")
    assert tree(tmp_path / "s") == before
    run(tmp_path / "s", {"b": source()}, model="seed")
    assert FeatureStore.open(tmp_path / "s").classes == ("PASS",)


def test_matches_that_differ_in_channels_are_refused_before_the_store_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matches differ in channels") as caught:
        run(tmp_path / "s", {"a": source(), "b": source(channels=3)})
    assert caught.value.got == "2 (a), 3 (b)"
    assert not (tmp_path / "s").exists()


def test_a_match_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    summary = run(tmp_path / "s", {"b": source()}, among=matches(["a", "b", "c/../d"]))
    assert [result.status for result in summary.results] == ["failed", "imported", "failed"]
    assert "a: damaged" in summary.results[0].message
    assert not summary.complete
    assert "a: a: damaged" in text_of(summary)


def test_where_all_fail_the_first_error_is_told_and_no_store_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a: damaged"):
        run(tmp_path / "s", {}, among=matches(["a", "b"]))
    assert not (tmp_path / "s").exists()


def test_a_label_after_the_last_row_is_refused(tmp_path: Path) -> None:
    last, after = Event(27960, "PASS"), Event(28000, "PASS")
    with pytest.raises(InputError, match=r"a: 1 label\(s\) after the last row") as caught:
        run(tmp_path / "s", {"a": source()}, among=matches(["a"], events=[last, after]))
    assert (caught.value.got, caught.value.wanted) == ("PASS at 28000 ms", "less than 28000 ms (700 rows)")
    assert not (tmp_path / "s").exists()
    assert run(tmp_path / "s", {"a": source()}, among=matches(["a"], events=[last])).complete


def test_labels_per_half_need_rows_per_half(tmp_path: Path) -> None:
    among = matches(["a"], events=[PASS, LATE_DRIVE])
    with pytest.raises(InputError, match="labels are per half"):
        run(tmp_path / "s", {"a": source()}, among=among)


def test_the_clock_of_the_match_is_exact() -> None:
    events = [LATE_DRIVE, Event(40, "PASS", visible=False), Event(0, "OUT", half=2, team="away")]
    moved = on_match_clock(events, TimeGrid(Fraction(25)), 70906)
    assert moved == [
        Event(40, "PASS", visible=False),
        Event(70906 * 40, "OUT", team="away"),
        Event(70906 * 40 + 1000, "DRIVE"),
    ]


def test_a_busy_match_is_left_to_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> MatchWriter:
        raise MatchBusy("match 'a' is being written")

    monkeypatch.setattr(store, "MatchWriter", busy)
    summary = run(tmp_path / "s", {"a": source()})
    assert (summary.results[0].status, summary.complete) == ("busy elsewhere", False)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def kill_before_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Blocks of 256 rows, each saved at once; dies before the n-th of match b. Gives the first rows of those taken."""
    monkeypatch.setattr(importing, "_BLOCK_ROWS", 256)

    def arm(number: int) -> list[int]:
        taken: list[int] = []

        class Fragile(MatchWriter):
            def __init__(self, job: Any, *, resume: bool, journal_seconds: float) -> None:
                assert journal_seconds > 0
                super().__init__(job, resume=resume, journal_seconds=0.0)
                self.is_b = job.match_id == "b"

            def append(self, rows: Any, valid: Any) -> None:
                if self.is_b and len(taken) == number:
                    raise Killed
                taken.extend([self.rows_appended] * self.is_b)
                super().append(rows, valid)

        monkeypatch.setattr(store, "MatchWriter", Fragile)
        return taken

    return arm


@pytest.mark.parametrize(("number", "status"), [(0, "imported"), (1, "resumed"), (2, "resumed")])
def test_a_killed_import_goes_on(
    tmp_path: Path,
    tree: Callable[[Path], dict[str, bytes | None]],
    kill_before_block: Callable[[int], list[int]],
    number: int,
    status: str,
) -> None:
    sources = {"a": HALVES, "b": source(seed=1, half1_offset_frames=9, offset_from="o.json")}
    run(tmp_path / "whole", sources)
    before = kill_before_block(number)
    with pytest.raises(Killed):
        run(tmp_path / "s", sources)
    assert before == [0, 256, 512][:number]
    after = kill_before_block(-1)
    results = run(tmp_path / "s", sources).results
    assert [result.status for result in results] == ["already there", status]
    assert after == [0, 256, 512][number:]
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_unfinished_rows_of_other_files_are_not_used(
    tmp_path: Path, kill_before_block: Callable[[int], list[int]]
) -> None:
    kill_before_block(2)
    with pytest.raises(Killed):
        run(tmp_path / "s", {"b": source()})
    now, taken = source(seed=1), kill_before_block(-1)
    (result,) = run(tmp_path / "s", {"b": now}).results
    assert (result.status, taken) == ("imported", [0, 256, 512])
    assert "unfinished work was not used: made from something else: provenance" in result.message
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("b")[:], now.rows)


def test_settings_say_only_what_is_known() -> None:
    settings = foreign_settings(ImportOptions(kind="scores", fps="25.0"), 2)
    assert (settings.backbone, settings.weights, settings.dim, settings.fps) == ("import:scores", "unknown", 2, "25")
    assert settings.is_imported
    assert settings.key() == foreign_settings(ImportOptions(kind="scores", model="unknown"), 2).key()
    with pytest.raises(InputError, match="frame rate is not usable"):
        foreign_settings(ImportOptions(kind="scores", fps="source"), 2)
