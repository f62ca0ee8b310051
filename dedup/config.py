"""What a recipe may say about deduplication."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from corpusmill.dedup.presets import expand
from corpusmill.pipeline.config import Config

ExactForm = Literal["none", "whitespace", "lowercase", "words"]
NearForm = Literal["none", "whitespace", "lowercase", "words", "datatrove", "redpajama", "refinedweb"]
KeepPolicy = Literal["longest", "quality", "newest", "oldest", "first"]

#: Minima of a signature at most: a document's take 128 KB where they have 64 bits.
MOST_MINIMA = 16_384


class ExactConfig(Config):
    """Copies of one text, found by a 128-bit hash of its normalised form."""

    enabled: bool = Field(default=True, description="remove exact copies")
    normalisation: ExactForm = Field(
        default="lowercase",
        description="what equal means: none (the bytes), whitespace (runs of white space are one space), lowercase (that, and case "
        "is ignored), words (that, and everything between words is ignored)",
    )


class MinHashConfig(Config):
    """Near copies: proposed by MinHash-LSH on n-grams, then verified."""

    enabled: bool = Field(default=True, description="remove near copies")
    unit: Literal["words", "characters"] = Field(default="words", description="what a shingle is made of")
    ngram: int = Field(default=5, ge=1, le=256, description="units in a shingle")
    word_rule: Literal["words", "whitespace", "characters", "spacy"] = Field(
        default="words", description="what a word is: the rules of the section `filter`, on the normalised text"
    )
    normalisation: NearForm = Field(
        default="words",
        description="what is compared: none, whitespace, lowercase, words (as `exact` has them), or the text that datatrove, redpajama "
        "or refinedweb make of it (docs/dedup.md)",
    )
    hash: Literal["corpusmill", "xxhash", "sha1"] = Field(
        default="corpusmill",
        description="how shingles are hashed and permuted; xxhash and sha1 are datatrove's, with its permutations: they "
        "find the pairs that it finds, more slowly",
    )
    bands: int = Field(default=14, ge=1, le=1024, description="bands of the signature: two documents with an equal band are candidates")
    rows: int = Field(default=8, ge=1, le=128, description="minima in a band")
    target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="take the bands and rows that datasketch finds best for this similarity instead of the two above",
    )
    permutations: int = Field(default=128, ge=2, le=2048, description="how many minima there may be at most when `target` is given")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="chooses the permutations")
    bits: Literal[32, 64] = Field(default=32, description="bits of a minimum")
    min_words: int = Field(
        default=10,
        ge=1,
        description="documents of fewer words (or characters, where those are the unit), and those shorter than one shingle, are compared "
        "only exactly",
    )

    @model_validator(mode="after")
    def _signature_fits(self) -> Self:
        if self.target is None and self.bands * self.rows > MOST_MINIMA:
            raise ValueError(f"{self.bands} bands of {self.rows} rows are more than {MOST_MINIMA:,} minima")
        return self


class DedupConfig(Config):
    """The section `dedup` of a recipe."""

    preset: str | None = Field(
        default=None,
        description="the MinHash and the threshold of a published pipeline (dedup/presets.py); what is written here goes first",
    )
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
    alarm: Literal["warn", "stop"] = Field(default="warn", description="stop: an alarm ends the run before any document is removed")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any) -> Any:
        return expand(section) if isinstance(section, Mapping) else section
