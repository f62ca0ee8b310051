"""What a recipe may say about deduplication."""

from typing import Literal

from pydantic import Field

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.pipeline.config import Config

Normalisation = Literal["none", "whitespace", "lowercase", "words"]
KeepPolicy = Literal["longest", "quality", "newest", "oldest", "first"]


class ExactConfig(Config):
    """Copies of one text, found by a 128-bit hash of its normalised form."""

    enabled: bool = Field(default=True, description="remove exact copies")
    normalisation: Normalisation = Field(
        default="lowercase",
        description="what equal means: none (the bytes), whitespace (runs of white space are one space), lowercase (that, and case "
        "is ignored), words (that, and everything between words is ignored)",
    )


class MinHashConfig(Config):
    """Near copies: proposed by MinHash-LSH on word n-grams, then verified."""

    enabled: bool = Field(default=True, description="remove near copies")
    ngram: int = Field(default=5, ge=1, le=64, description="words in a shingle")
    bands: int = Field(default=14, ge=1, le=1024, description="bands of the signature: two documents with an equal band are candidates")
    rows: int = Field(default=8, ge=1, le=128, description="minima in a band")
    target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="take the bands and rows that datasketch finds best for this similarity instead of the two above",
    )
    permutations: int = Field(default=128, ge=2, le=2048, description="how many minima there may be at most when `target` is given")
    seed: int = Field(default=1, ge=0, description="chooses the permutations")
    bits: Literal[32, 64] = Field(default=32, description="bits of a minimum")
    min_words: int = Field(default=10, ge=1, description="shorter documents (and those shorter than one shingle) are compared only exactly")


class DedupConfig(Config):
    """The section `dedup` of a recipe."""

    exact: ExactConfig = Field(default_factory=ExactConfig, description="exact copies")
    minhash: MinHashConfig = Field(default_factory=MinHashConfig, description="near copies")
    threshold: float = Field(
        default=0.75, gt=0, le=1, description="Jaccard similarity to the kept document from which a near copy is removed"
    )
    verification: Literal["exact", "estimate"] = Field(
        default="exact", description="exact: on the shingles of both texts; estimate: on their signatures alone, which is off by about .04"
    )
    keep: KeepPolicy = Field(
        default="longest",
        description="which copy stays: the longest text, the highest quality, the newest or oldest timestamp, or the first by crawl file "
        "and place in it; ties by id, then crawl file, then place",
    )
    quality_column: str = Field(default="quality", description="the column that `keep: quality` compares")
    max_cluster: int = Field(default=10_000, ge=2, description="larger clusters are named in a warning")
    bucket_limit: int = Field(
        default=1_000,
        ge=1,
        description="with how many clusters of one LSH bucket a document is compared at most: bounds the work on templates",
    )
    alarm_share: float = Field(
        default=0.6, ge=0, le=1, description="a crawl file that loses a larger share of its documents raises an alarm"
    )
    alarm_documents: int = Field(default=20, ge=1, description="crawl files with fewer documents raise none")
    contamination: ContaminationConfig | None = Field(default=None, description="evaluation sets whose items must not be in documents")
    alarm: Literal["warn", "stop"] = Field(default="warn", description="stop: an alarm ends the run before any document is removed")
