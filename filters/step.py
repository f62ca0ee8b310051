"""What a step of the filter stage is: it measures every document of a batch, and may give each a new text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.rules import Rule
from corpusmill.filters.statistics import REPETITION, WORD_COUNT, Needs, Statistics, measure
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.text.buffers import MARKED, text_buffers


class Batch:
    """Documents on their way through the steps. `documents` are as they came in, `text` is what the steps before made of theirs.

    Statistics of one text are measured once, however many steps ask: `planned` are the needs of the steps to come up to
    the next one that rewrites text.
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
        self.values: Mapping[str, pa.Array] = {} if values is None else values  # what the steps before have measured, by column
        #: bool (documents,): which ones pass all rules of the steps before; known to steps that ask (`Step.only_passing`).
        self.passing: npt.NDArray[np.bool_] | None = None
        self._token_marks = token_marks
        self._planned = planned
        self._measured: list[tuple[Needs, Statistics]] = []

    def __len__(self) -> int:
        return len(self.text)

    def column(self, name: str) -> pa.Array | pa.ChunkedArray | None:
        """A column that a step before has measured, else one that the documents came with, else None."""
        came = self.documents[name] if name in self.documents.column_names else None
        return self.values.get(name, came)

    def table(self) -> pa.Table:
        """The documents with their texts as they are now, and all values so far."""
        table = self.documents
        for name, column in {**self.values, "text": self.text}.items():
            place = table.schema.get_field_index(name)
            table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
        return table

    def buffers(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """`(data, offsets)` of the current texts as `pipeline.text.buffers.text_buffers`, the first offset 0, no bytes behind the last."""
        data, offsets = text_buffers(self.text)
        return data[offsets[0] : offsets[-1]], offsets - offsets[0]

    def token_marks(self) -> npt.NDArray[np.uint8]:
        """Where spaCy's tokens begin (`pipeline.text.spacy_tokens.mark_tokens`) in the data of `buffers`."""
        if self._token_marks is None:
            data, offsets = self.buffers()
            self._token_marks = load_object(MARKED["spacy"])(data, offsets[:-1], offsets[1:])
        return cast(npt.NDArray[np.uint8], self._token_marks)

    def statistics(self, needs: Needs) -> Statistics:
        """Statistics of the current texts (`filters.statistics.NAMES`), for each document in order."""
        for measured, statistics in self._measured:
            if measured.covers(needs):
                return statistics
        for other in self._planned:
            needs = needs.joined(other)
        by_tokens = self.word_rule == "spacy" and needs.groups & (WORD_COUNT | REPETITION)
        marks = self.token_marks() if by_tokens else None
        statistics = measure(self.text, self.word_rule, needs, marks)
        self._measured.append((needs, statistics))
        return statistics


@dataclass(frozen=True)
class Measured:
    """What a step found: an array for each of its columns, and the new texts where it rewrites."""

    columns: Mapping[str, Any]  # name to numpy or Arrow array, one item a document
    text: pa.Array | None = None
    #: Where spaCy's tokens begin in the new texts (`Batch.token_marks`), where the step knows.
    token_marks: npt.NDArray[np.uint8] | None = None


class Step(ABC):
    """One family of values. Subclasses say which columns they give (`columns`) and which rules decide about them (`rules`).

    A step measures every document, whatever other steps think of it, and each document by itself: its values must not
    depend on what else is in the batch.
    """

    Config: ClassVar[type[Config]]
    #: Tables of rules by the option `preset`, each named after what it reproduces and in the order in which that decides.
    PRESETS: ClassVar[Mapping[str, tuple[Rule, ...]]] = {}
    #: What a rule on a column fails a document for, as a template of `filters.meanings`, by column.
    MEANINGS: ClassVar[Mapping[str, str]] = {}
    #: Columns that are also appended to the documents that go on.
    document_columns: tuple[str, ...] = ()
    #: Whether later steps measure the text that this one gives.
    rewrites: bool = False
    #: Whether it measures documents alone that pass all rules of the steps before. Their thresholds then count for what is measured.
    only_passing: bool = False
    #: Tells apart the steps of one kind that are of different making (`datatrove`, `python`).
    label: str = ""

    def __init__(self, config: Any):
        self.config = config

    @property
    @abstractmethod
    def columns(self) -> dict[str, pa.DataType]:
        """The columns of this step in the report, in order."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules on these columns, in the order in which they are reported."""
        return self.PRESETS[self.config.preset] if self.PRESETS else ()

    @property
    def meanings(self) -> Mapping[str, str]:
        """`MEANINGS` under the step's options."""
        return self.MEANINGS

    @classmethod
    def without_decisions(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Options of the step without those that decide but change no value."""
        return options

    @property
    def needs(self) -> Needs:
        """The statistics that `measure` will ask the batch for."""
        return Needs()

    def firing(self) -> dict[str, float]:
        """Of a classifier: the columns whose high scores are bad, each with the value from which it fires where no rule says another."""
        return {}

    @property
    def gpus(self) -> float:
        """What the step takes of a GPU where there is one; 0 for steps that compute on the CPU."""
        return 0.0

    def model_files(self) -> list[str]:
        """Local files that decide about the values (fetched where need be); their content counts for resuming."""
        return []

    def model_digests(self) -> list[str]:
        """What is to be compared when a run is resumed: by default the sha256 (hex) of each of `model_files`. Raises InputError."""
        return [sha256_of(path) for path in self.model_files()]

    def setup(self) -> None:  # noqa: B027 - most steps have nothing to load
        """Loads models: called once a process, before the first batch."""

    #: Whether a document's values can depend on the documents before it in its shard, as those of others' stateful filters may.
    sequential: ClassVar[bool] = False

    def begin(self) -> None:  # noqa: B027 - most steps carry nothing from document to document
        """Called before the first batch of each shard: whatever the step remembers of documents is to be forgotten."""

    @abstractmethod
    def measure(self, batch: Batch) -> Measured:
        """The values of all documents of a batch."""


def short_form(given: Any, key: str, config: type[Config]) -> Any:
    """`NAME` and `{NAME: options}` as a section with `key` and `options`; anything else as it is."""
    if isinstance(given, str):
        return {key: given}
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, options),) = given.items()
        if name not in config.model_fields:
            return {key: name, "options": {} if options is None else options}
    return given
