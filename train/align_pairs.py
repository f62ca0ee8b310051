"""The pairs of the stage `align`: their form as tables and as tokens, and how they are made from files and documents."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Output
from corpusmill.train import tasks, tuning
from corpusmill.train.align import CORRUPTED, PAIRS_FILE, AlignConfig
from corpusmill.train.model_folder import read_architecture
from corpusmill.train.options import row_length
from corpusmill.train.sft_job import MESSAGES
from corpusmill.train.tasks import (
    FilterScore,
    PairLimits,
    PairPool,
    dropped_documents,
    find_score,
    kept_documents,
    match,
    pool_of_continuations,
    pool_of_documents,
    score_texts,
)
from corpusmill.train.template import (
    NOTHING,
    ChatEncoder,
    Encoded,
    Message,
    TemplateRefusal,
    TextPiece,
    assistant_turn,
    load_chat,
    require_learnable,
    user_turn,
)
from corpusmill.train.tuning import REPORT_FILE
from corpusmill.train.user_files import BadRow, first_question, preferences, read_all

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun


# ---- pairs -------------------------------------------------------------------------------------------

#: For a pair from documents: the source of the rejected completion. For a pair from scores, also both scores.
ORIGIN = [
    pa.field("rejected_id", pa.string()),
    pa.field("rejected_url", pa.string()),
    pa.field("chosen_score", pa.float64()),
    pa.field("rejected_score", pa.float64()),
]

#: The schema of `align/data/pairs.parquet`: each pair and the document (or file and line) it came from.
PAIRS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # other, repeated, shuffled; a score's column; file
        pa.field("held_out", pa.bool_(), nullable=False),
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("chosen", MESSAGES, nullable=False),
        pa.field("rejected", MESSAGES, nullable=False),
        *ORIGIN,
    ]
)

REPORT_COLUMNS = tuning.report_schema(
    [
        pa.field("n_chosen_tokens", pa.int64()),  # of the completion, without the prompt
        pa.field("n_rejected_tokens", pa.int64()),
        *ORIGIN,
    ]
)


@dataclass(frozen=True)
class PreferencePair(tuning.DataItem):
    """A pair of completions; a row that is none has no messages."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    rejected_id: str | None = None
    rejected_url: str | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None

    def turns(self) -> list[Message]:
        return [*self.prompt, *self.chosen, *self.rejected]


@dataclass(frozen=True)
class PreparedPair(tuning.PreparedItem):
    """A pair as tokens: prompt and completion together, with the mask on the completion."""

    chosen: Encoded = NOTHING
    rejected: Encoded = NOTHING


def prepare_pair(pair: PreferencePair, encoder: ChatEncoder, context: int) -> PreparedPair:
    """Tokenises a pair. It is dropped for one of these reasons:

    the rule of a BadRow    the row is not a pair
    `template_refused`      the template refuses the conversation, or does not write the completion after the prompt
    `equal`                 both sides are the same tokens
    `empty`                 an assistant's turn in a completion is empty
    `too_long`              a whole side does not fit into `context` places; half a completion is not what was preferred
    `nothing_to_learn`      the template marks nothing in a completion
    """
    if pair.bad:
        return PreparedPair(pair, [pair.bad.rule or "no_pair"], note=str(pair.bad))
    try:
        chosen, rejected = (_encode(pair, side, encoder) for side in (pair.chosen, pair.rejected))
    except TemplateRefusal as refusal:
        return PreparedPair(pair, ["template_refused"], note=str(refusal))
    sides = ("chosen", pair.chosen, chosen), ("rejected", pair.rejected, rejected)
    notes: dict[str, list[str]] = {"equal": ["chosen and rejected are the same"] if np.array_equal(chosen.ids, rejected.ids) else []}
    notes["empty"] = [f"{name} says nothing" for name, messages, _ in sides if _blank(messages)]
    notes["too_long"] = [
        f"{name} has {len(tokens.ids):,} tokens with its prompt, and {context + 1:,} fit" for name, _, tokens in sides
        if len(tokens.ids) > context + 1
    ]  # fmt: skip
    notes["nothing_to_learn"] = [f"the template marks nothing of {name}" for name, _, tokens in sides if not tokens.mask.any()]
    failed = [rule for rule, sentences in notes.items() if sentences]
    return PreparedPair(pair, failed, chosen, rejected, note="; ".join(s for rule in failed for s in notes[rule]) or None)


def _blank(messages: Sequence[Message]) -> bool:
    return any(not message["content"].strip() for message in messages if message["role"] == "assistant")


def _encode(pair: PreferencePair, completion: list[Message], encoder: ChatEncoder) -> Encoded:
    """Encodes prompt and completion, with the mask on the completion. Where the tokenizer would join the end of the prompt with the start
    of the answer (mostly line breaks), the answer is encoded separately, because a model that answers continues the prompt's own tokens."""
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
    """Returns the pieces after `text`; None if the pieces do not begin with it, or it ends inside a special token."""
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
    return tuning.items_table(pairs, PAIRS)


def pairs_from_table(table: pa.Table) -> list[PreferencePair]:
    return [PreferencePair(**row) for row in table.to_pylist()]


def report_table(prepared: Sequence[PreparedPair]) -> pa.Table:
    """Returns one row for every pair."""
    counts = {f"n_{side}_tokens": [int(getattr(p, side).mask.sum()) for p in prepared] for side in ("chosen", "rejected")}
    return tuning.report_table(prepared, REPORT_COLUMNS, **counts)


def read_pairs(files: Sequence[str], held_out: float) -> list[PreferencePair]:
    """Returns the pairs in the user's files. The first question decides whether a pair is held out."""
    return [
        PreferencePair(name, None, "file", False, [], [], [], bad=found)
        if isinstance(found, BadRow)
        else PreferencePair(name, None, "file", tasks.is_held_out(first_question(found[0]), held_out), *found)
        for name, found in read_all(files, preferences, "a pair")
    ]


# ---- from documents, by corruption -------------------------------------------------------------------
#
# A true continuation against a false one of its length.


def build_pairs(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[PreferencePair]:
    """Returns at most `limit` pairs, at most `per_document` of one document: a true continuation against a false one of its length.

    A hash decides the kind of the false continuation: that of another document (see `_other`), the first words of the true one again and
    again, or the words of the true one shuffled.
    """
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.continuation_tasks(source, max_chars))
    held_flags = [held_out(task.source.id) for task in built]
    pairs = []
    for place, task in enumerate(built):
        other = _other(built, held_flags, place)
        kind, rejected = _rejected(task, other.answer)
        source = (other if kind == "other" else task).source
        turns = [user_turn(task.prompt)], [assistant_turn(task.answer)], [assistant_turn(rejected)]
        pairs.append(PreferencePair(task.source.id, task.source.url, kind, held_flags[place], *turns, source.id, source.url))
    return pairs


def _other(built: Sequence[tasks.BuiltTask], held_flags: Sequence[bool], place: int) -> tasks.BuiltTask:
    """Returns the next task of another document on the same side of the held-out split, so that nothing held out is learned. Without one,
    returns the task at `place` itself."""
    following = ((place + step) % len(built) for step in range(1, len(built)))
    fitting = (built[at] for at in following if held_flags[at] == held_flags[place] and built[at].source.id != built[place].source.id)
    return next(fitting, built[place])


def _rejected(task: tasks.BuiltTask, other: str) -> tuple[str, str]:
    choice = tasks.hash_of("rejected", task.source.id + task.prompt) % 4
    if choice < 2:
        return "other", tasks.cut(other, max(len(task.answer), 1))
    if choice == 2:
        return "repeated", _repeat(task.answer)
    return "shuffled", _shuffle(task.answer, task.source.id)


def _repeat(text: str) -> str:
    """Repeats the first words up to the text's length, as a model that is stuck in a loop writes."""
    first = text[: max(8, len(text) // 6)]
    first = (first[: first.rfind(" ")] if " " in first else first) + " "
    return (first * (len(text) // len(first) + 1))[: len(text)]


def _shuffle(text: str, identifier: str) -> str:
    """Puts the words in an order by hash; the characters instead where the script has no spaces."""
    words = text.split()
    units, glue = (words, " ") if len(words) > 8 else (list(text), "")
    order = sorted(range(len(units)), key=lambda place: tasks.hash_of(identifier, f"{place} {units[place]}"))
    return glue.join(units[place] for place in order)


# ---- from documents, by a score -----------------------------------------------------------------------


def pairs_of(
    score: FilterScore, matched: Sequence[tuple[tasks.BuiltTask, tasks.BuiltTask]], held_out: Callable[[str], bool]
) -> list[PreferencePair]:
    """Makes the pairs. A hash decides from which of the two documents the prompt comes, so that a fitting continuation is no cue."""
    pairs = []
    for good, bad in matched:
        source, other = good.source, bad.source
        asked = (good, bad)[tasks.hash_of(f"prompt {score.column}", source.id + good.prompt) % 2]
        turns = [user_turn(asked.prompt)], [assistant_turn(good.answer)], [assistant_turn(bad.answer)]
        pairs.append(
            PreferencePair(source.id, source.url, score.column, held_out(source.id), *turns, other.id, other.url, good.score, bad.score)
        )
    return pairs


# ---- the task ----------------------------------------------------------------------------------------

SOURCES_FILE = "pair_sources.json"


def make_pairs(run: "StageRun", config: AlignConfig, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
    """Makes all pairs, with a report row for each. Raises NothingKept if no pair is left to learn from."""
    folder = start.storage
    encoder = load_chat(folder)
    require_learnable(encoder)
    row = row_length(config.context, read_architecture(Path(folder.root)).context, "align.context")
    found: dict[str, dict[str, Any]] = {}
    if config.files:
        pairs = read_pairs(config.files, config.held_out)
    else:
        pairs, found = _from_documents(run, config)
    prepared = [prepare_pair(pair, encoder, row) for pair in pairs]
    kept = pairs_table([p.item for p in prepared if not p.failed])
    files = {PAIRS_FILE: kept, REPORT_FILE: report_table(prepared), **({SOURCES_FILE: tuning.json_file(found)} if found else {})}
    return tuning.made(run, "pairs", given, prepared, files, _short(found))


def _from_documents(run: "StageRun", config: AlignConfig) -> tuple[list[PreferencePair], dict[str, dict[str, Any]]]:
    """Returns the pairs of all kinds, and for each score how its pairs were found."""
    held_out = tuning.held_out_rule(run, config.held_out)
    pairs: list[PreferencePair] = []
    found = {}
    for number, kind in enumerate(config.pairs_from):
        wanted = (config.pairs + number) // len(config.pairs_from)
        if kind == CORRUPTED:
            limits = wanted, config.per_document, config.max_chars
            pairs += build_pairs(tuning.document_tables(run), f"align {config.seed}", *limits, held_out)
        else:
            some, found[kind] = _from_score(run, config, kind, wanted, held_out)
            pairs += some
    return pairs, found


def _from_score(
    run: "StageRun", config: AlignConfig, column: str, wanted: int, held_out: Callable[[str], bool]
) -> tuple[list[PreferencePair], dict[str, Any]]:
    score = find_score(run, column)
    limits = PairLimits(wanted, config.per_document, config.max_chars, config.best, config.worst)
    tables = (lambda: kept_documents(run, score)), (lambda: dropped_documents(run, score))
    salt = f"align {config.seed} {column}"
    if score.blind:
        pool = PairPool("documents")
    elif score.of_windows:
        pool = pool_of_continuations(score, partial(score_texts, run, column), *tables, salt, limits)
    else:
        pool = pool_of_documents(score, *tables, salt, limits)
    pairs = pairs_of(score, match(pool, held_out, wanted), held_out)
    found = {
        "column": column,
        "high_is_good": score.high_is_good,
        "unit": pool.unit,
        "scored": pool.scored,
        "chosen": len(pool.chosen),
        "rejected": len(pool.rejected),
        "good": pool.good,
        "bad": pool.bad,
        "wanted": wanted,
        "pairs": len(pairs),
        "chosen_chars": float(np.mean([len(pair.chosen[0]["content"]) for pair in pairs])) if pairs else None,
        "rejected_chars": float(np.mean([len(pair.rejected[0]["content"]) for pair in pairs])) if pairs else None,
    }
    return pairs, found | ({"left_out": score.blind} if score.blind else {})


def _short(found: dict[str, dict[str, Any]]) -> list[str]:
    """Returns sentences on why there are fewer pairs of a score than were asked for."""
    sentences = []
    for of in (of for of in found.values() if of["pairs"] < of["wanted"]):
        if left_out := of.get("left_out"):
            sentences.append(f"no pairs of a score: {left_out}")
            continue
        parts = f"{of['chosen']:,} continuations in the best part and {of['rejected']:,} in the worst"
        why = parts if of["good"] is not None else "no difference between the best and the worst part"
        sentences.append(f"{of['column']}: {of['pairs']} of {of['wanted']} pairs; {of['scored']:,} {of['unit']} have a score, with {why}.")
    return sentences
