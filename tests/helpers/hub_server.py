"""A server on loopback that speaks the part of the Hugging Face hub's API that uploads need: repositories, LFS objects, commits.

It knows three tokens: `WRITER` may write to the repositories of `me`, `READER` may only read, and every other token is refused.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WRITER, READER = "hub-token-of-a-writer", "hub-token-of-a-reader"
COMMIT = "0" * 40


@dataclass
class Hub:
    """The state of the server: `files` of each repository by path, LFS objects by sha256, and the requests so far."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)  # the paths of each
    requests: list[str] = field(default_factory=list)
    #: After so many LFS objects, the server stops answering uploads until `resume` is set.
    stall_after: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # clients send several objects at once
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    connections: int = 0  # that are open, or whose last request is being answered
    #: Uploads that the server answers with an error of its own.
    broken: bool = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def handle(self) -> None:
        with self.hub.lock:
            self.hub.connections += 1
        try:
            super().handle()
        finally:
            with self.hub.lock:
                self.hub.connections -= 1

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, handle: Any) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks() if self.headers.get("Transfer-Encoding") else b""
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path.startswith("/lfs/") or token in (WRITER, READER):
            status, value = handle(path, body, token == WRITER)
        else:
            status, value = 401, {"error": "Invalid credentials in Authorization header"}
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # a client that was killed
            self.wfile.write(content)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _get(self, path: str, body: bytes, writes: bool) -> tuple[int, Any]:
        repository = "/".join(path.split("/")[3:5])
        if repository not in self.hub.files:
            return 404, {"error": "Repository not found"}
        if "/tree/" in path:
            return 200, [{"type": "file", "path": p, "size": len(c), "oid": _sha1(c)} for p, c in self.hub.files[repository].items()]
        return 200, {"id": repository, "sha": COMMIT, "private": self.hub.private[repository], "siblings": []}

    def _post(self, path: str, body: bytes, writes: bool) -> tuple[int, Any]:
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if not writes:
            return 403, {"error": "You have no right to write"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        name = re.match(r"/(?:api/)?datasets/([^/]+/[^/]+?)(\.git)?/", path)
        assert name is not None, path
        if name[1] not in self.hub.files:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(name[1], file["path"]) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._object(each) for each in json.loads(body)["objects"]]}
        assert "/commit/" in path, path
        return self._commit(name[1], [json.loads(line) for line in body.splitlines()])

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        answer = {"url": f"{self.hub.address}/datasets/{name}", "id": name}
        if not name.startswith("me/"):
            return 403, {"error": "You don't have the rights to create a dataset under this namespace"}
        if name in self.hub.files:
            return 409, {**answer, "error": "You already created this dataset repo"}
        self.hub.files[name] = {}
        self.hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        return 200, answer

    def _mode(self, repository: str, path: str) -> dict[str, Any]:
        lfs, content = path.endswith(".parquet"), self.hub.files[repository].get(path)
        oid = None if content is None else hashlib.sha256(content).hexdigest() if lfs else _sha1(content)
        return {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}

    def _object(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{wanted['oid']}"}}}

    def _put(self, path: str, body: bytes, writes: bool) -> tuple[int, Any]:
        if self.hub.broken:
            return 400, {"error": "The disk of the hub is full"}
        oid = path.removeprefix("/lfs/")
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "The object is not whole"}
        with self.hub.lock:
            takes = self.hub.stall_after is None or len(self.hub.objects) < self.hub.stall_after
            if takes:
                self.hub.objects[oid] = body
        if takes:
            return 200, {}
        self.hub.stalled.set()
        self.hub.resume.wait()
        return 400, {"error": "too late"}

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files, changed = self.hub.files[repository], []
        for line in lines[1:]:
            value = line["value"]
            changed.append(value["path"])
            if line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                lfs = line["key"] == "lfsFile"
                files[value["path"]] = self.hub.objects[value["oid"]] if lfs else base64.b64decode(value["content"])
        self.hub.commits.append(sorted(changed))
        return 200, {"commitUrl": f"{self.hub.address}/datasets/{repository}/commit/{COMMIT}", "commitOid": COMMIT}

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _sha1(content: bytes) -> str:
    """Returns what git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Yields the state of a running server."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        server.server_close()
