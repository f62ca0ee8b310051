"""Makes the pairs of the stage `align`, from the user's files or from the run's own documents, and decides about each."""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.stage import Output
from corpusmill.train import align_data, tasks, tuning
from corpusmill.train.align import CORRUPTED, PAIRS_FILE, AlignConfig
from corpusmill.train.align_data import PreferencePair
from corpusmill.train.model_folder import read_architecture
from corpusmill.train.scores import FilterScore, TextScorer, dropped_documents, find_score, kept_documents, with_score
from corpusmill.train.template import Message, assistant_turn, load_chat, require_learnable, user_turn
from corpusmill.train.user_files import BadRow, UserRow, first_question, read_instruction, read_messages, read_rows, read_text

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun


# ---- from files --------------------------------------------------------------------------------------


def read_pairs(files: Sequence[str], held_out: float) -> list[PreferencePair]:
    """Every row of the user's files, in their order. Whether one is held out depends on its first question.

    A row that is no pair comes with the reason. Raises InputError where a whole file has no pair.
    """
    pairs = []
    for path in files:
        rows = [_pair(place, row, held_out) for place, row in read_rows(path)]
        bad = [row.bad for row in rows if row.bad]
        if len(bad) == len(rows):
            raise InputError(str(bad[0]) if len(rows) == 1 else f"{path}: none of its {len(rows)} rows is a pair; {bad[0]}")
        pairs += rows
    return pairs


def _pair(place: str, row: UserRow | BadRow, held_out: float) -> PreferencePair:
    try:
        if isinstance(row, BadRow):
            raise row
        prompt, chosen, rejected = pair_messages(place, row)
    except BadRow as bad:
        rule = "no_pair" if bad.rule == "no_example" else bad.rule
        return PreferencePair(place, None, "file", False, [], [], [], bad=BadRow(str(bad), rule))
    return PreferencePair(place, None, "file", tasks.is_held_out(first_question(prompt), held_out), prompt, chosen, rejected)


def pair_messages(place: str, row: UserRow) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected of a row. The prompt is `prompt` (text or messages) or `instruction` with `input`, then
    the turns that `chosen` and `rejected` both begin with, which may have it in them. Raises BadRow naming `place`."""
    missing = [key for key in ("chosen", "rejected") if row.get(key) is None]
    if missing:
        raise BadRow(
            f"{place}: no pair: `{missing[0]}` is missing (expected `prompt`, `chosen` and `rejected`); "
            f"it has {safe_line(', '.join(sorted(row)), 200) or 'nothing'}."
        )
    chosen, rejected = (_completion(place, row, key) for key in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = _prompt(place, row, chosen[:shared])
    return prompt, chosen[shared:], rejected[shared:]


def _completion(place: str, row: UserRow, key: str) -> list[Message]:
    value: Any = row[key]
    return read_messages(f"{place}, {key}", value) if isinstance(value, list) else [assistant_turn(read_text(place, row, key))]


def _prompt(place: str, row: UserRow, shared: list[Message]) -> list[Message]:
    given = _given(place, row)
    if not given and not shared:
        raise BadRow(f"{place}: no pair: it has neither `prompt` nor `instruction`, and the completions share no first message.")
    within = any(shared[begin : begin + len(given)] == given for begin in range(len(shared)))
    return shared if within else given + shared


def _given(place: str, row: UserRow) -> list[Message]:
    if isinstance(row.get("prompt"), list):
        return read_messages(f"{place}, prompt", row["prompt"])
    if row.get("prompt") is not None:
        return [user_turn(read_text(place, row, "prompt"))]
    if row.get("instruction") is not None:
        return [user_turn(read_instruction(place, row))]
    return []


# ---- from documents, by corruption -------------------------------------------------------------------
#
# A true continuation against a false one of its length.


def build_pairs(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, max_chars: int, held_out: Callable[[str], bool]
) -> list[PreferencePair]:
    """At most `limit` pairs, and `per_document` of one document: a true continuation against a false one of its length.

    False is another document's continuation (of the next one in the order of hashes that is held out or not as the first is),
    or the true one with its first words repeated or its words shuffled; which of them, a hash decides.
    """
    built = tasks.choose(tables, salt, limit, per_document, lambda source: tasks.continuation_tasks(source, max_chars))
    aside = [held_out(task.source.id) for task in built]
    pairs = []
    for place, task in enumerate(built):
        other = _other(built, aside, place)
        kind, rejected = _rejected(task, other.answer)
        source = (other if kind == "other" else task).source
        turns = [user_turn(task.prompt)], [assistant_turn(task.answer)], [assistant_turn(rejected)]
        pairs.append(PreferencePair(task.source.id, task.source.url, kind, aside[place], *turns, source.id, source.url))
    return pairs


def _other(built: Sequence[tasks.BuiltTask], aside: Sequence[bool], place: int) -> tasks.BuiltTask:
    """The next task of another document, held out as this one is or not, so that nothing held out is learned; itself where there is no
    other."""
    following = ((place + step) % len(built) for step in range(1, len(built)))
    fitting = (built[at] for at in following if aside[at] == aside[place] and built[at].source.id != built[place].source.id)
    return next(fitting, built[place])


def _rejected(task: tasks.BuiltTask, other: str) -> tuple[str, str]:
    choice = tasks.hash_of("rejected", task.source.id + task.prompt) % 4
    if choice < 2:
        return "other", tasks.cut(other, max(len(task.answer), 1))
    if choice == 2:
        return "repeated", _repeat(task.answer)
    return "shuffled", _shuffle(task.answer, task.source.id)


def _repeat(text: str) -> str:
    """The first words over and over, in the length of the text: how a model that is stuck writes."""
    first = text[: max(8, len(text) // 6)]
    first = (first[: first.rfind(" ")] if " " in first else first) + " "
    return (first * (len(text) // len(first) + 1))[: len(text)]


def _shuffle(text: str, identifier: str) -> str:
    """The words in an order that their hashes decide; the characters where the script has no spaces."""
    words = text.split()
    units, glue = (words, " ") if len(words) > 8 else (list(text), "")
    order = sorted(range(len(units)), key=lambda place: tasks.hash_of(identifier, f"{place} {units[place]}"))
    return glue.join(units[place] for place in order)


# ---- from documents, by a score ----------------------------------------------------------------------
#
# A continuation from the corpus's best part against one of similar length from its worst part.
#
# A score of whole documents says little about a few of their sentences. A score that is the maximum over a document's windows says that
# the document is long. So where a score is one of windows, the continuations themselves are scored, and the best and worst of them taken.
# Else continuations are taken from the best and the worst documents, and have their scores. (Measured: docs/alignment.md.)

#: Two completions of a pair differ in length by at most this share of the longer one, so that length gives nothing away.
TOLERANCE = 0.1
#: The middles of the best and of the worst part of a classifier's scores are at least so far apart.
APART = 0.02

Tables = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class PairLimits:
    """Of the pairs of one kind. `best` and `worst`: the shares of documents or continuations that completions are taken from."""

    pairs: int
    per_document: int
    max_chars: int
    best: float
    worst: float

    def continuations(self, source: tasks.SourceDocument) -> list[tasks.BuiltTask]:
        return tasks.continuation_tasks(source, self.max_chars)


@dataclass(frozen=True)
class ScoredTask:
    """A continuation and its score, or its document's."""

    task: tasks.BuiltTask
    score: float


@dataclass(frozen=True)
class PairPool:
    """What pairs are made of. `good` and `bad` are the scores where the two parts begin; `scored`: how many things were ranked."""

    chosen: list[ScoredTask]
    rejected: list[ScoredTask]
    unit: str  # documents or continuations
    scored: int
    good: float | None
    bad: float | None


def pool_of_documents(score: FilterScore, kept: Tables, dropped: Tables, salt: str, limits: PairLimits) -> PairPool:
    """Continuations from the best and the worst documents. Beside its result it holds 8 bytes a document in memory."""
    columns = [table["score"].drop_null().to_numpy() for table in kept()]
    bounds = _bounds(score, np.concatenate(columns) if columns else np.empty(0), limits)
    scored = sum(map(len, columns))
    if bounds is None:
        return PairPool([], [], "documents", scored, None, None)

    def continuations(tables: Iterable[pa.Table]) -> list[ScoredTask]:
        built = tasks.choose(tables, salt, 2 * limits.pairs, limits.per_document, limits.continuations)
        return [ScoredTask(task, task.source.score) for task in built if task.source.score is not None]

    good, bad = bounds
    chosen = continuations(with_score(kept(), score, least=good))
    rejected = continuations(table for tables in (kept(), dropped()) for table in with_score(tables, score, most=bad))
    return PairPool(chosen, rejected, "documents", scored, *score.goodness(np.array([good, bad])).tolist())


def pool_of_continuations(
    score: FilterScore,
    scorer: Callable[[Sequence[str]], npt.NDArray[np.float64]],
    kept: Tables,
    dropped: Tables,
    salt: str,
    limits: PairLimits,
) -> PairPool:
    """The best and the worst of continuations that a hash chose from all documents, and as bad ones of documents that were dropped."""
    candidates_of = math.ceil(2 * limits.pairs / limits.worst), math.ceil(limits.per_document / limits.worst)

    def continuations(tables: Iterable[pa.Table]) -> list[ScoredTask]:
        built = tasks.choose(tables, salt, *candidates_of, limits.continuations)
        values = scorer([task.answer for task in built])
        return [ScoredTask(task, value) for task, value in zip(built, values.tolist(), strict=True) if not math.isnan(value)]

    candidates, others = continuations(kept()), continuations(dropped())
    bounds = _bounds(score, np.array([each.score for each in candidates]), limits)
    if bounds is None:
        return PairPool([], [], "continuations", len(candidates), None, None)
    good, bad = bounds
    chosen = [each for each in candidates if _goodness(score, each) >= good]
    rejected = [each for each in (*candidates, *others) if _goodness(score, each) <= bad]
    chosen, rejected = (_of_each(side, limits.per_document) for side in (chosen, rejected))
    return PairPool(chosen, rejected, "continuations", len(candidates), *score.goodness(np.array([good, bad])).tolist())


def _of_each(sides: Sequence[ScoredTask], most: int) -> list[ScoredTask]:
    """The first `most` of each document."""
    seen: Counter[str] = Counter()
    kept = []
    for side in sides:
        seen[side.task.source.id] += 1
        if seen[side.task.source.id] <= most:
            kept.append(side)
    return kept


def _goodness(score: FilterScore, each: ScoredTask) -> float:
    return each.score if score.high_is_good else -each.score


def _bounds(score: FilterScore, values: npt.NDArray[np.float64], limits: PairLimits) -> tuple[float, float] | None:
    """Goodness from which the best share begins, and up to which the worst goes; None where they are not apart.

    Of a score in [0, 1] that is nearly the same everywhere, the parts differ by chance: the middles of both must be apart, too.
    """
    if not len(values):
        return None
    shares = [limits.worst, 1 - limits.best, limits.worst / 2, 1 - limits.best / 2]
    bad, good, worst, best = np.quantile(score.goodness(values), shares, method="inverted_cdf").tolist()
    if values.min() >= 0 and values.max() <= 1 and best - worst < APART:
        return None
    return (good, bad) if good > bad else None


def match(pool: PairPool, held_out: Callable[[str], bool], wanted: int) -> list[tuple[ScoredTask, ScoredTask]]:
    """At most `wanted` pairs, each continuation in one, in the order of the chosen ones.

    Both sides are in one language, of one host where possible, and both held out or both not; of what fits, the partner is the
    one of nearest length.
    """
    chosen, rejected = pool.chosen, _different(pool.rejected)
    keys = [_keys(side, held_out) for side in (chosen, rejected)]
    partner: dict[int, int] = {}
    for level in (0, 1):  # by host, then whatever is left
        shelves: dict[Any, list[tuple[int, int]]] = {}
        used = set(partner.values())
        for place, key in enumerate(keys[1]):
            if place not in used:
                bisect.insort(shelves.setdefault(key[level], []), (len(rejected[place].task.answer), place))
        for place, key in enumerate(keys[0]):
            if place not in partner and len(partner) < wanted:
                found = _nearest(shelves.get(key[level], []), chosen[place], rejected)
                if found is not None:
                    partner[place] = found
    return [(chosen[place], rejected[partner[place]]) for place in sorted(partner)]


def _different(sides: Sequence[ScoredTask]) -> list[ScoredTask]:
    return list({side.task.answer: side for side in reversed(sides)}.values())[::-1]


def _keys(sides: Sequence[ScoredTask], held_out: Callable[[str], bool]) -> list[tuple[Any, Any]]:
    """For each continuation what its partner must have in common with it: first the host too, then without."""
    found = hosts(pa.array([side.task.source.url for side in sides], pa.string())).to_pylist()
    rest = [(held_out(side.task.source.id), side.task.source.language) for side in sides]
    return [((*key, host), key) for key, host in zip(rest, found, strict=True)]


def _nearest(shelf: list[tuple[int, int]], chosen: ScoredTask, rejected: Sequence[ScoredTask]) -> int | None:
    """Takes the continuation of another document off the shelf whose length is nearest; None where none is near enough."""
    length = len(chosen.task.answer)
    middle = bisect.bisect_left(shelf, (length, -1))
    around = sorted(range(max(0, middle - 8), min(len(shelf), middle + 8)), key=lambda at: (abs(shelf[at][0] - length), at))
    for at in around:
        other, place = shelf[at]
        if abs(other - length) <= TOLERANCE * max(other, length) and rejected[place].task.source.id != chosen.task.source.id:
            del shelf[at]
            return place
    return None


def pairs_of(score: FilterScore, matched: Sequence[tuple[ScoredTask, ScoredTask]], held_out: Callable[[str], bool]) -> list[PreferencePair]:
    """The pairs. A hash decides from which of the two documents the prompt comes, so that continuing it well is no cue."""
    pairs = []
    for good, bad in matched:
        source, other = good.task.source, bad.task.source
        asked = (good, bad)[tasks.hash_of(f"prompt {score.column}", source.id + good.task.prompt) % 2]
        turns = [user_turn(asked.task.prompt)], [assistant_turn(good.task.answer)], [assistant_turn(bad.task.answer)]
        pairs.append(
            PreferencePair(source.id, source.url, score.column, held_out(source.id), *turns, other.id, other.url, good.score, bad.score)
        )
    return pairs


def lengths(pairs: Sequence[PreferencePair]) -> dict[str, float | None]:
    """Mean characters of both sides."""
    sides = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    return {f"{side}_chars": sum(len(turns[0]["content"]) for turns in of) / len(of) if of else None for side, of in sides.items()}


# ---- the task ----------------------------------------------------------------------------------------
#
# Makes all pairs and writes a report row about each.

REPORT_FILE = "report/part-00000.parquet"
SOURCES_FILE = "pair_sources.json"


def make_pairs(run: "StageRun", config: AlignConfig, start: tuning.StartModel, given: Sequence[FileRef]) -> Output:
    """Raises NothingKept where no pair is left to learn from."""
    folder = start.storage
    encoder, context = load_chat(folder), read_architecture(Path(folder.root)).context
    require_learnable(encoder)
    found: dict[str, dict[str, Any]] = {}
    if config.files:
        pairs = read_pairs(config.files, config.held_out)
    else:
        pairs, found = _from_documents(run, config)
    prepared = [align_data.prepare_pair(pair, encoder, context) for pair in pairs]
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
            PAIRS_FILE: align_data.pairs_table(kept),
            REPORT_FILE: align_data.report_table(prepared),
            **({SOURCES_FILE: tuning.json_file(found)} if found else {}),
        },
        rows_in=len(pairs),
        kept=len(kept),
        dropped=dropped,
        bytes_in=sum(ref.bytes for ref in given),
        counts=counts,
        warnings=[*tuning.dropped_sentence("pairs", dropped, len(pairs), counts), *_short(found)],
    )


def _from_documents(run: "StageRun", config: AlignConfig) -> tuple[list[PreferencePair], dict[str, dict[str, Any]]]:
    """The pairs of all kinds, and for each score how they came about."""
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
    if score.blind:
        none: dict[str, Any] = dict.fromkeys(("good", "bad", "chosen_chars", "rejected_chars"))
        nothing = {"column": column, "high_is_good": score.high_is_good, "unit": "documents", "scored": 0, "chosen": 0, "rejected": 0}
        return [], {**nothing, **none, "wanted": wanted, "pairs": 0, "left_out": score.blind}
    limits = PairLimits(wanted, config.per_document, config.max_chars, config.best, config.worst)
    tables = (lambda: kept_documents(run, score)), (lambda: dropped_documents(run, score))
    salt = f"align {config.seed} {column}"
    if score.of_windows:
        scorer = TextScorer(run, [column])
        pool = pool_of_continuations(score, lambda texts: scorer.score(texts)[column], *tables, salt, limits)
    else:
        pool = pool_of_documents(score, *tables, salt, limits)
    pairs = pairs_of(score, match(pool, held_out, wanted), held_out)
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
        **lengths(pairs),
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
