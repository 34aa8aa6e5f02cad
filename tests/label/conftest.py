"""Sessions of `bas label` over a short video with pulses as its features, and a server to talk to."""

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from bas.cache.store import FeatureStore
from bas.label.options import LabelOptions
from bas.label.server import bound_server, label_app
from bas.label.session import Session, opened_session

NUM_ROWS = 1500
PAGE = {"/": ("text/html", "<!doctype html><title>page</title>"), "/page.js": ("text/javascript", "")}


@dataclass
class Visitor:
    """A browser without a screen."""

    address: str
    opener: urllib.request.OpenerDirector = field(
        default_factory=lambda: urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    )

    @property
    def base(self) -> str:
        return self.address.split("/?")[0]

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, bytes, Any]:
        """(status, body, headers) of an answer; a body makes it a POST."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, sent)
        try:
            with self.opener.open(request, timeout=20) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def get(self, path: str) -> Any:
        status, data, _ = self.ask(path)
        assert status == 200, data
        return json.loads(data)

    def post(self, path: str, body: object) -> Any:
        status, data, _ = self.ask(path, body, X_Bas="label")
        return json.loads(data) | ({} if status == 200 else {"status": status})


def put(identity: str, ms: int, label: str) -> dict[str, Any]:
    """The change that marks a spot."""
    return {"id": identity, "before": None, "after": {"kind": "spot", "ms": ms, "label": label}}


@pytest.fixture(scope="session")
def first_workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first workplace is kept as it was made (3 s), for the others to be copies of."""
    return tmp_path_factory.mktemp("workplace") / "kept"


@pytest.fixture
def workplace(
    tmp_path: Path, first_workplace: Path, make_clip: Callable[..., Path], pulse_store: Callable[..., Path]
) -> Path:
    """A folder with `m-train.mp4` (one minute) and `store.zarr` with its features: a pulse every two seconds."""
    if not first_workplace.exists():
        make_clip("m-train.mp4", num_frames=NUM_ROWS, size=(64, 48))
        pulse_store(tmp_path / "store.zarr", splits=("train",), num_rows=NUM_ROWS, gap_rows=50)
        shutil.copytree(tmp_path, first_workplace)
    shutil.copytree(first_workplace, tmp_path, dirs_exist_ok=True)
    return tmp_path


@contextmanager
def labelling(workplace: Path, **options: Any) -> Iterator[Session]:
    """A session over the workplace."""
    asked = LabelOptions(**{"classes": ("PASS", "DRIVE"), "person": "anna"} | options)
    with opened_session([workplace / "m-train.mp4"], workplace / "store.zarr", asked) as session:
        yield session


def served(session: Session) -> AbstractContextManager[Visitor]:
    """The session's server; gives a visitor who has its cookie."""
    return running(label_app(session, PAGE))


@contextmanager
def running(app: Starlette) -> Iterator[Visitor]:
    """A server in a thread."""
    server, listener, address = bound_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    with closing(listener):
        thread.start()
        try:
            visitor = Visitor(address)
            visitor.opener.open(address, timeout=20).close()
            yield visitor
        finally:
            server.should_exit = True
            thread.join()


def true_spots(workplace: Path) -> list[tuple[int, str]]:
    """(ms, label) of all pulses."""
    events = FeatureStore.open(workplace / "store.zarr").match("m-train").meta.events()
    assert events is not None
    return [(event.position_ms, event.label) for event in events]
