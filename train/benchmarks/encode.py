"""Items as token ids: where a context ends and its continuation begins, and what of both fits into a model's context."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.train.speaker import TextGenerator

CONFIG = "tokenizer_config.json"
#: Texts that are encoded at a time.
TEXTS = 4096


@dataclass(frozen=True)
class ScoredSequence:
    """Ids, at most one more than the context, of which the last `count` are scored. `cut`: the beginning did not fit."""

    ids: npt.NDArray[np.int64]
    count: int
    cut: bool


class Encoder:
    """The tokenizer of a model folder, used as lm-evaluation-harness uses it."""

    def __init__(self, generator: TextGenerator):
        self.tokenizer, self.context = generator.tokenizer, generator.model.arch.context
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.prefix = prefix_token(generator.folder, self.tokenizer)

    def encode(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Ids of texts. `special`: with what the tokenizer itself puts around a text."""
        found: list[list[int]] = []
        for begin in range(0, len(texts), TEXTS):  # what else the library gives is large, and not kept
            some = list(texts[begin : begin + TEXTS])
            found += [encoding.ids for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=special)]
        return found

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[ScoredSequence]:
        """(context, continuation) each. Spaces at a context's end belong to the continuation; the whole is encoded, and what lies
        behind as many ids as the context alone has is the continuation. Before an empty context stands the model's first token."""
        moved = [(context.rstrip(), context[len(context.rstrip()) :] + continuation) for context, continuation in pairs]
        contexts = list(dict.fromkeys(context for context, _ in moved if context))
        lengths = dict(zip(contexts, map(len, self.encode(contexts)), strict=True))
        alone = iter(self.encode([continuation for context, continuation in moved if not context], special=False))
        whole = iter(self.encode([context + continuation for context, continuation in moved if context]))
        found = []
        for context, continuation in moved:
            if context:
                ids, before = next(whole), lengths[context]
            else:
                ids, before = next(alone), 1
                if ids[:1] != [self.prefix]:
                    ids = [self.prefix, *ids]
            if len(ids) <= before or not before:
                raise InputError(f"evaluate: the continuation {continuation[:40]!r} has no token of its own after {context[-40:]!r}.")
            found.append(self.fitted(ids, len(ids) - before))
        return found

    def fitted(self, ids: Sequence[int], count: int) -> ScoredSequence:
        """What fits is the end; the last id is only a target, so there is room for one more than the context."""
        kept = np.array(ids[-(self.context + 1) :], np.int64)
        return ScoredSequence(kept, min(count, len(kept) - 1), len(kept) < len(ids))


def prefix_token(folder: Path, tokenizer: Any) -> int:
    """The id before a text that has nothing before it: the `bos_token` of tokenizer_config.json, else its `eos_token`, else our own."""
    path = folder / CONFIG
    config = {}
    if path.is_file():
        try:
            config = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}).") from error
    names = [config.get(key) for key in ("bos_token", "eos_token")] if isinstance(config, dict) else []
    for name in (*names, END_OF_TEXT):
        content = name.get("content") if isinstance(name, dict) else name
        number = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if number is not None:
            return int(number)
    raise InputError(f"{path}: names no token with which a text begins (bos_token or eos_token).")
