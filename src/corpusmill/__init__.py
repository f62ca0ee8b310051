"""Corpusmill: from raw web crawls to training tokens and a small aligned language model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpusmill.report.query.run import open_run

__version__ = "0.1.0"
__all__ = ["open_run"]


def __getattr__(name: str) -> Any:
    """Imports `open_run` when it is first used: it needs DuckDB and pyarrow, which `import corpusmill` should not load."""
    if name == "open_run":
        from corpusmill.report.query.run import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
