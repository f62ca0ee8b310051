"""Texts that the models of a run write on prompts from held-out documents: see `tuning.only_measured`."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmill.train import tasks
from corpusmill.train.generate import generate_batch
from corpusmill.train.sampling import Sampling
from corpusmill.train.speaker import TextGenerator
from corpusmill.train.text_stream import plain

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig

_BEGINNING = 120  # characters of a document that a model is asked to continue


def choose_prompts(tables: Iterable[pa.Table], held_out: Callable[[str], bool], count: int) -> list[dict[str, str]]:
    """`count` held-out documents by hash: the beginning of a text to continue, and an instruction to answer."""

    def build(source: tasks.SourceDocument) -> list[dict[str, str]]:
        prose = [block for block in tasks.blocks(source.text) if tasks.is_prose(block)] if held_out(source.id) else []
        questions = tasks.instructions(source, 2 * _BEGINNING) if prose else []
        if not questions:
            return []
        return [{"document": source.id, "text": tasks.cut(prose[0], _BEGINNING), "question": questions[0].prompt}]

    return tasks.choose(tables, "samples", count, 1, build) if count else []


def choose_held_out(examples: pa.Table, count: int) -> list[dict[str, str]]:
    """`count` held-out examples of an instruction tuning by hash: the first message to answer, and the beginning of its answer."""
    held_out = sorted((row for row in examples.to_pylist() if row["held_out"]), key=lambda row: tasks.hash_of("samples", row["id"]))
    found = []
    for row in held_out[:count]:
        asked = next((m["content"] for m in row["messages"] if m["role"] == "user"), "")
        answer = next((m["content"] for m in row["messages"] if m["role"] == "assistant"), "")
        found.append({"document": row["id"], "text": tasks.cut(answer, _BEGINNING), "question": asked})
    return found


def write_samples(generator: TextGenerator, prompts: Sequence[dict[str, str]], kind: str, config: "EvaluateConfig") -> list[dict[str, Any]]:
    """One text for each prompt: `continuation` goes on from the document's beginning, `answer` replies to the question in a chat.

    No turn ends in a continuation, so there the token that ends one is never written, where another one ends documents.
    """
    answers = kind == "answer"
    ends = generator.stop if answers else generator.stop.intersection(generator.begin) or generator.stop
    asked = [prompt["question" if answers else "text"] for prompt in prompts]
    texts = generate_batch(
        generator.model,
        [generator.ids(text, chat=answers) for text in asked],
        max_tokens=config.max_tokens,
        sampling=Sampling(temperature=config.temperature, top_k=config.top_k),
        seeds=[tasks.hash_of(f"sample {config.seed} {kind}", prompt["document"]) for prompt in prompts],
        stop=ends,
        banned=(*generator.banned, *sorted(generator.stop - ends)),
        tokenizer=generator.tokenizer,
    )
    return [
        {"kind": kind, "document": prompt["document"], "prompt": given, "text": plain(text.text), "tokens": len(text.tokens)}
        for prompt, given, text in zip(prompts, asked, texts, strict=True)
    ]
