"""Texts that the models of a run write on prompts from documents that none of them has learned from."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, IM_START_ID, PAD_ID
from corpusmill.train import tasks
from corpusmill.train.conversation import user_turn
from corpusmill.train.generate import generate, stream_text
from corpusmill.train.model import Llama
from corpusmill.train.template import ChatEncoder

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig

_BEGINNING = 120  # characters of a document that a model is asked to continue


def choose_prompts(tables: Iterable[pa.Table], held_out: Callable[[str], bool], count: int) -> list[dict[str, str]]:
    """`count` held-out documents by hash: the beginning of a text to continue, and an instruction to answer."""

    def build(source: tasks.Source) -> list[dict[str, str]]:
        prose = [block for block in tasks.blocks(source.text) if tasks.is_prose(block)] if held_out(source.id) else []
        questions = tasks.instructions(source, 2 * _BEGINNING) if prose else []
        if not questions:
            return []
        return [{"document": source.id, "text": tasks.cut(prose[0], _BEGINNING), "question": questions[0].prompt}]

    return tasks.choose(tables, "samples", count, 1, build) if count else []


def sample(model: Llama, encoder: ChatEncoder, prompt: dict[str, str], kind: str, config: "EvaluateConfig") -> dict[str, Any]:
    """One text: `continuation` goes on from the document's beginning, `answer` replies to the question in a chat.

    No turn ends in a continuation, so there the token that ends one is never written.
    """
    given = prompt["text"] if kind == "continuation" else prompt["question"]
    if kind == "continuation":
        ids = [EOT_ID, *encoder.encode_text(given)]
    else:
        ids = encoder.encode([user_turn(given)], add_generation_prompt=True).ids.tolist()
    banned = (PAD_ID, IM_START_ID, IM_END_ID) if kind == "continuation" else (PAD_ID, IM_START_ID)
    seed = tasks.hash_of(f"sample {config.seed} {kind}", prompt["document"]) >> 1  # torch takes 63 bits
    tokens = list(
        generate(
            model, ids, max_tokens=config.max_tokens, temperature=config.temperature, top_k=config.top_k, seed=seed,
            stop=(EOT_ID, IM_END_ID), banned=banned,
        )
    )  # fmt: skip
    text = "".join(stream_text(encoder.tokenizer, iter(tokens)))
    return {"kind": kind, "document": prompt["document"], "prompt": given, "text": text, "tokens": len(tokens)}
