"""Some pages that a rule dropped, to read: those nearest to its threshold, first the ones in a language that the reader likely knows."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from corpusmill.report.facts.decisions import Decisions, RuleCount
from corpusmill.report.facts.near import Near, Sample
from corpusmill.report.facts.near_view import Shown, read_texts
from corpusmill.report.facts.scan import Batch, scan
from corpusmill.report.read import Rule, RunReader

MOST = 3


@dataclass(frozen=True)
class Examples:
    """At most `MOST` pages that failed `rule`; `alone`: and no other rule. Those in `language` (None: of any) come first."""

    rule: str
    comparison: Rule | None
    alone: bool
    language: str | None
    shown: list[Shown]


class _Nearest(Near):
    """The near misses of one rule, of which a sample's first rank is whether it is in another language."""

    def __init__(self, reader: RunReader, d: Decisions, rule: RuleCount, language: str | None):
        comparison, schema = d.rule(rule.name), reader.schema(d.stage, "report")
        assert schema is not None  # there are decisions
        super().__init__([comparison] if comparison else [], schema)
        self.name, self.alone = rule.name, rule.alone > 0
        self.preferred = language if "language" in schema.names else None

    def measure(self, batch: Batch) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
        rows = batch.failures.rows_of(self.name, self.alone)
        known = np.ones(len(rows), bool)
        if self.preferred is not None:
            if "language" in batch.table.column_names:
                same = pc.equal(batch.table["language"].cast("string"), self.preferred).fill_null(False)
                known = np.asarray(same.to_numpy(zero_copy_only=False), bool)[rows]
            else:
                known = ~known
        rule = self.rules.get(self.name)
        return {self.name: self._best(batch, rule, rows[known], False) + self._best(batch, rule, rows[~known], True)}, {}


def examples(reader: RunReader, d: Decisions, rule: RuleCount, language: str | None, characters: int) -> Examples:
    """By a pass over a few columns of the stage's report; each with so many characters of its text."""
    found = _Nearest(reader, d, rule, language)
    scan(reader, d.stage, [found])
    samples = found.dropped.get(rule.name, [])[:MOST]
    texts = read_texts(reader, d.stage, [(False, sample) for sample in samples], characters)
    shown = [Shown(sample, "dropped", texts.get((sample.shard, sample.row))) for sample in samples]
    return Examples(rule.name, found.rules.get(rule.name), found.alone, found.preferred, shown)
