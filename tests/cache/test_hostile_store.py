"""Stores that come from elsewhere: claims that are not true, links, pipes, names. All end in an InputError, at once."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.cache.match import info
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

Change = Callable[[Any], None]


def edit(path: Path, value: str, *place: str | int) -> None:
    """Put JSON text at a place of a JSON file."""
    document = json.loads(path.read_text())
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = "@@"
    path.write_text(json.dumps(document).replace('"@@"', value))


def read_all(store: FeatureStore) -> None:
    """Whatever a command may read of match a."""
    match = store.match("a")
    match.meta.events()
    assert match.seconds >= 0
    store.pts("a")
    store.valid("a")
    store.rows("a")[0:50].sum()
    info(store)


def refused(maker: Any) -> str:
    """Why the store cannot be read; `verify` finds something as well, and never raises."""
    assert any(finding.severity == "error" for finding in verify(maker.path))
    with pytest.raises(InputError) as error:
        read_all(FeatureStore.open(maker.path))
    return str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("num_rows", value) for value in ("1000000000000000000", "601", "true", "9" * 4000)),
        *(("fps", value) for value in ('"1e1000000000"', '"1/0"', "25")),
        *(("time_base", '"1e-1000000000"'), ("origin_ticks", "1e999"), ("video", "5"), ("split", '"training"')),
        *(("labels", value) for value in ("5", "[5]", '[{"label": "x", "position": 1e999}]')),
        *(("labels", f'[{{"label": "{text}", "position": "5"}}]') for text in ("\\u001b[2J", "\\ud800")),
    ],
)
def test_hostile_match_records_are_refused(maker: Any, field: str, value: str) -> None:
    maker.match()
    edit(maker.path / "a" / "zarr.json", value, "attributes", "bas_match", field)
    assert refused(maker)


@pytest.mark.parametrize("shape", [[10**18, 10**18], [2**40, 6], [600, 10**9], [6] * 40, [599, 6]])
@pytest.mark.parametrize("is_ours", [True, False])
def test_hostile_shapes_are_refused(maker: Any, shape: list[int], is_ours: bool) -> None:
    maker.match()
    path = maker.path / "a" / "features" / "identity" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["shape"] = shape
    if is_ours and len(shape) == 2:
        chunks = -(-max(shape[0], 1) // 256) * 256
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [chunks, shape[1]]
        metadata["codecs"][0]["configuration"]["chunk_shape"] = [256, shape[1]]
    path.write_text(json.dumps(metadata))
    refused(maker)


FILES = ("zarr.json", "a/zarr.json", "a/features/identity/c/0/0")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "circle", "device", "folder"])
def test_what_is_no_file_is_refused_without_waiting(maker: Any, name: str, kind: str) -> None:
    maker.match()
    path = maker.path / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    refused(maker)


@pytest.mark.parametrize("name", ["zarr.json", "a/zarr.json", "a/pts/c/0"])
def test_files_of_gigabytes_are_not_read(maker: Any, name: str) -> None:
    maker.match()
    os.truncate(maker.path / name, 1 << 36)  # takes no room on the disk
    assert "68,719,476,736 bytes" in refused(maker)


@pytest.mark.parametrize("place", [".", "a"])
def test_folders_without_end_are_refused(maker: Any, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    maker.match()
    monkeypatch.chdir(maker.path / place)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    monkeypatch.chdir("/")
    assert any("deep" in finding.message for finding in verify(maker.path))
    if place == ".":
        with pytest.raises(InputError, match="nested too deep"):
            FeatureStore.open(maker.path).matches()
    monkeypatch.undo()
    os.system(f"rm -rf {maker.path}")  # shutil gives up on so many


@pytest.mark.parametrize("name", [b"\x1b]0;pwn\x07", b"\xff\xfe", b"con", b"x ", b"a:b", b"pts"])
def test_names_that_are_no_ids_are_refused(maker: Any, name: bytes) -> None:
    maker.match()
    os.rename(os.fsencode(maker.path / "a"), os.fsencode(maker.path) + b"/" + name)  # noqa: PTH104 (not UTF-8)
    with pytest.raises(InputError, match="match id is not usable") as error:
        FeatureStore.open(maker.path).matches()
    assert str(error.value).replace("\n", "").isprintable()
    assert [finding.severity for finding in verify(maker.path)] == ["error"]


def test_a_match_of_another_user_is_one_error_and_the_others_go_on(
    bas: Callable[..., int],
    pulse_store: Callable[..., Path],
    lock_away: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = pulse_store(tmp_path / "s.zarr")
    assert bas("cache", "info", path) == 0
    lock_away(path / "m-valid")
    for command in ("info", "verify"):
        capsys.readouterr()
        assert bas("cache", command, path) == 2
        said = " ".join(capsys.readouterr().out.split())
        assert said.count("Permission denied") == 1
        assert "error m-valid: " in said
    store = FeatureStore.open(path)
    assert [line.match for line in info(store).matches] == ["m-test", "m-train"]
    assert store.matches() == ["m-test", "m-train", "m-valid"]
    for read in (store.match, store.rows, store.pts, store.views):
        with pytest.raises(InputError, match="Permission denied"):
            read("m-valid")
    assert bas("cache", "push", path, tmp_path / "pushed.zarr") == 2
    assert FeatureStore.open(tmp_path / "pushed.zarr").matches() == ["m-test", "m-train"]


@pytest.mark.parametrize("command", ["cache info", "cache verify", "eval", "report"])
def test_a_store_of_another_user_is_one_error(
    bas: Callable[..., int],
    pulse_store: Callable[..., Path],
    lock_away: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    path = pulse_store(tmp_path / "s.zarr")
    lock_away(path)
    more: dict[str, list[object]] = {"eval": [path], "report": ["--out", tmp_path / "out"]}
    assert bas(*command.split(), path, *more.get(command, [])) == 2
    captured = capsys.readouterr()
    assert "Permission denied" in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("kind", ["file", "unknown"])
def test_no_folder_to_cache_in_is_one_error(
    bas: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, kind: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("BAS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    if kind == "unknown":  # no HOME, and a user whom the system does not know
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    url = "http://127.0.0.1:9/x.zarr"
    assert bas("predict", url, "--run", tmp_path, "--out", tmp_path / "out") == 2
    assert ("Not a directory" if kind == "file" else "set BAS_CACHE") in capsys.readouterr().err
