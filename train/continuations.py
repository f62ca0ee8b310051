"""How a model in training goes on with a few fixed beginnings of held-out documents."""

from typing import Any

import numpy as np

from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, IM_START_ID, PAD_ID
from corpusmill.train.generate import generate_batch
from corpusmill.train.model import Llama
from corpusmill.train.sampling import Sampling
from corpusmill.train.text_stream import plain
from corpusmill.train.validation import Validation

#: Tokens of a document that are given (at most half of it), and that are written.
GIVEN, WRITTEN = 24, 48
TEMPERATURE, TOP_K = 0.7, 50


class Continuations:
    """`count` held-out documents, every so-manieth; equal weights and seeds give equal texts."""

    def __init__(self, validation: Validation, tokenizer: bytes, count: int, seed: int):
        from tokenizers import Tokenizer

        self.tokenizer, self.seed = Tokenizer.from_str(tokenizer.decode()), seed
        shards, starts = validation.shards, validation.starts
        count = min(count, len(starts))
        chosen = starts[np.arange(count) * len(starts) // max(count, 1)]
        self.documents = [shards.documents_of(start, 1)[0] for start in chosen.tolist()]
        self.prompts = [shards.tokens(a.shard)[a.first : a.first + min(GIVEN, a.tokens // 2)].tolist() for a in self.documents]

    def write(self, model: Llama) -> list[dict[str, Any]]:
        """One text for each document: its id, what was given, and what the model wrote."""
        texts = generate_batch(
            model,
            [[EOT_ID, *prompt] for prompt in self.prompts],
            max_tokens=WRITTEN,
            sampling=Sampling(temperature=TEMPERATURE, top_k=TOP_K, seed=self.seed),
            stop=(EOT_ID,),
            banned=(PAD_ID, IM_START_ID, IM_END_ID),
            tokenizer=self.tokenizer,
        )
        return [
            {"document": document.id, "prompt": plain(self.tokenizer.decode(prompt)), "text": plain(text.text)}
            for document, prompt, text in zip(self.documents, self.prompts, texts, strict=True)
        ]
