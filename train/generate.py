"""Text from a model: token by token with a key-value cache, streamed as it comes."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END, PAD
from corpusmill.train.checkpoint import load_model
from corpusmill.train.device import pick_device
from corpusmill.train.model import Llama
from corpusmill.train.sampling import choose, plain

#: A piece of text waits for at most this many tokens to become whole characters.
LONGEST_CHARACTER = 8


@dataclass(frozen=True)
class Speaker:
    """A model with its tokenizer, ready to write."""

    model: Llama
    tokenizer: Any  # tokenizers.Tokenizer
    stop: frozenset[int]  # ids that end a text
    banned: tuple[int, ...]  # ids that are never written
    begin: tuple[int, ...]  # ids before every prompt


def load_for_generation(folder: str | Path, device: str = "auto") -> Speaker:
    """The speaker of a model folder. InputError names the file that is missing or broken."""
    from tokenizers import Tokenizer

    folder = Path(folder)
    model = load_model(folder, pick_device(device)).eval()
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file, so the model can't read or write text.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{path}: not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True  # names of special tokens in a text are text
    begin, banned = _ids(tokenizer, END_OF_TEXT), _ids(tokenizer, PAD)
    stop = {*begin, *_ids(tokenizer, IM_END), *_end_tokens(folder)}
    return Speaker(model, tokenizer, frozenset(stop), banned, begin)


def _ids(tokenizer: Any, name: str) -> tuple[int, ...]:
    """The id of a special token; none where the tokenizer is another program's and lacks it."""
    number = tokenizer.token_to_id(name)
    return () if number is None else (number,)


def _end_tokens(folder: Path) -> set[int]:
    """The end tokens that `generation_config.json` names, where there is one."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return set()
    try:
        given = json.loads(path.read_bytes()).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object.") from error
    return {int(number) for number in (given if isinstance(given, list) else [given]) if number is not None}


@torch.no_grad()
def generate(
    model: Llama,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Collection[int] = (),
    banned: Sequence[int] = (),
) -> Iterator[int]:
    """Token ids that continue the ids of `prompt`, until one of `stop` (which is not given out) or `max_tokens`.

    Beyond the model's context the window slides: the older half is forgotten. Equal seeds give equal tokens.
    """
    if not prompt:
        raise InputError("a text can't be continued from nothing: the prompt has no token.")
    generator = torch.Generator().manual_seed(seed)
    context = model.arch.context
    seen = list(prompt)
    new = seen if len(seen) < context else seen[-max(1, context - 1) :]
    longest = min(context, len(seen) + max_tokens)
    cache = model.new_cache(longest)
    for _ in range(max_tokens):
        if cache.length + len(new) > longest:
            cache = model.new_cache(longest)
            new = seen[-max(1, context // 2) :]
        logits = model(torch.tensor([new], device=model.device), cache=cache)[0, -1].float().cpu()
        logits[list(banned)] = -torch.inf
        token = choose(logits, temperature, top_k, top_p, generator)
        if token in stop:
            return
        yield token
        seen.append(token)
        new = [token]


def stream_text(tokenizer: Any, tokens: Iterator[int]) -> Iterator[str]:
    """The text of tokens as it becomes whole characters, without anything that a terminal would obey."""
    waiting: list[int] = []
    for token in tokens:
        waiting.append(token)
        text = tokenizer.decode(waiting, skip_special_tokens=True)
        if not text.endswith("\ufffd") or len(waiting) >= LONGEST_CHARACTER:
            waiting = []
            if shown := plain(text):
                yield shown
    if waiting and (shown := plain(tokenizer.decode(waiting, skip_special_tokens=True))):
        yield shown


def complete(
    model_folder: str | Path,
    prompt: str,
    *,
    max_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[str]:
    """The prompt and its continuation, piece by piece, by the model of a folder."""
    speaker = load_for_generation(model_folder, device)
    ids = [*speaker.begin, *speaker.tokenizer.encode(prompt, add_special_tokens=False).ids]
    yield plain(prompt)
    tokens = generate(
        speaker.model, ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        stop=speaker.stop, banned=speaker.banned,
    )  # fmt: skip
    yield from stream_text(speaker.tokenizer, tokens)
