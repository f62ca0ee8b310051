"""The step `page_type`: keeps documents by the kind of page that `ingest` found them to be."""

import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.schemas import PageType


class PageTypeConfig(Config):
    """Page types to keep, from the columns of `ingest`. A document that was no HTML page has no type, and passes."""

    keep: tuple[PageType, ...] = Field((), description="The types to keep, such as `[article, forum]`; none means all.")
    threshold: float = Field(0.0, ge=0, le=1, description="A page goes on where the probability of its type is at least this.")


class PageTypes(Step):
    Config = PageTypeConfig
    MEANINGS = {
        "page_type": "the page is none of {list}",
        "page_type_score": "the page's type has a probability of {score} (of 1), so it is uncertain",
    }

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"page_type": pa.string(), "page_type_score": pa.float64()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        score = Rule("page_type_score", "page_type_score", "<", self.config.threshold)
        return (Rule("page_type", "page_type", "not in", self.config.keep), score) if self.config.keep else (score,)

    def measure(self, batch: DocumentBatch) -> StepOutput:
        columns = {}
        for name, kind in self.columns.items():
            column = batch.column(name)
            columns[name] = pa.nulls(len(batch), kind) if column is None else column.cast(kind)
        return StepOutput(columns)
