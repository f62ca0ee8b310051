"""Pairs of a preferred and a rejected completion: what is kept of them, as tokens and in the report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.schemas import REPORT, with_columns
from corpusmill.train.sft_job import MESSAGES
from corpusmill.train.template import ChatEncoder, Encoded, Message, TemplateRefusal, TextPiece
from corpusmill.train.user_files import BadRow

#: Of a pair from documents: where the rejected completion is from. Of one from scores: both scores.
ORIGIN = [
    pa.field("rejected_id", pa.string()),
    pa.field("rejected_url", pa.string()),
    pa.field("chosen_score", pa.float64()),
    pa.field("rejected_score", pa.float64()),
]

#: What `align/data/pairs.parquet` holds: each pair and the document (or file and line) it came from.
PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # other, repeated, shuffled; the score's column; file
        pa.field("held_out", pa.bool_(), nullable=False),
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("chosen", MESSAGES, nullable=False),
        pa.field("rejected", MESSAGES, nullable=False),
        *ORIGIN,
    ]
)

REPORT_COLUMNS = with_columns(
    REPORT,
    [
        pa.field("kind", pa.string()),
        pa.field("held_out", pa.bool_()),
        pa.field("n_chosen_tokens", pa.int64()),  # of the completion alone
        pa.field("n_rejected_tokens", pa.int64()),
        pa.field("note", pa.string()),  # why it was dropped, in a sentence
        *ORIGIN,
    ],
)


@dataclass(frozen=True)
class PreferencePair:
    """`bad` says what is wrong with a row of a file that is no pair; it then has no messages."""

    id: str
    url: str | None
    kind: str
    held_out: bool
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    rejected_id: str | None = None
    rejected_url: str | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    bad: BadRow | None = None


NOTHING = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))


@dataclass(frozen=True)
class PreparedPair:
    """A pair as tokens: prompt and completion together, the mask on the completion. `failed` says why it is dropped."""

    pair: PreferencePair
    chosen: Encoded
    rejected: Encoded
    failed: list[str]
    note: str | None = None


def prepare_pair(pair: PreferencePair, encoder: ChatEncoder, context: int) -> PreparedPair:
    """Tokenises a pair. Why one is dropped:

    what BadRow calls it    the row is no pair
    `template_refused`      the template does not take it, or does not write the completion behind the prompt
    `equal`                 both sides are the same tokens
    `empty`                 an assistant's turn of a completion says nothing
    `too_long`              a side does not fit into `context` places whole: half a completion is not what was preferred
    `nothing_to_learn`      the template marks nothing of a completion
    """
    if pair.bad:
        return PreparedPair(pair, NOTHING, NOTHING, [pair.bad.rule], str(pair.bad))
    try:
        chosen, rejected = (_encode(pair, side, encoder) for side in (pair.chosen, pair.rejected))
    except TemplateRefusal as refusal:
        return PreparedPair(pair, NOTHING, NOTHING, ["template_refused"], str(refusal))
    sides = ("chosen", pair.chosen, chosen), ("rejected", pair.rejected, rejected)
    notes: dict[str, list[str]] = {"equal": ["chosen and rejected are the same"] if np.array_equal(chosen.ids, rejected.ids) else []}
    notes["empty"] = [f"{name} says nothing" for name, messages, _ in sides if _blank(messages)]
    notes["too_long"] = [
        f"{name} has {len(tokens.ids):,} tokens with its prompt, and {context + 1:,} fit" for name, _, tokens in sides
        if len(tokens.ids) > context + 1
    ]  # fmt: skip
    notes["nothing_to_learn"] = [f"the template marks nothing of {name}" for name, _, tokens in sides if not tokens.mask.any()]
    failed = [rule for rule, sentences in notes.items() if sentences]
    return PreparedPair(pair, chosen, rejected, failed, "; ".join(s for rule in failed for s in notes[rule]) or None)


def _blank(messages: Sequence[Message]) -> bool:
    return any(not message["content"].strip() for message in messages if message["role"] == "assistant")


def _encode(pair: PreferencePair, completion: list[Message], encoder: ChatEncoder) -> Encoded:
    """Prompt and completion, the mask on the completion. Where a tokenizer joins the prompt's end with the answer's begin (line breaks,
    mostly), the answer is encoded alone behind the prompt's ids: so it stands when the model answers."""
    asked = encoder.template.pieces(pair.prompt, add_generation_prompt=True)
    answered = encoder.template.pieces([*pair.prompt, *completion])
    rest = _behind(answered, "".join(piece.text for piece in asked))
    if rest is None:
        raise TemplateRefusal(
            f"{encoder.template.name}: with its completion the conversation does not begin with the prompt as it is asked "
            "(a completion begins with an assistant's turn)."
        )
    prompt, whole = encoder.encode_pieces(asked).ids, encoder.encode_pieces(answered)
    ids, mask = whole.ids[len(prompt) :], whole.mask[len(prompt) :]
    if not np.array_equal(whole.ids[: len(prompt)], prompt):
        alone = encoder.encode_pieces(rest)
        ids, mask = alone.ids, alone.mask
    return Encoded(np.concatenate([prompt, ids]), np.concatenate([np.zeros(len(prompt), np.bool_), mask]))


def _behind(pieces: Sequence[TextPiece], text: str) -> list[TextPiece] | None:
    """What follows `text`; None where the pieces do not begin with it, or it ends inside a special token."""
    rest = []
    for piece in pieces:
        known = min(len(text), len(piece.text))
        if text[:known] != piece.text[:known] or (piece.special and 0 < known < len(piece.text)):
            return None
        text = text[known:]
        if known < len(piece.text):
            rest.append(replace(piece, text=piece.text[known:]))
    return None if text else rest


def pairs_table(pairs: Sequence[PreferencePair]) -> pa.Table:
    return pa.table({name: [getattr(pair, name) for pair in pairs] for name in PAIRS.names}, PAIRS)


def pairs_from_table(table: pa.Table) -> list[PreferencePair]:
    return [PreferencePair(**row) for row in table.to_pylist()]


def report_table(prepared: Sequence[PreparedPair]) -> pa.Table:
    """One row for every pair: REPORT's columns and what was counted."""
    chars = [sum(len(m["content"]) for m in (*p.pair.prompt, *p.pair.chosen, *p.pair.rejected)) for p in prepared]
    return pa.table(
        {
            "id": [p.pair.id for p in prepared],
            "url": [p.pair.url for p in prepared],
            "kept": [not p.failed for p in prepared],
            "failed": [p.failed for p in prepared],
            "chars_in": chars,
            "chars_out": [0 if p.failed else count for p, count in zip(prepared, chars, strict=True)],
            "kind": [p.pair.kind for p in prepared],
            "held_out": [p.pair.held_out for p in prepared],
            "n_chosen_tokens": [int(p.chosen.mask.sum()) for p in prepared],
            "n_rejected_tokens": [int(p.rejected.mask.sum()) for p in prepared],
            "note": [p.note for p in prepared],
            **{field.name: [getattr(p.pair, field.name) for p in prepared] for field in ORIGIN},
        },
        REPORT_COLUMNS,
    )
