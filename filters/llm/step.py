"""The step `llm`: asks a language model about each document. The answers become columns with rules, or documents of their own."""

import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import xxhash

from corpusmill.filters.llm.answer import Refused, key_of, question, signs, value_of
from corpusmill.filters.llm.client import Answer, Budget, Client, use
from corpusmill.filters.llm.config import LlmConfig
from corpusmill.filters.llm.rewriting import FAITHFULNESS, LINEAGE, faithfulness, rewritten, same_language, unfaithful
from corpusmill.filters.rules import NOT_IN, Rule, plain
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.storage import Storage

#: A row for each document that was to be asked about.
RECORD = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("step", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),  # digest of prompt and form of the answer, without the document
        pa.field("parameters", pa.string(), nullable=False),  # JSON: of the request, beside model and messages
        pa.field("question", pa.string()),  # sha256 of all that was asked, the answer's name in the cache
        pa.field("answer", pa.large_string()),  # as the server gave it
        pa.field("value", pa.large_string()),  # what was read in it, as JSON
        pa.field("refused", pa.string()),  # why there is no value
        pa.field("finish", pa.string()),
        pa.field("tokens_in", pa.int64()),
        pa.field("tokens_out", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("dollars", pa.float64()),
        pa.field("cut", pa.bool_()),  # the document was longer than the prompt holds
        pa.field("prompt_injection_signs", pa.int64()),
        pa.field("new_id", pa.string()),  # of the rewritten document
        *FAITHFULNESS,
    ]
)
TYPES = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
#: Characters of a reason in the report; the record has all of it.
REASON = 500
SHARES = 1 << 32
#: Why a document that was to be asked about was not: a limit was reached.
NOT_REACHED = ("budget", "time")
#: Where each process of a run says what it has asked of a server, kept answers not counted.
USED = "filter/logs/llm-"


class Llm(Step):
    """The step `llm`.

    NAME (a score or label) and NAME_reason, or NAME_PROPERTY for each property of a schema; NAME_refused: why a document that was asked
    about has no value; NAME_injection_signs: phrases in it that look like instructions to a model. All are null where nothing was asked.
    """

    Config = LlmConfig
    config: LlmConfig
    libraries = ("openai",)

    def __init__(self, config: LlmConfig):
        super().__init__(config)
        self.label = "" if config.name == "llm" else config.name
        self.only_passing = config.only_passing
        self.lineage = LINEAGE if config.output == "text" else ()
        self.document_columns = tuple(name for name in self._values if not name.endswith("_reason"))
        asked = {name: value for name, value in question(config, "").items() if name not in ("model", "messages", "response_format")}
        self.parameters = canonical_json(asked)
        self.client: Client | None = None
        self.run: Storage | None = None
        self.shares_limits = any(vars(config.limits).values())

    @property
    def _values(self) -> dict[str, pa.DataType]:
        """The columns of answers, by name."""
        config = self.config
        if config.output == "text":
            return {}
        if config.output == "json":
            return {f"{config.name}_{name}": _type_of(schema) for name, schema in config.properties.items()}
        whole = config.output == "score" and all(float(end).is_integer() for end in config.range)
        kind = pa.string() if config.output == "label" else pa.int64() if whole else pa.float64()
        return {config.name: kind, f"{config.name}_reason": pa.string()}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {**self._values, f"{self.config.name}_refused": pa.string(), f"{self.config.name}_injection_signs": pa.int64()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        config = self.config
        if config.keep:
            return (Rule(config.name, config.name, NOT_IN, config.keep),)
        return () if config.threshold is None else (Rule(config.name, config.name, "<", config.threshold),)

    @property
    def meanings(self) -> Mapping[str, str]:
        said = "{list}" if self.config.output == "label" else "{number}"
        of = f"by the model {plain(self.config.model)}"
        return {self.config.name: f"not labelled {said} {of}" if self.config.output == "label" else f"a score of {said} {of}"}

    def open(self, run: Storage) -> None:
        self.run = run if run.exists("run.json") else None  # single texts have no run

    def setup(self) -> None:
        self.client = self.client or Client(self.config, self._tell)

    def _tell(self) -> None:
        """Writes what this process has asked so far, for `status`: a task may take hours."""
        if self.run is not None and self.client is not None:
            used = self.client.used
            dollars = use(self.config.prices, used["tokens_in"], used["tokens_out"])["dollars"]
            spent = {"step": self.config.name, "model": self.config.model, **used, "dollars": dollars}
            self.run.write_bytes(f"{USED}{self.config.name}-{socket.gethostname()}-{os.getpid()}.json", json.dumps(spent).encode())

    def close(self) -> None:
        if self.client is not None:
            self._tell()
            self.client.close()
            self.client = None

    def begin(self, share: float = 1.0) -> None:
        self.budget = Budget(self.config, share)

    def sampled(self, documents: pa.Table) -> list[dict[str, Any]]:
        """Asks about some documents, whatever their share and the rules, and returns their rows of RECORD."""
        self.setup()
        self.begin()
        assert self.client is not None
        batch = DocumentBatch(documents, documents["text"].combine_chunks(), "words")
        texts, keys = batch.text.to_pylist(), list[str]()
        try:
            answers = self.client.ask(self._questions(texts, keys), self.budget)
        finally:
            self.close()
        return [self._row(batch, place, texts[place], keys[place], answer) for place, answer in enumerate(answers)]

    def measure(self, batch: DocumentBatch) -> StepOutput:
        assert self.client is not None
        ids = batch.documents["id"].to_pylist()
        asked = [place for place, id_ in enumerate(ids) if self._is_asked(place, id_, batch)]
        texts = {place: batch.text[place].as_py() for place in asked}
        keys: list[str] = []
        answers = self.client.ask(self._questions([texts[place] for place in asked], keys), self.budget)
        rows = {place: self._row(batch, place, texts[place], key, answer) for place, key, answer in zip(asked, keys, answers, strict=True)}
        made = self._rewritten(batch, texts, rows) if self.config.output == "text" else None
        columns = {name: pa.array(values, self.columns[name]) for name, values in self._columns_of(rows, len(ids)).items()}
        record = pa.Table.from_pylist([{**row, "value": _as_json(row["value"])} for row in rows.values()], RECORD)
        return StepOutput(columns, documents=made, record=record, counts=self._counts(rows.values()))

    def _counts(self, rows: Collection[Mapping[str, Any]]) -> dict[str, int]:
        name = self.config.name
        return {
            f"{name}_asked": sum(row["refused"] not in NOT_REACHED for row in rows),
            f"{name}_refused": sum(row["refused"] is not None and row["refused"] not in NOT_REACHED for row in rows),
            f"{name}_not_reached": sum(row["refused"] in NOT_REACHED for row in rows),
            f"{name}_tokens_in": sum(row["tokens_in"] for row in rows),
            f"{name}_tokens_out": sum(row["tokens_out"] for row in rows),
            f"{name}_documents": sum(row.get("new_id") is not None for row in rows),
        }

    def summary(self, counts: Mapping[str, int]) -> str:
        asked, refused, left, tokens_in, tokens_out, made = (
            counts.get(f"{self.config.name}_{what}", 0)
            for what in ("asked", "refused", "not_reached", "tokens_in", "tokens_out", "documents")
        )
        dollars = use(self.config.prices, tokens_in, tokens_out)["dollars"]
        parts = [f"{asked:,} asked", f"{refused:,} without a value", f"{tokens_in:,} tokens in, {tokens_out:,} out"]
        parts += [f"${dollars:,.2f}"] if dollars else []
        parts += [f"{made:,} new documents"] if self.config.output == "text" else []
        parts += [f"{left:,} not reached (limits)"] if left else []
        return "; ".join(parts)

    def _questions(self, texts: Sequence[str], keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields key and body of each question when it is needed, and adds the key to `keys`."""
        for text in texts:
            body = question(self.config, text)
            keys.append(key_of(body))
            yield keys[-1], body

    def _is_asked(self, place: int, id_: str, batch: DocumentBatch) -> bool:
        if self.only_passing and batch.passing is not None and not batch.passing[place]:
            return False
        return self.config.share == 1 or xxhash.xxh3_64_intdigest(id_) % SHARES < self.config.share * SHARES

    def _row(self, batch: DocumentBatch, place: int, text: str, key: str, answer: Answer) -> dict[str, Any]:
        """Returns a document's row of RECORD; `value` is not yet JSON."""
        config, value, refused = self.config, None, answer.error
        if refused is None:
            try:
                value = value_of(config, answer.content, answer.finish)
            except Refused as error:
                refused = str(error)
        spent = use(config.prices, answer.tokens_in, answer.tokens_out)["dollars"]
        return {
            "id": batch.documents["id"][place].as_py(), "url": batch.documents["url"][place].as_py(), "step": config.name,
            "model": config.model, "prompt": config.prompt_digest, "parameters": self.parameters, "question": key,
            "answer": answer.content if answer.error is None else None, "value": value, "refused": refused, "finish": answer.finish,
            "tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out, "seconds": answer.seconds, "dollars": spent,
            "cut": len(text) > config.max_chars, "prompt_injection_signs": signs(text[: config.max_chars]),
        }  # fmt: skip

    def _columns_of(self, rows: Mapping[int, dict[str, Any]], documents: int) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [None] * documents for name in self.columns}
        for place, row in rows.items():
            columns[f"{self.config.name}_refused"][place] = row["refused"]
            columns[f"{self.config.name}_injection_signs"][place] = row["prompt_injection_signs"]
            if isinstance(row["value"], dict):
                for name, value in row["value"].items():
                    column = self.config.name if name == self.config.output else f"{self.config.name}_{name}"
                    if column in columns:
                        columns[column][place] = _fitting(value, self.columns[column])
        return columns

    def _rewritten(self, batch: DocumentBatch, texts: Mapping[int, str], rows: Mapping[int, dict[str, Any]]) -> pa.Table:
        """Measures the new texts, refuses those that are not faithful, and returns the others as documents."""
        places = [place for place, row in rows.items() if row["value"] is not None]
        shown = {place: texts[place][: self.config.max_chars] for place in places}
        same = same_language([shown[place] for place in places], [rows[place]["value"] for place in places])
        for place, equal in zip(places, same, strict=True):
            measured = {**faithfulness(shown[place], rows[place]["value"]), "same_language": equal}
            rows[place].update(measured, refused=unfaithful(self.config, measured))
        good = [place for place in places if rows[place]["refused"] is None]
        made = rewritten(self.config, batch.documents, good, [rows[place]["value"] for place in good])
        for place, id_ in zip(good, made["id"].to_pylist(), strict=True):
            rows[place]["new_id"] = id_
        return made


def _type_of(schema: Any) -> pa.DataType:
    """Returns the Arrow type of a property: a number or truth value where the schema says so, else text."""
    named = schema.get("type") if isinstance(schema, dict) else None
    return TYPES.get(named, pa.string()) if isinstance(named, str) else pa.string()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Returns a property's value as its column has it; null where it does not fit in 64 bits."""
    if value is None or kind == pa.bool_():
        return value
    if kind == pa.int64():
        return int(value) if abs(value) < 2**63 else None
    if kind == pa.float64():
        return float(value)
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:REASON]


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
