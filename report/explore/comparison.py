"""Compares two runs as `corpusmill diff` does. A comparison stays open, so that only its first answer matches the documents."""

import threading
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from corpusmill.report import machine
from corpusmill.report.answers.diff import (
    ColumnChange,
    OneSided,
    TwoHistograms,
    difference,
    other_side,
    outcomes,
    read_ablations,
    read_columns,
    read_notes,
    read_one_sided,
    verdict,
)
from corpusmill.report.answers.diff_documents import open_pair
from corpusmill.report.answers.sample import add_texts
from corpusmill.report.explore.parameters import BadRequest, ComparedColumn, ComparedDocuments, ComparedText, shown

#: Characters of a text, and of a value in a row.
TEXT, SHORT = 20_000, 300

Answer = dict[str, Any]


def plain(answer: Answer, longest: int | None = None) -> Answer:
    """Returns an answer as JSON types."""
    return dict(machine.plain(answer, longest))


class RunComparison:
    """Two runs whose documents are matched, `a` and `b`. One question at a time is answered. Raises InputError."""

    def __init__(self, a: str, b: str):
        self._stack, self._lock = ExitStack(), threading.Lock()
        self.pair = self._stack.enter_context(open_pair(a, b, None))
        try:
            self.found = difference(self.pair)
        except BaseException:
            self.close()
            raise
        self._columns: tuple[list[ColumnChange], list[str], dict[tuple[str, str], TwoHistograms]] | None = None

    def close(self) -> None:
        with self._lock:
            self._stack.close()

    def summary(self) -> Answer:
        """Returns what `corpusmill diff --json` prints, without columns and samples, and what it says in words."""
        with self._lock:
            self.found.notes, self.found.ablations = read_notes(self.pair), read_ablations(self.pair)
        said = {"sentence": verdict(self.found), "outcomes": [{"title": title, **asdict(counts)} for title, counts in outcomes(self.found)]}
        return plain(self.found.as_json() | said, SHORT)

    def columns(self) -> Answer:
        """Returns the columns of numbers that both runs have, those whose distributions are farthest apart first."""
        changes, alone, _ = self._compared()
        return plain({"columns": [asdict(change) for change in changes], "columns_of_one": alone})

    def _compared(self) -> tuple[list[ColumnChange], list[str], dict[tuple[str, str], TwoHistograms]]:
        with self._lock:
            if self._columns is None:
                self._columns = read_columns(self.pair)
            return self._columns

    def histogram(self, query: ComparedColumn) -> Answer:
        """Counts a column's values among the kept documents of both runs. Raises BadRequest for a column that one run lacks."""
        found = self._compared()[2].get((query.stage, query.column))
        if found is None:
            raise BadRequest(f"{query.stage} has no column {shown(query.column)} of numbers in both runs.")
        thresholds = {
            side: [rule.threshold for (stage, _), rule in rules.items() if (stage, rule.column) == (query.stage, query.column)]
            for side, rules in self.found.thresholds.items()
        }
        described = {"edges": found.bins.edges, "logarithmic": found.bins.logarithmic, "whole": found.bins.whole, "thresholds": thresholds}
        return plain({**described, **found.counts, "outside": found.outside})

    def documents(self, query: ComparedDocuments) -> Answer:
        """Returns documents that one run keeps and the other drops."""
        rule = (query.stage, query.dropped_by) if query.stage and query.dropped_by is not None else None
        with self._lock:
            found = read_one_sided(self.pair, query.kept_by, query.limit, query.offset, rule)
        counted = [one for one in self.found.rules if rule in (None, (one.stage, one.rule))]
        total = (
            sum(one.other_keeps[other_side(query.kept_by)] for one in counted) if rule else self.found.of(f"only_{query.kept_by}").documents
        )
        return {"total": total, "rows": [self._row(query.kept_by, one) for one in found]}

    def _row(self, kept_by: str, one: OneSided) -> Answer:
        """Returns a document with the rules by which it is dropped, each with its value and the thresholds of both runs."""
        rules = {rule.rule: rule for rule in one.rules}
        failed = [
            {
                "rule": name, "column": rules[name].column if name in rules else "",
                "value": one.row.get(rules[name].column) if name in rules else None,
                **{side: self._condition(side, one.stage, name) for side in ("a", "b")},
            }
            for name in one.row["failed"]
        ]  # fmt: skip
        row = {"id": one.row["id"], "url": one.row["url"], "stage": one.stage, "kept_by": kept_by, "failed": failed}
        return plain(row, SHORT)

    def _condition(self, side: str, stage: str, rule: str) -> Answer | None:
        known = self.found.thresholds[side].get((stage, rule))
        return {"comparison": known.comparison, "threshold": known.threshold} if known else None

    def text(self, query: ComparedText) -> Answer:
        """Returns the text of a document as the stage that drops it has read it."""
        row: dict[str, Any] = {"id": query.id}
        with self._lock:
            add_texts(self.pair.runs[other_side(query.kept_by)].reader, query.stage, [row], TEXT)
        text = row["text"]
        return {"text": text and text[:TEXT], "cut": bool(text and len(text) > TEXT)}
