"""What alignment's pairs from scores came of, and what the run's classifiers say of answers before and after it, for the page."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from corpusmill.report.read import RunReader

SOURCES, JUDGED = "align/pair_sources.json", "align/judged.json"
#: Dropped pairs of which the page says why.
MOST = 50


@dataclass(frozen=True)
class Source:
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

    sources: list[Source]
    compared: list[Compared]
    answers: list[Answer]
    tokens: tuple[float, float] | None  # of an answer on average, before and after
    dropped: dict[str, int]
    notes: list[tuple[str, str]]


def read_alignment(reader: RunReader) -> Alignment | None:
    """None where the run has nothing of it. What can't be read is a warning."""
    sources = _guarded(reader, SOURCES, lambda value: [_source(of) for of in value.values()]) or []
    judged = _guarded(reader, JUDGED, _judged)
    compared, answers, tokens = judged or ([], [], None)
    dropped: Counter[str] = Counter()
    notes: list[tuple[str, str]] = []
    for table in reader.tables("align", "report", ["id", "failed", "note"]):
        for row in table.to_pylist():
            dropped.update(row.get("failed") or [])
            if row.get("failed") and len(notes) < MOST:
                notes.append((str(row["id"]), row.get("note") or ", ".join(row["failed"])))
    if not (sources or judged or dropped):
        return None
    return Alignment(sources, compared, answers, tokens, dict(sorted(dropped.items())), notes)


def _guarded(reader: RunReader, path: str, read: Any) -> Any:
    value = reader.json(path, dict)
    try:
        return None if value is None else read(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        reader.warn(f"{path}: not what alignment writes, so it is left out.")
        return None


def _source(of: dict[str, Any]) -> Source:
    numbers: dict[str, Any] = {name: _number(of[name]) for name in ("good", "bad", "chosen_chars", "rejected_chars")}
    counts = {name: int(of[name]) for name in ("scored", "wanted", "pairs")}
    return Source(str(of["column"]), str(of["unit"]), bool(of["high_is_good"]), **counts, **numbers)


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
