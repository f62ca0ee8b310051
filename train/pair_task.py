"""The task of the stage `align` that makes its pairs, from files or documents, and decides about each with a report row."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import NothingKept
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Output
from corpusmill.train import corrupted_pairs, pair_files, preference_data, scored_pairs, tuning
from corpusmill.train.align import CORRUPTED, PAIRS_FILE, AlignConfig
from corpusmill.train.chat_folder import require_learnable
from corpusmill.train.checkpoint import read_architecture
from corpusmill.train.preference_data import Pair
from corpusmill.train.scores import TextScorer, dropped_documents, find_score, kept_documents
from corpusmill.train.template import load_chat

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

REPORT_FILE = "report/part-00000.parquet"
SOURCES_FILE = "pair_sources.json"


def make_pairs(run: "StageRun", config: AlignConfig, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
    """Raises NothingKept where no pair is left to learn from."""
    folder = start.storage
    encoder, context = load_chat(folder), read_architecture(Path(folder.root)).context
    require_learnable(encoder)
    found: dict[str, dict[str, Any]] = {}
    if config.files:
        pairs = pair_files.read_pairs(config.files, config.held_out, singles=config.loss == "kto")
    else:
        pairs, found = _from_documents(run, config)
    prepared = [preference_data.prepare_pair(pair, encoder, context) for pair in pairs]
    kept = [p.pair for p in prepared if not p.failed]
    dropped, counts = len(pairs) - len(kept), tuning.reasons(p.failed for p in prepared)
    if all(pair.held_out for pair in kept):
        listed = ", ".join(f"{name} {count:,}" for name, count in Counter(counts).most_common())
        what = ", ".join(config.files) or "the run's documents"
        why = [f"The first was dropped: {p.note}" for p in prepared if p.note][:1]
        none = f"align: {what}: none of {len(pairs)} pairs can be learned from{f' ({listed})' if listed else ''}."
        raise NothingKept(" ".join([none, *why, *_short(found)]))
    return Output(
        files={
            PAIRS_FILE: preference_data.pairs_table(kept),
            REPORT_FILE: preference_data.report_table(prepared),
            **({SOURCES_FILE: tuning.json_file(found)} if found else {}),
        },
        rows_in=len(pairs),
        kept=len(kept),
        dropped=dropped,
        bytes_in=sum(ref.bytes for ref in given),
        counts=counts,
        warnings=[*tuning.dropped_sentence("pairs", dropped, len(pairs), counts), *_short(found)],
    )


def _from_documents(run: "StageRun", config: AlignConfig) -> tuple[list[Pair], dict[str, dict[str, Any]]]:
    """The pairs of all kinds, and for each score how they came about."""
    held_out = tuning.held_out_rule(run, config.held_out)
    pairs: list[Pair] = []
    found = {}
    for number, kind in enumerate(config.pairs_from):
        wanted = (config.pairs + number) // len(config.pairs_from)
        if kind == CORRUPTED:
            limits = wanted, config.per_document, config.max_chars
            pairs += corrupted_pairs.build_pairs(tuning.document_tables(run), f"align {config.seed}", *limits, held_out)
        else:
            some, found[kind] = _from_score(run, config, kind, wanted, held_out)
            pairs += some
    return pairs, found


def _from_score(
    run: "StageRun", config: AlignConfig, column: str, wanted: int, held_out: Callable[[str], bool]
) -> tuple[list[Pair], dict[str, Any]]:
    score = find_score(run, column)
    if score.blind:
        none: dict[str, Any] = dict.fromkeys(("good", "bad", "chosen_chars", "rejected_chars"))
        nothing = {"column": column, "high_is_good": score.high_is_good, "unit": "documents", "scored": 0, "chosen": 0, "rejected": 0}
        return [], {**nothing, **none, "wanted": wanted, "pairs": 0, "left_out": score.blind}
    limits = scored_pairs.PairLimits(wanted, config.per_document, config.max_chars, config.best, config.worst)
    tables = (lambda: kept_documents(run, score)), (lambda: dropped_documents(run, score))
    salt = f"align {config.seed} {column}"
    if score.of_windows:
        scorer = TextScorer(run, [column])
        pool = scored_pairs.pool_of_continuations(score, lambda texts: scorer.score(texts)[column], *tables, salt, limits)
    else:
        pool = scored_pairs.pool_of_documents(score, *tables, salt, limits)
    pairs = scored_pairs.pairs_of(score, scored_pairs.match(pool, held_out, wanted), held_out)
    return pairs, {
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
        **scored_pairs.lengths(pairs),
    }


def _short(found: dict[str, dict[str, Any]]) -> list[str]:
    """Why there are fewer pairs of a score than were wanted."""
    sentences = []
    for of in (of for of in found.values() if of["pairs"] < of["wanted"]):
        if left_out := of.get("left_out"):
            sentences.append(f"no pairs of a score: {left_out}")
            continue
        parts = f"{of['chosen']:,} continuations in the best part and {of['rejected']:,} in the worst"
        why = parts if of["good"] is not None else "no best part above the worst: it cannot tell them apart"
        sentences.append(f"{of['column']}: {of['pairs']} of {of['wanted']} pairs; {of['scored']:,} {of['unit']} have a score, with {why}.")
    return sentences
