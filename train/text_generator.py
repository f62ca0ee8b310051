"""A model folder as something that writes: text in, text out."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END
from corpusmill.pipeline.storage import Storage
from corpusmill.train.compute import pick_device
from corpusmill.train.generate import Overflow, Sampling, generate, generate_batch, stream_text
from corpusmill.train.model import Llama
from corpusmill.train.model_folder import load_model
from corpusmill.train.template import ChatEncoder, Message, load_chat, user_turn


@dataclass(frozen=True)
class Completion:
    """A text as a model wrote it; `plain` makes it safe for a terminal."""

    prompt: str
    text: str
    tokens: int  # that were written; those of a stop string included, a stop token not
    ended: str  # "stop token", "stop string" or "length"


@dataclass(frozen=True)
class TextGenerator:
    """A model with its tokenizer, ready to write."""

    folder: Path
    model: Llama
    tokenizer: Any  # tokenizers.Tokenizer
    stop: frozenset[int]  # ids that end a text
    banned: tuple[int, ...]  # ids that are never written: the other special tokens
    begin: tuple[int, ...]  # ids before every text

    @cached_property
    def encoder(self) -> ChatEncoder:
        """For conversations. InputError where the tokenizer can't have any."""
        return load_chat(Storage(str(self.folder)))

    def ids(self, prompt: str, chat: bool = False) -> list[int]:
        """The ids of a text to continue, or (`chat`) of a message to answer. InputError if it is not Unicode text."""
        if chat:
            return self.conversation([user_turn(prompt)])
        return [*self.begin, *self.tokenizer.encode(_unicode(prompt), add_special_tokens=False).ids]

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to the next answer. InputError if it is not Unicode text, or the template refuses it."""
        for message in messages:
            _unicode(message["content"])
        return list(map(int, self.encoder.encode(messages, add_generation_prompt=True).ids))

    def stream(
        self, ids: Sequence[int], *, max_tokens: int, sampling: Sampling, stop_strings: Sequence[str] = (), overflow: Overflow = "slide"
    ) -> Iterator[str]:
        """What continues `ids`, in pieces that are safe for a terminal, as they come. InputError before the first."""
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
        """`samples` texts for each prompt, in the prompts' order. A prompt's texts don't depend on the other prompts: sample `n` of
        each has the seed `sampling.seed + n`."""
        asked = [prompt for prompt in prompts for _ in range(samples)]
        ids = [ids for prompt in prompts for ids in [self.ids(prompt, chat)] * samples]
        texts = generate_batch(
            self.model, ids, max_tokens=max_tokens, sampling=sampling, seeds=[sampling.seed + n for _ in prompts for n in range(samples)],
            stop=self.stop, banned=self.banned, tokenizer=self.tokenizer, stop_strings=stop_strings, overflow=overflow,
        )  # fmt: skip
        return (Completion(prompt, text.text, len(text.tokens), text.ended) for prompt, text in zip(asked, texts, strict=True))


def load_text_generator(folder: str | Path, device: str = "auto") -> TextGenerator:
    """The speaker of a model folder, or of its URL. InputError names the file that is missing or broken."""
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
    tokenizer.encode_special_tokens = True  # names of special tokens in a text are text
    settings, names = read_settings(folder, "generation_config.json"), read_settings(folder, "tokenizer_config.json")
    begin = _ids(tokenizer, END_OF_TEXT) or _ids(tokenizer, settings.get("bos_token_id"))
    ends = (END_OF_TEXT, IM_END, settings.get("eos_token_id"), names.get("eos_token"))
    stop = frozenset(number for token in ends for number in _ids(tokenizer, token))
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return TextGenerator(folder, model, tokenizer, stop, tuple(sorted(special - stop)), begin)


def _unicode(text: str) -> str:
    """A command line or a pipe may bring bytes that are no UTF-8, in Python's disguise."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"character {error.start + 1} of a prompt is not Unicode text.") from error
    return text


def _ids(tokenizer: Any, token: Any) -> tuple[int, ...]:
    """The ids of a special token that is given as an id, a list of ids, its text, or an object with its text; those that there are."""
    if isinstance(token, list):
        return tuple(number for each in token for number in _ids(tokenizer, each))
    if isinstance(token, dict):
        token = token.get("content")
    number = tokenizer.token_to_id(token) if isinstance(token, str) else token
    return (number,) if isinstance(number, int) else ()


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a model folder; an empty one where there is no such file."""
    path = folder / name
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object.")
    return found
