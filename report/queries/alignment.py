"""Reads how alignment made preference pairs from scores, and how the run's classifiers score answers before and after it, for the page."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from corpusmill.report.queries.ask import Query, ask, has_report, json_query
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

SOURCES, JUDGED = "align/pair_sources.json", "align/judged.json"
#: Dropped pairs for which the page says why.
MOST = 50


@dataclass(frozen=True)
class PairSource:
    """The preference pairs made from one score. `good` and `bad`: its two thresholds; None if the best part is not above the worst."""

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
    """The difference of the scores when both answers are cut to the same number of tokens."""

    difference: float | None = None


@dataclass(frozen=True)
class Compared:
    """A score of answers before and after alignment. `texts`: prompts whose answers both have a score; where 0, the other fields are None.

    `low` and `high`: the interval of the difference. `worse_before` and `worse_after`: shares on the bad side of the threshold.
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
    """A prompt with the answers before and after alignment. Each answer has its `text` and its scores by column, None if there is
    none."""

    document: str
    prompt: str
    before: dict[str, str | float | None]
    after: dict[str, str | float | None]


@dataclass(frozen=True)
class Judged:
    """The content of `align/judged.json`: scores by column, the answers, and the mean number of tokens in an answer."""

    scores: dict[str, Compared]
    answers: list[Answer]
    tokens_before: float | None
    tokens_after: float | None


@dataclass(frozen=True)
class Alignment:
    """What the page shows of alignment. `dropped`: pairs that failed each rule. `notes`: dropped pairs (id, reason)."""

    sources: list[PairSource]
    judged: Judged
    dropped: dict[str, int]
    notes: list[tuple[str, str]]
    queries: dict[str, Query]


def read_alignment(run: Run) -> Alignment | None:
    """Reads what the run has of alignment; None if it has nothing. A file that can't be read becomes a warning."""
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
    """Reads `align/judged.json`: scores ordered by name, and answers with the worst after alignment first."""
    judged: Judged = _read(reader, JUDGED, Judged, Judged({}, [], None, None))
    scores = dict(sorted(judged.scores.items()))
    for column, of in list(scores.items())[-1:]:  # toxicity, the last by name, where the run has it
        judged.answers.sort(key=lambda answer: _badness(answer.after.get(column), of.high_is_good))
    return replace(judged, scores=scores)


def _read(reader: RunReader, path: str, kind: Any, without: Any) -> Any:
    """Reads a file of the stage; returns `without` where it is missing or (with a warning) not valid."""
    value = reader.json(path, dict)
    try:
        return without if value is None else TypeAdapter(kind).validate_python(value)
    except ValidationError:
        reader.warn(f"{path}: not a valid file of alignment, so it is left out.")
        return without


def _badness(score: str | float | None, high_is_good: bool) -> tuple[bool, float]:
    """A sort key: the worst score first, answers without a score last."""
    return (False, score if high_is_good else -score) if isinstance(score, float) else (True, 0.0)
