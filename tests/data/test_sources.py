import json
from pathlib import Path

import pytest

from bas.commands.options import known_splits
from bas.data.sources import DataSet, Match, find_data_set, find_sources
from bas.errors import InputError
from bas.events import SOCCERNET_BALL_CLASSES, SOCCERNET_BALL_SPLITS

LEEDS = "england_efl/2019-2020/2019-10-01 - Leeds United - West Bromwich"
STOKE = "england_efl/2019-2020/2019-10-01 - Stoke City - Huddersfield Town"


def make_match(
    folder: Path, *, videos: tuple[str, ...] = ("224p.mp4",), labels: list[tuple[int, str, int]] | None = None
) -> Path:
    """A match with files that need not be videos; labels are (position_ms, label, half)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in videos:
        (folder / name).write_bytes(b"not opened here")
    if labels is not None:
        records = [
            {
                "gameTime": f"{half} - 00:00",
                "label": label,
                "position": str(ms),
                "team": "home",
                "visibility": "visible",
            }
            for ms, label, half in labels
        ]
        (folder / "Labels-ball.json").write_text(json.dumps({"annotations": records}))
    return folder


def errors(data_set: DataSet) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in data_set.findings if finding.severity == "error"]


def notes(data_set: DataSet) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in data_set.findings if finding.severity == "note"]


@pytest.mark.parametrize("wrappers", ["", "train", "SN-BAS-2025", "SN-BAS-2025/train", "Train/SN-BAS-2025"])
def test_id_leaves_out_split_folders(tmp_path: Path, wrappers: str) -> None:
    make_match(tmp_path / wrappers / LEEDS, labels=[(40, "PASS", 1)])
    data_set = find_data_set(tmp_path)
    (match,) = data_set.matches
    assert (match.id, match.split, match.half) == (LEEDS, "train", None)
    assert data_set.classes == SOCCERNET_BALL_CLASSES
    assert errors(data_set) == []


@pytest.mark.parametrize("root", [".", "england_efl", "england_efl/2019-2020", LEEDS])
def test_soccernet_id_does_not_depend_on_where_the_root_lies(tmp_path: Path, root: str) -> None:
    make_match(tmp_path / "data" / LEEDS)
    (match,) = find_data_set(tmp_path / "data" / root).matches
    assert (match.id, match.split) == (LEEDS, "train")


def test_other_id_is_relative_to_the_root(tmp_path: Path) -> None:
    make_match(tmp_path / "valid" / "league" / "a")
    make_match(tmp_path / "test")
    data_set = find_data_set(tmp_path)
    assert [(match.id, match.split) for match in data_set.matches] == [("league/a", "valid"), ("test", None)]


def test_root_that_is_a_split_folder_gives_its_split(tmp_path: Path) -> None:
    make_match(tmp_path / "valid" / "a")
    assert find_data_set(tmp_path / "valid").matches[0].split == "valid"


@pytest.mark.parametrize(
    ("videos", "chosen"),
    [
        (("224p.mp4", "720p.mp4"), "224p.mp4"),
        (("720p.mp4",), "720p.mp4"),
        (("720p.mkv", "proxy.mp4"), "720p.mkv"),
        (("whatever.WEBM",), "whatever.WEBM"),
        ((".224p.mp4", "a.ts"), "a.ts"),
    ],
)
def test_choice_of_video(tmp_path: Path, videos: tuple[str, ...], chosen: str) -> None:
    make_match(tmp_path / "m", videos=videos)
    data_set = find_data_set(tmp_path)
    assert data_set.matches[0].video == tmp_path / "m" / chosen
    assert errors(data_set) == []


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (("a.mp4", "b.mkv"), "several videos, and none called 224p or 720p (a.mp4, b.mkv)"),
        (("224p.mp4", "224p.mkv"), "the same video twice (224p.mkv, 224p.mp4)"),
        (("224p.mp4", "1_224p.mkv"), "one video per match and one per half in one folder"),
        (("1_224p.mkv",), "half 2 has no video (1_224p.mkv)"),
        ((), "labels, but no video"),
    ],
)
def test_no_clear_video_is_an_error(tmp_path: Path, videos: tuple[str, ...], message: str) -> None:
    make_match(tmp_path / "m", videos=videos, labels=[(0, "PASS", 1)])
    data_set = find_data_set(tmp_path)
    assert any(message in text for text in errors(data_set)), errors(data_set)
    missing = [match for match in data_set.matches if match.video is None]
    with pytest.raises(InputError, match="no video"):
        missing[0].require_video()


def test_two_halves_are_two_matches_with_their_own_events(tmp_path: Path) -> None:
    videos = ("1_720p.mkv", "2_720p.mkv", "1_224p.mkv", "2_224p.mkv")
    make_match(tmp_path / LEEDS, videos=videos, labels=[(80, "DRIVE", 1), (40, "PASS", 2), (40, "PASS", 1)])
    data_set = find_data_set(tmp_path)
    first, second = data_set.matches
    assert (first.id, first.half, second.id, second.half) == (f"{LEEDS}/1", 1, f"{LEEDS}/2", 2)
    assert (first.game, first.split, second.split) == (LEEDS, "train", "train")
    assert second.require_video().name == "2_224p.mkv"
    assert [(e.position_ms, e.label) for e in data_set.events(first) or []] == [(40, "PASS"), (80, "DRIVE")]
    assert [(e.position_ms, e.label) for e in data_set.events(second) or []] == [(40, "PASS")]


def test_halves_of_unequal_sizes_share_the_size_that_both_have(tmp_path: Path) -> None:
    make_match(tmp_path / "m", videos=("1_720p.mkv", "2_720p.mkv", "1_224p.mkv"))
    assert [match.require_video().name for match in find_data_set(tmp_path).matches] == ["1_720p.mkv", "2_720p.mkv"]


def test_splits_file(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_match(tmp_path / name)
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a"], "test": ["b", "B"], "dev": []}))
    data_set = find_data_set(tmp_path)
    assert [match.split for match in data_set.matches] == ["train", "test", None]
    assert errors(data_set) == [
        "splits.json: unknown split 'dev'",
        "splits.json: names a match that does not exist: 'B'",
    ]
    assert any("1 of 3 match(es) in no split (first: c)" in text for text in notes(data_set))


@pytest.mark.parametrize("text", ["[]", "{", '{"train": "a"}', '{"train": [1]}'])
def test_bad_splits_file_is_one_error(tmp_path: Path, text: str) -> None:
    make_match(tmp_path / "a")
    (tmp_path / "splits.json").write_text(text, encoding="utf-8")
    assert [text.startswith("splits.json: ") for text in errors(find_data_set(tmp_path))] == [True]


def test_splits_that_disagree(tmp_path: Path) -> None:
    make_match(tmp_path / "train" / "a")
    make_match(tmp_path / "b")
    (tmp_path / "splits.json").write_text(json.dumps({"test": ["a", "b"], "valid": ["b"]}))
    assert errors(find_data_set(tmp_path)) == [
        "a: more than one split (folder: train, splits.json: test)",
        "b: more than one split (splits.json: test, splits.json: valid)",
    ]


def test_own_split_of_a_soccernet_game_is_a_note(tmp_path: Path) -> None:
    make_match(tmp_path / "train" / STOKE)
    data_set = find_data_set(tmp_path)
    assert data_set.matches[0].split == "train"
    assert f"{STOKE}: used as train; SoccerNet has it in test" in notes(data_set)


@pytest.mark.parametrize("second", ["valid/Game", "valid/game", "train/SN-BAS-2025/GAME"])
def test_the_same_match_twice_names_both_folders(tmp_path: Path, second: str) -> None:
    make_match(tmp_path / "train" / "game")
    make_match(tmp_path / second)
    data_set = find_data_set(tmp_path)
    assert len(data_set.matches) == 1
    (text,) = errors(data_set)
    assert "train/game" in text
    assert second in text


def test_missing_soccernet_games_are_notes(tmp_path: Path) -> None:
    make_match(tmp_path / LEEDS, labels=[])
    missing = [text for text in notes(find_data_set(tmp_path)) if "not here" in text]
    assert len(missing) == len(SOCCERNET_BALL_SPLITS) - 1


def test_labels_missing_is_a_note_but_not_for_challenge(tmp_path: Path) -> None:
    make_match(tmp_path / "test" / "a")
    make_match(tmp_path / "challenge" / "b")
    assert [text for text in notes(find_data_set(tmp_path)) if "Labels-ball" in text] == [
        "a: no Labels-ball.json: no events to train on or to compare with"
    ]


def test_classes_file_fixes_order_and_names_unknown_labels(tmp_path: Path) -> None:
    make_match(tmp_path / "a", labels=[(0, "kick", 1), (40, "Throw", 1), (80, "Throw", 1)])
    (tmp_path / "classes.txt").write_text("\ufeffthrow\r\n\r\n kick \r\n", encoding="utf-8")
    data_set = find_data_set(tmp_path)
    assert data_set.classes == ("throw", "kick")
    assert errors(data_set) == [
        "a: 'Throw' is another class than 'throw' (2 event(s), first: Labels-ball.json: annotations[1])"
    ]


def test_own_labels_without_a_list_are_sorted_with_a_note(tmp_path: Path) -> None:
    make_match(tmp_path / "a", labels=[(0, "kick", 1), (40, "PASS", 1)])
    data_set = find_data_set(tmp_path)
    assert data_set.classes == ("PASS", "kick")
    assert any(text.startswith("classes.txt: ") for text in notes(data_set))


def test_odd_label_in_one_soccernet_game_is_an_error(tmp_path: Path) -> None:
    games = list(SOCCERNET_BALL_SPLITS)[:3]
    for game in games:
        make_match(tmp_path / game, labels=[(0, "PASS", 1)])
    make_match(tmp_path / games[1], labels=[(0, "Pass", 1)])
    data_set = find_data_set(tmp_path)
    assert data_set.classes == SOCCERNET_BALL_CLASSES
    (text,) = errors(data_set)
    assert text.startswith(f"{games[1]}: 'Pass' is another class than 'PASS' (1 event(s)")


@pytest.mark.parametrize("label", ["pass", "PASS ", "Pass", "high-pass", "BALL_PLAYER_BLOCK", "THROWIN"])
def test_a_label_spelt_in_another_way_is_named_and_makes_no_class(tmp_path: Path, label: str) -> None:
    make_match(tmp_path / "a", labels=[(0, "PASS", 1), (40, "DRIVE", 1)])
    make_match(tmp_path / "b", labels=[(80, "DRIVE", 1), (40, label, 1)])
    data_set = find_data_set(tmp_path)
    assert data_set.classes == SOCCERNET_BALL_CLASSES
    (text,) = errors(data_set)
    assert text.startswith(f"b: {label!r} is another class than ")
    assert text.endswith("(1 event(s), first: Labels-ball.json: annotations[1])")


def test_own_classes_may_be_alike_but_are_named(tmp_path: Path) -> None:
    make_match(tmp_path / "a", labels=[(0, "kick", 1), (40, "kick", 1), (80, "head", 1), (120, "Kick ", 1)])
    data_set = find_data_set(tmp_path)
    assert data_set.classes == ("Kick ", "head", "kick")
    assert errors(data_set) == []
    assert "a: 'Kick ' is another class than 'kick' (1 event(s), first: Labels-ball.json: annotations[3])" in notes(
        data_set
    )
    make_match(tmp_path / "a", labels=[(0, "pass", 1), (40, "drive", 1), (80, "pass", 1), (120, "PASS", 1)])
    assert find_data_set(tmp_path).classes == ("PASS", "drive", "pass")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", b"a\na\n"])
def test_bad_classes_file(tmp_path: Path, content: bytes) -> None:
    make_match(tmp_path / "m", labels=[(0, "a", 1)])
    (tmp_path / "classes.txt").write_bytes(content)
    assert [text.startswith("classes.txt: ") for text in errors(find_data_set(tmp_path))] == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": [\n{"label": }]}', "Labels-ball.json: not valid JSON at line 2"),
        ("[]", "no list named 'annotations'"),
        ('{"annotations": {}}', "no list named 'annotations'"),
        ('{"annotations": [{"label": "PASS", "position": "x"}]}', "annotations[0]: position is not usable"),
        ('{"annotations": [{"label": "PASS", "position": 1e999}]}', "annotations[0]: position is not usable"),
        ('{"annotations": [' + ",".join(['{"label": "A"}'] * 9) + "]}", "6 more records"),
        ("[" * 100_000, "nested too deep"),
        ('{"annotations": ' + "1" * 5000 + "}", "not usable JSON"),
    ],
)
def test_bad_label_file_is_an_error_and_the_rest_goes_on(tmp_path: Path, text: str, message: str) -> None:
    (make_match(tmp_path / "a") / "Labels-ball.json").write_text(text)
    make_match(tmp_path / "b", labels=[(0, "PASS", 1)])
    data_set = find_data_set(tmp_path)
    assert any(message in text and text.startswith("a: ") for text in errors(data_set)), errors(data_set)
    assert data_set.classes == SOCCERNET_BALL_CLASSES


def test_good_records_of_a_bad_file_are_kept(tmp_path: Path) -> None:
    folder = make_match(tmp_path / "a")
    (folder / "Labels-ball.json").write_text(
        '{"annotations": [{"label": "PASS", "position": "40"}, {"label": "PASS"}]}'
    )
    data_set = find_data_set(tmp_path)
    assert len(data_set.events(data_set.matches[0]) or []) == 1
    assert any("annotations[1]" in text for text in errors(data_set))


def test_identical_events_are_an_error(tmp_path: Path) -> None:
    make_match(tmp_path / "a", labels=[(40, "PASS", 1), (40, "PASS", 1), (40, "DRIVE", 1), (40, "PASS", 2)])
    (text,) = errors(find_data_set(tmp_path))
    assert text == "a: 1 event(s) more than once (first: PASS at 40 ms)"


@pytest.mark.parametrize(("url", "agrees"), [("", True), ("x/y", True), ("y/", True), ("a/x/y", True), ("z/y", False)])
def test_url_local(tmp_path: Path, url: str, agrees: bool) -> None:
    folder = make_match(tmp_path / "x" / "y")
    (folder / "Labels-ball.json").write_text(json.dumps({"UrlLocal": url, "annotations": []}))
    assert any("UrlLocal" in text for text in notes(find_data_set(tmp_path))) is not agrees


def test_zip_that_was_not_unzipped(tmp_path: Path) -> None:
    (tmp_path / "train.zip").touch()
    alone = find_data_set(tmp_path)
    assert errors(alone) == [
        "train.zip: a zip file that was not unzipped",
        ".: no match: no folder with a video or Labels-ball.json",
    ]
    assert "password" in alone.findings[0].cure
    make_match(tmp_path / "test" / "a", labels=[])
    assert any("train.zip" in text for text in notes(find_data_set(tmp_path)))
    make_match(tmp_path / "train" / "b", labels=[])
    assert not any("train.zip" in text for text in notes(find_data_set(tmp_path)))


@pytest.mark.parametrize("kind", ["missing", "file", "zip", "store"])
def test_root_that_cannot_be_a_data_set(tmp_path: Path, kind: str) -> None:
    root = tmp_path / ("train.zip" if kind == "zip" else "root")
    if kind in ("file", "zip"):
        root.touch()
    elif kind == "store":
        root.mkdir()
        (root / "zarr.json").touch()
    with pytest.raises(InputError) as caught:
        find_data_set(root)
    assert caught.value.cure


def test_hidden_folders_and_stores_are_skipped(tmp_path: Path) -> None:
    for name in (".hidden", "__MACOSX", "store"):
        make_match(tmp_path / name / "m")
    (tmp_path / "store" / "zarr.json").touch()
    assert find_data_set(tmp_path).matches == ()


def test_links_are_followed_without_loops(tmp_path: Path) -> None:
    make_match(tmp_path / "elsewhere" / "a", labels=[])
    root = tmp_path / "root"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    data_set = find_data_set(root)
    assert [(match.id, match.split) for match in data_set.matches] == [("a", "train")]
    assert errors(data_set) == []


def test_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    (make_match(tmp_path / "a", videos=(), labels=[]) / "224p.mp4").symlink_to(tmp_path / "gone")
    assert "a: '224p.mp4': a link to a file that does not exist" in errors(find_data_set(tmp_path))


@pytest.mark.parametrize("name", [b"bad\xff", b"esc\x1b[31m"])
def test_folder_names_that_are_not_text(tmp_path: Path, name: bytes) -> None:
    import os

    folder = os.fsencode(tmp_path) + b"/" + name
    try:
        os.mkdir(folder)  # noqa: PTH102
    except OSError:
        pytest.skip("this file system refuses the name")
    make_match(tmp_path / "good", labels=[])
    data_set = find_data_set(tmp_path)
    assert [match.id for match in data_set.matches] == ["good"]
    assert any("folder name is not text" in text for text in errors(data_set))


def test_ids_are_composed_unicode(tmp_path: Path) -> None:
    make_match(tmp_path / "Mu\u0308nchen")
    assert find_data_set(tmp_path).matches[0].id == "M\u00fcnchen"


def test_sources_join_roots_and_files(tmp_path: Path) -> None:
    make_match(tmp_path / "train" / "a", labels=[(0, "PASS", 1)])
    single = make_match(tmp_path / "more", videos=("My Game.mp4",)) / "My Game.mp4"
    data_set = find_sources([tmp_path / "train", single])
    assert data_set.matches == (
        Match("My Game", single, None, None, None),
        Match("a", tmp_path / "train/a/224p.mp4", tmp_path / "train/a/Labels-ball.json", "train", None),
    )
    assert data_set.classes == SOCCERNET_BALL_CLASSES
    assert data_set.root == tmp_path
    data_set.raise_errors()


def test_sources_collect_all_errors(tmp_path: Path) -> None:
    make_match(tmp_path / "one" / "a", labels=[(0, "PASS", 1)])
    make_match(tmp_path / "two" / "A", labels=[(0, "kick", 1)])
    (tmp_path / "text.txt").touch()
    data_set = find_sources([tmp_path / "one", tmp_path / "two", tmp_path / "text.txt", tmp_path / "gone"])
    text = "\n".join(errors(data_set))
    for part in ("not a video file", "no such folder", "the same match in two sources", "different classes"):
        assert part in text
    with pytest.raises(InputError, match="4 error"):
        data_set.raise_errors()


@pytest.mark.shared
def test_every_real_label_is_found(shared_data: Path) -> None:
    data_set = find_data_set(shared_data / "snbas")
    assert [match.split for match in data_set.matches].count("train") == 4
    assert sum(len(data_set.events(match) or []) for match in data_set.matches) == 6849 + 1604


@pytest.mark.parametrize(
    ("name", "match_id"),
    [("clip.mp4", "clip"), ("224p.mp4", "Home - Away"), ("720p.mkv", "Home - Away"), ("2_720p.mkv", "Home - Away/2")],
)
def test_a_file_with_a_name_that_every_match_has_is_called_after_its_folder(
    name: str, match_id: str, tmp_path: Path
) -> None:
    (tmp_path / "Home - Away").mkdir()
    video = tmp_path / "Home - Away" / name
    video.write_bytes(b"x")
    assert [match.id for match in find_sources([video]).matches] == [match_id]


def test_a_folder_of_clips_is_one_match_per_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv", "c.mov"):
        (tmp_path / name).write_bytes(b"x")
    data_set = find_data_set(tmp_path)
    assert [(match.id, match.video) for match in data_set.matches] == [
        ("a", tmp_path / "a.mp4"),
        ("b", tmp_path / "b.mkv"),
        ("c", tmp_path / "c.mov"),
    ]
    data_set.raise_errors()


@pytest.mark.parametrize("name", ["Labels-ball.json", "splits.json", "classes.txt"])
def test_files_that_a_windows_editor_saved_read_as_they_were(tmp_path: Path, name: str) -> None:
    folder = make_match(tmp_path / "m", labels=[(40, "kick", 1), (80, "head", 1)])
    (tmp_path / "splits.json").write_text('{\n "test": ["m"]\n}\n')
    (tmp_path / "classes.txt").write_text("kick\nhead\n")
    before = find_data_set(tmp_path)
    path = (folder if name.startswith("Labels") else tmp_path) / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert find_data_set(tmp_path) == before
    assert before.classes == ("kick", "head")
    assert before.matches[0].split == "test"
    path.write_text(path.read_text("utf-8-sig"), "utf-16")  # Notepad's "Unicode"
    assert "not UTF-8 text" in errors(find_data_set(tmp_path))[0]


@pytest.mark.parametrize("name", ["val", "Validation", "VALID"])
def test_other_names_of_the_split_valid(tmp_path: Path, name: str) -> None:
    make_match(tmp_path / "by folder" / name / "m")
    make_match(tmp_path / "by file" / "m")
    (tmp_path / "by file" / "splits.json").write_text(json.dumps({name: ["m"]}))
    for root in (tmp_path / "by folder", tmp_path / "by folder" / name, tmp_path / "by file"):
        data_set = find_data_set(root)
        assert [(match.id, match.split) for match in data_set.matches] == [("m", "valid")]
        assert errors(data_set) == []
    assert known_splits(["test", name]) == ("valid", "test")
