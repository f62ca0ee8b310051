"""The rows of a query: DuckDB's relation, which survives a damaged shard and fails in one sentence."""

from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from corpusmill.report.query.run import Run


class Relation:
    """All that DuckDB's relation has: `.df()` gives pandas, `.pl()` polars, `.to_arrow_table()` Arrow, `.fetchall()` tuples,
    `.filter(...)`, `.aggregate(...)`, `.order(...)` and so on another relation.

    Nothing is read before rows are asked for, and each asking reads anew. Where a shard turns out to be damaged, it is left out with a
    warning of the run, and the rows are read again; only a reader of batches (`.to_arrow_reader()`), which has given rows already by then,
    ends with DuckDB's error. Raises InputError for whatever else DuckDB can't do.
    """

    def __init__(self, run: "Run", relation: Any):
        self._run = run
        self._relation = relation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._guarded(lambda: getattr(self._relation, name))
        return self._wrapped(value) if not callable(value) or _is_relation(value) else self._method(name)

    def _method(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            plain = [_plain(value) for value in args]
            named = {key: _plain(value) for key, value in kwargs.items()}
            return self._wrapped(self._guarded(lambda: getattr(self._relation, name)(*plain, **named)))

        return call

    def _guarded(self, action: Any) -> Any:
        return self._run.guarded(action, lambda: self._relation.sql_query())

    def _wrapped(self, value: Any) -> Any:
        return Relation(self._run, value) if _is_relation(value) else value

    def __getitem__(self, name: str) -> "Relation":
        return Relation(self._run, self._guarded(lambda: self._relation[name]))

    def __contains__(self, name: str) -> bool:
        return bool(self._guarded(lambda: name in self._relation))

    def __len__(self) -> int:
        return int(self._guarded(lambda: len(self._relation)))

    def __str__(self) -> str:
        return str(self._guarded(lambda: str(self._relation)))

    def __repr__(self) -> str:
        return str(self)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """What pyarrow, polars and others read a table from."""
        return self.to_arrow_table().__arrow_c_stream__(requested_schema)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """The first rows as a notebook shows them."""
        return self._guarded(lambda: self._relation._repr_mimebundle_(include, exclude))


def _is_relation(value: Any) -> bool:
    """Also of rows in groups (`.group_by(...)`), whose class has no public name."""
    return isinstance(value, duckdb.DuckDBPyRelation) or type(value).__name__ == "GroupedRelation"


def _plain(value: Any) -> Any:
    return value._relation if isinstance(value, Relation) else value
