"""What a recipe may say about repeated passages."""

from typing import Literal

from pydantic import Field

from corpusmill.pipeline.config import Config


class SubstringsConfig(Config):
    """Passages that repeat word for word (ExactSubstr: Lee et al. 2022, arXiv 2107.06499)."""

    tokens: int = Field(
        default=50,
        ge=8,
        le=10_000,
        description="words in the shortest passage; words lie between spaces, and each character of a script without spaces is one",
    )
    keep: Literal["first", "none"] = Field(
        default="first", description="first: a passage stays where it comes first by input, shard, row and place; none: it goes everywhere"
    )

    @property
    def anchor(self) -> int:
        """Words of an anchor: half a passage."""
        return (self.tokens + 1) // 2
