"""A server that speaks OpenAI's protocol, for tests: answers are a function of the document, and faults come on demand."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from aiohttp import web

#: Faults that a server may show for one request.
FAULTS = ("error", "busy", "truncated", "invalid", "endless", "closed")  # and "key", "no schemas", which are answers of their own


def document_of(body: dict[str, Any]) -> str:
    """Returns the document of a request: what stands between the two marks."""
    return re.fullmatch(r"--- (\w+) ---\n(.*)\n--- \1 ---", body["messages"][-1]["content"], re.DOTALL)[2]


class LlmServer:
    """`answer`: what the model says of a document. `delay`: seconds for each answer. `fault`: by the number of a request, one of FAULTS or
    None. `asked` counts the answers that were given, by question."""

    def __init__(
        self, answer: Callable[[str], str], delay: float = 0.0, fault: Callable[[int], str | None] = lambda _: None, jitter: float = 0.0
    ):
        self.delay, self.fault = delay, fault
        self.jitter = jitter  # a share of the delay, at most, that is added to it
        self.answer_body: Callable[[dict[str, Any]], str] = lambda body: answer(document_of(body))
        self.changed = threading.Event()  # an answer was given
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.requests = self.flying = self.most = 0
        self.url = ""

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests += 1
        fault = self.fault(self.requests)
        self.keys.add(request.headers.get("authorization", ""))
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(self.delay * (1 + self.jitter * (self.requests * 0.618 % 1)))
            if fault == "no schemas":
                if "response_format" in body:
                    return web.json_response({"error": {"message": "response_format is not known here"}}, status=400)
                fault = None
            return await self._faulty(request, fault) if fault else self._answered(body)
        finally:
            self.flying -= 1

    async def _faulty(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "key":
            said = f"Incorrect key provided: {request.headers.get('authorization', '')}"
            return web.json_response({"error": {"message": said}}, status=401)
        if fault == "busy":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.1"})
        if fault == "truncated":
            return web.Response(text='{"choices": [{"message": {"content": "half', content_type="application/json")
        if fault == "invalid":
            return web.json_response({"choices": [{"message": {"content": {"no": "text"}}}]})
        if fault == "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b" " * 65536)
            except ConnectionError:
                return response
        if fault == "closed":
            request.transport.close()
        return web.json_response({"error": {"message": "it broke"}}, status=500)

    def _answered(self, body: dict[str, Any]) -> web.Response:
        self.asked[sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()] += 1
        self.bodies.append(body)
        document = document_of(body)
        said = self.answer_body(body)
        self.changed.set()
        usage = {"prompt_tokens": len(document) // 4, "completion_tokens": len(said) // 4}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return web.json_response({"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage})

    @contextmanager
    def running(self) -> Iterator["LlmServer"]:
        """Serves on a free port of this machine in the block."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=1 << 26)
            app.router.add_post("/v1/chat/completions", self.respond)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"  # type: ignore[union-attr]
            ready.set()

        def run() -> None:
            loop.run_until_complete(serve())
            loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        ready.wait(30)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.runner.cleanup(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
