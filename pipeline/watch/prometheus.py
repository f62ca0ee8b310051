"""Counts of a run for Prometheus: a port on which they are asked for, and a file for the node exporter's textfile collector."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app, write_to_textfile
from prometheus_client.exposition import ThreadingWSGIServer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.watch.meters import FAMILIES, SECONDS, Family

LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Requests that are answered at the same time, and seconds that one may take to arrive.
REQUESTS, PATIENCE = 8, 10
PATHS = ("/", "/metrics")


class Prometheus:
    """A registry of its own: several runs in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {}

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._metric(name).labels(**labels).inc(value)

    def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._metric(name).labels(**labels).set(value)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._metric(name).labels(**labels).observe(value)

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(FAMILIES[name], self.registry)
        return self._made[name]

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answers `GET /metrics` for the time of the block; gives the port, which is one that is free where `port` is 0."""

        class Server(ThreadingWSGIServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            server = make_server(host, port, lambda environ, start: b"", Server, handler_class=_Handler)  # type: ignore[arg-type,return-value]
        except (OSError, OverflowError) as error:
            raise InputError(f"--metrics-port {port}: {host} can't be listened to there ({error}).") from error
        server.set_app(guarded(make_wsgi_app(self.registry), host, server.server_port))
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class TextFile:
    """The file for the collector, written anew, whole or not at all, as often as there is something new.

    Raises InputError where it can't be written at the begin. Later a run does not end because of it: that is said, once.
    """

    def __init__(self, prometheus: Prometheus, path: str, say: Callable[[str], None]):
        check_writable(path)
        self.prometheus, self.path, self.say = prometheus, path, say
        self._said = False

    def write(self) -> None:
        try:
            write_to_textfile(self.path, self.prometheus.registry)
        except OSError as error:
            if not self._said:
                self.say(f"{self.path}: metrics can't be written there ({error.strerror}); the run goes on.")
            self._said = True


def _make(family: Family, registry: CollectorRegistry) -> Any:
    if family.kind == "histogram":
        return Histogram(family.name, family.help, family.labels, registry=registry, buckets=SECONDS)
    kind = Counter if family.kind == "counter" else Gauge
    return kind(family.name, family.help, family.labels, registry=registry)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # who asks may go before the answer comes
            super().handle()


def guarded(app: Callable[..., Iterable[bytes]], host: str, port: int) -> Callable[..., Iterable[bytes]]:
    """`app` for those who may ask: on loopback no page of another site that a browser shows, be it by a name that was rebound."""
    free = threading.BoundedSemaphore(REQUESTS)
    own = {f"{f'[{name}]' if ':' in name else name}:{port}" for name in LOOPBACK} if host in LOOPBACK else None

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if own is not None and environ.get("HTTP_HOST", "").lower() not in own:
            return _refuse(start, "421 Misdirected Request")
        if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin"):
            return _refuse(start, "403 Forbidden")
        if environ["PATH_INFO"] not in PATHS:
            return _refuse(start, "404 Not Found")
        if not free.acquire(blocking=False):
            return _refuse(start, "503 Service Unavailable")
        try:
            return app(environ, start)
        finally:
            free.release()

    return answer


def _refuse(start: Callable[..., Any], status: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain")])
    return [f"{status}\n".encode()]


def check_writable(path: str) -> None:
    """Raises InputError where a file can't be written beside `path`, before hours of work and not after them."""
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--metrics-file {path}: the folder {folder} is not there, or can't be written.")
