"""What a recipe may say about repeated lines."""

from typing import Literal

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config

Unit = Literal["line", "paragraph"]
Form = Literal["ccnet", "words", "none"]

#: How often a unit must occur where the recipe does not say.
LEAST = {"first": 2, "none": 10}


class UnitsConfig(Config):
    """What is counted."""

    unit: Unit = Field(
        default="line", description="line: between newlines (CCNet's paragraph); paragraph: between two newlines or more (DCLM's, Dolma's)"
    )
    normalisation: Form = Field(
        default="ccnet",
        description="what equal means; space around a unit never counts. ccnet: lower case, digits are 0, without the punctuation of "
        "other scripts and control characters; words: lower case, digits are 0, letters and digits alone; none: the characters",
    )
    min_chars: int = Field(default=1, ge=1, description="shorter units are never cut")
    scope: Literal["corpus", "host"] = Field(
        default="corpus", description="host: repeats count within one host of URLs (a document without a URL belongs to its crawl file)"
    )


class LinesConfig(UnitsConfig):
    """Lines or paragraphs that repeat from document to document."""

    keep: Literal["first", "none"] = Field(
        default="none",
        description="none: boilerplate goes from every document; first: each repeated unit stays once (as CCNet's), in the document that "
        "comes first by input, shard and row",
    )
    min_count: int | None = Field(
        default=None,
        ge=2,
        description="how many documents must have a unit before it is cut (keep: none; 10 by default), or how often it must occur, "
        "within a document too (keep: first; 2 by default)",
    )
    min_share: float = Field(
        default=0.0, ge=0, le=1, description="scope host, keep none: and which share of the host's documents must have it; rounded up"
    )
    max_cut: float = Field(
        default=1.0, gt=0, le=1, description="a document that would lose a larger share of its characters is treated as `beyond` says"
    )
    beyond: Literal["leave", "drop"] = Field(
        default="leave", description="leave: it stays whole; drop: it goes, by the rule mostly_repeated_lines"
    )
    top: int = Field(default=100, ge=0, le=10_000, description="how many of the most frequent cut units are listed in lines/top.parquet")

    @property
    def least(self) -> int:
        return self.min_count or LEAST[self.keep]

    @property
    def units(self) -> UnitsConfig:
        """The part that decides what is counted, and so what the counting tasks depend on."""
        return UnitsConfig(**{name: getattr(self, name) for name in UnitsConfig.model_fields})

    @model_validator(mode="after")
    def _share_of_a_host(self) -> "LinesConfig":
        if self.min_share and (self.scope, self.keep) != ("host", "none"):
            raise ValueError("min_share needs scope: host and keep: none")
        return self
