"""A server on loopback that speaks a part of OpenAI's protocol over our own generation: for tests of the step `llm` and for trying it.

It answers `/v1/models`, `/v1/completions` and `/v1/chat/completions`, one question at a time, without streaming. For real work: vLLM,
SGLang or llama.cpp, on the folder that `corpusmill export` writes.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from corpusmill.pipeline.config import parse_json, reason_of
from corpusmill.pipeline.errors import InputError
from corpusmill.report.explore.server import HOST, listen
from corpusmill.train.generate import STOP_STRING, STOP_TOKEN, Sampling, TextGenerator, generate_batch

#: Bytes of a request at most.
LARGEST = 4 << 20


class Asked(BaseModel):
    """The fields of a request that are known; others are ignored, as servers do."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=1000)
    max_tokens: int = Field(128, ge=1, le=100_000)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False


def make_app(generator: TextGenerator, name: str) -> Starlette:
    """Returns the application. `name`: what requests call the model."""
    busy = Lock()  # one text at a time: torch uses all cores for it

    def write(asked: Asked, ids: list[int]) -> Any:
        sampling = Sampling(asked.temperature, top_k=0, top_p=asked.top_p, seed=abs(asked.seed or 0))
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        with busy:
            (draft,) = generate_batch(
                generator.model, [ids], max_tokens=asked.max_tokens, sampling=sampling, stop=generator.stop, banned=generator.banned,
                tokenizer=generator.tokenizer, stop_strings=stop,
            )  # fmt: skip
        return draft

    def answering(kind: str, ids_of: Callable[[Asked], list[int]], choice_of: Callable[[str], dict[str, Any]]) -> Any:
        async def answer(request: Request) -> JSONResponse:
            # a page of another site can send no JSON without asking first (CORS), and nobody answers that here
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                return refused(415, "the body has to be application/json")
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    return refused(413, f"a request has at most {LARGEST:,} bytes")
            try:
                asked = Asked.model_validate(parse_json(bytes(body)))
                if asked.model != name:
                    return refused(404, f"there is no model {asked.model[:100]!r}; this one is {name!r}")
                if asked.stream:
                    return refused(400, "stream is not known here")
                ids = ids_of(asked)
                room = generator.model.arch.context - asked.max_tokens
                if len(ids) > room:
                    asked_for = f"{len(ids):,} of the prompt and max_tokens {asked.max_tokens:,}"
                    return refused(400, f"the context has {generator.model.arch.context:,} tokens, too few for {asked_for}")
                draft = await run_in_threadpool(write, asked, ids)
            except (ValidationError, ValueError, InputError) as error:
                return refused(400, reason_of(error))
            ended = "stop" if draft.ended in (STOP_TOKEN, STOP_STRING) else "length"
            choice = {"index": 0, "finish_reason": ended, "logprobs": None, **choice_of(draft.text)}
            usage = {"prompt_tokens": len(ids), "completion_tokens": len(draft.tokens), "total_tokens": len(ids) + len(draft.tokens)}
            made = {"id": f"{kind}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}
            return JSONResponse({**made, "choices": [choice], "usage": usage})

        return answer

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "corpusmill"}]})

    chat = answering("chat.completion", lambda asked: _conversation(generator, asked), lambda text: {"message": _assistant(text)})
    plain = answering("text_completion", lambda asked: generator.ids(_prompt(asked)), lambda text: {"text": text})
    routes = [
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", plain, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])])


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _prompt(asked: Asked) -> str:
    if not asked.prompt:
        raise InputError("prompt: a text is needed")
    return asked.prompt


def _conversation(generator: TextGenerator, asked: Asked) -> list[int]:
    messages = asked.messages or []
    if not messages or not all(isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages):
        raise InputError("messages: each has a role and a content, both text")
    return generator.conversation([{"role": m["role"], "content": m["content"]} for m in messages])


def refused(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": {"message": sentence, "type": "invalid_request_error", "code": status}}, status)


def serve(generator: TextGenerator, name: str, port: int) -> None:
    """Serves a model on this machine until Ctrl-C. `port` 0: any free one. Raises InputError if the port is taken."""
    listening = listen(port)
    print(f"http://{HOST}:{listening.getsockname()[1]}/v1", flush=True)
    config = uvicorn.Config(
        make_app(generator, name), log_level="error", access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=1, limit_concurrency=256,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        uvicorn.Server(config).run(sockets=[listening])
