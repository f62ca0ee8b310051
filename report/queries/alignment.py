"""What alignment's pairs from scores came of, and what the run's classifiers say of answers before and after it, for the page."""

from dataclasses import dataclass
from typing import Any

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
class Compared:
    """A score of answers before and after alignment. `texts`: prompts both of whose answers have one; without any the rest is None."""

    column: str
    texts: int
    high_is_good: bool = False
    threshold: float | None = None
    before: float | None = None
    after: float | None = None
    low: float | None = None  # of the difference
    high: float | None = None
    equal_length: float | None = None  # the difference, both cut to as many tokens
    worse_before: tuple[float, float, float] | None = None  # share on the bad side of the threshold, with its interval
    worse_after: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """A prompt with both answers; each a text and its scores by column, None where there is none."""

    document: str
    prompt: str
    before: tuple[str, dict[str, float | None]]
    after: tuple[str, dict[str, float | None]]


@dataclass(frozen=True)
class Alignment:
    """`dropped`: how many pairs failed each rule; `notes`: the place of a dropped pair, and why."""

    sources: list[PairSource]
    compared: list[Compared]
    answers: list[Answer]
    tokens: tuple[float, float] | None  # of an answer on average, before and after
    dropped: dict[str, int]
    notes: list[tuple[str, str]]
    queries: dict[str, Query]


def read_alignment(run: Run) -> Alignment | None:
    """None where the run has nothing of it. What can't be read is a warning."""
    sources, (compared, answers, tokens) = read_sources(run.reader), read_judged(run.reader)
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
    if not (sources or compared or answers or dropped):
        return None
    return Alignment(sources, compared, answers, tokens, dropped, notes, queries)


def read_sources(reader: RunReader) -> list[PairSource]:
    return _guarded(reader, SOURCES, lambda value: [_source(of) for of in value.values()]) or []


def read_judged(reader: RunReader) -> tuple[list[Compared], list[Answer], tuple[float, float] | None]:
    """The scores of answers before and after alignment, the answers, and how many tokens they have on average."""
    return _guarded(reader, JUDGED, _judged) or ([], [], None)


def _guarded(reader: RunReader, path: str, read: Any) -> Any:
    value = reader.json(path, dict)
    try:
        return None if value is None else read(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        reader.warn(f"{path}: not what alignment writes, so it is left out.")
        return None


def _source(of: dict[str, Any]) -> PairSource:
    numbers: dict[str, Any] = {name: _number(of[name]) for name in ("good", "bad", "chosen_chars", "rejected_chars")}
    counts = {name: int(of[name]) for name in ("scored", "wanted", "pairs")}
    return PairSource(str(of["column"]), str(of["unit"]), bool(of["high_is_good"]), **counts, **numbers)


def _judged(value: dict[str, Any]) -> tuple[list[Compared], list[Answer], tuple[float, float] | None]:
    compared = [_compared(column, of) for column, of in sorted(value["scores"].items())]
    answers = [Answer(str(a["document"]), str(a["prompt"]), _side(a["before"]), _side(a["after"])) for a in value["answers"]]
    for each in compared[-1:]:  # the last is toxicity, where the run has it
        answers.sort(key=lambda answer: _badness(answer.after[1].get(each.column), each.high_is_good))
    tokens = _number(value["tokens_before"]), _number(value["tokens_after"])
    return compared, answers, None if tokens[0] is None or tokens[1] is None else (tokens[0], tokens[1])


def _badness(score: float | None, high_is_good: bool) -> tuple[bool, float]:
    """The worst first, what has no score last."""
    return score is None, 0.0 if score is None else score if high_is_good else -score


def _compared(column: str, of: dict[str, Any]) -> Compared:
    if not of["texts"]:
        return Compared(column, 0)
    numbers: dict[str, Any] = {name: _number(of[name]) for name in ("threshold", "before", "after", "low", "high")}
    worse: dict[str, Any] = {
        name: (float(s["value"]), float(s["low"]), float(s["high"])) for name in ("worse_before", "worse_after") if (s := of.get(name))
    }
    equal = _number(of["equal_length"].get("difference"))
    return Compared(column, int(of["texts"]), bool(of["high_is_good"]), equal_length=equal, **numbers, **worse)


def _side(of: dict[str, Any]) -> tuple[str, dict[str, float | None]]:
    return str(of["text"]), {str(name): _number(value) for name, value in of.items() if name != "text"}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
