"""Serves the explorer on 127.0.0.1 until Ctrl-C."""

import json
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.report.explore import answers, parameters
from corpusmill.report.explore.document import document
from corpusmill.report.explore.explorer import Explorer

METHODS = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
#: Characters of a path with its parameters, at most.
LONGEST = 16_000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), usb=()",
}

Send = Callable[[Any], Awaitable[None]]


class LoopbackGuard:
    """Wraps an ASGI application so that it answers only requests from its own page on this machine."""

    def __init__(self, app: Any, port: int):
        self.app = app
        self.hosts = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            refused = self.refusal(scope)
            if refused is None:
                await self.app(scope, receive, _with_headers(send))
            else:
                await _refuse(*refused, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """Returns why a request is refused (status, sentence); None if it is answered."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "This server answers to its address on this machine alone."
        if scope["method"] not in METHODS:
            return 405, "Only GET and HEAD: nothing can be changed here."
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST:
            return 414, "The request is too long."
        return self._foreign(scope, headers)

    def _foreign(self, scope: Any, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """Refuses a request from another site's page. A link to the explorer's page may be followed from anywhere, since the other site
        can't read the answer."""
        site, mode = headers.get("sec-fetch-site", ["none"])[0], headers.get("sec-fetch-mode", [""])[0]
        followed = scope["path"] == "/" and mode == "navigate" and headers.get("sec-fetch-dest", [""])[0] == "document"
        origins = {f"http://{host}" for host in self.hosts}
        foreign = site not in ("none", "same-origin") or any(origin.lower() not in origins for origin in headers.get("origin", []))
        return (403, "Pages of other sites may not ask this server.") if foreign and not followed else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _refuse(status: int, sentence: str, send: Send) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


STATIC = Path(__file__).with_name("static")
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PLOTLY = "plotly.js"
#: Files that this page shares with the report's page, because both use plotly.
SHARED = {"before_plotly.js", "plotly.css"}
#: Requests that run at the same time, and how long another one waits (seconds).
AT_A_TIME, TURN = 4, 20

#: The parameters and the answer of each path below /api/.
ROUTES: dict[str, tuple[type[parameters.Asked], Callable[[Explorer, Any], dict[str, Any]]]] = {
    "documents": (parameters.DocumentsAsked, answers.documents),
    "summary": (parameters.Filter, answers.summary),
    "histogram": (parameters.OneColumn, answers.histogram),
    "thresholds": (parameters.Thresholds, answers.retuned),
    "changed": (parameters.Changed, answers.changed),
    "document": (parameters.OneDocument, document),
    "status": (parameters.Asked, lambda explorer, _: answers.status(explorer)),
    "run": (parameters.Asked, lambda explorer, _: answers.run(explorer)),
}


def make_app(explorer: Explorer) -> FastAPI:
    """Makes the application for one run."""
    app = FastAPI(title="corpusmill explore", openapi_url=None, docs_url=None, redoc_url=None)
    turns = threading.BoundedSemaphore(AT_A_TIME)

    def answer(name: str, request: Request) -> Response:
        model, work = ROUTES[name]
        try:
            query = parameters.read(model, request.query_params.multi_items())
            if not turns.acquire(timeout=TURN):
                raise parameters.BadRequest("Too much is being asked at a time.", 503)
            try:
                return as_json(work(explorer, query))
            finally:
                turns.release()
        except parameters.BadRequest as error:
            return as_json({"detail": str(error)}, error.status)
        except duckdb.InterruptException:
            return as_json({"detail": "That took too long."}, 503)
        except (duckdb.OutOfMemoryException, MemoryError):
            return as_json({"detail": "There is too little memory for this question; a narrower one may be answered."}, 503)
        except (CorpusmillError, OSError, duckdb.Error) as error:
            return as_json({"detail": f"That can't be answered: {' '.join(str(error).split()).rstrip('.')}."}, 500)

    for name in ROUTES:
        add_route(app, name, answer)
    app.add_api_route("/", lambda: static_file("index.html"), methods=["GET", "HEAD"])
    app.add_api_route("/static/{name}", static_file, methods=["GET", "HEAD"])
    app.add_exception_handler(HTTPException, _as_sentence)
    return app


def add_route(app: FastAPI, name: str, answer: Callable[[str, Request], Response]) -> None:
    def route(request: Request) -> Response:
        return answer(name, request)

    app.add_api_route(f"/api/{name}", route, methods=["GET", "HEAD"], name=name)


def as_json(content: Any, status: int = 200) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, {"cache-control": "no-store"}, "application/json")


def _as_sentence(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return as_json({"detail": f"{error.detail}."}, error.status_code)


def static_file(name: str) -> Response:
    """Returns a file of the page; for the charts' script, the one in the installed plotly."""
    if name == PLOTLY:
        return Response(_plotly(), headers={"cache-control": "no-cache"}, media_type="text/javascript")
    if name not in SHARED | _static_names():
        raise HTTPException(404, "There is no such file")
    folder = STATIC.parents[1] / "page" if name in SHARED else STATIC
    return Response((folder / name).read_bytes(), headers={"cache-control": "no-cache"}, media_type=KINDS[Path(name).suffix])


def _static_names() -> set[str]:
    return {path.name for path in STATIC.iterdir() if path.suffix in KINDS} if STATIC.is_dir() else set()


@cache
def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


HOST = "127.0.0.1"


def explore(folder: str, port: int = 0, stage: str | None = None, open_browser: bool = False) -> None:
    """Serves a run's explorer until it is interrupted. `port` 0 means any free port.

    Raises InputError if the folder is not a run, no stage has a report, or the port is taken.
    """
    explorer = Explorer(folder, stage)
    listening = listen(port)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        LoopbackGuard(make_app(explorer), port), log_level="error", access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=1, timeout_keep_alive=30, limit_concurrency=64,
    )  # fmt: skip
    loader = threading.Thread(target=explorer.load, daemon=True)
    address = f"http://{HOST}:{port}/"
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the explorer
        loader.start()
        print(address, flush=True)
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
    explorer.stop()
    loader.join(timeout=1)
    _leave()


def _leave() -> None:
    """Ends the process at once where threads still run native code: a normal exit would unwind them there and abort."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def listen(port: int) -> socket.socket:
    """Returns a listening socket on the loopback address. Raises InputError if the port is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} of {HOST} can't be used ({error.strerror}); --port 0 takes one that is free.") from error
    return listening
