"""Steps of the filter stage. A step measures every document of a batch and may return new texts; `STEPS` lists all steps by name."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.rules import Rule, StepRule
from corpusmill.filters.statistics import REPETITION, WORD_COUNT, Needs, Statistics, measure
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.config import Config, resolve_options
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import read_only, text_buffers
from corpusmill.text.word_rules import WORD_RULES
from corpusmill.text.words import FoundWords, find_words


class DocumentBatch:
    """A batch of documents between two steps: `documents` as they entered the stage, `text` as the earlier steps left it.

    Statistics are measured once for all steps that ask for them. `planned`: the needs of the following steps, up to the next one that
    rewrites the texts.
    """

    def __init__(
        self,
        documents: pa.Table,
        text: pa.Array,
        word_rule: str,
        planned: Sequence[Needs] = (),
        values: Mapping[str, pa.Array] | None = None,
        token_marks: npt.NDArray[np.uint8] | None = None,
    ):
        self.documents = documents
        self.text = text  # large_string, no nulls
        self.word_rule = word_rule
        self.values: Mapping[str, pa.Array] = {} if values is None else values  # the earlier steps' values, by column
        #: bool (documents,): whether each document passes all rules of the earlier steps; set only for steps with `only_passing`.
        self.passing: npt.NDArray[np.bool_] | None = None
        self._token_marks = token_marks
        self._found: FoundWords | None = None
        self._planned = planned
        self._measured: list[tuple[Needs, Statistics]] = []

    def __len__(self) -> int:
        return len(self.text)

    def column(self, name: str) -> pa.Array | pa.ChunkedArray | None:
        """Returns a column: measured by an earlier step, else of the input documents, else None."""
        came = self.documents[name] if name in self.documents.column_names else None
        return self.values.get(name, came)

    def table(self) -> pa.Table:
        """Returns the documents with their current texts and all values that the earlier steps measured."""
        table = self.documents
        for name, column in {**self.values, "text": self.text}.items():
            place = table.schema.get_field_index(name)
            table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
        return table

    def buffers(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Returns `(data, offsets)` of the current texts, as `text.buffers.text_buffers` does. The first offset is 0, and `data`
        ends with the last text.
        """
        data, offsets = text_buffers(self.text)
        return data[offsets[0] : offsets[-1]], read_only(offsets - offsets[0])

    def token_marks(self) -> npt.NDArray[np.uint8]:
        """Returns the marks of where spaCy's tokens begin (`text.spacy_tokens.mark_tokens`) in the data of `buffers`."""
        if self._token_marks is None:
            self._token_marks = find_words("spacy", *self.buffers()).marks
        return self._token_marks

    def found_words(self) -> FoundWords:
        """Returns the words of the current texts by the word rule (`text.words.find_words`)."""
        if self._found is None:
            marked = self.word_rule == "spacy"
            self._found = FoundWords(*self.buffers(), self.token_marks()) if marked else find_words(self.word_rule, *self.buffers())
        return self._found

    def statistics(self, needs: Needs) -> Statistics:
        """Returns the statistics (`filters.statistics.NAMES`) of the current texts, in the order of the documents."""
        for measured, statistics in self._measured:
            if measured.covers(needs):
                return statistics
        for other in self._planned:
            needs = needs.joined(other)
        needs_words = self.word_rule not in WORD_RULES and needs.groups & (WORD_COUNT | REPETITION)
        statistics = measure(self.text, self.word_rule, needs, self.found_words() if needs_words else None)
        self._measured.append((needs, statistics))
        return statistics


@dataclass(frozen=True)
class StepOutput:
    """What a step returns: an array for each of its columns, and the new texts if it changes them."""

    columns: Mapping[str, Any]  # by name, a numpy or Arrow array with an item for each document
    text: pa.Array | None = None
    #: Marks of where spaCy's tokens begin in the new texts (`DocumentBatch.token_marks`), if the step knows them.
    token_marks: npt.NDArray[np.uint8] | None = None
    #: New documents that go on beside the others, with the columns of the batch's documents and the step's `lineage`.
    documents: pa.Table | None = None
    #: Rows that the stage keeps in a table of its own, `KIND/SHARD-STEP.parquet`.
    record: pa.Table | None = None
    #: What the manifest counts.
    counts: Mapping[str, int] = field(default_factory=dict)


class Step(ABC):
    """A filter: the columns that it adds to the report (`columns`), and the rules on them (`rules`).

    A step measures every document, even one that fails an earlier rule. A document's values must not depend on other documents of the
    batch.
    """

    Config: ClassVar[type[Config]]
    #: Rules by the option `preset`. A preset is named after the pipeline that it reproduces and has the rules in that pipeline's order.
    PRESETS: ClassVar[Mapping[str, tuple[Rule, ...]]] = {}
    #: By column, a template (`rules.meaning`) of the sentence that says why its rule fails a document.
    MEANINGS: ClassVar[Mapping[str, str]] = {}
    #: Columns that the kept documents get, too.
    document_columns: tuple[str, ...] = ()
    #: Columns by which the step's new documents say where they come from; null, or 0 for a number, for all others.
    lineage: tuple[pa.Field, ...] = ()
    #: Whether the step returns new texts. The later steps measure these.
    rewrites: bool = False
    #: Whether the step measures only documents that pass all earlier rules. The thresholds of these rules then change what is measured.
    only_passing: bool = False
    #: The libraries of `pipeline.extras` without which the step can't work.
    libraries: tuple[str, ...] = ()
    #: Distinguishes steps of one kind (`datatrove`, `python`) in the report.
    label: str = ""

    def __init__(self, config: Any):
        self.config = config

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The types of this step's columns in the report, by name, in order. By default each column of `MEANINGS`, a count or a number."""
        return {name: pa.int64() if "{count}" in template else pa.float64() for name, template in self.MEANINGS.items()}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules on these columns, in the order of the report."""
        return self.PRESETS[self.config.preset] if self.PRESETS else ()

    @property
    def meanings(self) -> Mapping[str, str]:
        """`MEANINGS`, filled in with the step's options."""
        return self.MEANINGS

    @classmethod
    def without_decisions(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the options that affect measured values, without those that affect only decisions."""
        return options

    @property
    def needs(self) -> Needs:
        """The statistics that `measure` takes from the batch."""
        return Needs()

    def bad_from(self) -> dict[str, float]:
        """Returns, for each column whose high scores are bad, the score from which a document counts as bad if no rule says otherwise."""
        return {}

    @property
    def gpus(self) -> float:
        """The share of a GPU that the step needs; 0 on the CPU."""
        return 0.0

    def model_files(self) -> list[str]:
        """Returns the local files on which the values depend, and downloads them if necessary. A resumed run compares their content."""
        return []

    def model_digests(self) -> list[str]:
        """Returns the digests that a resumed run compares: by default the sha256 (hex) of each of `model_files`. Raises InputError."""
        return [sha256_of(path) for path in self.model_files()]

    def open(self, run: Storage) -> None:  # noqa: B027 - most steps read nothing of the run
        """Opens what earlier tasks of the run wrote. Called before `setup`; without a run, for single texts, there is nothing."""

    def setup(self) -> None:  # noqa: B027 - most steps have nothing to load
        """Loads models. Called once per process, before the first batch."""

    #: Whether values can depend on earlier documents of the shard, as in stateful filters of other projects.
    sequential: ClassVar[bool] = False

    #: Whether the step has limits for the whole stage, of which a shard gets its part in `begin`.
    shares_limits: bool = False

    def begin(self, share: float = 1.0) -> None:  # noqa: B027 - most steps carry nothing from document to document
        """Resets the step before the first batch of each shard: it forgets earlier documents. `share`: the shard's part of all bytes, for
        steps with `shares_limits`."""

    def summary(self, counts: Mapping[str, int]) -> str:
        """Returns a line for the terminal about what the stage has counted of this step; empty where there is nothing to say."""
        return ""

    def close(self) -> None:  # noqa: B027 - most steps hold nothing
        """Ends what `setup` has begun."""

    @abstractmethod
    def measure(self, batch: DocumentBatch) -> StepOutput:
        """Returns the values of all documents of a batch."""


class StatisticsStep(Step):
    """A step whose columns are statistics of the text, or ratios of two statistics."""

    #: By column, names of `filters.statistics.NAMES`. One name: its value (int64). Two: the ratio of the first to the second (float64, NaN
    #: where the second is 0). Three: the third is subtracted from the second before the division.
    STATISTICS: ClassVar[Mapping[str, tuple[str, ...]]]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {column: pa.int64() if len(names) == 1 else pa.float64() for column, names in self.STATISTICS.items()}

    def measure(self, batch: DocumentBatch) -> StepOutput:
        found = batch.statistics(self.needs)
        return StepOutput({column: found.of(*names) for column, names in self.STATISTICS.items()})


def short_form(given: Any, key: str, config: type[Config]) -> Any:
    """Turns `NAME` and `{NAME: options}` into a section with `key` and `options`; returns anything else unchanged."""
    if isinstance(given, str):
        return {key: given}
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, options),) = given.items()
        if name not in config.model_fields:
            return {key: name, "options": {} if options is None else options}
    return given


# ---- The steps by name. A step's module is imported only when a recipe names it

STEPS = {
    "language": "corpusmill.filters.language:Language",
    "gopher_quality": "corpusmill.filters.gopher:GopherQuality",
    "gopher_repetition": "corpusmill.filters.gopher:GopherRepetition",
    "fineweb_quality": "corpusmill.filters.fineweb_quality:FinewebQuality",
    "c4": "corpusmill.filters.c4:C4",
    "dclm": "corpusmill.filters.compat.dclm:Dclm",
    "dolma": "corpusmill.filters.compat.dolma:Dolma",
    "redpajama": "corpusmill.filters.compat.redpajama:RedPajama",
    "mc4_paragraphs": "corpusmill.filters.c4:Mc4Paragraphs",
    "refinedweb_lines": "corpusmill.filters.refinedweb_lines:RefinedwebLines",
    "nemo": "corpusmill.filters.compat.nemo:Nemo",
    "stop_words": "corpusmill.filters.stop_words:StopWords",
    "token_ratio": "corpusmill.filters.ratios:TokenRatio",
    "compression": "corpusmill.filters.ratios:Compression",
    "encoding_damage": "corpusmill.filters.encoding_damage:EncodingDamage",
    "page_type": "corpusmill.filters.page_type:PageTypes",
    "rights": "corpusmill.filters.rights:Rights",
    "pii": "corpusmill.filters.pii:Pii",
    "bad_words": "corpusmill.filters.bad_words:BadWords",
    "classifier": "corpusmill.filters.classifier.step:ClassifierStep",
    "quality": "corpusmill.filters.classifier.step:Quality",
    "toxicity": "corpusmill.filters.classifier.step:Toxicity",
    "spam": "corpusmill.filters.classifier.step:Spam",
    "transformer": "corpusmill.filters.transformer:Transformer",
    "llm": "corpusmill.filters.llm.step:Llm",
    "datatrove": "corpusmill.filters.datatrove_step:DatatroveStep",
    "python": "corpusmill.filters.own:PythonStep",
}
#: Steps that need options, because these name the code or the model to run.
OTHERS = ("classifier", "toxicity", "spam", "transformer", "llm", "datatrove", "python")
#: By step, options that do not change what it measures: how and where, and not what.
INERT_OPTIONS = {"llm": ("url", "key_variable", "concurrency", "timeout", "tries", "cache")}


class NamedStep:
    """A step with its name in the report. The second step of a kind is called `c4_2`, and its columns and rules end in `_2`."""

    def __init__(self, kind: str, occurrence: int, step: Step):
        self.suffix = "" if occurrence == 1 else f"_{occurrence}"
        self.name = kind + (f":{step.label}" if step.label else "") + self.suffix
        self.step = step

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {name + self.suffix: kind for name, kind in self.step.columns.items()}

    @property
    def rules(self) -> list[StepRule]:
        return [
            StepRule(
                self.name,
                replace(rule, name=rule.name + self.suffix, column=rule.column + self.suffix),
                self.step.meanings.get(rule.column, ""),
            )
            for rule in self.step.rules
        ]


def resolve_step(item: Any, folder: str = ".") -> dict[str, dict[str, Any]]:
    """Validates one item of a recipe's list of steps and fills in all defaults: `{name: options}`. In Python an item may also be a step
    object of this package, or a function with `@measures`.

    Paths in the options are relative to `folder`. Raises ValueError, or a ValidationError whose locations begin with the step's name.
    """
    if isinstance(item, str):
        item = {item: None}
    elif isinstance(item, Step):  # made in Python
        kind = f"{type(item).__module__}:{type(item).__qualname__}"
        item = {next((name for name, path in STEPS.items() if path == kind), type(item).__name__): item.config}
    elif callable(item):
        item = {"python": item}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ValueError("a step is one name with its options, for example `- language: {keep: [en]}`")
    ((name, options),) = item.items()
    if name not in STEPS:
        raise ValueError(f"no such step{instead_of(str(name), STEPS)}")
    return {name: resolve_options(load_object(STEPS[name]).Config, options, name, context={"folder": folder})}


def build_steps(items: Sequence[Mapping[str, Any]]) -> list[NamedStep]:
    """Builds the step objects for the resolved items of a configuration; loads no models."""
    steps: list[NamedStep] = []
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        ((name, options),) = item.items()
        kind = load_object(STEPS[name])
        step = kind(kind.Config.model_validate(options))
        seen[name, step.label] += 1
        steps.append(NamedStep(name, seen[name, step.label], step))
    return steps
