"""The configuration of the stage `ingest`."""

from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from corpusmill.ingest.rows import INGEST_DOCUMENTS
from corpusmill.ingest.urls.filter import resolve_url_filter
from corpusmill.pipeline.config import INERT, Config
from corpusmill.pipeline.schemas import PLAIN, PageType, with_columns


class ExtractionConfig(Config):
    """Options for the extraction of text from a page, and limits for each page."""

    extractor: Literal["lexbor", "trafilatura"] = Field(
        default="lexbor", description="What turns HTML into text: our blocks on lexbor's tree, or trafilatura."
    )
    format: Literal["text", "markdown"] = Field(
        default="text", description="`markdown` marks headings, lists, quotes, tables and code (lexbor); formulas are LaTeX in both."
    )
    links: bool = Field(default=False, description="Markdown keeps the addresses of links: `[text](address)`.")
    main_content: bool = Field(default=True, description="Keep the main content alone: no navigation, teasers, footers.")
    keep_score: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A block of a page is main content if its probability is at least this share of the page's best expected F1 (lexbor): "
        "0.5 gives the best F1, higher is purer.",
    )
    comments: bool = Field(default=False, description="Keep comments on the main content too.")
    minimum_chars: int = Field(default=1, ge=1, description="A page or row with less text than this is dropped (characters).")
    max_record_mb: int = Field(default=16, ge=1, le=1024, description="A record or line larger than this is dropped unread (MiB).")
    max_decoded_mb: int = Field(default=32, ge=1, le=1024, description="A body that decompresses to more is dropped (MiB).")
    max_expansion: int = Field(
        default=200, ge=2, description="A body that decompresses to more than this many times its size (and 1 MiB) is dropped."
    )
    max_nesting: int = Field(
        default=1000, ge=50, le=5000, description="A page whose elements nest deeper is dropped: it would take minutes."
    )
    max_page_seconds: float = Field(
        default=10,
        ge=0.05,
        le=3600,
        description="A page that takes more CPU time is dropped (seconds); finding the next may take 10 times that.",
    )
    max_memory_mb: int = Field(
        default=224,
        ge=64,
        le=65536,
        description="A page that takes more memory is dropped (MiB, in addition to what the extracting process already holds).",
    )

    @model_validator(mode="after")
    def _format_fits(self) -> Self:
        if self.format == "markdown" and self.extractor != "lexbor":
            raise ValueError(f"format: markdown needs the extractor lexbor, not {self.extractor}")
        return self


class IngestConfig(Config):
    """The section `ingest` of a recipe: what is read from a crawl or another collection."""

    statuses: list[int] = Field(default=[200], min_length=1, description="HTTP statuses of the responses that are kept.")
    content_types: list[str] = Field(
        default=["text/html", "application/xhtml+xml"], min_length=1, description="Content types of the responses that are kept."
    )
    page_types: list[PageType] = Field(
        default=[], description="Types of the pages that are kept, such as `[article, forum]`; an empty list keeps all (lexbor)."
    )
    page_type_score: float = Field(
        default=0, ge=0, le=1, description="Lowest probability of its type with which a page of page_types is kept."
    )
    task_mb: int = Field(
        default=32, ge=1, le=4096, description="Largest part of the input that one task reads (MiB); small inputs give smaller parts."
    )
    shard_mb: int = Field(
        default=128, ge=1, le=4096, description="Largest shard of documents (MiB of text and metadata); a file that has more gives several."
    )
    text_key: str = Field(default="text", min_length=1, description="Column of JSONL, CSV and Parquet that holds the text.")
    url_key: str = Field(default="url", description="Column that holds the URL.")
    id_key: str = Field(default="id", description="Column that holds an identifier; used where there is no URL.")
    title_key: str = Field(default="title", description="Column that holds the title.")
    author_key: str = Field(default="author", description="Column that holds the author.")
    date_key: str = Field(default="date", description="Column that holds the date of the text.")
    license_key: str = Field(default="license", description="Column that holds the licence, in SPDX's words.")
    timestamp_key: str = Field(default="timestamp", description="Column that holds the time at which it was crawled.")
    trim: bool = Field(default=True, description="Blanks at both ends of a plain text are cut off; false keeps every character of it.")
    url_filter: Annotated[dict[str, Any] | None, BeforeValidator(resolve_url_filter)] = Field(
        default=None, description="Drops pages by their URL before they are extracted: `{preset: datatrove}`; null lets all pass."
    )
    takedown: str | None = Field(
        default=None, json_schema_extra=INERT,
        description="A list of what is to stay out (JSON lines with `url`, `domain` or `id`, which `corpusmill takedown` writes); also "
        "taken out of what a run has read already.",
    )  # fmt: skip
    extraction: ExtractionConfig = Field(default_factory=ExtractionConfig, description="HTML to text.")

    @property
    def documents(self) -> pa.Schema:
        """The schema of the documents."""
        return with_columns(INGEST_DOCUMENTS, [PLAIN]) if self.extraction.format == "markdown" else INGEST_DOCUMENTS
