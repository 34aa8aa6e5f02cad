"""`bas cache import` from end to end: small folders of scores, and the five real games."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.convert.score_files import HALF_NAMES, OFFSETS_NAME, WHOLE_NAME
from bas.cache.store import FeatureStore
from bas.data.folders import LABELS_NAME
from bas.events import SOCCERNET_BALL_CLASSES

Cli = Callable[..., int]
Capture = pytest.CaptureFixture[str]
LEEDS = "england_efl/2019-2020/2019-10-01 - Leeds United - West Bromwich"
MIDDLESBROUGH = "england_efl/2019-2020/2019-10-01 - Middlesbrough - Preston North End"


def write_scores(folder: Path, *, lengths: Sequence[int] = (60, 80), channels: int = 2) -> None:
    """Random scores of each half (of the match, for one length), without a margin of 5 frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, length in zip(HALF_NAMES if len(lengths) == 2 else [WHOLE_NAME], lengths, strict=True):
        frames = np.arange(5, length - 4, dtype=np.int32)
        scores = np.random.default_rng(length).random((len(frames), channels)).astype(np.float16)
        np.savez_compressed(folder / name, frame_indexes=frames, scores=scores)


def write_labels(folder: Path, *events: tuple[int, str]) -> None:
    records = [{"gameTime": "1 - 00:00", "label": label, "position": str(ms)} for ms, label in events]
    (folder / LABELS_NAME).write_text(json.dumps({"annotations": records}))


@pytest.fixture
def games(tmp_path: Path) -> Path:
    """Two labelled SoccerNet games, one of them with a named offset, and an unlabelled match in one piece."""
    root = tmp_path / "games"
    for game in (LEEDS, MIDDLESBROUGH):
        write_scores(root / game)
        write_labels(root / game, (400, "PASS"), (5400, "DRIVE"))
    write_scores(root / "elsewhere" / "cup final", lengths=[90])
    offsets = {Path(LEEDS).name: {"half1_offset_frames": 62, "fold": "fold_0"}}
    (root / OFFSETS_NAME).write_text(json.dumps({"games": offsets}))
    return root


def result(bas: Cli, capsys: Capture, *arguments: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert bas("cache", "import", *arguments, "--json") == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def failure(bas: Cli, capsys: Capture, *arguments: object) -> str:
    """What is told of bad input, before anything is written."""
    assert bas("cache", "import", *arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("bas: error: ")
    return told.err


def test_a_folder_of_games(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    made = result(bas, capsys, games, "--out", tmp_path / "s")
    rows = {match.pop("match"): match for match in made["matches"]}
    assert list(rows) == ["elsewhere/cup final", LEEDS, MIDDLESBROUGH]
    shared = {"status": "imported", "message": "", "channels": 2, "unscored_share": pytest.approx(18 / 140)}
    leeds = {"split": "train", "rows": 142, "events": 2, "half1_offset_frames": 62, "offset_from": OFFSETS_NAME}
    assert rows[LEEDS] == shared | leeds | {"unscored_share": pytest.approx(20 / 142)}
    other = {"split": "valid", "rows": 140, "events": 2, "half1_offset_frames": 60, "offset_from": "derived"}
    assert rows[MIDDLESBROUGH] == shared | other
    whole = {"split": "", "rows": 90, "events": None, "half1_offset_frames": None, "offset_from": ""}
    assert rows["elsewhere/cup final"] == shared | whole | {"unscored_share": pytest.approx(9 / 90)}
    assert (made["complete"], made["notes"]) == (True, [])
    store = FeatureStore.open(tmp_path / "s")
    assert store.classes == SOCCERNET_BALL_CLASSES
    assert store.settings.key() == made["settings_key"]
    with np.load(games / LEEDS / HALF_NAMES[1]) as half2:
        np.testing.assert_array_equal(store.rows(LEEDS)[62 + 5 : 62 + 76], half2["scores"])
    assert bas("cache", "verify", store.path) == 0


def test_the_table(bas: Cli, capsys: Capture, monkeypatch: pytest.MonkeyPatch, games: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert bas("cache", "import", games, "--out", tmp_path / "s", "--model", "seed") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "match split rows events channels offset no row status"
    assert lines[1] == "elsewhere/cup final 90 - 2 - 10.000% imported"
    assert lines[2] == f"{LEEDS} train 142 2 2 62 named 14.085% imported"
    assert lines[3] == f"{MIDDLESBROUGH} valid 140 2 2 60 derived 12.857% imported"
    assert lines[5] == f"3 imported; 372 rows -> {tmp_path / 's'}"
    assert lines[6:] == [
        f"1 offset(s) named by {OFFSETS_NAME}",
        "1 offset(s) derived: the length of half 1, as its rows tell it",
    ]
    assert bas("cache", "info", tmp_path / "s") == 0
    told = capsys.readouterr().out
    assert "weights seed" in " ".join(told.split())
    assert "scaler" not in told  # how the pictures were seen is not known


def test_ids_do_not_depend_on_where_the_root_lies(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    for root, rows in ((games / LEEDS, 140), (games / "england_efl", 140), (games, 142)):
        made = result(bas, capsys, root, "--out", tmp_path / f"{len(root.parts)}")
        assert [match["rows"] for match in made["matches"] if match["match"] == LEEDS] == [rows]


def test_splits_and_offsets_from_other_files(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    (tmp_path / "splits").write_text(json.dumps({"test": ["elsewhere/cup final", "not here"], "valid": [LEEDS]}))
    (tmp_path / "offsets").write_text(json.dumps({"games": {MIDDLESBROUGH: 70}}))
    options = ("--split-file", tmp_path / "splits", "--offsets", tmp_path / "offsets")
    made = result(bas, capsys, games, "--out", tmp_path / "s", *options)
    assert [match["split"] for match in made["matches"]] == ["test", "valid", "valid"]
    assert [match["half1_offset_frames"] for match in made["matches"]] == [None, 60, 70]
    assert [match["offset_from"] for match in made["matches"]] == ["", "derived", "offsets"]


def test_the_roots_own_splits_may_name_more(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    (games / "splits.json").write_text(json.dumps({"challenge": ["cup final", "elsewhere/cup final", "not here"]}))
    made = result(bas, capsys, games, "--out", tmp_path / "s")
    assert [match["split"] for match in made["matches"]] == ["challenge", "train", "valid"]


def test_a_store_below_the_root_is_no_match(bas: Cli, capsys: Capture, games: Path) -> None:
    result(bas, capsys, games, "--out", games / "s")
    again = result(bas, capsys, games, "--out", games / "s")
    assert [match["status"] for match in again["matches"]] == ["already there"] * 3


def test_one_bad_match_is_told_beside_the_others(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    (games / LEEDS / HALF_NAMES[0]).unlink()
    made = result(bas, capsys, games, "--out", tmp_path / "s", code=2)
    assert [match["status"] for match in made["matches"]] == ["imported", "failed", "imported"]
    assert "scores are not whole" in made["matches"][1]["message"]
    assert made["complete"] is False
    write_scores(games / LEEDS)
    made = result(bas, capsys, games, "--out", tmp_path / "s")
    assert [match["status"] for match in made["matches"]] == ["already there", "imported", "already there"]


def test_bad_input_is_told_and_nothing_is_written(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    out, empty = ("--out", tmp_path / "s"), tmp_path / "empty"
    empty.mkdir()
    assert "no such folder" in failure(bas, capsys, tmp_path / "absent", *out)
    assert "nothing to import" in failure(bas, capsys, empty, *out)
    assert "no such file" in failure(bas, capsys, games, *out, "--split-file", empty / "x.json")
    assert "cannot be read" in failure(bas, capsys, games, *out, "--offsets", empty / "x.json")
    assert "frame rate is not usable" in failure(bas, capsys, games, *out, "--fps", "fast")
    (empty / "splits").write_text("[]")
    assert "not an object" in failure(bas, capsys, games, *out, "--split-file", empty / "splits")
    write_scores(games / LEEDS, channels=3)
    assert "matches differ in channels" in failure(bas, capsys, games, *out)
    write_labels(games / LEEDS, (-40, "PASS"))
    assert "position is not usable" in failure(bas, capsys, games, *out)
    assert not (tmp_path / "s").exists()


def test_the_same_match_in_two_folders(bas: Cli, capsys: Capture, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_scores(tmp_path / "games" / split / "a")
    assert "the same match in two folders" in failure(bas, capsys, tmp_path / "games", "--out", tmp_path / "s")


def test_extraction_into_imported_scores_is_refused(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    result(bas, capsys, games, "--out", tmp_path / "s")
    (games / LEEDS / "224p.mp4").write_bytes(b"no video")
    for command in (
        ("extract", games / LEEDS, "--out", tmp_path / "s"),
        ("extract", games / LEEDS, "--out", tmp_path / "s", "--weights", "none", "--backbone", "x3d_s"),
        ("cache", "verify", tmp_path / "s", "--videos", games / LEEDS),
    ):
        assert bas(*command) == 2
        assert "the store holds imported rows" in capsys.readouterr().err


@pytest.mark.shared
def test_the_five_real_games(bas: Cli, capsys: Capture, shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "snbas"
    published = json.loads((root / OFFSETS_NAME).read_text())["games"]
    made = result(bas, capsys, root, "--out", tmp_path / "s")
    assert bas("cache", "verify", tmp_path / "s") == 0
    assert sorted(match["split"] for match in made["matches"]) == ["train"] * 4 + ["valid"]
    assert {match["status"] for match in made["matches"]} == {"imported"}
    assert len(made["matches"]) == len(published) == 5
    store = FeatureStore.open(tmp_path / "s")
    for match in made["matches"]:
        folder, offset = root / match["match"], published[Path(match["match"]).name]["half1_offset_frames"]
        assert (match["half1_offset_frames"], match["offset_from"]) == (offset, OFFSETS_NAME)
        rows, valid = store.rows(match["match"])[:], store.valid(match["match"])
        assert not rows[~valid].any()
        for name, first_row in zip(HALF_NAMES, (0, offset), strict=True):
            with np.load(folder / name) as half:
                np.testing.assert_array_equal(rows[first_row + half["frame_indexes"]], half["scores"])
        records = json.loads((folder / LABELS_NAME).read_text())["annotations"]
        assert match["events"] == len(records)
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
    made = result(bas, capsys, tmp_path, "--out", tmp_path / "s")
    published = json.loads((root / OFFSETS_NAME).read_text())["games"]
    derived = {match["match"]: match["half1_offset_frames"] for match in made["matches"]}
    assert derived == {game: wanted["half1_offset_frames"] for game, wanted in published.items()}
    assert {match["offset_from"] for match in made["matches"]} == {"derived"}
    assert {match["events"] for match in made["matches"]} == {None}


def test_features_per_half_with_a_data_set_around_them(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    for game in (LEEDS, MIDDLESBROUGH):
        for half, length in ((1, 60), (2, 70)):
            np.save(games / game / f"{half}_mine.npy", np.full((length, 4), half, np.float32))
    (games / MIDDLESBROUGH / LABELS_NAME).rename(games / MIDDLESBROUGH / "Labels-v2.json")
    arguments = (games, "--features", "mine", "--fps", "25", "--offset", "2.5", "--out", tmp_path / "s")
    made = {match["match"]: match for match in result(bas, capsys, *arguments)["matches"]}
    assert [made[game]["split"] for game in (LEEDS, MIDDLESBROUGH)] == ["train", "valid"]
    assert [made[game]["half1_offset_frames"] for game in (LEEDS, MIDDLESBROUGH)] == [62, 62]
    assert made[MIDDLESBROUGH]["events"] == 2
    assert FeatureStore.open(tmp_path / "s").classes == SOCCERNET_BALL_CLASSES
    assert "--instant means nothing" in failure(bas, capsys, *arguments, "--instant", "end")
    assert "--instant is not known" in failure(bas, capsys, *arguments, "--instant", "middle")


def test_out_of_a_store_and_back(bas: Cli, capsys: Capture, games: Path, tmp_path: Path) -> None:
    result(bas, capsys, games, "--out", tmp_path / "s")
    export = ("cache", "export", tmp_path / "s", "--out", tmp_path / "e")
    assert bas(*export, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [match["status"] for match in told["matches"]] == ["exported"] * 3
    assert bas(*export, "--view", "hflip") == 2
    assert "no view hflip" in capsys.readouterr().out
    again = result(bas, capsys, tmp_path / "e", "--out", tmp_path / "t")
    assert again["settings_key"] == result(bas, capsys, games, "--out", tmp_path / "s")["settings_key"]
    assert bas("cache", "verify", tmp_path / "t") == 0
