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

    A text of an item is found where it stands whole, up to case, marks and spaces. Else it is laid beside the document at n-grams of
    `seed` words that no more than `common` items of its set have. It is found where then, in a window a quarter longer than the text, at
    least `ngram` words agree (of a short text `short_share` of its words, and at least `min_ngram`), and at least `share` of the words in
    such n-grams. So published practice, any one n-gram of 8 to 13 words, is `seed`, `ngram`, `min_ngram` and `min_words` of so many words
    with a `share` of 0.
    """

    sets: list[str | SetConfig] = Field(min_length=1, description="the evaluation sets: paths, or objects of path, name and fields")
    action: Literal["drop", "cut", "report"] = Field(
        default="drop",
        description="drop the document, cut the passage out of it, or only say so in the report",
    )
    seed: int = Field(default=4, ge=2, le=64, description="a text is laid beside a document at n-grams of this many words")
    share: float = Field(default=0.6, ge=0, le=1, description="what share of the words that are a text's own must agree at least")
    ngram: int = Field(default=13, ge=2, le=64, description="how many words of a text must agree at least")
    short_share: float = Field(default=0.75, ge=0, le=1, description="of a short text, this share of its words is enough")
    min_ngram: int = Field(default=8, ge=2, le=64, description="but never fewer words than this")
    short: Literal["whole", "ignore"] = Field(
        default="whole", description="what becomes of texts of fewer than `min_ngram` words: found where they stand whole, or never"
    )
    min_words: int = Field(default=7, ge=2, description="shorter texts are never looked for")
    common: int = Field(default=20, ge=1, description="a text or n-gram that more items of one set than this have is boilerplate")
    keep_words: int = Field(default=50, ge=0, description="with `action: cut`, a document that has fewer words left is dropped")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for smaller, larger in (("seed", "min_ngram"), ("min_ngram", "ngram"), ("seed", "min_words")):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"{smaller} ({getattr(self, smaller)}) can't be larger than {larger} ({getattr(self, larger)})")
        return self

    def of_index(self) -> "ContaminationConfig":
        """The part that the index of the sets depends on; everything else has its default."""
        return self.model_copy(update={"action": "drop", "share": 0.6, "keep_words": 50})

    def set_configs(self) -> list[SetConfig]:
        return [SetConfig(path=given) if isinstance(given, str) else given for given in self.sets]
