"""Reads what a language model was asked and answered (`filter/llm/`, step `llm`): cost, refusals, examples; and where a document comes
from that a model wrote."""

from dataclasses import dataclass

from corpusmill.report.queries.ask import Query, ask, columns
from corpusmill.report.query.run import Run

TABLE = "filter_llm"
#: Columns of the table that every query needs.
NEEDED = {"id", "step", "model", "refused", "answer", "value", "tokens_in", "tokens_out", "seconds", "dollars", "prompt_injection_signs"}
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
          median(seconds) FILTER (answer IS NOT NULL) AS seconds, count(*) FILTER (prompt_injection_signs > 0) AS with_signs
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
