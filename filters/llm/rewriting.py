"""Rewritten documents: what they keep of their document, and how they name it."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.filters.language import Language
from corpusmill.filters.llm.config import LlmConfig
from corpusmill.pipeline.schemas import document_id

#: What a rewritten document says of where it comes from; null or 0 for documents of the crawl. Its address in the crawl is its document's.
LINEAGE = (
    pa.field("rewritten_from", pa.string()),  # the id of its document
    pa.field("rewritten_as", pa.string()),  # the step's name: the kind of rewriting
    pa.field("rewritten_by", pa.string()),  # the model
    pa.field("rewritten_prompt", pa.string()),  # digest of the prompt
    pa.field("rewritten", pa.int64()),  # 1; 0 for documents of the crawl, so that `dedup.keep: [-rewritten, longest]` prefers them
)
#: By column of the record, how a rewritten text differs from its document.
FAITHFULNESS = (
    pa.field("numbers_kept", pa.float64()),  # share of the document's numbers that it has; null where there are none
    pa.field("names_kept", pa.float64()),
    pa.field("new_numbers", pa.int64()),
    pa.field("length_ratio", pa.float64()),
    pa.field("same_language", pa.bool_()),  # null where a language is not known
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LIST_MARK = re.compile(r"^\W*\d{1,3}[.)]\s", re.MULTILINE)
#: A capitalised word after another word of its sentence.
_NAME = re.compile(r"(?<=[\w,;] )(?:[^\W\d_a-z][\w'’-]+)")


def numbers(text: str) -> set[str]:
    """Returns the numbers of a text without their separators, and without those that number a list."""
    return {re.sub("[.,]", "", found) for found in _NUMBER.findall(_LIST_MARK.sub("", text))}


def names(text: str) -> set[str]:
    """Returns words that are names in scripts with capitals."""
    return {word for word in _NAME.findall(text) if word[:1].isupper()}


def faithfulness(document: str, text: str) -> dict[str, Any]:
    """Measures what a rewritten text keeps of its document (the part that the prompt held), but for the language."""
    of_document, of_text = numbers(document), numbers(text)
    called, words = names(document), set(re.findall(r"[\w'’-]+", text))
    return {
        "numbers_kept": len(of_document & of_text) / len(of_document) if of_document else None,
        "names_kept": len(called & words) / len(called) if called else None,
        "new_numbers": len(of_text - of_document),
        "length_ratio": len(text) / len(document) if document else None,
    }


@cache
def _language() -> Language:
    step = Language(Language.Config.model_validate({}))
    step.setup()
    return step


def languages(texts: Sequence[str]) -> list[int]:
    """Returns a number for the language of each text; -1 where it is not known."""
    scores = _language().scores(pa.array(texts, pa.large_string()))
    best = scores.argmax(axis=1)
    return [int(label) if scores[row, label] >= 0 else -1 for row, label in enumerate(best)]


def unfaithful(config: LlmConfig, measured: Mapping[str, Any]) -> str | None:
    """Returns why a rewritten text is refused; None where it may go on."""
    wanted = config.faithful
    low, high = wanted.ratio
    checks = (
        ("numbers lost", _below(measured["numbers_kept"], wanted.numbers)),
        ("names lost", _below(measured["names_kept"], wanted.names)),
        ("new numbers", wanted.new_numbers is not None and measured["new_numbers"] > wanted.new_numbers),
        ("too short", _below(measured["length_ratio"], low)),
        ("too long", measured["length_ratio"] is not None and measured["length_ratio"] > high),
        ("other language", wanted.language and measured["same_language"] is False),
    )
    return next((reason for reason, holds in checks if holds), None)


def _below(value: float | None, least: float | None) -> bool:
    return value is not None and least is not None and value < least


def rewritten(config: LlmConfig, documents: pa.Table, places: Sequence[int], texts: Sequence[str]) -> pa.Table:
    """Returns a document for each new text. It keeps all columns of the document at its place but id, text and what was measured on that
    text, so that whoever takes an address down takes it too."""
    table = documents.take(pa.array(places, pa.int64())) if len(places) else documents.slice(0, 0)
    parents = table["id"].to_pylist()
    ids = [document_id(f"{parent}:{config.name}:{config.model}:{config.prompt_digest}", b"") for parent in parents]
    made = {"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.large_string())}
    for name, column in made.items():
        table = table.set_column(table.schema.get_field_index(name), documents.schema.field(name), column)
    lineage: dict[str, Any] = {"rewritten_from": parents, "rewritten_as": config.name, "rewritten_by": config.model}
    lineage |= {"rewritten_prompt": config.prompt_digest, "rewritten": 1}
    for field in LINEAGE:
        value = lineage[field.name]
        column = pa.array(value if isinstance(value, list) else [value] * len(parents), field.type)
        table = table.append_column(field, column)
    return table


def same_language(documents: Sequence[str], texts: Sequence[str]) -> list[bool | None]:
    pairs = np.array([languages(documents), languages(texts)]) if texts else np.zeros((2, 0), int)
    return [None if min(pair) < 0 else bool(pair[0] == pair[1]) for pair in pairs.T]
