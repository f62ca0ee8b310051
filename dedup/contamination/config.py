"""What a recipe may say about evaluation sets and what happens to documents that hold their items."""

from typing import Literal, Self

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config


class FieldsConfig(Config):
    """Where the parts of an item lie. `a.b` is the field `b` of the object (or of each object of the list) `a`."""

    question: str | None = Field(default=None, description="the question, problem or prompt")
    context: str | None = Field(default=None, description="the passage that the question is about")
    choices: str | None = Field(default=None, description="the answers to choose from: a list, or an object of lists")
    answer: str | None = Field(default=None, description="the answer or solution")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any((self.question, self.context, self.choices, self.answer)):
            raise ValueError("name at least one of question, context, choices and answer")
        return self


class SetConfig(Config):
    """One evaluation set."""

    path: str = Field(description="a file, folder, glob or URL: JSONL, JSON, Parquet or Arrow; compressed and .zip too")
    name: str | None = Field(default=None, description="what reports call it; by default the file's name")
    fields: FieldsConfig | None = Field(default=None, description="the fields to match, where the format is none of the known ones")


class ContaminationConfig(Config):
    """The section `dedup.contamination` of a recipe.

    An item's text is found in a document where, in a window a quarter longer than the text, n-grams of `seed` words cover at least
    `share` of its words and at least `ngram` words. `seed: 13`, `ngram: 13`, `share: 0` is the rule of GPT-3: any 13-gram.
    """

    sets: list[str | SetConfig] = Field(min_length=1, description="the evaluation sets: paths, or objects of path, name and fields")
    action: Literal["drop", "cut", "report"] = Field(
        default="drop",
        description="drop the document, cut the passage out of it, or only say so in the report",
    )
    ngram: int = Field(default=8, ge=1, le=64, description="how many words of a text must be found at least; published practice is 8 to 13")
    share: float = Field(default=0.4, ge=0, le=1, description="what share of a text's words must be found at least")
    seed: int = Field(default=5, ge=2, le=64, description="words are found in n-grams of this many words")
    short: Literal["whole", "ignore"] = Field(
        default="whole", description="what becomes of texts shorter than `ngram`: found where they stand whole, or never"
    )
    min_words: int = Field(default=7, ge=2, description="shorter texts are never looked for")
    common: int = Field(default=20, ge=1, description="an n-gram of more items of one set than this is boilerplate and proves nothing")
    keep_words: int = Field(default=50, ge=0, description="with `action: cut`, a document that has fewer words left is dropped")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.seed > self.ngram:
            raise ValueError(f"seed ({self.seed}) can't be larger than ngram ({self.ngram})")
        if self.min_words < self.seed:
            raise ValueError(f"min_words ({self.min_words}) can't be smaller than seed ({self.seed})")
        return self

    def of_index(self) -> "ContaminationConfig":
        """The part that the index of the sets depends on; everything else has its default."""
        return ContaminationConfig(
            sets=self.sets, ngram=self.ngram, seed=self.seed, short=self.short, min_words=self.min_words, common=self.common
        )

    def set_configs(self) -> list[SetConfig]:
        return [SetConfig(path=given) if isinstance(given, str) else given for given in self.sets]
