"""Serves the explorer on 127.0.0.1 until Ctrl-C."""

import json
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.report.explore import answers, jobs, labels, parameters
from corpusmill.report.explore.comparison import RunComparison
from corpusmill.report.explore.console import Console
from corpusmill.report.explore.document import document
from corpusmill.report.explore.explorer import Explorer
from corpusmill.report.explore.export import KINDS, export
from corpusmill.report.query.sql import remove_spilled

METHODS = ("GET", "HEAD")
#: The header in which an action carries the token, and the bytes of its body at most.
TOKEN, BODY = "x-corpusmill-token", 8 << 20
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
    """Wraps an ASGI application so that it answers only requests from its own page on this machine. `token`: the secret without which
    nothing can be changed; None where nothing can be changed at all."""

    def __init__(self, app: Any, port: int, token: str | None = None):
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self.refusal(scope) or self.app
            await answer(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Any) -> Response | None:
        """Returns the answer to a request that is refused; None if it is answered."""
        headers, action = Headers(scope=scope), scope["method"] == "POST" and self.token is not None
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return refused(421, "This server answers to its address on this machine alone.")
        if scope["method"] not in METHODS and not action:
            return refused(405, "Only GET and HEAD: nothing can be changed here.", {"allow": ", ".join(METHODS)})
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST:
            return refused(414, "The request is too long.")
        return self._foreign(scope, headers) or (self._unproven(headers) if action else None)

    def _unproven(self, headers: Headers) -> Response | None:
        """Refuses an action without the token, the page's origin, or a short body of JSON."""
        given = headers.getlist(TOKEN)
        if self.token is None or len(given) != 1 or not secrets.compare_digest(given[0].encode(), self.token.encode()):
            return refused(403, "This page may not change anything: open the address that corpusmill explore has printed.")
        if len(headers.getlist("origin")) != 1:
            return refused(403, "An action comes from the explorer's own page.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refused(415, "An action is JSON (Content-Type: application/json).")
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return refused(411, "The length of the action's JSON is missing.")
        return refused(413, f"An action has at most {BODY >> 20} MiB.") if int(length) > BODY else None

    def _foreign(self, scope: Any, headers: Headers) -> Response | None:
        """Refuses a request from another site's page. A link to the explorer's page may be followed from anywhere, since the other site
        can't read the answer."""
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
        followed = scope["path"] == "/" and mode == "navigate" and headers.get("sec-fetch-dest") == "document"
        origins = {f"http://{host}" for host in self.hosts}
        foreign = site not in ("none", "same-origin") or any(origin.lower() not in origins for origin in headers.getlist("origin"))
        return refused(403, "Pages of other sites may not ask this server.") if foreign and not followed else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


STATIC = Path(__file__).with_name("static")
SUFFIXES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
#: The folders of files that the page shares with the report.
FOLDERS = {"plot.js": STATIC.parents[1] / "page"}
#: Requests that run at the same time, and how long another one waits (seconds).
AT_A_TIME, TURN = 4, 20

Answer = dict[str, Any]

Ask = Callable[[Console, Any], Answer]


def of_run(answer: Callable[[Explorer, Any], Answer]) -> Ask:
    """Returns an answer about the run that the parameters name."""
    return lambda console, query: answer(console.explorer(query.run), query)


def by_person(answer: Callable[[Explorer, Any, str], Answer]) -> Ask:
    """Returns an answer about the labels of the run that the parameters name, for the person who labels."""
    return lambda console, query: answer(console.explorer(query.run), query, console.who)


def of_pair(answer: Callable[[RunComparison, Any], Answer]) -> Ask:
    """Returns an answer about the two runs that the parameters name."""
    return lambda console, query: answer(console.comparison(query.a, query.b), query)


#: The parameters and the answer of each path below /api/.
ROUTES: dict[str, tuple[type[parameters.Asked], Ask]] = {
    "console": (parameters.Asked, lambda console, _: {"path": console.path, "one": console.one, "write": console.token is not None}),
    "runs": (parameters.Asked, lambda console, _: dict(zip(("rows", "left"), console.runs.read(), strict=True))),  # left: not read yet
    "compare": (parameters.Compared, of_pair(lambda comparison, _: comparison.summary())),
    "compare_columns": (parameters.Compared, of_pair(lambda comparison, _: comparison.columns())),
    "compare_histogram": (parameters.ComparedColumn, of_pair(RunComparison.histogram)),
    "compare_documents": (parameters.ComparedDocuments, of_pair(RunComparison.documents)),
    "compare_text": (parameters.ComparedText, of_pair(RunComparison.text)),
    "documents": (parameters.DocumentsAsked, of_run(answers.documents)),
    "summary": (parameters.Filter, of_run(answers.summary)),
    "histogram": (parameters.OneColumn, of_run(answers.histogram)),
    "thresholds": (parameters.Thresholds, of_run(answers.retuned)),
    "changed": (parameters.Changed, of_run(answers.changed)),
    "place": (parameters.PlaceAsked, of_run(answers.place)),
    "document": (parameters.OneDocument, of_run(document)),
    "status": (parameters.Asked, jobs.status),
    "run": (parameters.Asked, jobs.described),
    "labels": (parameters.LabelsAsked, by_person(labels.labels)),
    "queue": (parameters.QueueAsked, by_person(labels.queue)),
    "agreement": (parameters.AgreementAsked, of_run(labels.agreement)),
    "job": (parameters.Asked, jobs.job),
}
#: What can be done with --write, by POST: the body of each action, and the function that does it and returns the answer.
ACTIONS: dict[str, tuple[type[parameters.Asked], Ask]] = {
    "label": (parameters.LabelGiven, by_person(labels.give_label)),
    "names": (parameters.NamesGiven, by_person(labels.name_labels)),
    "fork": (parameters.ForkAsked, jobs.start_fork),
    "go_on": (parameters.RunAsked, jobs.go_on),
    "stop": (parameters.Asked, jobs.stop),
}


def make_app(console: Console) -> Starlette:
    """Makes the application for a run, or for all runs below a path."""
    turns = threading.BoundedSemaphore(AT_A_TIME)

    def answering(model: type[parameters.Asked], ask: Ask) -> Callable[[Request], Response]:
        def work(request: Request) -> Answer:
            query = parameters.read(model, request.query_params.multi_items())
            if not turns.acquire(timeout=TURN):
                raise parameters.BadRequest("Too much is being asked at a time.", 503)
            try:
                return ask(console, query)
            finally:
                turns.release()

        return lambda request: answered(lambda: work(request))

    def acting(name: str, model: type[parameters.Asked], action: Ask) -> Callable[[Request], Awaitable[Response]]:
        def work(body: bytes) -> Answer:
            asked = parameters.read_json(model, body)
            folder = console.folder(asked.run)
            if not console.acting.acquire(timeout=TURN):
                raise parameters.BadRequest("Another action is at work: wait until it has ended.", 409)
            try:
                done = action(console, asked)
                log = RunLog(Storage(folder))
                log(Event("action", message=f"explore: {name}", fields=asked.model_dump(mode="json", exclude={"run"})))
                log.flush()
                return done
            finally:
                console.acting.release()

        async def act(request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(answered, lambda: work(body))

        return act

    def file(request: Request) -> Response:
        query = parameters.read(parameters.Exported, request.query_params.multi_items())
        stage = console.explorer(query.run).stage(query.stage)
        named = {"content-disposition": f'attachment; filename="{stage.table.name}.{query.format}"', "cache-control": "no-store"}
        content = () if request.method == "HEAD" else export(stage, query)
        return StreamingResponse(content, headers=named, media_type=KINDS[query.format])

    routes = [Route(f"/api/{name}", answering(*route)) for name, route in ROUTES.items()]
    routes += [Route(f"/api/{name}", acting(name, *action), methods=["POST"]) for name, action in ACTIONS.items() if console.token]
    routes += [
        Route("/api/export", lambda request: answered(lambda: file(request))),
        Route("/", lambda _: static_file("index.html")),
        Route("/static/{name}", lambda request: static_file(request.path_params["name"])),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _as_sentence, ClientDisconnect: lambda *_: Response()})


def answered(work: Callable[[], Answer | Response]) -> Response:
    """Returns what `work` returns, or a sentence that says what went wrong."""
    try:
        done = work()
        return done if isinstance(done, Response) else as_json(done)
    except parameters.BadRequest as error:
        return refused(error.status, str(error))
    except duckdb.InterruptException:
        return refused(503, "That took too long.")
    except (duckdb.OutOfMemoryException, MemoryError):
        return refused(503, "There is too little memory for this question; a narrower one may be answered.")
    except (CorpusmillError, OSError, duckdb.Error) as error:
        return refused(500, f"That can't be answered: {' '.join(str(error).split()).rstrip('.')}.")


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def refused(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return as_json({"detail": sentence}, status, headers)


def _as_sentence(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = "An action is a POST, and everything else is a GET" if error.status_code == 405 else error.detail
    return refused(error.status_code, f"{sentence}.", error.headers)


def static_file(name: str) -> Response:
    """Returns a file of the page."""
    path, headers = FOLDERS.get(name, STATIC) / name, {"cache-control": "no-cache"}
    if path.suffix not in SUFFIXES or path.name != name or not path.is_file():
        raise HTTPException(404, "There is no such file")
    return FileResponse(path, headers=headers, media_type=SUFFIXES[path.suffix])


HOST = "127.0.0.1"
#: Seconds that a connection may be idle, or its next request incomplete.
IDLE = 5


def explore(
    path: str, port: int = 0, stage: str | None = None, open_browser: bool = False, write: bool = False, who: str | None = None
) -> None:
    """Serves the explorer of a run, or of all runs below a path, until it is interrupted. `port` 0 means any free port. `write`: the page
    may also do what is in `ACTIONS`; the printed address then has a token. `who`: the name under which labels are given.

    Raises InputError if there is no run, no stage has a report, or the port is taken.
    """
    console = Console(path, stage, write, who)
    try:
        _serve(console, listen(port), open_browser)
    except KeyboardInterrupt:  # Ctrl-C ends the explorer
        pass
    finally:
        console.stop()
    _leave()


class TimelyRequests(H11Protocol):
    """HTTP as uvicorn has it, but a connection whose next request, header and body, is not whole after IDLE seconds is closed: 64 of them
    would be all that the server takes."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(IDLE, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete):  # a request is being answered
            self.deadline.cancel()
        elif self.deadline.cancelled():
            self.deadline = self.loop.call_later(IDLE, self.transport.close)


def _serve(console: Console, listening: socket.socket, open_browser: bool) -> None:
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        LoopbackGuard(make_app(console), port, console.token), log_level="error", access_log=False, server_header=False, ws="none",
        lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=IDLE, limit_concurrency=64, http=TimelyRequests,
    )  # fmt: skip
    # The part of an address after # is not sent to a server, so the token is in no log and no Referer.
    address = f"http://{HOST}:{port}/" + (f"#token={console.token}" if console.token else "")
    print(address, flush=True)
    if open_browser:
        webbrowser.open(leading_to(address, console.scratch))
    uvicorn.Server(config).run(sockets=[listening])


def leading_to(address: str, folder: str) -> str:
    """Writes a file that leads a browser to an address, and returns the file's URL. Other users of the machine can see the arguments of a
    program, and the address may hold the token; only this user can read the file."""
    file = Path(folder) / "open.html"
    file.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">')
    return file.as_uri()


def _leave() -> None:
    """Ends the process at once where threads still run native code: a normal exit would unwind them there and abort."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        remove_spilled()
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
