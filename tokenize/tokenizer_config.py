"""The recipe's options for the tokenizer, and the part of them that each phase needs."""

import unicodedata
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.tokenize.bpe_train import Ties
from corpusmill.tokenize.compared_tokenizers import PUBLISHED
from corpusmill.tokenize.mixture import Where
from corpusmill.tokenize.patterns import PATTERNS, check_regex, regex_of
from corpusmill.tokenize.words import splitter


class JudgeConfig(Config):
    """How the tokenizer is judged. These options do not change the tokenizer."""

    mb: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="About how much text to judge on, in MB; from documents outside the training sample where there are any.",
    )
    compare: list[str] = Field(
        default=[],
        description="Tokenizers compared on the same text: gpt2, cl100k, o200k, or files (tokenizer.json; tiktoken: PATH:PATTERN).",
    )
    undertrained_below: int = Field(default=100, ge=1, description="A token that the sample uses less often than this is undertrained.")

    @field_validator("compare")
    @classmethod
    def _resolved_files(cls, compare: list[str], info: ValidationInfo) -> list[str]:
        """Takes a relative path from the recipe's folder."""
        folder = Path((info.context or {}).get("folder", "."))
        return [given if given in PUBLISHED else str((folder / given).resolve()) for given in compare]


#: Stands for all groups without a weight of their own.
OTHERS = "*"
BYTES = 256
LONGEST_SPECIAL = 64

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SampleComponent(Config):
    """The documents that meet all conditions of `where`, and their weight in the sample."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$", description="Names the component in sample.json and the report.")
    where: Where = Field({}, description="Conditions by column, as in tokens.mixture; without any: every document.")
    weight: Weight = Field(description="Its share of the text, relative to the other components' weights.")


class SampleConfig(Config):
    """The documents on which the tokenizer is trained. A hash of the id chooses them, in each group up to the group's share."""

    mb: int = Field(default=500, ge=1, le=100_000, description="Text to train on, in MB (10^6 UTF-8 bytes); all of it where there is less.")
    seed: int = Field(default=0, ge=0, lt=1 << 32, description="Seed of the hash that chooses documents.")
    by: str | None = Field(
        default=None,
        description="Groups are the values of this column (language, ...), of `source` (crawl files) or of `host` (of the URL).",
    )
    weights: dict[str, Weight] | None = Field(
        default=None,
        description="With `by`: the share of the text by group, relative to each other; `*` is all others, else they are left out.",
    )
    temperature: float = Field(
        default=1.0,
        ge=1,
        le=1000,
        description="With `by`, without weights: a group's share is proportional to its text to the power of 1 / temperature.",
    )
    components: list[SampleComponent] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Groups by conditions instead of `by`: a document is in the first that it fits, or in none.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.by is None and (self.weights is not None or self.temperature != 1):
            raise ValueError("weights and temperature need `by`")
        if self.weights is not None and self.temperature != 1:
            raise ValueError("give weights or temperature, not both")
        if self.weights is not None and not self.weights:
            raise ValueError("weights name no group")
        if self.components is not None and self.by is not None:
            raise ValueError("give `by` or components, not both")
        names = [component.name for component in self.components or []]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two components are called {twice[0]}")
        return self


class TokenizerConfig(Config):
    kind: Literal["bpe", "characters"] = Field(
        "bpe", description="`bpe`: byte-level BPE; `characters`: every character that occurs in the documents is a token, and nothing else."
    )
    vocab_size: int = Field(
        32_768, ge=512, le=262_144, description="Tokens of the vocabulary, the special ones and the 256 bytes included."
    )
    pattern: str = Field("gpt2", description="What cuts text into pieces before BPE: gpt2, cl100k, o200k, llama3, or a regular expression.")
    digits: Literal[1, 2, 3] | None = Field(None, description="Longest run of digits in a piece; null: as the pattern has it.")
    special_tokens: list[str] = Field(
        [], description=f"Reserved beside {', '.join(SPECIAL_TOKENS)}, with the ids after theirs. They never come from text."
    )
    minimum_frequency: int = Field(2, ge=1, description="A pair of tokens that occurs less often in the sample is not merged.")
    ties: Ties = Field(
        "ids",
        description="Of equally frequent pairs, merge that of smallest ids (as tokenizers does) or of greatest bytes (as "
        "teaching code does).",
    )
    sample: SampleConfig = Field(SampleConfig(), description="The text that it is trained on.")
    judge: JudgeConfig = Field(default=JudgeConfig(), description="How it is judged.")
    file: str | None = Field(default=None, description="Take over this tokenizer.json (byte-level BPE) instead of training one.")

    @field_validator("digits")
    @classmethod
    def _digits_fit(cls, digits: int | None, info: ValidationInfo) -> int | None:
        if "pattern" in info.data:
            regex_of(info.data["pattern"], digits)
        return digits

    @field_validator("pattern")
    @classmethod
    def _pattern_is_whole(cls, pattern: str) -> str:
        if pattern not in PATTERNS:
            check_regex(pattern)
        return pattern

    @field_validator("special_tokens")
    @classmethod
    def _special_tokens_are_reserved(cls, tokens: list[str], info: ValidationInfo) -> list[str]:
        for place, token in enumerate(tokens):
            if not 0 < len(token) <= LONGEST_SPECIAL or any(unicodedata.category(c)[0] in "CZ" for c in token):
                raise ValueError(f"{token!r} has to have 1 to {LONGEST_SPECIAL} visible characters, and no spaces")
            if token in SPECIAL_TOKENS or token in tokens[:place]:
                reserved = "is one of the four that every tokenizer here has" if token in SPECIAL_TOKENS else "is there twice"
                raise ValueError(f"{token!r} {reserved}")
            if "pattern" in info.data and len(splitter(regex_of(info.data["pattern"])).pre_tokenize_str(token)) < 2:
                raise ValueError(f"{token!r} is one piece of text, so it could be learned as a word; put marks around it, like <|{token}|>")
        if len(SPECIAL_TOKENS) + len(tokens) + BYTES > info.data.get("vocab_size", 1 << 18):
            raise ValueError("more special tokens than the vocabulary has room for")
        return tokens

    @field_validator("file")
    @classmethod
    def _resolved_file(cls, file: str | None, info: ValidationInfo) -> str | None:
        """Takes a relative path from the recipe's folder. Refuses options of training, which mean nothing for a given tokenizer."""
        if file is None:
            return None
        given = [
            name
            for name, field in cls.model_fields.items()
            if name not in ("kind", "file", "sample", "judge") and info.data.get(name) != field.default
        ]
        if given:
            raise ValueError(f"a tokenizer that is taken over is not trained, so leave out {', '.join(given)}")
        return str((Path((info.context or {}).get("folder", ".")) / file).resolve())

    @model_validator(mode="after")
    def _characters_are_not_trained(self) -> Self:
        """Refuses every option but special tokens, as characters are not trained."""
        fields = type(self).model_fields.items()
        given = [name for name, field in fields if name not in ("kind", "special_tokens") and getattr(self, name) != field.default]
        if self.kind == "characters" and given:
            raise ValueError(f"a vocabulary of characters is made of all documents and not trained, so leave out {', '.join(given)}")
        return self

    @property
    def regex(self) -> str:
        """The regular expression that cuts text."""
        return regex_of(self.pattern, self.digits)

    @property
    def all_special_tokens(self) -> tuple[str, ...]:
        """All special tokens in the order of their ids."""
        return (*SPECIAL_TOKENS, *self.special_tokens)


class GroupsConfig(Config):
    """How documents are grouped for the sample."""

    seed: int
    by: str | None
    named: list[str] | None  # groups with a weight; all others are one group (`*`), or left out
    components: list[tuple[str, Where]] | None


class CountConfig(GroupsConfig):
    """How documents are grouped, and how their words are cut."""

    regex: str


def groups_config(sample: SampleConfig) -> GroupsConfig:
    return GroupsConfig(
        seed=sample.seed,
        by=sample.by,
        named=None if sample.weights is None else sorted(sample.weights),
        components=None if sample.components is None else [(component.name, component.where) for component in sample.components],
    )
