"""What a recipe may say about judging the tokenizer."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from corpusmill.pipeline.config import Config
from corpusmill.tokenize.judged import PUBLISHED


class JudgeConfig(Config):
    """How the tokenizer is judged; changes nothing about it."""

    mb: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Text to judge on, in MB, about: of documents that were not trained on, where there are any.",
    )
    compare: list[str] = Field(
        default=[],
        description="Tokenizers compared on the same text: gpt2, cl100k, o200k, or files (tokenizer.json; tiktoken: PATH:PATTERN).",
    )
    undertrained_below: int = Field(default=100, ge=1, description="A token that the sample uses less often than this is undertrained.")

    @field_validator("compare")
    @classmethod
    def _files_beside_the_recipe(cls, compare: list[str], info: ValidationInfo) -> list[str]:
        """A relative path is one from the recipe's folder."""
        folder = Path((info.context or {}).get("folder", "."))
        return [given if given in PUBLISHED else str((folder / given).resolve()) for given in compare]
