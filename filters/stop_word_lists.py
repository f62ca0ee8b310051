"""Stop words by language, as spaCy has them."""

import importlib
from functools import cache
from pathlib import Path

from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.text.spacy_import import import_spacy


@cache
def languages() -> tuple[str, ...]:
    """The codes of the languages that spaCy has stop words for."""
    import_spacy()
    import spacy.lang

    (folder,) = spacy.lang.__path__
    return tuple(sorted(path.parent.name for path in Path(folder).glob("*/stop_words.py")))


@cache
def stop_words(language: str) -> frozenset[str]:
    """spaCy's stop words of a language. Raises ConfigError where it has none."""
    if language not in languages():
        raise ConfigError(f"there is no list of stop words for the language {language!r} (there is one for {', '.join(languages())}).")
    return frozenset(importlib.import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS)
