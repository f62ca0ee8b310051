"""Scores of the filter stage, as a service for stages that choose by them (`pipeline/services.py`): which end is good, the scores of other
texts, the documents that were kept, and those that were dropped for a score alone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.stage import ANSWERS_FILE
from corpusmill.filters.step import DocumentBatch, build_steps
from corpusmill.filters.worker import FilterWorker, Rewriter, rule_table
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

#: A score that calls a larger share of documents bad says nothing about any of them.
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class FilterScore:
    """A numeric column that the filter stage measured.

    `of_windows`: a text's score is that of its worst window, so longer texts score worse. `rules`: the rules on this score. `blind`: a
    sentence on why it can't tell this corpus's documents apart, or None.
    """

    column: str
    high_is_good: bool
    of_windows: bool
    rules: tuple[str, ...]
    blind: str | None = None

    def goodness(self, values: Any) -> Any:
        """Returns a value, or an array of them, with the sign by which more is better."""
        return values if self.high_is_good else -values


def find_score(run: "StageRun", column: str) -> FilterScore:
    """Returns a column's score. Raises InputError if the run has no such score, or no rule says which end of it is good."""
    if "filter" not in run.recipe:
        raise InputError(f"{run.stage.name}: {column}: the recipe has no stage filter that would measure it.")
    measured = {name: kind for step in build_steps(run.recipe["filter"].steps) for name, kind in step.columns.items()}
    if not pa.types.is_floating(measured.get(column, pa.null())):
        raise InputError(f"{run.stage.name}: {column}: no score of that name in the filter stage's report (a step has to measure it).")
    share = f"{column}_share"
    rules = [each.rule for each in rule_table(run.recipe["filter"]) if each.rule.column in (column, share)]
    decides = [rule.comparison for rule in rules if rule.column == column]
    if not decides:
        raise InputError(f"{run.stage.name}: {column}: no rule of the filter stage says which scores are good (give the step a threshold).")
    blind = None
    for ref in run.outputs_of("filter", ANSWERS_FILE):
        of = json.loads(run.run.read_bytes(ref.path)).get(column, {"scored": 0, "fires": 0})
        if of["fires"] > NEARLY_ALL * of["scored"]:
            counts = f"{of['fires']:,} of {of['scored']:,} documents ({of['fires'] / of['scored']:.1%})"
            blind = f"{column} cannot tell: it fires on {counts}, so it is left out."
    return FilterScore(column, decides[0] in ("<", "<="), share in measured, tuple(rule.name for rule in rules), blind)


def score_texts(run: "StageRun", column: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Returns a column's scores of texts by the filter's own step, each text as if it were a document: float64 (texts,), NaN where the
    step can't score a text."""
    (step,) = (step for step in build_steps(run.recipe["filter"].steps) if column in step.columns)
    step.step.setup()
    column_of_text = pa.array(texts, pa.large_string())
    documents = pa.table({"id": [str(number) for number in range(len(texts))], "text": column_of_text})
    measured = step.step.measure(DocumentBatch(documents, column_of_text, run.recipe["filter"].word_rule))
    name = dict(zip(step.columns, step.step.columns))[column]  # without the suffix that tells two equal steps apart
    return np.asarray(pa.array(measured.columns[name], pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def kept_documents(run: "StageRun", score: FilterScore, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yields the documents that the filter kept, by row group: these `columns`, `language` where there is one, and `score`."""
    for ref in run.documents():
        with open_parquet(run.run, ref.path) as file:
            names = file.schema_arrow.names
        if score.column not in names:
            raise InputError(f"{run.run.path(ref.path)}: the documents do not carry the score {score.column} (only main scores go on).")
        for table in iter_tables(run.run, ref.path, [*_with_language(columns, names), score.column]):
            yield table.rename_columns({score.column: "score"})


def dropped_documents(run: "StageRun", score: FilterScore, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yields the documents that failed only rules of this score, as the filter stage would have written them, with the same columns.

    So they differ from kept documents in this score alone. Documents dropped for their language, say, would differ visibly.
    """
    shards = {PurePosixPath(ref.path).stem: ref.path for ref in run.outputs_of("ingest", "data/")}
    worker = FilterWorker(run.recipe["filter"], run.run, {})
    for ref in run.outputs_of("filter", "report/"):
        failed = read_table(run.run, ref.path, ["failed"])["failed"].to_pylist()
        places = pa.array([place for place, rules in enumerate(failed) if rules and set(rules) <= set(score.rules)], pa.int64())
        if len(places):
            report = read_table(run.run, ref.path)
            documents = read_table(run.run, shards[PurePosixPath(ref.path).stem])
            whole = Rewriter(worker).at(documents, report, places)  # a new one, as each shard begins anew
            found = whole.append_column("score", report[score.column].take(places))
            yield found.select([*_with_language(columns, whole.column_names), "score"])


def _with_language(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [*columns, *(["language"] if "language" in names else [])]
