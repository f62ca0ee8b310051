"""The configuration of the stage."""

from typing import Literal

from pydantic import Field

from corpusmill.pipeline.config import Config


class ExtractionConfig(Config):
    """How a page becomes text, and what it may cost."""

    extractor: Literal["resiliparse"] = Field("resiliparse", description="What turns HTML into text.")
    main_content: bool = Field(True, description="Keep the main content alone: no navigation, footers, comments.")
    minimum_chars: int = Field(1, ge=1, description="A page or row with less text than this is dropped (characters).")
    max_record_mb: int = Field(16, ge=1, le=1024, description="A record or line larger than this is dropped unread (MiB).")
    max_decoded_mb: int = Field(32, ge=1, le=1024, description="A body that decompresses to more is dropped (MiB).")
    max_expansion: int = Field(
        200, ge=2, description="A body that decompresses to more than this many times its size (and 1 MiB) is dropped."
    )
    max_nesting: int = Field(1000, ge=50, le=5000, description="A page whose elements nest deeper is dropped: it would take minutes.")


class IngestConfig(Config):
    """What is read from a crawl or another collection."""

    statuses: list[int] = Field([200], min_length=1, description="HTTP statuses of the responses that are kept.")
    content_types: list[str] = Field(
        ["text/html", "application/xhtml+xml"], min_length=1, description="Content types of the responses that are kept."
    )
    piece_mb: int = Field(
        32, ge=1, le=4096, description="Largest piece of input that one task reads (MiB); small inputs give smaller pieces."
    )
    text_key: str = Field("text", min_length=1, description="Column of JSONL and Parquet that holds the text.")
    url_key: str = Field("url", description="Column that holds the address.")
    id_key: str = Field("id", description="Column that holds an identifier; it stands for the address where there is none.")
    title_key: str = Field("title", description="Column that holds the title.")
    timestamp_key: str = Field("timestamp", description="Column that holds the date, as text.")
    extraction: ExtractionConfig = Field(ExtractionConfig(), description="HTML to text.")
