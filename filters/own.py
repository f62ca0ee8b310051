"""What a filter of your own needs: a decorator that says which columns a function gives and which rules decide about them.

    from corpusmill.filters.own import Rule, measures

    @measures({"exclamations": "int64"}, rules=[Rule("too_loud", "exclamations", ">", 20)])
    def loud(documents):
        return {"exclamations": pc.count_substring(documents["text"], "!")}

A recipe names it by file or module: `- python: loud.py:loud`. docs/filters.md has more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from corpusmill.filters.rules import Rule

__all__ = ["Declaration", "Rule", "measures"]

Function = TypeVar("Function", bound=Callable[..., Mapping[str, Any]])
Types = Mapping[str, str | pa.DataType]
ATTRIBUTE = "corpusmill_declaration"


@dataclass(frozen=True)
class Declaration:
    """The columns that a function gives, the rules on them, and whether it gives new texts too (under the name `text`)."""

    columns: Mapping[str, pa.DataType]
    rules: tuple[Rule, ...] = ()
    rewrites: bool = False

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.column not in self.columns:
                raise ValueError(f"the rule {rule.name} is on a column {rule.column!r}, which is not declared")


def column_types(columns: Types) -> dict[str, pa.DataType]:
    """Arrow types by column, where they may be written as names (`float64`, `int64`, `string`, `bool`). Raises ValueError."""
    types = {}
    for name, kind in columns.items():
        try:
            types[name] = pa.type_for_alias(kind) if isinstance(kind, str) else kind
        except ValueError as error:
            raise ValueError(f"the column {name} has a type that Arrow does not know: {kind!r}") from error
    return types


def measures(columns: Types, rules: Iterable[Rule] = (), rewrites: bool = False) -> Callable[[Function], Function]:
    """Declares a function as a step: from an Arrow table of documents to a mapping with an array for each of `columns`.

    The table has the documents' columns, `text` as the steps before left it, and all values that those steps measured. What
    is given for a document must not depend on the others. With `rewrites` the mapping also has `text`. Raises ValueError.
    """
    declaration = Declaration(column_types(columns), tuple(rules), rewrites)

    def declare(function: Function) -> Function:
        setattr(function, ATTRIBUTE, declaration)
        return function

    return declare
