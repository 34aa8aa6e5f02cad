"""Writing: resumed work equals uninterrupted work, one owner, full disks, values that do not fit."""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError
from bas.files import MatchBusy

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("crash_child.py")
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / ".typing"),
    "PATH": os.environ["PATH"],
    "PYTHONWARNINGS": "error",
    "PYTHONDONTWRITEBYTECODE": "1",
}


WRITE = f"""
import sys; sys.path.insert(0, {str(CHILD.parent)!r})
from crash_child import *
meta = MatchMeta(fps=Fraction(25), time_base=Fraction(1, 12800), origin_ticks=0)
def write(store, match_id):
    with store.writer(match_id, num_rows=2, pts_ticks=[0, 1], match_meta=meta, provenance={{}}) as writer:
        writer.append({{"identity": np.zeros((2, store.settings.dim), "f4")}}, np.ones(2, bool))
        writer.commit()
"""


def run_child(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begin(maker: Any, num_rows: int, stop: int, **changes: Any) -> None:
    """Append the first `stop` rows and leave without commit."""
    with maker.writer(num_rows=num_rows, **changes) as writer:
        writer.append({"identity": maker.rows(num_rows)[:stop]}, np.ones(stop, bool))


def finish(maker: Any, num_rows: int, **changes: Any) -> tuple[int, str]:
    """Append what is missing, commit; (rows that were kept, why it was begun anew)."""
    with maker.writer(num_rows=num_rows, **changes) as writer:
        done = writer.rows_done
        writer.append({"identity": maker.rows(num_rows)[done:]}, np.ones(num_rows - done, bool))
        writer.commit()
        return done, writer.restarted_because


@pytest.fixture
def whole(maker: Any, tree: Callable[[Path], Any]) -> Any:
    """Tree of a store with match a, 1000 rows, written without interruption; the folder is gone again."""
    maker.match(num_rows=1000)
    files = tree(maker.path)
    shutil.rmtree(maker.path)
    return files


@pytest.mark.parametrize("stop", [0, 1, 255, 256, 257, 511, 512, 768, 999, 1000])
def test_resumed_equals_uninterrupted(maker: Any, tree: Callable[[Path], Any], whole: Any, stop: int) -> None:
    begin(maker, 1000, stop)
    assert maker.store().matches() == []
    assert finish(maker, 1000) == (stop // 256 * 256, "")
    assert tree(maker.path) == whole


@pytest.mark.parametrize("extra", [-7000, -6145, -6144, -1, 1, 11, 12, 3071, 3072, 9000])
def test_torn_shards_are_cut_or_begun_anew(maker: Any, tree: Callable[[Path], Any], whole: Any, extra: int) -> None:
    begin(maker, 1000, 512)
    path = next((maker.path / ".partial").rglob("features/identity/c/0/0"))
    assert path.stat().st_size == 512 * 12
    data = path.read_bytes()
    path.write_bytes(data + b"torn" * (extra // 4 + 1) if extra > 0 else data[:extra])
    done, why = finish(maker, 1000)
    assert (done, bool(why)) == ((512, False) if extra > 0 else (0, True))
    assert tree(maker.path) == whole


@pytest.mark.parametrize("place", [0, 1, 100, 3071, 3072, 6143])
@pytest.mark.parametrize("name", ["features/identity/c/0/0", "valid/c/0"])
def test_saved_rows_that_changed_are_not_kept(maker: Any, place: int, name: str) -> None:
    begin(maker, 1000, 512)
    path = next((maker.path / ".partial").rglob(name))
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.write_bytes(data)
    done, why = finish(maker, 1000)
    assert done == 0
    assert "checksum" in why
    assert verify(maker.path) == []


@pytest.mark.parametrize("journal", [None, "", "{", "[]", '{"match": "a"}', '{"match": "../../x", "rows_done": 1}'])
def test_a_lost_journal_begins_anew(maker: Any, tree: Callable[[Path], Any], whole: Any, journal: str | None) -> None:
    begin(maker, 1000, 512)
    path = next((maker.path / ".partial").rglob("journal.json"))
    path.unlink() if journal is None else path.write_text(journal)
    assert finish(maker, 1000)[0] == 0
    assert tree(maker.path) == whole


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"provenance": {"engine": "other"}}, "provenance was {'engine': 'test'}, now {'engine': 'other'}"),
        ({"pts_ticks": np.arange(1000) * 256}, "pts_sha256"),
        ({"resume": False}, "turned off"),
    ],
)
def test_work_begun_otherwise_is_discarded_and_said(maker: Any, changes: dict[str, Any], word: str) -> None:
    begin(maker, 1000, 600)
    done, why = finish(maker, 1000, **changes)
    assert done == 0
    assert word in why
    assert verify(maker.path) == []


def test_another_video_is_said_alone(maker: Any) -> None:
    begin(maker, 1000, 600, match_meta=maker.meta(video={"bytes": 6, "sha256": "cd"}))
    with maker.writer(num_rows=1001, match_meta=maker.meta(video={"bytes": 7, "sha256": "cd"})) as writer:
        assert "video was" in writer.restarted_because
        assert "num_rows" not in writer.restarted_because


def test_progress_is_saved_at_most_every_so_often(maker: Any) -> None:
    begin(maker, 1000, 600, journal_seconds=100.0)
    with maker.writer(num_rows=1000) as writer:
        assert (writer.rows_done, writer.restarted_because) == (0, "")


def test_rows_are_on_the_disk_before_the_journal_says_so(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_replace = Path.replace

    def replace(path: Path, target: Path) -> Path:
        done.append(f"replace {Path(target).name}")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: done.append(Path(f"/proc/self/fd/{handle}").resolve().as_posix()))
    monkeypatch.setattr(Path, "replace", replace)
    with maker.writer(num_rows=600) as writer:
        del done[:]
        writer.append({"identity": maker.rows(600)[:256]}, np.ones(256, bool))
        names = [re.sub(r".*/match/", "", name) for name in done]
        assert names[:2] == ["features/identity/c/0/0", "valid/c/0"]
        assert Path(names[2]).name.startswith(".journal.json.")
        assert names[3] == "replace journal.json"
        assert len(names) == 5  # and the folder


@pytest.mark.parametrize(("step", "least"), [(31, 1), pytest.param(3, 400, marks=pytest.mark.slow)])
def test_points_where_a_process_can_vanish(tmp_path: Path, step: int, least: int) -> None:
    child = run_child("points", tmp_path, step)
    output, errors = child.communicate(timeout=900)
    assert child.returncode == 0, errors
    assert int(output) > least


def kill_at_random(path: Path, random_source: random.Random) -> None:
    """Start the writer, kill it a random time after its first sign of life; what it said was saved stays."""
    child = run_child("write", path, 4000)
    assert child.stdout is not None
    first = child.stdout.readline()
    if first:
        time.sleep(random_source.uniform(0, 0.12))
    child.send_signal(signal.SIGKILL)
    said = ((first or "") + child.communicate()[0]).splitlines()
    assert child.returncode in (0, -signal.SIGKILL)
    if said and said[-1].count("\t") == 3 and child.returncode:
        again = run_child("write", path, 4000)
        assert again.stdout is not None
        line = again.stdout.readline().rstrip("\n")
        again.send_signal(signal.SIGKILL)
        again.communicate()
        match, views, rows, _ = said[-1].split("\t")
        if line.startswith(f"{match}\t{views}\t"):
            assert int(line.split("\t")[2]) >= int(rows)
            assert line.split("\t")[3] == ""


def write_whole(path: Path) -> Path:
    """All that the child writes, or what is missing of it."""
    child = run_child("write", path, 4000)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("whole") / "store")


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 16))])
def test_killed_again_and_again_equals_uninterrupted(
    tmp_path: Path, tree: Callable[[Path], Any], uninterrupted: Path, seed: int
) -> None:
    source = random.Random(seed)
    for _ in range(2):
        kill_at_random(tmp_path / "killed", source)
    assert tree(write_whole(tmp_path / "killed")) == tree(uninterrupted)
    assert verify(tmp_path / "killed") == []


def test_a_match_has_one_writer(maker: Any) -> None:
    code = WRITE + f"store = FeatureStore.open({str(maker.path)!r}); write(store, 'b'); write(store, 'a')"
    with maker.writer(num_rows=300) as writer:
        done = subprocess.run(
            [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert "MatchBusy" in done.stderr
        assert re.search(rf"got: +pid {os.getpid()} on \S+", done.stderr)
        with pytest.raises(MatchBusy):
            maker.writer(num_rows=300)
        writer.append({"identity": maker.rows(300)}, np.ones(300, bool))
        writer.commit()
    assert maker.store().matches() == ["a", "b"]
    assert verify(maker.path) == []
    assert not (maker.path / ".partial").exists()


def test_many_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    code = f"""{WRITE}
for turn in range(15):
    store = FeatureStore.create_or_open({str(tmp_path / "s")!r}, SETTINGS, classes=(), software={{}})
    write(store, "liga/" + sys.argv[1] + "/" + str(turn))
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert len(FeatureStore.open(tmp_path / "s").matches()) == 60
    assert verify(tmp_path / "s") == []
    assert not (tmp_path / "s" / ".partial").exists()


def test_views_are_added_to_a_match(maker: Any, tree: Callable[[Path], Any]) -> None:
    maker.match(num_rows=600)
    before = tree(maker.path)
    rows = maker.rows(600, seed=1)
    for stop in (300, 600):
        with maker.writer(num_rows=600, views=("hflip",), match_meta=maker.meta(labels=None)) as writer:
            writer.append({"hflip": rows[writer.rows_done : stop]}, np.ones(stop - writer.rows_done, bool))
            if stop == 600:
                writer.commit()
    store = maker.store()
    assert store.views("a") == ["hflip", "identity"]
    np.testing.assert_array_equal(store.rows("a", view="hflip")[:], rows.astype(np.float16))
    assert {name: tree(maker.path)[name] for name in before} == before
    assert verify(maker.path) == []


def test_views_that_do_not_fit_the_match_are_refused(maker: Any) -> None:
    maker.match(num_rows=600)
    hflip = {"num_rows": 600, "views": ("hflip",)}
    with pytest.raises(InputError, match=r"(?s)in the store already.*identity"):
        maker.writer(num_rows=600, views=("hflip", "identity"))
    with pytest.raises(InputError, match="pts differ"):
        maker.writer(**hflip, pts_ticks=np.arange(600))
    with pytest.raises(InputError, match="another video"):
        maker.writer(**hflip, match_meta=maker.meta(video={"bytes": 6}))
    with maker.writer(**hflip) as writer:
        writer.append({"hflip": maker.rows(600)}, np.zeros(600, bool))
        with pytest.raises(InputError, match="other frames are valid"):
            writer.commit()
    assert maker.store().views("a") == ["identity"]


def test_matches_do_not_nest(maker: Any) -> None:
    maker.match("x/a")
    for match_id, word in (
        ("x", "folder of other matches"),
        ("x/a/b", "inside a match"),
        ("x/a/b/d", "inside a match"),
    ):
        with pytest.raises(InputError, match=word):
            maker.writer(match_id, num_rows=10)


def test_left_overs_of_a_finished_match_are_cleared(maker: Any, tree: Callable[[Path], Any], whole: Any) -> None:
    begin(maker, 1000, 512)
    shutil.copytree(maker.path / ".partial", maker.path.parent / "kept")
    finish(maker, 1000)
    shutil.copytree(maker.path.parent / "kept", maker.path / ".partial")
    (maker.path / ".partial" / "root.json").write_text("left by a kill")
    maker.store()
    assert tree(maker.path) == whole


def test_unfinished_work_of_others_is_left_alone(maker: Any) -> None:
    begin(maker, 1000, 512)
    maker.store()
    assert finish(maker, 1000)[0] == 512


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 70000.0, -1e30])
def test_values_that_float16_cannot_hold_are_refused(maker: Any, value: float) -> None:
    rows = maker.rows(600)
    rows[431, 4] = value
    with maker.writer(num_rows=600) as writer:
        writer.append({"identity": rows[:400]}, np.ones(400, bool))
        with pytest.raises(InputError, match="match 'a', view identity: row 431, channel 4 is not finite"):
            writer.append({"identity": rows[400:]}, np.ones(200, bool))
        writer.append({"identity": maker.rows(600)[400:]}, np.ones(200, bool))  # nothing of the bad rows was taken
        writer.commit()
    np.testing.assert_array_equal(maker.store().rows("a")[:], maker.rows(600).astype(np.float16))


def test_rows_that_do_not_fit_are_refused(maker: Any) -> None:
    rows, valid = maker.rows(10), np.ones(10, bool)
    with maker.writer(num_rows=10, match_meta=maker.meta(labels=())) as writer:
        for bad_rows, bad_valid in [
            ({"identity": rows[:, :5]}, valid),
            ({"identity": rows[:9]}, valid),
            ({"identity": rows.astype(int)}, valid),
            ({"hflip": rows}, valid),
            ({}, valid),
            ({"identity": rows, "hflip": rows}, valid),
            ({"identity": rows}, valid.astype(int)),
            ({"identity": rows}, np.ones((10, 1), bool)),
            ({"identity": maker.rows(11)}, np.ones(11, bool)),
        ]:
            with pytest.raises(InputError):
                writer.append(bad_rows, bad_valid)
        with pytest.raises(InputError, match="rows are missing"):
            writer.commit()
        writer.append({"identity": rows}, valid)
        writer.commit()
        with pytest.raises(InputError, match="closed"):
            writer.append({"identity": rows[:0]}, valid[:0])
    assert verify(maker.path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rows": 0, "pts_ticks": []},
        {"pts_ticks": np.arange(9)},
        {"pts_ticks": np.arange(10.0)},
        {"pts_ticks": np.arange(10)[::-1]},
        {"views": ()},
        {"views": ("identity", "identity")},
        {"views": ("../x",)},
        {"provenance": {"bad": float("nan")}},
    ],
)
def test_jobs_that_make_no_sense_are_refused(maker: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        maker.writer(**({"num_rows": 10} | changes))
    assert not (maker.path / ".partial").exists()


@pytest.mark.parametrize(
    "changes", [{"split": "x"}, {"time_base": 0}, {"fps": 25}, {"extra": {"fps": 1}}, {"video": {"x": object()}}]
)
def test_records_that_make_no_sense_are_refused(maker: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        maker.writer(num_rows=10, match_meta=maker.meta(**changes))


@contextlib.contextmanager
def file_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `num_bytes`: writes there fail half done, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("num_bytes", [5000, 6144, 6145, 7001, 12000, 12030])
def test_a_full_disk_keeps_what_was_saved(maker: Any, tree: Callable[[Path], Any], whole: Any, num_bytes: int) -> None:
    rows = maker.rows(1000)
    with maker.writer(num_rows=1000) as writer, file_limit(num_bytes):
        with pytest.raises(InputError, match=r"(?s)file size limit.*free some space"):  # noqa: PT012 (any of them)
            for start in range(0, 1000, 100):
                writer.append({"identity": rows[start : start + 100]}, np.ones(100, bool))
            writer.commit()
        with pytest.raises(InputError, match="closed"):
            writer.commit()
    done, why = finish(maker, 1000)
    assert (done, why) == (min(num_bytes // 3072 * 256, 768), "")
    assert tree(maker.path) == whole


def test_a_full_disk_for_real(maker: Any, tree: Callable[[Path], Any], whole: Any) -> None:
    folder = maker.path
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if (
        os.geteuid() != 0
        or not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("may not mount a small disk here")
    try:
        maker.store()
        blocker = folder / ".partial" / "blocker"
        with maker.writer(num_rows=1000) as writer:
            writer.append({"identity": maker.rows(1000)[:300]}, np.ones(300, bool))
            with contextlib.suppress(OSError):
                blocker.write_bytes(bytes(1 << 20))
            with pytest.raises(InputError, match=r"(?s)no space left.*free some space"):
                writer.append({"identity": maker.rows(1000)[300:]}, np.ones(700, bool))
        blocker.unlink()
        assert finish(maker, 1000) == (256, "")
        assert tree(folder) == whole
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_reader_sees_a_whole_match_or_none(maker: Any) -> None:
    store, stop = maker.store(), threading.Event()
    seen: list[object] = []

    def look() -> None:
        while not stop.is_set():
            ids = store.matches()
            seen.extend((store.match(n).num_rows, store.rows(n).shape, len(store.valid(n))) for n in ids)

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(10):
        maker.match(f"x/{n}", num_rows=300)
    stop.set()
    thread.join()
    assert set(seen) <= {(300, (300, 6), 300)}
