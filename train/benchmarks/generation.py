"""Answers in free text: the most likely token each time, until a text that begins something else, an end token, or enough."""

from collections.abc import Sequence

import torch

from corpusmill.train.benchmarks.answers import STOPS
from corpusmill.train.benchmarks.encode import Encoder
from corpusmill.train.benchmarks.loglikelihood import Advance
from corpusmill.train.generate import Speaker, generate


def answer_texts(speaker: Speaker, encoder: Encoder, prompts: Sequence[str], longest: int, advance: Advance) -> list[tuple[str, bool]]:
    """The text that follows each prompt, up to the first of STOPS, and whether the prompt's beginning did not fit.

    A prompt leaves room for `longest` tokens, which are at most half of the context: what is left out is its beginning.
    """
    context = encoder.context
    longest = min(longest, max(1, context // 2))
    found = []
    for ids in encoder.encode(prompts):
        kept = ids[-(context - longest) :]
        written: list[int] = []
        text = ""
        for token in generate(speaker.model, kept, max_tokens=longest, temperature=0.0, stop=speaker.stop, banned=()):
            written.append(token)
            text = speaker.tokenizer.decode(written, skip_special_tokens=True)
            if any(stop in text for stop in STOPS):
                break
        for stop in STOPS:
            text = text.partition(stop)[0]
        found.append((text, len(kept) < len(ids)))
        advance(1)
    return found
