"""The web server of `bas label` and of `bas report --serve`, on this machine only: Starlette, under uvicorn.

Whoever may use it has a secret: it is in the address that is printed, and is exchanged for a cookie. A page of another
site can neither read (it has no cookie, and Host is checked) nor write (Origin and a header of our own are checked).
"""

import base64
import contextlib
import hashlib
import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..data.clips import write_clips, zipped
from ..data.exports import CLIPS, FORMATS, Labels, export
from ..errors import InputError
from ..events import Event
from ..files import cache_folder, parse_json, read_json, write_json_atomic
from .agreement import agreements
from .document import Conflict, shown
from .session import LabelMatch, Session

LOOPBACK = "127.0.0.1"
_MAX_BODY_BYTES = 8 << 20
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content policy of the label page. That of a report, which is one file that may be opened anywhere, is in the page."""
_VIDEO_TYPES = {".m4v": "video/mp4", ".mov": "video/mp4"}
"""Endings whose usual type browsers do not play; the type of the others is guessed by their ending."""


class Guard:
    """Lets requests through that come from the page itself: the rest is refused before anything is looked at."""

    def __init__(self, app: ASGIApp, *, secret: str, port: int) -> None:
        self.app, self._secret, self._cookie = app, secret, f"bas{port}"
        self._hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, set the cookie, or pass on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        request = Request(scope)
        token = request.query_params.get("token", "")
        if not refusal and scope["path"] == "/" and token and secrets.compare_digest(token, self._secret):
            response: Response = RedirectResponse("/", HTTPStatus.SEE_OTHER, headers={"Referrer-Policy": "no-referrer"})
            response.set_cookie(self._cookie, self._secret, httponly=True, samesite="strict")
            return await response(scope, receive, send)
        if not refusal and not secrets.compare_digest(request.cookies.get(self._cookie, ""), self._secret):
            refusal = "open the address that bas has printed: it holds the key to this page"
        if refusal:
            return await PlainTextResponse(refusal, HTTPStatus.FORBIDDEN)(scope, receive, send)

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added["X-Content-Type-Options"], added["Referrer-Policy"] = "nosniff", "no-referrer"
                added["Cross-Origin-Resource-Policy"] = "same-origin"
                added.setdefault("Cache-Control", "no-store")
            await send(message)

        return await self.app(scope, receive, with_policy)

    def _refusal(self, method: str, headers: Headers) -> str:
        if headers.get("host", "") not in self._hosts:  # a name that a stranger's DNS leads here
            return "wrong Host"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return "wrong Origin"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "asked for by another site"
        if method not in ("GET", "HEAD") and headers.get("x-bas") != "label":
            return "not asked for by the page"
        return ""


def label_app(session: Session, page: Mapping[str, tuple[str, str]]) -> Starlette:
    """Make the app of `bas label`; `page` is address -> (media type, text) of the page's files."""
    api = _Api(session)
    policy = {"Content-Security-Policy": _POLICY}
    files = {at: Response(text, media_type=media_type, headers=policy) for at, (media_type, text) in page.items()}
    routes = [Route(address, lambda request: files[request.url.path]) for address in files]
    for path, method, answer in (
        ("/api/page", "GET", api.page),
        ("/api/match/{match:int}", "GET", api.match),
        ("/api/match/{match:int}/curves", "GET", api.curves),
        ("/api/match/{match:int}/changes", "POST", api.changes),
        ("/api/match/{match:int}/undo", "POST", api.undo),
        ("/api/match/{match:int}/redo", "POST", api.redo),
        ("/api/match/{match:int}/copy", "POST", api.copy),
        ("/api/news", "GET", api.news),
        ("/api/train", "POST", api.train),
        ("/api/curve", "POST", api.curve),
        ("/api/classes", "POST", api.classes),
        ("/api/settings", "POST", api.settings),
        ("/api/agreement", "GET", api.agreement),
        ("/api/export", "GET", api.export),
        ("/video/{match:int}", "GET", api.video),
    ):
        routes.append(Route(path, _answering(answer), methods=[method]))
    return Starlette(routes=routes)


def files_app(page: Path, files: Mapping[str, Path]) -> Starlette:
    """Make an app that serves one page and the files (address -> file) that it names, as a report with its videos."""

    async def answer(request: Request) -> Response:
        path = {"/": page, **files}.get(request.scope["path"])
        if path is None:
            return PlainTextResponse("no such file", HTTPStatus.NOT_FOUND)
        return FileResponse(path, media_type="text/html" if path == page else _VIDEO_TYPES.get(path.suffix.lower()))

    return Starlette(routes=[Route("/{path:path}", answer)])


def _answering(answer: Callable[[Request, Any], Any]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that runs `answer` in a thread, with the parsed body, and makes errors answers."""
    from starlette.concurrency import run_in_threadpool

    async def handle(request: Request) -> Response:
        try:
            body = await _body(request) if request.method == "POST" else None
            result = await run_in_threadpool(answer, request, body)
            return result if isinstance(result, Response) else JSONResponse(result)
        except InputError as error:
            now = {"now": error.now} if isinstance(error, Conflict) else {}
            return JSONResponse({"error": str(error), **now}, HTTPStatus.CONFLICT)

    return handle


async def _body(request: Request) -> Any:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MAX_BODY_BYTES:
            raise InputError("request is too large", wanted=f"at most {_MAX_BODY_BYTES:,} bytes")
    body = parse_json(data or b"{}", where="request")
    if not isinstance(body, dict):
        raise InputError("request is not usable", got=type(body).__name__, wanted="an object")
    return body


class _Api:
    """Answers to the page; `label_app` has the address of each."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _number(self, request: Request) -> int:
        number = int(request.path_params.get("match", request.query_params.get("match", "0")))
        if not 0 <= number < len(self._session.matches):
            raise InputError("no such match", got=number, wanted=f"0 to {len(self._session.matches) - 1}")
        return number

    def _match(self, request: Request) -> LabelMatch:
        return self._session.matches[self._number(request)]

    def page(self, _request: Request, _body: Any) -> Any:
        session = self._session
        matches = []
        for number, match in enumerate(session.matches):
            info, why = match.info, "" if match.copy else match.cannot_play
            matches.append(
                {
                    "id": match.match.id,
                    "name": match.match.id,
                    "seconds": float(info.end_seconds) if info else 0.0,
                    "fps": float(info.rate) if info else 25.0,
                    "video": f"/video/{number}" if match.video else None,
                    "video_problem": why,
                    "can_copy": bool(why and info),
                }
            )
        return {
            "title": "bas label",
            "version": __version__,
            "person": session.person,
            "classes": list(session.classes),
            "matches": matches,
            "export_formats": [*FORMATS, CLIPS],
        }

    def match(self, request: Request, _body: Any) -> Any:
        match = self._match(request)
        document, found = match.document, self._session.proposals.get(match.match.id)
        proposals = found and {
            "version": self._session.version,
            "ms": found.ms.tolist(),
            "cls": found.classes.tolist(),
            "conf": [round(float(each), 4) for each in found.confidence],
            "teach": [round(float(each), 4) for each in found.teach],
            "unsure": [round(float(each), 4) for each in found.unsure],
            "curve_fps": float(found.fps),
            "curve_rows": found.curves_kr.shape[1],
        }
        frame_ms = base64.b64encode(match.frame_ms.astype("<f8").tobytes()).decode()
        items = {identity: shown(item) for identity, item in list(document.items.items()) if item["half"] == match.half}
        return {"seq": document.seq, "items": items, "frame_ms": frame_ms, "proposals": proposals}

    def curves(self, request: Request, _body: Any) -> Any:
        found = self._session.proposals.get(self._match(request).match.id)
        data = found.curves_kr.tobytes() if found is not None else b""
        return Response(data, media_type="application/octet-stream")

    def changes(self, request: Request, body: Any) -> Any:
        changes = body.get("changes")
        if not isinstance(changes, list) or not changes:
            raise InputError("request is not usable", got=type(changes).__name__, wanted="a list of changes")
        return {"seq": self._session.change(self._number(request), changes)}

    def undo(self, request: Request, _body: Any, *, redo: bool = False) -> Any:
        seq, changes = self._session.undo(self._number(request), redo=redo)
        return {"seq": seq, "changes": changes}

    def redo(self, request: Request, body: Any) -> Any:
        return self.undo(request, body, redo=True)

    def copy(self, request: Request, _body: Any) -> Any:
        self._session.begin_copy(self._number(request))
        return {}

    def news(self, request: Request, _body: Any) -> Any:
        since = request.query_params.get("since", "0")
        return self._session.news(self._number(request), int(since) if since.isdigit() else 0)

    def train(self, _request: Request, body: Any) -> Any:
        first = body.get("match", 0)
        self._session.train(first=first if isinstance(first, int) and 0 <= first < len(self._session.matches) else 0)
        return {}

    def curve(self, _request: Request, _body: Any) -> Any:
        self._session.measure_curve()
        return {}

    def classes(self, _request: Request, body: Any) -> Any:
        rename, classes = body.get("rename"), body.get("classes")
        if isinstance(rename, list) and len(rename) == 2:
            self._session.rename_class(str(rename[0]), str(rename[1]))
        elif isinstance(classes, list):
            self._session.set_classes(classes)
        return {"classes": self._session.classes}

    def settings(self, _request: Request, body: Any) -> Any:
        number = body.get("train_after")
        if type(number) is not int or not 0 <= number < 1_000_000:
            raise InputError(
                "train_after is not usable", got=repr(number)[:40], wanted="a whole number; 0: by the button"
            )
        self._session.train_after = number
        return {}

    def agreement(self, request: Request, _body: Any) -> Any:
        match = self._match(request)
        return {"people": agreements(match.document.path, match.document, half=match.half)}

    def export(self, request: Request, _body: Any) -> Any:
        match, asked = self._match(request), request.query_params.get("classes", "")
        classes = [name for name in asked.split(",") if name] or self._session.classes
        spots = match.document.of_kind("spot", half=match.half)
        events = [Event(item["ms"], item["label"], half=item["half"]) for item in spots]
        labels = Labels.of(match.match.id, events, classes, video=match.match.video, info=match.info)
        if request.query_params.get("format") == CLIPS:
            with tempfile.TemporaryDirectory() as folder:
                data = zipped(write_clips(match.match.require_video(), labels.events, Path(folder)))
            headers = {"Content-Disposition": 'attachment; filename="clips.zip"'}
            return Response(data, media_type="application/zip", headers=headers)
        text, media_type, name = export(labels, request.query_params.get("format", ""))
        safe = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
        return Response(text, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{safe}"'})

    def video(self, request: Request, _body: Any) -> Any:
        path = self._match(request).video
        if path is None:
            return PlainTextResponse("no video that a browser plays", HTTPStatus.NOT_FOUND)
        return FileResponse(path, media_type=_VIDEO_TYPES.get(path.suffix.lower()))


def key_file(paths: Sequence[Path]) -> Path:
    """Where the port and the secret of a session over these files are kept, for the user's own eyes."""
    key = hashlib.sha256("\n".join(sorted(str(path.resolve()) for path in paths)).encode()).hexdigest()[:20]
    return cache_folder() / "label" / f"{key}.json"


def serve(
    app: Starlette, *, port: int, open_browser: bool, started: Callable[[str], None], key: Path | None = None
) -> None:
    """Serve an app on this machine until a signal comes.

    Args:
        app: what answers.
        port: 0: the one of last time, else any that is free.
        open_browser: whether to open the page in the default browser.
        started: called with the address, its token in it.
        key: file with port and secret of last time, so that a page that is still open goes on after a restart.

    Raises:
        InputError: the port is not free.
    """
    server, listener, address = bound_server(app, port=port, key=key)
    with contextlib.closing(listener):
        started(address)
        if open_browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        server.run(sockets=[listener])


def bound_server(
    app: Starlette, *, port: int = 0, key: Path | None = None
) -> tuple[uvicorn.Server, socket.socket, str]:
    """A guarded server with the socket that it is to run on, and its address with the token. Arguments as `serve`.

    Raises:
        InputError: the port is not free.
    """
    last_port, secret = _last(key)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listener.bind((LOOPBACK, port or last_port))
        except OSError:
            if port:
                raise
            listener.bind((LOOPBACK, 0))
        listener.listen()  # from here on a browser that comes before the server runs has to wait only
    except (OSError, OverflowError) as error:
        listener.close()
        cure = "--port 0 takes any that is free"
        raise InputError(f"port {port} cannot be used", got=getattr(error, "strerror", error), cure=cure) from None
    port = listener.getsockname()[1]
    if key is not None:
        with contextlib.suppress(OSError):  # without it a restart has another address, and that is all
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json_atomic(key, {"port": port, "secret": secret})
            key.chmod(0o600)
    guarded = Guard(app, secret=secret, port=port)
    config = uvicorn.Config(guarded, log_level="warning", access_log=False, server_header=False, lifespan="off")
    config.timeout_graceful_shutdown = 2
    return uvicorn.Server(config), listener, f"http://{LOOPBACK}:{port}/?token={secret}"


def _last(key: Path | None) -> tuple[int, str]:
    """Port (0: any) and secret of last time, or a new one."""
    if key is not None and key.is_file():
        with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
            record = read_json(key, max_bytes=4096)
            port, secret = int(record["port"]), str(record["secret"])
            if 0 < port < 1 << 16 and len(secret) >= 32:
                return port, secret
    return 0, secrets.token_urlsafe(24)
