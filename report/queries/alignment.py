"""What alignment's pairs from scores came of, and what the run's classifiers say of answers before and after it, for the page."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from corpusmill.report.queries.ask import Query, ask, has_report, json_query
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

SOURCES, JUDGED = "align/pair_sources.json", "align/judged.json"
#: Dropped pairs of which the page says why.
MOST = 50


@dataclass(frozen=True)
class PairSource:
    """How pairs from one score came about; `good` and `bad` are None where the best part is not above the worst."""

    column: str
    unit: str
    high_is_good: bool
    scored: int
    good: float | None
    bad: float | None
    wanted: int
    pairs: int
    chosen_chars: float | None
    rejected_chars: float | None


@dataclass(frozen=True)
class ShareWithInterval:
    """A share with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EqualLength:
    """The difference where both answers are cut to as many tokens."""

    difference: float | None = None


@dataclass(frozen=True)
class Compared:
    """A score of answers before and after alignment. `texts`: prompts both of whose answers have one; without any the rest is None.

    `low` and `high` are those of the difference; `worse_before` and `worse_after` are shares on the bad side of the threshold.
    """

    texts: int
    high_is_good: bool = False
    threshold: float | None = None
    before: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None
    equal_length: EqualLength = EqualLength()
    worse_before: ShareWithInterval | None = None
    worse_after: ShareWithInterval | None = None


@dataclass(frozen=True)
class Answer:
    """A prompt with both answers; each is a `text` and its scores by column, None where there is none."""

    document: str
    prompt: str
    before: dict[str, str | float | None]
    after: dict[str, str | float | None]


@dataclass(frozen=True)
class Judged:
    """What `align/judged.json` has: scores by column, the answers, and the tokens of an answer on average."""

    scores: dict[str, Compared]
    answers: list[Answer]
    tokens_before: float | None
    tokens_after: float | None


@dataclass(frozen=True)
class Alignment:
    """`dropped`: how many pairs failed each rule; `notes`: the place of a dropped pair, and why."""

    sources: list[PairSource]
    judged: Judged
    dropped: dict[str, int]
    notes: list[tuple[str, str]]
    queries: dict[str, Query]


def read_alignment(run: Run) -> Alignment | None:
    """None where the run has nothing of it. What can't be read is a warning."""
    sources, judged = _read(run.reader, SOURCES, dict[str, PairSource], {}), read_judged(run.reader)
    queries = {"sources": json_query("Pairs from scores", SOURCES), "judged": json_query("Answers before and after", JUDGED)}
    dropped, notes = {}, []
    if has_report(run, "align"):
        queries["dropped"] = ask(run, "pairs-dropped", "Pairs that were dropped", """
            SELECT unnest(failed) AS rule, count(*) AS pairs FROM align_report GROUP BY rule ORDER BY rule
        """)  # fmt: skip
        queries["notes"] = ask(run, "pairs-dropped-notes", "Why pairs were dropped", f"""
            SELECT id, coalesce(nullif(note, ''), array_to_string(failed, ', ')) AS note
            FROM align_report
            WHERE len(failed) > 0
            LIMIT {MOST}
        """)  # fmt: skip
        dropped = {row["rule"]: row["pairs"] for row in queries["dropped"].rows}
        notes = [(row["id"], row["note"]) for row in queries["notes"].rows]
    if not (sources or judged.scores or judged.answers or dropped):
        return None
    return Alignment(list(sources.values()), judged, dropped, notes, queries)


def read_judged(reader: RunReader) -> Judged:
    """The scores in the order of their names, and the answers, the worst after alignment first."""
    judged: Judged = _read(reader, JUDGED, Judged, Judged({}, [], None, None))
    scores = dict(sorted(judged.scores.items()))
    for column, of in list(scores.items())[-1:]:  # the last is toxicity, where the run has it
        judged.answers.sort(key=lambda answer: _badness(answer.after.get(column), of.high_is_good))
    return replace(judged, scores=scores)


def _read(reader: RunReader, path: str, kind: Any, without: Any) -> Any:
    """A file of the stage's; `without` where it is not there, or (with a warning) not what the stage writes."""
    value = reader.json(path, dict)
    try:
        return without if value is None else TypeAdapter(kind).validate_python(value)
    except ValidationError:
        reader.warn(f"{path}: not what alignment writes, so it is left out.")
        return without


def _badness(score: str | float | None, high_is_good: bool) -> tuple[bool, float]:
    """The worst first, what has no score last."""
    return (False, score if high_is_good else -score) if isinstance(score, float) else (True, 0.0)
