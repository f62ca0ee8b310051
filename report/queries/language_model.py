"""Reads what a language model was asked and answered (`filter/llm/`, step `llm`): cost, refusals, examples; and where a document comes
from that a model wrote."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.report.queries.ask import Query, ask, columns
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.query.sql import column, literal

TABLE = "filter_llm"
#: Columns of the table that every query needs.
NEEDED = {
    "id", "url", "step", "model", "refused", "answer", "new_id", "tokens_in", "tokens_out", "seconds", "dollars", "cut",
    "prompt_injection_signs",
}  # fmt: skip
#: Reasons and examples that are shown, and characters of each text.
SHOWN, EXAMPLES, TEXT = 20, 6, 1_200
#: More answers without a value than this share, of at least so many, deserve a warning.
MANY, FEWEST = 0.1, 20


@dataclass(frozen=True)
class LanguageModel:
    """`steps`: a row for each step and model; `refusals`: by step and reason; `examples`: documents beside what was said or made of them, a
    sample by id, the same for every report."""

    steps: Query
    refusals: Query
    examples: Query

    def warnings(self) -> list[str]:
        """Returns a sentence for each step of whose answers many had no value."""
        return [
            f"{row['step']}: {row['refused']:,} of {row['documents']:,} documents have no value from the model (page: Language model)."
            for row in self.steps.rows
            if row["documents"] >= FEWEST and row["refused"] > MANY * row["documents"]
        ]


def read_language_model(run: Run) -> LanguageModel | None:
    """Returns what is known of a run's questions; None where none was asked."""
    if not columns(run, TABLE).keys() >= NEEDED:
        return None
    steps = ask(run, "llm", "What was asked, and what it cost", f"""
        SELECT step, model, count(*) AS documents, count(refused) AS refused, count(new_id) AS new_documents,
          sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out, sum(dollars) AS dollars,
          median(seconds) FILTER (answer IS NOT NULL) AS seconds, count(*) FILTER (cut) AS cut,
          count(*) FILTER (prompt_injection_signs > 0) AS with_signs
        FROM {TABLE} GROUP BY step, model ORDER BY step, model
    """)  # fmt: skip
    refusals = ask(run, "llm-refusals", "Why there is no value", f"""
        SELECT step, refused AS reason, count(*) AS documents FROM {TABLE} WHERE refused IS NOT NULL
        GROUP BY step, refused ORDER BY documents DESC, step, reason LIMIT {SHOWN}
    """)  # fmt: skip
    examples = ask(run, "llm-examples", "Documents and answers", f"""
        WITH picked AS (
          SELECT *, row_number() OVER (PARTITION BY step, refused IS NULL ORDER BY id) AS number FROM {TABLE}
          WHERE answer IS NOT NULL
        )
        SELECT s.step, s.id, s.url, s.refused, left(d.text, {TEXT}) AS document, left(s.answer, {TEXT}) AS answer
        FROM picked s LEFT JOIN ingest_documents d ON d.id = s.id AND s.id IN (SELECT id FROM picked WHERE number <= {EXAMPLES})
        WHERE number <= {EXAMPLES} ORDER BY s.step, s.refused IS NOT NULL, number
    """)  # fmt: skip
    return LanguageModel(steps, refusals, examples)


def lineage(run: Run, id_: str) -> str:
    """Returns a sentence where a model wrote the document, or wrote others from it; empty for all others."""
    if not {"new_id", "model", "step"} <= columns(run, TABLE).keys():
        return ""
    rows = run.rows(f"SELECT id, new_id, step, model FROM {TABLE} WHERE new_id = $id OR (id = $id AND new_id IS NOT NULL)", id=id_)
    parents = [f"the model {model} wrote it ({step}) from the document {parent}" for parent, new, step, model in rows if new == id_]
    made = [f"{new} ({step})" for parent, new, step, _ in rows if parent == id_]
    return "; ".join([*parents, *([f"a model has written of it: {', '.join(made)}"] if made else [])])


def written_from(run: Run, ids: Iterable[str]) -> list[str]:
    """Returns the ids of the documents that a model wrote from these."""
    if "new_id" not in columns(run, TABLE):
        return []
    run.connection.register("documents_of_models", pa.table({"id": pa.array(sorted(ids), pa.string())}))
    found = f"SELECT new_id FROM {TABLE} WHERE new_id IS NOT NULL AND id IN (FROM documents_of_models) ORDER BY 1"
    return [id_ for (id_,) in run.connection.execute(found).fetchall()]


# ---- examples for a classifier that learns what the model said

#: `llm:edu>=3`, `llm:topic=science`.
_LABELS = re.compile(r"llm:([A-Za-z]\w*)(>=|=)(.+)")


def write_examples(runs: Sequence[str], labels: str, path: str) -> str:
    """Writes text and label (1 or 0) of all documents of a run that have a value in a column, as Parquet. `labels`: `llm:COLUMN>=N` or
    `llm:COLUMN=LABEL`. Returns a sentence with their numbers. Raises InputError."""
    parsed = _LABELS.fullmatch(labels)
    if parsed is None or len(runs) != 1:
        raise InputError("--labels: one run, and llm:COLUMN>=NUMBER or llm:COLUMN=LABEL, for example runs/edu --labels 'llm:edu>=3'.")
    name, comparison, wanted = parsed.groups()
    with open_run(runs[0]) as run:
        there = columns(run, "filter_report")
        asked = [step for (step,) in run.rows(f"SELECT DISTINCT step FROM {TABLE}")] if columns(run, TABLE) else []
        own = {f"{step}_{what}" for step in asked for what in ("reason", "refused", "injection_signs")}
        of_models = [each for each in there if each not in own and any(each == step or each.startswith(f"{step}_") for step in asked)]
        if name not in of_models:
            raise InputError(f"{runs[0]}: no language model has said anything in a column {name!r}{instead_of(name, of_models)}.")
        try:
            threshold = literal(float(wanted)) if comparison == ">=" else literal(wanted)
        except ValueError:
            raise InputError(f"--labels: {wanted!r} is no number.") from None
        said = column(name) if comparison == ">=" else f"{column(name)}::VARCHAR"
        table = run.sql(f"""
            SELECT d.text, ({said} {comparison} {threshold})::INTEGER AS label
            FROM filter_report r JOIN ingest_documents d USING (id) WHERE {column(name)} IS NOT NULL
        """).to_arrow_table()
    yes = sum(table["label"].to_pylist())
    if not 0 < yes < table.num_rows:
        raise InputError(f"{runs[0]}: {labels} holds for {yes:,} of {table.num_rows:,} documents, so there is nothing to tell apart.")
    pq.write_table(table, path)
    return f"{labels}: {yes:,} of {table.num_rows:,} documents."
