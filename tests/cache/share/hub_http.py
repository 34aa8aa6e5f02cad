"""Requests and answers of a small web server."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Answer:
    """What a request is answered."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked."""

    method: str
    path: str
    """Still quoted."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Server:
    """A web server on this machine; `answer` is called from many threads."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(answer))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def as_json(record: Any, status: int = 200) -> Answer:
    return Answer(status, body=json.dumps(record).encode(), headers={"Content-Type": "application/json"})


def ranged(data: bytes, request: Request) -> Answer:
    """The bytes asked for."""
    asked = next((value for key, value in request.headers.items() if key.lower() == "range"), "")
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if found is None:
        return Answer(body=data)
    start, stop = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
    if start >= len(data):
        return Answer(416, headers={"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


def _handler_of(answer: Callable[[Request], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made = answer(Request(self.command, address.path, query, dict(self.headers), body))
            if made.status == 0:
                self.close_connection = True
                return
            self.send_response(made.status)
            for key, value in {"Content-Length": str(len(made.body)), **made.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(made.body)
            if int(made.headers.get("Content-Length", "0")) > len(made.body):  # a line that breaks midway
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815 (names of http.server)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
