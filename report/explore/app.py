"""The explorer's routes. Nothing but GET; parameters are checked by asked.py; answers are JSON or files of this package."""

import json
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.report.explore import answers, asked
from corpusmill.report.explore.document import document
from corpusmill.report.explore.explorer import Explorer

STATIC = Path(__file__).with_name("static")
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PLOTLY = "plotly.js"
#: What the report's page needs for plotly's sake, this one needs, too.
SHARED = {"before_plotly.js", "plotly.css"}
#: Requests that are worked on at a time, and how long one waits for its turn (seconds).
AT_A_TIME, TURN = 4, 20

#: Path below /api/ to its parameters and its answer.
ROUTES: dict[str, tuple[type[asked.Asked], Callable[[Explorer, Any], dict[str, Any]]]] = {
    "documents": (asked.Documents, answers.documents),
    "summary": (asked.Filter, answers.summary),
    "histogram": (asked.OneColumn, answers.histogram),
    "thresholds": (asked.Thresholds, answers.retuned),
    "changed": (asked.Changed, answers.changed),
    "document": (asked.OneDocument, document),
    "status": (asked.Asked, lambda explorer, _: answers.status(explorer)),
    "run": (asked.Asked, lambda explorer, _: answers.run(explorer)),
}


def make_app(explorer: Explorer) -> FastAPI:
    """The application for one run."""
    app = FastAPI(title="corpusmill explore", openapi_url=None, docs_url=None, redoc_url=None)
    turns = threading.BoundedSemaphore(AT_A_TIME)

    def answer(name: str, request: Request) -> Response:
        model, work = ROUTES[name]
        try:
            query = asked.read(model, request.query_params.multi_items())
            if not turns.acquire(timeout=TURN):
                raise asked.Unfit("Too much is being asked at a time.", 503)
            try:
                return as_json(work(explorer, query))
            finally:
                turns.release()
        except asked.Unfit as error:
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
    """A file of the page, or the charts' script out of the installed plotly."""
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
