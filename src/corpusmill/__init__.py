"""Corpusmill: from raw web crawls to training tokens and a small aligned language model.

    import corpusmill
    run = corpusmill.run("fineweb", "crawl/*.warc.gz", "runs/first")
    run.sql("SELECT url, failed FROM filter_report WHERE NOT kept").df()

`import corpusmill` loads no library; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpusmill.api import run
    from corpusmill.pipeline.errors import ConfigError, CorpusmillError, Incomplete, InputError, NothingKept
    from corpusmill.pipeline.recipe import Recipe
    from corpusmill.report.measured import measure
    from corpusmill.report.query.run import Run, open_run
    from corpusmill.train.data import TokenDataset

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "CorpusmillError",
    "Incomplete",
    "InputError",
    "NothingKept",
    "Recipe",
    "Run",
    "TokenDataset",
    "measure",
    "open_run",
    "run",
]

#: The modules that define these names.
_MODULES = {
    "api": ("run",),
    "pipeline.errors": ("ConfigError", "CorpusmillError", "Incomplete", "InputError", "NothingKept"),
    "pipeline.recipe": ("Recipe",),
    "report.measured": ("measure",),
    "report.query.run": ("Run", "open_run"),
    "train.data": ("TokenDataset",),
}


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` when it is first used. Raises ImportError, in one sentence, where its libraries are not installed."""
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        from corpusmill.pipeline.extras import EXTRAS, sentence

        if error.name not in EXTRAS:
            raise
        raise ImportError(f"corpusmill.{name}: {sentence(error.name)}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__", "__all__", "__doc__", "__file__", "__name__", "__path__"]
