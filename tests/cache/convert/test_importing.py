"""`bas cache import`: what the store then holds, what is refused, how a killed import goes on, and the real games."""

import json
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache import store as store_module
from bas.cache.convert import importing
from bas.cache.convert.importing import DERIVED, ImportOptions, ImportSource, SourceMatch, SourceRows, import_matches
from bas.cache.convert.offsets import OFFSETS_NAME
from bas.cache.convert.scores import HALF_NAMES, WHOLE_NAME
from bas.cache.convert.tables import FeatureTable
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.cache.writer import MatchWriter
from bas.data.folders import LABELS_NAME
from bas.errors import InputError
from bas.events import SOCCERNET_BALL_CLASSES, Event
from bas.workers import Summary

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]
Tree = Callable[[Path], dict[str, bytes | None]]
LEEDS = "england_efl/2019-2020/2019-10-01 - Leeds United - West Bromwich"
MIDDLESBROUGH = "england_efl/2019-2020/2019-10-01 - Middlesbrough - Preston North End"
PASS = Event(4000, "PASS", team="home")
LATE_DRIVE = Event(1000, "DRIVE", half=2)


def scores(num_rows: int = 700, channels: int = 2, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((num_rows, channels)).astype(np.float16)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Summary]:
    """Imports arrays of scores into the store `s`: match id -> rows, or None where the match cannot be read."""

    def run(
        sources: dict[str, Any],
        *,
        events: Sequence[Event] | None = (PASS,),
        classes: Sequence[str] = ("PASS",),
        fps: str | None = None,
        model: str | None = None,
        store: Path = tmp_path / "s",
        **more: Any,
    ) -> Summary:
        def load(match: SourceMatch) -> SourceRows:
            rows = sources[match.id]
            if rows is None:
                raise InputError(f"{match.id}: damaged")
            valid = np.ones(len(rows), bool)
            valid[:5] = False
            path = tmp_path / f"{match.id.replace('/', '-')}.bin"
            path.write_bytes(rows.tobytes())
            return SourceRows(
                parts=((0, FeatureTable(match.id, rows)),), num_rows=len(rows), is_valid=valid, paths=[path], **more
            )

        matches = [SourceMatch(name, tmp_path, "train", events) for name in sources]
        source = ImportSource(kind="scores", matches=matches, load=load, classes=classes, fps=fps)
        return import_matches(source, store, ImportOptions(model=model, fps=fps))

    return run


def test_rows_labels_and_time_as_they_are_read_back(run: Callable[..., Summary], tmp_path: Path) -> None:
    rows = scores()
    halves = {"half1_offset_frames": 300, "offset_from": "o.json"}
    summary = run({"liga/a": rows}, events=[PASS, LATE_DRIVE], classes=("PASS", "DRIVE"), **halves)
    made = FeatureStore.open(tmp_path / "s")
    assert verify(made.path) == []
    np.testing.assert_array_equal(made.rows("liga/a")[:], rows)
    assert list(np.flatnonzero(~made.valid("liga/a"))) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(made.pts("liga/a"), np.arange(700))
    match = made.match("liga/a")
    assert (match.meta.fps, match.meta.time_base, match.meta.origin_ticks) == (Fraction(25), Fraction(1, 25), 0)
    assert (match.num_rows, match.meta.split, match.meta.extra) == (700, "train", halves)
    assert match.meta.events() == [PASS, Event(13000, "DRIVE")]
    (result,) = summary.results
    wanted = {"split": "train", "events": 2, "channels": 2, "offset": "300 o.json", "no row": "0.714%"}
    assert (result.status, result.columns) == ("imported", wanted)


def test_what_is_there_is_left_alone_and_unlabelled_stays_so(
    run: Callable[..., Summary], tmp_path: Path, tree: Tree
) -> None:
    run({"a": scores()}, events=None, classes=())
    before = tree(tmp_path / "s" / "a")
    assert FeatureStore.open(tmp_path / "s").match("a").meta.labels is None
    summary = run({"a": scores(), "b": scores(seed=1)}, events=[])
    assert summary.counts == {"already there": 1, "imported": 1}
    assert tree(tmp_path / "s" / "a") == before
    assert FeatureStore.open(tmp_path / "s").match("b").meta.labels == ()
    changed = run({"a": scores(seed=5)})
    assert "stored from other files" in changed.results[0].message
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").rows("a")[:], scores())


def test_options_left_out_follow_the_store_and_models_are_not_mixed_in_silence(
    run: Callable[..., Summary], tmp_path: Path
) -> None:
    assert run({"a": scores()}, model="seed", fps="12.5").record["notes"] == []
    summary = run({"b": scores()})
    assert (summary.record["settings"]["weights"], summary.record["settings"]["fps"]) == ("seed", "25/2")
    assert "holds 1 other match(es); without --model" in summary.record["notes"][0]
    assert FeatureStore.open(tmp_path / "s").match("b").seconds == 56
    assert run({"c1": scores()}, fps="25/2", model="seed").record["notes"] == []


@pytest.mark.parametrize(
    ("options", "channels", "named"), [({"model": "other"}, 2, "weights"), ({"fps": "50"}, 2, "fps"), ({}, 3, "dim")]
)
def test_another_source_is_refused(
    run: Callable[..., Summary], tmp_path: Path, tree: Tree, options: dict[str, str], channels: int, named: str
) -> None:
    run({"a": scores()}, model="seed", classes=(), events=None)
    before = tree(tmp_path / "s")
    with pytest.raises(InputError, match=f"made with other settings; these differ: {named}\n"):
        run({"b": scores(channels=channels)}, events=None, **options)
    assert tree(tmp_path / "s") == before


def test_a_store_of_a_backbone_is_refused(run: Callable[..., Summary], maker: Any) -> None:
    maker.match()
    with pytest.raises(InputError, match="made with other settings; these differ: backbone, depth, weights"):
        run({"b": scores(channels=6)}, store=maker.path)
    assert FeatureStore.open(maker.path).matches() == ["a"]


def test_a_match_that_fails_does_not_stop_the_others(run: Callable[..., Summary]) -> None:
    summary = run({"a": None, "b": scores(), "d/../e": scores()})
    assert [result.status for result in summary.results] == ["failed", "imported", "failed"]
    assert "a: damaged" in summary.results[0].message
    assert not summary.complete


@pytest.mark.parametrize(
    ("sources", "events", "message"),
    [
        ({"a": scores(), "b": scores(channels=3)}, [PASS], "matches differ in channels"),
        ({"a": None, "b": None}, [PASS], "a: damaged"),
        ({"a": scores()}, [Event(28000, "PASS")], r"a: 1 label\(s\) after the last row"),
        ({"a": scores()}, [PASS, LATE_DRIVE], "labels are per half"),
    ],
)
def test_what_cannot_be_imported_makes_no_store(
    run: Callable[..., Summary], tmp_path: Path, sources: Any, events: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(sources, events=events)
    assert not (tmp_path / "s").exists()


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_killed_import_goes_on(
    run: Callable[..., Summary], tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sources = {"a": scores(), "b": scores(seed=1)}
    run(sources, store=tmp_path / "whole")
    monkeypatch.setattr(importing, "_BLOCK_BYTES", 256 * 8 * 2)
    taken: list[int] = []

    class Fragile(MatchWriter):
        """Saves every block, and dies before the n-th of match b."""

        def __init__(self, job: Any, *, resume: bool, **_: Any) -> None:
            super().__init__(job, resume=resume, journal_seconds=0.0)
            self.is_b = job.match_id == "b"

        def append(self, rows: Any, valid: Any) -> None:
            if self.is_b and len(taken) == number:
                raise Killed
            taken.extend([self.rows_appended] * self.is_b)
            super().append(rows, valid)

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "MatchWriter", Fragile)
        with pytest.raises(Killed):
            run(sources)
    assert taken == [0, 256, 512][:number]
    results = run(sources).results
    assert [result.status for result in results] == ["already there", "resumed" if number else "imported"]
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


# --- from the command line


def write_scores(folder: Path, *, lengths: Sequence[int] = (60, 80), channels: int = 2) -> None:
    """Random scores of each half (of the match, for one length), without a margin of 5 frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, length in zip(HALF_NAMES if len(lengths) == 2 else [WHOLE_NAME], lengths, strict=True):
        frames = np.arange(5, length - 4, dtype=np.int32)
        np.savez_compressed(folder / name, frame_indexes=frames, scores=scores(len(frames), channels, seed=length))


@pytest.fixture
def games(tmp_path: Path, write_labels: Callable[..., None]) -> Path:
    """Two labelled SoccerNet games, one of them with a named offset, and an unlabelled match in one piece."""
    root = tmp_path / "games"
    for game in (LEEDS, MIDDLESBROUGH):
        write_scores(root / game)
        write_labels(root / game / LABELS_NAME, (1, 400, "PASS"), (1, 5400, "DRIVE"))
    write_scores(root / "elsewhere" / "cup final", lengths=[90])
    offsets = {Path(LEEDS).name: {"half1_offset_frames": 62, "fold": "fold_0"}}
    (root / OFFSETS_NAME).write_text(json.dumps({"games": offsets}))
    return root


def imported(bas: Cli, capsys: Capture, *arguments: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert bas("cache", "import", *arguments, "--json") == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_folder_of_games(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    made = imported(bas, capsys, games, "--out", tmp_path / "s")
    rows = {match["match"]: match for match in made["matches"]}
    assert list(rows) == ["elsewhere/cup final", LEEDS, MIDDLESBROUGH]
    found = {name: (match["split"], match["rows"], match["events"], match["offset"]) for name, match in rows.items()}
    assert found[LEEDS] == ("train", 142, 2, f"62 {OFFSETS_NAME}")
    assert found[MIDDLESBROUGH] == ("valid", 140, 2, f"60 {DERIVED}")
    assert found["elsewhere/cup final"] == ("", 90, "-", "-")
    assert rows[LEEDS]["no row"] == "14.085%"
    store = FeatureStore.open(tmp_path / "s")
    assert (store.classes, store.settings.key()) == (SOCCERNET_BALL_CLASSES, made["settings_key"])
    with np.load(games / LEEDS / HALF_NAMES[1]) as half2:
        np.testing.assert_array_equal(store.rows(LEEDS)[62 + 5 : 62 + 76], half2["scores"])
    assert bas("cache", "verify", store.path) == 0


def test_the_table(bas: Cli, capsys: Capture, monkeypatch: pytest.MonkeyPatch, games: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "180")
    assert bas("cache", "import", games, "--out", tmp_path / "s", "--model", "seed") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "match frames split events channels offset no row status"
    assert lines[1] == "elsewhere/cup final 90 - 2 - 10.000% imported"
    assert lines[3] == f"{MIDDLESBROUGH} 140 valid 2 2 60 derived 12.857% imported"
    assert lines[5].startswith("3 imported; 372 rows in ")


def test_splits_and_offsets_from_other_files(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    (tmp_path / "splits").write_text(json.dumps({"test": ["elsewhere/cup final", "not here"], "valid": [LEEDS]}))
    (tmp_path / "offsets").write_text(json.dumps({"games": {MIDDLESBROUGH: 70}}))
    options = ("--split-file", tmp_path / "splits", "--offsets", tmp_path / "offsets")
    made = imported(bas, capsys, games, "--out", tmp_path / "s", *options)
    assert [match["split"] for match in made["matches"]] == ["test", "valid", "valid"]
    assert [match["offset"] for match in made["matches"]] == ["-", "60 derived", "70 offsets"]


def test_one_bad_match_is_told_beside_the_others(bas: Cli, capsys: Capture, games: Path) -> None:
    (games / LEEDS / HALF_NAMES[0]).unlink()
    made = imported(bas, capsys, games, "--out", games / "s", code=2)
    assert [match["status"] for match in made["matches"]] == ["imported", "failed", "imported"]
    assert "scores are not whole" in made["matches"][1]["message"]
    write_scores(games / LEEDS)
    made = imported(bas, capsys, games, "--out", games / "s")  # a store below the root is no match
    assert [match["status"] for match in made["matches"]] == ["already there", "imported", "already there"]


def test_bad_input_is_told_and_nothing_is_written(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "splits").write_text("[]")
    for arguments, message in (
        ((tmp_path / "absent",), "no such folder"),
        ((empty,), "nothing to import"),
        ((games, "--split-file", empty / "x.json"), "no such file"),
        ((games, "--offsets", empty / "x.json"), "cannot be read"),
        ((games, "--fps", "fast"), "frame rate is not usable"),
        ((games, "--split-file", empty / "splits"), "not an object"),
        ((games, "--feature-stride", "4"), "--feature-stride means nothing"),
        ((games, "--num-frames", "0"), "--num-frames is not usable"),
        ((games, "--offset", "later"), "--offset is not usable"),
    ):
        assert bas("cache", "import", *arguments, "--out", tmp_path / "s") == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
    for arguments in ((games, "--from", "x"), (games, "--instant", "middle")):
        assert bas("cache", "import", *arguments, "--out", tmp_path / "s") == 2
    assert not (tmp_path / "s").exists()


def test_extraction_into_imported_scores_is_refused(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    imported(bas, capsys, games, "--out", tmp_path / "s")
    (games / LEEDS / "224p.mp4").write_bytes(b"no video")
    for command in (
        ("extract", games / LEEDS, "--out", tmp_path / "s", "--weights", "none", "--backbone", "x3d_s"),
        ("cache", "verify", tmp_path / "s", "--videos", games / LEEDS),
    ):
        assert bas(*command) == 2
        assert "the store holds imported rows" in capsys.readouterr().err


@pytest.mark.shared
def test_the_five_real_games(bas: Cli, capsys: Capture, shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "snbas"
    published = json.loads((root / OFFSETS_NAME).read_text())["games"]
    made = imported(bas, capsys, root, "--out", tmp_path / "s")
    assert bas("cache", "verify", tmp_path / "s") == 0
    assert sorted(match["split"] for match in made["matches"]) == ["train"] * 4 + ["valid"]
    store = FeatureStore.open(tmp_path / "s")
    assert len(made["matches"]) == len(published) == 5
    for match in made["matches"]:
        name = match["match"]
        folder, offset = root / name, published[Path(name).name]["half1_offset_frames"]
        assert (match["status"], match["offset"]) == ("imported", f"{offset:,} {OFFSETS_NAME}")
        rows, valid = store.rows(name)[:], store.valid(name)
        assert not rows[~valid].any()
        for half_name, first_row in zip(HALF_NAMES, (0, offset), strict=True):
            with np.load(folder / half_name) as half:
                np.testing.assert_array_equal(rows[first_row + half["frame_indexes"]], half["scores"])
        records = json.loads((folder / LABELS_NAME).read_text())["annotations"]
        passes = np.array([int(record["position"]) // 40 for record in records if record["label"] == "PASS"])
        for of_half in (passes[passes < offset], passes[passes >= offset]):
            at, *far = (rows[(of_half + shift) % len(rows), 0].astype(float).mean() for shift in (0, -25, 25, -50, 50))
            assert at > 2 * max(far)  # a second off, or joined in the wrong place: half as high


@pytest.mark.shared
def test_the_published_offsets_follow_from_the_scores(
    bas: Cli, capsys: Capture, shared_data: Path, tmp_path: Path
) -> None:
    root = shared_data / "snbas"
    for path in root.rglob("*.npz"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name)
    made = imported(bas, capsys, tmp_path, "--out", tmp_path / "s")
    published = json.loads((root / OFFSETS_NAME).read_text())["games"]
    derived = {match["match"]: match["offset"] for match in made["matches"]}
    assert derived == {game: f"{wanted['half1_offset_frames']:,} {DERIVED}" for game, wanted in published.items()}
