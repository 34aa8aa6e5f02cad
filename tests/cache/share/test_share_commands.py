"""`bas cache push`, `pull` and `merge` as typed: exit codes, JSON, Ctrl-C; and what merge does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.cache.share.pull import merge
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

Bas = Callable[..., int]


def test_push_and_pull(maker: Any, bas: Bas, bucket: Any, tmp_path: Path, capsys: Any, tree: Any) -> None:
    maker.match("a", views=("identity", "hflip"))
    maker.match("b", num_rows=300, match_meta=maker.meta(split="test"))
    assert bas("cache", "push", maker.path, bucket.url, "--json") == 0
    sent = json.loads(capsys.readouterr().out)
    assert (sent["complete"], sent["target"]) == (True, bucket.url)
    assert [each["status"] for each in sent["matches"]] == ["sent", "sent"]
    assert bas("cache", "pull", bucket.url, tmp_path / "copy", "--split", "test", "--view", "identity", "--json") == 0
    assert [each["match"] for each in json.loads(capsys.readouterr().out)["matches"]] == ["b"]
    assert bas("cache", "pull", bucket.url, tmp_path / "copy") == 0
    assert "1 already there" in capsys.readouterr().out
    assert tree(tmp_path / "copy") == tree(maker.path)
    assert bas("cache", "verify", tmp_path / "copy") == 0


def test_what_goes_wrong_ends_with_two(
    maker: Any, make_maker: Any, bas: Bas, bucket: Any, tmp_path: Path, capsys: Any
) -> None:
    other = make_maker(tmp_path / "other")
    maker.match("a", num_rows=300)
    other.match("a", num_rows=301)
    assert bas("cache", "push", maker.path, bucket.url) == 0
    capsys.readouterr()
    assert bas("cache", "push", other.path, bucket.url) == 2
    assert "--replace" in capsys.readouterr().out
    for arguments in (
        ("push", tmp_path / "nothing", bucket.url),
        ("pull", f"{bucket.url}/nothing", tmp_path / "copy"),
        ("pull", bucket.url, tmp_path / "copy", "--jobs", "0"),
        ("pull", bucket.url, tmp_path / "copy", "--match", "nobody"),
        ("pull", "gopher://x", tmp_path / "copy"),
        ("merge", maker.path, tmp_path / "nothing", "--out", tmp_path / "copy"),
    ):
        assert bas("cache", *arguments) == 2
        told = capsys.readouterr().err
        assert "bas: error: " in told
        assert "Traceback" not in told
    bucket.put("a/features/identity/c/0/0", b"x")
    assert bas("cache", "pull", bucket.url, tmp_path / "copy") == 2
    assert "is not what its manifest says" in " ".join(capsys.readouterr().out.split())
    assert FeatureStore.open(tmp_path / "copy").matches() == []


@pytest.mark.parametrize("command", ["push", "pull", "merge"])
def test_help(bas: Bas, command: str, capsys: Any) -> None:
    assert bas("cache", command, "--help") == 0
    assert f"Example: bas cache {command} " in capsys.readouterr().out


def test_a_stop_while_a_server_is_silent(two_matches: Path, liar: Any, sharing: Any, tmp_path: Path, tree: Any) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def silent(_: object) -> None:
        asked.set()
        go_on.wait(20)

    liar.tricks["a/features/identity/c/0/0"] = silent
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
    )
    code += "from bas.cli import main; sys.argv[0] = 'bas'; main()"
    command = [sys.executable, "-c", code, "cache", "pull", liar.url, str(tmp_path / "copy")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / ".typing")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert asked.wait(30)
        started = time.monotonic()
        run.send_signal(signal.SIGINT)
        told = run.communicate(timeout=15)[1]
    assert time.monotonic() - started < 2
    assert run.returncode == 130
    assert "run the same command again" in told
    assert "failed" not in told
    go_on.set()
    liar.tricks.clear()
    assert sharing.pull(liar.url, tmp_path / "copy").complete
    assert tree(tmp_path / "copy/a") == tree(two_matches / "a")


def merged(out: Path, *paths: Path, **options: Any) -> dict[str, str]:
    """Statuses by match and store."""
    outcome = merge(paths, out, **options)
    return {f"{each.match_id} {number}": each.status for number, each in enumerate(outcome.results)}


def test_merge(make_maker: Any, tmp_path: Path, tree: Any) -> None:
    one, two, out = make_maker(tmp_path / "one"), make_maker(tmp_path / "two"), tmp_path / "all"
    one.match("liga/a", num_rows=300)
    one.match("both", num_rows=300)
    two.match("liga/b", num_rows=300)
    two.match("both", num_rows=300, views=("identity", "hflip"))
    two.match("c-differs", num_rows=300)
    one.match("c-differs", num_rows=301)
    statuses = merged(out, one.path, two.path)
    assert list(statuses.values()) == ["received", "received", "received", "views added", "differs", "received"]
    assert FeatureStore.open(out).matches() == ["both", "c-differs", "liga/a", "liga/b"]
    assert FeatureStore.open(out).match("c-differs").num_rows == 301
    assert FeatureStore.open(out).views("both") == ["hflip", "identity"]
    assert verify(out) == []
    assert tree(out / "liga/b") == tree(two.path / "liga/b")
    assert set(merged(out, one.path, two.path).values()) == {"already there", "differs"}
    shutil.rmtree(out / "liga/a")  # as cut off
    assert sorted(set(merged(out, one.path).values())) == ["already there", "received"]
    assert "replaced" in merged(out, two.path, replace=True).values()
    assert FeatureStore.open(out).match("c-differs").num_rows == 300


def test_merge_of_other_settings(make_maker: Any, tmp_path: Path) -> None:
    one, two = make_maker(tmp_path / "one"), make_maker(tmp_path / "two")
    one.match("a", num_rows=300)
    two.match("b", num_rows=300, dim=7)
    with pytest.raises(InputError, match="these differ: dim"):
        merged(tmp_path / "all", one.path, two.path)
    assert not (tmp_path / "all").exists()
