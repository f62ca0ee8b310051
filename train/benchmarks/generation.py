"""Answers in free text: the most likely token each time, until a text that begins something else, an end token, or enough."""

from collections.abc import Iterator, Sequence

from corpusmill.train.benchmarks.answers import STOPS
from corpusmill.train.benchmarks.encode import Encoder
from corpusmill.train.generate import generate_batch
from corpusmill.train.sampling import GREEDY
from corpusmill.train.speaker import TextGenerator

#: Answers that are written at a time.
ROWS = 16


def answer_texts(generator: TextGenerator, encoder: Encoder, prompts: Sequence[str], longest: int) -> Iterator[tuple[str, bool]]:
    """The text that follows each prompt, up to the first of STOPS, and whether the prompt's beginning did not fit.

    A prompt leaves room for `longest` tokens, which are at most half of the context: what is left out is its beginning.
    """
    context = encoder.context
    longest = min(longest, max(1, context // 2))
    whole = encoder.encode(prompts)
    kept = [ids[-(context - longest) :] for ids in whole]
    texts = generate_batch(
        generator.model, kept, max_tokens=longest, sampling=GREEDY, stop=generator.stop, tokenizer=generator.tokenizer,
        stop_strings=STOPS, rows=ROWS,
    )  # fmt: skip
    for text, ids, some in zip(texts, whole, kept, strict=True):
        yield text.text, len(some) < len(ids)
