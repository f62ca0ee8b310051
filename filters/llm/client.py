"""Asks a server many questions at once, keeps every answer, and stays within what may be used."""

import asyncio
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from corpusmill.filters.llm.answer import key_of
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
#: Questions in a row for which all tries failed without any answer, after which the server counts as gone.
GONE = 8
#: Statuses after which the same question is asked again.
AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))


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

    def _path(self, key: str) -> str:
        return f"{key[:2]}/{key}.json"

    def get(self, key: str) -> Answer | None:
        """Returns the kept answer. None where there is none, or where its file is not what was written."""
        try:
            value = parse_json(self.storage.read_bytes(self._path(key)))
            return Answer(**{field.name: value[field.name] for field in fields(Answer) if field.name != "error"})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Answer) -> None:
        content = json.dumps({name: value for name, value in asdict(answer).items() if name != "error"}, ensure_ascii=False).encode()
        if self.storage.remote:
            self.storage.write_bytes(self._path(key), content)
            return
        path = Path(self.storage.path(self._path(key)))
        temporary = path.with_name(f".{path.name}.{os.getpid()}")  # without fsync: an answer that a power failure takes is asked for again
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            raise InputError(f"{path}: the answer can't be kept ({error.strerror}).") from error


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

    def fits(self, use: Mapping[str, float], alone: bool = False) -> bool:
        """Whether this still fits beside the questions in flight, or, `alone`, if there were none."""
        return all(self.spent[name] + (0 if alone else self.held[name]) + use[name] <= limit for name, limit in self.limits.items())

    def hold(self, use: Mapping[str, float], sign: int = 1) -> None:
        for name, amount in use.items():
            self.held[name] += sign * amount

    def spend(self, answer: Answer) -> None:
        for name, amount in use(self.prices, answer.tokens_in, answer.tokens_out).items():
            self.spent[name] += amount


class Client:
    """Asks one server. It has a thread with an event loop of its own, which ends with `close`."""

    def __init__(self, config: LlmConfig):
        from openai import AsyncOpenAI, DefaultAioHttpClient

        self.config = config
        self.answers = Answers(config.cache)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="llm", daemon=True).start()
        key = os.environ.get(config.key_variable) or "none"  # local servers need none

        async def connect() -> Any:
            return AsyncOpenAI(base_url=config.url, api_key=key, max_retries=0, timeout=config.timeout, http_client=DefaultAioHttpClient())

        self.openai = asyncio.run_coroutine_threadsafe(connect(), self.loop).result()
        self.flying: dict[str, asyncio.Task[Answer]] = {}  # questions in flight, by key
        self.structured = True
        self.failed = 0  # questions in a row without any answer
        self.started: float | None = None
        self.waiting_until = 0.0  # a server that says how long to wait says it for all questions

    def close(self) -> None:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self.openai.close(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def ask(self, bodies: Iterable[dict[str, Any]], budget: Budget) -> list[Answer]:
        """Returns an answer to each question, in their order; those that the budget does not reach have the error `budget` or `time`.
        Raises ServerLost."""
        return asyncio.run_coroutine_threadsafe(self._ask_all(iter(bodies), budget), self.loop).result()

    async def _ask_all(self, bodies: Iterator[dict[str, Any]], budget: Budget) -> list[Answer]:
        answers: list[Answer] = []
        flying: deque[asyncio.Task[None]] = deque()
        spent_all = False

        async def fly(place: int, body: dict[str, Any], most: dict[str, float]) -> None:
            try:
                answers[place] = await self._answer(body)
            finally:
                budget.hold(most, -1)
            if answers[place].error is None:
                budget.spend(answers[place])

        async def land(until: Callable[[], bool]) -> None:
            while flying and not until():
                done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    flying.remove(task)
                    task.result()

        try:
            for place, body in enumerate(bodies):
                most = budget.most(body)
                if not spent_all:
                    # a question waits for those before it where all of them together could use too much: so which ones are asked does not
                    # depend on how fast the server answers
                    await land(lambda most=most: len(flying) < self.config.concurrency and budget.fits(most))  # type: ignore[misc]
                    spent_all = not budget.fits(most)
                late = self._late()
                if spent_all or late:
                    answers.append(Answer(error="budget" if spent_all else "time"))
                    continue
                answers.append(Answer())
                budget.hold(most)
                flying.append(asyncio.ensure_future(fly(place, body, most)))
            await land(lambda: False)
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        return answers

    def _late(self) -> bool:
        now = time.monotonic()
        self.started = self.started or now
        return self.config.limits.hours is not None and now - self.started > 3600 * self.config.limits.hours

    async def _answer(self, body: dict[str, Any]) -> Answer:
        """Returns the kept answer, or asks for it and keeps it. A question that is in flight is not asked again."""
        key = key_of(body)
        if key not in self.flying:
            self.flying[key] = asyncio.ensure_future(self._kept_or_asked(key, body))
            self.flying[key].add_done_callback(lambda _: self.flying.pop(key, None))
        return await self.flying[key]

    async def _kept_or_asked(self, key: str, body: dict[str, Any]) -> Answer:
        if (kept := await asyncio.to_thread(self.answers.get, key)) is not None:
            return kept
        answer = await self._tried(body)
        if answer.error is None:
            self.failed = 0
            await asyncio.to_thread(self.answers.put, key, answer)
        return answer

    async def _tried(self, body: dict[str, Any]) -> Answer:
        """Asks until there is an answer, a reason that will not change, or no try left."""
        reason, pause = "no answer", PAUSES[0]
        for number in range(self.config.tries):
            if number:
                # jitter, so that all questions of many workers do not come back at once; it decides nothing but when they are asked
                await asyncio.sleep(min(pause, PAUSES[1]) * random.uniform(0.5, 1.0))  # noqa: S311
                pause *= 2
            while (rest := self.waiting_until - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, LONGEST) * random.uniform(1.0, 1.1))  # noqa: S311
            found = await self._once(body)
            if isinstance(found, Answer):
                return found
            reason = found
            if reason.startswith("HTTP"):
                self.failed = 0  # somebody is there
        self.failed += 1
        if self.failed >= GONE:
            raise ServerLost(f"{self.config.url}: the server of the language model does not answer ({reason}).")
        return Answer(error=reason)

    async def _once(self, body: dict[str, Any]) -> Answer | str:
        """Returns the answer of one try, or why there is none and another try may help."""
        import openai

        begun = time.perf_counter()
        sent = body if self.structured else {name: value for name, value in body.items() if name != "response_format"}
        own = {name: sent[name] for name in ("model", "messages", "max_tokens", "temperature", "seed", "response_format") if name in sent}
        extra = {name: value for name, value in sent.items() if name not in own}
        try:
            async with asyncio.timeout(self.config.timeout):
                async with self.openai.chat.completions.with_streaming_response.create(**own, extra_body=extra) as response:
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
        status, said = error.status_code, safe_line(str(error.message), 200)
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
        return Answer(error=f"HTTP {status}")


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
    return Answer(said.encode("utf-8", "replace").decode(), finish, *(max(count, 0) for count in tokens), seconds)
