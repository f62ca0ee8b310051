"""The recipe's section `filter`, and the worker that measures the documents of a shard and decides about them."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from math import isnan
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo, model_validator

from corpusmill.filters.presets import expand
from corpusmill.filters.rules import StepRule, decide, rules_metadata, with_thresholds
from corpusmill.filters.step import INERT_OPTIONS, DocumentBatch, NamedStep, StepOutput, build_steps, resolve_step
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.schemas import PLAIN, REPORT, with_columns
from corpusmill.pipeline.shards import PART_BYTES, Content, ParquetBuffer, iter_tables, open_parquet
from corpusmill.pipeline.stage import DocumentFiles, Output, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.text.word_rules import WordRule


def _resolved_place(place: Any, info: ValidationInfo) -> list[dict[str, dict[str, Any]]]:
    """Returns the step at a place of the list, or the steps that `expand` has put there (a tuple)."""
    folder = (info.context or {}).get("folder", ".")
    return [resolve_step(item, folder) for item in (place if isinstance(place, tuple) else (place,))]


def _without_folder(key: str, value: Any) -> Any:
    """Returns the value of an option; a path option (`model`, `function`) loses its folder."""
    return value.rpartition("/")[2] if key in ("model", "function") and isinstance(value, str) and value.startswith("/") else value


def _placeless(item: Any) -> Any:
    """Returns a step with its options, paths without their folders; anything else (in a damaged run) unchanged."""
    if not isinstance(item, dict):
        return item
    return {
        name: {key: _without_folder(key, value) for key, value in options.items() if key not in INERT_OPTIONS.get(name, ())}
        if isinstance(options, dict)
        else options
        for name, options in item.items()
    }


def _read_threshold(given: Any) -> Any:
    """Returns None for `off`, which YAML reads as false, else a number. Raises ValueError."""
    if given is None or given is False or given == "off":
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = float("nan")
    if isnan(number):
        raise ValueError(f"a threshold is a number, off or on, not {given!r}")
    return number if isinstance(given, str) else given


Threshold = Annotated[
    int | float | None, BeforeValidator(_read_threshold), PlainSerializer(lambda value: "off" if value is None else value)
]
StepItem = Annotated[dict[str, dict[str, Any]], PlainValidator(_resolved_place)]
StepItems = Annotated[list[StepItem], AfterValidator(lambda places: [step for place in places for step in place])]


class FilterConfig(Config):
    """The measured values, their order, and the thresholds that decide."""

    preset: str | None = Field(
        None,
        description="Steps, word rule and thresholds of a published pipeline (filters/presets.yaml). `steps` are added after its steps; "
        "where these are to stand elsewhere, `- preset: NAME` among `steps` says so.",
    )
    language: str | None = Field(None, description="For the preset fineweb-2: the language of the thresholds, by any of its codes.")
    language_config: str | None = Field(
        None,
        description="For the preset fineweb-2: its folder of configurations (`configs` of huggingface/fineweb-2), or one of its files.",
    )
    language_model: str | None = Field(
        None, description="For the preset fineweb-2: path of GlotLID, or of another fastText model with labels such as fra_Latn."
    )
    word_rule: WordRule = Field(
        "words",
        description="`words`: a run of letters, digits and underscores, or one symbol; `whitespace`: what stands between spaces; "
        "`characters`: as `words`, and each character of a script without spaces (Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan); "
        "`spacy`: the tokens of spaCy's English tokenizer, as datatrove has them; `datatrove:LANGUAGE`: its words of any other language, "
        "by the tokenizer that it has for it (`datatrove:jpn_Jpan`); `jieba`, `newmm`: the same for Chinese and Thai, by kernels.",
    )
    steps: StepItems = Field(
        [{"language": {}}, {"gopher_repetition": {}}, {"gopher_quality": {}}],
        validate_default=True,
        description="The steps in order, each a name with its options: `- language: {keep: [en]}`.",
    )
    thresholds: dict[str, Threshold] = Field(
        {}, description="Other thresholds than the steps' own, by the name of the rule; off switches a rule off, on restores it."
    )

    @classmethod
    def without_places(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the section without the folders of models and functions, and without a step's INERT_OPTIONS.

        These differ between machines; resuming compares the content of the files (`FilterStage.tasks`).
        """
        steps = values.get("steps")
        return {**values, "steps": [_placeless(item) for item in steps]} if isinstance(steps, list) else values

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any, info: ValidationInfo) -> Any:
        if not isinstance(section, Mapping):
            return section
        thresholds = section.get("thresholds") or {}  # null where all of them are comments
        if isinstance(thresholds, Mapping):  # YAML reads on as true
            section = {**section, "thresholds": {name: value for name, value in thresholds.items() if value is not True and value != "on"}}
        whole = expand(section, (info.context or {}).get("folder", "."))
        rules: set[str] = set()
        if unknown := whole.keys() - cls.model_fields.keys():
            with suppress(ValueError):  # of a step, which is told where it stands
                places = whole.get("steps", cls.model_fields["steps"].default)
                steps = build_steps([step for place in places for step in _resolved_place(place, info)])
                rules = {rule.rule.name for rule in _step_rules(steps)}
        for key in unknown & rules:
            raise ValueError(f"{key}: unknown key; the threshold of this rule is filter.thresholds.{key}")
        return whole

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        steps = build_steps(self.steps)
        for names, what in (
            ([name for step in steps for name in step.columns] + REPORT.names, "column"),
            ([rule.rule.name for step in steps for rule in step.rules], "rule"),
        ):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f"steps: two {what}s have the name {twice[0]}")
        if any(step.step.lineage for step in steps) and any(rule.unknown for step in steps for rule in step.step.rules):
            raise ValueError("steps: a rule that keeps a share of the corpus can't stand beside a step that writes documents")
        with_thresholds(_step_rules(steps), self.thresholds)
        return self


def _step_rules(steps: list[NamedStep]) -> list[StepRule]:
    return [rule for step in steps for rule in step.rules]


def rule_table(config: FilterConfig) -> list[StepRule]:
    """Returns all rules that decide, with their steps and thresholds, in the order of the report."""
    return with_thresholds(_step_rules(build_steps(config.steps)), config.thresholds)


# ---- The worker: measures the documents of a shard with all steps, and decides about them


class FilterWorker(Worker):
    """Measures the documents of one shard and decides about them."""

    memory_mb = 900
    by_parts = True
    config: FilterConfig

    def __init__(self, config: FilterConfig, run: Storage, params: dict[str, Any]):
        super().__init__(config, run, params)
        self.steps = build_steps(config.steps)
        self.rules = rule_table(config)
        self._rewriter: Rewriter | None = None
        self._more: dict[str, ParquetBuffer] = {}
        self._counts: Counter[str] = Counter()
        self._schemas = (pa.schema([]), pa.schema([]))

    def setup(self) -> None:
        for step in self.steps:
            step.step.open(self.run)
            step.step.setup()

    def close(self) -> None:
        for step in self.steps:
            step.step.close()

    def process(self, task: Task) -> Output:
        (shard,) = task.inputs
        data_schema, report_schema = self.begin(shard)
        report_schema = report_schema.with_metadata(rules_metadata(self.rules))
        made, size = DocumentFiles(data_schema, report_schema), 0
        for documents in iter_tables(self.run, shard.path, parts=self.parts, part_bytes=PART_BYTES):
            kept, report = self.filter(documents, shard)
            made.add(kept.select(data_schema.names).cast(data_schema), report.select(report_schema.names).cast(report_schema))
            size += pc.sum(pc.binary_length(documents["text"])).as_py() or 0
        output = made.output(task.key, bytes_in=size, counts=dict(self._counts))
        output.files |= self.more_files(task.key)
        return output

    def begin(self, shard: FileRef) -> tuple[pa.Schema, pa.Schema]:
        """Prepares the steps for a new shard; returns the schemas of the kept documents and of the report."""
        for step in self.steps:
            step.step.begin(shard.bytes / self.params["bytes"] if "bytes" in self.params else 1.0)
        with open_parquet(self.run, shard.path) as file:
            schema = file.schema_arrow.remove_metadata()
        self._rewriter, self._more, self._counts = None, {}, Counter()
        if "text" not in schema.names:
            raise InputError(f"{self.run.path(shard.path)}: has no column text (it has {', '.join(schema.names)}).")
        self._schemas = self.schemas(schema)
        return self._schemas

    def _keep_more(self, step: NamedStep, measured: StepOutput) -> None:
        """Keeps what a step returns beside columns and texts, in files of its own."""
        self._counts.update(measured.counts)
        kind, _, label = step.name.partition(":")
        name = label or kind
        if measured.documents is not None and measured.documents.num_rows:
            made, schema = measured.documents, self._schemas[0]
            columns = [made[f.name] if f.name in made.column_names else pa.nulls(made.num_rows, f.type) for f in schema]
            self._more.setdefault(f"data/{{}}-{name}", ParquetBuffer(schema)).add(pa.table(columns, names=schema.names).cast(schema))
        if measured.record is not None and measured.record.num_rows:
            self._more.setdefault(f"{kind}/{{}}-{name}", ParquetBuffer(measured.record.schema)).add(measured.record)

    def more_files(self, key: str) -> dict[str, Content]:
        """Returns the files that the steps have added to those of the shard `key`."""
        return {f"{path.format(key)}.parquet": buffer.close() for path, buffer in sorted(self._more.items())}

    def schemas(self, documents: pa.Schema) -> tuple[pa.Schema, pa.Schema]:
        """Returns the schemas of the kept documents and of the report, given the schema of the input documents."""
        fields = [pa.field(name, kind) for step in self.steps for name, kind in step.columns.items()]
        by_name = {field.name: field for field in fields}
        added = [by_name[name].with_name(column) for column, name in self._document_columns().items()]
        added += [field for step in self.steps for field in step.step.lineage]
        place = documents.get_field_index(PLAIN.name)
        return with_columns(documents if place < 0 else documents.remove(place), added), with_columns(REPORT, fields)

    def filter(self, documents: pa.Table, shard: FileRef) -> tuple[pa.Table, pa.Table]:
        """Returns the kept documents, with the columns that the steps add, and a report row for every input document."""
        report, new_text, values = self.report(documents, shard)
        failed = decide(self.rules, values, report.num_rows)
        report = decided(report, failed, report["chars_out"].to_numpy())
        return self.with_values(documents, new_text, values).filter(report["kept"]), report

    def report(self, documents: pa.Table, shard: FileRef) -> tuple[pa.Table, pa.Array, dict[str, pa.Array]]:
        """Returns a report row for every document, without the decisions; the new texts; and all values.

        `chars_out` is the length of the new text, even if the document is not kept. Where documents are Markdown, the steps measure the
        text without marks; those that rewrite then rewrite the Markdown, as steps of their own, because a step may carry a state.
        """
        text = self._checked_text(documents, shard)
        if PLAIN.name not in documents.column_names:
            values, new_text = self.measure(documents, text)
        else:
            plain = pc.coalesce(documents[PLAIN.name].combine_chunks(), text)
            place = documents.schema.get_field_index("text")
            values, _ = self.measure(documents.set_column(place, "text", plain).drop_columns(PLAIN.name), plain)
            self._rewriter = self._rewriter or Rewriter(self)
            new_text = self._rewriter.worker.rewrite(documents, values)
        lengths = {"chars_in": pc.utf8_length(text), "chars_out": pc.utf8_length(new_text)}
        return pa.table({"id": documents["id"], "url": documents["url"], **lengths, **values}), new_text, values

    def with_values(self, documents: pa.Table, text: pa.Array, values: Mapping[str, Any]) -> pa.Table:
        """Returns the documents with their new texts and with the columns that the steps add."""
        data = documents.set_column(documents.schema.get_field_index("text"), "text", text)
        for column, name in self._document_columns().items():
            place = data.schema.get_field_index(column)
            data = data.append_column(column, values[name]) if place < 0 else data.set_column(place, column, values[name])
        for field in (field for step in self.steps for field in step.step.lineage if field.name not in data.column_names):
            nothing = pa.scalar(0 if pa.types.is_integer(field.type) else None, field.type)
            data = data.append_column(field, pa.repeat(nothing, data.num_rows))
        return data

    def rewrite(self, documents: pa.Table, values: Mapping[str, Any]) -> pa.Array:
        """Returns the final texts; only the steps that rewrite are performed. `values`: the columns of all steps."""
        text, so_far = documents["text"].combine_chunks(), dict[str, Any]()
        for step in self.steps:
            if step.step.rewrites:
                new_text = step.step.measure(DocumentBatch(documents, text, self.config.word_rule, values=so_far)).text
                text = text if new_text is None else new_text
            so_far.update({name: values[name] for name in step.columns})
        return text

    def measure(self, documents: pa.Table, text: pa.Array) -> tuple[dict[str, pa.Array], pa.Array]:
        """Returns all values of all steps by column, and the final texts."""
        columns: dict[str, pa.Array] = {}
        batch = self._batch(documents, text, 0, columns)
        for place, step in enumerate(self.steps):
            if step.step.only_passing:
                batch.passing = self.passing(place, columns, len(text))
            measured = step.step.measure(batch)
            self._keep_more(step, measured)
            for (name, kind), plain in zip(step.columns.items(), step.step.columns):
                columns[name] = pa.array(measured.columns[plain], kind)
            if measured.text is not None:
                batch = self._batch(documents, measured.text, place + 1, columns, measured.token_marks)
        return columns, batch.text

    def passing(self, place: int, values: Mapping[str, pa.Array], documents: int) -> npt.NDArray[np.bool_]:
        """bool (documents,): whether each document passes all rules of the steps before `place`."""
        before = {step.name for step in self.steps[:place]}
        passing = np.ones(documents, bool)
        for rule in self.rules:
            if rule.step in before:
                passing &= ~rule.rule.failing(values[rule.rule.column])
        return passing

    def _batch(
        self, documents: pa.Table, text: pa.Array, place: int, values: Mapping[str, pa.Array], token_marks: Any = None
    ) -> DocumentBatch:
        """Returns a batch that measures its statistics once for all steps from `place` up to the next one that rewrites."""
        planned = []
        for step in self.steps[place:]:
            planned.append(step.step.needs)
            if step.step.rewrites:
                break
        return DocumentBatch(documents, text, self.config.word_rule, planned, values, token_marks)

    def _checked_text(self, documents: pa.Table, shard: FileRef) -> pa.Array:
        column = documents["text"].combine_chunks()
        where = self.run.path(shard.path)
        if not pa.types.is_large_string(column.type):
            raise InputError(f"{where}: the column text is {column.type}, not large_string.")
        if column.null_count:
            raise InputError(f"{where}: a document has no text (null).")
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(f"{where}: a text is not valid UTF-8 ({error}).") from error
        return column

    def _document_columns(self) -> Mapping[str, str]:
        """The columns that documents get, each with the report's column that it copies. If two steps are of one kind, the column of the
        later one is copied."""
        return {column: column + step.suffix for step in self.steps for column in step.step.document_columns}


def decided(report: pa.Table, failed: pa.Array, lengths: npt.NDArray[np.int64]) -> pa.Table:
    """Returns the report with the columns `failed` and `kept`, and with the new `lengths` (characters) of kept documents in `chars_out`."""
    kept = pc.equal(pc.list_value_length(failed), 0)
    columns = {"kept": kept, "failed": failed, "chars_out": pc.if_else(kept, pa.array(lengths, pa.int64()), 0)}
    for name, column in columns.items():
        place = report.schema.get_field_index(name)
        field = REPORT.field(name)  # Parquet renames the list's items
        report = report.append_column(field, column) if place < 0 else report.set_column(place, field, column)
    return report


class Rewriter:
    """Makes the new texts of kept documents again, from the shard's report; performs only the steps that rewrite."""

    def __init__(self, worker: FilterWorker):
        self.worker = FilterWorker(worker.config, worker.run, worker.params)  # steps of its own, because shards are processed in parallel
        rewriting = [step.step for step in self.worker.steps if step.step.rewrites]
        self.sequential = any(step.sequential for step in rewriting)  # a text depends on earlier documents
        for step in rewriting:
            step.setup()
            step.begin()

    def at(self, documents: pa.Table, report: pa.Table, places: pa.Array) -> pa.Table:
        """Returns the documents at `places` with their new texts. `documents`: the next ones of the shard; `report` has a row for each."""
        if self.sequential:
            return self._rewritten(documents, report).take(places)
        return self._rewritten(documents.take(places), report.take(places))

    def _rewritten(self, documents: pa.Table, report: pa.Table) -> pa.Table:
        text = self.worker.rewrite(documents, dict(zip(report.column_names, report.columns)))
        return self.worker.with_values(documents, text, report)
