"""The options of the step `llm`, and the prompts that ship."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from corpusmill.pipeline.config import Config, digest

PROMPTS = Path(__file__).with_name("prompts.yaml")
#: The names of environment variables that an option may give for a server's key.
VARIABLE = r"^[A-Z][A-Z0-9_]*$"


@cache
def shipped_prompts() -> dict[str, dict[str, Any]]:
    """Returns the prompts that ship, by name: `idea`, `text`, and options for the kind of output."""
    prompts: dict[str, dict[str, Any]] = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    return prompts


class Limits(Config):
    """What the step may use in a run, all answers counted, also those from the cache. Null: no limit.

    Each task has a share of `requests`, `tokens` and `dollars` by the size of its shard, and takes documents in their order while its share
    lasts, so the same documents are asked about for any number of workers. `hours` count from a worker's first question.
    """

    requests: int | None = Field(None, ge=1, description="Questions.")
    tokens: int | None = Field(None, ge=1, description="Tokens in and out.")
    dollars: float | None = Field(None, gt=0, description="By `prices`.")
    hours: float | None = Field(None, gt=0, description="Of the clock. Which documents are reached then depends on the server's speed.")


class Prices(Config):
    """Dollars for a million tokens."""

    tokens_in: float = Field(0.0, ge=0, description="Of prompts.")
    tokens_out: float = Field(0.0, ge=0, description="Of answers.")


class Faithful(Config):
    """What a new text must keep of its document. One that does not is refused, and `filter/llm` says why. Null: it is only measured."""

    numbers: float | None = Field(0.5, ge=0, le=1, description="Least share of the document's numbers that it has.")
    names: float | None = Field(None, ge=0, le=1, description="Least share of its names (words with a capital inside a sentence).")
    new_numbers: int | None = Field(5, ge=0, description="Most numbers that the document does not have.")
    ratio: tuple[float, float] = Field((0.02, 5.0), description="Least and greatest length, as a share of the document's.")
    language: bool = Field(True, description="It is in the language of the document.")


class LlmConfig(Config):
    """Options of the step that asks a language model about each document, by any server that speaks OpenAI's protocol."""

    model: str = Field(min_length=1, description="The model's name, as the server calls it.")
    url: str = Field("http://127.0.0.1:8000/v1", description="The server: vLLM, SGLang, llama.cpp, `corpusmill serve`, or a service.")
    key_variable: str = Field(
        "OPENAI_API_KEY", pattern=VARIABLE, description="The environment variable with the server's key; no file or message gets it."
    )
    name: str = Field("llm", pattern=r"^[a-z][a-z0-9_]*$", description="What its columns and rules are called.")
    prompt: str = Field(description="What to ask: the name of a prompt that ships, or a text file (relative to the recipe).")
    text: str = Field("", description="The words of the prompt; filled in from `prompt`.")
    output: Literal["score", "label", "json", "text"] = Field(
        description="A number of `range`, one of `labels`, an object by `json_schema`, or a new text, which becomes a document of its own."
    )
    range: tuple[float, float] = Field((0, 5), description="The lowest and highest score.")
    labels: tuple[str, ...] = Field((), description="The labels of `output: label`.")
    json_schema: dict[str, Any] | None = Field(None, description="The JSON Schema of `output: json`; its properties are columns.")
    threshold: float | None = Field(None, description="A document fails whose score is less; null: nothing is dropped.")
    keep: tuple[str, ...] = Field((), description="A document fails whose label is another; empty: nothing is dropped.")
    only_passing: bool = Field(True, description="Ask only about documents that pass the rules of all earlier steps.")
    share: float = Field(1.0, gt=0, le=1, description="The share of these that is asked about, drawn by id.")
    max_chars: int = Field(20_000, ge=100, description="Characters of a document that the prompt holds; a longer one is cut.")
    max_tokens: int = Field(512, ge=1, description="Most tokens of an answer.")
    temperature: float = Field(0.0, ge=0, le=2, description="0: the likeliest answer.")
    seed: int | None = Field(0, description="For servers that draw; null: none is sent.")
    structured: bool = Field(True, description="Have the server hold its answer to the schema, where it can.")
    extra: dict[str, Any] = Field({}, description="Further fields of each request (`chat_template_kwargs`, `reasoning_effort`).")
    limits: Limits = Field(Limits.model_validate({}), description="What may be used.")
    prices: Prices = Field(Prices.model_validate({}), description="What tokens cost.")
    faithful: Faithful = Field(Faithful.model_validate({}), description="What a new text must keep of its document.")
    concurrency: int = Field(32, ge=1, le=4096, description="Questions in flight, of each worker.")
    timeout: float = Field(120.0, gt=0, description="Seconds for one try.")
    tries: int = Field(6, ge=1, le=20, description="Tries for one question, with pauses between them that grow, or as the server says.")
    cache: str | None = Field(
        None, description="A folder or bucket that keeps each answer by its question, for all runs of a team. By default the user's cache."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_prompt(cls, given: Any, info: ValidationInfo) -> Any:
        """Fills in what a prompt that ships says, or the text of a file."""
        if not isinstance(given, Mapping) or not isinstance(given.get("prompt"), str) or given.get("text"):
            return given
        shipped = shipped_prompts()
        if given["prompt"] in shipped:
            return {**{key: value for key, value in shipped[given["prompt"]].items() if key != "idea"}, **given}
        path = Path((info.context or {}).get("folder", ".")) / given["prompt"]
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            names = ", ".join(shipped)
            raise ValueError(f"prompt: {given['prompt']} is no prompt that ships ({names}) and no text file ({why})") from error
        return {**given, "text": text}

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        if not re.match(r"https?://[^/\s]+", url):
            raise ValueError(f"expected http://HOST:PORT/v1 or https://..., not {url!r}")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        from corpusmill.filters.llm.answer import check_schema

        if not self.text.strip():
            raise ValueError("prompt: it is empty")
        low, high = self.range
        if not low < high:
            raise ValueError("range: the lowest score comes first")
        if self.output == "label" and len(set(self.labels)) < 2:
            raise ValueError("labels: an answer is one of two or more")
        if unknown := set(self.keep) - set(self.labels):
            raise ValueError(f"keep: {min(unknown)} is none of the labels ({', '.join(self.labels)})")
        if self.threshold is not None and self.output != "score":
            raise ValueError("threshold: it is for output: score")
        if self.threshold is not None and not low <= self.threshold <= high:
            raise ValueError(f"threshold: a score is from {low:g} to {high:g}")
        if self.output == "json":
            check_schema(self.json_schema)
        if self.limits.dollars is not None and not (self.prices.tokens_in or self.prices.tokens_out):
            raise ValueError("limits.dollars: `prices` say what tokens cost")
        return self

    @property
    def prompt_digest(self) -> str:
        """The first 16 hex digits of what the model is told and may answer, without the document."""
        return digest([self.text, self.output, self.range, self.labels, self.json_schema, self.max_chars])[:16]

    @property
    def properties(self) -> dict[str, Any]:
        """The properties of `json_schema`, by name."""
        return dict((self.json_schema or {}).get("properties", {}))


def schema_of(config: LlmConfig) -> dict[str, Any] | None:
    """Returns the JSON Schema of an answer; None for a text. A score and a label come with a reason, which is written first: so the model
    thinks before it decides."""
    if config.output == "text":
        return None
    if config.output == "json":
        return config.json_schema
    low, high = config.range
    whole = float(low).is_integer() and float(high).is_integer()
    score = {"type": "integer" if whole else "number", "minimum": int(low) if whole else low, "maximum": int(high) if whole else high}
    value = score if config.output == "score" else {"enum": list(config.labels)}
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, config.output: value},
        "required": ["reason", config.output],
        "additionalProperties": False,
    }
