"""Instructions, continuations and pairs built from a run's own documents, where the user gives no files.

All choices are made by hashes of document ids, so the same documents give the same tasks, in any shards. The scores of the run's filter
stage are a service (`pipeline/services.py`): a task that uses them has `scores` among its parameters.
"""

import bisect
import heapq
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.services import service

if TYPE_CHECKING:
    from corpusmill.filters.scores import FilterScore
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.tuning import AlignConfig

#: The columns of a document from which tasks are built.
COLUMNS = ["id", "url", "title", "text"]
#: Further columns of a source, where a table has them.
MORE = ("language", "score")

_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][」』”]?")
_SHORTEST = 60  # characters of a paragraph or an answer worth learning

Built = TypeVar("Built")


@dataclass(frozen=True)
class SourceDocument:
    """The document that a task is built from."""

    id: str
    url: str | None
    title: str
    text: str
    language: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class BuiltTask:
    """An instruction and its answer, both from one document. `score`: the answer's, where answers are ranked."""

    source: SourceDocument
    kind: str
    prompt: str
    answer: str
    score: float = math.nan


def hash_of(salt: str, identifier: str) -> int:
    """Returns a 64-bit hash that depends only on the salt and the id."""
    return xxhash.xxh3_64_intdigest(f"{salt}\0{identifier}".encode("utf-8", "surrogatepass"))


def is_held_out(identifier: str, fraction: float) -> bool:
    """Whether an example is held out. Instructions and preferences hold out the same documents."""
    return hash_of("held-out", identifier) < fraction * 2**64


def choose(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, build: Callable[[SourceDocument], Sequence[Built]]
) -> list[Built]:
    """Returns at most `limit` of the things that `build` makes of documents, and at most the first `per_document` of each document.

    Every place that a document could fill has its own hash, and the smallest hashes win; the result is in their order. `tables` have
    COLUMNS. Only `limit` things are held at a time, and for most documents of a large corpus `build` is never called.
    """
    heap: list[tuple[int, str, Built]] = []  # the largest hash on top: keys are negated
    seen: set[str] = set()
    for table in tables:
        names = [name for name in (*COLUMNS, *MORE) if name in table.column_names]
        for row, identifier in enumerate(table["id"].to_pylist()):
            keys = [hash_of(salt, f"{identifier} {place}") for place in range(per_document)]
            if identifier in seen or (len(heap) == limit and min(keys) >= -heap[0][0]):
                continue
            values = {name: table[name][row].as_py() for name in names}
            built = build(SourceDocument(**{**values, "title": values["title"] or ""}))
            seen.add(identifier)
            for key, thing in zip(keys, built):
                heapq.heappush(heap, (-key, identifier, thing))
                if len(heap) > limit:
                    heapq.heappop(heap)
    return [thing for _, _, thing in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]


def instructions(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns the tasks of a document, with the kinds taking turns; the document's hash decides which kind comes first."""
    kinds = [title_tasks(source, max_chars), continuation_tasks(source, max_chars), heading_tasks(source, max_chars)]
    first = hash_of("kind", source.id) % len(kinds)
    turns = itertools.zip_longest(*kinds[first:], *kinds[:first])
    return [task for turn in turns for task in turn if task is not None]


def title_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns a task from a page's title to its first paragraph."""
    paragraph = next((block for block in blocks(source.text) if is_prose(block)), None)
    title = " ".join(source.title.split())
    if not title or len(title) > 120 or paragraph is None:
        return []
    return [BuiltTask(source, "title", f'Write the first paragraph of a page with the title "{title}".', cut(paragraph, max_chars))]


def continuation_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns tasks from the first half of a paragraph to the second, cut between sentences where possible."""
    tasks = []
    for paragraph in _in_hash_order(source, [block for block in blocks(source.text) if is_prose(block)]):
        paragraph = cut(paragraph, 2 * max_chars)
        begin = cut(paragraph, max(len(paragraph) // 2, _SHORTEST))
        rest = cut(paragraph[len(begin) :].strip(), max_chars)
        if len(begin) >= _SHORTEST and len(rest) >= _SHORTEST:
            tasks.append(BuiltTask(source, "continuation", f"Continue this text:\n\n{begin}", rest))
    return tasks


def heading_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns tasks from a question about a heading to the text under it."""
    tasks = []
    for heading, below in itertools.pairwise(blocks(source.text)):
        if is_heading(heading) and is_prose(below):
            subject = heading.lstrip("# ").strip()
            tasks.append(BuiltTask(source, "heading", f'What is there to know about "{subject}"?', cut(below, max_chars)))
    return _in_hash_order(source, tasks)


def _in_hash_order(source: SourceDocument, things: list[Built]) -> list[Built]:
    """Returns the things in an order that is independent of their place in the document."""
    places = sorted(range(len(things)), key=lambda place: hash_of(source.id, str(place)))
    return [things[place] for place in places]


def blocks(text: str) -> list[str]:
    """Returns paragraphs and headings: parts between blank lines, or single lines in a text without blank lines."""
    parts = _BLANK_LINES.split(text) if _BLANK_LINES.search(text) else text.split("\n")
    return [part.strip() for part in parts if part.strip()]


def is_prose(block: str) -> bool:
    """Whether a block is long enough, and mostly letters and spaces: not a table, code or a list of links."""
    letters = sum(character.isalpha() or character == " " for character in block)
    return len(block) >= _SHORTEST and letters >= 0.8 * len(block)


def is_heading(block: str) -> bool:
    """Whether a block is one short line that begins like a title and does not end like a sentence."""
    line = block.lstrip("# ").strip()
    return "\n" not in block and 3 <= len(line) <= 80 and line[0].isalpha() and line[0] == line[0].upper() and line[-1] not in ".!?:;,…"


def cut(text: str, limit: int) -> str:
    """Returns at most `limit` characters of `text`: whole sentences if they fill half of it, else whole words, else characters."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, limit + 1) if match.end() <= limit]
    if ends and ends[-1] >= limit // 2:
        return text[: ends[-1]]
    space = max(text.rfind(" ", 0, limit + 1), text.rfind("\n", 0, limit + 1))
    return text[:space].rstrip() if space >= limit // 2 else text[:limit]


# ---- pairs by a score --------------------------------------------------------------------------------
#
# Pairs a continuation from the corpus's best part with one of similar length from its worst part. A score that is the maximum over windows
# says mostly that a document is long, so there the continuations themselves are scored. Else they come from the best and worst documents,
# and have their documents' scores. (Measured: docs/stages/align.md.)

#: The completions of a pair differ in length by at most this share of the longer one, so that length is no cue.
TOLERANCE = 0.1
#: The least distance between the middles of the best and the worst part, for scores in [0, 1].
APART = 0.02

Floats = npt.NDArray[np.float64]
#: Documents, as often as they are asked for.
Tables = Callable[[], Iterator[pa.Table]]


def pair_inputs(run: "StageRun", columns: Sequence[str]) -> tuple[list[FileRef], dict[str, Any]]:
    """Returns the files and the parameters on which pairs from scores depend, beside the run's documents: what the filter measured, its
    steps, and the rules that say what is good. Raises InputError where the run has no such score, or no rule on it."""
    if not columns:
        return [], {}
    scores = [repr(service("scores").find_score(run, column)) for column in columns]
    steps = [name for item in run.recipe["filter"].steps for name in item]
    return [*run.outputs_of("filter", "report/"), *run.outputs_of("ingest", "data/")], {"steps": steps, "scores": scores}


@dataclass(frozen=True)
class PairPool:
    """The material for pairs. `good` and `bad`: the scores at which the two parts begin; `scored`: the number of ranked units."""

    unit: str  # documents or continuations
    scored: int = 0
    chosen: list[BuiltTask] = field(default_factory=list)
    rejected: list[BuiltTask] = field(default_factory=list)
    good: float | None = None
    bad: float | None = None


def find_pool(
    score: "FilterScore", scorer: Callable[[Sequence[str]], Floats], kept: Tables, dropped: Tables, salt: str, config: "AlignConfig"
) -> PairPool:
    """Returns continuations of the best and of the worst part; the worst also from dropped documents. They are chosen by hash; `scorer`
    scores texts. A score of documents takes 8 bytes of memory for each."""

    def built(tables: Iterable[pa.Table], share: float = 1.0) -> list[BuiltTask]:
        """Returns continuations of which this `share` is enough for the pairs."""
        counts = math.ceil(2 * config.pairs / share), math.ceil(config.per_document / share)
        return choose(tables, salt, *counts, lambda source: continuation_tasks(source, config.max_chars))

    def scored(tables: Iterable[pa.Table]) -> list[BuiltTask]:
        found = built(tables, config.worst)
        values = scorer([task.answer for task in found]).tolist()
        return [replace(task, score=value) for task, value in zip(found, values, strict=True) if not math.isnan(value)]

    def between(tables: Iterable[pa.Table], least: float = -math.inf, most: float = math.inf) -> list[BuiltTask]:
        """Returns continuations of documents whose scores lie in this range."""
        goodness = ((table, score.goodness(table["score"].to_numpy())) for table in tables)
        inside = (table.filter(pa.array((values >= least) & (values <= most))) for table, values in goodness)
        return [replace(task, score=task.source.score) for task in built(inside) if task.source.score is not None]

    def first(found: Iterable[BuiltTask]) -> list[BuiltTask]:
        """Returns the first ones of each document."""
        seen: Counter[str] = Counter()
        some = []
        for task in found:
            seen[task.source.id] += 1
            some += [task] if seen[task.source.id] <= config.per_document else []
        return some

    if score.of_windows:
        unit, candidates, others = "continuations", scored(kept()), scored(dropped())
        values = np.array([task.score for task in candidates], np.float64)
    else:
        unit, columns = "documents", [table["score"].drop_null().to_numpy() for table in kept()]
        values = np.concatenate(columns) if columns else np.empty(0)
    if (bounds := _bounds(score, values, config)) is None:
        return PairPool(unit, len(values))
    good, bad = bounds
    if score.of_windows:
        chosen = first(task for task in candidates if score.goodness(task.score) >= good)
        rejected = first(task for task in (*candidates, *others) if score.goodness(task.score) <= bad)
    else:
        chosen, rejected = between(kept(), least=good), between(itertools.chain(kept(), dropped()), most=bad)
    return PairPool(unit, len(values), chosen, rejected, score.goodness(good), score.goodness(bad))


def _bounds(score: "FilterScore", values: Floats, config: "AlignConfig") -> tuple[float, float] | None:
    """Returns the least goodness of the best share and the greatest of the worst share; None if the first is not higher.

    Scores in [0, 1] that are nearly equal everywhere differ by chance, so there the medians of both shares must also differ by APART.
    """
    if not len(values):
        return None
    shares = [config.worst, 1 - config.best, config.worst / 2, 1 - config.best / 2]
    bad, good, worst, best = np.quantile(score.goodness(values), shares, method="inverted_cdf").tolist()
    if values.min() >= 0 and values.max() <= 1 and best - worst < APART:
        return None
    return (good, bad) if good > bad else None


def match(pool: PairPool, held_out: Callable[[str], bool], wanted: int) -> list[tuple[BuiltTask, BuiltTask]]:
    """Returns at most `wanted` pairs, in the order of the chosen continuations; each continuation is in at most one pair.

    Both sides have one language, the same host where possible, and are both held out or both not. Among such partners, the one of the
    nearest length is taken.
    """
    chosen = pool.chosen
    rejected = list({task.answer: task for task in reversed(pool.rejected)}.values())[::-1]  # each text once

    def keys(sides: Sequence[BuiltTask], with_host: bool) -> list[tuple[Any, ...]]:
        """Returns for each continuation what its partner must share."""
        found = hosts(pa.array([side.source.url for side in sides], pa.string())).to_pylist()
        return [(held_out(s.source.id), s.source.language, host if with_host else None) for s, host in zip(sides, found, strict=True)]

    partner: dict[int, int] = {}
    for with_host in (True, False):
        shelves: dict[Any, list[tuple[int, int]]] = {}
        used = set(partner.values())
        for place, key in enumerate(keys(rejected, with_host)):
            if place not in used:
                bisect.insort(shelves.setdefault(key, []), (len(rejected[place].answer), place))
        for place, key in enumerate(keys(chosen, with_host)):
            shelf = shelves.get(key, []) if place not in partner and len(partner) < wanted else []
            length = len(chosen[place].answer)
            middle = bisect.bisect_left(shelf, (length, -1))
            for at in sorted(range(max(0, middle - 8), min(len(shelf), middle + 8)), key=lambda at: (abs(shelf[at][0] - length), at)):
                other, found = shelf[at]
                if abs(other - length) <= TOLERANCE * max(other, length) and rejected[found].source.id != chosen[place].source.id:
                    partner[place] = found
                    del shelf[at]
                    break
    return [(chosen[place], rejected[partner[place]]) for place in sorted(partner)]
