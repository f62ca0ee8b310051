"""Mixtures: components (documents that meet a condition), their weights, and how often each of their documents is taken; rehydration."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from re import compile as compile_pattern
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import hosts
from corpusmill.tokenize.documents import BUCKETS

#: A name for conditions that is usually no column: its values are made from the URL.
HOST = "host"


class Range(Config):
    """Numbers from `min` on and below `max`."""

    min: float | None = Field(None, allow_inf_nan=False, description="At least this.")
    max: float | None = Field(None, allow_inf_nan=False, description="Less than this.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min or max")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"no number is at least {self.min} and less than {self.max}")
        return self


Value = bool | int | float | str | None
Condition = Value | Range | list[Value]
Where = dict[str, Condition]


class MixtureComponent(Config):
    """The documents that meet all conditions of `where`, and their weight in the mixture."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$", description="Names the component in plan, report and summary.")
    where: Where = Field(
        {},
        description="By column: a value (text: a pattern with * and ?), a list of values of which one is enough, or {min, max}; null is "
        "where the column holds nothing. `host` is that of the URL. Without conditions: every document.",
    )
    weight: float = Field(gt=0, allow_inf_nan=False, description="Its share of the tokens, relative to the other components' weights.")
    max_epochs: float = Field(
        4.0,
        gt=0,
        le=1000,
        description="Most passes over its documents, on average (4 epochs are almost as good as new text).",
    )


class Mixture(Config):
    """The section `tokens.mixture`. A document belongs to the first component whose conditions it meets, or to none."""

    budget_tokens: int = Field(ge=1, description="Tokens of the training split, about.")
    components: list[MixtureComponent] = Field(
        min_length=1, max_length=1000, description="A document belongs to the first component that it fits."
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [component.name for component in self.components]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two components are called {twice[0]}")
        return self


class Rehydration(Config):
    """The section `tokens.rehydrate`: repeats a document by the number of documents of the cluster that it stands for.

    FineWeb-2's method (arXiv 2506.20920): where clusters of a size lose few documents to the filters, theirs are repeated, up to 10 times.
    Its tables by language are `misc/rehydration/weights` of github.com/huggingface/fineweb-2 (commit 995a1ca5).
    """

    copies: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=1000)]] = Field(
        min_length=1,
        description="How often a document is taken, from each size of cluster on: `{1: 1, 2: 3, 9: 1}`; smaller sizes and null: once.",
    )
    column: str = Field("cluster_size", description="The column with the size; in FineWeb-2's files `minhash_cluster_size`.")

    def ranges(self) -> list[tuple[str, Where, int]]:
        """Returns the name, the condition and the copies of each range of sizes; the last one takes the others."""
        sizes = sorted(self.copies)
        found: list[tuple[str, Where, int]] = [
            (f"{self.column} from {size}", {self.column: Range(min=size, max=above)}, self.copies[size])
            for size, above in zip(sizes, [*sizes[1:], None])
        ]
        return [*found, ("others", {}, 1)]


class MatchConfig(Config):
    """The names and conditions of the components, in order."""

    conditions: list[tuple[str, Where]]
    section: str = "tokens.mixture"  # of the recipe, for messages


def match_config(mixture: Mixture | Rehydration) -> MatchConfig:
    if isinstance(mixture, Rehydration):
        return MatchConfig(conditions=[(name, where) for name, where, _ in mixture.ranges()], section="tokens.rehydrate")
    return MatchConfig(conditions=[(component.name, component.where) for component in mixture.components])


def needed_columns(config: MatchConfig, present: list[str], path: str) -> list[str]:
    """Returns the columns that the conditions read. Raises InputError if the shard of documents lacks one."""
    found = set()
    for name, where in config.conditions:
        for column in where:
            real = "url" if column == HOST and HOST not in present else column
            if real not in present:
                raise InputError(f"{path}: no column {column!r}, which {config.section} asks for ({name}); it has {', '.join(present)}.")
            found.add(real)
    return sorted(found or {"id"})


def components_of(documents: pa.Table, config: MatchConfig) -> npt.NDArray[np.int16]:
    """Returns the number of each document's component, the first whose conditions it meets; -1 where it meets none."""
    found = np.full(documents.num_rows, -1, np.int16)
    for number, (name, where) in reversed(list(enumerate(config.conditions))):
        fits = np.ones(documents.num_rows, bool)
        for column, condition in where.items():
            made = column == HOST and HOST not in documents.column_names
            values = hosts(documents["url"]) if made else documents[column]
            fits &= _meets(values, condition, f"{config.section} ({name}): the column {column!r} is {values.type}")
        found[fits] = number
    return found


def _meets(values: pa.ChunkedArray, condition: Condition, what: str) -> npt.NDArray[np.bool_]:
    """Whether each value meets the condition. `what` begins the error's sentence where column and condition have different types."""
    if isinstance(condition, list):
        found = np.zeros(len(values), bool)
        for one in condition:
            found |= _meets(values, one, what)
        return found
    if condition is None:
        return values.is_null().to_numpy()
    return pc.fill_null(_compare(values, condition, what), False).to_numpy()


def _compare(values: pa.ChunkedArray, condition: Any, what: str) -> pa.ChunkedArray:
    kind = values.type
    number = isinstance(condition, int | float) and not isinstance(condition, bool)
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and (number or isinstance(condition, Range)):
        if not isinstance(condition, Range):
            return pc.equal(values, condition)
        low = pc.greater_equal(values, -np.inf if condition.min is None else condition.min)
        return pc.and_(low, pc.less(values, np.inf if condition.max is None else condition.max))
    if pa.types.is_boolean(kind) and isinstance(condition, bool):
        return pc.equal(values, condition)
    if isinstance(condition, str) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return _matches(values, condition)
    shown = {True: "true", False: "false"}.get(condition, condition) if isinstance(condition, bool) else condition
    raise InputError(f"{what}, which can't be compared with {'a range' if isinstance(condition, Range) else repr(shown)}.")


def _matches(values: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Whether each value equals the pattern or, where it holds *, ? or [...], matches it. Each distinct value is matched once."""
    if not any(sign in pattern for sign in "*?["):
        return pc.equal(values, pattern)
    match = compile_pattern(translate(pattern)).match
    coded = values.combine_chunks().dictionary_encode()
    matched = pa.array([match(value) is not None for value in coded.dictionary.to_pylist()], pa.bool_())
    return pa.chunked_array([matched.take(coded.indices)])


# ---- how often each document is taken --------------------------------------------------------------------


Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ComponentShare:
    """What a mixture takes of one component: each document `whole` times, and the documents in the first `picked` buckets once more.

    Counts of tokens: `wanted` by weight and budget, `there` in its training documents, `tokens` that are taken. Where `max_epochs` allows
    fewer than `wanted`, `short` tokens are missing, and no other component makes up for them.
    """

    name: str
    wanted: int
    there: int
    tokens: int
    epochs: float
    whole: int
    picked: int
    short: int


#: Without a mixture every document is taken once.
ONCE = ComponentShare("", 0, 0, 0, 1.0, 1, 0, 0)


def shares(mixture: Mixture | Rehydration, histograms: Integers) -> list[ComponentShare]:
    """Returns the share of each component. `histograms` (components x BUCKETS): tokens of its training documents by bucket of `pick`.

    Raises InputError if a component of a mixture has no tokens.
    """
    if isinstance(mixture, Rehydration):
        sums = zip(mixture.ranges(), histograms.sum(axis=1).tolist(), strict=True)
        return [ComponentShare(name, copies * there, there, copies * there, copies, copies, 0, 0) for (name, _, copies), there in sums]
    total = sum(component.weight for component in mixture.components)
    found = []
    for component, histogram in zip(mixture.components, histograms, strict=True):
        there = int(histogram.sum())
        if not there:
            raise InputError(f"tokens.mixture: no document for training with text in it belongs to the component {component.name}.")
        wanted = round(mixture.budget_tokens * component.weight / total)
        target = min(wanted, int(there * component.max_epochs))
        whole, rest = divmod(target, there)
        picked = _nearest(histogram, rest)
        tokens = whole * there + int(histogram[:picked].sum())
        short = wanted - tokens if target < wanted else 0
        found.append(ComponentShare(component.name, wanted, there, tokens, round(tokens / there, 6), whole, picked, short))
    return found


def _nearest(histogram: Integers, tokens: int) -> int:
    """Returns the number of leading buckets whose tokens together come nearest to `tokens`."""
    ends = np.concatenate(([0], np.cumsum(histogram)))
    after = min(int(np.searchsorted(ends, tokens, "left")), BUCKETS)
    return after - 1 if after and tokens - ends[after - 1] < ends[after] - tokens else after


def copies_of(shares: Sequence[ComponentShare], component: npt.NDArray[np.int16], pick: npt.NDArray[np.uint16]) -> Integers:
    """Returns how often each document is taken for training; 0 where it is in no component (-1)."""
    whole, picked = (np.array([getattr(share, name) for share in shares], np.int64) for name in ("whole", "picked"))
    return np.where(component < 0, 0, whole[component] + (pick < picked[component]))


def most_copies(shares: Sequence[ComponentShare]) -> int:
    return max(share.whole + (share.picked > 0) for share in shares)
