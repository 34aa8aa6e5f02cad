"""Score files: what is read, where each half's rows lie, and what is refused."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.convert.importing import DERIVED, SourceMatch
from bas.cache.convert.offsets import OFFSETS_NAME, Offsets, read_offsets
from bas.cache.convert.scores import HALF_NAMES, WHOLE_NAME, load_scores, read_scores
from bas.errors import InputError

MARGIN = 3
LENGTHS = (40, 50)
"""Frames of the halves; scores are there for MARGIN .. length - MARGIN."""


def frames_of(length: int) -> Any:
    return np.arange(MARGIN, length - MARGIN + 1, dtype=np.int32)


def values_of(frames: Any, half: int, channels: int = 2) -> Any:
    """A number that tells half, frame and channel; exact in float16."""
    return (100 * (half - 1) + frames[:, None] + np.arange(channels) / 4).astype(np.float16)


def write(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A match of two halves."""
    for half, (name, length) in enumerate(zip(HALF_NAMES, LENGTHS, strict=True), start=1):
        frames = frames_of(length)
        write(tmp_path / "liga" / "a" / name, frame_indexes=frames, scores=values_of(frames, half))
    return tmp_path / "liga" / "a"


def match(folder: Path) -> SourceMatch:
    return SourceMatch("liga/a", folder, None, None)


def test_halves_are_joined_on_the_clock_of_the_match(folder: Path) -> None:
    source = load_scores(match(folder), Offsets())
    assert (source.half1_offset_frames, source.offset_from) == (40, DERIVED)
    assert (source.num_rows, source.dim) == (90, 2)
    assert list(np.flatnonzero(~source.valid)) == [0, 1, 2, 38, 39, 40, 41, 42, 88, 89]
    rows = source.read(0, 90)
    assert not rows[~source.valid].any()
    for row, half, frame in ((3, 1, 3), (37, 1, 37), (43, 2, 3), (87, 2, 47)):
        assert rows[row].tolist() == [100 * (half - 1) + frame, 100 * (half - 1) + frame + 0.25]
    assert [file["name"] for file in source.files] == list(HALF_NAMES)
    assert [file["bytes"] for file in source.files] == [(folder / name).stat().st_size for name in HALF_NAMES]


def test_rows_within_a_half_may_be_missing(folder: Path) -> None:
    frames = np.array([3, 10, 30])
    write(folder / HALF_NAMES[0], frame_indexes=frames, scores=values_of(frames, 1))
    source = load_scores(match(folder), Offsets())
    assert source.half1_offset_frames == 33
    assert list(np.flatnonzero(source.valid)[:4]) == [3, 10, 30, 36]


def test_a_match_in_one_piece(tmp_path: Path) -> None:
    write(tmp_path / WHOLE_NAME, frame_indexes=np.arange(0, 7), scores=np.ones((7, 3), np.float32))
    source = load_scores(match(tmp_path), Offsets("o.json", {"a": {"half1_offset_frames": 3}}))
    assert (source.half1_offset_frames, source.offset_from) == (None, "")
    assert (source.num_rows, source.dim) == (7, 3)
    assert source.valid.all()


@pytest.mark.parametrize("games", [{"liga/a": {"half1_offset_frames": 60}}, {"a": 60}, {"a": {"x": 1}, "liga/a": 60}])
def test_an_offset_that_a_file_names_wins(folder: Path, games: dict[str, object]) -> None:
    root = folder.parents[1]
    (root / OFFSETS_NAME).write_text(json.dumps({"games": games}))
    source = load_scores(match(folder), read_offsets(root, None, ["liga/a"]))
    assert (source.half1_offset_frames, source.offset_from) == (60, OFFSETS_NAME)
    assert source.num_rows == 110
    assert source.read(63, 64)[0, 0] == 103
    assert not source.valid[38:63].any()


def test_the_offsets_file_given_is_read_in_the_place_of_the_roots(folder: Path, tmp_path: Path) -> None:
    (tmp_path / OFFSETS_NAME).write_text("broken")
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"games": {"a": 41, "another": 7}}))
    source = load_scores(match(folder), read_offsets(tmp_path, mine, ["liga/a"]))
    assert (source.half1_offset_frames, source.offset_from) == (41, "mine.json")


def test_games_that_the_roots_file_does_not_name_are_derived(folder: Path, tmp_path: Path) -> None:
    (tmp_path / OFFSETS_NAME).write_text(json.dumps({"games": {"b": 60, "a": {"fold": 1}}}))
    assert load_scores(match(folder), read_offsets(tmp_path, None, ["liga/a"])).offset_from == DERIVED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("broken", "not valid JSON"),
        ("[1]", "no offsets"),
        ('{"games": 3}', "no offsets"),
        ('{"games": {"a": {"half1_offset_frames": 0}}}', "offset is not usable"),
        ('{"games": {"a": {"half1_offset_frames": true}}}', "offset is not usable"),
        ('{"games": {"a": "60"}}', "offset is not usable"),
        ('{"games": {"a": 1e3}}', "offset is not usable"),
        ('{"games": {"other": 60}}', "names no match at hand"),
    ],
)
def test_an_offsets_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "offsets.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_offsets(tmp_path, path, ["liga/a"])
    with pytest.raises(InputError, match="cannot be read"):
        read_offsets(tmp_path, tmp_path / "absent.json", ["liga/a"])


def test_the_second_half_cannot_begin_inside_the_first(folder: Path) -> None:
    assert load_scores(match(folder), Offsets("o.json", {"a": {"half1_offset_frames": 38}})).half1_offset_frames == 38
    with pytest.raises(InputError, match="would begin inside the first"):
        load_scores(match(folder), Offsets("o.json", {"a": {"half1_offset_frames": 37}}))


def test_an_offset_that_cannot_be_derived(folder: Path) -> None:
    write(folder / HALF_NAMES[0], frame_indexes=np.arange(40), scores=np.ones((40, 2), np.float16))
    with pytest.raises(InputError, match="where the second half begins is not known") as caught:
        load_scores(match(folder), Offsets())
    assert '--offsets FILE with {"games": {"liga/a"' in caught.value.cure
    assert load_scores(match(folder), Offsets("o.json", {"a": {"half1_offset_frames": 40}})).half1_offset_frames == 40


def test_halves_that_differ_in_channels(folder: Path) -> None:
    frames = frames_of(50)
    write(folder / HALF_NAMES[1], frame_indexes=frames, scores=values_of(frames, 2, channels=3))
    with pytest.raises(InputError, match="halves differ in channels") as caught:
        load_scores(match(folder), Offsets())
    assert caught.value.got == "2 and 3"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_half_is_missing(folder: Path, missing: int) -> None:
    (folder / HALF_NAMES[missing]).unlink()
    with pytest.raises(InputError, match="not whole") as caught:
        load_scores(match(folder), Offsets())
    assert caught.value.got == HALF_NAMES[1 - missing]


def test_halves_and_a_whole(folder: Path) -> None:
    write(folder / WHOLE_NAME, frame_indexes=np.arange(3), scores=np.ones((3, 2)))
    with pytest.raises(InputError, match="not whole"):
        load_scores(match(folder), Offsets())


GOOD: dict[str, Any] = {"frame_indexes": np.arange(3, 7, dtype=np.int32), "scores": np.ones((4, 2), np.float16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_indexes": None}, "missing frame_indexes"),
        ({"scores": None}, "missing scores"),
        ({"scores": np.ones(4)}, "arrays do not fit"),
        ({"scores": np.ones((4, 0))}, "arrays do not fit"),
        ({"scores": np.ones((5, 2))}, "arrays do not fit"),
        ({"scores": np.ones((4, 2), int)}, "arrays do not fit"),
        ({"scores": np.ones((4, 2), complex)}, "arrays do not fit"),
        ({"frame_indexes": np.arange(8).reshape(4, 2)}, "arrays do not fit"),
        ({"frame_indexes": np.arange(0), "scores": np.ones((0, 2))}, "arrays do not fit"),
        ({"frame_indexes": np.arange(4.0)}, "not whole numbers"),
        ({"frame_indexes": np.array([3, 4, 4, 5])}, "do not increase"),
        ({"frame_indexes": np.array([3, 5, 4, 6], np.uint8)}, "do not increase"),
        ({"frame_indexes": np.array([-1, 0, 1, 2])}, "out of range"),
        ({"frame_indexes": np.array([1, 2, 3, 2**63], np.uint64)}, "out of range"),
        ({"frame_indexes": np.array([1, 2, 3, 2**40])}, "out of range"),
        ({"scores": np.array([[0, 1], [1, np.nan], [0, 0], [1, 1]])}, "frame 4, channel 1 is not finite"),
        ({"scores": np.array([[0, 1], [1, 1], [-np.inf, 0], [1, 1]], np.float16)}, "frame 5, channel 0 is not finite"),
        ({"scores": np.array([[0, 1], [1, 1], [0, 0], [1e5, 1]])}, "frame 6, channel 0 is not finite as float16"),
        ({"scores": np.array([[{}]] * 4)}, "damaged"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_scores(write(tmp_path / WHOLE_NAME, **arrays))
    assert read_scores(write(tmp_path / WHOLE_NAME, **GOOD)).num_frames == 9


def plain_array(_: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def other_zip(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("frame_indexes.npy", "not an array")
        archive.writestr("scores.npy", "not an array")
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"PK\x03\x04 and no more",
        lambda data: data[: len(data) // 2],
        plain_array,
        lambda data: data[:60] + bytes(40) + data[100:],
        other_zip,
    ],
)
def test_files_that_are_no_npz(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / HALF_NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        read_scores(path)
