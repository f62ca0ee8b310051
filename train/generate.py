"""Tokens from a model, for one prompt or for many of any lengths at a time, each computed once thanks to a key-value cache."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from corpusmill.pipeline.errors import InputError
from corpusmill.train.decode_step import DecodeStep
from corpusmill.train.model import Llama
from corpusmill.train.sampling import DEFAULT, Sampling, choose, penalise
from corpusmill.train.text_stream import TextStream

#: What becomes of a text that outgrows the context: the model forgets its older half and goes on, or it is not begun.
Overflow = Literal["slide", "refuse"]
#: Why a text ended.
STOP_TOKEN, STOP_STRING, LENGTH = "stop token", "stop string", "length"


@dataclass
class Draft:
    """A text in the making: what it goes on from, what was written, and once it is over, why. Whoever reads it may end it."""

    prompt: Sequence[int]
    seed: int
    tokens: list[int] = field(default_factory=list)
    ended: str = ""
    cached: int = 0  # how many of its latest tokens the cache holds

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("a text can't be continued from nothing: the prompt has no token.")
        self._random = np.random.default_rng(self.seed)

    def uniform(self) -> float:
        """The next of its own random numbers, so that its company changes nothing."""
        return float(self._random.random())

    def latest(self, count: int) -> list[int]:
        """The last `count` tokens of prompt and text."""
        return [*self.prompt[len(self.prompt) - max(0, count - len(self.tokens)) :], *self.tokens[-count:]]


@dataclass(frozen=True)
class Generated:
    """A finished text: its tokens (those that make a stop string included) and, where a tokenizer was given, the text without it."""

    tokens: list[int]
    text: str
    ended: str


def generate(
    model: Llama,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    sampling: Sampling = DEFAULT,
    stop: Collection[int] = (),
    banned: Sequence[int] = (),
    overflow: Overflow = "slide",
) -> Iterator[int]:
    """Token ids that continue the ids of `prompt`, as they are chosen, until one of `stop` (which is not given out) or `max_tokens`.

    Equal seeds give equal tokens. Raises InputError, before any token, for an empty prompt and for one that is refused.
    """
    drafts = [Draft(prompt, sampling.seed)]
    check_room(model, drafts, max_tokens, overflow)
    return (token for _, token in write(model, drafts, max_tokens=max_tokens, sampling=sampling, stop=stop, banned=banned))


def generate_batch(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    sampling: Sampling = DEFAULT,
    seeds: Sequence[int] | None = None,
    stop: Collection[int] = (),
    banned: Sequence[int] = (),
    tokenizer: Any = None,
    stop_strings: Sequence[str] = (),
    overflow: Overflow = "slide",
    rows: int = 16,
) -> Iterator[Generated]:
    """What continues each of the `prompts` (token ids), in their order, each given out as soon as it and all before it are finished.

    `rows` of them are written at a time; where one ends the next begins. A text depends on its prompt and its seed alone (`sampling.seed`
    plus its number, where `seeds` are not given), up to rounding: in float64 to the token. `stop_strings` need the `tokenizer`.
    Raises InputError, before any token, for an empty prompt and for one that is refused.
    """
    seeds = range(sampling.seed, sampling.seed + len(prompts)) if seeds is None else seeds
    drafts = [Draft(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    check_room(model, drafts, max_tokens, overflow)
    if stop_strings and tokenizer is None:
        raise InputError("stop strings need a tokenizer, which tells the text of the tokens.")
    streams = [TextStream(tokenizer, stop_strings, draft.prompt) for draft in drafts] if tokenizer is not None else []
    texts = ["" for _ in drafts]
    number_of = {id(draft): number for number, draft in enumerate(drafts)}

    def finished() -> Iterator[Generated]:
        given = 0
        for draft, token in write(model, drafts, max_tokens=max_tokens, sampling=sampling, stop=stop, banned=banned, rows=rows):
            if streams:
                number = number_of[id(draft)]
                texts[number] += streams[number].add(token)
                if streams[number].stopped:
                    draft.ended = STOP_STRING
            while given < len(drafts) and drafts[given].ended:
                yield result(given)
                given += 1
        for number in range(given, len(drafts)):
            yield result(number)

    def result(number: int) -> Generated:
        rest = streams[number].end() if streams else ""
        return Generated(drafts[number].tokens, texts[number] + rest, drafts[number].ended)

    return finished()


def check_room(model: Llama, drafts: Sequence[Draft], max_tokens: int, overflow: Overflow) -> None:
    """Raises InputError where texts that outgrow the context are refused and one may."""
    for number, draft in enumerate(drafts if overflow == "refuse" else (), 1):
        if len(draft.prompt) + max_tokens > model.arch.context:
            which = f"prompt {number} has" if len(drafts) > 1 else "the prompt has"
            raise InputError(
                f"{which} {len(draft.prompt)} tokens, which with {max_tokens} to come are more than the model's context of "
                f"{model.arch.context}: shorten it, ask for fewer tokens, or let the window slide."
            )


@torch.inference_mode()
def write(
    model: Llama, drafts: Sequence[Draft], *, max_tokens: int, sampling: Sampling, stop: Collection[int], banned: Sequence[int],
    rows: int = 16,
) -> Iterator[tuple[Draft, int]]:  # fmt: skip
    """Every token of every draft as it is chosen, up to `rows` drafts at a time. A draft that its reader has ended gets no more tokens."""
    batch = _Batch(model, drafts, max_tokens, min(rows, len(drafts)), sampling.repetition_penalty)
    forbidden = list(banned)
    while batch.begin():
        logits = batch.logits(sampling.repetition_penalty)
        logits[:, forbidden] = -torch.inf
        drawn = [draft.uniform() if sampling.temperature else 0.0 for draft in batch.live]
        tokens = choose(logits, sampling, torch.tensor(drawn, dtype=torch.float64, device=logits.device)).tolist()
        for draft, token in zip(batch.live, tokens):
            if token in stop:
                draft.ended = STOP_TOKEN
                continue
            draft.tokens.append(token)
            if len(draft.tokens) == max_tokens:
                draft.ended = LENGTH
            yield draft, token


class _Batch:
    """The drafts that are written at a time, a row of the cache each, and those that wait.

    Beyond the context a row's window slides: its older half is forgotten, and the newer one is read again at its new positions.
    """

    def __init__(self, model: Llama, drafts: Sequence[Draft], max_tokens: int, rows: int, penalty: float):
        self.model, self.step, self.context, self.rows = model, DecodeStep(model), model.arch.context, rows
        self.live: list[Draft] = []
        self.waiting = deque(drafts if max_tokens > 0 else ())
        longest = max((len(draft.prompt) for draft in drafts), default=1)
        room = min(self.context, longest + max_tokens)
        # rows that end at one place leave gaps before them, and closing those copies the cache: not at every step
        self.cache = model.new_cache(room + self.context // 2 if len(drafts) > 1 else room)
        self.cache.length = self._longest()
        self.seen = torch.zeros(rows, model.arch.vocab_size, dtype=torch.bool, device=model.device) if penalty != 1 else None

    def begin(self) -> bool:
        """Gives the rows of drafts that ended to drafts that wait; false where nothing is left to write."""
        for row in reversed(range(len(self.live))):
            if not self.live[row].ended:
                continue
            if self.waiting:
                self.live[row] = self.waiting.popleft()
                continue
            last = self.live.pop()
            self.cache.drop(row)
            if row < len(self.live):
                self.live[row] = last
                if self.seen is not None:
                    self.seen[row] = self.seen[len(self.live)]
        while self.waiting and len(self.live) < self.rows:
            self.live.append(self.waiting.popleft())
            self.cache.starts.append(self.cache.length)
        return bool(self.live)

    def logits(self, penalty: float) -> Tensor:
        """Of each row's next token `[B, vocab]`, after it has read what was not read yet; at least fp32."""
        anew = [row for row, draft in enumerate(self.live) if draft.cached in (0, self.context)]
        logits = self._go_on(anew) if len(anew) < len(self.live) else None
        for length, group in groupby(sorted(anew, key=self._to_read), key=self._to_read):
            members = list(group)
            read = self._read(members, length)
            if logits is None:
                logits = read.new_empty(len(self.live), read.size(-1))
            logits[members] = read
        assert logits is not None
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        return logits if self.seen is None else penalise(logits, self._note(self.seen), penalty)

    def _go_on(self, anew: Sequence[int]) -> Tensor:
        """One more token in every row; rows that are read `anew` afterwards go along as if they began here."""
        if self.cache.length == self.cache.longest:
            self.cache.shift(self.cache.length - self._longest())
        for row in anew:
            self.cache.starts[row] = self.cache.length
        latest = [draft.tokens[-1] if draft.tokens else 0 for draft in self.live]
        logits = self.step(torch.tensor(latest, device=self.model.device), self.cache)
        for row, draft in enumerate(self.live):
            draft.cached += row not in anew
        return logits

    def _read(self, members: Sequence[int], length: int) -> Tensor:
        """The last `length` tokens of some rows, from nothing."""
        ids = torch.tensor([self.live[row].latest(length) for row in members], device=self.model.device)
        cache = self.model.new_cache(length)
        logits = self.model.lm_head(self.model.model(ids, None, cache)[:, -1])  # the head works only there
        for number, row in enumerate(members):
            self.cache.put(row, cache, number, self.rows)
            self.live[row].cached = length
        return logits

    def _to_read(self, row: int) -> int:
        return self._needed(self.live[row])

    def _needed(self, draft: Draft) -> int:
        """How many places a draft has, or will be begun with: what fits and leaves room for one, half of the context where it was full."""
        if draft.cached == self.context:
            return max(1, self.context // 2)
        return draft.cached or min(len(draft.prompt), max(1, self.context - 1))

    def _longest(self) -> int:
        """The most places that a row has or that a draft will be begun with."""
        return max(map(self._needed, (*self.live, *self.waiting)), default=1)

    def _note(self, seen: Tensor) -> Tensor:
        """Marks the latest tokens, all of them where a draft begins; `[B, vocab]`."""
        for row, draft in enumerate(self.live):
            if draft.tokens:
                seen[row, draft.tokens[-1]] = True
            else:
                seen[row] = False
                seen[row, list(draft.prompt)] = True
        return seen[: len(self.live)]
