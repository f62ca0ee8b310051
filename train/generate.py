"""Generates text with a model: chooses the next token, turns tokens into text, writes for one prompt or for many.

Options and their order are those of `transformers` (logits_process.py): repetition penalty, then temperature, top-k, top-p, min-p.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END
from corpusmill.pipeline.storage import Storage
from corpusmill.train.checkpoint import load_model
from corpusmill.train.compute import pick_device
from corpusmill.train.model import KVCache, Llama
from corpusmill.train.template import ChatEncoder, Message, load_chat, user_turn

# ---- choosing a token --------------------------------------------------------------------------------
#
# Pure functions; each gives the same values as the classes of `transformers` (tests/train/test_generate.py).


#: At lower temperatures logits would leave the range of fp32.
COLDEST = 1e-3


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises InputError, with the option's name, where an option is out of range."""

    temperature: float = 0.8  # divides the logits; 0 (below COLDEST) takes the most likely token, and then only the penalty matters
    top_k: int = 50  # choose among the k most likely tokens; 0: all
    top_p: float = 1.0  # choose among the fewest most likely tokens that together have this probability; 1: all
    min_p: float = 0.0  # choose among tokens with at least this share of the most likely one's probability; 0: all
    repetition_penalty: float = 1.0  # divides logits of tokens that occurred before (multiplies negative ones); 1: no change
    seed: int = 0

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 <= self.top_p <= 1, "from 0 to 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not holds:
                raise InputError(f"{name} has to be {expected}, not {getattr(self, name)}.")


DEFAULT, GREEDY = Sampling(), Sampling(temperature=0)


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Returns `logits` `[..., vocab]` with the tokens marked in `seen` (bool, same shape) made less likely (CTRL,
    https://arxiv.org/abs/1909.05858)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """Returns the `logits` `[..., vocab]` to draw from: divided by the temperature, with -inf for tokens that a limit removes."""
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:  # ties with the k-th stay
        least = logits.topk(min(sampling.top_k, logits.size(-1))).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:  # without the least likely tokens that together have at most 1 - p (https://arxiv.org/abs/1904.09751)
        ascending, order = logits.sort(dim=-1)
        removed = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        removed[..., -1] = False
        logits = logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)
    if sampling.min_p:  # https://arxiv.org/abs/2407.01082
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < sampling.min_p * probabilities.amax(-1, keepdim=True), -torch.inf)
    return logits


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Returns one token for each row, `[B]`, for `logits` `[B, vocab]`: at temperature 0 the most likely one. Else it is
    sampled from the warped distribution (inverse CDF in the order of ids), with `uniform` `[B]`, from 0 to 1, as the random numbers.

    So a row's choice depends only on its own logits and random number. Raises CorpusmillError if logits are NaN.
    """
    if sampling.temperature < COLDEST:
        highest, chosen = logits.max(-1)
    else:
        shares = warp(logits, sampling).double().softmax(-1).cumsum(-1)
        highest = shares[:, -1]
        chosen = (shares <= (uniform * highest).unsqueeze(-1)).sum(-1)
    if bool(highest.isnan().any()):
        raise CorpusmillError("the model's logits are not numbers (NaN): its weights are damaged, or too large for their type.")
    return chosen


# ---- a text as it is written -------------------------------------------------------------------------

# C0 except tab and line feed, DEL, C1, and the marks that reorder text: with these a model could control the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: The largest number of tokens that wait for their bytes to become a whole character.
LONGEST_CHARACTER = 8
#: The reasons why a text ended.
STOP_TOKEN, STOP_STRING, LENGTH = "stop token", "stop string", "length"


def plain(text: str) -> str:
    """Returns `text` without characters that a terminal would obey."""
    return CONTROL.sub("", text)


def json_line(value: Any) -> str:
    """Returns JSON on one line. Characters that a terminal would obey are escaped, so nothing is lost."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


class Draft:
    """A text while it is written, and afterwards: `tokens`, with those of a stop string; why it `ended`; given a tokenizer, its `text`.

    The text grows by whole characters. It ends before the stop string that is complete first (before the longer one if two end at the same
    place), whatever the borders of tokens, so what may become a stop string is held back.
    """

    def __init__(self, prompt: Sequence[int], seed: int, tokenizer: Any = None, stop_strings: Sequence[str] = ()):
        if not prompt:
            raise InputError("a text can't be continued from nothing: the prompt has no token.")
        if "" in stop_strings:
            raise InputError("a stop string can't be empty: every text would end before it begins.")
        if stop_strings and tokenizer is None:
            raise InputError("stop strings need a tokenizer, which tells the text of the tokens.")
        self.prompt, self.tokenizer, self.stop_strings = prompt, tokenizer, stop_strings
        self.random = np.random.default_rng(seed)  # its own, so that its text does not depend on other rows
        self.tokens, self.text, self.ended = list[int](), "", ""
        self._decoded, self._waiting = "", list[int]()  # with what is held back; tokens that may have only part of a character
        self._before = list(prompt[-LONGEST_CHARACTER:])  # some tokenizers decode a token differently at the start

    def add(self, token: int, stop: Collection[int], max_tokens: int) -> None:
        """Takes the next token, with which the text may end."""
        if token in stop:
            self.ended = STOP_TOKEN
        else:
            self.tokens.append(token)
            self._waiting.append(token)
            self.ended = LENGTH if len(self.tokens) == max_tokens else ""
        if self.tokenizer is not None:
            self._decode()

    def _decode(self) -> None:
        before = self._text(self._before)
        if before.endswith("\ufffd"):  # a partial character, which would change with the next token
            self._before, before = [], ""
        new = self._text(self._before + self._waiting)[len(before) :]
        if new.endswith("\ufffd") and len(self._waiting) < LONGEST_CHARACTER and not self.ended:
            return
        self._decoded += new
        self._before, self._waiting = self._waiting, []
        if found := [(at + len(stop), at) for stop in self.stop_strings if (at := self._decoded.find(stop, len(self.text))) >= 0]:
            self.text, self.ended = self._decoded[: min(found)[1]], STOP_STRING
            return
        beginnings = (stop[:size] for stop in self.stop_strings for size in range(1, len(stop)) if not self.ended)
        held = max((len(beginning) for beginning in beginnings if self._decoded.endswith(beginning)), default=0)
        self.text = self._decoded[: len(self._decoded) - held]

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


# ---- generation --------------------------------------------------------------------------------------
#
# Writes for one prompt, or for many of any lengths at a time. A key-value cache saves computing any token twice.


def generate_batch(
    model: Llama, prompts: Sequence[Sequence[int]], *, max_tokens: int, sampling: Sampling = DEFAULT, seeds: Sequence[int] | None = None,
    stop: Collection[int] = (), banned: Sequence[int] = (), tokenizer: Any = None, stop_strings: Sequence[str] = (), rows: int = 16,
) -> Iterator[Draft]:  # fmt: skip
    """Yields the continuation of each prompt (token ids), in order.

    `rows` prompts are written at a time; the next begin when all of these have ended. A text depends only on its prompt and its seed
    (default: `sampling.seed` plus its number), up to rounding; in float64 its tokens are equal. Texts and `stop_strings` need the
    `tokenizer`. Raises InputError, before any token, where a prompt is empty.
    """
    seeds = range(sampling.seed, sampling.seed + len(prompts)) if seeds is None else seeds
    drafts = [Draft(prompt, seed, tokenizer, stop_strings) for prompt, seed in zip(prompts, seeds, strict=True)]
    for begin in range(0, len(drafts), rows):
        group = drafts[begin : begin + rows]
        for _ in write(model, group, max_tokens=max_tokens, sampling=sampling, stop=stop, banned=banned):
            pass
        yield from group


@torch.inference_mode()
def write(
    model: Llama, drafts: Sequence[Draft], *, max_tokens: int, sampling: Sampling, stop: Collection[int], banned: Sequence[int]
) -> Iterator[Draft]:  # fmt: skip
    """Adds tokens to all drafts until they end. Yields a draft after each of its tokens."""
    live = list(drafts) if max_tokens > 0 else []
    cache: KVCache | None = None
    while live:
        ids = [draft.tokens[-1:] for draft in live]
        if cache is None or cache.length == cache.longest:
            ids, cache = _window(model, live, cache, max_tokens)
        logits = model.lm_head(model.model(torch.tensor(ids, device=model.device), None, cache)[:, -1])
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        if sampling.repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool)
            for row, draft in enumerate(live):
                seen[row, [*draft.prompt, *draft.tokens]] = True
            logits = penalise(logits, seen, sampling.repetition_penalty)
        logits[:, list(banned)] = -torch.inf
        drawn = [draft.random.random() for draft in live]
        tokens = choose(logits, sampling, torch.tensor(drawn, dtype=torch.float64, device=logits.device)).tolist()
        for draft, token in zip(live, tokens, strict=True):
            draft.add(token, stop, max_tokens)
            yield draft
        staying = [row for row, draft in enumerate(live) if not draft.ended]
        if len(staying) < len(live):
            cache.take(staying)
            live = [live[row] for row in staying]


def _window(model: Llama, live: Sequence[Draft], cache: KVCache | None, max_tokens: int) -> tuple[list[list[int]], KVCache]:
    """Returns the latest tokens of each row, and a new cache for them.

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
    return [[0] * (end - length) + [*draft.prompt, *draft.tokens][-length:] for draft, length in zip(live, lengths)], new


# ---- a model folder that generates text --------------------------------------------------------------


@dataclass(frozen=True)
class TextGenerator:
    """A model with its tokenizer, ready to generate text."""

    folder: Path
    model: Llama
    encoder: ChatEncoder  # with the folder's chat template, else ChatML
    stop: frozenset[int]  # ids that end a text
    banned: tuple[int, ...]  # ids that are never written: all other special tokens
    begin: tuple[int, ...]  # ids before every text

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizer

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

    def stream(self, draft: Draft, max_tokens: int, sampling: Sampling) -> Iterator[str]:
        """Writes the draft. Yields its text in pieces that are safe for a terminal."""
        shown = 0
        for _ in write(self.model, [draft], max_tokens=max_tokens, sampling=sampling, stop=self.stop, banned=self.banned):
            if piece := plain(draft.text[shown:]):
                yield piece
            shown = len(draft.text)

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, sampling: Sampling, samples: int = 1, chat: bool = False,
        stop_strings: Sequence[str] = (),
    ) -> Iterator[Draft]:  # fmt: skip
        """Yields `samples` texts for each prompt, in the order of prompts. Sample `n` of every prompt has the seed `sampling.seed + n`, so
        a text does not depend on the other prompts. Use `plain` to make a text safe for a terminal."""
        ids = [ids for prompt in prompts for ids in [self.ids(prompt, chat)] * samples]
        return generate_batch(
            self.model, ids, max_tokens=max_tokens, sampling=sampling, seeds=[sampling.seed + n for _ in prompts for n in range(samples)],
            stop=self.stop, banned=self.banned, tokenizer=self.tokenizer, stop_strings=stop_strings,
        )  # fmt: skip


def load_text_generator(folder: str | Path, device: str = "auto") -> TextGenerator:
    """Returns the text generator of a model folder or its URL. Raises InputError, which names the file that is missing or broken."""
    folder = local_model(folder)
    model = load_model(folder, pick_device(device)).eval()
    encoder = load_chat(Storage(str(folder)))
    settings = read_settings(folder, "generation_config.json")
    begin = token_ids(encoder.tokenizer, END_OF_TEXT) or token_ids(encoder.tokenizer, settings.get("bos_token_id"))
    end = settings.get("eos_token_id")
    ends = (END_OF_TEXT, IM_END, *(end if isinstance(end, list) else [end]), encoder.special.get("eos_token"))
    stop = frozenset(token_ids(encoder.tokenizer, *ends))
    return TextGenerator(folder, model, encoder, stop, tuple(sorted(set(encoder.special_ids.values()) - stop)), begin)


def _unicode(text: str) -> str:
    """Returns the text. Raises InputError for surrogates, by which Python passes on invalid UTF-8 from a command line or a pipe."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"character {error.start + 1} of a prompt is not Unicode text.") from error
    return text


def token_ids(tokenizer: Any, *tokens: Any) -> tuple[int, ...]:
    """Returns the ids of special tokens given as ids or texts; unknown ones are left out."""
    numbers = (tokenizer.token_to_id(token) if isinstance(token, str) else token for token in tokens)
    return tuple(number for number in numbers if isinstance(number, int))


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Returns a JSON object of a model folder, empty where the file is missing. Raises InputError if it is not a JSON object."""
    path = folder / name
    try:
        found = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object.")
    return found
