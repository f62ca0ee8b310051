"""Generates tokens with a model: chooses the next token, streams tokens as text, writes for one prompt or for many at a time.

Options and their order are those of `transformers` (logits_process.py): repetition penalty, then temperature, top-k, top-p, min-p.
"""

import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END
from corpusmill.pipeline.storage import Storage
from corpusmill.train.compute import pick_device
from corpusmill.train.model import KVCache, Llama
from corpusmill.train.model_folder import load_model
from corpusmill.train.options import COLDEST
from corpusmill.train.template import ChatEncoder, Message, load_chat, user_turn

# ---- choosing a token --------------------------------------------------------------------------------
#
# Pure functions; each gives the same values as the class of `transformers` (tests/train/test_generate.py).


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises InputError, with the option's name, where an option is out of range."""

    temperature: float = 0.8  # divides the logits; 0 takes the most likely token, and then only the penalty matters
    top_k: int = 50  # choose among the k most likely tokens; 0: all
    top_p: float = 1.0  # choose among the fewest most likely tokens that together have this probability; 1: all
    min_p: float = 0.0  # choose among tokens with at least this share of the most likely one's probability; 0: all
    repetition_penalty: float = 1.0  # divides logits of tokens that occurred before (multiplies negative ones); 1: no change
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(self.temperature == 0 or COLDEST <= self.temperature < float("inf"), f"temperature: 0, or at least {COLDEST}")
        self._check(self.top_k >= 0, "top_k: 0 or more")
        self._check(0 <= self.top_p <= 1, "top_p: from 0 to 1")
        self._check(0 <= self.min_p <= 1, "min_p: from 0 to 1")
        self._check(0 < self.repetition_penalty < float("inf"), "repetition_penalty: above 0")
        self._check(self.seed >= 0, "seed: 0 or more")

    def _check(self, holds: bool, expected: str) -> None:
        if not holds:
            name = expected.partition(":")[0]
            raise InputError(f"{expected.replace(':', ' has to be', 1)}, not {getattr(self, name)}.")


DEFAULT, GREEDY = Sampling(), Sampling(temperature=0)


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Returns `logits` `[..., vocab]` with the tokens marked in `seen` (bool, same shape) made less likely (CTRL,
    https://arxiv.org/abs/1909.05858)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Returns `logits` `[..., vocab]` with -inf for all below the k-th largest; ties with the k-th stay."""
    return logits.masked_fill(logits < logits.topk(min(k, logits.size(-1))).values[..., -1:], -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Returns `logits` with -inf for the least likely tokens that together have at most 1 - p (https://arxiv.org/abs/1904.09751)."""
    ascending, order = logits.sort(dim=-1)
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1] = False
    return logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Returns `logits` with -inf for tokens less likely than p times the most likely one (https://arxiv.org/abs/2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """Returns the `logits` `[..., vocab]` to draw from: divided by the temperature, with -inf for tokens that a limit removes."""
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    return keep_min_p(logits, sampling.min_p) if sampling.min_p else logits


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Returns one token for each row, `[B]`, for `logits` `[B, vocab]`: at temperature 0 the most likely one. Else it is
    sampled from the warped distribution (inverse CDF in the order of ids), with `uniform` `[B]`, from 0 to 1, as the random numbers.

    So a row's choice depends only on its own logits and random number. Raises CorpusmillError if logits are NaN.
    """
    if sampling.temperature == 0:
        highest, chosen = logits.max(-1)
    else:
        shares = warp(logits, sampling).double().softmax(-1).cumsum(-1)
        highest = shares[:, -1]
        chosen = (shares <= (uniform * highest).unsqueeze(-1)).sum(-1)
    if bool(highest.isnan().any()):
        raise CorpusmillError("the model's logits are not numbers (NaN): its weights are damaged, or too large for their type.")
    return chosen


# ---- text as it is generated -------------------------------------------------------------------------
#
# Gives out whole characters only, no part of a stop string, and no control characters that a terminal would obey.

# C0 except tab and line feed, DEL, C1, and the marks that reorder text: with these a model could control the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: The largest number of tokens that wait for their bytes to become a whole character.
LONGEST_CHARACTER = 8


def plain(text: str) -> str:
    """Returns `text` without characters that a terminal would obey."""
    return CONTROL.sub("", text)


def json_line(value: Any) -> str:
    """Returns JSON on one line. Characters that a terminal would obey are escaped, so nothing is lost."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


class TextStream:
    """Turns tokens, one by one, into pieces of text. `stopped` becomes true when a stop string is complete; no text follows.

    The text ends before the stop string that is complete first (before the longer one if two end at the same place), whatever the borders
    of tokens. A possible beginning of a stop string is held back. `before` are the tokens before the text, as some tokenizers decode a
    token differently at the start.
    """

    def __init__(self, tokenizer: Any, stop_strings: Sequence[str] = (), before: Sequence[int] = ()):
        if "" in stop_strings:
            raise InputError("a stop string can't be empty: every text would end before it begins.")
        self.tokenizer, self.stop_strings, self.stopped = tokenizer, stop_strings, False
        self._before, self._waiting, self._held = list[int](), list[int](), ""
        self._go_on_from(list(before[-LONGEST_CHARACTER:]))

    def add(self, token: int) -> str:
        """Takes the next token. Returns the text that can be given out now."""
        if self.stopped:
            return ""
        self._waiting.append(token)
        text = self._new()
        if text.endswith("\ufffd") and len(self._waiting) < LONGEST_CHARACTER:
            return ""
        self._go_on_from(self._waiting)
        return self._released(text)

    def end(self) -> str:
        """Returns the text that was held back, when no more tokens come."""
        if self.stopped:
            return ""
        rest = self._released(self._new() if self._waiting else "") + ("" if self.stopped else self._held)
        self._waiting, self._held = [], ""
        return rest

    def _go_on_from(self, tokens: list[int]) -> None:
        whole = not self._text(tokens).endswith("\ufffd")  # a partial character would change with the next token
        self._before, self._waiting = tokens if whole else [], []

    def _new(self) -> str:
        """Returns the text of the waiting tokens."""
        return self._text(self._before + self._waiting)[len(self._text(self._before)) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _released(self, new: str) -> str:
        text = self._held + new
        if found := [(at + len(stop), at) for stop in self.stop_strings if (at := text.find(stop)) >= 0]:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        held = max((_overlap(text, stop) for stop in self.stop_strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Returns the number of characters at the end of `text` that may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


def stream_text(tokenizer: Any, tokens: Iterable[int], stop_strings: Sequence[str] = (), before: Sequence[int] = ()) -> Iterator[str]:
    """Yields the text of `tokens` in pieces that are safe for a terminal. Reads no token after the first stop string."""
    stream = TextStream(tokenizer, stop_strings, before)
    for token in tokens:
        if piece := plain(stream.add(token)):
            yield piece
        if stream.stopped:
            return
    if piece := plain(stream.end()):
        yield piece


# ---- generation --------------------------------------------------------------------------------------
#
# Writes for one prompt, or for many of any lengths at a time. A key-value cache saves computing any token twice.

#: Where a text may outgrow the context: `slide` forgets the older half and continues; `refuse` raises before the text starts.
Overflow = Literal["slide", "refuse"]
#: The reasons why a text ended.
STOP_TOKEN, STOP_STRING, LENGTH = "stop token", "stop string", "length"


@dataclass
class Draft:
    """A text while it is written, and afterwards: its prompt, its tokens with those of a stop string, why it ended, and, given a `stream`,
    its text without the stop string. Its reader may end it by setting `ended`."""

    prompt: Sequence[int]
    seed: int
    stream: TextStream | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("a text can't be continued from nothing: the prompt has no token.")
        self._random = np.random.default_rng(self.seed)

    def uniform(self) -> float:
        """Returns the next of the draft's own random numbers, so that its text does not depend on other rows."""
        return float(self._random.random())

    def latest(self, count: int) -> list[int]:
        """Returns the last `count` tokens of prompt and text."""
        return [*self.prompt[len(self.prompt) - max(0, count - len(self.tokens)) :], *self.tokens[-count:]]

    def read(self, token: int | None) -> None:
        """Adds the text of the next token, or, given None, the text that was held back."""
        if self.stream is not None:
            self.text += self.stream.end() if token is None else self.stream.add(token)
            self.ended = STOP_STRING if self.stream.stopped else self.ended


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
    """Yields the ids of tokens that continue `prompt`, as they are chosen, until a token in `stop` (not yielded) or `max_tokens`.

    Equal seeds give equal tokens. Raises InputError, before any token, where the prompt is empty or refused.
    """
    drafts = [Draft(prompt, sampling.seed)]
    check_context(model, drafts, max_tokens, overflow)
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
) -> Iterator[Draft]:
    """Yields the continuation of each prompt (token ids), in order, as soon as it and all before it are finished.

    `rows` prompts are written at a time; the next begin when all of these have ended. A text depends only on its prompt and its seed
    (default: `sampling.seed` plus its number), up to rounding; in float64 its tokens are equal. `stop_strings` need the `tokenizer`. Raises
    InputError, before any token, where a prompt is empty or refused.
    """
    seeds = range(sampling.seed, sampling.seed + len(prompts)) if seeds is None else seeds
    drafts = [Draft(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    check_context(model, drafts, max_tokens, overflow)
    if stop_strings and tokenizer is None:
        raise InputError("stop strings need a tokenizer, which tells the text of the tokens.")
    for draft in drafts if tokenizer is not None else ():
        draft.stream = TextStream(tokenizer, stop_strings, draft.prompt)

    def finished() -> Iterator[Draft]:
        waiting = deque(drafts)
        for draft, token in write(model, drafts, max_tokens=max_tokens, sampling=sampling, stop=stop, banned=banned, rows=rows):
            draft.read(token)
            while waiting and waiting[0].ended:
                waiting[0].read(None)
                yield waiting.popleft()
        for draft in waiting:
            draft.read(None)
            yield draft

    return finished()


def check_context(model: Llama, drafts: Sequence[Draft], max_tokens: int, overflow: Overflow) -> None:
    """Raises InputError if `overflow` is `refuse` and a text may outgrow the context."""
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
    """Yields every token of every draft as it is chosen, `rows` drafts at a time. A draft that its reader has ended gets no more tokens."""
    forbidden, penalty = list(banned), sampling.repetition_penalty
    for begin in range(0, len(drafts) if max_tokens > 0 else 0, rows):
        live = list(drafts[begin : begin + rows])
        cache: KVCache | None = None
        while live:
            if cache is None or cache.length == cache.longest:
                logits, cache = _read(model, live, cache, max_tokens)
            else:
                logits = _next(model, torch.tensor([draft.tokens[-1:] for draft in live], device=model.device), cache)
            logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
            if penalty != 1:
                logits = penalise(logits, _seen(live, logits), penalty)
            logits[:, forbidden] = -torch.inf
            drawn = [draft.uniform() if sampling.temperature else 0.0 for draft in live]
            tokens = choose(logits, sampling, torch.tensor(drawn, dtype=torch.float64, device=logits.device)).tolist()
            for draft, token in zip(live, tokens):
                if token in stop:
                    draft.ended = STOP_TOKEN
                    continue
                draft.tokens.append(token)
                if len(draft.tokens) == max_tokens:
                    draft.ended = LENGTH
                yield draft, token
            staying = [row for row, draft in enumerate(live) if not draft.ended]
            if len(staying) < len(live):
                cache.keep(staying)
                live = [live[row] for row in staying]


def _read(model: Llama, live: Sequence[Draft], cache: KVCache | None, max_tokens: int) -> tuple[Tensor, KVCache]:
    """Returns the logits `[B, vocab]` of each row's next token, and a new cache with its latest tokens.

    At first these are the prompt, or its end. A row that has filled the context keeps only its newer half, which is read again at new
    positions. All rows end at one place, so shorter rows begin later.
    """
    context = model.arch.context
    if cache is None:
        lengths = [min(len(draft.prompt), max(1, context - 1)) for draft in live]
    else:
        held = [cache.length - start for start in cache.starts]
        lengths = [length + 1 if length < context else max(1, context // 2) for length in held]
    end = max(lengths)
    new = model.new_cache(min(context, end + max_tokens))
    new.starts = [end - length for length in lengths]
    rows = [[0] * (end - length) + draft.latest(length) for draft, length in zip(live, lengths)]
    return _next(model, torch.tensor(rows, device=model.device), new), new


def _next(model: Llama, ids: Tensor, cache: KVCache) -> Tensor:
    """Returns the logits `[B, vocab]` after `ids` `[B, T]`, which are added to the cache. The head computes only the last place."""
    logits: Tensor = model.lm_head(model.model(ids, None, cache)[:, -1])
    return logits


def _seen(live: Sequence[Draft], logits: Tensor) -> Tensor:
    """Returns `[B, vocab]`: the tokens that occur in each draft or its prompt."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, draft in enumerate(live):
        seen[row, [*draft.prompt, *draft.tokens]] = True
    return seen


# ---- a model folder that generates text --------------------------------------------------------------


@dataclass(frozen=True)
class Completion:
    """A text as a model wrote it; use `plain` to make it safe for a terminal."""

    prompt: str
    text: str
    tokens: int  # written tokens; those of a stop string count, a stop token does not
    ended: str  # "stop token", "stop string" or "length"


@dataclass(frozen=True)
class TextGenerator:
    """A model with its tokenizer, ready to generate text."""

    folder: Path
    model: Llama
    tokenizer: Any  # tokenizers.Tokenizer
    stop: frozenset[int]  # ids that end a text
    banned: tuple[int, ...]  # ids that are never written: all other special tokens
    begin: tuple[int, ...]  # ids before every text

    @cached_property
    def encoder(self) -> ChatEncoder:
        """The tokenizer with its chat template. Raises InputError if the folder has no valid one."""
        return load_chat(Storage(str(self.folder)))

    def ids(self, prompt: str, chat: bool = False) -> list[int]:
        """Returns the ids of a text to continue, or (`chat`) of a message to answer. Raises InputError if it is not Unicode text."""
        if chat:
            return self.conversation([user_turn(prompt)])
        return [*self.begin, *self.tokenizer.encode(_unicode(prompt), add_special_tokens=False).ids]

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """Returns the ids of a conversation up to the next answer. Raises InputError if it is not Unicode, or the template refuses
        it."""
        for message in messages:
            _unicode(message["content"])
        return list(map(int, self.encoder.encode(messages, add_generation_prompt=True).ids))

    def stream(
        self, ids: Sequence[int], *, max_tokens: int, sampling: Sampling, stop_strings: Sequence[str] = (), overflow: Overflow = "slide"
    ) -> Iterator[str]:
        """Yields the continuation of `ids` in pieces that are safe for a terminal. Raises InputError before the first piece."""
        tokens = generate(
            self.model, ids, max_tokens=max_tokens, sampling=sampling, stop=self.stop, banned=self.banned, overflow=overflow
        )  # fmt: skip
        return stream_text(self.tokenizer, tokens, stop_strings, ids)

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        sampling: Sampling,
        samples: int = 1,
        chat: bool = False,
        stop_strings: Sequence[str] = (),
        overflow: Overflow = "slide",
    ) -> Iterator[Completion]:
        """Yields `samples` texts for each prompt, in the order of prompts. Sample `n` of every prompt has the seed `sampling.seed + n`, so
        a text does not depend on the other prompts."""
        asked = [prompt for prompt in prompts for _ in range(samples)]
        ids = [ids for prompt in prompts for ids in [self.ids(prompt, chat)] * samples]
        texts = generate_batch(
            self.model, ids, max_tokens=max_tokens, sampling=sampling, seeds=[sampling.seed + n for _ in prompts for n in range(samples)],
            stop=self.stop, banned=self.banned, tokenizer=self.tokenizer, stop_strings=stop_strings, overflow=overflow,
        )  # fmt: skip
        return (Completion(prompt, text.text, len(text.tokens), text.ended) for prompt, text in zip(asked, texts, strict=True))


def load_text_generator(folder: str | Path, device: str = "auto") -> TextGenerator:
    """Returns the text generator of a model folder or its URL. Raises InputError, which names the file that is missing or broken."""
    from tokenizers import Tokenizer

    folder = local_model(folder)
    model = load_model(folder, pick_device(device)).eval()
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, so the model can't read or write text.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{path}: not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True  # the name of a special token in a text is plain text
    settings, names = read_settings(folder, "generation_config.json"), read_settings(folder, "tokenizer_config.json")
    begin = _ids(tokenizer, END_OF_TEXT) or _ids(tokenizer, settings.get("bos_token_id"))
    ends = (END_OF_TEXT, IM_END, settings.get("eos_token_id"), names.get("eos_token"))
    stop = frozenset(number for token in ends for number in _ids(tokenizer, token))
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return TextGenerator(folder, model, tokenizer, stop, tuple(sorted(special - stop)), begin)


def _unicode(text: str) -> str:
    """Returns the text. Raises InputError for surrogates, by which Python passes on invalid UTF-8 from a command line or a pipe."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"character {error.start + 1} of a prompt is not Unicode text.") from error
    return text


def _ids(tokenizer: Any, token: Any) -> tuple[int, ...]:
    """Returns the ids of a special token given as an id, a list of ids, its text, or an object with its text; unknown ones are left out."""
    if isinstance(token, list):
        return tuple(number for each in token for number in _ids(tokenizer, each))
    if isinstance(token, dict):
        token = token.get("content")
    number = tokenizer.token_to_id(token) if isinstance(token, str) else token
    return (number,) if isinstance(number, int) else ()


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Returns a JSON object of a model folder, empty where the file is missing. Raises InputError if it is not a JSON object."""
    path = folder / name
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object.")
    return found
