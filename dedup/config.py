"""What a recipe may say about deduplication."""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import Field, model_validator

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.dedup.lines.config import LinesConfig
from corpusmill.dedup.presets import expand
from corpusmill.dedup.substrings.config import SubstringsConfig
from corpusmill.pipeline.config import Config

ExactForm = Literal["none", "whitespace", "lowercase", "words"]
NearForm = Literal["none", "whitespace", "lowercase", "words", "datatrove", "redpajama", "refinedweb"]

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


class UrlConfig(Config):
    """Captures of one address."""

    enabled: bool = Field(default=False, description="of documents with one URL keep one")
    normalisation: Literal["none", "syntax"] = Field(
        default="syntax",
        description="which URLs are one: none (the same bytes), syntax (RFC 3986, 6.2.2 and 6.2.3: case of scheme, host and escapes, "
        "default ports, an empty path, the fragment)",
    )
    keep: str | list[str] = Field(default="newest", description="which one stays, as `keep`")


class MeasureConfig(Config):
    """What is measured of each document: the part of the section on which signatures, keys and indexes depend."""

    exact: ExactConfig = Field(default_factory=ExactConfig, description="exact copies")
    minhash: MinHashConfig = Field(default_factory=MinHashConfig, description="near copies")
    url: UrlConfig = Field(default_factory=UrlConfig, description="captures of one address")

    @property
    def copies_share_shingles(self) -> bool:
        """Whether texts that are equal in the exact form have equal shingles, so that one of them stands for all in the buckets."""
        order: list[str] = list(get_args(ExactForm))
        near = self.minhash.normalisation if self.minhash.normalisation in order else "lowercase"  # published forms do that and more
        spaces = self.minhash.unit == "words" and self.exact.normalisation == "whitespace"  # words are the same between any spaces
        return spaces or order.index(near) >= order.index(self.exact.normalisation)


class ClusterConfig(MeasureConfig):
    """And how clusters are made of it."""

    threshold: float = Field(default=0.75, gt=0, le=1, description="similarity to the kept document from which a near copy is removed")
    similarity: Literal["jaccard", "containment"] = Field(
        default="jaccard",
        description="of the shingles of both texts: jaccard (shared by both, of all), containment (the share of the removed text's "
        "shingles that the kept one has)",
    )
    verification: Literal["exact", "estimate"] = Field(
        default="exact", description="exact: on the shingles of both texts; estimate: on their signatures alone, which is off by about .04"
    )
    keep: str | list[str] = Field(
        default="longest",
        description="which copy stays: longest, quality (the column of that name), newest, oldest, first (by crawl file and place), "
        "sources, or an expression over columns of which the highest value wins (`quality * log(chars)`); in a list the next one "
        "decides ties, at last the id",
    )
    sources: list[str] = Field(default=[], description="patterns of crawl files, the most trusted first, for `keep: sources`")
    max_cluster: int = Field(
        default=10_000, ge=2, description="so many near copies leave for one document; what else is like it stays and is reported"
    )
    bucket_limit: int = Field(
        default=1_000,
        ge=1,
        description="with how many clusters of one LSH bucket a document is compared at most: bounds the work on templates",
    )
    by: str = Field(
        default="source",
        description="of what the removal is counted: source (crawl files), host (of the URL), or a column of the documents",
    )


class IndexConfig(Config):
    """What is remembered of earlier crawls."""

    path: str = Field(description="the index's folder, local or on a store; made where it is not there")
    name: str | None = Field(default=None, description="of this run's entry; the name of the run's folder where it is left out")
    extend: bool = Field(default=True, description="add this run to the index when it is finished")
    texts: bool = Field(
        default=True, description="keep texts in the index, to compare them exactly; without them later runs rest on signatures alone"
    )
    earlier: Literal["union", "fixed"] = Field(
        default="union",
        description="union: earlier documents take part as the new ones do, and the run says which of them a better copy replaces; "
        "fixed: what earlier runs kept stays, and new copies of it go",
    )


class DedupConfig(ClusterConfig):
    """The section `dedup` of a recipe."""

    preset: str | None = Field(
        default=None,
        description="the MinHash and the threshold of a published pipeline (dedup/presets.py); what is written here goes first",
    )
    alarm_share: float = Field(default=0.6, ge=0, le=1, description="what loses a larger share of its documents raises an alarm")
    alarm_documents: int = Field(default=20, ge=1, description="what has fewer documents raises none")
    alarm: Literal["stop", "warn"] = Field(default="stop", description="stop: an alarm ends the run before any document is removed")
    index: IndexConfig | None = Field(default=None, description="earlier crawls")
    lines: LinesConfig | None = Field(default=None, description="lines or paragraphs that repeat across documents; null: left alone")
    contamination: ContaminationConfig | None = Field(default=None, description="evaluation sets whose items must not be in documents")
    substrings: SubstringsConfig | None = Field(default=None, description="passages that repeat word for word; null: left alone")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any) -> Any:
        return expand(section) if isinstance(section, Mapping) else section

    @model_validator(mode="after")
    def _policies(self) -> Self:
        from corpusmill.dedup.policy import check_policy

        for keep in (self.keep, self.url.keep):
            check_policy(keep, self.sources)
        return self

    def part(self, schema: type["Part"]) -> "Part":
        """The options of which a phase depends."""
        return schema.model_validate({name: getattr(self, name) for name in schema.model_fields})


Part = TypeVar("Part", bound=MeasureConfig)
