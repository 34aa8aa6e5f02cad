"""Web servers that misbehave: refused by name within the time that the client gives them; the next good pull works."""

import time
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bas.cache.share import places
from bas.cache.verify import verify
from bas.errors import InputError

SHARD, INDEX = "a/features/identity/c/0/0", "__manifest__/index.json"


@pytest.fixture
def shared(liar: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server, and a client that gives up soon."""
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=0.2)})
    monkeypatch.setattr(places, "_TIMEOUTS", {"timeout": "2s", "connect_timeout": "2s", "read_timeout": "1s"})
    return liar


def head(handler: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
    """A status line and headers."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A gigabyte is announced, and more comes."""
    head(handler, 200, Content_Length=1 << 30, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    try:
        for _ in range(2000):
            handler.wfile.write(b" " * (1 << 20))
    except OSError:
        handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler, num_bytes: int = 1 << 20) -> None:
    """Never silent for long, and never done."""
    head(handler, 200, Content_Length=num_bytes, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)
    except OSError:
        handler.close_connection = True


def dropped(handler: BaseHTTPRequestHandler) -> None:
    """The line breaks in the middle."""
    head(handler, 200, Content_Length=10_000, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    handler.wfile.write(b"{" * 100)
    handler.close_connection = True


def wrong_range(handler: BaseHTTPRequestHandler) -> None:
    """Other bytes than asked for."""
    head(handler, 206, Content_Length=4, Content_Range="bytes 5-8/9999", Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    handler.wfile.write(b"abcd")


TRICKS: dict[str, Any] = {
    "403": lambda handler: head(handler, 403, Content_Length=0),
    "silent": lambda _: time.sleep(2.5),
    "drip": drip,
    "dropped": dropped,
    "wrong range": wrong_range,
    "to a file": lambda handler: head(handler, 302, Location="file:///etc/passwd", Content_Length=0),
    "not http": lambda handler: handler.wfile.write(b"\x00\x01\x02\r\n\r\n"),
    "endless": endless,
}


@pytest.mark.parametrize("path", [INDEX, SHARD])
@pytest.mark.parametrize("trick", TRICKS)
def test_tricks(
    shared: Any, sharing: Any, tmp_path: Path, trick: str, path: str, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    monkeypatch.setattr("bas.cache.share.source.MAX_INDEX_BYTES", 1 << 20)
    started, copy = time.monotonic(), tmp_path / "copy"
    shared.tricks[path] = TRICKS[trick]
    try:
        outcome = sharing.pull(shared.url, copy, matches=("a",))
    except InputError as error:
        told = str(error)
        assert path != SHARD
    else:
        assert path == SHARD
        assert outcome.results[0].status == "failed"
        told = outcome.results[0].message
    assert shared.url in told
    assert "root:" not in told  # nothing of /etc/passwd
    assert time.monotonic() - started < 12
    assert not (copy / "a").exists()
    shared.tricks.clear()
    assert sharing.pull(shared.url, copy, matches=("a",)).complete
    assert verify(copy) == []
    assert tree(copy / "a") == tree(shared.folder / "a")


@pytest.mark.parametrize("path", [INDEX, SHARD])
def test_a_drip_is_given_up_long_before_the_time_of_a_request(
    liar: Any, sharing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=0.2)})
    monkeypatch.setattr(places, "_PACE_SECONDS", 0.5)
    started = time.monotonic()
    liar.tricks[path] = partial(drip, num_bytes=(liar.folder / path).stat().st_size)
    try:
        told = sharing.pull(liar.url, tmp_path / "copy", matches=("a",)).results[0].message
    except InputError as error:
        told = str(error)
    assert f"{path}: too slow" in told
    assert time.monotonic() - started < 4
    liar.tricks.clear()
    assert sharing.pull(liar.url, tmp_path / "copy", matches=("a",)).complete


def test_nobody_there(shared: Any, sharing: Any, tmp_path: Path) -> None:  # noqa: ARG001 (the client's patience)
    for url in ("http://127.0.0.1:9/x", "https://127.0.0.1:9/x", "http://no-such-host.invalid/x"):
        with pytest.raises(InputError, match="cannot be reached") as told:
            sharing.pull(url, tmp_path / "copy")
        assert url in str(told.value)
    for url in ("ftp://x/y", "s3:///x", "file://host/x"):
        with pytest.raises(InputError):
            sharing.pull(url, tmp_path / "copy")


def test_a_web_server_is_read_only(maker: Any, shared: Any, sharing: Any) -> None:
    maker.match("new", num_rows=300)
    with pytest.raises(InputError, match="read only"):
        sharing.push(maker.path, shared.url, matches=("new",))


def test_s3_without_rights(
    maker: Any, sharing: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.match("a", num_rows=300)
    with pytest.raises(InputError, match="no store there"):
        sharing.pull(bucket.url, tmp_path / "copy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="refused"):
        sharing.push(maker.path, bucket.url)
