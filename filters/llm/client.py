"""Asks a server many questions at once, keeps every answer, and stays within what may be used."""

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corpusmill.filters.llm.config import LlmConfig, Prices
from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage

#: Bytes of a response that are read; a longer one counts as a fault of the server.
LARGEST = 8 << 20
#: Seconds of the pause after the first failed try; it doubles, up to the second number. A server's Retry-After goes before, up to LONGEST.
PAUSES, LONGEST = (0.5, 30.0), 300.0
#: Questions in a row for which all tries failed, after which the server counts as gone.
GONE = 8
#: Seconds between two calls of `on_progress`.
TOLD = 5.0
#: Statuses after which the same question is asked again.
AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_NUMBER = re.compile(r"\d[\d,.]*")


class ServerLost(CorpusmillError):
    """The server of the language model does not answer, or does not let us in. All other tasks would fail, too."""

    ends_run = True


@dataclass(frozen=True)
class Answer:
    """One answer as it is kept. `error`: why there is none; such an answer is not kept in the cache."""

    content: str = ""
    finish: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    error: str | None = None


class Answers:
    """Answers by their question, a JSON file each, in a folder or bucket. A team may share it."""

    def __init__(self, root: str | None):
        self.storage = Storage(root or str(cache_folder() / "answers"))
        self.folders: set[str] = set()  # that are there

    def _path(self, key: str) -> str:
        return f"{key[:2]}/{key}.json"

    def get(self, key: str) -> Answer | None:
        """Returns the kept answer. None where there is none, or where its file is not what was written."""
        try:
            value = parse_json(self.storage.read_bytes(self._path(key)))
            content, finish, tokens_in, tokens_out, seconds = (value[field.name] for field in fields(Answer) if field.name != "error")
            if isinstance(content, str) and (finish is None or isinstance(finish, str)):
                return Answer(content, finish, int(tokens_in), int(tokens_out), float(seconds))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return None

    def put(self, key: str, answer: Answer) -> None:
        content = json.dumps({name: value for name, value in vars(answer).items() if name != "error"}, ensure_ascii=False).encode()
        if self.storage.remote:
            self.storage.write_bytes(self._path(key), content)
            return
        path = self.storage.path(self._path(key))
        temporary = f"{path}.{os.getpid()}"  # without fsync: an answer that a power failure takes is asked for again
        try:
            if key[:2] not in self.folders:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self.folders.add(key[:2])
            with open(temporary, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: the answer can't be kept ({error.strerror}).") from error

    async def aside(self, function: Callable[..., Any], *given: Any) -> Any:
        """Calls `get` or `put`: in a thread where it is a request to a store, else at once, as a thread would take longer than the file."""
        return await asyncio.to_thread(function, *given) if self.storage.remote else function(*given)


def use(prices: Prices, tokens_in: int, tokens_out: int) -> dict[str, float]:
    """Returns what one answer uses of each limit."""
    price = prices.tokens_in * tokens_in + prices.tokens_out * tokens_out
    return {"requests": 1.0, "tokens": float(tokens_in + tokens_out), "dollars": price / 1e6}


class Budget:
    """What one task may still use. `spent` counts all answers, `held` what questions in flight may take at most."""

    def __init__(self, config: LlmConfig, share: float):
        limits, self.prices = config.limits, config.prices
        shares = {"requests": limits.requests, "tokens": limits.tokens, "dollars": limits.dollars}
        self.limits = {name: limit * share for name, limit in shares.items() if limit is not None}
        self.spent = dict.fromkeys(("requests", "tokens", "dollars"), 0.0)
        self.held = dict(self.spent)
        self.longest = config.max_tokens

    def most(self, body: Mapping[str, Any]) -> dict[str, float]:
        """Returns the most that a question may use: no token is shorter than a byte; in English it is about four, and two are taken."""
        size = sum(len(message["content"].encode()) for message in body["messages"])
        return use(self.prices, size // 2 + 16, self.longest)

    def fits(self, use: Mapping[str, float]) -> bool:
        """Whether this still fits beside the questions in flight."""
        return all(self.spent[name] + self.held[name] + use[name] <= limit for name, limit in self.limits.items())

    def hold(self, use: Mapping[str, float], sign: int = 1) -> None:
        for name, amount in use.items():
            self.held[name] += sign * amount

    def spend(self, answer: Answer) -> None:
        for name, amount in use(self.prices, answer.tokens_in, answer.tokens_out).items():
            self.spent[name] += amount


class Client:
    """Asks one server. It has a thread with an event loop of its own, which ends with `close`."""

    def __init__(self, config: LlmConfig, on_progress: Callable[[], None] = lambda: None):
        """`on_progress` is called now and then while questions are asked."""
        from openai import AsyncOpenAI, DefaultAioHttpClient

        self.config, self.on_progress = config, on_progress
        self.answers = Answers(config.cache)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="llm", daemon=True).start()
        self.key = os.environ.get(config.key_variable) or "no-key"  # local servers need none

        async def connect() -> Any:
            transport = DefaultAioHttpClient()
            return AsyncOpenAI(base_url=config.url, api_key=self.key, max_retries=0, timeout=config.timeout, http_client=transport)

        self.openai = asyncio.run_coroutine_threadsafe(connect(), self.loop).result()
        self.flying: dict[str, asyncio.Future[Answer]] = {}  # questions in flight, by key
        self.used = dict.fromkeys(("questions", "tokens_in", "tokens_out"), 0)  # of the server, without kept answers
        self.structured = True
        self.failed = 0  # questions in a row without any answer
        self.started: float | None = None
        self.waiting_until = 0.0  # a server that says how long to wait says it for all questions

    def close(self) -> None:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self.openai.close(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def ask(self, questions: Iterable[tuple[str, dict[str, Any]]], budget: Budget) -> list[Answer]:
        """Returns an answer to each question (its key and body), in their order; those that the limits do not reach have the error `budget`
        or `time`. Raises ServerLost."""
        return asyncio.run_coroutine_threadsafe(self._ask_all(iter(questions), budget), self.loop).result()

    async def _ask_all(self, questions: Iterator[tuple[str, dict[str, Any]]], budget: Budget) -> list[Answer]:
        answers: list[Answer] = []
        told = time.monotonic()
        flying: set[asyncio.Task[None]] = set()
        landed = asyncio.Event()
        spent_all = False

        async def fly(place: int, key: str, body: dict[str, Any], most: dict[str, float]) -> None:
            answers[place] = await self._answer(key, body)
            budget.hold(most, -1)
            if answers[place].error is None:
                budget.spend(answers[place])

        def land(task: asyncio.Task[None]) -> None:
            flying.discard(task)
            landed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                failures.append(error)

        async def wait_until(ready: Callable[[], bool]) -> None:
            while flying and not ready():
                landed.clear()
                await landed.wait()
                if failures:
                    raise failures[0]

        failures: list[BaseException] = []
        try:
            for place, (key, body) in enumerate(questions):
                most = budget.most(body)
                if not spent_all:
                    # a question waits for those before it where all of them together could use too much: so which ones are asked does not
                    # depend on how fast the server answers
                    await wait_until(lambda most=most: len(flying) < self.config.concurrency and budget.fits(most))  # type: ignore[misc]
                    spent_all = not budget.fits(most)
                if spent_all or self._late():
                    answers.append(Answer(error="budget" if spent_all else "time"))
                    continue
                if time.monotonic() - told > TOLD:
                    told = time.monotonic()
                    await asyncio.to_thread(self.on_progress)
                answers.append(Answer())
                budget.hold(most)
                task = asyncio.ensure_future(fly(place, key, body, most))
                flying.add(task)
                task.add_done_callback(land)
            await wait_until(lambda: False)
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        return answers

    def _late(self) -> bool:
        now = time.monotonic()
        self.started = self.started or now
        return self.config.limits.hours is not None and now - self.started > 3600 * self.config.limits.hours

    async def _answer(self, key: str, body: dict[str, Any]) -> Answer:
        """Returns the kept answer, or asks for it and keeps it. A question that is in flight is not asked again."""
        if key in self.flying:
            return await asyncio.shield(self.flying[key])
        future = self.flying[key] = self.loop.create_future()
        try:
            answer = await self.answers.aside(self.answers.get, key)
            if answer is None:
                answer = await self._tried(body)
                if answer.error is None:
                    self.failed = 0
                    for name, number in (("questions", 1), ("tokens_in", answer.tokens_in), ("tokens_out", answer.tokens_out)):
                        self.used[name] += number
                    await asyncio.to_thread(self.answers.put, key, answer)
            future.set_result(answer)
            return answer
        finally:
            future.cancel()
            del self.flying[key]

    async def _tried(self, body: dict[str, Any]) -> Answer:
        """Asks until there is an answer, a reason that will not change, or no try left."""
        reason, pause = "no answer", PAUSES[0]
        for number in range(self.config.tries):
            if number:
                # jitter, so that all questions of many workers do not come back at once; it decides nothing but when they are asked
                await asyncio.sleep(min(pause, PAUSES[1]) * random.uniform(0.5, 1.0))
                pause *= 2
            while (rest := self.waiting_until - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, LONGEST) * random.uniform(1.0, 1.1))
            found = await self._once(body)
            if isinstance(found, Answer):
                return found
            reason = found
        self.failed += 1
        if self.failed >= GONE:
            raise ServerLost(f"{self.config.url}: the server of the language model gives no answer ({reason}).")
        return Answer(error=reason)

    async def _once(self, body: dict[str, Any]) -> Answer | str:
        """Returns the answer of one try, or why there is none and another try may help."""
        import openai

        begun = time.perf_counter()
        sent = body if self.structured else {name: value for name, value in body.items() if name != "response_format"}
        try:
            async with asyncio.timeout(self.config.timeout):
                # as `extra_body` the question goes out as it is; else openai checks each part of it against types, a third of all time
                create = self.openai.chat.completions.with_streaming_response.create
                async with create(model=self.config.model, messages=[], extra_body=sent) as response:
                    content = bytearray()
                    async for chunk in response.iter_bytes():
                        content += chunk
                        if len(content) > LARGEST:
                            return "response too long"
            return read_response(bytes(content), round(time.perf_counter() - begun, 3))
        except openai.APIStatusError as error:
            return self._status(error)
        except (TimeoutError, openai.APITimeoutError):
            return "no answer in time"
        except openai.APIConnectionError as error:
            return f"no connection: {safe_line(str(error.__cause__ or error), 120)}"
        except ValueError:
            return "response not readable"
        except Exception as error:  # the transport's own errors in the middle of a body have no common class
            if isinstance(error, CorpusmillError):
                raise
            return f"connection broke off ({type(error).__name__})"

    def _status(self, error: Any) -> Answer | str:
        """Returns what an HTTP status means for a question."""
        status, said = error.status_code, safe_line(str(error.message).replace(self.key, "***"), 200)  # services repeat a wrong key
        if status in (401, 403, 404):
            what = {401: "it refuses the key", 403: "it refuses the key", 404: f"it has no model {self.config.model}, or another path"}
            raise ServerLost(f"{self.config.url}: {what[status]} (HTTP {status}: {said}; the key is read from {self.config.key_variable}).")
        if status in AGAIN:
            with suppress(ValueError, TypeError):
                seconds = min(float(error.response.headers.get("retry-after")), LONGEST)
                self.waiting_until = max(self.waiting_until, time.monotonic() + seconds)
            return f"HTTP {status}"
        if status in (400, 422) and self.structured and "response_format" in said.lower().replace("guided", "response_format"):
            self.structured = False  # a server without schemas: the prompt has it, and the parser is strict
            return "HTTP 400"
        return Answer(error=f"HTTP {status}: {_NUMBER.sub('#', said)[:80]}")  # without numbers, so that equal reasons are counted as one


def read_response(content: bytes, seconds: float) -> Answer:
    """Returns the answer in a response's body. Raises ValueError where it is not what OpenAI's protocol says."""
    value = parse_json(content)
    try:
        choice = value["choices"][0]
        said, finish, usage = choice["message"]["content"] or "", choice.get("finish_reason"), value.get("usage") or {}
        tokens = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("it holds no answer") from error
    if not isinstance(said, str) or not (finish is None or isinstance(finish, str)) or not all(type(count) is int for count in tokens):
        raise ValueError("its fields have other types")
    tokens_in, tokens_out = (max(count, 0) for count in tokens)
    return Answer(said.encode("utf-8", "replace").decode(), finish, tokens_in, tokens_out, seconds)
