"""What stands before all routes: who may ask, how, and what a browser may do with the answer.

The explorer shows crawl text on a port of this machine. Other pages in the same browser must not reach it: names that were rebound to
127.0.0.1 fail at the Host header, requests from other sites at what the browser says of their origin, and no answer lets another
site read or frame it.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

METHODS = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
#: Characters of a path with its parameters.
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


class Guard:
    """An ASGI application around another that answers loopback requests of its own page alone."""

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
        """Why a request is not answered (status, sentence), or None."""
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
        """A request that another site's page makes. A link to the page itself may be followed from anywhere: it shows nothing to them."""
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
